//! Answers of the daemon.

use wire::message::inside;

/// What it is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Done.
    #[prost(message, tag = "1")]
    Done(super::request::Hello),
    /// Not done, and why.
    #[prost(message, tag = "2")]
    Error(Error),
    /// Who I am.
    #[prost(message, tag = "3")]
    Hello(Hello),
    /// All containers.
    #[prost(message, tag = "4")]
    List(List),
    /// Attached.
    #[prost(message, tag = "5")]
    Attached(Attached),
    /// Output.
    #[prost(message, tag = "6")]
    Output(Output),
    /// The container has ended.
    #[prost(message, tag = "7")]
    Exit(Exit),
    /// Everything known of a container.
    #[prost(message, tag = "8")]
    Inspection(Inspection),
    /// An exec's process runs.
    #[prost(message, tag = "9")]
    ExecStarted(super::request::Hello),
    /// Output of an exec.
    #[prost(message, tag = "10")]
    ExecOutput(ExecOutput),
    /// Input of an exec is taken.
    #[prost(message, tag = "11")]
    ExecInput(ExecInput),
    /// A piece of an archive.
    #[prost(message, tag = "20")]
    Piece(super::inside::Piece),
    /// Some of its processes.
    #[prost(message, tag = "21")]
    Processes(super::inside::Processes),
    /// What it has used so far.
    #[prost(message, tag = "22")]
    Sample(inside::Sample),
    /// What is at a path.
    #[prost(message, tag = "23")]
    PathStat(inside::PathStat),
    /// Some differences between disk and image.
    #[prost(message, tag = "24")]
    Changes(super::inside::Changes),
    /// How the agent is.
    #[prost(message, tag = "25")]
    Diagnosis(inside::Diagnosis),
    /// Something happened.
    #[prost(message, tag = "26")]
    Event(super::inside::Event),
    /// How much input was taken.
    #[prost(message, tag = "40")]
    Taken(Taken),
}

/// How much of this client's input was taken for good; the first one also says where to go on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Taken {
    /// So many bytes of it.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
}

/// Output of an exec.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecOutput {
    /// 1 stdout, 2 stderr.
    #[prost(uint32, tag = "1")]
    pub stream: u32,
    /// The output itself.
    #[prost(bytes = "bytes", tag = "2")]
    pub bytes: bytes::Bytes,
    /// Where to go on after it.
    #[prost(uint64, tag = "3")]
    pub next: u64,
}

/// Input of an exec is taken: all bytes of it from `from` on are to be sent, again if need be.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecInput {
    /// How many bytes of it have been taken for good.
    #[prost(uint64, tag = "1")]
    pub from: u64,
}

/// Everything known of a container, for people and their scripts; other programs have the rest of this.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inspection {
    /// One JSON object.
    #[prost(string, tag = "1")]
    pub json: String,
}

/// Not done, and why.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Error {
    /// For people.
    #[prost(string, tag = "1")]
    pub text: String,
}

/// Who I am.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// Version of the daemon.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Where VMs connect to: address and port.
    #[prost(string, tag = "2")]
    pub listen: String,
    /// Its process id.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

/// All containers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct List {
    /// In order of registration.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Summary>,
}

/// One container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Summary {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What runs.
    #[prost(string, tag = "3")]
    pub command: String,
    /// `created`, `running` or `exited`.
    #[prost(string, tag = "4")]
    pub status: String,
    /// Exit code, once it ended.
    #[prost(int32, tag = "5")]
    pub exit_code: i32,
    /// Why it failed, if it did.
    #[prost(string, tag = "6")]
    pub error: String,
    /// Whether its VM has a session now.
    #[prost(bool, tag = "7")]
    pub connected: bool,
    /// µs since the Unix epoch.
    #[prost(uint64, tag = "8")]
    pub created_us: u64,
    /// µs since the Unix epoch; 0: not yet.
    #[prost(uint64, tag = "9")]
    pub started_us: u64,
    /// µs since the Unix epoch; 0: not yet.
    #[prost(uint64, tag = "10")]
    pub exited_us: u64,
}

/// Attached.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attached {
    /// Whether the process has a terminal.
    #[prost(bool, tag = "1")]
    pub tty: bool,
    /// Whether the process reads standard input.
    #[prost(bool, tag = "2")]
    pub open_stdin: bool,
    /// The container's id: its name may be another's when the client comes back.
    #[prost(string, tag = "40")]
    pub id: String,
    /// Where in the journal its output starts.
    #[prost(uint64, tag = "41")]
    pub position: u64,
}

/// Output.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Output {
    /// 1 stdout, 2 stderr.
    #[prost(uint32, tag = "1")]
    pub stream: u32,
    /// When the guest read it, µs since the Unix epoch.
    #[prost(uint64, tag = "2")]
    pub time_us: u64,
    /// The output itself.
    #[prost(bytes = "bytes", tag = "3")]
    pub bytes: bytes::Bytes,
    /// Where in the journal it goes on behind this; 0: not said.
    #[prost(uint64, tag = "40")]
    pub position: u64,
}

/// The container has ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exit {
    /// As `docker wait` gives it.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What went wrong, if anything did.
    #[prost(string, tag = "2")]
    pub error: String,
}
