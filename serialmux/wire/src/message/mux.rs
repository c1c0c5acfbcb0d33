//! What a mux asks on its control channel.

/// What the mux asks.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Send a signal to a session's process.
    #[prost(message, tag = "2")]
    Signal(Signal),
    /// The terminal has a new size.
    #[prost(message, tag = "3")]
    Resize(Resize),
    /// Stop everything in order and power off.
    #[prost(message, tag = "4")]
    Shutdown(Shutdown),
}

/// Send a signal to a session's process.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Signal {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub session: String,
    /// Linux signal number on x86-64.
    #[prost(int32, tag = "2")]
    pub signal: i32,
}

/// The terminal has a new size.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resize {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub session: String,
    /// Character rows, at most 65,535.
    #[prost(uint32, tag = "2")]
    pub rows: u32,
    /// Character columns, at most 65,535.
    #[prost(uint32, tag = "3")]
    pub columns: u32,
}

/// Stop everything in order and power off.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Shutdown {}
