//! A conversation with a VM's QEMU over its control socket, for what no user does: stopping, saving, re-plugging.

use crate::deadline::deadline;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Name of the socket in a VM's directory.
const SOCKET: &str = "qmp.sock";

/// A conversation. There can be one at a time.
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Calls the QEMU of the VM in `dir`.
    ///
    /// # Errors
    /// When it does not run or does not answer.
    pub fn connect(dir: &Path) -> Result<Self> {
        // Through a descriptor: the path itself may be too long for an address (unix(7)).
        let opened = File::open(dir).with_context(|| format!("no VM in {}", dir.display()))?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
        let stream = UnixStream::connect(path).context("QEMU does not answer")?;
        stream.set_read_timeout(Some(deadline()))?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.line()?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Gives a command; its answer.
    ///
    /// # Errors
    /// When QEMU refuses or goes away.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut answer = self.line()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU does not do {command}: {error}");
            }
        }
    }

    /// Gives a command of the monitor for people, which says nothing when all went well.
    ///
    /// # Errors
    /// When it says something.
    pub fn human(&mut self, line: &str) -> Result<()> {
        let said = self.execute("human-monitor-command", &json!({ "command-line": line }))?;
        match said.as_str().map(str::trim) {
            Some("") => Ok(()),
            other => bail!("QEMU says to {line:?}: {}", other.unwrap_or("something odd")),
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("QEMU does not answer")? == 0 {
            bail!("QEMU hung up");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
