//! Requests of clients.

use super::inside;
use std::collections::BTreeMap;

/// What is asked.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Who are you?
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// Expect this container's VM: a run begins.
    #[prost(message, tag = "2")]
    Register(Register),
    /// Forget a container, its output too.
    #[prost(message, tag = "3")]
    Remove(Container),
    /// List all containers.
    #[prost(message, tag = "4")]
    List(Hello),
    /// Output from now or from the start, with input.
    #[prost(message, tag = "5")]
    Attach(Attach),
    /// Output so far, or on and on.
    #[prost(message, tag = "6")]
    Logs(Logs),
    /// Tell when it ends, and how.
    #[prost(message, tag = "7")]
    Wait(Container),
    /// Send a signal.
    #[prost(message, tag = "8")]
    Kill(Kill),
    /// Set the terminal's size.
    #[prost(message, tag = "9")]
    Resize(Resize),
    /// Its VM is gone: whoever waits need not wait on.
    #[prost(message, tag = "10")]
    Gone(Gone),
    /// Tell everything that is known of it.
    #[prost(message, tag = "11")]
    Inspect(Container),
    /// Run another process in a container, or go on with one.
    #[prost(message, tag = "12")]
    Exec(Exec),
    /// Ask a container to end, and tell when it has.
    #[prost(message, tag = "13")]
    Stop(Stop),
    /// Freeze a container's processes.
    #[prost(message, tag = "14")]
    Pause(Container),
    /// Let them go on.
    #[prost(message, tag = "15")]
    Unpause(Container),
    /// Have its agent read its config again.
    #[prost(message, tag = "30")]
    Reload(Container),
    /// List a container's processes.
    #[prost(message, tag = "31")]
    Top(inside::Top),
    /// Measure it.
    #[prost(message, tag = "32")]
    Stats(inside::Stats),
    /// Tell what happens to containers.
    #[prost(message, tag = "33")]
    Listen(inside::Listen),
    /// Look at a path in it.
    #[prost(message, tag = "34")]
    StatPath(inside::StatPath),
    /// Send an archive of a path in it.
    #[prost(message, tag = "35")]
    CopyOut(inside::CopyOut),
    /// Unpack an archive in it.
    #[prost(message, tag = "36")]
    CopyIn(inside::CopyIn),
    /// Compare its disk with its image.
    #[prost(message, tag = "37")]
    Diff(Container),
    /// Hold all writes to its disk.
    #[prost(message, tag = "38")]
    Freeze(inside::Freeze),
    /// Let them go on.
    #[prost(message, tag = "39")]
    Thaw(Container),
    /// Tell how its agent is.
    #[prost(message, tag = "40")]
    Diagnose(Container),
}

/// Nothing to say.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {}

/// Names a container by name, id or unique start of its id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
}

/// Expect this container's VM.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Register {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Key material as in guestinfo.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// Only checksums on the link.
    #[prost(bool, tag = "4")]
    pub plain: bool,
    /// The process has a terminal.
    #[prost(bool, tag = "5")]
    pub tty: bool,
    /// The process reads standard input.
    #[prost(bool, tag = "6")]
    pub open_stdin: bool,
    /// What runs, for people.
    #[prost(string, tag = "7")]
    pub command: String,
    /// The file that lists the paths of its image; empty: there is none.
    #[prost(string, tag = "30")]
    pub image_paths: String,
    /// It was ended to be started again.
    #[prost(bool, tag = "31")]
    pub restarts: bool,
    /// What it was made with, as `inspect` shows it.
    #[prost(btree_map = "string, string", tag = "32")]
    pub options: BTreeMap<String, String>,
}

/// Output with input.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attach {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Whether input follows.
    #[prost(bool, tag = "2")]
    pub stdin: bool,
    /// Whether to start at the beginning of the output rather than now.
    #[prost(bool, tag = "3")]
    pub from_start: bool,
    /// Where to go on: the `position` of the last output that an earlier connection brought.
    #[prost(uint64, optional, tag = "40")]
    pub position: Option<u64>,
    /// Made up by the client, and the same each time it comes back: by it the daemon knows how much
    /// of its input was taken. With it, input is asked for by [`Taken`](super::answer::Taken).
    #[prost(bytes = "vec", tag = "41")]
    pub token: Vec<u8>,
}

/// Output so far, or on and on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Logs {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Go on until the container ends.
    #[prost(bool, tag = "2")]
    pub follow: bool,
    /// Only the last so many lines.
    #[prost(uint64, optional, tag = "3")]
    pub tail: Option<u64>,
    /// Only output read at or after this time, µs since the Unix epoch.
    #[prost(uint64, tag = "4")]
    pub since_us: u64,
    /// Only output read before this time, µs since the Unix epoch; 0: no end.
    #[prost(uint64, tag = "5")]
    pub until_us: u64,
    /// Where to go on: the `position` of the last output that an earlier connection brought. The tail
    /// is then what was asked for then.
    #[prost(uint64, optional, tag = "40")]
    pub position: Option<u64>,
    /// Begin with [`Attached`](super::answer::Attached), which says what it takes to come back.
    #[prost(bool, tag = "41")]
    pub resumable: bool,
}

/// Send a signal.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Kill {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Linux signal number.
    #[prost(int32, tag = "2")]
    pub signal: i32,
    /// Id of an exec, if it is not the container's own process that is meant.
    #[prost(string, tag = "3")]
    pub exec: String,
}

/// Set the terminal's size.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resize {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Character rows.
    #[prost(uint32, tag = "2")]
    pub rows: u32,
    /// Character columns.
    #[prost(uint32, tag = "3")]
    pub columns: u32,
    /// Id of an exec, if it is not the container's own terminal that is meant.
    #[prost(string, tag = "4")]
    pub exec: String,
}

/// Run another process in a container, or go on with one that was asked for with the same id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exec {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// What to run; its session is the exec's id, which the client makes up.
    #[prost(message, optional, tag = "2")]
    pub exec: Option<wire::message::mux::Exec>,
    /// How much of its output the client has already, as the last output told.
    #[prost(uint64, tag = "3")]
    pub from: u64,
}

/// Ask a container to end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stop {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Seconds until it is killed; absent: 10.
    #[prost(uint64, optional, tag = "2")]
    pub grace: Option<u64>,
    /// The signal that asks; 0: the container's own.
    #[prost(int32, tag = "3")]
    pub signal: i32,
}

/// Its VM is gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Gone {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// What is known of why, for people.
    #[prost(string, tag = "2")]
    pub text: String,
    /// When it was started, µs since the Unix epoch; 0: whichever VM it is.
    #[prost(uint64, tag = "3")]
    pub since_us: u64,
}
