//! What a mux asks on its control channel.

use super::{inside, upkeep};

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
    /// Run another process in the container.
    #[prost(message, tag = "5")]
    Exec(Exec),
    /// Ask a session's process to end, and kill it when it does not.
    #[prost(message, tag = "6")]
    Stop(Stop),
    /// Freeze all processes of the container.
    #[prost(message, tag = "7")]
    Pause(Pause),
    /// Let frozen processes go on.
    #[prost(message, tag = "8")]
    Unpause(Unpause),
    /// Somebody is attached: a session that waits for that may start.
    #[prost(message, tag = "9")]
    Begin(Begin),
    /// Read the config again.
    #[prost(message, tag = "30")]
    Reload(Reload),
    /// Bytes for the random generator.
    #[prost(message, tag = "40")]
    Seed(upkeep::Seed),
    /// What time it is.
    #[prost(message, tag = "41")]
    Time(upkeep::Time),
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

/// Run another process in the container, as a session of its own.
///
/// Asking again for an id that is known changes nothing and succeeds: whoever does not know whether
/// a request got through asks again. What becomes of it is told as of every session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exec {
    /// Id of the new session, chosen by who asks.
    #[prost(string, tag = "1")]
    pub session: String,
    /// The program and its arguments.
    #[prost(string, repeated, tag = "2")]
    pub args: Vec<String>,
    /// `NAME=value`, each instead of the container's own of that name.
    #[prost(string, repeated, tag = "3")]
    pub env: Vec<String>,
    /// Directory to start in; empty: the container's.
    #[prost(string, tag = "4")]
    pub dir: String,
    /// `name|uid[:group|gid]`; empty: the container's.
    #[prost(string, tag = "5")]
    pub user: String,
    /// Whether it gets a terminal.
    #[prost(bool, tag = "6")]
    pub tty: bool,
    /// Whether it gets an open standard input.
    #[prost(bool, tag = "7")]
    pub open_stdin: bool,
    /// Whether nobody wants its output: it gets none to write to, and no channel.
    #[prost(bool, tag = "8")]
    pub detach: bool,
    /// Character rows of the terminal; 0: not known yet.
    #[prost(uint32, tag = "9")]
    pub rows: u32,
    /// Character columns of the terminal; 0: not known yet.
    #[prost(uint32, tag = "10")]
    pub columns: u32,
    /// Whether the mux can read its output [packed](crate::pack).
    #[prost(bool, tag = "11")]
    pub unpacks: bool,
}

/// Ask a session's process to end, and kill it when it does not.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stop {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub session: String,
    /// The signal that asks; 0: the session's own.
    #[prost(int32, tag = "2")]
    pub signal: i32,
    /// Seconds until it is killed; absent: 10.
    #[prost(uint64, optional, tag = "3")]
    pub grace: Option<u64>,
}

/// Freeze all processes of the container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pause {}

/// Let frozen processes go on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Unpause {}

/// Somebody is attached.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Begin {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub session: String,
}
