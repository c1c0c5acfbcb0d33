//! Kinds of channel: what a label says a channel carries.

/// What a channel carries.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Kind {
    /// Control messages: [`GuestMessage`](super::GuestMessage) to the mux,
    /// [`MuxMessage`](super::MuxMessage) to the guest.
    #[prost(message, tag = "1")]
    Control(Control),
    /// A session's output: [`chunk`](crate::chunk) entries.
    #[prost(message, tag = "2")]
    Output(Output),
    /// A session's standard input: its bytes, and its end.
    #[prost(message, tag = "3")]
    Input(Input),
    /// What belongs to one request: what it asked for, or what it brings.
    #[prost(message, tag = "4")]
    Stream(Stream),
}

/// The control channel.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Control {}

/// Output of one session.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Output {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub session: String,
    /// Whether it is a terminal (all output is stdout then).
    #[prost(bool, tag = "2")]
    pub tty: bool,
    /// Whether the entries come [packed](crate::pack). A log does. What a process beside the
    /// container's own writes does where the [request](super::mux::Exec::unpacks) allows it and the line
    /// is worth it; then each block is one entry, as it goes straight to its client, which may go on
    /// behind any.
    #[prost(bool, tag = "3")]
    pub packed: bool,
}

/// Standard input of one session.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Input {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub session: String,
    /// Whether the bytes come [packed](crate::pack).
    #[prost(bool, tag = "2")]
    pub packed: bool,
    /// How many bytes of the input the guest had, unpacked, when it opened this channel. What a mux has
    /// packed only that mux can go on with: for a new one the guest replaces the channel.
    #[prost(uint64, tag = "3")]
    pub start: u64,
    /// The channel with which this input began; 0: it is this one.
    #[prost(uint32, tag = "4")]
    pub origin: u32,
}

/// The bytes of one request, whose kind says what they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Stream {
    /// Id of the request.
    #[prost(uint64, tag = "1")]
    pub request: u64,
}
