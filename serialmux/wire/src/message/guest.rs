//! What a guest says on its control channel.

/// What the guest says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// A session's process runs.
    #[prost(message, tag = "1")]
    Started(Started),
    /// A session's process could not be started.
    #[prost(message, tag = "2")]
    Failed(Failed),
    /// A session's process has ended.
    #[prost(message, tag = "3")]
    Exited(Exited),
    /// The answer to a request.
    #[prost(message, tag = "4")]
    Reply(Reply),
    /// What the guest reports about itself, all of it; the one before does not count any more.
    #[prost(message, tag = "5")]
    Report(Report),
    /// The container's processes are frozen, or no longer.
    #[prost(message, tag = "6")]
    Paused(Paused),
    /// A session's process has ended and will be run again.
    #[prost(message, tag = "7")]
    Restarting(Restarting),
    /// There is a session beside the container's own; told when it is made, and to each new mux.
    #[prost(message, tag = "8")]
    Known(Known),
    /// What time is it?
    #[prost(message, tag = "41")]
    AskTime(super::upkeep::AskTime),
    /// Something happened that nobody had asked about.
    #[prost(message, tag = "50")]
    Happening(super::inside::Happening),
}

/// A session's process runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Started {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub session: String,
    /// Microseconds since the Unix epoch, by the guest's clock.
    #[prost(uint64, tag = "2")]
    pub time_us: u64,
    /// Process id in the guest's outer PID namespace.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

/// A session's process could not be started.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Failed {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub session: String,
    /// Exit code as `docker run` gives it: 125, 126 or 127.
    #[prost(int32, tag = "2")]
    pub code: i32,
    /// What went wrong, for people.
    #[prost(string, tag = "3")]
    pub text: String,
    /// Microseconds since the Unix epoch, by the guest's clock.
    #[prost(uint64, tag = "4")]
    pub time_us: u64,
}

/// A session's process has ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exited {
    /// Id of the session.
    #[prost(string, tag = "1")]
    pub session: String,
    /// Exit code as Docker gives it: 0–255, 128 + signal.
    #[prost(int32, tag = "2")]
    pub code: i32,
    /// Signal that ended the process; 0 if none did.
    #[prost(int32, tag = "3")]
    pub signal: i32,
    /// Whether a core was dumped.
    #[prost(bool, tag = "4")]
    pub core_dumped: bool,
    /// The status as `waitpid` gave it.
    #[prost(int32, tag = "5")]
    pub raw_status: i32,
    /// Whether the kernel killed it for memory.
    #[prost(bool, tag = "6")]
    pub oom_killed: bool,
    /// Microseconds since the Unix epoch, by the guest's clock.
    #[prost(uint64, tag = "7")]
    pub started_us: u64,
    /// Microseconds since the Unix epoch, by the guest's clock.
    #[prost(uint64, tag = "8")]
    pub exited_us: u64,
    /// Length of the output channel: nothing of the output is missing below it.
    #[prost(uint64, tag = "9")]
    pub output_length: u64,
    /// How the output ended.
    #[prost(enumeration = "OutputEnd", tag = "10")]
    pub output_end: i32,
}

/// How a session's output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum OutputEnd {
    /// Read to its end.
    Drained = 0,
    /// Something that outlived the process still held it open.
    Abandoned = 1,
    /// Part of it could not be kept.
    Truncated = 2,
}

/// What the guest reports about itself, as it would to a hypervisor that keeps it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Report {
    /// Keys of guestinfo, and their values.
    #[prost(btree_map = "string, string", tag = "1")]
    pub pairs: std::collections::BTreeMap<String, String>,
}

/// The answer to a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// Id of the request.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// Empty when it was done; else why not.
    #[prost(string, tag = "2")]
    pub error: String,
    /// What was asked for, as the request's documentation says; empty where nothing is.
    #[prost(bytes = "vec", tag = "3")]
    pub body: Vec<u8>,
}

/// The container's processes are frozen, or no longer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Paused {
    /// Whether they are.
    #[prost(bool, tag = "1")]
    pub paused: bool,
}

/// A session's process has ended and will be run again. Its channels stay.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Restarting {
    /// How it ended; what it wrote is below `output_length`.
    #[prost(message, optional, tag = "1")]
    pub exited: Option<Exited>,
    /// How often it will have been run again then.
    #[prost(uint32, tag = "2")]
    pub restarts: u32,
    /// When, in milliseconds from `exited_us`.
    #[prost(uint64, tag = "3")]
    pub delay_ms: u64,
}

/// A session beside the container's own.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Known {
    /// Its id.
    #[prost(string, tag = "1")]
    pub session: String,
    /// What runs, for people; may be cut short.
    #[prost(string, tag = "2")]
    pub command: String,
    /// Whether it has a terminal.
    #[prost(bool, tag = "3")]
    pub tty: bool,
    /// Whether it has an open standard input.
    #[prost(bool, tag = "4")]
    pub open_stdin: bool,
    /// Whether it has no output.
    #[prost(bool, tag = "5")]
    pub detach: bool,
}
