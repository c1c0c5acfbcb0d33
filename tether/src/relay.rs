//! Bytes between the process's standard streams and the link's channels, in both directions.
//!
//! Nothing is read that cannot be passed on or kept: output is read only into room that the channel has, or
//! its [`backlog`](Backlog); input is taken from the channel only when the process has taken what came
//! before, and is released to the multiplexer only then. So a full channel stops the process's writes, unless
//! it asked not to be stopped, and a process that does not read stops the sender of its input.

mod backlog;
mod input;
mod output;

pub use backlog::{Backlog, WhenFull};
pub use input::InputRelay;
pub use output::{Flow, OutputRelay};

#[cfg(test)]
mod tests;
