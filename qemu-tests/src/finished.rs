//! A program that has ended: its exit code and all it wrote, compared in a chain.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// What an ended program left.
pub struct Finished {
    /// The command, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output (of the terminal, where there was one).
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// It must have ended with this code.
    #[track_caller]
    pub fn code(&self, expected: i32) -> &Self {
        let signal = self.status.signal();
        assert_eq!(self.status.code(), Some(expected), "exit code (signal {signal:?}) of {self:?}");
        self
    }

    /// Standard output must be exactly this.
    #[track_caller]
    pub fn prints(&self, expected: &str) -> &Self {
        assert_eq!(self.out(), expected, "standard output of {self:?}");
        self
    }

    /// Standard output must hold this.
    #[track_caller]
    pub fn shows(&self, part: &str) -> &Self {
        assert!(self.out().contains(part), "{part:?} is not in the output of {self:?}");
        self
    }

    /// The last line of standard error must hold all of `parts`, in their order.
    #[track_caller]
    pub fn complains(&self, parts: &[&str]) -> &Self {
        let text = String::from_utf8_lossy(&self.stderr);
        let line = text.lines().last().unwrap_or_default();
        let mut rest = line;
        for part in parts {
            let Some(at) = rest.find(part) else {
                panic!("{part:?} is not (there) in the last line of {self:?}");
            };
            rest = &rest[at + part.len()..];
        }
        self
    }

    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = |bytes| crate::evidence::last_lines(bytes, 50);
        write!(
            f,
            "{}\n({})\n--- its output\n{}\n--- its errors\n{}\n---",
            self.command,
            self.status,
            tail(&self.stdout),
            tail(&self.stderr)
        )
    }
}
