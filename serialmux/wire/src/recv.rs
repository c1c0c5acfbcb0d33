//! The receiving half of a channel: bytes put in order, and the credit that bounds them.

use crate::digest::Digest;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::BTreeMap;

/// A sender broke its credit or changed its own end. Class: close the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecvError {
    /// Bytes beyond the granted limit.
    #[error("bytes up to offset {end} but credit ends at {limit}")]
    Credit {
        /// Offset after the last byte received.
        end: u64,
        /// The credit granted.
        limit: u64,
    },
    /// More scattered pieces than any honest loss leaves.
    #[error("more than {MAX_AHEAD} pieces ahead of a gap")]
    Scattered,
    /// Two different ends, or bytes after the end.
    #[error("stream of {expected} bytes now ends at {found}")]
    End {
        /// The end told first.
        expected: u64,
        /// The end or offset told now.
        found: u64,
    },
}

/// Pieces kept beyond a gap. An honest sender has at most a window of packets on the way, each of
/// 23 bytes or more, so fewer than 3,000 of them.
pub(crate) const MAX_AHEAD: usize = 4096;

/// Bytes received and not yet read, with what the sender may send next.
///
/// Memory: at most `window` bytes, whatever the order they come in, in at most [`MAX_AHEAD`] pieces.
#[derive(Debug)]
pub(crate) struct RecvHalf {
    /// Offset after the last byte in order.
    next: u64,
    /// In order, not yet read: `[next - unread.len(), next)`.
    unread: BytesMut,
    ahead: BTreeMap<u64, Bytes>,
    fin: Option<u64>,
    /// Where the owner went on with a stream of which less had come: that may be one place behind its end.
    taken_over: Option<u64>,
    released: u64,
    window: u64,
    advertised: u64,
    /// Of everything that was read; `None` if that is not known.
    digest: Option<Digest>,
    /// How far the peer was told what is here.
    told: u64,
}

impl RecvHalf {
    /// A stream to be received from `next` on; everything below is released.
    pub(crate) fn new(next: u64, window: u64) -> Self {
        Self {
            next,
            unread: BytesMut::new(),
            ahead: BTreeMap::new(),
            fin: None,
            taken_over: None,
            released: next,
            window,
            advertised: next + window,
            digest: None,
            told: next,
        }
    }

    /// Keeps a digest of the stream from its start on.
    pub(crate) fn with_digest(self, blank: Digest) -> Self {
        Self { digest: (self.next == 0).then_some(blank), ..self }
    }

    /// What is here in order, as far as it is known, and whether that is all there will be.
    pub(crate) fn digest(&self) -> Option<(Digest, bool)> {
        let mut digest = self.digest?;
        digest.update(&self.unread);
        // Taken over with its end already durable, a stream is one place further than its bytes.
        let ended = self.is_ended() || digest.offset() < self.next;
        Some((digest, ended))
    }

    /// As [`digest`](Self::digest), when much has come since it was last told. Marks it as told.
    pub(crate) fn news(&mut self) -> Option<(Digest, bool)> {
        const OFTEN: u64 = 64 * 1024;
        if self.next < self.told + OFTEN && self.fin != Some(self.next) {
            return None;
        }
        self.told = self.next;
        self.digest()
    }

    /// Offset of the next byte wanted (length + 1 once the end is there too).
    pub(crate) fn next(&self) -> u64 {
        if self.fin == Some(self.next) { self.next + 1 } else { self.next }
    }

    /// Everything below was released by the reader.
    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    /// Credit: the sender may send offsets below this. Marks it as told.
    pub(crate) fn advertise(&mut self) -> u64 {
        self.advertised = self.released + self.window;
        self.advertised
    }

    /// Whether the sender may soon lack credit: an eighth of it was released since it was last told. Less may go along
    /// with something else, or wait for [`LinkConfig::release_delay`](crate::LinkConfig::release_delay).
    pub(crate) fn lacks(&self) -> bool {
        let untold = (self.released + self.window).saturating_sub(self.advertised);
        untold >= self.window / 8
    }

    /// From the next credit on, the sender may be so many bytes ahead.
    pub(crate) fn set_window(&mut self, window: u64) {
        self.window = window;
    }

    /// Bytes it holds, and what it remembers of them.
    pub(crate) fn memory(&self) -> usize {
        let ahead: usize = self.ahead.values().map(Bytes::len).sum();
        self.unread.len() + ahead + self.ahead.len() * size_of::<(u64, Bytes)>()
    }

    /// Bytes to read.
    pub(crate) fn unread(&self) -> u64 {
        self.unread.len() as u64
    }

    /// Bytes beyond a gap.
    pub(crate) fn ahead(&self) -> u64 {
        self.ahead.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Whether there are bytes to read.
    pub(crate) fn is_readable(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Whether the end has come and every byte before it was read.
    pub(crate) fn is_drained(&self) -> bool {
        self.fin == Some(self.next) && self.unread.is_empty()
    }

    /// Whether the end has come and every byte before it.
    pub(crate) fn is_ended(&self) -> bool {
        self.fin == Some(self.next)
    }

    /// Bytes arrived. Returns whether the stream moved on (new bytes in order, or its end).
    ///
    /// # Errors
    /// [`RecvError`] when the sender broke the rules.
    pub(crate) fn insert(
        &mut self,
        offset: u64,
        bytes: &[u8],
        fin: bool,
    ) -> Result<bool, RecvError> {
        let end = offset + bytes.len() as u64;
        if end > self.advertised.max(self.next) {
            return Err(RecvError::Credit { end, limit: self.advertised });
        }
        if let Some(expected) = self.fin
            && (end > expected || (fin && end != expected))
        {
            return Err(RecvError::End { expected, found: end });
        }
        let before = self.next();
        let may_end_before = self.taken_over == Some(self.next);
        if fin && self.fin.is_none() && end + 1 == self.next && may_end_before {
            // Taken over with its end already durable: where that was is only now known.
            (self.next, self.fin) = (end, Some(end));
            return Ok(false);
        }
        if fin {
            if end < self.next
                || self.ahead.last_key_value().is_some_and(|(o, b)| o + b.len() as u64 > end)
            {
                return Err(RecvError::End { expected: self.next, found: end });
            }
            self.fin = Some(end);
        }
        self.place(offset, bytes);
        if self.ahead.len() > MAX_AHEAD {
            return Err(RecvError::Scattered);
        }
        Ok(self.next() != before)
    }

    fn place(&mut self, offset: u64, bytes: &[u8]) {
        if offset > self.next {
            self.place_ahead(offset, bytes);
            return;
        }
        self.append(offset, bytes);
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.next {
                break;
            }
            let (offset, bytes) = entry.remove_entry();
            self.append(offset, &bytes);
        }
    }

    fn append(&mut self, offset: u64, bytes: &[u8]) {
        let known = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
        if let Some(new) = bytes.get(known..) {
            self.unread.extend_from_slice(new);
            self.next += new.len() as u64;
        }
    }

    // Keeps only what no other entry holds, so that memory stays within the window.
    fn place_ahead(&mut self, offset: u64, bytes: &[u8]) {
        let end_of = |(start, held): (&u64, &Bytes)| start + held.len() as u64;
        let end = offset + bytes.len() as u64;
        let before = self.ahead.range(..=offset).next_back().map_or(0, end_of);
        let mut at = offset.max(before);
        while at < end {
            let next = self.ahead.range(at..end).next();
            let (stop, after) = next.map_or((end, end), |entry| (*entry.0, end_of(entry)));
            let span = (at - offset) as usize..(stop - offset) as usize;
            if let Some(new) = bytes.get(span)
                && !new.is_empty()
            {
                self.ahead.insert(at, Bytes::copy_from_slice(new));
            }
            at = after;
        }
    }

    /// Another sender goes on with the stream: what its predecessor sent ahead is not its.
    pub(crate) fn forget_ahead(&mut self) {
        self.ahead.clear();
        self.fin = self.fin.filter(|fin| *fin == self.next);
    }

    /// The owner takes the stream: everything below `offset` is here already (it survived a restart
    /// of the reader), and the sender may be `window` bytes ahead.
    ///
    /// `digest` is of what is here already, if the owner knows; else there is none if not all of it
    /// came over this link.
    /// Returns whether that is what came, as far as any of it did.
    pub(crate) fn start_at(&mut self, offset: u64, window: u64, digest: Option<Digest>) -> bool {
        self.window = window;
        // The stream's end counts as one place more than its bytes.
        let digest = digest.filter(|it| it.offset() == offset || it.offset() + 1 == offset);
        if offset <= self.next {
            let unread_from = self.next - self.unread.len() as u64;
            let known = usize::try_from(offset.saturating_sub(unread_from)).unwrap_or(0);
            let known = known.min(self.unread.len());
            if let Some(own) = &mut self.digest {
                own.update(self.unread.get(..known).unwrap_or_default());
            }
            let other =
                |own: Digest, digest: Digest| own.offset() == digest.offset() && own != digest;
            if self.digest.zip(digest).is_some_and(|(own, digest)| other(own, digest)) {
                return false;
            }
            self.digest = digest.or(self.digest);
            self.unread.advance(known);
        } else {
            self.digest = digest;
            self.unread.clear();
            self.next = self.fin.map_or(offset, |fin| offset.min(fin));
            self.taken_over = Some(self.next);
            self.ahead.retain(|start, held| start + held.len() as u64 > offset);
            self.place(self.next, &[]);
        }
        self.released = self.released.max(offset);
        true
    }

    /// Takes up to `max` bytes in order.
    pub(crate) fn read(&mut self, max: usize) -> Bytes {
        let n = max.min(self.unread.len());
        let bytes = self.unread.split_to(n).freeze();
        if let Some(digest) = &mut self.digest {
            digest.update(&bytes);
        }
        bytes
    }

    /// The reader is done with everything below `offset`.
    pub(crate) fn release(&mut self, offset: u64) {
        self.released = self.released.max(offset.min(self.next()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_beyond_the_credit_are_an_error() {
        let mut recv = RecvHalf::new(0, 10);
        assert_eq!(recv.insert(0, &[0; 10], false), Ok(true));
        assert_eq!(recv.insert(10, &[0; 1], false), Err(RecvError::Credit { end: 11, limit: 10 }));
        recv.read(10);
        recv.release(10);
        recv.advertise();
        assert_eq!(recv.insert(10, &[0; 10], false), Ok(true));
    }

    #[test]
    fn an_end_cannot_move() {
        let mut recv = RecvHalf::new(0, 10);
        assert_eq!(recv.insert(0, b"abc", true), Ok(true));
        assert_eq!(recv.insert(0, b"abc", true), Ok(false));
        assert!(recv.insert(0, b"ab", true).is_err());
        assert!(recv.insert(3, b"d", false).is_err());
        assert_eq!(recv.next(), 4);
        assert!(!recv.is_drained());
        recv.read(3);
        assert!(recv.is_drained());
    }

    #[test]
    fn an_end_moves_back_only_where_the_owner_may_have_counted_it() {
        let mut recv = RecvHalf::new(0, 10);
        assert_eq!(recv.insert(0, b"x", false), Ok(true));
        assert!(recv.insert(0, b"", true).is_err(), "there was a byte");
        let mut recv = RecvHalf::new(0, 10);
        assert!(recv.start_at(4, 10, None));
        assert_eq!(recv.insert(3, b"", true), Ok(false), "three bytes and their end");
        assert_eq!(recv.next(), 4);
        let mut recv = RecvHalf::new(0, 10);
        assert!(recv.start_at(4, 10, None));
        assert_eq!(recv.insert(4, b"x", false), Ok(true));
        assert!(recv.insert(4, b"", true).is_err(), "four, and one more");
    }

    #[test]
    fn an_end_before_bytes_already_here_is_an_error() {
        let mut recv = RecvHalf::new(0, 10);
        assert_eq!(recv.insert(4, b"ef", false), Ok(false));
        assert!(recv.insert(0, b"abc", true).is_err());
    }

    #[test]
    fn a_reader_that_restarted_goes_on_where_it_was_durable() {
        let stream: Vec<u8> = (0..100).collect();
        for (here, durable) in [(0, 40), (30, 40), (60, 40), (100, 40), (100, 0)] {
            let mut recv = RecvHalf::new(0, 200);
            recv.insert(0, &stream[..here], false).unwrap();
            recv.insert(70, &stream[70..], false).unwrap();
            assert!(recv.start_at(durable as u64, 200, None));
            assert_eq!(recv.released(), durable as u64);
            recv.insert(durable as u64, &stream[durable..], true).unwrap();
            assert_eq!(&recv.read(usize::MAX)[..], &stream[durable..], "{here} here");
            assert!(recv.is_drained());
        }
    }

    proptest! {
        #[test]
        fn any_order_and_overlap_gives_the_stream_within_the_window(
            pieces in prop::collection::vec((0usize..300, 1usize..80), 1..120),
        ) {
            let stream: Vec<u8> = (0..380u32).map(|i| (i * 7 % 251) as u8).collect();
            let mut recv = RecvHalf::new(0, 400);
            for (start, len) in pieces {
                let end = (start + len).min(stream.len());
                recv.insert(start as u64, &stream[start..end], false).unwrap();
                let ahead: usize = recv.ahead.values().map(Bytes::len).sum();
                prop_assert!(ahead + recv.unread.len() <= 400);
            }
            recv.insert(0, &stream, true).unwrap();
            prop_assert_eq!(recv.next(), stream.len() as u64 + 1);
            prop_assert_eq!(&recv.read(usize::MAX)[..], &stream[..]);
            prop_assert!(recv.ahead.is_empty());
        }
    }
}
