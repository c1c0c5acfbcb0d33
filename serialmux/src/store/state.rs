//! A container's registration and what became of it, as two small JSON files.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use wire::message::guest::{Exited, Failed, OutputEnd};

/// What a container was registered with. Written anew when it is registered with another config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// 64 hexadecimal digits, or whatever the VMX has.
    pub id: String,
    /// The name people use.
    pub name: String,
    /// Key material as in guestinfo.
    #[serde(with = "hex")]
    pub key: Vec<u8>,
    /// Whether packets are only checksummed, not encrypted.
    pub plain: bool,
    /// Whether the process has a terminal.
    pub tty: bool,
    /// Whether the process reads standard input.
    pub open_stdin: bool,
    /// What runs, for people.
    pub command: String,
    /// When it was registered, µs since the Unix epoch.
    pub created_us: u64,
    /// The file that lists the paths of its image, if there is one.
    #[serde(default)]
    pub image_paths: Option<PathBuf>,
    /// What it was made with, for people: names and values of options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Registration {
    /// Whether it registers the container that this one does: what must stay as it is.
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    fn identity(&self) -> (&str, &str, &[u8], bool) {
        (&self.id, &self.name, &self.key, self.plain)
    }
}

/// What the guest has told so far. Durable before the guest is told to forget it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Names the boot that the rest is about.
    #[serde(with = "hex")]
    pub boot: Vec<u8>,
    /// When the process was started, µs since the Unix epoch.
    pub started_us: Option<u64>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// What the agent calls itself.
    #[serde(default)]
    pub agent: String,
    /// Whether the container's processes are frozen.
    #[serde(default)]
    pub paused: bool,
    /// How often the process was run again by its restart policy.
    #[serde(default)]
    pub restarts: u32,
    /// Whether it has ended and is about to be run again.
    #[serde(default)]
    pub restarting: bool,
    /// What the guest reports about itself: keys of guestinfo, and their values.
    #[serde(default)]
    pub report: BTreeMap<String, String>,
}

/// How a container's run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As `docker wait` gives it.
    pub code: i32,
    /// What went wrong, if the process could not be started or the VM failed; else empty.
    pub error: String,
    /// When, µs since the Unix epoch.
    pub time_us: u64,
    /// How the process itself ended; absent if it never ran, or if nobody could tell any more.
    #[serde(default)]
    pub process: Option<ProcessEnd>,
    /// Bytes of the channel with its output, all of which come before it is known to be whole; 0 if nothing does.
    #[serde(default)]
    pub output_length: u64,
}

/// How a process ended, beside its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    /// The signal that ended it; 0 if none did.
    pub signal: i32,
    /// Whether a core was dumped.
    pub core_dumped: bool,
    /// The status as `waitpid` gave it in the VM.
    pub raw_status: i32,
    /// Whether the kernel killed it for memory.
    pub oom_killed: bool,
    /// Its output: `drained`, `abandoned` to something that held it open, or `truncated`.
    pub output: String,
}

impl Exit {
    /// Of a run of which nobody could tell how its process ended, if there was one.
    pub fn without_process(code: i32, error: String, time_us: u64) -> Self {
        Self { code, error, time_us, process: None, output_length: 0 }
    }
}

impl From<&Exited> for Exit {
    fn from(exited: &Exited) -> Self {
        let Exited { code, signal, core_dumped, raw_status, oom_killed, .. } = *exited;
        let Exited { exited_us: time_us, output_length, .. } = *exited;
        let output = match exited.output_end() {
            OutputEnd::Drained => "drained",
            OutputEnd::Abandoned => "abandoned",
            OutputEnd::Truncated => "truncated",
        };
        let output = output.to_owned();
        let process = ProcessEnd { signal, core_dumped, raw_status, oom_killed, output };
        Self { code, error: String::new(), time_us, process: Some(process), output_length }
    }
}

impl From<Failed> for Exit {
    fn from(Failed { code, text: error, time_us, .. }: Failed) -> Self {
        Self::without_process(code, error, time_us)
    }
}

/// Reads a file that [`save`] wrote; `None` if there is none.
///
/// # Errors
/// As the file system or the JSON parser says.
pub fn load<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file as a whole; durable when it returns.
///
/// # Errors
/// As the file system says; the old file is then still there.
pub fn save<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temp = path.with_extension("new");
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_an_older_daemon_has_written_down_is_read() {
        let old = r#"{"code": 7, "error": "", "time_us": 5}"#;
        let exit: Exit = serde_json::from_str(old).unwrap();
        assert_eq!(
            exit,
            Exit { code: 7, error: String::new(), time_us: 5, process: None, output_length: 0 }
        );
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text.as_bytes();
        let pairs = digits.chunks(2).map(|pair| {
            let pair = str::from_utf8(pair).map_err(Error::custom)?;
            u8::from_str_radix(pair, 16).map_err(Error::custom)
        });
        pairs.collect()
    }
}
