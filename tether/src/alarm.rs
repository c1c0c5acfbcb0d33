//! The timer of the event loop: one descriptor, set anew only for what is due earlier than it says.
//!
//! Acknowledgements are put off in the hope of something that they can go along with, so each keystroke sets a
//! deadline and takes it back. With a timer of the runtime's each of these would be a wake-up of the runtime by
//! itself; here it is nothing, but that the alarm may go off for what is no longer due.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::read;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::sys;

/// The timer.
#[derive(Debug)]
pub struct Alarm {
    timer: TimerFd,
    /// The same descriptor, as the runtime watches it.
    rings: AsyncFd<OwnedFd>,
    /// When it goes off.
    at: Option<Instant>,
}

impl Alarm {
    /// Not set.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let rings = sys::watch(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Self { timer, rings, at: None })
    }

    /// Waits until `deadline`, or until an earlier one that was waited for before; without one, for the latter.
    ///
    /// # Errors
    ///
    /// The kernel's.
    ///
    /// # Cancel safety
    ///
    /// The alarm stays set.
    pub async fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if let Some(deadline) = deadline.filter(|deadline| self.at.is_none_or(|at| at > *deadline))
        {
            let now = Instant::now();
            if deadline <= now {
                return Ok(());
            }
            self.set(deadline, deadline - now)?;
        }
        loop {
            let mut ready = self.rings.readable().await?;
            let rang = ready.try_io(|fd| Ok(read(fd.get_ref(), &mut [0; 8])?));
            if let Ok(rang) = rang {
                self.at = None;
                return rang.map(drop);
            }
        }
    }

    fn set(&mut self, at: Instant, after: Duration) -> io::Result<()> {
        // None at all would mean never.
        let after = Expiration::OneShot(TimeSpec::from(after.max(Duration::from_micros(1))));
        self.timer.set(after, TimerSetTimeFlags::empty())?;
        self.at = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    async fn gives_up(alarm: &mut Alarm, deadline: Option<Instant>) {
        let mut wait = pin!(alarm.wait(deadline));
        poll_fn(|context| match wait.as_mut().poll(context) {
            Poll::Ready(_) => panic!("it did not wait"),
            Poll::Pending => Poll::Ready(()),
        })
        .await;
    }

    #[tokio::test]
    async fn it_goes_off_at_the_earliest_moment_ever_waited_for() {
        let mut alarm = Alarm::new().unwrap();
        let (soon, late) = (Duration::from_millis(5), Duration::from_secs(3600));
        let start = Instant::now();
        gives_up(&mut alarm, Some(start + 2 * late)).await;
        gives_up(&mut alarm, Some(start + late)).await;
        gives_up(&mut alarm, Some(start + 2 * late)).await;
        assert_eq!(alarm.at, Some(start + late));
        // What was given up is still told.
        alarm.set(start, Duration::ZERO).unwrap();
        alarm.wait(Some(start + late)).await.unwrap();
        // And only once.
        gives_up(&mut alarm, None).await;
        let start = Instant::now();
        alarm.wait(Some(start + soon)).await.unwrap();
        assert!(start.elapsed() >= soon);
    }

    #[tokio::test]
    async fn what_is_due_is_not_waited_for() {
        let mut alarm = Alarm::new().unwrap();
        alarm.wait(Some(Instant::now())).await.unwrap();
        assert!(alarm.at.is_none());
    }
}
