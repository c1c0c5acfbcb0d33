//! The processes that were started in a lab, however indirectly: told by an environment variable they all inherited.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The variable by which every process of a lab is known: the product's own for its home.
pub(crate) const HOME: &str = "CONTAINERVM_HOME";

/// A process of a lab.
#[derive(Debug)]
pub struct Relative {
    /// Its command line.
    pub arguments: Vec<String>,
    process: OwnedFd,
}

/// All processes of the lab with this home.
pub(crate) fn relatives(home: &Path) -> Vec<Relative> {
    let wanted = format!("{HOME}={}", home.display());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|number| relative(number, &wanted)).collect()
}

fn relative(number: i32, wanted: &str) -> Option<Relative> {
    // This very process has no such variable: labs give it to their children only.
    let process = pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()?;
    let dir = Path::new("/proc").join(number.to_string());
    let environment = fs::read(dir.join("environ")).ok()?;
    environment.split(|byte| *byte == 0).find(|entry| *entry == wanted.as_bytes())?;
    let line = fs::read(dir.join("cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&line);
    let arguments = arguments.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    Some(Relative { arguments, process })
}

impl Relative {
    /// Sends it a signal; one that has just ended needs none.
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.process, signal).ok();
    }

    /// Waits until it has ended; false when it has not in time.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
        // A pidfd becomes readable when its process ends (pidfd_open(2)).
        poll(&mut fds, limit.as_ref()).is_ok_and(|n| n > 0)
    }

    /// Whether its program is called so.
    #[must_use]
    pub fn is(&self, program: &str) -> bool {
        let first = self.arguments.first().map(Path::new);
        first.and_then(Path::file_name).is_some_and(|name| name == program)
    }
}
