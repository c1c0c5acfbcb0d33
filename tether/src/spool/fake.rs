//! A spool's disk for tests: in memory, answers when it is told to, and fails in all the ways there are.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::disk::{Drive, HEAD, Head, Kind};
use super::ring::PAGE;

#[derive(Debug, Default)]
struct State {
    pages: Vec<u8>,
    asked: VecDeque<Vec<u8>>,
    answers: VecDeque<Vec<u8>>,
    write_error: u32,
    read_error: u32,
    is_dead: bool,
    /// Whoever waits for an answer.
    waiting: Option<Waker>,
}

/// The disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeDisk(Rc<RefCell<State>>);

impl FakeDisk {
    /// One of so many pages.
    pub(crate) fn new(pages: u64) -> Self {
        let bytes = vec![0; usize::try_from(pages).expect("a small disk") * PAGE];
        Self(Rc::new(RefCell::new(State { pages: bytes, ..State::default() })))
    }

    /// Carries out what it was asked for; how much that was.
    pub(crate) fn work(&self) -> usize {
        let mut state = self.0.borrow_mut();
        let asked = std::mem::take(&mut state.asked);
        let n = asked.len();
        for message in asked {
            let answer = state.answer(&message);
            state.answers.push_back(answer);
        }
        if n > 0
            && let Some(waiting) = state.waiting.take()
        {
            waiting.wake();
        }
        n
    }

    /// Refuses all writes, and all reads, with these errors from now on; 0 is none.
    pub(crate) fn refuse(&self, write_error: u32, read_error: u32) {
        let mut state = self.0.borrow_mut();
        (state.write_error, state.read_error) = (write_error, read_error);
    }

    /// Flips a bit in each page.
    pub(crate) fn damage(&self) {
        self.0.borrow_mut().pages.iter_mut().step_by(PAGE).for_each(|byte| *byte ^= 1);
    }

    /// Ends the process that serves it.
    pub(crate) fn kill(&self) {
        self.0.borrow_mut().is_dead = true;
    }

    /// Whether these bytes are anywhere on it.
    pub(crate) fn shows(&self, bytes: &[u8]) -> bool {
        self.0.borrow().pages.windows(bytes.len()).any(|piece| piece == bytes)
    }

    /// Whether anything was ever written to it.
    pub(crate) fn is_blank(&self) -> bool {
        self.0.borrow().pages.iter().all(|byte| *byte == 0)
    }
}

impl State {
    fn answer(&mut self, message: &[u8]) -> Vec<u8> {
        let head = Head::parse(message).expect("a head");
        let number = match head.kind {
            Kind::Write => self.write_error,
            Kind::Read => self.read_error,
        };
        let mut answer = Head { number, ..head }.to_bytes().to_vec();
        if number != 0 {
            return answer;
        }
        let start = usize::try_from(head.place).expect("a place");
        assert!(start < self.pages.len() && start.is_multiple_of(PAGE), "{head:?}");
        // The page at `start` comes first, and what is at the end goes around.
        self.pages.rotate_left(start);
        let len = head.number as usize;
        match head.kind {
            Kind::Write => self.pages[..len].copy_from_slice(&message[HEAD..]),
            Kind::Read => answer.extend_from_slice(&self.pages[..len]),
        }
        self.pages.rotate_right(start);
        answer
    }
}

impl Drive for FakeDisk {
    fn ask(&mut self, message: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if state.is_dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.asked.push_back(message.to_vec());
        assert!(state.asked.len() + state.answers.len() <= 2, "one to write and one to read");
        Ok(())
    }

    fn answer(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        let mut state = self.0.borrow_mut();
        if state.is_dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Some(answer) = state.answers.pop_front() else { return Ok(false) };
        into.clone_from(&answer);
        Ok(true)
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        if !state.answers.is_empty() || state.is_dead {
            return Poll::Ready(());
        }
        state.waiting = Some(context.waker().clone());
        Poll::Pending
    }
}
