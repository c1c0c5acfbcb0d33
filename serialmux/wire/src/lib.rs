//! The framed protocol between a containerVM and serialmux: sans-IO, no clock, no sockets.
