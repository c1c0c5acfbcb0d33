//! The container's memory events, told as they happen: the kernel notifies watchers of `memory.events`.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::read;
use tokio::io::unix::AsyncFd;
use tracing::warn;
use wire::message::inside::OutOfMemory;

use super::measure::keyed;
use crate::sys;

/// A watch over one cgroup, the groups below it included.
#[derive(Debug)]
pub struct MemoryWatch {
    file: PathBuf,
    notices: AsyncFd<OwnedFd>,
    told: OutOfMemory,
}

impl MemoryWatch {
    /// Watches the cgroup at `group`; `None` when it has no memory events, or they cannot be watched.
    pub fn begin(group: &Path) -> Option<Self> {
        let file = group.join("memory.events");
        let told = counts(&file)?;
        let watched = || -> nix::Result<OwnedFd> {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            inotify.add_watch(&file, AddWatchFlags::IN_MODIFY)?;
            Ok(inotify.into())
        };
        let notices = watched().map_err(std::io::Error::from).and_then(sys::watch);
        let notices = notices
            .inspect_err(|error| warn!("the container's memory cannot be watched: {error}"))
            .ok()?;
        Some(Self { file, notices, told })
    }

    /// Waits for a notice.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn wait(&self) {
        match self.notices.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            Err(_shutting_down) => std::future::pending().await,
        }
    }

    /// What has happened since the last call.
    pub fn take(&mut self) -> Option<OutOfMemory> {
        let mut notices = [0; 4096];
        let taken =
            self.notices.try_io(tokio::io::Interest::READABLE, |fd| Ok(read(fd, &mut notices)?));
        taken.ok()?;
        let now = counts(&self.file)?;
        let news = OutOfMemory {
            ooms: now.ooms.saturating_sub(self.told.ooms),
            kills: now.kills.saturating_sub(self.told.kills),
        };
        self.told = now;
        // Other counters of the file change, too.
        (news != OutOfMemory::default()).then_some(news)
    }
}

fn counts(file: &Path) -> Option<OutOfMemory> {
    let text = fs::read_to_string(file).ok()?;
    Some(OutOfMemory { ooms: keyed(&text, "oom"), kills: keyed(&text, "oom_kill") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_of_the_file_is_noticed_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        fs::write(&file, "oom 1\noom_kill 1\n").unwrap();
        let mut watch = MemoryWatch::begin(dir.path()).unwrap();
        assert_eq!(watch.take(), None);
        fs::write(&file, "oom 3\noom_kill 2\n").unwrap();
        watch.wait().await;
        assert_eq!(watch.take(), Some(OutOfMemory { ooms: 2, kills: 1 }));
        assert_eq!(watch.take(), None);
        fs::write(&file, "max 9\noom 3\noom_kill 2\n").unwrap();
        watch.wait().await;
        assert_eq!(watch.take(), None, "nothing of interest");
    }

    #[test]
    fn a_cgroup_without_memory_events_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        assert!(MemoryWatch::begin(dir.path()).is_none());
    }
}
