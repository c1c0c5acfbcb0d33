//! Finding the program a container starts: Docker's `PATH` rules and Docker's error texts.
//!
//! Runs inside the container's root, as the container's user, in its working directory, so that permission
//! and relative paths mean what they will mean to the program itself.

use nix::errno::Errno;
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, access};
use thiserror::Error;

use crate::environment;

/// Why no program can be started. The texts are an interface: Docker clients derive 126 or 127 from them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExecutableError {
    /// Not in any directory of `PATH`.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    /// A path that cannot be looked at.
    #[error("exec: {path:?}: stat {path}: {}", errno_text(*errno))]
    Missing {
        /// The path as given.
        path: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// A path to something that cannot be executed.
    #[error("exec: {path:?}: {}", errno_text(*errno))]
    Unusable {
        /// The path as given.
        path: String,
        /// `EISDIR` or `EACCES`.
        errno: Errno,
    },
    /// The config names no program at all.
    #[error("no command specified")]
    Empty,
}

/// The kernel's text for an error number in the lower-case form that Go programs, Docker among them, print.
pub fn errno_text(errno: Errno) -> String {
    let text = errno.desc();
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        // "I/O error" and other words in capitals keep them.
        (Some(first), Some(second)) if !second.is_uppercase() && second != '/' => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// The path to hand to `execve` for `program`.
///
/// A name with a slash is taken as it is; another is searched in `PATH` of `environment`, where an empty
/// element means the working directory.
///
/// # Errors
///
/// See [`ExecutableError`].
pub fn find(program: &str, environment: &[String]) -> Result<String, ExecutableError> {
    find_with(program, environment, check)
}

fn find_with(
    program: &str,
    environment: &[String],
    check: impl Fn(&str) -> Result<(), Errno>,
) -> Result<String, ExecutableError> {
    if program.is_empty() {
        return Err(ExecutableError::Empty);
    }
    let path = program.to_owned();
    if program.contains('/') {
        return match check(program) {
            Ok(()) => Ok(path),
            Err(errno @ (Errno::EISDIR | Errno::EACCES)) => {
                Err(ExecutableError::Unusable { path, errno })
            }
            Err(errno) => Err(ExecutableError::Missing { path, errno }),
        };
    }
    environment::value(environment, "PATH")
        .unwrap_or_default()
        .split(':')
        .map(|dir| match dir {
            "" => format!("./{program}"),
            dir => format!("{}/{program}", dir.trim_end_matches('/')),
        })
        .find(|candidate| check(candidate).is_ok())
        .ok_or(ExecutableError::NotInPath(path))
}

/// Says whether the file can be executed by this process.
fn check(path: &str) -> Result<(), Errno> {
    let kind = SFlag::from_bits_truncate(stat(path)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    access(path, AccessFlags::X_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little file system: `/bin/sh` is fine, `/bin/data` has no x bit, `/bin/dir` is a directory.
    fn model(path: &str) -> Result<(), Errno> {
        match path {
            "/bin/sh" | "./here" | "/opt/tool" => Ok(()),
            "/bin/data" => Err(Errno::EACCES),
            "/bin/dir" => Err(Errno::EISDIR),
            "/bin/sh/x" => Err(Errno::ENOTDIR),
            _ => Err(Errno::ENOENT),
        }
    }

    #[track_caller]
    fn check_find(program: &str, path: &str, expected: Result<&str, &str>) {
        let found = find_with(program, &[format!("PATH={path}")], model);
        match expected {
            Ok(found_at) => assert_eq!(found.as_deref(), Ok(found_at)),
            Err(text) => assert_eq!(found.expect_err(program).to_string(), text),
        }
    }

    #[test]
    fn names_are_searched_and_paths_are_taken_as_they_are() {
        check_find("sh", "/sbin:/bin", Ok("/bin/sh"));
        check_find("tool", "/opt/", Ok("/opt/tool"));
        check_find("here", "/bin:", Ok("./here"));
        check_find("/bin/sh", "", Ok("/bin/sh"));
        check_find("./here", "", Ok("./here"));
    }

    #[test]
    fn failures_read_as_dockers_do() {
        let absent = "exec: \"nosuch\": executable file not found in $PATH";
        check_find("nosuch", "/bin", Err(absent));
        check_find("data", "/bin", Err("exec: \"data\": executable file not found in $PATH"));
        check_find("/bin/data", "", Err("exec: \"/bin/data\": permission denied"));
        check_find("/bin/dir", "", Err("exec: \"/bin/dir\": is a directory"));
        let missing = "exec: \"/no\": stat /no: no such file or directory";
        check_find("/no", "", Err(missing));
        check_find("/bin/sh/x", "", Err("exec: \"/bin/sh/x\": stat /bin/sh/x: not a directory"));
        check_find("", "/bin", Err("no command specified"));
    }

    #[test]
    fn error_texts_start_small_unless_they_are_abbreviations() {
        assert_eq!(errno_text(Errno::ENOEXEC), "exec format error");
        assert_eq!(errno_text(Errno::EIO), "I/O error");
    }
}
