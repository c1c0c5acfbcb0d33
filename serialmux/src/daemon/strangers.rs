//! Pipes that nobody has proved to be a VM's, of all doors: counted, as whoever reaches a door can make them.
//!
//! Each is held by a task of its own (`peer`), which greets it. When there are too many, one must go: the oldest
//! that has not even named a key that is registered, for a VM that is up does so at once and connects again if it
//! is hung up on. So those who say nothing are in nobody's way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Most of them at once.
const MAX_STRANGERS: usize = 256;

#[derive(Debug)]
struct Entry {
    has_named: bool,
    go: CancellationToken,
}

/// All strangers.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_age: BTreeMap<u64, Entry>,
    last: u64,
}

/// A stranger's visit; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    strangers: Arc<Strangers>,
    number: u64,
    go: CancellationToken,
}

impl Strangers {
    /// Takes one in; another goes if there are too many.
    pub(super) fn enter(self: &Arc<Self>) -> Visit {
        let go = CancellationToken::new();
        let mut entries = self.lock();
        while entries.by_age.len() >= MAX_STRANGERS {
            entries.evict();
        }
        entries.last += 1;
        let number = entries.last;
        entries.by_age.insert(number, Entry { has_named: false, go: go.clone() });
        Visit { strangers: Arc::clone(self), number, go }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing panics while it is held, and if something did, the map is still a map.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn evict(&mut self) {
        let unnamed = self.by_age.iter().find(|(_, entry)| !entry.has_named);
        let number = unnamed.or(self.by_age.first_key_value()).map(|(number, _)| *number);
        if let Some(entry) = number.and_then(|number| self.by_age.remove(&number)) {
            entry.go.cancel();
        }
    }
}

impl Visit {
    /// It has named a key that is registered.
    pub(super) fn named(&self) {
        if let Some(entry) = self.strangers.lock().by_age.get_mut(&self.number) {
            entry.has_named = true;
        }
    }

    /// Waits until the pipe has to go.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn evicted(&self) {
        self.go.cancelled().await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.strangers.lock().by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(visits: &[Visit]) -> Vec<usize> {
        (0..visits.len()).filter(|i| visits[*i].go.is_cancelled()).collect()
    }

    #[test]
    fn the_oldest_that_has_named_no_key_goes_and_else_the_oldest() {
        let strangers = Arc::new(Strangers::default());
        let mut visits: Vec<_> = (0..MAX_STRANGERS).map(|_| strangers.enter()).collect();
        visits[0].named();
        assert!(gone(&visits).is_empty());
        visits.push(strangers.enter());
        assert_eq!(gone(&visits), [1]);
        visits.iter().for_each(Visit::named);
        visits.push(strangers.enter());
        assert_eq!(gone(&visits), [0, 1]);
        // One that is a stranger no longer leaves room.
        visits.remove(2);
        let last = strangers.enter();
        assert_eq!(gone(&visits), [0, 1]);
        assert_eq!(strangers.lock().by_age.len(), MAX_STRANGERS);
        last.named();
    }
}
