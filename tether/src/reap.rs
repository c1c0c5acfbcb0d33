//! Collecting ended children: the one place that calls `waitpid`.

use nix::unistd::Pid;

use crate::sys::{self, RawStatus};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Docker's code: the process's own, or 128 plus the signal that ended it.
    pub code: i32,
    /// The signal that ended it, 0 when none did.
    pub signal: i32,
    /// Whether a core was dumped.
    pub core_dumped: bool,
    /// The status as the kernel gave it.
    pub raw: i32,
}

impl From<RawStatus> for Exit {
    fn from(RawStatus(raw): RawStatus) -> Self {
        if libc::WIFSIGNALED(raw) {
            let signal = libc::WTERMSIG(raw);
            Self { code: 128 + signal, signal, core_dumped: libc::WCOREDUMP(raw), raw }
        } else {
            Self { code: libc::WEXITSTATUS(raw), signal: 0, core_dumped: false, raw }
        }
    }
}

/// Collects every child that has ended, orphans of the whole machine included, without waiting. To be called
/// at each SIGCHLD: several exits may arrive as one signal.
pub fn collect() -> Vec<(Pid, Exit)> {
    // Ends at "none has ended" and at "there are none" alike.
    std::iter::from_fn(|| sys::reap_one().ok().flatten())
        .map(|(pid, status)| (pid, status.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_as_docker_reads_them() {
        // Raw values by wait(2): code << 8, or the signal with 0x80 for a core.
        for (raw, code, signal, core_dumped) in [
            (0, 0, 0, false),
            (7 << 8, 7, 0, false),
            (255 << 8, 255, 0, false),
            (9, 137, 9, false),
            (15, 143, 15, false),
            (11 | 0x80, 139, 11, true),
            (34, 162, 34, false),
        ] {
            assert_eq!(Exit::from(RawStatus(raw)), Exit { code, signal, core_dumped, raw });
        }
    }
}
