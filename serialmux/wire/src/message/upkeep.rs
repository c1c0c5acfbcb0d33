//! What a machine cannot know by itself and its mux tells it: the time, and bytes that nobody can guess.
//!
//! None of these is answered with a [`Reply`](super::guest::Reply).

/// Bytes for the guest's random generator, new with each session. They are worth something only on
/// a sealed link.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Seed {
    /// As many as a key has.
    #[prost(bytes = "vec", tag = "1")]
    pub bytes: Vec<u8>,
}

/// The guest asks what time it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AskTime {
    /// Names the question in the answer; the guest alone knows what it means.
    #[prost(uint64, tag = "1")]
    pub stamp: u64,
}

/// What time it was when the mux read the question.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Time {
    /// The question's.
    #[prost(uint64, tag = "1")]
    pub stamp: u64,
    /// Microseconds since the Unix epoch, by the mux's clock.
    #[prost(uint64, tag = "2")]
    pub wall_us: u64,
}
