//! A container's pipes that do not carry its link now: known to be its VM's, silent, and counted.
//!
//! Each is held by a task of its own (`peer`), which waits for the guest to ask for it. Here is who they are,
//! for people, and how many: the oldest must go when there are more than any VM has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use wire::Transport;

/// Most of them; a VM has three kinds of pipe, and may leave some half-open behind.
const MAX_IDLE: usize = 8;

#[derive(Debug)]
struct Entry {
    from: String,
    transport: Transport,
    /// Dropped to hang up.
    _keep: oneshot::Sender<()>,
}

/// The idle pipes of one container.
#[derive(Debug, Default)]
pub(super) struct Idle {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_age: BTreeMap<u64, Entry>,
    last: u64,
    closed: bool,
}

/// A pipe's stay among the idle ones; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Stay {
    idle: Arc<Idle>,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl Idle {
    /// Takes a pipe in; the oldest goes if there are too many.
    pub(super) fn enter(self: &Arc<Self>, from: String, transport: Transport) -> Stay {
        let (keep, evicted) = oneshot::channel();
        let mut entries = self.lock();
        entries.last += 1;
        let number = entries.last;
        if !entries.closed {
            entries.by_age.insert(number, Entry { from, transport, _keep: keep });
        }
        if entries.by_age.len() > MAX_IDLE {
            entries.by_age.pop_first();
        }
        Stay { idle: Arc::clone(self), number, evicted }
    }

    /// Where they come from and what they are, oldest first.
    pub(super) fn list(&self) -> Vec<(String, Transport)> {
        let entries = self.lock();
        entries.by_age.values().map(|entry| (entry.from.clone(), entry.transport)).collect()
    }

    /// Hangs up on all of them, those to come too.
    pub(super) fn close(&self) {
        let mut entries = self.lock();
        entries.by_age.clear();
        entries.closed = true;
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing panics while it is held, and if something did, the map is still a map.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stay {
    /// Waits until the pipe has to go.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn evicted(&mut self) {
        // Nothing is ever sent: the other half is dropped.
        (&mut self.evicted).await.ok();
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.idle.lock().by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_when_there_are_too_many_and_all_go_at_the_end() {
        let idle = Arc::new(Idle::default());
        let mut stays: Vec<_> =
            (0..=MAX_IDLE).map(|i| idle.enter(i.to_string(), Transport::Uart)).collect();
        stays[0].evicted().await;
        assert_eq!(idle.list().len(), MAX_IDLE);
        assert_eq!(idle.list()[0].0, "1");
        drop(stays.remove(1));
        assert_eq!(idle.list()[0].0, "2");
        idle.close();
        stays[1].evicted().await;
        idle.enter("late".into(), Transport::Vsock).evicted().await;
        assert!(idle.list().is_empty());
    }
}
