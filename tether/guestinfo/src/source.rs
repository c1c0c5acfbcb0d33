//! Sources: where the pairs of a spec come from, and which of several answers.
//!
//! The order in which an agent asks, surest first, since a VM rarely has two:
//!
//! 1. VMware's backdoor ([`rpci`](crate::rpci)), if CPUID says that this is VMware;
//! 2. the same over vsock ([`VsockSource`]), where the port does not answer;
//! 3. QEMU's fw_cfg ([`FwCfg`]), the item `opt/containervm.vmx` holding VMX lines;
//! 4. SMBIOS OEM strings ([`OemStrings`]), for hypervisors that have no more to offer;
//! 5. a labelled config disk, holding a VMX file ([`VmxFile`] once it is mounted).
//!
//! The first that has anything answers alone; sources are not mixed.

use std::io;
use std::path::{Path, PathBuf};

use crate::rpci::{RpciSource, VsockSource};
use crate::smbios::OemStrings;
use crate::{Vmx, VmxError};

/// The sources that are asked without anything mounted, in their order.
pub fn in_order() -> [Box<dyn Source>; 4] {
    [
        Box::new(RpciSource::detect()),
        Box::new(VsockSource),
        Box::new(FwCfg::default()),
        Box::new(OemStrings::default()),
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
    fn read(&self) -> Result<Option<Vec<(String, String)>>, SourceError>;
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
}

/// What [`first_answering`] found.
#[derive(Debug)]
pub struct Answer {
    /// The name of the source that answered.
    pub source: String,
    /// Its pairs.
    pub pairs: Vec<(String, String)>,
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
#[error("no source has a config for this VM ({}); give it one by guestinfo or fw_cfg", list(.0))]
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
const MAX_CONFIG: u64 = 16 << 20;

/// QEMU's `-fw_cfg name=opt/containervm.vmx,file=…`, as Linux shows it in sysfs.
#[derive(Debug, Clone)]
pub struct FwCfg {
    path: PathBuf,
}

impl FwCfg {
    /// The item in the sysfs that is mounted at `sys` (`/sys`).
    pub fn new(sys: impl AsRef<Path>) -> Self {
        let item = "firmware/qemu_fw_cfg/by_name/opt/containervm.vmx/raw";
        Self { path: sys.as_ref().join(item) }
    }
}

impl Default for FwCfg {
    fn default() -> Self {
        Self::new("/sys")
    }
}

impl Source for FwCfg {
    fn name(&self) -> &str {
        "fw_cfg opt/containervm.vmx"
    }

    fn read(&self) -> Result<Option<Vec<(String, String)>>, SourceError> {
        read_vmx(&self.path)
    }
}

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

    fn read(&self) -> Result<Option<Vec<(String, String)>>, SourceError> {
        read_vmx(&self.path)
    }
}

fn read_vmx(path: &Path) -> Result<Option<Vec<(String, String)>>, SourceError> {
    let Some(bytes) = read_bounded(path, MAX_CONFIG)? else { return Ok(None) };
    // QEMU pads nothing, but an item made from a C string brings its NUL.
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    let vmx =
        Vmx::parse(bytes).map_err(|error| SourceError::Vmx { path: path.to_owned(), error })?;
    let pairs: Vec<_> = vmx.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Ok(if pairs.is_empty() { None } else { Some(pairs) })
}

/// A file's content up to `limit` bytes; `None` if there is no such file.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
    use std::io::Read as _;
    let failed = |source| SourceError::Io { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    let n_read = file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if n_read as u64 > limit {
        return Err(SourceError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
