//! A volume that is no disk of this host but a directory of an NFS server, in the words of Docker's local driver.
//!
//! Nothing of it is here but a note: the VM's agent mounts it by itself, through the VM's network.

use std::{fs, io, path::Path};

use guestinfo::Url;
use serde::{Deserialize, Serialize};

/// Where a volume's directory has the note.
const FILE: &str = "export.json";

/// `--opt type=nfs --opt o=addr=ADDRESS,… --opt device=[HOST]:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The server, as the agent is to show it; empty if `options` have its address.
    pub host: String,
    /// The directory.
    pub path: String,
    /// Options of the mount, by commas.
    pub options: String,
}

/// What is no such volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// An option that is none.
    #[error("{0:?} is no option of a volume; expected type=nfs, device=[HOST]:/PATH or o=OPTIONS")]
    Option(String),
    /// A file system that no agent mounts for a volume.
    #[error(
        "a volume of type {0:?} cannot be; expected type=nfs (memory is `run --tmpfs`, and a disk needs no options)"
    )]
    Type(String),
    /// No directory of a server.
    #[error(
        "{0:?} is no directory of a server; expected device=HOST:/PATH, or :/PATH with o=addr=ADDRESS"
    )]
    Device(String),
}

impl Export {
    /// What the options of `volume create` say; nothing if there are none.
    ///
    /// # Errors
    /// What they cannot say.
    pub fn from_options(options: &[String]) -> Result<Option<Self>, ExportError> {
        let (mut kind, mut device, mut words) = ("", "", "");
        for option in options {
            match option.split_once('=') {
                Some(("type", value)) => kind = value,
                Some(("device", value)) => device = value,
                Some(("o", value)) => words = value,
                _ => return Err(ExportError::Option(option.clone())),
            }
        }
        match kind {
            _ if options.is_empty() => return Ok(None),
            "nfs" | "nfs4" => {}
            other => return Err(ExportError::Type(other.to_owned())),
        }
        let has_address = words.split(',').any(|word| word.starts_with("addr="));
        let split = device.split_once(":/").filter(|(host, _)| has_address || !host.is_empty());
        let Some((host, path)) = split else { return Err(ExportError::Device(device.to_owned())) };
        let mut export =
            Self { host: host.to_owned(), path: format!("/{path}"), options: words.to_owned() };
        let has_version =
            words.split(',').any(|word| word.starts_with("vers=") || word.starts_with("nfsvers="));
        if kind == "nfs4" && !has_version {
            export.options = [words, "vers=4"].join(",").trim_start_matches(',').to_owned();
        }
        Ok(Some(export))
    }

    /// As a config has it: the source, and the mode of one use.
    pub(crate) fn source(&self) -> Url {
        let (scheme, host, path) = ("nfs".to_owned(), self.host.clone(), self.path.clone());
        Url { scheme, host, path, ..Url::default() }
    }

    pub(crate) fn mode(&self, read_only: bool) -> String {
        let words = [self.options.as_str(), if read_only { "ro" } else { "" }];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(",")
    }

    /// As people are shown it.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("nfs {}:{} {}", self.host, self.path, self.options).trim_end().to_owned()
    }

    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write(dir.join(FILE), serde_json::to_vec_pretty(self).map_err(io::Error::other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Result<Option<Export>, ExportError> {
        Export::from_options(&options.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn dockers_options_are_a_directory_of_a_server() {
        let docker =
            of(&["type=nfs", "o=addr=192.0.2.7,rw,nfsvers=4", "device=:/srv/a"]).unwrap().unwrap();
        assert_eq!((docker.host.as_str(), docker.path.as_str()), ("", "/srv/a"));
        assert_eq!(docker.mode(true), "addr=192.0.2.7,rw,nfsvers=4,ro");
        let named = of(&["type=nfs4", "device=nas.example:/a"]).unwrap().unwrap();
        assert_eq!(
            (named.source().to_string(), named.mode(false)),
            ("nfs://nas.example/a".into(), "vers=4".into())
        );
        assert_eq!(of(&[]).unwrap(), None);
    }

    #[test]
    fn what_is_no_server_is_refused_with_what_was_expected() {
        for (options, told) in [
            (&["type=cifs", "device=h:/a"][..], "type \"cifs\""),
            (&["device=h:/a"], "expected type=nfs"),
            (&["type=nfs"], "\"\" is no directory"),
            (&["type=nfs", "device=:/a"], "with o=addr=ADDRESS"),
            (&["type=nfs", "device=h"], "\"h\" is no directory"),
            (&["type=nfs", "bogus"], "\"bogus\" is no option"),
        ] {
            let error = of(options).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
