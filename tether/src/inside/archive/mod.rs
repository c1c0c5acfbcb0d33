//! Tar archives of parts of a container, made and unpacked as Docker's `cp` expects them.
//!
//! Runs in a worker process only ([`super::job`]): whatever a hostile tree or archive does, it happens there.

pub mod header;
pub mod pack;
pub mod reader;
pub mod unpack;

#[cfg(test)]
mod tests;
