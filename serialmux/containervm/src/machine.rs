//! The hardware of a containerVM as its VMX file describes it, checked and typed.
//!
//! Read are the keys of which QEMU has the counterpart; all others of the hundreds that vSphere writes are ignored, and
//! so are devices whose `present` is not `TRUE`. Where a key is absent, VMware's default holds unless stated. Keys
//! beginning with `containervm.` are ours:
//!
//! | key | value |
//! |---|---|
//! | `containervm.boot` | `iso` (default): firmware boots the CD-ROM; `direct`: QEMU loads the kernel found on it, or on the installation's ISO when there is none |
//!
//! | `containervm.pipe` | what the VM has beside serial0 to reach its multiplexer: `uart` (default): nothing; `virtio`: a virtio-serial port on a second connection; `vsock`: a vsock device |
//! | `containervm.pipe.fileName` | where the virtio-serial port leads, such as `tcp://127.0.0.1:2377` (default: where serial0 leads) |
//! | `containervm.ethernetN.forward` | ports of the host that lead to the VM, such as `tcp:127.0.0.1:8080-10.0.2.15:80`, with blanks in between |
//! | `containervm.vsock.socket` | Unix socket of a vhost-user program such as vhost-device-vsock (default: the host's own vsock) |
//! | `containervm.vsock.cid` | the VM's address on the host's own vsock (default: made from `uuid.bios`) |
//!
//! Relative file names count from the directory of the VMX file. A CD-ROM image called `bootstrap.iso` that is not
//! there stands for the `bootstrap.iso` of this installation.

mod backing;
mod devices;
mod keys;
mod pipe;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use guestinfo::Vmx;

use self::keys::Keys;
pub use self::{
    backing::{EndPoint, SerialBacking},
    devices::{
        Cdrom, CdromImage, Disk, DiskFormat, DiskPlace, Nic, NicModel, ScsiController, ScsiModel,
        Serial,
    },
    pipe::{FastPipe, PipeKind},
};

/// Name of the CD-ROM image that this installation brings.
pub const BOOTSTRAP_ISO: &str = "bootstrap.iso";
/// Least memory in MiB: below, the kernel and its initramfs do not come up.
pub const MIN_MEMORY: u32 = 128;
/// Memory in MiB when the file says nothing.
pub const DEFAULT_MEMORY: u32 = 512;
const MAX_MEMORY: u32 = 16 << 20;
const MAX_CPUS: u32 = 255;

/// Why a VMX file describes no machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The VMX file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a VMX file.
    #[error("{text}")]
    Syntax {
        /// File, line, what was found and expected.
        text: String,
    },
    /// A value that makes no sense.
    #[error("{file}:{line}: {key} = {found:?}; expected {expected}")]
    Value {
        /// The VMX file.
        file: String,
        /// Line of the key, from 1.
        line: usize,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A key that others call for.
    #[error("{file}:{line}: {because} needs {key}; expected {expected}")]
    Missing {
        /// The VMX file.
        file: String,
        /// Line of the key that calls for it.
        line: usize,
        /// What calls for it.
        because: String,
        /// The missing key.
        key: String,
        /// What it may be.
        expected: String,
    },
}

/// What the VM starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// A PC's BIOS.
    Bios,
    /// UEFI.
    Efi,
}

/// How the kernel gets into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// The firmware boots the CD-ROM.
    Iso,
    /// QEMU loads the kernel that is on the CD-ROM.
    Direct,
}

/// A containerVM's hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The VMX file, which the guest gets too.
    pub file: PathBuf,
    /// `displayName`, else the file's name.
    pub name: String,
    /// `uuid.bios` in the usual form with dashes.
    pub uuid: Option<String>,
    /// `memsize` in MiB.
    pub memory: u32,
    /// `numvcpus`.
    pub cpus: u32,
    /// `mem.hotadd`: memory can be added while it runs.
    pub memory_hot_add: bool,
    /// `vcpu.hotadd`: processors can be added while it runs.
    pub cpu_hot_add: bool,
    /// `firmware`.
    pub firmware: Firmware,
    /// `containervm.boot`.
    pub boot: Boot,
    /// `scsiN`.
    pub controllers: Vec<ScsiController>,
    /// `scsiN:M` and `ideN:M` with a disk.
    pub disks: Vec<Disk>,
    /// `ideN:M` with a CD-ROM.
    pub cdroms: Vec<Cdrom>,
    /// `ethernetN`.
    pub nics: Vec<Nic>,
    /// `serialN`.
    pub serials: Vec<Serial>,
    /// `containervm.pipe`.
    pub fast_pipe: Option<FastPipe>,
}

impl Machine {
    /// Reads a VMX file.
    ///
    /// # Errors
    /// When it is not readable, not VMX, describes something that cannot be, or names a file that is not there.
    pub fn load(file: &Path) -> Result<(Self, Vmx), MachineError> {
        let bytes = fs::read(file)
            .map_err(|source| MachineError::Read { file: file.to_owned(), source })?;
        let vmx = Vmx::parse(bytes)
            .map_err(|error| MachineError::Syntax { text: error.at(file.display()) })?;
        let machine = Self::from_vmx(&vmx, file)?;
        Ok((machine, vmx))
    }

    /// Understands the entries of the VMX file that is, or will be, at `file`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_vmx(vmx: &Vmx, file: &Path) -> Result<Self, MachineError> {
        let keys = Keys::new(vmx, file);
        let (mut disks, mut cdroms) = (Vec::new(), Vec::new());
        let controllers = devices::scsi(&keys, &mut disks)?;
        devices::ide(&keys, &mut disks, &mut cdroms)?;
        let serials = devices::serials(&keys)?;
        let (uuid, own) = (uuid(&keys)?, file.to_string_lossy());
        let fast_pipe = pipe::read(&keys, &serials, uuid.as_deref().unwrap_or(&own))?;
        let stem = || file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let machine = Self {
            file: file.to_owned(),
            name: keys.text("displayName").map_or_else(stem, str::to_owned),
            uuid,
            memory: keys.number("memsize", MIN_MEMORY..=MAX_MEMORY)?.unwrap_or(DEFAULT_MEMORY),
            cpus: keys.number("numvcpus", 1..=MAX_CPUS)?.unwrap_or(1),
            memory_hot_add: keys.flag("mem.hotadd", false)?,
            cpu_hot_add: keys.flag("vcpu.hotadd", false)?,
            firmware: keys
                .choice("firmware", &[("bios", Firmware::Bios), ("efi", Firmware::Efi)])?
                .unwrap_or(Firmware::Bios),
            boot: keys
                .choice("containervm.boot", &[("iso", Boot::Iso), ("direct", Boot::Direct)])?
                .unwrap_or(Boot::Iso),
            controllers,
            disks,
            cdroms,
            nics: devices::nics(&keys)?,
            serials,
            fast_pipe,
        };
        if machine.cdroms.is_empty() && machine.boot == Boot::Iso {
            return Err(keys.missing(
                "booting",
                "ide0:0.fileName",
                "a CD-ROM image with a kernel, such as bootstrap.iso",
            ));
        }
        Ok(machine)
    }

    /// The ISO that the machine boots or takes its kernel from, where `bootstrap` is the installation's: its first
    /// CD-ROM, or the installation's when it boots directly and has none.
    #[must_use]
    pub fn iso<'a>(&'a self, bootstrap: Option<&'a Path>) -> Option<&'a Path> {
        match self.cdroms.first().map(|cdrom| &cdrom.image) {
            Some(CdromImage::File(path)) => Some(path),
            Some(CdromImage::Bootstrap) | None => bootstrap,
        }
    }
}

/// `56 4d 01 23 … cd ef-01 23 …` as VMware writes it, or with the usual dashes.
fn uuid(keys: &Keys<'_>) -> Result<Option<String>, MachineError> {
    let Some(text) = keys.text("uuid.bios") else { return Ok(None) };
    let digits: String =
        text.chars().filter(|c| !matches!(c, ' ' | '-')).collect::<String>().to_ascii_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(keys.fault("uuid.bios", "16 bytes in hexadecimal"));
    }
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Ok(Some(parts.join("-")))
}
