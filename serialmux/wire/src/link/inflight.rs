//! Packets on the way: what was in each, which arrived, which are lost.
//!
//! The line is first-in first-out, so a packet is lost as soon as a later one is known to have
//! arrived (loss threshold 1). Silence alone never declares a loss: it makes us ask, and the answer
//! tells.

use crate::channel::ChannelId;
use crate::ranges::RangeSet;
use crate::record::Ack;
use crate::send::Stretch;
use crate::time::Instant;
use std::collections::BTreeMap;

/// Ranges of acknowledged numbers remembered.
const MAX_ACKED: usize = 32;

/// What a packet carried that matters when it arrives or is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Carried {
    Open(ChannelId),
    Accept(ChannelId),
    Release(ChannelId, u64),
    Reset(ChannelId),
    Roster,
    Used,
    Data(ChannelId, Stretch),
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) bytes: usize,
    pub(super) carried: Vec<Carried>,
    delivered: u64,
    delivered_at: Instant,
    idle: bool,
}

/// What one ACK told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) arrived: Vec<Carried>,
    pub(super) lost: Vec<Carried>,
    pub(super) n_lost: u64,
    /// Bytes of the large ones that arrived.
    pub(super) large_arrived: usize,
    /// Whether a large one was lost.
    pub(super) large_lost: bool,
    /// When the newest of the newly acknowledged was sent.
    pub(super) newest_sent: Option<Instant>,
    /// Bytes delivered, since when, and whether the sender was idle, for the rate.
    pub(super) delivered: Option<(u64, Instant, bool)>,
}

#[derive(Debug, Default)]
pub(super) struct InFlight {
    sent: BTreeMap<u64, Sent>,
    bytes: usize,
    delivered: u64,
    delivered_at: Instant,
    largest_acked: Option<u64>,
    /// What the peer has acknowledged, in the highest ranges of it: it cannot take that back.
    acked: RangeSet,
    /// The newest packet of the peer's that acknowledged anything.
    acked_within: u64,
    /// The last packet that carried nothing but a question.
    asked: Option<u64>,
}

impl InFlight {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sent.first_key_value().map(|(_, sent)| sent.at)
    }

    /// Bytes of its own, and not those of the packets.
    pub(super) fn memory(&self) -> usize {
        let carried: usize = self.sent.values().map(|sent| sent.carried.len()).sum();
        let acked = self.acked.len() * size_of::<(u64, u64)>();
        acked + self.sent.len() * size_of::<(u64, Sent)>() + carried * size_of::<Carried>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// A packet went out; `idle`: there was nothing more to send.
    pub(super) fn insert(
        &mut self,
        number: u64,
        at: Instant,
        bytes: usize,
        carried: Vec<Carried>,
        idle: bool,
    ) {
        if self.sent.is_empty() {
            self.delivered_at = at;
        }
        // Only the last of the packets that carry nothing but a question, and what goes with each of those until it
        // has arrived, is of interest, so that asking a silent peer for a year holds one.
        if carried.iter().all(|it| *it == Carried::Used)
            && let Some(asked) = self.asked.replace(number)
            && let Some(old) = self.sent.remove(&asked)
        {
            self.bytes -= old.bytes;
        }
        self.bytes += bytes;
        let (delivered, delivered_at) = (self.delivered, self.delivered_at);
        self.sent.insert(number, Sent { at, bytes, carried, delivered, delivered_at, idle });
    }

    /// Applies an ACK. `None` if it acknowledges what was never sent, or takes an earlier one back: then
    /// one of the ends has forgotten what it did.
    ///
    /// `within` is the number of the packet it came in: an older one, which a line repeated, knew less.
    /// Packets of `large` bytes and more are told of by themselves.
    pub(super) fn acknowledged(
        &mut self,
        now: Instant,
        next: u64,
        (within, ack): (u64, &Ack),
        large: usize,
    ) -> Option<Told> {
        let mut told = Told::default();
        let (_, largest) = *ack.ranges.first()?;
        if largest >= next || (within > self.acked_within && self.is_taken_back(largest, ack)) {
            return None;
        }
        self.acked_within = self.acked_within.max(within);
        for (low, high) in &ack.ranges {
            self.acked.insert(*low..high + 1);
        }
        while self.acked.len() > MAX_ACKED {
            self.acked.pop_first();
        }
        for (low, high) in &ack.ranges {
            while let Some((&number, _)) = self.sent.range(*low..=*high).next_back() {
                let Some(sent) = self.sent.remove(&number) else { break };
                self.bytes -= sent.bytes;
                self.delivered += sent.bytes as u64;
                told.large_arrived += if sent.bytes >= large { sent.bytes } else { 0 };
                told.arrived.extend(sent.carried);
                if told.newest_sent.is_none() {
                    told.newest_sent = Some(sent.at);
                    told.delivered = Some((sent.delivered, sent.delivered_at, sent.idle));
                }
            }
        }
        if told.newest_sent.is_some() {
            self.delivered_at = now;
            told.delivered =
                told.delivered.map(|(before, since, idle)| (self.delivered - before, since, idle));
        }
        self.largest_acked = self.largest_acked.max(Some(largest));
        self.declare_lost(large, &mut told);
        Some(told)
    }

    fn is_taken_back(&self, largest: u64, ack: &Ack) -> bool {
        let mut gaps = ack.ranges.iter().zip(ack.ranges.iter().skip(1));
        self.largest_acked.is_some_and(|earlier| largest < earlier)
            || gaps.any(|((low, _), (_, high))| self.acked.overlaps(high + 1..*low))
    }

    fn declare_lost(&mut self, large: usize, told: &mut Told) {
        let Some(largest) = self.largest_acked else { return };
        while let Some(entry) = self.sent.first_entry() {
            if *entry.key() >= largest {
                break;
            }
            let sent = entry.remove();
            self.bytes -= sent.bytes;
            told.n_lost += 1;
            told.large_lost |= sent.bytes >= large;
            told.lost.extend(sent.carried);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_a_silent_peer_for_a_year_holds_one_question() {
        let mut in_flight = InFlight::default();
        for number in 0..6_000_000 {
            // It has not said either that it knows which ids are used, which goes with each question.
            let carried = if number % 2 == 0 { vec![Carried::Used] } else { Vec::new() };
            in_flight.insert(number, Instant::default(), 30, carried, true);
        }
        assert_eq!((in_flight.sent.len(), in_flight.bytes()), (1, 30));
        in_flight.insert(6_000_000, Instant::default(), 30, vec![Carried::Roster], true);
        in_flight.insert(6_000_001, Instant::default(), 30, Vec::new(), true);
        assert_eq!(in_flight.sent.len(), 2, "what is to be told again when it is lost is kept");
    }
}
