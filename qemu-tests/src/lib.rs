//! Black-box tests that boot real containerVMs, and what they are written with.
//!
//! A test is a short script: it opens a [`Lab`] (a home, a daemon and VMs of its own), starts the
//! programs a user would start, waits for what they say, and compares.
//!
//! ```no_run
//! # use qemu_tests::Lab;
//! let lab = Lab::new();
//! lab.run(["busybox", "echo", "hello"]).code(0).prints("hello\n");
//! ```
//!
//! * Programs are the built ones ([`Checkout`]), used through their command lines only.
//! * Nothing sleeps. A wait ends with what it waits for, with the end of the program or of the QEMU
//!   concerned, or at a generous [`deadline`]; the last three fail the test.
//! * A lab that goes away, also by a panic, ends every process that was started in it. After a panic
//!   it first shows the commands, the last console lines and the daemon's log.
//! * A test that cannot run here says so with [`skip`], which `cargo qemu-tests` counts.

pub mod bench;
mod checkout;
mod debian_root;
mod debugger;
mod evidence;
mod family;
mod finished;
mod host_vsock;
mod lab;
mod monitor;
mod oci;
mod output;
mod program;
mod proxy;
mod terminal;
mod vmware;

pub mod deadline;
pub mod tally;

pub use checkout::{BUILT, Checkout};
pub use debian_root::debian_root;
pub use family::Relative;
pub use finished::Finished;
pub use host_vsock::HostVsock;
pub use lab::Lab;
pub use monitor::Monitor;
pub use oci::OciImage;
pub use program::Program;
pub use proxy::{Proxy, Weather};
pub use terminal::Terminal;
pub use vmware::Vmware;

use sha2::{Digest as _, Sha256};

/// Says why a test does not run here; `cargo qemu-tests` counts the tests that do.
pub fn skip(reason: &str) {
    eprintln!("{}{reason}", tally::SKIPPED);
}

/// A figure for the record: shown by `cargo qemu-tests`, asserted nowhere.
pub fn record(line: &str) {
    eprintln!("{}{line}", tally::MEASURED);
}

/// SHA-256 in hexadecimal digits, as `sha256sum` prints it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
