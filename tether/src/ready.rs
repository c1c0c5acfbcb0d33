//! Who has something to do: a bell for each of many, and one place where the rung ones are found.
//!
//! A bell is a waker. Whatever can go on (a stream, a pipe) is polled with the bell of its owner; when it can,
//! the bell rings, and [`Bells::wait`] ends. So a turn costs as much as there is to do, however many sleep.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Wake, Waker};

/// Names the owner of a bell.
pub type Key = u64;

/// All bells.
#[derive(Debug, Default, Clone)]
pub struct Bells(Arc<Mutex<Rung>>);

#[derive(Debug, Default)]
struct Rung {
    keys: BTreeSet<Key>,
    waiting: Option<Waker>,
}

struct Bell {
    key: Key,
    bells: Bells,
}

impl Bells {
    /// The bell of `key`; all bells of one key are the same.
    pub fn bell(&self, key: Key) -> Waker {
        Waker::from(Arc::new(Bell { key, bells: self.clone() }))
    }

    /// Rings the bell of `key`.
    pub fn ring(&self, key: Key) {
        let mut rung = self.rung();
        rung.keys.insert(key);
        let waiting = rung.waiting.take();
        drop(rung);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Those whose bell has rung since the last call, each once.
    pub fn take(&self) -> BTreeSet<Key> {
        std::mem::take(&mut self.rung().keys)
    }

    /// Whether one has rung since.
    pub fn have_rung(&self) -> bool {
        !self.rung().keys.is_empty()
    }

    /// Waits until a bell has rung.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn wait(&self) {
        poll_fn(|context| {
            let mut rung = self.rung();
            if rung.keys.is_empty() {
                rung.waiting = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    fn rung(&self) -> MutexGuard<'_, Rung> {
        // There is one thread; the lock is there because wakers must be sendable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.bells.ring(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_rung_are_found_and_each_once() {
        let bells = Bells::default();
        let (one, _two, three) = (bells.bell(1), bells.bell(2), bells.bell(3));
        three.wake_by_ref();
        one.wake_by_ref();
        three.wake();
        bells.wait().await;
        assert_eq!(bells.take().into_iter().collect::<Vec<_>>(), [1, 3]);
        assert!(bells.take().is_empty());
    }

    #[tokio::test]
    async fn a_bell_ends_the_wait() {
        let bells = Bells::default();
        let (waiting, bell) = (bells.clone(), bells.bell(7));
        let ringer = async {
            tokio::task::yield_now().await;
            bell.wake();
        };
        tokio::join!(waiting.wait(), ringer);
        assert!(bells.take().contains(&7));
    }
}
