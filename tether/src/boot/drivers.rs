//! Loading drivers: each device's modalias finds its modules, which are loaded once, dependencies first.
//!
//! Boot time is spent where the container needs it. Devices are sorted by [`Urgency`]: the config channel and
//! the controllers that container disks hang on come first, IDE and SATA (whose ports take long to probe)
//! only when the disk is not elsewhere, the rest when the process runs. Except for the first, modules are
//! loaded with the kernel's `async_probe` parameter ([`Probing`]).

use std::collections::{BTreeSet, VecDeque};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};
use tracing::{debug, warn};

use super::modules::ModuleIndex;
use super::scsi;

/// Where the initramfs holds modules and their two indexes.
pub const MODULES: &str = "/lib/modules";

/// The largest module that is unpacked: 100 times what the kernel's own are.
const MAX_MODULE: usize = 64 << 20;

/// When a device's driver is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Holds the config: nothing can be decided without it.
    Config,
    /// May hold the container's disk.
    Disk,
    /// May hold the container's disk, but rarely does and is slow to probe.
    SlowDisk,
    /// Leads to a network: needed at once by a container that has one.
    Network,
    /// Not needed to start the process.
    Later,
}

impl Urgency {
    /// The urgency of a device by its modalias (`Documentation/.../modalias`, `file2alias.c`).
    pub fn of(modalias: &str) -> Self {
        // QEMU's fw_cfg, and VMware's VMCI, which carries vsock.
        if modalias.contains("QEMU0002") || modalias.starts_with("pci:v000015ADd00000740") {
            return Self::Config;
        }
        if let Some(pci) = modalias.strip_prefix("pci:") {
            return Self::of_pci_class(pci);
        }
        // virtio-blk and virtio-scsi (virtio spec 5), and a SCSI disk (type 0).
        let is_disk = ["virtio:d00000002", "virtio:d00000008", "scsi:t-0x00"]
            .iter()
            .any(|prefix| modalias.starts_with(prefix));
        match modalias {
            _ if is_disk => Self::Disk,
            // virtio-net (virtio spec 5).
            _ if modalias.starts_with("virtio:d00000001v") => Self::Network,
            _ => Self::Later,
        }
    }

    /// By base class and subclass: `...bc01sc07i00` (PCI Code and ID Assignment, 1.1).
    fn of_pci_class(pci: &str) -> Self {
        let class = pci.rsplit_once("bc").map_or("", |(_, class)| class);
        match (class.get(..2), class.get(4..6)) {
            (Some("01"), Some("01" | "05" | "06")) => Self::SlowDisk,
            (Some("01"), _) => Self::Disk,
            (Some("02"), _) => Self::Network,
            _ => Self::Later,
        }
    }
}

/// The drivers of this machine.
#[derive(Debug)]
pub struct Drivers {
    index: ModuleIndex,
    loaded: BTreeSet<String>,
    /// The urgencies whose turn has come.
    allowed: BTreeSet<Urgency>,
    /// The urgencies of the devices that had their turn.
    served: BTreeSet<Urgency>,
    /// Devices whose turn has not come, with their urgency.
    deferred: Vec<(Urgency, String)>,
    /// Modules whose turn has come, but not so urgently that anything should wait for them.
    queue: VecDeque<String>,
}

impl Drivers {
    /// Reads the module indexes of the initramfs and takes note of the devices present. Without indexes the
    /// kernel must have everything built in.
    pub fn new() -> Self {
        let read =
            |name: &str| fs::read_to_string(Path::new(MODULES).join(name)).unwrap_or_default();
        let mut drivers = Self {
            index: ModuleIndex::parse(&read("modules.dep"), &read("modules.alias")),
            loaded: BTreeSet::new(),
            allowed: BTreeSet::new(),
            served: BTreeSet::new(),
            deferred: Vec::new(),
            queue: VecDeque::new(),
        };
        drivers.look();
        drivers
    }

    /// Takes note of all devices present; for the start, and when announcements were lost.
    pub fn look(&mut self) {
        for modalias in present_devices() {
            self.serve(&modalias);
        }
    }

    /// Whether a device of this urgency had its turn.
    pub fn has_served(&self, urgency: Urgency) -> bool {
        self.served.contains(&urgency)
    }

    /// Gives devices of this urgency their turn, those to come as well.
    pub fn allow(&mut self, urgency: Urgency) {
        self.allowed.insert(urgency);
        let (due, deferred) =
            std::mem::take(&mut self.deferred).into_iter().partition(|(of, _)| *of == urgency);
        self.deferred = deferred;
        for (_, modalias) in due {
            self.serve(&modalias);
        }
    }

    /// Finds the drivers of one device and loads them, when it is its turn.
    pub fn serve(&mut self, modalias: &str) {
        let urgency = Urgency::of(modalias);
        if !self.allowed.contains(&urgency) {
            let entry = (urgency, modalias.to_owned());
            if !self.deferred.contains(&entry) {
                self.deferred.push(entry);
            }
            return;
        }
        self.served.insert(urgency);
        let names = self.index.drivers_for(modalias).into_iter();
        let names: Vec<String> = names
            .flat_map(|name| [Some(name), companion(name)])
            .flatten()
            .map(str::to_owned)
            .collect();
        for name in names {
            match urgency {
                Urgency::Later => self.enqueue(&name),
                // Those of a container without a network have time.
                Urgency::Network if self.allowed.contains(&Urgency::Later) => self.enqueue(&name),
                Urgency::Config => self.load(&name, Probing::Awaited),
                Urgency::Disk | Urgency::SlowDisk | Urgency::Network => {
                    self.load(&name, Probing::Asynchronous)
                }
            }
        }
    }

    /// Loads the next module that nothing waits for; says whether there was one. One at a time, so that the
    /// caller can serve the container in between.
    pub fn load_next(&mut self) -> bool {
        let Some(name) = self.queue.pop_front() else { return false };
        self.insert(&name, Probing::Asynchronous);
        true
    }

    /// Loads a module, its dependencies first.
    pub fn load(&mut self, name: &str, probing: Probing) {
        for name in self.index.load_order(name, &self.loaded) {
            self.loaded.insert(name.clone());
            self.insert(&name, probing);
        }
    }

    /// Whether a module was loaded, or tried.
    pub fn has_loaded(&self, name: &str) -> bool {
        self.loaded.contains(name)
    }

    fn enqueue(&mut self, name: &str) {
        for name in self.index.load_order(name, &self.loaded) {
            self.loaded.insert(name.clone());
            self.queue.push_back(name);
        }
    }

    /// One attempt: what fails once fails every time.
    fn insert(&self, name: &str, probing: Probing) {
        match insert(name, probing) {
            Ok(()) => debug!("module {name} loaded"),
            Err(Errno::EEXIST) => debug!("module {name} is part of the kernel or loaded"),
            Err(Errno::ENODEV) => debug!("module {name} found no device"),
            Err(errno) => warn!("module {name} cannot be loaded: {errno}"),
        }
    }
}

impl Default for Drivers {
    fn default() -> Self {
        Self::new()
    }
}

/// What makes use of a driver but is no device's own, so that no modalias leads to it.
fn companion(driver: &str) -> Option<&'static str> {
    (driver == "vmw_vmci").then_some("vmw_vsock_vmci_transport")
}

/// Whether a load waits for the driver to have looked at its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// It does, and for everything else that is being probed (`kernel/module/main.c`).
    Awaited,
    /// It does not: devices announce themselves when they are ready.
    Asynchronous,
}

fn insert(name: &str, probing: Probing) -> Result<(), Errno> {
    let number = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let path = PathBuf::from(MODULES).join(format!("{name}.ko"));
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return insert_packed(&path.with_extension("ko.zst"));
        }
        file => file.map_err(number)?,
    };
    let parameters: &CStr = match (name, probing) {
        ("scsi_mod", _) => scsi::MANUAL,
        (_, Probing::Awaited) => c"",
        (_, Probing::Asynchronous) => c"async_probe",
    };
    finit_module(&file, parameters, ModuleInitFlags::empty())
}

/// Loads one of the modules that few VMs need, which bootstrap.iso has packed.
fn insert_packed(path: &Path) -> Result<(), Errno> {
    let number = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let packed = fs::read(path).map_err(number)?;
    let module = zstd::bulk::decompress(&packed, MAX_MODULE).map_err(number)?;
    init_module(&module, c"")
}

/// The modaliases of all devices of all buses.
fn present_devices() -> Vec<String> {
    let list = |path: PathBuf| {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    list(PathBuf::from("/sys/bus"))
        .flat_map(|bus| list(bus.join("devices")))
        .filter_map(|device| fs::read_to_string(device.join("modalias")).ok())
        .map(|modalias| modalias.trim_end().to_owned())
        .filter(|modalias| !modalias.is_empty())
        .collect()
}

/// One line per storage controller: where it is, what it is, which driver has it. For the report when the
/// disk does not come.
pub fn controllers() -> Vec<String> {
    let Ok(devices) = fs::read_dir("/sys/bus/pci/devices") else { return Vec::new() };
    let mut lines: Vec<String> = devices
        .flatten()
        .filter_map(|device| {
            let read =
                |name: &str| fs::read_to_string(device.path().join(name)).unwrap_or_default();
            let class = read("class");
            // Base class 01: mass storage.
            let class = class.trim().strip_prefix("0x01")?.to_owned();
            let driver = fs::read_link(device.path().join("driver")).ok();
            let driver = driver
                .as_deref()
                .and_then(|path| path.file_name())
                .map(|name| name.to_string_lossy());
            let driver = driver.as_deref().unwrap_or("none");
            let (vendor, product) = (read("vendor"), read("device"));
            let slot = device.file_name();
            let (slot, vendor, product) = (slot.to_string_lossy(), vendor.trim(), product.trim());
            Some(format!("controller {slot} class 01{class} id {vendor}:{product} driver {driver}"))
        })
        .collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_waits_for_comes_first() {
        for (modalias, expected) in [
            ("acpi:QEMU0002:", Urgency::Config),
            ("pci:v000015ADd00000740sv000015ADsd00000740bc08sc80i00", Urgency::Config),
            ("pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00", Urgency::Disk),
            ("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00", Urgency::Disk),
            ("pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", Urgency::Disk),
            ("pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80", Urgency::SlowDisk),
            ("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", Urgency::SlowDisk),
            ("pci:v000015ADd000007B0sv000015ADsd000007B0bc02sc00i00", Urgency::Network),
            ("virtio:d00000002v00001AF4", Urgency::Disk),
            ("virtio:d00000001v00001AF4", Urgency::Network),
            ("scsi:t-0x00", Urgency::Disk),
            ("scsi:t-0x05", Urgency::Later),
            ("pci:", Urgency::Later),
            ("", Urgency::Later),
        ] {
            assert_eq!(Urgency::of(modalias), expected, "{modalias}");
        }
    }

    #[test]
    fn vsock_comes_with_vmci_alone() {
        assert_eq!(companion("vmw_vmci"), Some("vmw_vsock_vmci_transport"));
        assert_eq!(companion("vmw_pvscsi"), None);
    }
}
