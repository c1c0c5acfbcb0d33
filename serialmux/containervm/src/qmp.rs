//! QEMU's control socket, as far as ending a VM needs it (QEMU Machine Protocol, `docs/interop/qmp-spec`).

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::qemu::QMP_SOCKET;

/// How long QEMU may take to answer; it answers from its main loop at once unless it hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest line that is read.
const MAX_LINE: u64 = 1 << 20;
/// Events that may come before an answer.
const MAX_EVENTS: usize = 1000;

/// Why QEMU could not be told something.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody answers.
    #[error("cannot talk to the QEMU in {dir}: {source}")]
    Talk {
        /// The VM's directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU refused.
    #[error("QEMU does not do {command}: {reason}")]
    Refused {
        /// What it was told.
        command: String,
        /// What it said.
        reason: String,
    },
}

/// A conversation with one QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    dir: PathBuf,
}

impl Qmp {
    /// Calls the QEMU that runs in `dir`.
    ///
    /// # Errors
    /// When it does not run or does not answer.
    pub fn connect(dir: &Path) -> Result<Self, QmpError> {
        let stream = open(dir).map_err(|source| QmpError::Talk { dir: dir.to_owned(), source })?;
        let mut qmp = Self { stream: BufReader::new(stream), dir: dir.to_owned() };
        qmp.line()?;
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Gives a command without arguments; its answer.
    ///
    /// # Errors
    /// When QEMU refuses or goes away.
    pub fn execute(&mut self, command: &str) -> Result<Value, QmpError> {
        let request = format!("{}\n", json!({ "execute": command }));
        self.stream.get_mut().write_all(request.as_bytes()).map_err(|source| self.talk(source))?;
        for _ in 0..MAX_EVENTS {
            let mut answer = self.line()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let reason = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), reason });
            }
        }
        Err(self.talk(io::Error::other("only events came, no answer")))
    }

    fn line(&mut self) -> Result<Value, QmpError> {
        let mut line = Vec::new();
        let read = self.stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        let value = read.and_then(|n| match n {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(serde_json::from_slice(&line)?),
        });
        value.map_err(|source| self.talk(source))
    }

    fn talk(&self, source: io::Error) -> QmpError {
        QmpError::Talk { dir: self.dir.clone(), source }
    }
}

/// Connects through the directory's descriptor: its own path may be longer than a socket's address can be.
fn open(dir: &Path) -> io::Result<UnixStream> {
    let dir = File::open(dir)?;
    let path = format!("/proc/self/fd/{}/{QMP_SOCKET}", dir.as_raw_fd());
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn answers_are_told_from_events_and_refusals() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(QMP_SOCKET)).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let say = |text: &str| (&stream).write_all(text.as_bytes()).unwrap();
            say("{\"QMP\":{}}\n");
            assert!(lines.next().unwrap().unwrap().contains("qmp_capabilities"));
            say("{\"return\":{}}\n");
            lines.next().unwrap().unwrap();
            say("{\"event\":\"RESUME\"}\n{\"return\":{\"running\":true}}\n");
            lines.next().unwrap().unwrap();
            say("{\"error\":{\"class\":\"x\",\"desc\":\"not now\"}}\n");
        });
        let mut qmp = Qmp::connect(dir.path()).unwrap();
        assert_eq!(qmp.execute("query-status").unwrap()["running"], true);
        assert_eq!(qmp.execute("quit").unwrap_err().to_string(), "QEMU does not do quit: not now");
        server.join().unwrap();
        assert!(matches!(qmp.execute("quit"), Err(QmpError::Talk { .. })));
    }
}
