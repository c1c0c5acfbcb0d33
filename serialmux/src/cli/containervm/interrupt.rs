//! An interrupt of `run` when its VM is there but does not run yet: it is not started any more.
//!
//! Before, an interrupt ends the command like any other, and what was half made counts for nothing. From the moment
//! that a VM has its name to the one that its process has the signals, the command has to see to the VM itself.

use crate::attach::{any, caught};
use std::io;
use std::task::{Context, Waker};
use tokio::signal::unix::Signal;

/// What a terminal, a shell and a service manager end a command with.
const ENDING: [i32; 4] = [1, 2, 3, 15];

/// Signals that were caught; of [`Default`], none is.
#[derive(Debug, Default)]
pub(super) struct Interrupts(Vec<(i32, Signal)>);

/// It came before the VM was started.
#[derive(Debug, thiserror::Error)]
#[error("interrupted by signal {0} before the VM was started")]
pub(super) struct Interrupted(pub(super) i32);

impl Interrupts {
    /// From now on to the end of this program they end nothing by themselves.
    pub(super) fn catch() -> io::Result<Self> {
        caught(&ENDING).map(Self)
    }

    /// Waits for one.
    pub(super) async fn next(&mut self) -> i32 {
        any(&mut self.0).await
    }

    /// One that has come already.
    pub(super) fn pending(&mut self) -> Option<i32> {
        let mut nobody = Context::from_waker(Waker::noop());
        let mut all = self.0.iter_mut();
        all.find_map(|(number, it)| it.poll_recv(&mut nobody).is_ready().then_some(*number))
    }
}
