//! A byte pipe to the multiplexer, of one of three kinds: serial port, virtio-serial port, vsock connection.
//!
//! | kind | where | a full queue | the other end goes away |
//! |---|---|---|---|
//! | [`uart`] | `/dev/ttyS0` | poll says when it has run down to 256 bytes | cannot be seen |
//! | [`virtio`] | `/dev/vportNpM` by its name | a write that would block | hang-up; comes back by itself |
//! | [`vsock`] | CID 2, port 2377 | a write that would block | end; must be connected again |
//!
//! A line only moves bytes; which of several is used, and what to make of their contents, is for
//! [`crate::pipes`].

pub mod uart;
pub mod virtio;
pub mod vsock;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{read, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wire::Transport;

use crate::{stdio, sys};

/// Bytes that occupy a serial port for so long that some may have come meanwhile.
pub const LONG_WRITE: usize = 256;

/// An open pipe.
#[derive(Debug)]
pub struct Line {
    transport: Transport,
    source: Source,
    state: State,
    piece: Piece,
    /// Bytes written since the runtime, or a read, has looked for some to come.
    unlooked: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A connection under way.
    Connecting,
    Open,
    /// Nobody is at the other end.
    Closed,
}

#[derive(Debug)]
enum Source {
    /// The runtime watches it.
    Plain(AsyncFd<OwnedFd>),
    /// Nobody watches it, as nothing that comes now is of use by itself. It can be read and written all the same.
    Resting(OwnedFd),
    /// While one becomes another, and after that failed.
    Gone,
    /// For the runtime a hang-up is the end, for this descriptor it is not: an epoll instance of its own
    /// watches it, and the runtime watches that.
    Nested(Nested),
}

#[derive(Debug)]
struct Nested {
    fd: OwnedFd,
    epoll: Epoll,
    edges: AsyncFd<OwnedFd>,
    readable: bool,
    writable: bool,
    /// Whether room to write is an edge. Only while it is waited for: the device makes one of each write
    /// that is through, and each would be a turn of the agent for nothing.
    wants_room: bool,
}

/// How much of a tty's queue is filled at once.
#[derive(Debug)]
struct Piece {
    /// Bytes that may be written after the queue was found run down.
    size: usize,
    /// How many of them have not been.
    left: usize,
    /// Whether the last of them have just been, so that a queue that is run down has not had time for it.
    just_now: bool,
}

impl Line {
    /// Uses a descriptor that is already set up and has both ends.
    pub(crate) fn over(fd: OwnedFd, transport: Transport) -> io::Result<Self> {
        stdio::set_nonblocking(&fd)?;
        let source = Source::Plain(sys::watch(fd)?);
        Ok(Self { transport, source, state: State::Open, piece: Piece::default(), unlooked: 0 })
    }

    fn connecting(fd: OwnedFd, transport: Transport) -> io::Result<Self> {
        Ok(Self { state: State::Connecting, ..Self::over(fd, transport)? })
    }

    /// Uses a descriptor whose hang-up passes.
    fn nested(fd: OwnedFd, transport: Transport) -> io::Result<Self> {
        stdio::set_nonblocking(&fd)?;
        let flags = now(&fd, PollFlags::POLLIN | PollFlags::POLLOUT)?;
        let is_open = !flags.contains(PollFlags::POLLHUP);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wants_room = !is_open;
        epoll.add(&fd, edges_of_interest(wants_room))?;
        let edges = sys::watch(epoll.0.try_clone()?)?;
        let nested = Nested { fd, epoll, edges, readable: true, writable: true, wants_room };
        let state = if is_open { State::Open } else { State::Closed };
        let source = Source::Nested(nested);
        Ok(Self { transport, source, state, piece: Piece::default(), unlooked: 0 })
    }

    /// What kind it is.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether somebody is at the other end, as far as that can be seen.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Says when something may have changed: bytes to read, the other end's presence, or, `if blocked`, room
    /// to write.
    pub(crate) fn poll_changed(&self, cx: &mut Context<'_>, blocked: bool) -> Poll<io::Result<()>> {
        let (fd, wants_room) = match &self.source {
            Source::Plain(fd) => (fd, blocked || self.state == State::Connecting),
            Source::Resting(_) | Source::Gone => return Poll::Pending,
            // More than was read in one turn: there is no other edge for what is there already.
            Source::Nested(nested) if nested.readable && self.state == State::Open => {
                return Poll::Ready(Ok(()));
            }
            Source::Nested(nested) => (&nested.edges, false),
        };
        if let Poll::Ready(ready) = fd.poll_read_ready(cx) {
            return Poll::Ready(ready.map(|mut guard| guard.retain_ready()));
        }
        if wants_room && let Poll::Ready(ready) = fd.poll_write_ready(cx) {
            return Poll::Ready(ready.map(|mut guard| guard.retain_ready()));
        }
        Poll::Pending
    }

    /// Has nobody watch a serial port until [`rouse`](Self::rouse): a 16550 announces every 14 bytes.
    pub(crate) fn rest(&mut self) {
        self.source = match std::mem::replace(&mut self.source, Source::Gone) {
            Source::Plain(fd) if self.transport == Transport::Uart => {
                Source::Resting(fd.into_inner())
            }
            other => other,
        };
    }

    /// Has it watched again.
    ///
    /// # Errors
    ///
    /// The runtime's: the line is of no more use then.
    pub(crate) fn rouse(&mut self) -> io::Result<()> {
        self.source = match std::mem::replace(&mut self.source, Source::Gone) {
            Source::Resting(fd) => Source::Plain(sys::watch(fd)?),
            other => other,
        };
        Ok(())
    }

    /// Takes note of what has changed. To be called before reading and writing.
    ///
    /// # Errors
    ///
    /// The connection that was under way has failed, or the port was unplugged.
    pub fn refresh(&mut self) -> io::Result<()> {
        match &mut self.source {
            Source::Plain(fd) if self.state == State::Connecting => {
                let result = fd.try_io(Interest::WRITABLE, |fd| {
                    if !has_room(fd)? {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    Ok(getsockopt(fd, sockopt::SocketError)?)
                });
                match later(result)? {
                    Some(0) => self.state = State::Open,
                    Some(number) => return Err(io::Error::from_raw_os_error(number)),
                    None => {}
                }
            }
            Source::Plain(_) | Source::Resting(_) => self.piece.just_now = false,
            Source::Gone => return Err(io::ErrorKind::NotConnected.into()),
            Source::Nested(nested) => {
                if let Some(is_open) = nested.refresh()? {
                    self.state = if is_open { State::Open } else { State::Closed };
                }
                nested.want_room(!nested.writable || self.state == State::Closed)?;
            }
        }
        Ok(())
    }

    /// Reads what is there; `None` when there is nothing now, or nobody.
    ///
    /// # Errors
    ///
    /// The descriptor is of no more use: it broke, or the connection has ended.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.state != State::Open {
            return Ok(None);
        }
        match &mut self.source {
            Source::Plain(fd) => {
                let unlooked = std::mem::take(&mut self.unlooked) >= LONG_WRITE;
                let read =
                    if unlooked { read_now(fd, buffer) } else { stdio::read_some(fd, buffer) };
                match later(read)? {
                    // A raw tty without a sender has no end; zero bytes only say that nothing is there.
                    Some(0) if self.transport == Transport::Uart => Ok(None),
                    Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    read => Ok(read),
                }
            }
            Source::Resting(fd) => {
                let read = later(read(fd, buffer).map_err(io::Error::from))?;
                Ok(read.filter(|len| *len > 0))
            }
            Source::Gone => Ok(None),
            Source::Nested(nested) => {
                if !nested.readable {
                    return Ok(None);
                }
                let read = later(read(&nested.fd, buffer).map_err(io::Error::from))?;
                nested.readable = read.is_some_and(|len| len > 0);
                if read == Some(0) {
                    self.state = State::Closed;
                }
                Ok(read.filter(|len| *len > 0))
            }
        }
    }

    /// Whether another piece can be written now, as far as can be told without writing it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn has_room(&mut self) -> io::Result<bool> {
        if self.state != State::Open {
            return Ok(false);
        }
        if self.transport == Transport::Uart && self.piece.left > 0 {
            return Ok(true);
        }
        let has_room = match &self.source {
            // The runtime remembers "writable" until a write would block, which is when the queue is full.
            // The kernel's poll says it only below the wake-up mark, so ask that.
            Source::Plain(fd) if self.transport == Transport::Uart => {
                let result = fd.try_io(Interest::WRITABLE, |fd| match has_room(fd)? {
                    true => Ok(()),
                    false => Err(io::ErrorKind::WouldBlock.into()),
                });
                later(result)?.is_some()
            }
            Source::Plain(_) => return Ok(true),
            Source::Resting(fd) => has_room(fd)?,
            Source::Gone => return Ok(false),
            Source::Nested(nested) => return Ok(nested.writable),
        };
        self.piece.found(has_room);
        Ok(has_room)
    }

    /// Writes the first piece of `bytes`; `None` when none can be taken now.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        if self.state != State::Open {
            return Ok(None);
        }
        let is_tty = self.transport == Transport::Uart;
        if is_tty && !self.has_room()? {
            return Ok(None);
        }
        let bytes = bytes.get(..self.piece.left).filter(|_| is_tty).unwrap_or(bytes);
        match &mut self.source {
            Source::Plain(fd) => {
                let result = fd.try_io(Interest::WRITABLE, |fd| Ok(write(fd, bytes)?));
                let taken = later(result)?;
                self.piece.used(taken);
                self.unlooked += taken.filter(|_| is_tty).unwrap_or(0);
                Ok(taken)
            }
            Source::Resting(fd) => {
                let taken = later(write(fd, bytes).map_err(io::Error::from))?;
                self.piece.used(taken);
                Ok(taken)
            }
            Source::Gone => Ok(None),
            Source::Nested(nested) => {
                let taken = later(write(&nested.fd, bytes).map_err(io::Error::from))?;
                nested.writable = taken.is_some();
                nested.want_room(!nested.writable)?;
                Ok(taken)
            }
        }
    }
}

impl Default for Piece {
    fn default() -> Self {
        Self { size: uart::PIECE, left: 0, just_now: false }
    }
}

impl Piece {
    /// After all of the last piece was written, the queue is run down again, or it is not.
    fn found(&mut self, run_down: bool) {
        if !run_down {
            *self = Self::default();
            return;
        }
        if std::mem::take(&mut self.just_now) {
            self.size = (2 * self.size).min(uart::QUEUE);
        }
        self.left = self.size;
    }

    fn used(&mut self, taken: Option<usize>) {
        self.left = taken.map_or(0, |taken| self.left.saturating_sub(taken));
        self.just_now = true;
    }
}

fn edges_of_interest(wants_room: bool) -> EpollEvent {
    let room = if wants_room { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET | room, 0)
}

impl Nested {
    /// Collects the edges; says whether the other end is there if that may have changed. An error says that the port
    /// itself is there no more.
    fn refresh(&mut self) -> io::Result<Option<bool>> {
        let Self { epoll, edges, readable, writable, .. } = self;
        let mut is_open = None;
        let seen: io::Result<()> = edges.try_io(Interest::READABLE, |_| {
            let mut events = [EpollEvent::empty()];
            if epoll.wait(&mut events, EpollTimeout::ZERO)? > 0 {
                let flags = events[0].events();
                *readable |= flags.contains(EpollFlags::EPOLLIN);
                *writable |= flags.contains(EpollFlags::EPOLLOUT);
                is_open = Some(!flags.contains(EpollFlags::EPOLLHUP));
            }
            // One descriptor is one event: there is no other now.
            Err(io::ErrorKind::WouldBlock.into())
        });
        later(seen)?;
        if is_open == Some(false) {
            // Of nothing, so that what has come before the hang-up stays there.
            still_plugged(read(&self.fd, &mut []).map_err(io::Error::from))?;
        }
        Ok(is_open)
    }

    fn want_room(&mut self, wanted: bool) -> io::Result<()> {
        if self.wants_room != wanted {
            self.epoll.modify(&self.fd, &mut edges_of_interest(wanted))?;
            self.wants_room = wanted;
        }
        Ok(())
    }
}

/// Tells by a read whether a port that has hung up may come back. One that is unplugged hangs up as well, but for good,
/// and each call to it fails (`port_fops_read`); one whose other end is closed has nothing to give, or not now.
fn still_plugged(read: io::Result<usize>) -> io::Result<()> {
    later(read).map(drop)
}

/// Reads what is there by now, whatever the runtime knows of it, which may be nothing yet.
fn read_now(fd: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    let result = read(fd.get_ref(), buffer).map_err(io::Error::from);
    if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        // So that it does not go on believing that something is there.
        return fd.try_io(Interest::READABLE, |_| Err(io::ErrorKind::WouldBlock.into()));
    }
    result
}

fn has_room(fd: &OwnedFd) -> io::Result<bool> {
    Ok(!now(fd, PollFlags::POLLOUT)?.is_empty())
}

fn now(fd: &OwnedFd, wanted: PollFlags) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(fd.as_fd(), wanted)];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()))
}

fn later<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use uart::PIECE;

    fn pair(transport: Transport) -> (Line, Line) {
        let (near, far) = UnixStream::pair().unwrap();
        let line = |end: UnixStream| Line::over(end.into(), transport).unwrap();
        (line(near), line(far))
    }

    async fn readable(line: &Line) {
        std::future::poll_fn(|cx| line.poll_changed(cx, false)).await.unwrap();
    }

    #[tokio::test]
    async fn a_write_to_a_serial_port_is_one_piece_and_bytes_arrive_as_they_left() {
        let (mut near, mut far) = pair(Transport::Uart);
        std::future::poll_fn(|cx| near.poll_changed(cx, true)).await.unwrap();
        let sent: Vec<u8> = (0..=255).cycle().take(PIECE + 100).collect();
        assert_eq!(near.write(&sent).unwrap(), Some(PIECE));
        readable(&far).await;
        let mut buffer = [0; 2048];
        assert_eq!(far.read(&mut buffer).unwrap(), Some(PIECE));
        assert_eq!(buffer[..PIECE], sent[..PIECE]);
        assert_eq!(far.read(&mut buffer).unwrap(), None);
    }

    #[tokio::test]
    async fn what_has_come_while_much_was_written_is_read_though_the_runtime_knows_nothing_of_it() {
        let (mut near, mut far) = pair(Transport::Uart);
        let both_ready = std::future::poll_fn(|cx| near.poll_changed(cx, true));
        both_ready.await.unwrap();
        std::future::poll_fn(|cx| far.poll_changed(cx, true)).await.unwrap();
        let mut buffer = [0; 2048];
        assert_eq!(near.read(&mut buffer).unwrap(), None);
        far.write(b"key").unwrap();
        near.write(&[0; LONG_WRITE - 1]).unwrap();
        assert_eq!(near.read(&mut buffer).unwrap(), None);
        near.write(&[0; LONG_WRITE]).unwrap();
        assert_eq!(near.read(&mut buffer).unwrap(), Some(3));
        assert_eq!(near.read(&mut buffer).unwrap(), None);
        // The runtime does not go on saying that something is there.
        far.write(b"more").unwrap();
        readable(&near).await;
        near.write(&[0; LONG_WRITE]).unwrap();
        assert_eq!(near.read(&mut buffer).unwrap(), Some(4));
        near.write(&[0; LONG_WRITE]).unwrap();
        assert_eq!(near.read(&mut buffer).unwrap(), None);
        let told = std::future::poll_fn(|cx| Poll::Ready(near.poll_changed(cx, false).is_ready()));
        assert!(!told.await);
    }

    #[test]
    fn pieces_grow_only_while_the_queue_keeps_up_with_its_writer() {
        let mut piece = Piece::default();
        let mut writes = |just_now: bool, run_down: bool| {
            piece.used(Some(piece.left));
            piece.just_now &= just_now;
            piece.found(run_down);
            piece.left
        };
        // However often a queue is run down that had time for it, nothing follows from that.
        assert!((0..100).all(|_| writes(false, true) == PIECE));
        let grown: Vec<_> = (0..5).map(|_| writes(true, true)).collect();
        assert_eq!(grown, [1024, 2048, 4096, uart::QUEUE, uart::QUEUE]);
        assert_eq!(writes(true, false), 0);
        assert_eq!(writes(false, true), PIECE);
    }

    #[tokio::test]
    async fn a_full_queue_takes_nothing_and_says_so() {
        for transport in Transport::ALL {
            let (mut line, _far) = pair(transport);
            std::future::poll_fn(|cx| line.poll_changed(cx, true)).await.unwrap();
            let piece = [0; PIECE];
            let mut taken = 0;
            while let Some(len) = line.write(&piece).unwrap() {
                taken += len;
                assert!(taken < 64 << 20, "the queue has no end");
            }
            assert!(taken > 0);
        }
    }

    #[tokio::test]
    async fn the_end_of_a_connection_is_an_error_and_that_of_a_port_is_not() {
        let (mut near, far) = pair(Transport::Vsock);
        drop(far);
        readable(&near).await;
        assert!(near.read(&mut [0; 10]).is_err());

        let (near, far) = UnixStream::pair().unwrap();
        let mut port = Line::nested(near.into(), Transport::Virtio).unwrap();
        assert!(port.is_open());
        assert_eq!(port.read(&mut [0; 10]).unwrap(), None);
        drop(far);
        while port.is_open() {
            readable(&port).await;
            port.refresh().unwrap();
        }
        assert_eq!(port.read(&mut [0; 10]).unwrap(), None);
        assert_eq!(port.write(b"x").unwrap(), None);
    }

    #[test]
    fn a_port_that_is_unplugged_is_told_from_one_whose_other_end_is_closed() {
        let error = |number| Err(io::Error::from_raw_os_error(number));
        for closed in [Ok(0), error(libc::EAGAIN), error(libc::EINTR)] {
            assert!(still_plugged(closed).is_ok());
        }
        for unplugged in [libc::ENODEV, libc::EIO] {
            let error = still_plugged(error(unplugged)).expect_err("it does not come back");
            assert_eq!(error.raw_os_error(), Some(unplugged));
        }
    }

    #[tokio::test]
    async fn a_port_is_read_and_written_as_edges_tell() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = Line::nested(near.into(), Transport::Virtio).unwrap();
        let mut far = Line::over(far.into(), Transport::Vsock).unwrap();
        assert_eq!(near.read(&mut [0; 10]).unwrap(), None);
        for round in 0..3 {
            std::future::poll_fn(|cx| far.poll_changed(cx, true)).await.unwrap();
            assert_eq!(far.write(&[round; 5]).unwrap(), Some(5));
            let mut buffer = [0; 10];
            let read = loop {
                readable(&near).await;
                near.refresh().unwrap();
                if let Some(len) = near.read(&mut buffer).unwrap() {
                    break len;
                }
            };
            assert_eq!(buffer[..read], [round; 5]);
            assert_eq!(near.read(&mut buffer).unwrap(), None);
        }
    }
}
