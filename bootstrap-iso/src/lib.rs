//! Kernel, initramfs and tether in one bootable, reproducible ISO.
//!
//! A [`Build`] names its inputs as files and makes the image; [`Kernel`] and [`Loaders`] find
//! those inputs in the distribution's packages. The agent is taken as a file: this crate
//! knows nothing of what it does, only that it is `/init`.
//!
//! ```text
//! kernel package ──► vmlinuz ───────────────────────────────┐
//!        └─► *.ko ──► modules ─┐                            │
//! tether (a file) ─────────────┴► cpio ──► initramfs ──► tree ──► xorriso ──► image ──► read back
//! loader packages ──► isolinux, ldlinux, grub ─► esp ───────┘
//! ```
//!
//! What the image holds is listed in one place, [`Tree::files`]; what the initramfs holds is the
//! agent as `/init`, `/dev/console`, and `/lib/modules` as [`Modules`] documents it.
//!
//! Same inputs, same bytes: nothing of the host, the time or the order of directories gets in.

mod agent;
mod build;
mod cli;
mod cpio;
mod esp;
mod image;
mod initramfs;
mod kernel;
mod loaders;
mod modinfo;
mod modules;
mod stamp;
mod tree;

pub use agent::{AgentError, build as build_agent, check as check_agent};
pub use build::{Build, BuildError, Sizes};
pub use cli::Cli;
pub use cpio::Archive;
pub use image::ImageError;
pub use initramfs::{Compression, compose};
pub use kernel::{Kernel, KernelError};
pub use loaders::Loaders;
pub use modinfo::{Modinfo, ModinfoError};
pub use modules::{Modules, ModulesError, Signatures};
pub use tree::{CATALOG, CMDLINE, ESP, ISOLINUX, Tree};
