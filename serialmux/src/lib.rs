//! The multiplexer of containerVM serial ports: one link per VM, many clients.
