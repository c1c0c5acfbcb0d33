//! Output on its way to the disk, and when all of it is there.

use super::*;
use std::fmt::Display;

/// When to try again after the disk refused.
const RETRY: wire::Duration = wire::Duration::from_secs(1);

impl Container {
    // Writes what came, and has it made durable; one sync at a time, for all that came meanwhile.
    pub(super) fn store(&mut self) {
        if self.is_unsaved && self.wake_at.is_none() {
            self.save();
        }
        match self.journal.write() {
            Ok(len) => self.status.send_if_modified(|status| {
                let news = status.written != len;
                status.written = len;
                news
            }),
            Err(error) => return self.disk_failed(&error),
        };
        self.look_for_the_end();
        if self.sync.is_none() && self.outputs.begin_sync() {
            match self.journal.handle() {
                Ok(file) => self.sync = Some(tokio::task::spawn_blocking(move || file.sync_data())),
                Err(error) => self.disk_failed(&error),
            }
        }
    }

    /// Saves the state, or sees to it that this is tried again.
    pub(super) fn save(&mut self) {
        let path = self.dir.join("state.json");
        let saved = tokio::task::block_in_place(|| state::save(&path, &self.state));
        self.is_unsaved = saved.is_err();
        if let Err(error) = saved {
            self.disk_failed(&error);
        }
    }

    fn disk_failed(&mut self, error: &dyn Display) {
        if self.wake_at.is_none() {
            tracing::error!(container = self.name, %error, "output is held back in the VM");
            self.wake_at = Some(clock::now() + RETRY);
        }
    }

    // After a failed sync nobody knows what is on the disk (the page cache may claim too much), so
    // nothing more is released in this run of the daemon; the guest keeps it.
    pub(super) fn synced(&mut self, done: io::Result<()>) {
        self.sync = None;
        if let Err(error) = done {
            tracing::error!(container = self.name, %error, "fdatasync failed; output stays in the VM");
            self.outputs.never_release();
            return;
        }
        if let Some(link) = &mut self.link {
            self.outputs.release(link);
        }
        self.look_for_the_end();
    }

    /// Whether there may be more output of this run than can be read.
    pub(super) fn is_output_open(&self) -> bool {
        let lacks_output = || !self.is_cut && lacks_output(&self.state, &self.journal);
        let may_come = || !self.outputs.is_empty() || lacks_output();
        // What is here and waits for the disk is not given up.
        let is_here = self.journal.has_batch() || self.outputs.behind().next().is_some();
        is_here || !self.is_given_up && may_come()
    }

    /// Tells those who follow the output whether that is still so.
    pub(super) fn look_for_the_end(&self) {
        let is_open = self.is_output_open();
        self.status.send_if_modified(|status| {
            let was_open = std::mem::replace(&mut status.output_open, is_open);
            was_open != is_open
        });
    }

    /// Whether there is more to be stored at once.
    pub(super) fn is_behind(&self) -> bool {
        self.wake_at.is_none() && self.outputs.behind().next().is_some()
    }
}

/// Whether a run has ended of whose output the journal has not all.
pub(super) fn lacks_output(state: &State, journal: &Journal) -> bool {
    let length = state.exit.as_ref().map_or(0, |exit| exit.output_length);
    length > 0 && !journal.has_ended(&state.boot, length)
}

pub(super) async fn synced(sync: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    match sync {
        Some(task) => task.await.map_err(io::Error::other)?,
        None => std::future::pending().await,
    }
}
