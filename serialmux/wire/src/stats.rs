//! What happened on a link, counted; every loss has a counter.

/// Counters of one end of a link since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Bytes handed in from the line.
    pub bytes_in: u64,
    /// Bytes handed out for the line.
    pub bytes_out: u64,
    /// Packets that passed their checks.
    pub packets_in: u64,
    /// Packets made.
    pub packets_out: u64,
    /// Bytes between frames that are not a packet: text, damage.
    pub noise_bytes: u64,
    /// Times the line had to be read on from the next delimiter, as there was no packet.
    pub resyncs: u64,
    /// Frames that look like a packet and fail a check.
    pub damaged: u64,
    /// Packets seen before.
    pub duplicates: u64,
    /// Packets of another session.
    pub strays: u64,
    /// Packets of ours that were lost.
    pub lost: u64,
    /// Records that had to be sent again.
    pub resent_records: u64,
    /// Bytes of channels that had to be sent again.
    pub resent_bytes: u64,
    /// Times the peer was asked because nothing came back.
    pub probes: u64,
    /// Signs that an end's memory went back in time: packet numbers used twice, channels that are not
    /// the same at both ends.
    pub rollbacks: u64,
    /// Sessions begun.
    pub sessions: u64,
}
