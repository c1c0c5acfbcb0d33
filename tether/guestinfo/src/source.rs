//! Sources: where the pairs of a spec come from, and which of several answers.
//!
//! The order in which an agent asks, surest first, since a VM rarely has two:
//!
//! 1. VMware's backdoor ([`rpci`](crate::rpci)), if CPUID says that this is VMware;
//! 2. the same over vsock ([`VsockSource`]), where the port does not answer;
//! 3. QEMU's fw_cfg ([`FwCfg`]), the item `opt/containervm.vmx` holding VMX lines;
//! 4. SMBIOS OEM strings ([`OemStrings`]), for hypervisors that have no more to offer;
//! 5. a VMX file ([`VmxFile`]), [`FILE`] in the initramfs;
//! 6. a config disk ([`ConfigDisk`](crate::ConfigDisk)), which may have to be waited for and is only when none of
//!    the others has anything.
//!
//! The first that has anything answers alone; sources are not mixed.

use std::io;
use std::path::{Path, PathBuf};

use crate::fwcfg::FwCfg;
use crate::rpci::{RpciSource, VsockSource};
use crate::smbios::OemStrings;
use crate::{Vmx, VmxError};

/// Where an initramfs may have a VMX file. The kernel unpacks several archives one after the other, so
/// that one with this file alone can be appended to any initramfs.
pub const FILE: &str = "/config.vmx";

/// What a source gives: keys and values.
pub type Values = Vec<(String, String)>;

/// The sources that need no waiting for, in their order.
pub fn in_order() -> [Box<dyn Source>; 5] {
    [
        Box::new(RpciSource::detect()),
        Box::new(VsockSource),
        Box::new(FwCfg::default()),
        Box::new(OemStrings::default()),
        Box::new(VmxFile::new(FILE)),
    ]
}

/// A place that may hold the pairs of a spec.
pub trait Source {
    /// What it is called in logs and reports.
    fn name(&self) -> &str;

    /// All its pairs; `None` if this machine has no such source or nothing for us in it.
    ///
    /// # Errors
    /// It is there, but cannot be read or does not make sense.
    fn read(&self) -> Result<Option<Values>, SourceError>;
}

/// Why a source that is there gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The operating system refused.
    #[error("{} cannot be read: {source}; check that it is a readable file", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// More than anyone could mean.
    #[error("{} holds more than {limit} bytes; put files in a volume, not in the config", path.display())]
    TooLarge {
        /// What was read.
        path: PathBuf,
        /// How much may be there.
        limit: u64,
    },
    /// Its text is not that of a VMX file.
    #[error("{}", error.at(path.display()))]
    Vmx {
        /// What was read.
        path: PathBuf,
        /// The line at fault.
        error: VmxError,
    },
    /// The hypervisor refused, or answered something that makes no sense.
    #[error("{0}")]
    Hypervisor(String),
    /// A disk by its label, but not by what is on it.
    #[error(
        "{} has the label of a config disk, but {what}; make it anew: xorrisofs -V CONTAINERVM -o config.iso config.vmx",
        path.display()
    )]
    Disk {
        /// What was read.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// What [`first_answering`] found.
#[derive(Debug)]
pub struct Answer {
    /// The name of the source that answered.
    pub source: String,
    /// Its pairs.
    pub pairs: Values,
    /// The sources before it, and why each did not.
    pub passed_over: Vec<PassedOver>,
}

/// A source that gave nothing.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {}", error.as_ref().map_or("not there".to_owned(), SourceError::to_string))]
pub struct PassedOver {
    /// The source's name.
    pub name: String,
    /// What was wrong; `None` if it simply is not there.
    pub error: Option<SourceError>,
}

/// No source had anything.
#[derive(Debug, thiserror::Error)]
#[error("no source has a config for this VM ({}); give it one by guestinfo, fw_cfg or a config disk", list(.0))]
pub struct NoAnswer(pub Vec<PassedOver>);

fn list(passed_over: &[PassedOver]) -> String {
    passed_over.iter().map(PassedOver::to_string).collect::<Vec<_>>().join("; ")
}

/// Asks the sources in their order and takes the first that has pairs. One that is there but broken
/// is passed over like one that is not there; the answer says so.
///
/// # Errors
/// None of them has any.
pub fn first_answering(sources: &[&dyn Source]) -> Result<Answer, NoAnswer> {
    let mut passed_over = Vec::new();
    for source in sources {
        let name = source.name().to_owned();
        let error = match source.read() {
            Ok(Some(pairs)) => return Ok(Answer { source: name, pairs, passed_over }),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        passed_over.push(PassedOver { name, error });
    }
    Err(NoAnswer(passed_over))
}

/// The largest config that is read, in bytes. vSphere holds 1 MiB for a VM; escaping makes up to
/// three times as much of it, and names come on top.
pub const MAX_CONFIG: u64 = 16 << 20;

/// A VMX file.
#[derive(Debug, Clone)]
pub struct VmxFile {
    name: String,
    path: PathBuf,
}

impl VmxFile {
    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { name: format!("file {}", path.display()), path }
    }
}

impl Source for VmxFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self) -> Result<Option<Values>, SourceError> {
        let bytes = read_bounded(&self.path, MAX_CONFIG)?;
        bytes.map_or(Ok(None), |bytes| parsed(&self.path, &bytes))
    }
}

/// The pairs of a VMX file's text; `None` if it has none.
pub(crate) fn parsed(path: &Path, text: &[u8]) -> Result<Option<Values>, SourceError> {
    // QEMU pads nothing, but an item made from a C string brings its NUL.
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    let vmx =
        Vmx::parse(text).map_err(|error| SourceError::Vmx { path: path.to_owned(), error })?;
    let pairs: Values = vmx.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Ok(if pairs.is_empty() { None } else { Some(pairs) })
}

/// A file's content up to `limit` bytes; `None` if there is no such file.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
    use std::io::Read as _;
    let failed = |source| SourceError::Io { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if says_absent(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    let n_read = file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if n_read as u64 > limit {
        return Err(SourceError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

/// Whether there is no such file.
pub(crate) fn is_absent(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| says_absent(&error))
}

fn says_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
