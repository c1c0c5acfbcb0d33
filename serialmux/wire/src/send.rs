//! The sending half of a channel: bytes kept until the receiver says they are durable.
//!
//! ```text
//!   base          acked/lost            next              end = base + held
//!    |------- sent, held for resend ------|---- unsent ------|
//!    '- everything below is released      '- never beyond `limit` (credit)
//! ```

use crate::digest::Digest;
use crate::ranges::RangeSet;
use std::collections::VecDeque;
use std::ops::Range;

/// One stretch to put on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Offsets of its bytes; empty if only the end is to be told.
    pub(crate) range: Range<u64>,
    /// Whether the stream ends here.
    pub(crate) fin: bool,
}

/// Bytes written and not yet released, with what of them is on the way.
#[derive(Debug)]
pub(crate) struct SendHalf {
    base: u64,
    held: VecDeque<u8>,
    capacity: usize,
    next: u64,
    lost: RangeSet,
    acked: RangeSet,
    limit: u64,
    finished: bool,
    fin_sent: bool,
    fin_released: bool,
    /// Whether the receiver has said, in this session, where to go on.
    accepted: bool,
    /// Of everything below `base`; `None` if that is not known.
    digest: Option<Digest>,
    /// Of the most that the receiver has proved to have in this session.
    proved: Option<Digest>,
}

impl SendHalf {
    /// A stream that starts at `base`, holding at most `capacity` bytes, with credit up to `limit`.
    pub(crate) fn new(base: u64, capacity: usize, limit: u64, accepted: bool) -> Self {
        Self {
            base,
            held: VecDeque::new(),
            capacity,
            next: base,
            lost: RangeSet::default(),
            acked: RangeSet::default(),
            limit,
            finished: false,
            fin_sent: false,
            fin_released: false,
            accepted,
            digest: None,
            proved: None,
        }
    }

    /// Keeps a digest of the stream from its start on.
    pub(crate) fn with_digest(self, blank: Digest) -> Self {
        Self { digest: (self.base == 0).then_some(blank), ..self }
    }

    /// The receiver tells what it has. Returns whether that is what was written; a sender that does not
    /// know what came before it takes the receiver's word for it.
    pub(crate) fn is_same(&mut self, theirs: &Digest, ended: bool) -> bool {
        let at = theirs.offset();
        // A digest counts bytes, and not the end: nobody can have more of them than were written.
        if at > self.end() || (ended && !(self.finished && at == self.end())) {
            return false;
        }
        let Some(own) = self.digest else {
            self.digest = Some(*theirs).filter(|theirs| theirs.offset() == self.base);
            return true;
        };
        let proved = self.proved.filter(|proved| proved.offset() >= self.base);
        if at < self.base || proved.is_some_and(|proved| proved.offset() > at) {
            // Part of what was proved, which is not looked at again: a peer may tell it a thousand times. Whether
            // less than is held can be is for what comes with it to say.
            return true;
        }
        let mut own = proved.unwrap_or(own);
        let (a, b) = self.bytes(&(own.offset()..at));
        own.update(a);
        own.update(b);
        let is_same = own == *theirs;
        self.proved = Some(own).filter(|_| is_same).or(proved);
        is_same
    }

    /// From now on it holds at most so many bytes; what it holds already stays.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        if self.held.capacity() / 2 > capacity {
            self.held.shrink_to(capacity);
        }
    }

    /// Lowest offset still held.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Bytes it holds, and what it remembers of them.
    pub(crate) fn memory(&self) -> usize {
        let ranges = self.lost.len() + self.acked.len();
        self.held.len() + ranges * size_of::<(u64, u64)>()
    }

    /// Offset after the last byte written.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.held.len() as u64
    }

    /// How many bytes [`write`](Self::write) would take now.
    pub(crate) fn room(&self) -> usize {
        if self.finished { 0 } else { self.capacity.saturating_sub(self.held.len()) }
    }

    /// Bytes written that were never put on the line in this session.
    pub(crate) fn unsent(&self) -> usize {
        usize::try_from(self.end() - self.next).unwrap_or(usize::MAX)
    }

    /// Takes as much of `bytes` as there is room for, and says how much.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        self.held.extend(bytes.get(..n).unwrap_or_default());
        n
    }

    /// Ends the stream after what was written.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether the end was written.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether the receiver has released everything, the end included.
    pub(crate) fn is_released(&self) -> bool {
        self.fin_released
    }

    /// A new session: nothing is known to be on the way until the receiver accepts.
    pub(crate) fn suspend(&mut self) {
        self.accepted = false;
        self.proved = None;
        self.lost.clear();
        self.acked.clear();
    }

    /// A new session with a receiver that never accepted: everything again, with first credit.
    pub(crate) fn restart(&mut self, limit: u64) {
        self.suspend();
        self.accepted = true;
        self.next = self.base;
        self.fin_sent = false;
        self.limit = limit;
    }

    /// The receiver goes on at `next`, has released `released` and grants `limit`.
    ///
    /// Returns whether that is possible: `false` when it wants bytes already released, or has
    /// bytes never written, which means one end's memory went back in time.
    pub(crate) fn accept(&mut self, next: u64, released: u64, limit: u64) -> bool {
        if next < self.base || next > self.end() + u64::from(self.finished) {
            return false;
        }
        if !self.accepted {
            self.accepted = true;
            self.next = next.min(self.end());
            self.fin_sent = next > self.end();
            self.limit = limit;
        }
        self.release(released, limit);
        true
    }

    /// Everything below `released` is durable; offsets below `limit` may be sent.
    /// Returns how many bytes that freed.
    pub(crate) fn release(&mut self, released: u64, limit: u64) -> usize {
        self.limit = self.limit.max(limit);
        let top = self.end();
        let freed = usize::try_from(released.min(top).saturating_sub(self.base)).unwrap_or(0);
        if let Some(mut digest) = self.digest {
            let (a, b) = self.bytes(&(self.base..self.base + freed as u64));
            digest.update(a);
            digest.update(b);
            self.digest = Some(digest);
        }
        self.held.drain(..freed);
        self.base += freed as u64;
        self.next = self.next.max(self.base);
        self.lost.remove(0..self.base);
        self.acked.remove(0..self.base);
        self.fin_released |= self.finished && released > top;
        freed
    }

    /// Whether so much was ever written.
    pub(crate) fn may_release(&self, released: u64) -> bool {
        released <= self.end() + u64::from(self.finished)
    }

    /// Bytes to be sent, for the first time or again.
    pub(crate) fn queued(&self) -> u64 {
        let lost: u64 = self.lost.descending().map(|range| range.end - range.start).sum();
        self.end().saturating_sub(self.next) + lost
    }

    /// Whether there is anything to send now.
    pub(crate) fn is_ready(&self) -> bool {
        self.accepted && !self.fin_released && (self.has_bytes() || self.has_end())
    }

    fn has_bytes(&self) -> bool {
        !self.lost.is_empty() || self.next < self.end().min(self.limit)
    }

    fn has_end(&self) -> bool {
        self.finished && !self.fin_sent && self.next == self.end()
    }

    /// The next stretch of at most `max` bytes, resends first; marks it as sent.
    pub(crate) fn take(&mut self, max: usize) -> Option<Stretch> {
        if !self.is_ready() {
            return None;
        }
        let max = max as u64;
        if let Some(range) = self.lost.pop_first() {
            let cut = range.start + (range.end - range.start).min(max);
            self.lost.insert(cut..range.end);
            return (cut > range.start).then_some(Stretch { range: range.start..cut, fin: false });
        }
        let start = self.next;
        let stop = self.end().min(self.limit).min(start + max).max(start);
        self.next = stop;
        let fin = self.finished && !self.fin_sent && stop == self.end();
        if stop == start && !fin {
            return None;
        }
        self.fin_sent |= fin;
        Some(Stretch { range: start..stop, fin })
    }

    /// The bytes of a stretch; empty if they were released meanwhile.
    pub(crate) fn bytes(&self, range: &Range<u64>) -> (&[u8], &[u8]) {
        let index = |offset: u64| usize::try_from(offset.saturating_sub(self.base)).unwrap_or(0);
        let (from, to) = (index(range.start), index(range.end).min(self.held.len()));
        let (a, b) = self.held.as_slices();
        let piece = |s: &'_ [u8], from: usize, to: usize| {
            from.min(s.len())..to.min(s.len()).max(from.min(s.len()))
        };
        let first = piece(a, from, to);
        let second = piece(b, from.saturating_sub(a.len()), to.saturating_sub(a.len()));
        (a.get(first).unwrap_or_default(), b.get(second).unwrap_or_default())
    }

    /// The stretch arrived (though it may not be durable yet).
    pub(crate) fn acknowledged(&mut self, stretch: &Stretch) {
        let start = stretch.range.start.max(self.base);
        self.acked.insert(start..stretch.range.end);
        self.lost.remove(start..stretch.range.end);
    }

    /// The stretch is gone and goes to the front of the queue, less what arrived otherwise. Returns
    /// how many bytes have to be sent again.
    pub(crate) fn lost(&mut self, stretch: &Stretch) -> u64 {
        if !self.accepted {
            return 0;
        }
        let before = self.queued();
        let range = stretch.range.start.max(self.base)..stretch.range.end.min(self.next);
        if range.start < range.end {
            self.lost.insert(range.clone());
            let arrived: Vec<_> = self
                .acked
                .descending()
                .filter(|a| a.start < range.end && a.end > range.start)
                .collect();
            arrived.into_iter().for_each(|a| self.lost.remove(a));
        }
        if stretch.fin {
            self.fin_sent = false;
        }
        self.queued().saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::psk::Psk;

    fn half() -> SendHalf {
        SendHalf::new(0, 100, 1000, true)
    }

    fn drain(send: &mut SendHalf) -> Vec<Stretch> {
        std::iter::from_fn(|| send.take(10)).collect()
    }

    #[test]
    fn a_full_buffer_takes_no_more_until_released() {
        let mut send = half();
        assert_eq!(send.write(&[7; 150]), 100);
        assert_eq!(send.write(&[7; 1]), 0);
        drain(&mut send);
        send.release(30, 1000);
        assert_eq!(send.room(), 30);
    }

    #[test]
    fn lost_bytes_go_first_and_arrived_ones_are_not_sent_again() {
        let mut send = half();
        send.write(&[1; 40]);
        let sent = drain(&mut send);
        send.acknowledged(&sent[1]);
        send.lost(&Stretch { range: 0..30, fin: false });
        let again: Vec<_> = drain(&mut send).into_iter().map(|s| s.range).collect();
        assert_eq!(again, vec![0..10, 20..30]);
    }

    #[test]
    fn the_end_is_sent_once_with_the_last_bytes_and_again_when_lost() {
        let mut send = half();
        send.write(b"abc");
        send.finish();
        let sent = drain(&mut send);
        assert_eq!(sent, vec![Stretch { range: 0..3, fin: true }]);
        send.lost(&sent[0]);
        assert_eq!(send.take(10), Some(Stretch { range: 0..3, fin: false }));
        assert_eq!(send.take(10), Some(Stretch { range: 3..3, fin: true }));
        send.release(3, 1000);
        assert!(!send.is_released());
        send.release(4, 1000);
        assert!(send.is_released() && !send.is_ready());
    }

    #[test]
    fn an_empty_stream_can_end() {
        let mut send = half();
        send.finish();
        assert_eq!(send.take(10), Some(Stretch { range: 0..0, fin: true }));
        assert!(!send.is_released());
        send.release(1, 1000);
        assert!(send.is_released());
    }

    #[test]
    fn what_the_receiver_has_is_proved_once_and_never_more_than_was_written() {
        let blank = Psk::derive(b"a key").digest();
        let of = |bytes: &[u8]| {
            let mut digest = blank;
            digest.update(bytes);
            digest
        };
        let mut send = half().with_digest(blank);
        send.write(b"abcdef");
        assert!(send.is_same(&of(b"abcd"), false) && !send.is_same(&of(b"abxd"), false));
        assert!(!send.is_same(&of(b"abcdefg"), false), "it has a byte that was never written");
        assert!(send.is_same(&of(b"abcdef"), false) && !send.is_same(&of(b"abcdex"), false));
        assert!(send.is_same(&of(b"xx"), false), "that was proved");
        send.release(5, 1000);
        send.write(b"gh");
        assert!(send.is_same(&of(b"abcdefg"), false) && !send.is_same(&of(b"abcdefgx"), false));
        send.suspend();
        assert!(!send.is_same(&of(b"abcdex"), false), "in another session it is another receiver");
        send.finish();
        assert!(send.is_same(&of(b"abcdefgh"), true) && !send.is_same(&of(b"abcdefg"), true));
    }

    #[test]
    fn credit_is_never_exceeded() {
        let mut send = SendHalf::new(0, 100, 15, true);
        send.write(&[1; 50]);
        send.finish();
        assert_eq!(drain(&mut send).last().map(|s| s.range.end), Some(15));
        send.release(0, 50);
        assert_eq!(drain(&mut send).last(), Some(&Stretch { range: 45..50, fin: true }));
    }

    #[test]
    fn a_new_session_goes_on_where_the_receiver_says() {
        let mut send = half();
        send.write(&[1; 50]);
        drain(&mut send);
        send.suspend();
        assert_eq!(send.take(10), None);
        assert!(send.accept(20, 10, 1000));
        assert_eq!(send.base(), 10);
        assert_eq!(send.take(100).map(|s| s.range), Some(20..50));
        send.suspend();
        assert!(!send.accept(5, 5, 1000), "5 was released already");
        assert!(!send.accept(51, 5, 1000), "51 was never written");
    }
}
