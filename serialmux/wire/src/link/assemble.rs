//! The next packet for the line, put together as late as possible.

use super::inflight::Carried;
use super::{Channel, Half, Link};
use crate::channel::{ChannelId, Direction};
use crate::config::{LITTLE, LinkConfig, REWIND};
use crate::digest::Digest;
use crate::frame;
use crate::record::{self, Record, data_overhead};
use crate::time::Instant;
use std::time::Duration;

/// Less payload than this is not worth a DATA record in a packet that has other records.
const WORTHWHILE: usize = 32;
/// What an OPEN needs besides its label, at most, with the ACCEPT or RELEASE and DIGEST that may follow.
const OPEN_OVERHEAD: usize = 96;
/// What a USED needs, at most.
const USED_LEN: usize = 2 + 8;
/// What a RELEASE needs with its DIGEST, at most.
const RELEASE_LEN: usize = OPEN_OVERHEAD;
/// Smallest packet that the rate, or losses, can cut to.
pub(super) const MIN_PACKET: usize = 256;

impl Link {
    /// Appends the next frame to `out`; false if there is nothing to send now.
    ///
    /// One frame at a time, so that what is most urgent when the line takes it is what goes.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let clear = self.farewell.take();
        let clear = clear.or_else(|| self.responder.as_mut().and_then(|r| r.poll_transmit(now)));
        if let Some(packet) = clear {
            // A delimiter first closes whatever firmware or kernel left on the line.
            out.push(frame::DELIMITER);
            frame::encode(&packet, out);
        } else if !self.assemble(now, out) {
            return false;
        }
        self.align(before, out);
        self.stats.bytes_out += (out.len() - before) as u64;
        self.stats.packets_out += 1;
        true
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) may have something now. If not, an owner need not even
    /// find out whether the line has room.
    pub fn may_transmit(&self, now: Instant) -> bool {
        let responder = self.responder.as_ref().is_some_and(|it| it.may_transmit(now));
        let clear = self.farewell.is_some() || responder;
        clear
            || self.live.as_ref().is_some_and(|live| {
                let tells = !self.dirty.is_empty() || live.release_due || live.owes_roster;
                // Those that may wait need a moment until when.
                let notes = !self.lazy.is_empty() && live.release_is_open_ended();
                let resets = self.resets.values().any(|(_, due)| *due);
                live.ping
                    || live.must_ack(now)
                    || tells
                    || notes
                    || resets
                    || !self.schedule.is_empty()
            })
    }

    // Fills up what was put at `start` so that none of it is left behind in the peer's FIFO; not while
    // more follows, which pushes it out.
    fn align(&mut self, start: usize, out: &mut Vec<u8>) {
        let align = self.config.align.max(1);
        self.phase = (self.phase + out.len() - start) % align;
        if !self.schedule.is_empty() {
            return;
        }
        // A mere acknowledgement is in no hurry, and not worth the bytes.
        if self.phase > 0 && core::mem::take(&mut self.hurries) {
            out.resize(out.len() + align - self.phase, frame::DELIMITER);
        }
        self.phase = 0;
    }

    fn assemble(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if let Some(live) = self.live.as_mut().filter(|live| !live.is_attentive(now)) {
            live.asked_at = None;
        }
        let Some(live) = &self.live else { return false };
        let may_elicit = live.in_flight.bytes() < self.window();
        let limit = self.packet_limit();
        let mut records = core::mem::take(&mut self.records);
        records.clear();
        let mut carried = Vec::new();
        // Room for the acknowledgement is set aside first: a packet beyond the limit is not one.
        let ack = self.owed_ack(now);
        let limit = limit.saturating_sub(ack.as_ref().map_or(0, |(ack, _)| ack.len()));
        let used = self.live.as_ref().is_some_and(|live| live.owes_used);
        let limit = limit.saturating_sub(if used { USED_LEN } else { 0 });
        let limit = limit.max(MIN_PACKET / 2);
        let mut eliciting = self.put_ping(&mut records);
        if may_elicit {
            self.put_owed(limit, &mut records, &mut carried);
            self.put_data(limit, &mut records, &mut carried);
        }
        let due = ack.as_ref().is_some_and(|(_, due)| *due);
        if may_elicit {
            eliciting |= self.put_question(&mut records);
            self.put_lazy(now, limit, due, &mut records, &mut carried);
        }
        self.put_used(&mut records, &mut carried);
        eliciting |= !carried.is_empty();
        if let (Some((ack, due)), Some(live)) = (ack, &mut self.live)
            && (due || !records.is_empty())
        {
            records.extend_from_slice(&ack);
            (live.unacked, live.ack_at, live.ack_due) = (0, None, false);
        }
        let sent = !records.is_empty();
        if sent {
            self.seal(now, &records, eliciting, carried, out);
        }
        self.records = records;
        sent
    }

    fn seal(
        &mut self,
        now: Instant,
        records: &[u8],
        eliciting: bool,
        carried: Vec<Carried>,
        out: &mut Vec<u8>,
    ) {
        let idle = self.schedule.is_empty();
        let Some(live) = &mut self.live else { return };
        let number = live.session.seal(records, &mut self.packet);
        live.next_number = number + 1;
        frame::encode(&self.packet, out);
        self.hurries = eliciting;
        if eliciting {
            live.in_flight.insert(number, now, self.packet.len(), carried, idle);
            live.probe_at = None;
            self.arm_probe(now);
        }
    }

    /// Sets when to ask if nothing comes back.
    pub(super) fn arm_probe(&mut self, now: Instant) {
        let Some(live) = &mut self.live else { return };
        if live.in_flight.is_empty() {
            live.probe_at = None;
        } else if live.probe_at.is_none() {
            let wait = live.rtt.pto(self.config.ack_delay).max(live.backoff);
            live.probe_at = Some(now + wait);
        }
    }

    fn put_ping(&mut self, records: &mut Vec<u8>) -> bool {
        let Some(live) = &mut self.live else { return false };
        let due = core::mem::take(&mut live.ping);
        if due {
            record::put(records, &Record::Ping);
        }
        due
    }

    // When this packet fills the window and more waits, the answer is wanted at once.
    fn put_question(&self, records: &mut Vec<u8>) -> bool {
        let Some(live) = &self.live else { return false };
        let fills = live.in_flight.bytes() + records.len() >= self.window();
        let asks = fills && !self.schedule.is_empty();
        if asks {
            record::put(records, &Record::Ping);
        }
        asks
    }

    // What was released goes along with anything else, or by itself once it has waited.
    fn put_lazy(
        &mut self,
        now: Instant,
        limit: usize,
        ack_due: bool,
        records: &mut Vec<u8>,
        carried: &mut Vec<Carried>,
    ) {
        let digests = self.has(REWIND);
        let Some(live) = &mut self.live else { return };
        if !records.is_empty() || ack_due || live.release_due {
            while records.len() + RELEASE_LEN <= limit
                && let Some(id) = self.lazy.pop_first()
            {
                if let Some(channel) = self.channels.get_mut(&id) {
                    put_channel(id, channel, digests, records, carried);
                }
            }
        }
        if self.lazy.is_empty() {
            (live.release_at, live.release_due) = (None, false);
        } else if live.release_is_open_ended() && !live.release_due {
            live.release_at = Some(now + self.config.release_delay);
        }
    }

    // A guest's memory may be older than ids it has used, and it must know before it uses any: this
    // goes with whatever is sent until one of them has arrived.
    fn put_used(&self, records: &mut Vec<u8>, carried: &mut Vec<Carried>) {
        if !records.is_empty() && self.live.as_ref().is_some_and(|live| live.owes_used) {
            record::put(records, &Record::Used { below: self.used.into() });
            carried.push(Carried::Used);
        }
    }

    // What is to be acknowledged, and whether that is due; if not, it goes along with anything else.
    fn owed_ack(&self, now: Instant) -> Option<(Vec<u8>, bool)> {
        let live = self.live.as_ref().filter(|live| live.unacked > 0)?;
        let due = live.must_ack(now);
        let delay = u64::try_from(now.since(live.largest_at).as_micros()).unwrap_or(u64::MAX);
        let mut ack = Vec::new();
        record::put(&mut ack, &Record::Ack(live.session.ack(delay)));
        Some((ack, due))
    }

    fn put_owed(&mut self, limit: usize, records: &mut Vec<u8>, carried: &mut Vec<Carried>) {
        const LONGEST: usize = record::MAX_LABEL + OPEN_OVERHEAD;
        let digests = self.has(REWIND);
        if let Some(live) = &mut self.live
            && core::mem::take(&mut live.owes_roster)
        {
            let n = self.roster.unwrap_or(0);
            record::put(records, &Record::Roster { carried: n });
            carried.push(Carried::Roster);
        }
        for (id, (code, due)) in &mut self.resets {
            if *due && records.len() < limit {
                *due = false;
                record::put(records, &Record::Reset { channel: *id, code: *code as u64 });
                carried.push(Carried::Reset(*id));
            }
        }
        while let Some(id) = self.dirty.first().copied() {
            if !records.is_empty() && records.len() + LONGEST > limit {
                return;
            }
            self.dirty.remove(&id);
            if let Some(channel) = self.channels.get_mut(&id) {
                put_channel(id, channel, digests, records, carried);
            }
        }
    }

    fn put_data(&mut self, limit: usize, records: &mut Vec<u8>, carried: &mut Vec<Carried>) {
        let start = records.len();
        let digests = self.has(REWIND);
        let is_brief = self.is_brief();
        while let Some((class, id)) = self.schedule.next() {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            let Half::Send(send) = &channel.half else { continue };
            let opens = channel.direction == Direction::ToMux && !channel.known;
            let open = if opens { OPEN_OVERHEAD + channel.label.len() } else { 0 };
            // A little that answers somebody does not wait for a packet full of something else.
            if is_brief && records.len() > start && send.unsent() > LITTLE {
                self.schedule.put_back(class, id);
                return;
            }
            let overhead = data_overhead(id, send.end(), limit);
            let space = limit.saturating_sub(records.len());
            if space < open + overhead + WORTHWHILE && !records.is_empty() {
                self.schedule.put_back(class, id);
                return;
            }
            channel.scheduled = false;
            if opens {
                channel.owes.open = true;
                put_channel(id, channel, digests, records, carried);
            }
            let space = limit.saturating_sub(records.len()).saturating_sub(overhead);
            let before = records.len();
            put_stretch(id, channel, space, records, carried);
            self.schedule.spend(class, records.len() - before);
            self.tell_calm(id);
            self.wake(id);
            if records.len() - start >= limit {
                return;
            }
        }
    }

    // Unsent bytes have become fewer.
    fn tell_calm(&mut self, id: ChannelId) {
        let Some(Channel { half: Half::Send(send), calm, .. }) = self.channels.get_mut(&id) else {
            return;
        };
        if calm.is_some_and(|below| send.unsent() < below) {
            *calm = None;
            self.events.push_back(super::Event::Writable(id));
        }
    }

    pub(super) fn window(&self) -> usize {
        let Some(live) = &self.live else { return 0 };
        let LinkConfig { window, least_window, .. } = self.config;
        let (Some(rate), Some(rtt)) = (live.rtt.rate(), live.rtt.min()) else {
            return least_window.min(window);
        };
        // A floor of 20 ms: acknowledgements are delayed, and a guest's scheduling is coarse.
        let round = rtt.max(Duration::from_millis(20)).as_micros();
        let product = u128::from(rate) * round * 2 / 1_000_000;
        usize::try_from(product).unwrap_or(usize::MAX).max(least_window).min(window)
    }

    /// Whether packets are to be short, as somebody types or asks at the other end.
    fn is_brief(&self) -> bool {
        let LinkConfig { packet_time, attentive_packet_time, .. } = self.config;
        let is_asked = self.live.as_ref().is_some_and(|live| live.asked_at.is_some());
        is_asked && attentive_packet_time < packet_time
    }

    /// Most bytes one packet should have now, so that it does not occupy the line for long, nor too many are
    /// damaged; 0 without a session.
    pub fn packet_limit(&self) -> usize {
        let Some(live) = &self.live else { return 0 };
        let most = self.config.max_packet.min(live.session.peer().max_packet).max(MIN_PACKET);
        let wanted = live.rtt.rate().map_or(self.config.first_packet, |rate| {
            let LinkConfig { packet_time, attentive_packet_time, .. } = self.config;
            let time = if self.is_brief() { attentive_packet_time } else { packet_time };
            let bytes = u128::from(rate) * time.as_micros() / 1_000_000;
            usize::try_from(bytes).unwrap_or(usize::MAX)
        });
        wanted.min(live.sizing.most()).clamp(MIN_PACKET, most)
    }
}

fn put_channel(
    id: ChannelId,
    channel: &mut Channel,
    digests: bool,
    records: &mut Vec<u8>,
    carried: &mut Vec<Carried>,
) {
    let owes = core::mem::take(&mut channel.owes);
    let Channel { direction, class, label, half, in_roster, closing, .. } = channel;
    if owes.open {
        let (next, limit) = match half {
            Half::Send(send) => (send.base(), send.end()),
            Half::Recv(recv) => (recv.next(), recv.advertise()),
        };
        let (direction, class, fresh) = (*direction, *class, !*in_roster);
        let open = Record::Open { channel: id, direction, fresh, class, next, limit, label };
        record::put(records, &open);
        carried.push(Carried::Open(id));
    }
    let Half::Recv(recv) = half else { return };
    // Before the ACCEPT and the RELEASE, after which the sender may no longer have the bytes.
    let tell = |known: Option<(Digest, bool)>, records: &mut Vec<u8>| {
        if let Some((digest, ended)) = known.filter(|it| digests && (it.1 || it.0.offset() > 0)) {
            let (offset, state) = (digest.offset(), digest.state());
            record::put(records, &Record::Digest { channel: id, offset, ended, state });
        }
    };
    if (owes.open && *in_roster) || owes.accept {
        tell(recv.digest(), records);
    } else if owes.release {
        let news = if *closing { recv.digest() } else { recv.news() };
        tell(news, records);
    }
    if owes.accept {
        let (next, released) = (recv.next(), recv.released());
        let limit = recv.advertise();
        record::put(records, &Record::Accept { channel: id, next, released, limit });
        carried.push(Carried::Accept(id));
    }
    if owes.release {
        let released = recv.released();
        let limit = recv.advertise();
        record::put(records, &Record::Release { channel: id, released, limit });
        carried.push(Carried::Release(id, released));
    }
}

fn put_stretch(
    id: ChannelId,
    channel: &mut Channel,
    space: usize,
    records: &mut Vec<u8>,
    carried: &mut Vec<Carried>,
) {
    let Half::Send(send) = &mut channel.half else { return };
    let Some(stretch) = send.take(space) else { return };
    let (a, b) = send.bytes(&stretch.range);
    record::put_data(records, id, stretch.range.start, stretch.fin, [a, b]);
    carried.push(Carried::Data(id, stretch));
}
