//! A pipe that is fed a byte at a time, read a handful at a time.
//!
//! An emulated 16550 hands each byte to its socket by itself. A reader that wakes up for each of them costs
//! its sender, which is the processor of the VM, more than the byte does. So who floods is looked at four times
//! in a millisecond; who sends little, or in large pieces, at once.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant};

/// Between two looks at a flood. An echo in it waits for the next; a VM writes some 250 bytes meanwhile.
const REST: Duration = Duration::from_micros(250);
/// Bytes in a millisecond that are no flood: twice as many as a person's screen takes.
const CALM: i64 = 100;
/// A burst so long is none either: a full screen.
const BURST: i64 = 2048;
/// A sender that hands over so much at once does not do it by the byte.
const LARGE: usize = 4096;

/// Tells a flood of crumbs from everything else: a bucket that fills with time and that bytes empty.
#[derive(Debug)]
struct Allowance {
    bytes: i64,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { bytes: BURST, since: now }
    }

    /// Whether to wait before reading more, as `len` bytes came.
    fn is_used_up_by(&mut self, len: usize, now: Instant) -> bool {
        if len >= LARGE {
            return false;
        }
        let micros = now.duration_since(self.since).as_micros();
        let refill = i64::try_from(micros).unwrap_or(i64::MAX).saturating_mul(CALM) / 1000;
        self.since = now;
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        // Never far below nothing, so that the end of a flood is forgotten at once.
        self.bytes = (self.bytes.saturating_add(refill).min(BURST) - len).max(-2 * CALM);
        self.bytes < 0
    }
}

/// The pipe.
pub(super) struct Gathered<P> {
    pipe: P,
    /// Has the kernel acknowledge what was read, for whose sender waits for that.
    acknowledge: fn(&P),
    allowance: Allowance,
    rest: Rest,
}

/// A pause by a timer of the kernel's, as the runtime's counts in milliseconds.
#[derive(Debug)]
struct Rest {
    timer: AsyncFd<OwnedFd>,
    /// Whether it has begun and is not known to be over.
    is_on: bool,
}

impl Rest {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe, for types whose descriptor changes"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, is_on: false })
    }

    fn begin(&mut self) -> io::Result<()> {
        let it_value = Timespec { tv_sec: 0, tv_nsec: REST.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        self.is_on = true;
        Ok(())
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.is_on {
            let mut ready = ready!(self.timer.poll_read_ready(cx))?;
            let mut times = [0; 8];
            if let Ok(rang) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut times)?)) {
                rang?;
                self.is_on = false;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<P> Gathered<P> {
    pub(super) fn new(pipe: P, acknowledge: fn(&P)) -> io::Result<Self> {
        let (allowance, rest) = (Allowance::new(Instant::now()), Rest::new()?);
        Ok(Self { pipe, acknowledge, allowance, rest })
    }
}

impl<P: AsyncRead + Unpin> AsyncRead for Gathered<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.rest.poll_over(cx))?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
        let (len, now) = (buf.filled().len() - before, Instant::now());
        if len > 0 {
            (self.acknowledge)(&self.pipe);
        }
        if self.allowance.is_used_up_by(len, now) {
            self.rest.begin()?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<P: AsyncWrite + Unpin> AsyncWrite for Gathered<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn a_flood_of_crumbs_is_told_from_typing_and_from_large_pieces() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut allowance = Allowance::new(start);
        // Echoes of 50 bytes, a thousand in a second; then a screen at once.
        assert!((0..1000).all(|ms| !allowance.is_used_up_by(50, at(ms))));
        assert!(!allowance.is_used_up_by(1900, at(1100)));
        // 500 KB/s.
        let rests = (1200..1300).filter(|ms| allowance.is_used_up_by(500, at(*ms))).count();
        assert!((90..100).contains(&rests), "{rests}");
        assert!((1300..1400).all(|ms| !allowance.is_used_up_by(50_000, at(ms))));
        // Forgotten as soon as it is over.
        assert!(!allowance.is_used_up_by(50, at(1404)));
    }

    #[tokio::test]
    async fn what_floods_is_read_once_in_a_while_and_all_of_it() {
        let (mut near, far) = tokio::io::duplex(LARGE);
        let writer = tokio::spawn(async move {
            for _ in 0..20_000 {
                near.write_all(b"x").await.unwrap();
            }
        });
        let mut pipe = Gathered::new(far, |_| {}).unwrap();
        let (mut buffer, mut got, mut reads) = ([0; LARGE - 1], 0, 0);
        loop {
            match pipe.read(&mut buffer).await.unwrap() {
                0 => break,
                n => (got, reads) = (got + n, reads + 1),
            }
        }
        writer.await.unwrap();
        assert_eq!(got, 20_000);
        assert!(reads < 200, "{reads}");
    }
}
