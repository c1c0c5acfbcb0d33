//! The agent's log: human-readable lines on the second serial port, never on the first.
//!
//! A line looks like a kernel message, as both end in the same place: `[    2.345678] tether: text`. The port
//! is written without waiting for more than `PATIENCE` per line: a console that nobody reads costs lines,
//! which are counted and reported with the next one that gets through, but never stops the agent.
//!
//! Nothing here is locked: the last line may be about a panic in the middle of another one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::logbook;

/// Where the log goes, in order of preference: the second serial port; the kernel's own log.
const PORTS: [&str; 2] = ["/dev/ttyS1", "/dev/kmsg"];

/// The longest wait for the port to take (a part of) one line, milliseconds: a 4 KiB tty queue drains in
/// 0.4 s at 115,200 baud.
const PATIENCE: u16 = 500;

/// The level that the kernel command line asks for; a config can only ask for more.
static SWITCHED: AtomicU8 = AtomicU8::new(0);

/// The level that is logged, [`rank`]ed.
static LOGGED: AtomicU8 = AtomicU8::new(0);

/// Starts logging at `level` and more urgent.
pub fn start(level: Level) {
    SWITCHED.store(rank(level), Ordering::Relaxed);
    LOGGED.store(rank(level), Ordering::Relaxed);
    let subscriber = written_to(Book(open())).with(Threshold);
    // Fails only when called twice.
    let _already = tracing::subscriber::set_global_default(subscriber);
}

fn written_to<W>(writer: W) -> impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .event_format(KernelStyle)
        .with_writer(writer)
        .finish()
}

/// Logs as much as a config's `diagnostics/debug` asks for: from 1 on, the agent's own steps.
pub fn set_debug(level: i64) {
    let asked = if level > 0 { rank(Level::DEBUG) } else { 0 };
    LOGGED.store(asked.max(SWITCHED.load(Ordering::Relaxed)), Ordering::Relaxed);
}

fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    }
}

/// Lets events through up to the level that is logged at the moment.
struct Threshold;

impl<S: Subscriber> Layer<S> for Threshold {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // Asked each time, as the answer may change.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        rank(*metadata.level()) <= LOGGED.load(Ordering::Relaxed)
    }
}

fn open() -> Option<Port> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    PORTS.iter().find_map(|path| {
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path).ok()?;
        // A node of a serial port that is not there opens, but is no terminal.
        let usable = !path.contains("tty") || file.is_terminal();
        usable.then_some(Port { file, lost: AtomicU64::new(0) })
    })
}

/// The console, if there is one, and the agent's own memory of it.
#[derive(Debug)]
struct Book(Option<Port>);

impl<'a> MakeWriter<'a> for Book {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Book {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        logbook::note(line);
        if let Some(port) = &self.0 {
            port.say(line);
        }
        // The loss is accounted for there; the caller could do no more about it.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One open console.
#[derive(Debug)]
struct Port {
    file: File,
    lost: AtomicU64,
}

impl Port {
    fn say(&self, line: &[u8]) {
        let lost = self.lost.load(Ordering::Relaxed);
        let mut whole = Vec::new();
        if lost > 0 {
            let told = format!("tether: {lost} log lines lost: the console took no more\n");
            whole.extend_from_slice(told.as_bytes());
        }
        whole.extend_from_slice(line);
        if self.put(&whole).is_ok() {
            self.lost.store(0, Ordering::Relaxed);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&self.file).write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::from(PATIENCE))? {
            0 => Err(ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

/// Formats one event as a kernel message.
struct KernelStyle;

impl<S, N> FormatEvent<S, N> for KernelStyle
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Time since power-on, as printk shows it; a clock that cannot be read shows as zero.
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        };
        write!(out, "[{:5}.{:06}] tether: {level}", now.tv_sec(), now.tv_nsec() / 1000)?;
        context.format_fields(out.by_ref(), event)?;
        out.write_char('\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_line_amid_another_is_written_at_once() {
        let (mut reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let book: &Book = Box::leak(Box::new(Book(Some(Port { file, lost: AtomicU64::new(0) }))));
        let mut amid = book.make_writer();
        tracing::subscriber::with_default(written_to(move || book), || tracing::error!("panic"));
        amid.write_all(b"the rest\n").unwrap();
        let mut said = [0; 256];
        let length = reader.read(&mut said).unwrap();
        let said = String::from_utf8_lossy(&said[..length]);
        assert!(said.ends_with("tether: error: panic\nthe rest\n"), "{said}");
    }
}
