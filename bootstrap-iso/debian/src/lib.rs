//! What this project takes from a Debian or Ubuntu host: packages installed through apt, or downloaded and unpacked without installing.
//!
//! Programs that must run here (QEMU, xorriso) are installed by [`ensure`], which says
//! what it installs and why before it does. Files that only go *into* something we build
//! (a kernel, a boot loader) are taken out of their packages by [`unpack`] and never touch
//! the host's own system. [`rust_target`] does for rustup what `ensure` does for apt.
//!
//! Everything here is safe to interrupt: a cache entry appears by one rename, and whatever
//! an interrupted run left behind is removed by the next one.
//!
//! The crate never prints. What a person should read goes through the callback each
//! function takes, one line per call, before the step it announces.

mod apt;
mod cache;
mod host;
mod need;
#[cfg(test)]
mod script;
mod toolchain;

pub use apt::DebianError;
pub use cache::{dependency, unpack, unpack_dependency};
pub use need::{Need, Probe, ensure, on_path};
pub use toolchain::rust_target;

/// Receives one line of progress at a time, without a line end.
pub type Tell<'a> = &'a mut dyn FnMut(&str);
