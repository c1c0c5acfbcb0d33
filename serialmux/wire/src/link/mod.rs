//! The state machine of one end of a pipe: a session, and channels that outlive it.
//!
//! ```text
//!              install / first sealed packet
//!   ┌─────────┐ ───────────────────────────▶ ┌──────┐
//!   │ no      │                              │ live │──▶ a newer session replaces this one
//!   │ session │ ◀─────────────────────────── │      │
//!   └─────────┘   transport gone, CLOSE      └──────┘
//! ```
//!
//! # Driving it
//!
//! Four kinds of method: getters; `handle_*` (something happened outside); verbs (the owner wants
//! something); `poll_*` (what to do now). **After anything that changes the link, drain
//! [`poll_event`](Link::poll_event), then [`poll_transmit`](Link::poll_transmit) as the line takes
//! bytes, then sleep until [`poll_timeout`](Link::poll_timeout).** Nothing is lost if that is done
//! late; it is only late.
//!
//! # What it promises
//!
//! Every byte written to a channel reaches the other end's reader once and in order, whatever the
//! line does, as long as both ends keep their state or resume where they say. No bytes from the
//! peer make it panic or hold more than [`LinkConfig`] says.

mod apply;
mod assemble;
mod gauges;
mod inflight;
mod intake;
mod responder;
mod schedule;
mod sizing;
mod standby;
mod verbs;

pub use gauges::{Depths, Gauges};
pub use responder::GuestIdentity;
pub use standby::Standby;

use crate::channel::{ChannelId, Class, Direction};
use crate::config::{ATTENTION, LinkConfig, Transport};
use crate::digest::Digest;
use crate::frame::Deframer;
use crate::handshake::{Entropy, HandshakeError};
use crate::packet::SEAL_LEN;
use crate::ranges::RangeSet;
use crate::record::{MAX_LABEL, ResetCode};
use crate::recv::RecvHalf;
use crate::rtt::Rtt;
use crate::send::SendHalf;
use crate::session::{Peer, Session};
use crate::stats::LinkStats;
use crate::time::{Duration, Instant};
use bytes::Bytes;
use core::fmt;
use inflight::InFlight;
use responder::Responder;
use schedule::Schedule;
use sizing::Sizing;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Credit that comes with opening a channel, so that the first bytes need no round trip.
const FIRST_CREDIT: u64 = 16 * 1024;
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Something the owner should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session is up.
    Established {
        /// Who is at the other end.
        peer: Peer,
        /// Whether it is another one than before (another run of the mux, another boot).
        peer_is_new: bool,
    },
    /// The session is gone; channels wait for the next. A mux whose pipe is still up hands it to a
    /// greeter.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// The guest asks for a new session on this pipe: hand the pipe to a greeter. Mux only.
    Greet,
    /// The guest opened a channel, or carries one over that this link does not know: answer with
    /// [`Link::accept`] or [`Link::refuse`]. Mux only.
    Opened {
        /// Which channel.
        channel: ChannelId,
        /// Who sends on it.
        direction: Direction,
        /// Its priority.
        class: Class,
        /// Guest sends: the lowest offset it still holds; everything below was released by a mux.
        /// Mux sends: the offset the guest expects next.
        base: u64,
        /// What it is, in the application's words.
        label: Bytes,
    },
    /// There are bytes to read.
    Readable(ChannelId),
    /// The peer has ended the stream and everything was read. Call [`Link::close`] once durable.
    Finished(ChannelId),
    /// There is room to write again.
    Writable(ChannelId),
    /// The peer has everything, the end included; the channel is gone.
    Closed(ChannelId),
    /// The channel is gone at the peer; what it did not release is lost.
    Reset(ChannelId),
    /// The two ends do not have the same stream, as when the guest's memory went back in time (a
    /// snapshot was restored): the channel is gone, and what was received stays as it is.
    RolledBack(ChannelId),
}

/// What a guest opens a channel with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Who sends on it.
    pub direction: Direction,
    /// Its priority.
    pub class: Class,
    /// What it is, in the application's words; at most [`MAX_LABEL`] bytes.
    pub label: Vec<u8>,
}

/// What cannot be done to a link. Class: refuse this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// As many channels are open as the configuration allows.
    #[error("{0} channels are open, no more are allowed")]
    Channels(usize),
    /// A label longer than [`MAX_LABEL`].
    #[error("channel label of {0} bytes, at most {MAX_LABEL} are allowed")]
    Label(usize),
    /// Every id a channel can have was used.
    #[error("no channel id is left in this boot of the guest")]
    Ids,
}

#[derive(Debug)]
enum Half {
    Send(SendHalf),
    Recv(RecvHalf),
}

#[derive(Debug)]
struct Channel {
    direction: Direction,
    class: Class,
    label: Bytes,
    half: Half,
    /// In the schedule's queue.
    scheduled: bool,
    /// Whether this session knows the channel: opened (mux) or acknowledged as opened (guest).
    known: bool,
    /// The owner has not yet said whether it takes the channel.
    undecided: bool,
    /// The peer took it in this or an earlier session, so after a break its word comes first.
    taken: bool,
    /// Counted in this session's ROSTER.
    in_roster: bool,
    /// The mux: the guest opened it in this session, and has nothing in it from before.
    fresh: bool,
    /// Ended under an earlier mux, whom alone it concerned: this one never hears of it.
    orphan: bool,
    owes: Owes,
    readable_told: bool,
    finished_told: bool,
    full: bool,
    /// The owner wants to know when fewer than so many bytes are unsent.
    calm: Option<usize>,
    closing: bool,
}

/// Records due for a channel.
#[derive(Debug, Default, Clone, Copy)]
struct Owes {
    open: bool,
    accept: bool,
    release: bool,
}

impl Owes {
    fn any(self) -> bool {
        self.open || self.accept || self.release
    }
}

impl Channel {
    fn memory(&self) -> usize {
        let held = match &self.half {
            Half::Send(send) => send.memory(),
            Half::Recv(recv) => recv.memory(),
        };
        size_of::<Self>() + self.label.len() + held
    }

    // Another session begins; what this one knows about the channel has to be told first.
    //
    // With `waits`, bytes follow only where the peer has said what it has: it may have taken the channel
    // without this end's knowing, as after a snapshot of it was restored.
    fn carry_over(&mut self, is_guest: bool, peer_is_new: bool, waits: bool) {
        self.scheduled = false;
        self.known = false;
        self.fresh = false;
        match &mut self.half {
            Half::Send(send) if is_guest && !self.taken && !waits => send.restart(FIRST_CREDIT),
            Half::Send(send) => send.suspend(),
            Half::Recv(recv) => {
                // The sender sends everything from the gap on again, and maybe not the same.
                recv.forget_ahead();
                // A new mux would take it for a stream that it may go on with.
                self.orphan |= is_guest && peer_is_new && recv.is_ended();
            }
        }
        let open = is_guest && !self.orphan;
        self.in_roster = open;
        // A guest's word on a closing channel follows its OPEN; a mux waits for that OPEN.
        self.owes = Owes { open, release: open && self.closing, accept: false };
    }
}

/// A session and everything that ends with it.
#[derive(Debug)]
struct Live {
    session: Session,
    in_flight: InFlight,
    next_number: u64,
    rtt: Rtt,
    sizing: Sizing,
    ping: bool,
    owes_roster: bool,
    /// The mux's word on ids is still to be acknowledged.
    owes_used: bool,
    /// Packets that arrived and ask for an acknowledgement.
    unacked: u32,
    ack_at: Option<Instant>,
    /// The moment of `ack_at` has come; the acknowledgement waits for the line only.
    ack_due: bool,
    /// The same two for what was released.
    release_at: Option<Instant>,
    release_due: bool,
    largest_at: Instant,
    probe_at: Option<Instant>,
    backoff: Duration,
    heard_at: Instant,
    /// When little came last, while that is no longer ago than an attentive end remembers.
    asked_at: Option<Instant>,
}

impl Live {
    fn new(session: Session, now: Instant) -> Self {
        Self {
            session,
            in_flight: InFlight::default(),
            next_number: 0,
            rtt: Rtt::default(),
            sizing: Sizing::default(),
            ping: true,
            owes_roster: false,
            owes_used: false,
            unacked: 0,
            ack_at: None,
            ack_due: false,
            release_at: None,
            release_due: false,
            largest_at: now,
            probe_at: None,
            backoff: Duration::ZERO,
            heard_at: now,
            asked_at: None,
        }
    }

    fn is_attentive(&self, now: Instant) -> bool {
        self.asked_at.is_some_and(|at| now.since(at) < ATTENTION)
    }

    /// Whether an acknowledgement is to be sent even by itself.
    fn must_ack(&self, now: Instant) -> bool {
        self.unacked > 0 && (self.ack_due || self.ack_at.is_some_and(|at| at <= now))
    }

    /// Whether nothing says yet until when a release that may wait does: the next acknowledgement takes it along.
    fn release_is_open_ended(&self) -> bool {
        self.ack_at.or(self.release_at).is_none()
    }
}

/// One end of a pipe. See the module's text for how to drive it.
pub struct Link {
    config: LinkConfig,
    transport: Transport,
    deframer: Deframer,
    responder: Option<Responder>,
    pending: Option<Session>,
    live: Option<Live>,
    last_peer: Option<[u8; 16]>,
    channels: BTreeMap<ChannelId, Channel>,
    next_id: u32,
    /// Channels that are gone, so that a late record does not bring them back.
    gone: RangeSet,
    resets: BTreeMap<ChannelId, (ResetCode, bool)>,
    /// Those that owe something.
    dirty: BTreeSet<ChannelId>,
    /// Those that owe only a RELEASE that may wait.
    lazy: BTreeSet<ChannelId>,
    /// How many channels the guest carries over into this session, once known.
    roster: Option<u64>,
    roster_seen: BTreeSet<ChannelId>,
    /// Of nothing, under this container's key.
    blank: Digest,
    /// The mux: channel ids below this one have been seen.
    used: u32,
    schedule: Schedule,
    /// Bytes sent since the peer's FIFO was last left at a multiple of `align`.
    phase: usize,
    /// The last packet asks for an answer.
    hurries: bool,
    events: VecDeque<Event>,
    stats: LinkStats,
    /// When the first beacon came since anything sealed did. Mux only.
    beacon_at: Option<Instant>,
    /// Whether the peer has told, in this session, how many channels it has carried over.
    is_roster_known: bool,
    /// A sealed CLOSE of a session that is already gone.
    farewell: Option<Vec<u8>>,
    records: Vec<u8>,
    packet: Vec<u8>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("live", &self.live.is_some())
            .field("channels", &self.channels.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// The guest's end of a pipe. It sends beacons from the start.
    pub fn guest(
        config: LinkConfig,
        identity: GuestIdentity,
        entropy: Entropy,
        now: Instant,
    ) -> Self {
        let mut responder = Responder::new(identity, config.max_packet, entropy, now);
        responder.set_versions(config.features, config.protocols);
        let blank = responder.digest();
        Self::new(config, Some(responder), blank)
    }

    /// The mux's end, for one boot of one guest, with the session a [`Greeter`](crate::Greeter) made.
    pub fn mux(config: LinkConfig, session: Session, now: Instant) -> Self {
        let mut link = Self::new(config, None, session.digest());
        link.install(now, session);
        link
    }

    fn new(config: LinkConfig, responder: Option<Responder>, blank: Digest) -> Self {
        Self {
            deframer: Deframer::new(config.max_packet + crate::packet::HEADER_LEN + SEAL_LEN),
            config,
            transport: Transport::Uart,
            responder,
            pending: None,
            live: None,
            last_peer: None,
            channels: BTreeMap::new(),
            next_id: 0,
            gone: RangeSet::default(),
            resets: BTreeMap::new(),
            dirty: BTreeSet::new(),
            lazy: BTreeSet::new(),
            roster: None,
            roster_seen: BTreeSet::new(),
            blank,
            used: 0,
            schedule: Schedule::default(),
            phase: 0,
            hurries: false,
            events: VecDeque::new(),
            stats: LinkStats::default(),
            beacon_at: None,
            is_roster_known: false,
            farewell: None,
            records: Vec::new(),
            packet: Vec::new(),
        }
    }

    /// Counters since the link was made.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Guest: why the last hello of a mux could not be answered, as long as there is no session; what
    /// would have to change for one is in it.
    pub fn refusal(&self) -> Option<&HandshakeError> {
        self.responder.as_ref().filter(|_| self.live.is_none()).and_then(Responder::refusal)
    }

    /// The digest of an empty stream, for an owner that keeps digests of its own and hands them back
    /// to [`accept_known`](Self::accept_known).
    pub fn blank_digest(&self) -> Digest {
        self.blank
    }

    /// Whether both ends of the session have these features.
    fn has(&self, features: u64) -> bool {
        self.live.as_ref().is_some_and(|live| live.session.has(features))
    }

    /// Whether bytes on the line in use are worth compressing.
    pub fn is_scarce(&self) -> bool {
        self.config.scarce
    }

    /// Whether a session is up.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Number of channels it knows.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Bytes it holds now, the allocator's slack apart; never more than
    /// [`LinkConfig::memory_limit`].
    pub fn memory(&self) -> usize {
        let frames = self.deframer.memory() + self.records.len() + self.packet.len();
        let in_flight =
            self.live.as_ref().map_or(0, |live| live.in_flight.memory() + live.session.memory());
        let channels: usize = self.channels.values().map(Channel::memory).sum();
        let resets = self.resets.len() * size_of::<(ChannelId, (ResetCode, bool))>();
        let ids =
            (self.roster_seen.len() + self.dirty.len() + self.lazy.len()) * size_of::<ChannelId>();
        let gone = self.gone.len() * size_of::<(u64, u64)>();
        frames + in_flight + channels + resets + ids + gone
    }

    /// Bytes that have come of a frame whose end has not: what follows soon, and is of no use before.
    pub fn partial(&self) -> usize {
        self.deframer.partial()
    }

    /// Whether somebody types or asks at the other end: a little has come, and no longer ago than [`ATTENTION`].
    pub fn is_attentive(&self, now: Instant) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_attentive(now))
    }

    /// Smoothed round-trip time of the session.
    pub fn rtt(&self) -> Option<Duration> {
        self.live.as_ref().and_then(|live| live.rtt.smoothed())
    }

    /// Whether nothing written here is still to be released by the peer.
    pub fn is_drained(&self) -> bool {
        self.channels.values().all(|channel| match &channel.half {
            Half::Send(send) => send.base() == send.end() && !send.is_finished(),
            Half::Recv(_) => true,
        })
    }

    /// What the owner should know next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and poll again; `None`: only when
    /// something happens.
    ///
    /// After `handle_timeout(now)` it is later than `now`: what is due by then waits for the line,
    /// and an owner whose line is blocked sleeps until it is not.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let beacon = self.responder.as_ref().and_then(Responder::poll_timeout);
        let Some(live) = &self.live else { return beacon };
        let asks = self.responder.is_none() && live.in_flight.is_empty() && !live.ping;
        let keepalive = asks.then_some(live.heard_at + self.config.keepalive);
        [beacon, live.ack_at, live.release_at, live.probe_at, keepalive].into_iter().flatten().min()
    }
}
