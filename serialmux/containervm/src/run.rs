//! `containervm run`: what was asked for and what the image says, made into a VMX file by Docker's rules.

mod environment;
mod log_opt;
mod network;
mod process;
mod quantity;
mod security;
mod spool;
mod write;

use std::path::PathBuf;

use guestinfo::{ContainerSpec, EncodeError, ProcessSpec, vmx::VmxNameError};

pub use self::{
    log_opt::{LogOpt, LogOptError},
    network::{NetworkMode, NetworkModeError, NetworkOptions, Publish, PublishError},
    quantity::{Memory, bytes, cpus, disk, memory, nano_cpus},
    security::SecurityOption,
    spool::{SpoolDisk, SpoolDiskError},
    write::{Hardware, vmx},
};
use crate::{identity::IdentityError, volume::Attached};

/// Everything `run` can be told about the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The IMAGE, as given.
    pub image: String,
    /// `-t`: a terminal.
    pub tty: bool,
    /// `-i`: an open stdin.
    pub interactive: bool,
    /// `-e`: `NAME=VALUE`, or `NAME` to take it from this process's environment.
    pub env: Vec<String>,
    /// `--env-file`, weaker than `-e`.
    pub env_files: Vec<PathBuf>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-u`: `USER[:GROUP]`.
    pub user: Option<String>,
    /// `-h`; the short id unless given.
    pub hostname: Option<String>,
    /// `--entrypoint`; replaces the image's, and clears its command. Empty clears both.
    pub entrypoint: Option<String>,
    /// `CMD…`; replaces the image's.
    pub command: Vec<String>,
    /// Limits, capabilities and the like.
    pub process: ProcessSpec,
    /// Mounts, init, and what may be used in all.
    pub container: ContainerSpec,
    /// Whether the process waits until a client has attached.
    pub waits_for_attach: bool,
    /// `--stop-signal`; the image's unless given.
    pub stop_signal: Option<String>,
    /// `--log-opt`.
    pub log_opts: Vec<LogOpt>,
    /// `--restart`: in Docker's words when to run the process again; empty: never.
    pub restart: String,
    /// `--network` and the like.
    pub network: NetworkOptions,
    /// `-v`, with their images.
    pub volumes: Vec<Attached>,
    /// The disk for `--log-opt spool=SIZE`.
    pub spool: Option<SpoolDisk>,
}

/// Why a container cannot be run as asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither the image nor the user names a command.
    #[error(
        "no command: the image {0} names none, so give one after it (such as: containervm run {0} /bin/sh)"
    )]
    NoCommand(String),
    /// A restart policy that is none.
    #[error("--restart: {0}")]
    Restart(#[from] guestinfo::PolicyError),
    /// A variable that is none.
    #[error(
        "{origin}: {text:?} is not a variable; expected NAME=VALUE, or NAME to take it from the environment"
    )]
    Variable {
        /// `-e`, or a file and line.
        origin: String,
        /// What stands there.
        text: String,
    },
    /// An environment file that cannot be read.
    #[error("cannot read the environment file {path}: {source}")]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A working directory that is not absolute.
    #[error("the working directory {0:?} is not absolute; it must begin with \"/\"")]
    Workdir(String),
    /// A host name that Linux does not take.
    #[error(
        "the host name {0:?} is not possible; use letters, digits, \"-\" and \".\", at most 64"
    )]
    Hostname(String),
    /// A text with a zero byte, which no process can be given.
    #[error("{what} contains a zero byte")]
    ZeroByte {
        /// What it is.
        what: &'static str,
    },
    /// Not an amount of memory.
    #[error("{0:?} is not an amount of memory; expected a number with b, k, m or g, such as 512m")]
    Memory(String),
    /// Too little of it.
    #[error("{given} is too little {what}; at least {least}m are needed")]
    TooLittle {
        /// What was given.
        given: String,
        /// Of what.
        what: &'static str,
        /// The least possible, in MiB.
        least: u32,
    },
    /// An option that a containerVM has no use for.
    #[error(
        "the security option {0:?} is not known; expected no-new-privileges, or systempaths=confined to hide what Docker hides of /proc and /sys"
    )]
    Security(String),
    /// Not a number of processors.
    #[error("{0:?} is not a number of processors; expected one between 0.01 and 255, such as 2")]
    Cpus(String),
    /// No random numbers.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A name that VMX cannot hold.
    #[error(transparent)]
    Vmx(#[from] VmxNameError),
    /// A value that guestinfo cannot hold.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}
