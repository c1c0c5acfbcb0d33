//! Looking into a running container: what a mux asks for it, and what a guest answers.
//!
//! Small answers are the body of the reply. What may be large comes on a channel of its own, labeled
//! [`Stream`](super::label::Stream) with the id of the request; the reply follows when all is said, and
//! tells whether the stream is whole.

/// List the processes: a stream of [`Process`], each preceded by its length.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Top {}

/// One process of the container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Process {
    /// Its id as the machine has it.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Its id as the container sees it.
    #[prost(uint32, tag = "2")]
    pub inner_pid: u32,
    /// Its parent's id as the machine has it.
    #[prost(uint32, tag = "3")]
    pub parent: u32,
    /// Effective user.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// The user's name in the container's own passwd; empty when it has none there.
    #[prost(string, tag = "5")]
    pub user: String,
    /// Effective group.
    #[prost(uint32, tag = "6")]
    pub gid: u32,
    /// State as proc(5) has it: one letter.
    #[prost(string, tag = "7")]
    pub state: String,
    /// Terminal as ps shows it; empty without one.
    #[prost(string, tag = "8")]
    pub tty: String,
    /// When it was started, µs since the Unix epoch by the guest's clock.
    #[prost(uint64, tag = "9")]
    pub started_us: u64,
    /// How long it has been running by the machine's uptime, µs.
    #[prost(uint64, tag = "10")]
    pub age_us: u64,
    /// Processor time it has used, µs.
    #[prost(uint64, tag = "11")]
    pub cpu_us: u64,
    /// Virtual memory, KiB.
    #[prost(uint64, tag = "12")]
    pub virtual_kib: u64,
    /// Resident memory, KiB.
    #[prost(uint64, tag = "13")]
    pub resident_kib: u64,
    /// Nice value.
    #[prost(sint32, tag = "14")]
    pub nice: i32,
    /// Its threads.
    #[prost(uint32, tag = "15")]
    pub threads: u32,
    /// The program's name as the kernel has it.
    #[prost(string, tag = "16")]
    pub name: String,
    /// Its command line, arguments separated by blanks; the name in brackets when it has none.
    #[prost(string, tag = "17")]
    pub command: String,
    /// Memory of the machine, KiB, for shares of it.
    #[prost(uint64, tag = "18")]
    pub total_kib: u64,
    /// When the guest looked, µs since the Unix epoch by its clock.
    #[prost(uint64, tag = "19")]
    pub time_us: u64,
}

/// Measure the container: the reply's body is a [`Sample`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Stats {}

/// What a container has used so far. Counters begin with the VM.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Sample {
    /// When, µs since the Unix epoch by the guest's clock.
    #[prost(uint64, tag = "1")]
    pub time_us: u64,
    /// When, µs since power-on: for differences, as this clock never steps.
    #[prost(uint64, tag = "2")]
    pub uptime_us: u64,
    /// Processors of the machine.
    #[prost(uint32, tag = "3")]
    pub processors: u32,
    /// Processor time, µs.
    #[prost(uint64, tag = "4")]
    pub cpu_us: u64,
    /// Of that, in programs.
    #[prost(uint64, tag = "5")]
    pub cpu_user_us: u64,
    /// Of that, in the kernel.
    #[prost(uint64, tag = "6")]
    pub cpu_system_us: u64,
    /// How often the processor limit stopped it.
    #[prost(uint64, tag = "7")]
    pub throttled: u64,
    /// For how long, µs.
    #[prost(uint64, tag = "8")]
    pub throttled_us: u64,
    /// Memory charged to it, bytes.
    #[prost(uint64, tag = "9")]
    pub memory: u64,
    /// Of that, file pages that nobody has used lately: Docker does not count them as usage.
    #[prost(uint64, tag = "10")]
    pub inactive_file: u64,
    /// The most it may use: its limit, or the machine's memory.
    #[prost(uint64, tag = "11")]
    pub memory_limit: u64,
    /// How often memory ran out.
    #[prost(uint64, tag = "12")]
    pub ooms: u64,
    /// Processes killed for that.
    #[prost(uint64, tag = "13")]
    pub oom_kills: u64,
    /// Tasks.
    #[prost(uint64, tag = "14")]
    pub tasks: u64,
    /// The most tasks it may have; 0: no limit.
    #[prost(uint64, tag = "15")]
    pub tasks_limit: u64,
    /// Bytes read from disks.
    #[prost(uint64, tag = "16")]
    pub disk_read: u64,
    /// Bytes written to disks.
    #[prost(uint64, tag = "17")]
    pub disk_written: u64,
    /// Reads from disks.
    #[prost(uint64, tag = "18")]
    pub disk_reads: u64,
    /// Writes to disks.
    #[prost(uint64, tag = "19")]
    pub disk_writes: u64,
    /// The machine's network interfaces but loopback.
    #[prost(message, repeated, tag = "20")]
    pub interfaces: Vec<Interface>,
}

/// A network interface's counters.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Interface {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Bytes received.
    #[prost(uint64, tag = "2")]
    pub received: u64,
    /// Packets received.
    #[prost(uint64, tag = "3")]
    pub received_packets: u64,
    /// Packets that could not be received.
    #[prost(uint64, tag = "4")]
    pub received_errors: u64,
    /// Packets dropped on their way in.
    #[prost(uint64, tag = "5")]
    pub received_dropped: u64,
    /// Bytes sent.
    #[prost(uint64, tag = "6")]
    pub sent: u64,
    /// Packets sent.
    #[prost(uint64, tag = "7")]
    pub sent_packets: u64,
    /// Packets that could not be sent.
    #[prost(uint64, tag = "8")]
    pub sent_errors: u64,
    /// Packets dropped on their way out.
    #[prost(uint64, tag = "9")]
    pub sent_dropped: u64,
}

/// Look at a path: the reply's body is a [`PathStat`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatPath {
    /// Absolute, as the container sees it.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Whether a link at its end stands for what it leads to.
    #[prost(bool, tag = "2")]
    pub follow: bool,
}

/// What is at a path.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PathStat {
    /// Last component of the path.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Length in bytes.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// Kind and permissions as in `st_mode`.
    #[prost(uint32, tag = "3")]
    pub mode: u32,
    /// Last change of the contents, whole seconds since the Unix epoch.
    #[prost(int64, tag = "4")]
    pub modified: i64,
    /// Nanoseconds of that second.
    #[prost(uint32, tag = "5")]
    pub modified_ns: u32,
    /// Where a link leads; empty for others.
    #[prost(bytes = "vec", tag = "6")]
    pub link_target: Vec<u8>,
    /// Owner.
    #[prost(uint32, tag = "7")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "8")]
    pub gid: u32,
}

/// Send what is at a path: a stream that is a tar archive, whose names begin with `name`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CopyOut {
    /// Absolute, as the container sees it.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Whether a link at its end stands for what it leads to.
    #[prost(bool, tag = "2")]
    pub follow: bool,
    /// First name in the archive; empty: the path's last component.
    #[prost(bytes = "vec", tag = "3")]
    pub name: Vec<u8>,
}

/// Unpack a tar archive, which the mux sends on the stream, in a directory.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CopyIn {
    /// The directory: absolute, as the container sees it. It must exist.
    #[prost(bytes = "vec", tag = "1")]
    pub directory: Vec<u8>,
    /// Whether everything shall belong to `uid` and `gid` rather than to whom the archive says.
    #[prost(bool, tag = "2")]
    pub set_owner: bool,
    /// Owner, if set.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Group, if set.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
}

/// List the container's own disk, without what is mounted on it: a stream of [`Listed`], each preceded by its
/// length. Directories come before what is in them, names in the order of their bytes.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ListDisk {}

/// One name on the container's disk.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Listed {
    /// How deep below the root it is; 1 is in the root itself.
    #[prost(uint32, tag = "1")]
    pub depth: u32,
    /// The name alone.
    #[prost(bytes = "vec", tag = "2")]
    pub name: Vec<u8>,
    /// Kind and permissions as in `st_mode`.
    #[prost(uint32, tag = "3")]
    pub mode: u32,
    /// Last change of contents or attributes (`st_ctime`), whole seconds since the Unix epoch.
    #[prost(int64, tag = "4")]
    pub changed: i64,
    /// Nanoseconds of that second.
    #[prost(uint32, tag = "5")]
    pub changed_ns: u32,
}

/// Hold all writes to the container's disk, with everything written before on it, until thawed.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Freeze {
    /// Thaw by itself after so long.
    #[prost(uint32, tag = "1")]
    pub seconds: u32,
}

/// Let writes to the container's disk go on.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Thaw {}

/// How is the agent? The reply's body is a [`Diagnosis`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Diagnose {}

/// The state of an agent and its machine, for people.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Diagnosis {
    /// Facts by subject.
    #[prost(message, repeated, tag = "1")]
    pub sections: Vec<Section>,
    /// The last lines of the agent's log, oldest first.
    #[prost(string, repeated, tag = "2")]
    pub log: Vec<String>,
    /// When, µs since the Unix epoch by the guest's clock.
    #[prost(uint64, tag = "3")]
    pub time_us: u64,
}

/// Facts about one subject.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Section {
    /// The subject.
    #[prost(string, tag = "1")]
    pub title: String,
    /// Name and value.
    #[prost(message, repeated, tag = "2")]
    pub facts: Vec<Fact>,
}

/// A fact.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Fact {
    /// What it is.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How it is.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Something happened in the container that nobody had asked about.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Happening {
    /// When, µs since the Unix epoch by the guest's clock.
    #[prost(uint64, tag = "1")]
    pub time_us: u64,
    /// What.
    #[prost(oneof = "What", tags = "2, 3, 4")]
    pub what: Option<What>,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum What {
    /// Memory ran out.
    #[prost(message, tag = "2")]
    OutOfMemory(OutOfMemory),
    /// The disk is no longer frozen, because the time was over.
    #[prost(message, tag = "3")]
    Thawed(Thaw),
    /// The container's own process was sent a signal, whoever asked for it.
    #[prost(message, tag = "4")]
    Signaled(Signaled),
}

/// A signal was sent.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Signaled {
    /// Its number.
    #[prost(int32, tag = "1")]
    pub signal: i32,
}

/// Memory ran out.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct OutOfMemory {
    /// How often since the last event.
    #[prost(uint64, tag = "1")]
    pub ooms: u64,
    /// Processes killed since the last event.
    #[prost(uint64, tag = "2")]
    pub kills: u64,
}
