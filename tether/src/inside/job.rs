//! A request that a process of its own carries out, and the channels that bring its bytes.
//!
//! What may wait for a disk, for another process or for ever (copies, lists of processes and names) must not
//! make the agent wait. So it is done by a child of the agent: a copy of it, in a cgroup with little memory and
//! a small share of the processor, first to be killed when memory runs out. It has three pipes: what it writes
//! to the first goes to the request's stream, what comes on the request's stream is on the second, and on the
//! third it leaves its outcome. When the client gives up, the child is killed.
//!
//! Bounds: [`MAX_JOBS`] children; in the agent, one piece of each stream.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use bytes::{Buf, Bytes};
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, pipe2, read, write};
use prost::Message as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::debug;
use wire::message::{guest, label};
use wire::{ChannelId, Class, Direction};

use super::failure::InsideError;
use crate::cgroup::TREE;
use crate::reap::Exit;
use crate::stdio::watch;
use crate::sys::{self, Cloned};
use crate::uplink::Uplink;

/// Most children at once.
pub const MAX_JOBS: usize = 32;

/// The most that is moved at once.
const CHUNK: usize = 16 * 1024;
/// Room in the channel below which the pipe is not read, so that the stream is not cut into crumbs.
const MIN_ROOM: usize = 512;
/// Moves in one turn, so that a copy starves nobody.
const MOVES_PER_TURN: usize = 4;
/// The longest outcome: a link's target and names, or an error with a path.
const MAX_OUTCOME: usize = 32 * 1024;
/// The cgroup of the children.
const GROUP: &str = "inside";
/// Memory of all children together, bytes.
const MEMORY: &str = "50331648";
/// The kernel's default share of the processor is 100.
const CPU_WEIGHT: &str = "20";

/// The child's ends.
#[derive(Debug)]
pub struct Ends {
    /// To the request's stream.
    pub out: BufWriter<fs::File>,
    /// From the request's stream.
    pub input: fs::File,
}

/// What the child leaves: the reply's body.
pub type Outcome = Result<Vec<u8>, InsideError>;

/// Which streams a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// None: the reply says it all.
    None,
    /// One to the multiplexer.
    Up,
    /// One to the guest.
    Down,
}

/// A request on its way.
#[derive(Debug)]
pub struct Job {
    request: u64,
    pid: Pid,
    /// Absent when all has been read.
    out: Option<AsyncFd<OwnedFd>>,
    up: Option<ChannelId>,
    /// Whether the last turn ended for lack of room in the channel.
    stuck: bool,
    /// Absent when nothing more will be written.
    input: Option<AsyncFd<OwnedFd>>,
    down: Option<ChannelId>,
    pending: Bytes,
    offset: u64,
    ending: bool,
    blocked: bool,
    outcome: OwnedFd,
    exit: Option<Exit>,
}

impl Job {
    /// Starts `work` in a child. `keep` are descriptors that it needs.
    ///
    /// # Errors
    ///
    /// Why there can be no child, or no channel.
    pub fn start(
        request: u64,
        streams: Streams,
        keep: &[i32],
        uplink: &mut Uplink,
        work: impl FnOnce(&mut Ends) -> Outcome,
    ) -> Result<Self, InsideError> {
        let pipe =
            || pipe2(OFlag::O_CLOEXEC).map_err(InsideError::machine("make a pipe for the work"));
        let (out, child_out) = pipe()?;
        let (child_input, input) = pipe()?;
        let (outcome, child_outcome) = pipe()?;
        let group = group();
        // Between birth and reset, the child must not run the agent's signal handlers.
        let mask = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(InsideError::machine("block signals"))?;
        let cloned = sys::clone_process(0, group.as_ref());
        if matches!(cloned, Ok(Cloned::Child)) {
            run(child_out, child_input, &child_outcome, keep, work);
        }
        mask.thread_set_mask().map_err(InsideError::machine("unblock signals"))?;
        let pid = match cloned.map_err(InsideError::machine("make a process for the work"))? {
            Cloned::Parent(pid) => pid,
            Cloned::Child => unreachable!("the child has ended"),
        };
        drop((child_out, child_input, child_outcome));
        let watched = |fd| watch(fd).map_err(InsideError::machine("watch a pipe"));
        let mut job = Self {
            request,
            pid,
            out: Some(watched(out)?),
            up: None,
            stuck: false,
            input: Some(watched(input)?),
            down: None,
            pending: Bytes::new(),
            offset: 0,
            ending: streams != Streams::Down,
            blocked: false,
            outcome,
            exit: None,
        };
        let kind = label::Kind::Stream(label::Stream { request });
        let channel = match streams {
            Streams::None => return Ok(job),
            Streams::Up => {
                uplink.open(Direction::ToMux, Class::Bulk, kind).map(|id| job.up = Some(id))
            }
            Streams::Down => {
                uplink.open(Direction::ToGuest, Class::Bulk, kind).map(|id| job.down = Some(id))
            }
        };
        channel.map_err(|error| {
            job.kill();
            InsideError::Machine {
                step: "open a channel",
                error: io::Error::other(error.to_string()),
            }
        })?;
        Ok(job)
    }

    /// The child's id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The child has ended.
    pub fn reaped(&mut self, exit: Exit) {
        self.exit = Some(exit);
    }

    fn kill(&self) {
        // One that has just ended needs no signal.
        let _ended = sys::kill(self.pid, libc::SIGKILL);
    }

    /// Moves what can be moved, and answers when all is done: `true` then.
    pub fn turn(&mut self, uplink: &mut Uplink) -> bool {
        for _ in 0..MOVES_PER_TURN {
            let moved = self.move_up(uplink) | self.move_down(uplink);
            if !moved {
                break;
            }
        }
        let (None, Some(exit)) = (&self.out, self.exit) else { return false };
        if let Some(channel) = self.down.take() {
            uplink.link().abandon(channel);
        }
        uplink.say(guest::Body::Reply(self.reply(exit)));
        true
    }

    fn move_up(&mut self, uplink: &mut Uplink) -> bool {
        self.stuck = false;
        let Some(out) = &self.out else { return false };
        let room = self.up.map_or(CHUNK, |channel| uplink.link().room(channel));
        if room < MIN_ROOM {
            self.stuck = true;
            return false;
        }
        let mut buffer = [0; CHUNK];
        let buffer = &mut buffer[..room.min(CHUNK)];
        match out.try_io(Interest::READABLE, |fd| Ok(read(fd, buffer)?)) {
            Ok(0) => {
                self.out = None;
                if let Some(channel) = self.up {
                    uplink.link().finish(channel);
                }
                false
            }
            Ok(len) => {
                if let Some(channel) = self.up {
                    uplink.link().write(channel, &buffer[..len]);
                }
                true
            }
            Err(error) if is_transient(&error) => false,
            Err(_broken) => {
                self.out = None;
                false
            }
        }
    }

    fn move_down(&mut self, uplink: &mut Uplink) -> bool {
        self.blocked = false;
        let Some(input) = &self.input else { return false };
        if self.pending.is_empty()
            && let Some(channel) = self.down
        {
            self.pending = uplink.link().read(channel, CHUNK);
        }
        if self.pending.is_empty() {
            if self.ending {
                self.input = None;
                if let Some(channel) = self.down.take() {
                    uplink.link().close(channel);
                }
            }
            return false;
        }
        match input.try_io(Interest::WRITABLE, |fd| Ok(write(fd, &self.pending)?)) {
            Ok(len) => {
                self.pending.advance(len);
                self.offset += len as u64;
                if let Some(channel) = self.down {
                    uplink.link().release(channel, self.offset);
                }
                true
            }
            Err(error) if is_transient(&error) => {
                self.blocked = true;
                false
            }
            // The child reads no more: it has ended, or will.
            Err(_broken_pipe) => {
                self.input = None;
                self.pending = Bytes::new();
                false
            }
        }
    }

    fn reply(&self, exit: Exit) -> guest::Reply {
        let mut bytes = vec![0; MAX_OUTCOME];
        // The child is gone, so this does not wait.
        let len = read(&self.outcome, &mut bytes).unwrap_or(0);
        match guest::Reply::decode(&bytes[..len]) {
            Ok(reply) if len > 0 => guest::Reply { request: self.request, ..reply },
            _ => {
                let error = format!(
                    "the process that did it ended by signal {} before it was done; there may be too little memory for it",
                    exit.signal
                );
                guest::Reply { request: self.request, error, body: Vec::new() }
            }
        }
    }

    /// The stream to the guest has ended.
    pub fn finished(&mut self, channel: ChannelId) {
        if self.down == Some(channel) {
            self.ending = true;
        }
    }

    /// A channel is gone at the other end: nobody wants this any more.
    pub fn gone(&mut self, channel: ChannelId) {
        if self.down == Some(channel) || self.up == Some(channel) {
            debug!("request {} is given up", self.request);
            (self.down, self.up, self.pending) = (None, None, Bytes::new());
            self.ending = true;
            self.kill();
        }
    }

    /// Waits until one of the pipes may move.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken or given.
    pub async fn wait(&self) {
        tokio::select! {
            () = ready(self.out.as_ref(), Interest::READABLE), if !self.stuck => {}
            () = ready(self.input.as_ref(), Interest::WRITABLE), if self.blocked => {}
            else => std::future::pending().await,
        }
    }
}

async fn ready(end: Option<&AsyncFd<OwnedFd>>, interest: Interest) {
    let Some(fd) = end else { return std::future::pending().await };
    match fd.ready(interest).await {
        Ok(mut ready) => ready.retain_ready(),
        Err(_shutting_down) => std::future::pending().await,
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The cgroup of the children, made by the first. Without one they run in the agent's.
fn group() -> Option<OwnedFd> {
    let path = Path::new(TREE).join(GROUP);
    if fs::create_dir(&path).is_ok() {
        for (file, value) in [
            ("memory.max", MEMORY),
            ("memory.swap.max", "0"),
            ("pids.max", "64"),
            ("cpu.weight", CPU_WEIGHT),
        ] {
            // A kernel without the controller has no such limit.
            let _not_offered = fs::write(path.join(file), value);
        }
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(&path, flags, Mode::empty()).ok()
}

/// An archive's names may be long, and all of it must fit in the pipe.
fn cut(mut text: String) -> String {
    const MAX_TEXT: usize = 8 * 1024;
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The child's life.
fn run(
    out: OwnedFd,
    input: OwnedFd,
    outcome: &OwnedFd,
    keep: &[i32],
    work: impl FnOnce(&mut Ends) -> Outcome,
) -> ! {
    sys::reset_signals();
    let mut kept = vec![out.as_raw_fd(), input.as_raw_fd(), outcome.as_raw_fd()];
    kept.extend(keep);
    // The agent's ends of everybody's pipes among them: those must end when the agent closes them.
    sys::close_all_but(kept);
    // Rather this than any process of the container's.
    let _unprotected = fs::write("/proc/self/oom_score_adj", "1000");
    // Directories lie deep in some trees, and each level keeps one open.
    let _fewer =
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 4096, 4096);
    let mut ends = Ends { out: BufWriter::with_capacity(CHUNK, out.into()), input: input.into() };
    let result = work(&mut ends).and_then(|body| {
        ends.out.flush().map_err(InsideError::Pipe)?;
        Ok(body)
    });
    let (error, body) = match result {
        Ok(body) => (String::new(), body),
        Err(error) => (cut(error.to_string()), Vec::new()),
    };
    // The agent knows the request; but a message of nothing but defaults would be no bytes at all.
    let reply = guest::Reply { request: 1, error, body }.encode_to_vec();
    // The only reader is the agent; when even this write fails, there is nobody left to tell.
    let _unreported = write(outcome.as_fd(), &reply);
    sys::exit_now(0)
}
