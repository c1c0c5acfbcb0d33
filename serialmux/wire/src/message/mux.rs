//! What a mux asks on its control channel.

use super::inside;

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
    /// Read the config again.
    #[prost(message, tag = "30")]
    Reload(Reload),
    /// List the container's processes.
    #[prost(message, tag = "50")]
    Top(inside::Top),
    /// Measure the container.
    #[prost(message, tag = "51")]
    Stats(inside::Stats),
    /// Look at a path.
    #[prost(message, tag = "52")]
    StatPath(inside::StatPath),
    /// Send what is at a path.
    #[prost(message, tag = "53")]
    CopyOut(inside::CopyOut),
    /// Unpack an archive.
    #[prost(message, tag = "54")]
    CopyIn(inside::CopyIn),
    /// List the container's disk.
    #[prost(message, tag = "55")]
    ListDisk(inside::ListDisk),
    /// Hold all writes to the container's disk.
    #[prost(message, tag = "56")]
    Freeze(inside::Freeze),
    /// Let them go on.
    #[prost(message, tag = "57")]
    Thaw(inside::Thaw),
    /// Tell how the agent is.
    #[prost(message, tag = "58")]
    Diagnose(inside::Diagnose),
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

/// Read the config again. The reply says whether it is a good one, the report what was done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reload {}

/// Stop everything in order and power off.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Shutdown {}
