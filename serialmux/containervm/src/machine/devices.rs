//! The devices of a VMX file: controllers, disks, CD-ROMs, network cards and serial ports.

use std::path::PathBuf;

use super::{
    BOOTSTRAP_ISO, MachineError,
    backing::{self, SerialBacking},
    keys::Keys,
};

/// Devices of one kind that VMware gives a VM at most.
const SCSI_CONTROLLERS: u32 = 4;
const SCSI_TARGETS: u32 = 16;
/// The target the controller itself answers to.
const SCSI_OWN_TARGET: u32 = 7;
const NICS: u32 = 10;
/// A PC has four ports at the usual addresses; VMware's UI allows no more either.
const SERIALS: u32 = 4;

/// Kind of SCSI controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScsiModel {
    /// VMware's paravirtual one.
    Pvscsi,
    /// LSI Logic parallel.
    LsiLogic,
    /// LSI Logic SAS.
    LsiSas,
}

/// A SCSI controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScsiController {
    /// N of `scsiN`.
    pub bus: u32,
    /// Its kind.
    pub model: ScsiModel,
}

/// Where a disk is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskPlace {
    /// `scsiBUS:TARGET`.
    Scsi {
        /// Controller.
        bus: u32,
        /// Target id.
        target: u32,
    },
    /// `ideBUS:UNIT`.
    Ide {
        /// Channel.
        bus: u32,
        /// Master or slave.
        unit: u32,
    },
}

/// How a disk's file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// Block by block.
    Raw,
    /// VMware's.
    Vmdk,
    /// QEMU's.
    Qcow2,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Where it is plugged in.
    pub place: DiskPlace,
    /// Its file.
    pub file: PathBuf,
    /// Its file's format, told by its name.
    pub format: DiskFormat,
    /// `mode = "independent-nonpersistent"`: changes are lost when the VM is powered off.
    pub discards_changes: bool,
}

/// What is in a CD-ROM drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CdromImage {
    /// This file.
    File(PathBuf),
    /// The `bootstrap.iso` of this installation.
    Bootstrap,
}

/// A CD-ROM drive with an image in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cdrom {
    /// Channel.
    pub bus: u32,
    /// Master or slave.
    pub unit: u32,
    /// What is in it.
    pub image: CdromImage,
}

/// Kind of network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicModel {
    /// VMware's paravirtual one.
    Vmxnet3,
    /// Intel 82545.
    E1000,
    /// Intel 82574.
    E1000e,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// N of `ethernetN`.
    pub index: u32,
    /// Its kind.
    pub model: NicModel,
    /// Hardware address, unless QEMU is to choose.
    pub mac: Option<String>,
    /// `connectionType = "hostonly"`: no way out.
    pub isolated: bool,
    /// `containervm.ethernetN.forward`: ports of the host that lead to it, each as QEMU's `hostfwd` has it.
    pub forwards: Vec<String>,
}

impl Nic {
    /// The protocol of a forward, the host's address and port, and the guest's port; `None` if it is none.
    pub fn parts(forward: &str) -> Option<(&str, &str, &str)> {
        let (protocol, ends) = forward.split_once(':')?;
        let (host, guest) = ends.split_once('-')?;
        let port = |end| {
            let (_, port) = str::rsplit_once(end, ':')?;
            port.parse::<u16>().is_ok().then_some(port)
        };
        port(host)?;
        matches!(protocol, "tcp" | "udp").then_some((protocol, host, port(guest)?))
    }
}

/// A serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serial {
    /// N of `serialN`, ttyS*N* in the guest.
    pub index: u32,
    /// What it leads to.
    pub backing: SerialBacking,
}

pub(super) fn scsi(
    keys: &Keys<'_>,
    disks: &mut Vec<Disk>,
) -> Result<Vec<ScsiController>, MachineError> {
    let mut controllers = Vec::new();
    for bus in 0..SCSI_CONTROLLERS {
        if !keys.present(&format!("scsi{bus}"))? {
            continue;
        }
        let models = [
            ("pvscsi", ScsiModel::Pvscsi),
            ("lsilogic", ScsiModel::LsiLogic),
            ("lsisas1068", ScsiModel::LsiSas),
        ];
        // VMware's own default is LSI Logic, for which our kernel has no driver.
        let model =
            keys.choice(&format!("scsi{bus}.virtualDev"), &models)?.unwrap_or(ScsiModel::Pvscsi);
        controllers.push(ScsiController { bus, model });
        for target in (0..SCSI_TARGETS).filter(|target| *target != SCSI_OWN_TARGET) {
            let device = format!("scsi{bus}:{target}");
            if keys.present(&device)? && !is_cdrom(keys, &device) {
                disks.push(disk(keys, &device, DiskPlace::Scsi { bus, target })?);
            }
        }
    }
    Ok(controllers)
}

pub(super) fn ide(
    keys: &Keys<'_>,
    disks: &mut Vec<Disk>,
    cdroms: &mut Vec<Cdrom>,
) -> Result<(), MachineError> {
    for (bus, unit) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let device = format!("ide{bus}:{unit}");
        if !keys.present(&device)? {
            continue;
        }
        if is_cdrom(keys, &device) {
            cdroms.extend(cdrom(keys, &device)?.map(|image| Cdrom { bus, unit, image }));
        } else {
            disks.push(disk(keys, &device, DiskPlace::Ide { bus, unit })?);
        }
    }
    Ok(())
}

fn is_cdrom(keys: &Keys<'_>, device: &str) -> bool {
    keys.text(&format!("{device}.deviceType"))
        .is_some_and(|kind| kind.to_ascii_lowercase().contains("cdrom"))
}

/// What is in a drive; nothing for the host's own drive or an image that is not connected.
fn cdrom(keys: &Keys<'_>, device: &str) -> Result<Option<CdromImage>, MachineError> {
    let is_image = keys
        .text(&format!("{device}.deviceType"))
        .is_some_and(|kind| kind.eq_ignore_ascii_case("cdrom-image"));
    if !is_image || !keys.flag(&format!("{device}.startConnected"), true)? {
        return Ok(None);
    }
    let name = keys.text(&format!("{device}.fileName"));
    if name == Some(BOOTSTRAP_ISO) && !keys.path(BOOTSTRAP_ISO).exists() {
        return Ok(Some(CdromImage::Bootstrap));
    }
    keys.existing_file(device, "an ISO image").map(|path| Some(CdromImage::File(path)))
}

fn disk(keys: &Keys<'_>, device: &str, place: DiskPlace) -> Result<Disk, MachineError> {
    let file = keys.existing_file(device, "a disk image (.vmdk, or raw as .img)")?;
    let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
    let format = match extension.to_str() {
        Some("vmdk") => DiskFormat::Vmdk,
        Some("qcow2") => DiskFormat::Qcow2,
        _ => DiskFormat::Raw,
    };
    let mode = keys.text(&format!("{device}.mode")).unwrap_or_default();
    Ok(Disk {
        place,
        file,
        format,
        discards_changes: mode.eq_ignore_ascii_case("independent-nonpersistent"),
    })
}

pub(super) fn nics(keys: &Keys<'_>) -> Result<Vec<Nic>, MachineError> {
    let mut nics = Vec::new();
    for index in 0..NICS {
        let device = format!("ethernet{index}");
        if !keys.present(&device)? || !keys.flag(&format!("{device}.startConnected"), true)? {
            continue;
        }
        let models = [
            ("vmxnet3", NicModel::Vmxnet3),
            ("e1000", NicModel::E1000),
            ("e1000e", NicModel::E1000e),
        ];
        let model =
            keys.choice(&format!("{device}.virtualDev"), &models)?.unwrap_or(NicModel::E1000);
        let isolated = keys
            .text(&format!("{device}.connectionType"))
            .is_some_and(|connection| connection.eq_ignore_ascii_case("hostonly"));
        let forwards = forwards(keys, &device)?;
        nics.push(Nic { index, model, mac: mac(keys, &device)?, isolated, forwards });
    }
    Ok(nics)
}

/// `tcp:127.0.0.1:8080-10.0.2.15:80`, several with blanks in between.
fn forwards(keys: &Keys<'_>, device: &str) -> Result<Vec<String>, MachineError> {
    let key = format!("containervm.{device}.forward");
    let is_one = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || ":.-[]".contains(c);
        text.chars().all(plain) && Nic::parts(text).is_some()
    };
    let all: Vec<String> =
        keys.text(&key).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    match all.iter().all(|it| is_one(it)) {
        true => Ok(all),
        false => Err(keys.fault(&key, "forwards such as \"tcp:127.0.0.1:8080-10.0.2.15:80\"")),
    }
}

/// `address` when it is static, else the one that VMware or vCenter once generated, if any.
fn mac(keys: &Keys<'_>, device: &str) -> Result<Option<String>, MachineError> {
    let kinds =
        [("generated", "generatedAddress"), ("vpx", "generatedAddress"), ("static", "address")];
    let kind = keys.choice(&format!("{device}.addressType"), &kinds)?.unwrap_or("generatedAddress");
    let key = format!("{device}.{kind}");
    let Some(text) = keys.text(&key) else {
        let needed = || keys.missing(&format!("{device}.addressType"), &key, "a hardware address");
        return if kind == "address" { Err(needed()) } else { Ok(None) };
    };
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_unicast = text
        .get(1..2)
        .and_then(|digit| u8::from_str_radix(digit, 16).ok())
        .is_some_and(|n| n % 2 == 0);
    if text.split(':').count() != 6 || !text.split(':').all(is_byte) || !is_unicast {
        return Err(keys.fault(&key, "a hardware address such as \"00:50:56:01:02:03\""));
    }
    Ok(Some(text.to_ascii_lowercase()))
}

pub(super) fn serials(keys: &Keys<'_>) -> Result<Vec<Serial>, MachineError> {
    let mut serials = Vec::new();
    for index in 0..SERIALS {
        let device = format!("serial{index}");
        if keys.present(&device)? {
            serials.push(Serial { index, backing: backing::read(keys, &device)? });
        }
    }
    Ok(serials)
}
