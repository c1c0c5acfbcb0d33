//! What a program writes, collected as it comes, for others to wait for.

use std::io::{ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One stream of a program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Up to here it has been waited for.
    seen: usize,
    ended: bool,
}

/// How a look at a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Found,
    Ended,
    NotYet,
}

impl Output {
    /// Collects from `reader` until its end, in a thread of its own.
    pub(crate) fn collect(mut reader: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let writer = output.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                match reader.read(&mut buffer) {
                    Ok(n @ 1..) => writer.push(&buffer[..n]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // A pseudo-terminal whose other end is closed reads as an error (EIO, pty(7)).
                    Ok(_) | Err(_) => return writer.end(),
                }
            }
        });
        output
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8]) {
        self.lock().bytes.extend_from_slice(bytes);
        self.0.1.notify_all();
    }

    fn end(&self) {
        self.lock().ended = true;
        self.0.1.notify_all();
    }

    /// Waits up to `limit` for `text` behind all that was found before.
    pub(crate) fn look(&self, text: &[u8], limit: Duration) -> Look {
        self.wait(limit, |state| {
            let rest = &state.bytes[state.seen..];
            let at = rest.windows(text.len()).position(|window| window == text)?;
            state.seen += at + text.len();
            Some(())
        })
    }

    /// Waits up to `limit` for `n` bytes in all.
    pub(crate) fn look_for_length(&self, n: usize, limit: Duration) -> Look {
        self.wait(limit, |state| (state.bytes.len() >= n).then_some(()))
    }

    /// Waits up to `limit` for the end.
    pub(crate) fn look_for_end(&self, limit: Duration) -> Look {
        self.wait(limit, |_| None)
    }

    fn wait(&self, limit: Duration, mut found: impl FnMut(&mut State) -> Option<()>) -> Look {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if found(&mut state).is_some() {
                return Look::Found;
            }
            if state.ended {
                return Look::Ended;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Look::NotYet;
            }
            let waited = self.0.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// The last lines so far, for people.
    pub(crate) fn tail(&self) -> String {
        crate::evidence::last_lines(&self.lock().bytes, 50)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn text_is_found_once_and_only_behind_what_was_found_before() {
        let output = Output::collect(&b"one two one"[..]);
        assert_eq!(output.look(b"one", LONG), Look::Found);
        assert_eq!(output.look(b"one", LONG), Look::Found);
        assert_eq!(output.look(b"one", LONG), Look::Ended);
        assert_eq!(output.look(b"two", LONG), Look::Ended);
        assert_eq!(output.bytes(), b"one two one");
    }

    #[test]
    fn a_wait_ends_when_the_limit_is_reached() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let output = Output::collect(reader);
        assert_eq!(output.look(b"x", Duration::from_millis(1)), Look::NotYet);
        assert_eq!(output.look_for_end(Duration::ZERO), Look::NotYet);
    }
}
