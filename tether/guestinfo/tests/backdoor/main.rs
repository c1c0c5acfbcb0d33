//! VMware's backdoor against an emulated hypervisor, called directly and by real instructions.
#![allow(missing_docs, reason = "a test has no readers of its API")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod instructions;
mod rpctool;
mod scenarios;
mod script;
mod source;
mod toolbox;
