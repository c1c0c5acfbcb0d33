//! The multiplexer of containerVM serial ports: one link per VM, a durable journal of its output,
//! and any number of clients.
#![forbid(unsafe_code)]

pub mod api;
pub mod clock;
pub mod daemon;
pub mod place;
pub mod store;
