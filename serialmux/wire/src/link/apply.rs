//! What arrived is put into effect, record by record.

use super::assemble::MIN_PACKET;
use super::inflight::{Carried, Told};
use super::sizing::Sizing;
use super::{Channel, Event, FIRST_CREDIT, Half, Link, Owes};
use crate::channel::{ChannelId, Class, Direction};
use crate::config::{LITTLE, REWIND};
use crate::digest::Digest;
use crate::record::{Ack, Record, RecordError, Records, ResetCode};
use crate::recv::{RecvError, RecvHalf};
use crate::send::SendHalf;
use crate::session::Opened;
use crate::time::{Duration, Instant};
use bytes::Bytes;

/// A peer with good keys that breaks the protocol. Class: close the session.
#[derive(Debug, thiserror::Error)]
enum Breach {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("channel {}: {}", .0.0, .1)]
    Stream(ChannelId, RecvError),
    #[error("an acknowledgement of what was never sent, or without what was acknowledged before")]
    Ack,
    #[error("channel {} is used the wrong way round", .0.0)]
    Direction(ChannelId),
    #[error("closed by the peer: {0}")]
    Closed(String),
}

/// What a packet asks for.
#[derive(Debug, Default)]
struct Asks {
    /// Its number.
    number: u64,
    eliciting: bool,
    urgent: bool,
}

impl Link {
    /// Puts a packet that opened into effect.
    pub(super) fn apply(&mut self, now: Instant, packet: Opened, body: &[u8]) {
        let Some(live) = &mut self.live else { return };
        live.heard_at = now;
        self.beacon_at = None;
        if let Some(responder) = &mut self.responder {
            responder.settled();
        }
        let in_order = live.session.arrived().insert(packet);
        let mut asks = Asks { number: packet.number, ..Asks::default() };
        for record in Records::new(body) {
            let done = record.map_err(Breach::from).and_then(|record| {
                asks.eliciting |= record.is_ack_eliciting();
                self.record(now, &record, &mut asks)
            });
            match done {
                Ok(()) => {}
                // As after a snapshot of this end was restored.
                Err(Breach::Ack) => return self.rewound(now, &Breach::Ack.to_string()),
                Err(breach) => return self.breach(now, &breach),
            }
        }
        if asks.eliciting {
            self.owe_ack(now, asks.urgent || !in_order);
        }
    }

    fn owe_ack(&mut self, now: Instant, urgent: bool) {
        const EVERY: u32 = 8;
        let Some(live) = &mut self.live else { return };
        live.unacked += 1;
        live.largest_at = now;
        let due = if urgent || live.unacked >= EVERY { now } else { now + self.config.ack_delay };
        live.ack_at = Some(live.ack_at.map_or(due, |at| at.min(due)));
    }

    // The session ends at once here; the peer is told by one CLOSE, and by our silence if that
    // is lost. A guest starts over with a beacon.
    fn breach(&mut self, now: Instant, breach: &Breach) {
        if let Some(responder) = &mut self.responder {
            responder.unsettled(now + Duration::from_secs(1));
        }
        if !matches!(breach, Breach::Closed(_)) {
            self.farewell = self.live.as_mut().map(|live| {
                let mut records = Vec::new();
                let text = breach.to_string();
                let cut = text.floor_char_boundary(crate::record::MAX_TEXT);
                let text = text.get(..cut).unwrap_or_default();
                crate::record::put(&mut records, &Record::Close { code: 1, text });
                let mut packet = Vec::new();
                live.session.seal(&records, &mut packet);
                packet
            });
        }
        self.end_session(breach.to_string());
    }

    fn record(&mut self, now: Instant, record: &Record<'_>, asks: &mut Asks) -> Result<(), Breach> {
        match *record {
            Record::Ping => asks.urgent = true,
            Record::Ack(ref ack) => self.acknowledged(now, asks.number, ack)?,
            Record::Open { channel, direction, fresh, class, next, limit, label } => {
                if !fresh {
                    self.told_of(channel);
                }
                self.opened(channel, direction, class, next, limit, label);
                if let Some(channel) = self.channels.get_mut(&channel).filter(|it| it.undecided) {
                    channel.fresh = fresh;
                }
                self.check_roster();
            }
            Record::Accept { channel, next, released, limit } => {
                self.accepted(channel, next, released, limit)?;
            }
            Record::Release { channel, released, limit } => {
                self.released(channel, released, limit)?;
            }
            Record::Reset { channel, code } => {
                self.reset_received(channel, code);
                self.check_roster();
            }
            Record::Digest { channel, offset, ended, state } => {
                self.told(channel, &self.blank.resumed(offset, state), ended)?;
            }
            Record::Used { below } => self.ids_used(below),
            Record::Roster { carried } => {
                // Told again, it says the same, and costs a look at all channels.
                if !std::mem::replace(&mut self.is_roster_known, true) {
                    self.roster = Some(carried);
                    self.check_roster();
                }
            }
            Record::Close { text, .. } => return Err(Breach::Closed(text.to_owned())),
            Record::Data { channel, offset, fin, bytes } => {
                asks.urgent |= fin;
                let is_little = (1..=LITTLE).contains(&bytes.len());
                if let Some(live) = self.live.as_mut().filter(|_| is_little) {
                    live.asked_at = Some(now);
                }
                self.data(channel, offset, fin, bytes)?;
            }
        }
        Ok(())
    }

    // A channel carried over counts once however often it is told; beyond the bound no roster is
    // complete.
    fn told_of(&mut self, id: ChannelId) {
        if self.responder.is_none() && self.roster_seen.len() < self.config.max_channels {
            self.roster_seen.insert(id);
        }
    }

    // ---- channels ----

    fn opened(
        &mut self,
        id: ChannelId,
        direction: Direction,
        class: Class,
        next: u64,
        limit: u64,
        label: &[u8],
    ) {
        if self.responder.is_some() {
            return;
        }
        self.used = self.used.max(id.0.saturating_add(1));
        let Some(channel) = self.channels.get_mut(&id) else {
            self.opened_new(id, direction, class, next, limit, label);
            return;
        };
        if (channel.direction, channel.class, &channel.label[..]) != (direction, class, label) {
            self.rolled_back(id);
            return;
        }
        if channel.known {
            return;
        }
        channel.known = true;
        let possible = match &mut channel.half {
            Half::Send(send) => send.accept(next, next, limit),
            Half::Recv(recv) => {
                if !channel.undecided {
                    channel.owes.accept = true;
                    channel.owes.release = channel.closing;
                    self.dirty.insert(id);
                }
                // `limit` is what the guest wrote so far; its end takes one offset more.
                recv.next() <= limit + 1
            }
        };
        if possible {
            self.settle_sender(id, 1);
        } else {
            self.rolled_back(id);
        }
    }

    fn opened_new(
        &mut self,
        id: ChannelId,
        direction: Direction,
        class: Class,
        next: u64,
        limit: u64,
        label: &[u8],
    ) {
        if self.gone.contains(id.0.into()) {
            self.opened_again(id, direction);
            return;
        }
        let code =
            { (self.channels.len() >= self.config.max_channels).then_some(ResetCode::Refused) };
        if let Some(code) = code {
            self.owe_reset(id, code);
            return;
        }
        let half = match direction {
            Direction::ToMux => Half::Recv(RecvHalf::new(0, FIRST_CREDIT).with_digest(self.blank)),
            Direction::ToGuest => {
                let send = SendHalf::new(next, self.config.send_buffer, limit, true);
                Half::Send(send.with_digest(self.blank))
            }
        };
        let label = Bytes::copy_from_slice(label);
        self.insert(id, direction, class, label.clone(), half, Owes::default());
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.known = true;
            channel.undecided = true;
        }
        let base = next;
        self.events.push_back(Event::Opened { channel: id, direction, class, base, label });
    }

    // A guest that sent everything and knows that it arrived does not speak of the channel any more,
    // unless it has forgotten. One that received everything may still have to say so: to that one the
    // answer means nothing.
    fn opened_again(&mut self, id: ChannelId, direction: Direction) {
        let forgot = self.has(REWIND) && !self.resets.contains_key(&id);
        match direction {
            Direction::ToMux if forgot => self.rolled_back(id),
            Direction::ToGuest if forgot => self.owe_reset(id, ResetCode::RolledBack),
            _ => self.owe_reset(id, ResetCode::Unknown),
        }
    }

    // All channels the guest carried over have been told: what it did not tell is gone there.
    fn check_roster(&mut self) {
        if self.responder.is_some()
            || self.roster.is_none_or(|n| (self.roster_seen.len() as u64) < n)
        {
            return;
        }
        self.roster = None;
        let missing = self.channels.iter().filter(|(_, channel)| !channel.known);
        let missing: Vec<_> = missing.map(|(id, channel)| (*id, channel.closing)).collect();
        for (id, closing) in missing {
            self.forget(id);
            self.reset_by_peer(id, closing);
        }
    }

    fn reset_received(&mut self, id: ChannelId, code: u64) {
        const BOTH: u64 = ResetCode::CarriedRolledBack as u64;
        if code == ResetCode::Carried as u64 || code == BOTH {
            self.told_of(id);
        }
        let Some(closing) = self.channels.get(&id).map(|channel| channel.closing) else { return };
        self.forget(id);
        let ended = closing && self.responder.is_some();
        if (code == ResetCode::RolledBack as u64 || code == BOTH) && !ended {
            self.stats.rollbacks += 1;
            self.events.push_back(Event::RolledBack(id));
        } else {
            self.reset_by_peer(id, closing);
        }
    }

    // ---- what went back in time ----

    fn told(&mut self, id: ChannelId, theirs: &Digest, ended: bool) -> Result<(), Breach> {
        let Some(send) = self.sender(id)? else { return Ok(()) };
        if !send.is_same(theirs, ended) {
            self.rolled_back(id);
        }
        Ok(())
    }

    // The mux has seen ids that this memory knows nothing of.
    fn ids_used(&mut self, below: u64) {
        const MOST: u32 = u32::MAX / 2;
        let below = u32::try_from(below).unwrap_or(MOST).min(MOST);
        if self.responder.is_some() && below > self.next_id {
            self.stats.rollbacks += 1;
            self.next_id = below;
        }
    }

    // A channel that was being closed has come to its end, whichever way the peer says so.
    fn reset_by_peer(&mut self, id: ChannelId, closing: bool) {
        if !closing {
            self.events.push_back(Event::Reset(id));
        }
    }

    fn sender(&mut self, id: ChannelId) -> Result<Option<&mut SendHalf>, Breach> {
        match self.channels.get_mut(&id) {
            None => Ok(None),
            Some(Channel { half: Half::Send(send), taken, .. }) => {
                *taken = true;
                Ok(Some(send))
            }
            Some(_) => Err(Breach::Direction(id)),
        }
    }

    fn accepted(
        &mut self,
        id: ChannelId,
        next: u64,
        released: u64,
        limit: u64,
    ) -> Result<(), Breach> {
        let Some(send) = self.sender(id)? else { return Ok(()) };
        let before = send.base();
        if send.accept(next, released, limit) {
            let freed = send.base() - before;
            self.settle_sender(id, freed);
        } else {
            self.rolled_back(id);
        }
        Ok(())
    }

    fn released(&mut self, id: ChannelId, released: u64, limit: u64) -> Result<(), Breach> {
        let Some(send) = self.sender(id)? else { return Ok(()) };
        if !send.may_release(released) {
            self.rolled_back(id);
            return Ok(());
        }
        let freed = send.release(released, limit) as u64;
        self.settle_sender(id, freed);
        Ok(())
    }

    // After bytes were released or credit was given.
    fn settle_sender(&mut self, id: ChannelId, freed: u64) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Half::Send(send) = &channel.half else { return };
        if send.is_released() {
            self.forget(id);
            self.events.push_back(Event::Closed(id));
            return;
        }
        if freed > 0 && channel.full {
            channel.full = false;
            self.events.push_back(Event::Writable(id));
        }
        self.wake(id);
    }

    fn data(&mut self, id: ChannelId, offset: u64, fin: bool, bytes: &[u8]) -> Result<(), Breach> {
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        let Half::Recv(recv) = &mut channel.half else { return Err(Breach::Direction(id)) };
        if !channel.closing && !channel.orphan {
            recv.insert(offset, bytes, fin).map_err(|error| Breach::Stream(id, error))?;
            self.tell_readable(id);
        }
        Ok(())
    }

    // ---- acknowledgements ----

    fn acknowledged(&mut self, now: Instant, within: u64, ack: &Ack) -> Result<(), Breach> {
        let limit = self.packet_limit();
        let Some(live) = &mut self.live else { return Ok(()) };
        let (next, large) = (live.next_number, Sizing::evidence(limit));
        let told = live.in_flight.acknowledged(now, next, (within, ack), large);
        let Told { arrived, lost, n_lost, large_arrived, large_lost, newest_sent, delivered } =
            told.ok_or(Breach::Ack)?;
        self.stats.lost += n_lost;
        if large_lost {
            live.sizing.lost(limit, MIN_PACKET);
        } else {
            live.sizing.arrived(large_arrived);
        }
        if let Some(sent_at) = newest_sent {
            let delay = Duration::from_micros(ack.delay_us.min(1_000_000));
            live.rtt.sample(now.since(sent_at).saturating_sub(delay));
            live.backoff = Duration::ZERO;
            if let Some((bytes, since, idle)) = delivered {
                live.rtt.delivered(bytes, since, now, idle);
            }
        }
        live.probe_at = None;
        self.arm_probe(now);
        arrived.into_iter().for_each(|carried| self.arrived(carried));
        let records = lost.iter().filter(|carried| **carried != Carried::Used);
        self.stats.resent_records += records.count() as u64;
        lost.into_iter().for_each(|carried| self.lost(carried));
        Ok(())
    }

    fn arrived(&mut self, carried: Carried) {
        match carried {
            Carried::Data(id, stretch) => {
                if let Some(Channel { half: Half::Send(send), .. }) = self.channels.get_mut(&id) {
                    send.acknowledged(&stretch);
                }
            }
            Carried::Open(id) => {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.known = true;
                }
            }
            Carried::Release(id, released) => {
                let done = self.channels.get(&id).is_some_and(|channel| match &channel.half {
                    Half::Recv(recv) => channel.closing && recv.next() == released,
                    Half::Send(_) => false,
                });
                if done {
                    self.forget(id);
                }
            }
            Carried::Reset(id) => {
                self.resets.remove(&id);
            }
            Carried::Used => {
                if let Some(live) = &mut self.live {
                    live.owes_used = false;
                }
            }
            Carried::Accept(_) | Carried::Roster => {}
        }
    }

    fn lost(&mut self, carried: Carried) {
        let mut owe = |id: ChannelId, what: fn(&mut Owes)| {
            if let Some(channel) = self.channels.get_mut(&id) {
                what(&mut channel.owes);
                self.dirty.insert(id);
            }
        };
        match carried {
            Carried::Open(id) => owe(id, |owes| owes.open = true),
            Carried::Accept(id) => owe(id, |owes| owes.accept = true),
            Carried::Release(id, _) => owe(id, |owes| owes.release = true),
            Carried::Roster => {
                if let Some(live) = &mut self.live {
                    live.owes_roster = true;
                }
            }
            // Goes with every packet until one arrives.
            Carried::Used => {}
            Carried::Reset(id) => {
                if let Some((_, due)) = self.resets.get_mut(&id) {
                    *due = true;
                }
            }
            Carried::Data(id, stretch) => {
                if let Some(Channel { half: Half::Send(send), .. }) = self.channels.get_mut(&id) {
                    self.stats.resent_bytes += send.lost(&stretch);
                }
                self.wake(id);
            }
        }
    }
}
