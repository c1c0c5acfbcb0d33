//! One session of a spec: a process to run, and what it runs with.

use serde::{Deserialize, Serialize};

use super::ProcessSpec;

/// One process to run, with its children.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct SessionSpec {
    /// The session's id. Its name in the map if nothing else is said.
    #[serde(rename = "/common/id")]
    pub id: String,
    /// The session's name.
    #[serde(rename = "/common/name")]
    pub name: String,
    /// VIC's free text about where it runs; of no meaning to the guest.
    #[serde(rename = "/common/ExecutionEnvironment")]
    pub execution_environment: String,
    /// Free text, hidden from the guest.
    #[serde(rename = "-common/notes")]
    pub notes: String,
    /// When it was created, in seconds since 1970.
    #[serde(rename = ".detail/createtime")]
    pub create_time: i64,
    /// What to execute.
    #[serde(rename = "/cmd")]
    pub cmd: CmdSpec,
    /// Whether it gets a terminal.
    #[serde(rename = "/tty")]
    pub tty: bool,
    /// Whether it gets an open stdin; `/dev/null` otherwise.
    #[serde(rename = "/openstdin")]
    pub open_stdin: bool,
    /// Whether clients may attach.
    #[serde(rename = "/attach")]
    pub attach: bool,
    /// Whether it must wait for an attached client before it runs. The guest clears this.
    #[serde(rename = ".runblock")]
    pub run_block: bool,
    /// Whether it is to run. True unless the host says otherwise; VIC always says.
    #[serde(rename = "/active")]
    pub active: bool,
    /// Whether to run it again when it ends.
    #[serde(rename = "/restart")]
    pub restart: bool,
    /// When to run it again, in Docker's words: `no`, `on-failure`, `on-failure:N`, `always` or
    /// `unless-stopped`. Not of VIC; if empty, `restart` counts.
    #[serde(rename = "/restartPolicy")]
    pub restart_policy: String,
    /// The signal that asks it to end, by name or number; TERM if empty.
    #[serde(rename = "/stopSignal")]
    pub stop_signal: String,
    /// User name or number, if not root; may carry `:group`.
    #[serde(rename = "/User")]
    pub user: String,
    /// Group name or number.
    #[serde(rename = "/Group")]
    pub group: String,
    /// What it may do and use. Not of VIC.
    #[serde(rename = "/process")]
    pub process: ProcessSpec,
    /// How much is to be logged about it, and whereto.
    #[serde(rename = "/diagnostics")]
    pub diagnostics: DiagnosticsSpec,
}

impl Default for SessionSpec {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            execution_environment: String::new(),
            notes: String::new(),
            create_time: 0,
            cmd: CmdSpec::default(),
            tty: false,
            open_stdin: false,
            attach: false,
            run_block: false,
            active: true,
            restart: false,
            restart_policy: String::new(),
            stop_signal: String::new(),
            user: String::new(),
            group: String::new(),
            process: ProcessSpec::default(),
            diagnostics: DiagnosticsSpec::default(),
        }
    }
}

/// A command line and what surrounds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct CmdSpec {
    /// The program: a path, or a name to look up in `PATH`.
    #[serde(rename = "/Path")]
    pub path: String,
    /// The arguments, the zeroth included.
    #[serde(rename = "/Args")]
    pub args: Vec<String>,
    /// The environment as `NAME=value`.
    #[serde(rename = "/Env")]
    pub env: Vec<String>,
    /// The working directory.
    #[serde(rename = "/Dir")]
    pub dir: String,
}

/// How much is to be logged, and whereto.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct DiagnosticsSpec {
    /// 0 for the usual, more for more.
    #[serde(rename = "/debug")]
    pub debug: i64,
    /// A syslog server that gets the output too.
    #[serde(rename = "/syslog")]
    pub syslog: Option<SyslogSpec>,
}

/// A syslog server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct SyslogSpec {
    /// `tcp` or `udp`.
    #[serde(rename = "Network")]
    pub network: String,
    /// Host and port.
    #[serde(rename = "RAddr")]
    pub address: String,
}
