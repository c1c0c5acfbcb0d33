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
mod inflight;
mod responder;
mod schedule;

pub use responder::GuestIdentity;

use crate::channel::{ChannelId, Class, Direction};
use crate::config::LinkConfig;
use crate::frame::{Deframer, Frame};
use crate::handshake::Entropy;
use crate::packet::{Header, Kind, SEAL_LEN, clear_body};
use crate::ranges::RangeSet;
use crate::record::{MAX_LABEL, ResetCode};
use crate::recv::RecvHalf;
use crate::rtt::Rtt;
use crate::send::SendHalf;
use crate::session::{OpenError, Peer, Session};
use crate::stats::LinkStats;
use crate::time::{Duration, Instant};
use bytes::Bytes;
use core::fmt;
use inflight::InFlight;
use responder::Responder;
use schedule::Schedule;
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
    /// The session is gone; channels wait for the next.
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
    /// The guest's memory went back in time (a snapshot was restored); the channel is gone.
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
    /// Ended under an earlier mux, whom alone it concerned: this one never hears of it.
    orphan: bool,
    owes: Owes,
    readable_told: bool,
    finished_told: bool,
    full: bool,
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
    fn carry_over(&mut self, is_guest: bool, peer_is_new: bool) {
        self.scheduled = false;
        self.known = false;
        match &mut self.half {
            Half::Send(send) if is_guest && !self.taken => send.restart(FIRST_CREDIT),
            Half::Send(send) => send.suspend(),
            Half::Recv(recv) if peer_is_new => {
                recv.forget_ahead();
                // A new mux would take it for a stream that it may go on with.
                self.orphan |= is_guest && recv.is_ended();
            }
            Half::Recv(_) => {}
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
    ping: bool,
    owes_roster: bool,
    /// Packets that arrived and ask for an acknowledgement.
    unacked: u32,
    ack_at: Option<Instant>,
    /// The moment of `ack_at` has come; the acknowledgement waits for the line only.
    ack_due: bool,
    largest_at: Instant,
    probe_at: Option<Instant>,
    backoff: Duration,
    heard_at: Instant,
}

impl Live {
    fn new(session: Session, now: Instant) -> Self {
        Self {
            session,
            in_flight: InFlight::default(),
            next_number: 0,
            rtt: Rtt::default(),
            ping: true,
            owes_roster: false,
            unacked: 0,
            ack_at: None,
            ack_due: false,
            largest_at: now,
            probe_at: None,
            backoff: Duration::ZERO,
            heard_at: now,
        }
    }
}

/// One end of a pipe. See the module's text for how to drive it.
pub struct Link {
    config: LinkConfig,
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
    dirty: BTreeSet<ChannelId>,
    /// How many channels the guest carries over into this session, once known.
    roster: Option<u64>,
    roster_seen: BTreeSet<ChannelId>,
    schedule: Schedule,
    events: VecDeque<Event>,
    stats: LinkStats,
    /// When the first beacon came since anything sealed did. Mux only.
    beacon_at: Option<Instant>,
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
        let responder = Responder::new(identity, config.max_packet, entropy, now);
        Self::new(config, Some(responder))
    }

    /// The mux's end, for one boot of one guest, with the session a [`Greeter`](crate::Greeter) made.
    pub fn mux(config: LinkConfig, session: Session, now: Instant) -> Self {
        let mut link = Self::new(config, None);
        link.install(now, session);
        link
    }

    fn new(config: LinkConfig, responder: Option<Responder>) -> Self {
        Self {
            deframer: Deframer::new(config.max_packet + crate::packet::HEADER_LEN + SEAL_LEN),
            config,
            responder,
            pending: None,
            live: None,
            last_peer: None,
            channels: BTreeMap::new(),
            next_id: 0,
            gone: RangeSet::default(),
            resets: BTreeMap::new(),
            dirty: BTreeSet::new(),
            roster: None,
            roster_seen: BTreeSet::new(),
            schedule: Schedule::default(),
            events: VecDeque::new(),
            stats: LinkStats::default(),
            beacon_at: None,
            farewell: None,
            records: Vec::new(),
            packet: Vec::new(),
        }
    }

    /// Counters since the link was made.
    pub fn stats(&self) -> LinkStats {
        self.stats
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
        let in_flight = self.live.as_ref().map_or(0, |live| live.in_flight.memory());
        let channels: usize = self.channels.values().map(Channel::memory).sum();
        let resets = self.resets.len() * size_of::<(ChannelId, (ResetCode, bool))>();
        let ids = (self.roster_seen.len() + self.dirty.len()) * size_of::<ChannelId>();
        let gone = self.gone.len() * size_of::<(u64, u64)>();
        frames + in_flight + channels + resets + ids + gone
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

    // ---- handle: something happened outside ----

    /// A new session for the same guest and boot, on a new pipe. Mux only.
    pub fn install(&mut self, now: Instant, session: Session) {
        self.deframer =
            Deframer::new(self.config.max_packet + crate::packet::HEADER_LEN + SEAL_LEN);
        self.begin(now, session);
    }

    /// The pipe is gone. Mux only: a guest cannot know.
    pub fn handle_disconnected(&mut self) {
        self.end_session("the pipe is gone".into());
    }

    /// Bytes came from the line.
    pub fn handle_bytes(&mut self, now: Instant, mut input: &[u8]) {
        self.stats.bytes_in += input.len() as u64;
        let mut deframer = core::mem::replace(&mut self.deframer, Deframer::new(0));
        while let Some(frame) = deframer.next(&mut input) {
            match frame {
                Frame::Packet { packet, .. } => self.handle_packet(now, packet),
                Frame::Noise(raw) => self.stats.noise_bytes += raw.len() as u64,
                Frame::Overlong(n) => self.stats.noise_bytes += n as u64,
            }
        }
        self.deframer = deframer;
    }

    fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let Ok((header, _)) = Header::parse(packet) else {
            self.stats.noise_bytes += packet.len() as u64;
            return;
        };
        if matches!(header.kind, Kind::Sealed | Kind::Plain) {
            self.handle_sealed(now, header, packet);
            return;
        }
        let Ok(body) = clear_body(packet) else {
            self.stats.damaged += 1;
            return;
        };
        self.stats.packets_in += 1;
        match (header.kind, &mut self.responder) {
            (Kind::Hello, Some(responder)) => match responder.hello(now, header.tag, body) {
                Ok(Some(session)) => self.pending = Some(session),
                Ok(None) => {}
                Err(_) => self.stats.damaged += 1,
            },
            (Kind::Solicit, Some(responder)) => responder.solicited(now),
            (Kind::Beacon, None) => self.beacon(now, header.number),
            _ => self.stats.strays += 1,
        }
    }

    // A beacon under way when the session began means nothing. One of another boot does, and so
    // does a second one with nothing sealed in between: that guest has no session.
    fn beacon(&mut self, now: Instant, boot_tag: u32) {
        const STRAGGLER: Duration = Duration::from_millis(500);
        let same_boot = self
            .last_peer
            .and_then(|id| id.first_chunk().copied())
            .is_some_and(|tag| u32::from_le_bytes(tag) == boot_tag);
        let first = *self.beacon_at.get_or_insert(now);
        let asks = !same_boot || self.live.is_none() || now.since(first) >= STRAGGLER;
        if asks && !self.events.contains(&Event::Greet) {
            self.events.push_back(Event::Greet);
        }
    }

    fn handle_sealed(&mut self, now: Instant, header: Header, packet: &[u8]) {
        let mut records = core::mem::take(&mut self.records);
        match self.open(now, header, packet, &mut records) {
            Ok(number) => {
                self.stats.packets_in += 1;
                self.apply(now, number, &records);
            }
            Err(OpenError::Stray) => self.stray(now),
            Err(OpenError::Duplicate(_)) => self.stats.duplicates += 1,
            Err(OpenError::Damaged(_)) => self.stats.damaged += 1,
        }
        self.records = records;
    }

    // A repeated old HELLO may have replaced the pending session that the mux believes in: it then
    // seals what nothing here opens, and only a beacon tells it so. It ignores a single one.
    fn stray(&mut self, now: Instant) {
        self.stats.strays += 1;
        if let Some(responder) = &mut self.responder {
            responder.doubted(now);
        }
    }

    // The first packet that opens under the pending session's keys makes it the live one: only
    // then is it known that the hello was no replay.
    fn open(
        &mut self,
        now: Instant,
        header: Header,
        packet: &[u8],
        records: &mut Vec<u8>,
    ) -> Result<u64, OpenError> {
        if let Some(pending) = &self.pending
            && let Ok(number) = pending.open(header, packet, records)
        {
            if let Some(session) = self.pending.take() {
                self.begin(now, session);
            }
            return Ok(number);
        }
        let live = self.live.as_ref().ok_or(OpenError::Stray)?;
        live.session.open(header, packet, records)
    }

    /// The moment [`poll_timeout`](Self::poll_timeout) named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(responder) = &mut self.responder {
            responder.handle_timeout(now);
        }
        let is_mux = self.responder.is_none();
        let Some(live) = &mut self.live else { return };
        if live.ack_at.is_some_and(|at| at <= now) {
            (live.ack_at, live.ack_due) = (None, true);
        }
        if live.probe_at.is_some_and(|at| at <= now) {
            live.ping = true;
            live.probe_at = None;
            let pto = live.rtt.pto(self.config.ack_delay);
            live.backoff = (live.backoff.max(pto) * 3 / 2).min(MAX_BACKOFF);
            self.stats.probes += 1;
        }
        if is_mux && now.since(live.heard_at) >= self.config.keepalive && live.in_flight.is_empty()
        {
            live.ping = true;
        }
    }

    fn begin(&mut self, now: Instant, session: Session) {
        let peer = session.peer().clone();
        let peer_is_new = self.last_peer != Some(peer.id);
        self.last_peer = Some(peer.id);
        self.stats.sessions += 1;
        self.schedule.clear();
        self.dirty.clear();
        let is_guest = self.responder.is_some();
        for (id, channel) in &mut self.channels {
            channel.carry_over(is_guest, peer_is_new);
            if channel.owes.open {
                self.dirty.insert(*id);
            }
        }
        self.channels.retain(|_, channel| !(channel.orphan && channel.closing));
        for (code, due) in self.resets.values_mut() {
            // Not in the roster of this session any more.
            *code = if *code == ResetCode::Carried { ResetCode::Abandoned } else { *code };
            *due = true;
        }
        let mut live = Live::new(session, now);
        live.owes_roster = is_guest;
        let carried = self.channels.values().filter(|channel| channel.in_roster).count() as u64;
        self.roster = is_guest.then_some(carried);
        self.roster_seen.clear();
        self.live = Some(live);
        if let Some(responder) = &mut self.responder {
            responder.settled();
        }
        let all: Vec<_> = self.channels.keys().copied().collect();
        all.into_iter().for_each(|id| self.wake(id));
        self.events.push_back(Event::Established { peer, peer_is_new });
    }

    fn end_session(&mut self, reason: String) {
        if self.live.take().is_some() {
            self.events.push_back(Event::Lost { reason });
        }
    }

    // ---- verbs: the owner wants something ----

    /// Opens a channel. Guest only.
    ///
    /// # Errors
    /// [`LinkError`] beyond the configured bounds.
    pub fn open_channel(&mut self, open: Open) -> Result<ChannelId, LinkError> {
        if self.channels.len() >= self.config.max_channels {
            return Err(LinkError::Channels(self.channels.len()));
        }
        if open.label.len() > MAX_LABEL {
            return Err(LinkError::Label(open.label.len()));
        }
        let id = ChannelId(self.next_id);
        self.next_id += 1;
        let half = match open.direction {
            Direction::ToMux => {
                Half::Send(SendHalf::new(0, self.config.send_buffer, FIRST_CREDIT, true))
            }
            Direction::ToGuest => Half::Recv(RecvHalf::new(0, self.config.receive_window)),
        };
        let owes = Owes { open: true, ..Owes::default() };
        self.insert(id, open.direction, open.class, open.label.into(), half, owes);
        Ok(id)
    }

    fn insert(
        &mut self,
        id: ChannelId,
        direction: Direction,
        class: Class,
        label: Bytes,
        half: Half,
        owes: Owes,
    ) {
        let channel = Channel {
            direction,
            class,
            label,
            half,
            scheduled: false,
            known: false,
            undecided: false,
            taken: false,
            in_roster: false,
            orphan: false,
            owes,
            readable_told: false,
            finished_told: false,
            full: false,
            closing: false,
        };
        self.channels.insert(id, channel);
        if owes.any() {
            self.dirty.insert(id);
        }
    }

    /// Takes a channel the guest opened and goes on at `next`: everything below is durable here.
    /// For a channel on which the mux sends, `next` is ignored. Mux only.
    pub fn accept(&mut self, id: ChannelId, next: u64) {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| channel.undecided) else {
            return;
        };
        channel.undecided = false;
        if let Half::Recv(recv) = &mut channel.half {
            recv.start_at(next, self.config.receive_window);
            channel.owes.accept = true;
            self.dirty.insert(id);
            self.tell_readable(id);
        } else {
            self.wake(id);
        }
    }

    /// Does not take a channel the guest opened. Mux only.
    pub fn refuse(&mut self, id: ChannelId) {
        self.reset(id, ResetCode::Refused);
    }

    /// Gives a channel up, whatever it still holds.
    pub fn abandon(&mut self, id: ChannelId) {
        self.reset(id, ResetCode::Abandoned);
    }

    fn reset(&mut self, id: ChannelId, code: ResetCode) {
        self.forget(id);
        self.owe_reset(id, code);
    }

    // Bounded: an id is in here only until the peer has acknowledged, or its OPEN comes again.
    fn owe_reset(&mut self, id: ChannelId, code: ResetCode) {
        if self.resets.len() < self.config.max_channels {
            self.resets.entry(id).or_insert((code, true)).1 = true;
        }
    }

    fn forget(&mut self, id: ChannelId) {
        let channel = self.channels.remove(&id);
        self.dirty.remove(&id);
        // The mux waits for word of every channel carried over.
        if channel.is_some_and(|channel| channel.in_roster && !channel.known) && self.live.is_some()
        {
            self.owe_reset(id, ResetCode::Carried);
        }
        self.gone.insert(id.0.into()..u64::from(id.0) + 1);
        // A guest has no more gaps between its ids than open channels; one that leaves more of them
        // to make us remember each loses the lowest.
        if self.gone.len() > self.config.max_channels + 1 {
            self.gone.close_lowest_gap();
        }
    }

    /// How many bytes [`write`](Self::write) would take now.
    pub fn room(&self, id: ChannelId) -> usize {
        match self.channels.get(&id).map(|channel| &channel.half) {
            Some(Half::Send(send)) => send.room(),
            _ => 0,
        }
    }

    /// Writes to a channel as much as there is room for, and says how much that was. When it was
    /// less than all, [`Event::Writable`] follows.
    pub fn write(&mut self, id: ChannelId, bytes: &[u8]) -> usize {
        let Some(channel) = self.channels.get_mut(&id) else { return 0 };
        let Half::Send(send) = &mut channel.half else { return 0 };
        let n = send.write(bytes);
        channel.full = send.room() == 0;
        self.wake(id);
        n
    }

    /// Offset after the last byte written to, or received in order on, a channel.
    pub fn offset(&self, id: ChannelId) -> Option<u64> {
        self.channels.get(&id).map(|channel| match &channel.half {
            Half::Send(send) => send.end(),
            Half::Recv(recv) => recv.next(),
        })
    }

    /// Ends a stream after what was written.
    pub fn finish(&mut self, id: ChannelId) {
        if let Some(Channel { half: Half::Send(send), .. }) = self.channels.get_mut(&id) {
            send.finish();
            self.wake(id);
        }
    }

    /// Reads up to `max` bytes in order.
    pub fn read(&mut self, id: ChannelId, max: usize) -> Bytes {
        let Some(channel) = self.channels.get_mut(&id) else { return Bytes::new() };
        let Half::Recv(recv) = &mut channel.half else { return Bytes::new() };
        let bytes = recv.read(max);
        channel.readable_told = recv.is_readable();
        self.tell_finished(id);
        bytes
    }

    /// Everything below `offset` is durable: the peer may forget it and send more.
    pub fn release(&mut self, id: ChannelId, offset: u64) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Half::Recv(recv) = &mut channel.half else { return };
        if offset > recv.released() {
            recv.release(offset);
            channel.owes.release = true;
            self.dirty.insert(id);
        }
    }

    /// A finished stream is durable to its end: the channel goes away once the peer knows.
    pub fn close(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Half::Recv(recv) = &mut channel.half else { return };
        recv.release(recv.next());
        if channel.orphan {
            self.forget(id);
            return;
        }
        channel.owes.release = true;
        channel.closing = true;
        self.dirty.insert(id);
    }

    /// Asks the peer for a sign of life, and for the round-trip time.
    pub fn ping(&mut self) {
        if let Some(live) = &mut self.live {
            live.ping = true;
        }
    }

    // ---- poll: what to do now ----

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
        [beacon, live.ack_at, live.probe_at, keepalive].into_iter().flatten().min()
    }

    // ---- shared by the parts ----

    fn wake(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Half::Send(send) = &channel.half else { return };
        if self.live.is_some() && !channel.scheduled && !channel.undecided && send.is_ready() {
            channel.scheduled = true;
            self.schedule.wake(channel.class, id);
        }
    }

    fn tell_readable(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Half::Recv(recv) = &channel.half else { return };
        if recv.is_readable() && !channel.readable_told && !channel.undecided {
            channel.readable_told = true;
            self.events.push_back(Event::Readable(id));
        }
        self.tell_finished(id);
    }

    fn tell_finished(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Half::Recv(recv) = &channel.half else { return };
        if recv.is_drained() && !channel.finished_told && !channel.undecided {
            channel.finished_told = true;
            self.events.push_back(Event::Finished(id));
        }
    }
}
