//! What the owner wants of a link: channels opened, written, read, released, ended.

use super::{Channel, Event, FIRST_CREDIT, Half, Link, LinkError, Open, Owes};
use crate::channel::{ChannelId, Class, Direction};
use crate::config::REWIND;
use crate::digest::Digest;
use crate::record::{MAX_LABEL, ResetCode};
use crate::recv::RecvHalf;
use crate::send::SendHalf;
use bytes::Bytes;

impl Link {
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
        self.next_id = self.next_id.checked_add(1).ok_or(LinkError::Ids)?;
        let half = match open.direction {
            Direction::ToMux => {
                let send = SendHalf::new(0, self.config.send_buffer, FIRST_CREDIT, true);
                Half::Send(send.with_digest(self.blank))
            }
            Direction::ToGuest => {
                Half::Recv(RecvHalf::new(0, self.config.receive_window).with_digest(self.blank))
            }
        };
        let owes = Owes { open: true, ..Owes::default() };
        self.insert(id, open.direction, open.class, open.label.into(), half, owes);
        Ok(id)
    }

    pub(super) fn insert(
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
            fresh: false,
            orphan: false,
            owes,
            readable_told: false,
            finished_told: false,
            full: false,
            calm: None,
            closing: false,
        };
        self.channels.insert(id, channel);
        if owes.any() {
            self.dirty.insert(id);
        }
    }

    /// Takes a channel the guest opened and goes on at `next`: everything below is durable here.
    /// For a channel on which the mux sends, `next` is ignored. Mux only.
    ///
    /// If that includes bytes that did not come over this link, nobody can tell whether the guest still
    /// means the same ones: see [`accept_known`](Self::accept_known).
    pub fn accept(&mut self, id: ChannelId, next: u64) {
        self.take(id, next, None);
    }

    /// As [`accept`](Self::accept), with the digest of what is durable here: a guest that has written
    /// something else instead is found out, and [`Event::RolledBack`] follows.
    pub fn accept_known(&mut self, id: ChannelId, next: u64, digest: Digest) {
        self.take(id, next, Some(digest));
    }

    fn take(&mut self, id: ChannelId, next: u64, digest: Option<Digest>) {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| channel.undecided) else {
            return;
        };
        if channel.fresh && next > 0 && matches!(channel.half, Half::Recv(_)) && self.has(REWIND) {
            // What is here under this id came from a guest that has forgotten it.
            self.rolled_back(id);
            return;
        }
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.undecided = false;
        if let Half::Recv(recv) = &mut channel.half {
            if !recv.start_at(next, self.config.receive_window, digest) {
                self.rolled_back(id);
                return;
            }
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

    /// What comes on a channel is not what came before under the same offsets: [`Event::RolledBack`] follows
    /// at both ends. Mux only.
    pub fn disown(&mut self, id: ChannelId) {
        if self.channels.contains_key(&id) {
            self.rolled_back(id);
        }
    }

    pub(super) fn reset(&mut self, id: ChannelId, code: ResetCode) {
        self.forget(id);
        self.owe_reset(id, code);
    }

    /// The two ends do not have the same channel: neither goes on with it.
    pub(super) fn rolled_back(&mut self, id: ChannelId) {
        self.stats.rollbacks += 1;
        let tells = self.has(REWIND);
        self.reset(id, if tells { ResetCode::RolledBack } else { ResetCode::Abandoned });
        if tells && let Some((code @ ResetCode::Carried, _)) = self.resets.get_mut(&id) {
            *code = ResetCode::CarriedRolledBack;
        }
        self.events.push_back(Event::RolledBack(id));
    }

    // Bounded: an id is in here only until the peer has acknowledged, or its OPEN comes again.
    pub(super) fn owe_reset(&mut self, id: ChannelId, code: ResetCode) {
        if self.resets.len() < self.config.max_channels {
            self.resets.entry(id).or_insert((code, true)).1 = true;
        }
    }

    pub(super) fn forget(&mut self, id: ChannelId) {
        let channel = self.channels.remove(&id);
        self.dirty.remove(&id);
        self.lazy.remove(&id);
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

    /// How many bytes of a channel have been written and still wait for their first turn on the line.
    pub fn unsent(&self, id: ChannelId) -> usize {
        match self.channels.get(&id).map(|channel| &channel.half) {
            Some(Half::Send(send)) => send.unsent(),
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

    /// Has [`Event::Writable`] follow when there is more room than now, for one who needs more than a
    /// byte of it.
    pub fn want_room(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.full = true;
        }
    }

    /// Has [`Event::Writable`] follow when fewer than `below` bytes wait for their first turn on the
    /// line, for one who writes as late as can be.
    pub fn want_calm(&mut self, id: ChannelId, below: usize) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.calm = Some(below);
        }
    }

    /// Offset after the last byte written to, or received in order on, a channel.
    pub fn offset(&self, id: ChannelId) -> Option<u64> {
        self.channels.get(&id).map(|channel| match &channel.half {
            Half::Send(send) => send.end(),
            Half::Recv(recv) => recv.next(),
        })
    }

    /// Offset up to which the peer has taken over, for good, what was written to a channel.
    pub fn taken_over(&self, id: ChannelId) -> Option<u64> {
        match self.channels.get(&id).map(|channel| &channel.half) {
            Some(Half::Send(send)) => Some(send.base()),
            _ => None,
        }
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
        if offset <= recv.released() {
            return;
        }
        recv.release(offset);
        channel.owes.release = true;
        if channel.class == Class::Control || recv.lacks() {
            self.dirty.insert(id);
        } else {
            self.lazy.insert(id);
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

    pub(super) fn wake(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Half::Send(send) = &channel.half else { return };
        if self.live.is_some() && !channel.scheduled && !channel.undecided && send.is_ready() {
            channel.scheduled = true;
            self.schedule.wake(channel.class, id);
        }
    }

    pub(super) fn tell_readable(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Half::Recv(recv) = &channel.half else { return };
        if recv.is_readable() && !channel.readable_told && !channel.undecided {
            channel.readable_told = true;
            self.events.push_back(Event::Readable(id));
        }
        self.tell_finished(id);
    }

    pub(super) fn tell_finished(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Half::Recv(recv) = &channel.half else { return };
        if recv.is_drained() && !channel.finished_told && !channel.undecided {
            channel.finished_told = true;
            self.events.push_back(Event::Finished(id));
        }
    }
}
