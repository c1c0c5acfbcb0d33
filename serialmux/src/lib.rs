//! The multiplexer of containerVM serial ports: one link per VM, a durable journal of its output,
//! and any number of clients.
#![forbid(unsafe_code)]

pub mod api;
pub mod attach;
pub mod cli;
pub mod client;
pub mod clock;
pub mod columns;
pub mod daemon;
pub mod difference;
pub mod exec;
pub mod iso;
pub mod launch;
pub mod moment;
pub mod place;
pub mod reunion;
pub mod signals;
pub mod store;
pub mod terminal;
