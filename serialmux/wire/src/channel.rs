//! Channels: one-way byte streams over a link, opened by the guest, addressed by absolute offset.
//!
//! Only the guest opens channels; ids rise and are never used twice in one boot. Offsets count
//! bytes from 0 and outlive sessions: that is what resumption rests on. The end of a stream takes
//! one offset of its own, so "the end is durable" is `released == length + 1`.

/// Names a channel within one boot of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// Who sends on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The guest sends.
    ToMux,
    /// The mux sends.
    ToGuest,
}

/// How a channel's bytes rank against others'.
///
/// Control and Terminal come strictly first, in that order; the others share what is left by
/// weight (deficit round robin).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Requests, replies, exit records.
    Control = 0,
    /// A terminal somebody types at.
    Terminal = 1,
    /// An exec or attach without a terminal.
    Exec = 2,
    /// A container's log.
    Log = 3,
    /// Copies and dumps.
    Bulk = 4,
}

impl Class {
    /// All classes, most urgent first.
    pub const ALL: [Self; 5] = [Self::Control, Self::Terminal, Self::Exec, Self::Log, Self::Bulk];

    /// The class of a wire byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// Share of the line relative to the other weighted classes; `None` for the strict ones.
    pub fn weight(self) -> Option<u32> {
        match self {
            Self::Control | Self::Terminal => None,
            Self::Exec => Some(8),
            Self::Log => Some(4),
            Self::Bulk => Some(1),
        }
    }

    /// A word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Terminal => "terminal",
            Self::Exec => "exec",
            Self::Log => "log",
            Self::Bulk => "bulk",
        }
    }
}
