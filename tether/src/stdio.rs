//! The agent's ends of the process's standard streams: a terminal, or pipes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{pipe2, read, write};
use rustix::io::ioctl_fionread;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::process::failure::StartFailure;
use crate::rootfs::PTS;
use crate::sys;

/// End of transmission (`VEOF`): what a terminal's user types to end the input.
const EOT: u8 = 4;

/// More than a terminal holds of what was written to it, which is some 20 KiB (`drivers/tty/pty.c`, `n_tty.c`).
const TERMINAL_HOLDS: usize = 64 * 1024;

/// What the child puts on its descriptors 0 to 2.
#[derive(Debug)]
pub struct ChildStdio {
    /// The terminal's number in `/dev/pts`; the pipes are absent then.
    pub terminal: Option<u32>,
    /// The reading end; absent means `/dev/null`.
    pub stdin: Option<OwnedFd>,
    /// The writing end.
    pub stdout: Option<OwnedFd>,
    /// The writing end.
    pub stderr: Option<OwnedFd>,
}

/// One descriptor of the agent's. The runtime does not watch it while a flood comes that nobody reads: each write
/// at the other end wakes up whoever watches, and a process may make a hundred thousand of them in a second.
#[derive(Debug)]
pub struct End {
    watched: Watched,
    /// Bytes to come that may be of the process, once that has ended.
    left: usize,
}

#[derive(Debug)]
enum Watched {
    Yes(AsyncFd<OwnedFd>),
    No(OwnedFd),
    /// While the one becomes the other, and after that failed.
    Gone,
}

impl End {
    fn new(fd: OwnedFd) -> Result<Self, Errno> {
        set_nonblocking(&fd)?;
        Ok(Self { watched: Watched::No(fd), left: 0 })
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.watched {
            Watched::Yes(fd) => Some(fd.as_fd()),
            Watched::No(fd) => Some(fd.as_fd()),
            Watched::Gone => None,
        }
    }

    fn is_watched(&self) -> bool {
        matches!(self.watched, Watched::Yes(_))
    }

    fn rest(&mut self) {
        self.watched = match std::mem::replace(&mut self.watched, Watched::Gone) {
            Watched::Yes(fd) => Watched::No(fd.into_inner()),
            other => other,
        };
    }

    fn watch(&mut self) -> Option<&AsyncFd<OwnedFd>> {
        self.watched = match std::mem::replace(&mut self.watched, Watched::Gone) {
            // A descriptor that cannot be watched is closed: the process is told, and nothing hangs.
            Watched::No(fd) => match sys::watch(fd) {
                Ok(fd) => Watched::Yes(fd),
                Err(error) => {
                    warn!("a stream of a process cannot be watched and is closed: {error}");
                    Watched::Gone
                }
            },
            other => other,
        };
        match &self.watched {
            Watched::Yes(fd) => Some(fd),
            Watched::No(_) | Watched::Gone => None,
        }
    }

    fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.watch().map_or(Poll::Ready(()), |fd| fd.poll_read_ready(context).map(drop))
    }

    fn poll_write_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.watch().map_or(Poll::Ready(()), |fd| fd.poll_write_ready(context).map(drop))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &self.watched {
            Watched::Yes(fd) => read_some(fd, buffer),
            Watched::No(fd) => read(fd, buffer).map_err(io::Error::from),
            Watched::Gone => Ok(0),
        };
        match &read {
            Ok(len) => self.left = self.left.saturating_sub(*len),
            // The kernel says so; the runtime may only not know better yet.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.is_watched() => {
                self.left = 0;
            }
            Err(_) => {}
        }
        read
    }

    /// What is in there now is all that can be of a process that has just ended: others write behind it.
    fn process_ended(&mut self, is_terminal: bool) {
        if is_terminal {
            // What it holds cannot be told; that it is empty can be, by a read.
            self.left = TERMINAL_HOLDS;
            return self.rest();
        }
        let held = self.fd().and_then(|fd| ioctl_fionread(fd).ok()).unwrap_or(0);
        self.left = usize::try_from(held).unwrap_or(usize::MAX);
    }

    /// Whether somebody can still write to it.
    fn is_held(&self) -> bool {
        let Some(fd) = self.fd() else { return false };
        let mut fds = [PollFd::new(fd, PollFlags::empty())];
        // Of hang-ups poll tells unasked.
        let told = poll(&mut fds, PollTimeout::ZERO).ok().and(fds[0].revents());
        told.is_none_or(|told| !told.contains(PollFlags::POLLHUP))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.watched {
            Watched::Yes(fd) => fd.try_io(Interest::WRITABLE, |fd| Ok(write(fd, bytes)?)),
            Watched::No(fd) => Ok(write(fd, bytes)?),
            Watched::Gone => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// The agent's ends.
#[derive(Debug)]
pub enum Stdio {
    /// Everything goes through one pseudo-terminal master.
    Terminal {
        /// Output to read; closed at its end.
        master: Option<End>,
    },
    /// One pipe each.
    Pipes {
        /// To write to; absent when the session has no stdin or it is closed.
        stdin: Option<End>,
        /// To read; absent after its end.
        stdout: Option<End>,
        /// To read; absent after its end.
        stderr: Option<End>,
    },
}

/// What one read of an output gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// All writers have closed it.
    End,
}

/// What became of bytes for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// This many were taken.
    Taken(usize),
    /// It takes nothing now.
    Full,
    /// Nobody will ever read them.
    Closed,
}

impl Stdio {
    /// Makes the two ends.
    ///
    /// # Errors
    ///
    /// When descriptors or pseudo-terminals run out.
    pub fn open(tty: bool, open_stdin: bool) -> Result<(Self, ChildStdio), StartFailure> {
        if tty { Self::open_terminal() } else { Self::open_pipes(open_stdin) }
    }

    /// The two ends of a process whose streams are all `/dev/null`.
    pub fn nothing() -> (Self, ChildStdio) {
        let child = ChildStdio { terminal: None, stdin: None, stdout: None, stderr: None };
        (Self::Pipes { stdin: None, stdout: None, stderr: None }, child)
    }

    fn open_terminal() -> Result<(Self, ChildStdio), StartFailure> {
        let path = format!("{PTS}/ptmx");
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let master = open(path.as_str(), flags, Mode::empty())
            .map_err(StartFailure::machine("open a terminal"))?;
        let number =
            sys::unlock_pty(&master).map_err(StartFailure::machine("unlock a terminal"))?;
        let master = Some(End::new(master).map_err(StartFailure::machine("watch a terminal"))?);
        let child = ChildStdio { terminal: Some(number), stdin: None, stdout: None, stderr: None };
        Ok((Self::Terminal { master }, child))
    }

    /// A terminal that a test has made.
    #[cfg(test)]
    pub(crate) fn of_terminal(master: OwnedFd) -> Self {
        Self::Terminal { master: Some(End::new(master).expect("a terminal to watch")) }
    }

    fn open_pipes(open_stdin: bool) -> Result<(Self, ChildStdio), StartFailure> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(StartFailure::machine("make a pipe"));
        let end = |fd| End::new(fd).map_err(StartFailure::machine("watch a pipe"));
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        let (child_stdin, stdin) =
            if open_stdin { pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
        let child = ChildStdio {
            terminal: None,
            stdin: child_stdin,
            stdout: Some(child_stdout),
            stderr: Some(child_stderr),
        };
        let stdin = stdin.map(end).transpose()?;
        Ok((Self::Pipes { stdin, stdout: Some(end(stdout)?), stderr: Some(end(stderr)?) }, child))
    }

    /// Where stdout, or everything a terminal shows, can be read.
    pub fn stdout(&mut self) -> &mut Option<End> {
        match self {
            Self::Terminal { master } => master,
            Self::Pipes { stdout, .. } => stdout,
        }
    }

    /// Where stderr can be read.
    pub fn stderr(&mut self) -> Option<&mut Option<End>> {
        match self {
            Self::Terminal { .. } => None,
            Self::Pipes { stderr, .. } => Some(stderr),
        }
    }

    /// Whether something can be moved at once; else the context's task is woken when it can: when an output has
    /// bytes or ends, if `reading`, or when the input takes some, if `writing`.
    pub fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
        reading: bool,
        writing: bool,
    ) -> Poll<()> {
        let (outputs, input) = match self {
            Self::Terminal { master } if writing => ([None, None], master.as_mut()),
            Self::Terminal { master } => ([master.as_mut(), None], None),
            Self::Pipes { stdin, stdout, stderr } => {
                ([stdout.as_mut(), stderr.as_mut()], stdin.as_mut())
            }
        };
        let mut found = Poll::Pending;
        for end in outputs.into_iter().flatten() {
            if !reading && !end.is_watched() {
                continue;
            }
            let is_ready = end.poll_read_ready(context).is_ready();
            if is_ready && reading {
                found = Poll::Ready(());
            } else if is_ready {
                // One of these is one too many.
                end.rest();
            }
        }
        if let Some(end) = input.filter(|_| writing)
            && end.poll_write_ready(context).is_ready()
        {
            found = Poll::Ready(());
        }
        // The descriptor is one and the same.
        if let Self::Terminal { master: Some(master) } = self
            && reading
            && writing
            && master.poll_read_ready(context).is_ready()
        {
            found = Poll::Ready(());
        }
        found
    }

    /// Whether something may be there to read that nobody will be told of.
    pub fn is_unwatched(&self) -> bool {
        self.outputs().any(|end| !end.is_watched())
    }

    /// Has the next read of an output ask the kernel, whatever the runtime knows: that learns of bytes only when it
    /// has waited in between, which under load may be a while ago.
    pub fn distrust(&mut self) {
        self.outputs_mut().for_each(End::rest);
    }

    /// The process has ended: what is there of it now is all that will be.
    pub fn process_ended(&mut self) {
        let is_terminal = matches!(self, Self::Terminal { .. });
        self.outputs_mut().for_each(|end| end.process_ended(is_terminal));
    }

    /// Whether something may be there to read that a process wrote which has ended.
    pub fn owes(&self) -> bool {
        self.outputs().any(|end| end.left > 0)
    }

    /// Whether somebody can still write to an output.
    pub fn is_held(&self) -> bool {
        self.outputs().any(End::is_held)
    }

    /// Reads no more: that was the end of every output.
    pub fn close_outputs(&mut self) {
        match self {
            Self::Terminal { master } => *master = None,
            Self::Pipes { stdout, stderr, .. } => (*stdout, *stderr) = (None, None),
        }
    }

    fn outputs(&self) -> impl Iterator<Item = &End> {
        let outputs = match self {
            Self::Terminal { master } => [master.as_ref(), None],
            Self::Pipes { stdout, stderr, .. } => [stdout.as_ref(), stderr.as_ref()],
        };
        outputs.into_iter().flatten()
    }

    fn outputs_mut(&mut self) -> impl Iterator<Item = &mut End> {
        let outputs = match self {
            Self::Terminal { master } => [master.as_mut(), None],
            Self::Pipes { stdout, stderr, .. } => [stdout.as_mut(), stderr.as_mut()],
        };
        outputs.into_iter().flatten()
    }

    /// Whether every output has ended.
    pub fn output_ended(&self) -> bool {
        match self {
            Self::Terminal { master } => master.is_none(),
            Self::Pipes { stdout, stderr, .. } => stdout.is_none() && stderr.is_none(),
        }
    }

    /// Offers bytes to the process's stdin.
    pub fn write_input(&mut self, bytes: &[u8]) -> Input {
        let (Self::Terminal { master: Some(stdin) } | Self::Pipes { stdin: Some(stdin), .. }) =
            self
        else {
            return Input::Closed;
        };
        match stdin.write(bytes) {
            Ok(taken) => Input::Taken(taken),
            Err(error) if is_transient(&error) => Input::Full,
            Err(_broken_pipe) => {
                self.close_pipe();
                Input::Closed
            }
        }
    }

    /// Ends the process's stdin: a pipe is closed, a terminal gets its end-of-transmission character.
    /// Says `false` when the terminal cannot take it now.
    pub fn end_input(&mut self) -> bool {
        match self {
            Self::Terminal { .. } => self.write_input(&[EOT]) != Input::Full,
            Self::Pipes { .. } => {
                self.close_pipe();
                true
            }
        }
    }

    fn close_pipe(&mut self) {
        if let Self::Pipes { stdin, .. } = self {
            *stdin = None;
        }
    }

    /// Tells the terminal its size; without one there is nothing to tell.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Errno> {
        match self {
            Self::Terminal { master: Some(master) } => {
                master.fd().map_or(Ok(()), |fd| sys::set_window_size(fd, rows, columns))
            }
            Self::Terminal { master: None } | Self::Pipes { .. } => Ok(()),
        }
    }
}

/// Reads what `end` has now and closes it at its end.
pub fn read_output(end: &mut Option<End>, buffer: &mut [u8]) -> Output {
    let Some(open) = end else { return Output::End };
    match open.read(buffer) {
        Ok(len) if len > 0 => Output::Bytes(len),
        Err(error) if is_transient(&error) => Output::Nothing,
        // A terminal whose last user has gone answers EIO, where a pipe answers "no bytes".
        Ok(_) | Err(_) => {
            *end = None;
            Output::End
        }
    }
}

/// Reads a pipe, a terminal or a stream socket that the runtime watches. Less than there was room for is all there
/// was, and what comes after it will be told: the kernel is not asked again before that.
pub(crate) fn read_some(fd: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut taken = None;
    let result = fd.try_io(Interest::READABLE, |fd| {
        let len = read(fd, buffer)?;
        taken = Some(len);
        let is_all = (1..buffer.len()).contains(&len);
        if is_all { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(len) }
    });
    taken.map_or(result, Ok)
}

/// Whether the same call may succeed later. After "would block" the runtime has forgotten the descriptor's
/// readiness, so the next wait is a real one.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Makes a descriptor non-blocking and registers it with the runtime.
pub(crate) fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, Errno> {
    set_nonblocking(&fd)?;
    sys::watch(fd).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Sets `O_NONBLOCK`.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}
