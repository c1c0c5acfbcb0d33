//! What happens to a link from outside: pipes, bytes, timers, and sessions that begin and end.

use super::{Event, Link, Live, MAX_BACKOFF};
use crate::config::REWIND;
use crate::frame::{Deframer, Frame};
use crate::packet::{HEADER_LEN, Header, Kind, SEAL_LEN, clear_body};
use crate::record::ResetCode;
use crate::session::{OpenError, Opened, Session};
use crate::time::{Duration, Instant};

impl Link {
    /// A new session for the same guest and boot, on a new pipe. Mux only.
    pub fn install(&mut self, now: Instant, session: Session) {
        self.deframer = Deframer::new(self.config.max_packet + HEADER_LEN + SEAL_LEN);
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
                Frame::Noise(raw) => self.noise(raw.len()),
                Frame::Overlong(n) => self.noise(n),
            }
        }
        self.deframer = deframer;
    }

    fn noise(&mut self, len: usize) {
        self.stats.noise_bytes += len as u64;
        self.stats.resyncs += 1;
    }

    fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let Ok((header, _)) = Header::parse(packet) else {
            self.noise(packet.len());
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
            Ok(packet) => {
                self.stats.packets_in += 1;
                self.apply(now, packet, &records);
            }
            Err(OpenError::Stray) => self.stray(now),
            Err(OpenError::Duplicate(_)) => self.stats.duplicates += 1,
            Err(OpenError::Damaged(_)) => self.stats.damaged += 1,
            Err(error @ OpenError::Rewound(_)) => self.rewound(now, &error.to_string()),
        }
        self.records = records;
    }

    // Keys whose numbers are used twice protect nothing any more, so not even a farewell is sealed
    // under them. With new ones, the channels tell what became of each.
    pub(super) fn rewound(&mut self, now: Instant, reason: &str) {
        self.stats.rollbacks += 1;
        if let Some(responder) = &mut self.responder {
            responder.unsettled(now + Duration::from_secs(1));
        }
        self.end_session(reason.to_owned());
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
    ) -> Result<Opened, OpenError> {
        if let Some(pending) = &self.pending
            && let Ok(packet) = pending.open(header, packet, records)
        {
            if let Some(session) = self.pending.take() {
                self.begin(now, session);
            }
            return Ok(packet);
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
        if live.release_at.is_some_and(|at| at <= now) {
            (live.release_at, live.release_due) = (None, true);
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

    pub(super) fn begin(&mut self, now: Instant, session: Session) {
        let peer = session.peer().clone();
        let peer_is_new = self.last_peer != Some(peer.id);
        self.last_peer = Some(peer.id);
        self.stats.sessions += 1;
        // One of before says nothing of this session.
        self.beacon_at = None;
        self.is_roster_known = false;
        self.schedule.clear();
        self.dirty.clear();
        self.lazy.clear();
        let is_guest = self.responder.is_some();
        for (id, channel) in &mut self.channels {
            channel.carry_over(is_guest, peer_is_new, session.has(REWIND));
            if channel.owes.open {
                self.dirty.insert(*id);
            }
        }
        self.channels.retain(|_, channel| !(channel.orphan && channel.closing));
        for (code, due) in self.resets.values_mut() {
            // Not in the roster of this session any more.
            *code = match *code {
                ResetCode::Carried => ResetCode::Abandoned,
                ResetCode::CarriedRolledBack => ResetCode::RolledBack,
                code => code,
            };
            *due = true;
        }
        let mut live = Live::new(session, now);
        live.owes_roster = is_guest;
        live.owes_used = !is_guest && self.used > 0 && live.session.has(REWIND);
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

    pub(super) fn end_session(&mut self, reason: String) {
        if self.live.take().is_some() {
            self.events.push_back(Event::Lost { reason });
        }
    }
}
