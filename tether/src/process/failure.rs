//! Why the container's process could not be started, in Docker's words and with Docker's exit code.

use nix::errno::Errno;
use thiserror::Error;

use super::executable::{ExecutableError, errno_text};
use crate::network::NetworkError;
use crate::user::UserError;
use crate::volumes::VolumeError;

/// What `docker run` exits with when neither 126 nor 127 applies.
pub const GENERAL: u8 = 125;
/// The command was found but cannot be invoked.
pub const CANNOT_INVOKE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;

/// A failed step between the decision to start and the program's first instruction.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartFailure {
    /// The user or group does not exist in the image.
    #[error(transparent)]
    User(#[from] UserError),
    /// No such program, or one that cannot be executed.
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    /// `execve` itself refused: a bad format, a missing interpreter, too many arguments.
    #[error("exec {path}: {}", errno_text(*errno))]
    Exec {
        /// The program's path inside the container.
        path: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The working directory can neither be entered nor made.
    #[error("chdir to cwd ({path:?}) set in config failed: {}", errno_text(*errno))]
    WorkingDirectory {
        /// The directory inside the container.
        path: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The image's root cannot hold what every container gets.
    #[error("rootfs: {step} {path}: {}", errno_text(*errno))]
    Rootfs {
        /// What was being done: `mount`, `make`, `open`, ...
        step: &'static str,
        /// Where in the container.
        path: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// A network that cannot be had.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A volume that cannot be had.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The image has something else where a plain directory must be.
    #[error("rootfs: {0} is a link or a file; a container's root needs a plain directory there")]
    NotPlain(&'static str),
    /// A limit that the kernel does not take.
    #[error("cannot set the limit {limit}: {}; the kernel bounds nofile by fs.nr_open", errno_text(*errno))]
    Limit {
        /// As configured.
        limit: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The machine refused something that does not depend on the image.
    #[error("cannot {step}: {}", errno_text(*errno))]
    Machine {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The container has as many tasks as it may have.
    #[error(
        "no further process can be made: the container has as many tasks as it may (pids.max); \
         end some of them, or allow more"
    )]
    Tasks,
    /// The container's first process is ending, and everything in the container with it.
    #[error("the container is not running")]
    Gone,
    /// An argument or environment entry that no program can receive.
    #[error("{0} holds a zero byte, which no argument, variable or path can carry; remove it")]
    ZeroByte(&'static str),
}

impl StartFailure {
    /// The exit code `docker run` gives for this failure: 127 when the program does not exist, 126 when it
    /// cannot be invoked, 125 for everything that is not about the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Executable(ExecutableError::NotInPath(_)) => NOT_FOUND,
            Self::Executable(
                ExecutableError::Missing { errno, .. } | ExecutableError::Unusable { errno, .. },
            )
            | Self::Exec { errno, .. } => match errno {
                Errno::ENOENT => NOT_FOUND,
                _ => CANNOT_INVOKE,
            },
            Self::Tasks => CANNOT_INVOKE,
            Self::WorkingDirectory { errno, .. } => match errno {
                Errno::EACCES => CANNOT_INVOKE,
                _ => GENERAL,
            },
            Self::User(_)
            | Self::Executable(ExecutableError::Empty)
            | Self::Rootfs { .. }
            | Self::NotPlain(_)
            | Self::Volume(_)
            | Self::Network(_)
            | Self::Limit { .. }
            | Self::Machine { .. }
            | Self::Gone
            | Self::ZeroByte(_) => GENERAL,
        }
    }

    /// A closure for `map_err`, for a step that concerns the machine.
    pub fn machine(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Machine { step, errno }
    }

    /// A closure for `map_err`, for a step on a path of the container's root.
    pub fn rootfs<'a>(step: &'static str, path: &'a str) -> impl FnOnce(Errno) -> Self + 'a {
        move |errno| Self::Rootfs { step, path: path.to_owned(), errno }
    }
}

/// The longest record: `PIPE_BUF`, so that the one write is atomic and can never block on an empty pipe.
pub const MAX_RECORD: usize = 4096;

/// What the parent reads from the child's status pipe when the program could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureRecord {
    /// Docker's exit code.
    pub code: u8,
    /// The text for the user.
    pub text: String,
}

impl FailureRecord {
    /// The bytes for the status pipe: the code, then the text, cut to [`MAX_RECORD`].
    pub fn encode(failure: &StartFailure) -> Vec<u8> {
        let mut bytes = vec![failure.exit_code()];
        bytes.extend_from_slice(failure.to_string().as_bytes());
        bytes.truncate(MAX_RECORD);
        bytes
    }

    /// Reads what came through the status pipe; `None` for no bytes at all, which means the program runs.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&code, text) = bytes.split_first()?;
        Some(Self { code, text: String::from_utf8_lossy(text).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> String {
        "/x".to_owned()
    }

    #[test]
    fn every_failure_has_dockers_exit_code() {
        let missing = |errno| ExecutableError::Missing { path: path(), errno };
        let unusable = |errno| ExecutableError::Unusable { path: path(), errno };
        let exec = |errno| StartFailure::Exec { path: path(), errno };
        let cwd = |errno| StartFailure::WorkingDirectory { path: path(), errno };
        for (failure, expected) in [
            (UserError::NoUser("x".to_owned()).into(), 125),
            (ExecutableError::NotInPath("x".to_owned()).into(), 127),
            (missing(Errno::ENOENT).into(), 127),
            (missing(Errno::ENOTDIR).into(), 126),
            (unusable(Errno::EISDIR).into(), 126),
            (unusable(Errno::EACCES).into(), 126),
            (ExecutableError::Empty.into(), 125),
            (exec(Errno::ENOEXEC), 126),
            (exec(Errno::ENOENT), 127),
            (cwd(Errno::EACCES), 126),
            (cwd(Errno::ENOTDIR), 125),
            (StartFailure::machine("sit")(Errno::EIO), 125),
            (StartFailure::rootfs("mount", "/proc")(Errno::ENOTDIR), 125),
            (StartFailure::NotPlain("/proc"), 125),
            (StartFailure::Tasks, 126),
            (StartFailure::Gone, 125),
            (StartFailure::Limit { limit: "nofile=-1:-1".to_owned(), errno: Errno::EPERM }, 125),
            (StartFailure::ZeroByte("an argument"), 125),
        ] {
            assert_eq!(StartFailure::exit_code(&failure), expected, "{failure}");
        }
    }

    #[test]
    fn a_record_survives_the_pipe() {
        let failure: StartFailure = ExecutableError::NotInPath("nosuch".to_owned()).into();
        let record = FailureRecord::decode(&FailureRecord::encode(&failure)).expect("a record");
        assert_eq!(record.code, 127);
        assert_eq!(record.text, "exec: \"nosuch\": executable file not found in $PATH");
    }

    #[test]
    fn an_empty_pipe_means_the_program_runs() {
        assert_eq!(FailureRecord::decode(b""), None);
    }

    #[test]
    fn a_record_never_exceeds_one_atomic_write() {
        let failure = ExecutableError::NotInPath("x".repeat(10_000)).into();
        assert_eq!(FailureRecord::encode(&failure).len(), MAX_RECORD);
    }
}
