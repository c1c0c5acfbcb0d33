//! What happens to containers, told to whoever listens, with Docker's words for it.
//!
//! The last [`HISTORY`] events are kept in memory for clients that ask for what has been; a client that does
//! not keep up loses events, and is told how many.

use crate::clock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::sync::broadcast;

/// Events kept; Docker keeps 256.
const HISTORY: usize = 1024;

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// When, µs since the Unix epoch: by the guest's clock if it happened there.
    pub(crate) time_us: u64,
    /// The container's id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// What: `create`, `start`, `die`, `oom`, `destroy`, ...
    pub(crate) action: &'static str,
    /// What else is known of it.
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Event {
    /// Something that happens now.
    pub(crate) fn now(id: &str, name: &str, action: &'static str) -> Self {
        let (id, name) = (id.to_owned(), name.to_owned());
        Self { time_us: clock::wall_us(), id, name, action, attributes: BTreeMap::new() }
    }

    /// Something that happened at that time.
    pub(crate) fn at(self, time_us: u64) -> Self {
        Self { time_us, ..self }
    }

    /// Adds what else is known.
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.attributes.insert(key.to_owned(), value.to_string());
        self
    }
}

/// All events of a daemon.
#[derive(Debug)]
pub(crate) struct Events {
    listeners: broadcast::Sender<Event>,
    kept: Mutex<VecDeque<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        let (listeners, _) = broadcast::channel(HISTORY);
        Self { listeners, kept: Mutex::default() }
    }
}

impl Events {
    /// Tells everybody.
    pub(crate) fn tell(&self, event: Event) {
        tracing::debug!(container = event.name, action = event.action, "event");
        // Under the lock, so that a listener finds each event either in the history or in what follows.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= HISTORY {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Nobody listens, mostly.
        drop(self.listeners.send(event));
    }

    /// What has been, oldest first, and all that will be.
    pub(crate) fn listen(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.iter().cloned().collect(), self.listeners.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_finds_every_event_once() {
        let events = Events::default();
        for n in 0..HISTORY + 10 {
            events.tell(Event::now("id", "name", "start").with("n", n));
        }
        let (kept, mut listener) = events.listen();
        events.tell(Event::now("id", "name", "die").with("exitCode", 7).at(5));
        assert_eq!(kept.len(), HISTORY);
        assert_eq!(kept[0].attributes["n"], "10");
        let next = listener.recv().await.unwrap();
        assert_eq!(
            (next.action, next.time_us, next.attributes["exitCode"].as_str()),
            ("die", 5, "7")
        );
        assert!(listener.try_recv().is_err());
    }
}
