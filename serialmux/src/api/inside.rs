//! Requests about the inside of running containers, and their answers.

use wire::message::inside;

/// List processes: answers are [`Processes`], then done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Top {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
}

/// Some processes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Processes {
    /// In order of their ids.
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<inside::Process>,
}

/// Measure: answers are samples, for ever if there is an interval.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stats {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Again after so many milliseconds; 0: once.
    #[prost(uint32, tag = "2")]
    pub interval_ms: u32,
}

/// Tell what happens.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Listen {
    /// Name, id or unique start of the id; empty: all containers.
    #[prost(string, tag = "1")]
    pub container: String,
    /// What has been since then, too, µs since the Unix epoch; 0: only what comes.
    #[prost(uint64, tag = "2")]
    pub since_us: u64,
    /// Up to then, µs since the Unix epoch; 0: on and on.
    #[prost(uint64, tag = "3")]
    pub until_us: u64,
}

/// Something happened.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// When, µs since the Unix epoch.
    #[prost(uint64, tag = "1")]
    pub time_us: u64,
    /// The container's id.
    #[prost(string, tag = "2")]
    pub id: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// What, in Docker's words.
    #[prost(string, tag = "4")]
    pub action: String,
    /// What else is known of it.
    #[prost(btree_map = "string, string", tag = "5")]
    pub attributes: std::collections::BTreeMap<String, String>,
}

/// Look at a path.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatPath {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// What to look at.
    #[prost(message, optional, tag = "2")]
    pub path: Option<inside::StatPath>,
}

/// Copy out: answers are pieces of a tar archive, then done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CopyOut {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// What to copy.
    #[prost(message, optional, tag = "2")]
    pub path: Option<inside::CopyOut>,
}

/// Copy in: pieces of a tar archive follow as inputs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CopyIn {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// Where to unpack it.
    #[prost(message, optional, tag = "2")]
    pub place: Option<inside::CopyIn>,
}

/// Hold all writes to a container's disk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Freeze {
    /// Name, id or unique start of the id.
    #[prost(string, tag = "1")]
    pub container: String,
    /// For at most so long.
    #[prost(uint32, tag = "2")]
    pub seconds: u32,
}

/// A piece of something.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Piece {
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub bytes: bytes::Bytes,
}

/// Some differences between a container's disk and its image.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Changes {
    /// In order of their paths.
    #[prost(message, repeated, tag = "1")]
    pub changes: Vec<Change>,
}

/// One difference.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Change {
    /// Absolute.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// As the Docker API counts: 0 changed, 1 added, 2 deleted.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
}
