//! The machine's devices as far as they concern the container: drivers in their order, and its disks.
//!
//! Three steps, driven by the agent: [`Hardware::begin`] makes the config readable, [`Hardware::seek_disks`]
//! starts the drivers a disk may need, [`Hardware::process_runs`] lets the rest follow. In between, every
//! announcement of the kernel goes through [`Hardware::announce`]. Nothing is polled: what is not there yet
//! announces itself, and two timers ([`Hardware::due`]) end the waiting.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error};

use super::disk::{self, Probe};
use super::drivers::{Drivers, Probing, Urgency, controllers};
use super::scsi::ScsiHosts;
use crate::uevent::Uevent;

/// How long a disk is awaited on the usual controllers before IDE and SATA are probed as well.
const FAST_DISK_PATIENCE: Duration = Duration::from_secs(1);

/// A disk that was awaited and is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The label of its file system, or [`disk::SPOOL`].
    pub label: String,
    /// Its node.
    pub node: PathBuf,
}

/// Waiting for a disk.
#[derive(Debug, Clone)]
struct DiskWait {
    label: String,
    until: Instant,
    timeout: Duration,
    /// When to look on the slow controllers as well.
    slow_at: Option<Instant>,
}

/// A disk that did not come in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// The label of its file system.
    pub label: String,
    /// How long it was waited for.
    pub seconds: u64,
}

/// Drivers and disks.
#[derive(Debug)]
pub struct Hardware {
    drivers: Drivers,
    scsi: ScsiHosts,
    waits: Vec<DiskWait>,
}

impl Hardware {
    /// Loads what is needed to read the config.
    pub fn begin() -> Self {
        let mut drivers = Drivers::new();
        drivers.allow(Urgency::Config);
        Self { drivers, scsi: ScsiHosts::default(), waits: Vec::new() }
    }

    /// Starts the drivers of the controllers that may hold the root's disk. To be called with the config in
    /// hand: the probe of a disk controller holds the ACPI lock, which reading fw_cfg needs too, for 0.15 s.
    pub fn start_disks(&mut self) {
        self.drivers.allow(Urgency::Disk);
        if self.drivers.has_loaded("scsi_mod") {
            // The disks behind a SCSI controller are found in a moment; their driver can be there already.
            self.drivers.load("sd_mod", Probing::Asynchronous);
        }
    }

    /// Starts the drivers of everything that a disk or CD-ROM may hang on.
    pub fn start_all_disks(&mut self) {
        self.start_disks();
        self.drivers.allow(Urgency::SlowDisk);
        self.drivers.load("sr_mod", Probing::Asynchronous);
        self.scsi.look();
        self.scsi.look_everywhere();
    }

    /// Waits for the disks of these labels from now on; returns those that are there already.
    pub fn seek_disks(&mut self, labels: &[String], timeout: Duration) -> Vec<Disk> {
        let now = Instant::now();
        let patience = if self.drivers.has_served(Urgency::Disk) {
            FAST_DISK_PATIENCE
        } else {
            Duration::ZERO
        };
        for label in labels {
            self.waits.retain(|wait| wait.label != *label);
            let (until, slow_at) = (now + timeout, Some(now + patience));
            self.waits.push(DiskWait { label: label.clone(), until, timeout, slow_at });
        }
        self.look()
    }

    /// Starts the drivers of everything that leads to a network.
    pub fn start_networks(&mut self) {
        self.drivers.allow(Urgency::Network);
    }

    /// Loads a module that belongs to no device.
    pub fn load(&mut self, module: &str) {
        self.drivers.load(module, Probing::Awaited);
    }

    /// Looks for disks at all addresses, not only at the first of each controller.
    pub fn look_everywhere(&mut self) {
        self.scsi.look_everywhere();
    }

    /// Looks at everything again, because announcements were lost; returns the disks that are awaited.
    pub fn look(&mut self) -> Vec<Disk> {
        self.drivers.look();
        self.scsi.look();
        if self.waits.is_empty() {
            return Vec::new();
        }
        disk::present().iter().filter_map(|name| self.awaited(name)).collect()
    }

    /// Takes note of a device; returns the disk if it is one that is awaited.
    pub fn announce(&mut self, event: &Uevent) -> Option<Disk> {
        let name = self.new_block_device(event)?;
        self.awaited(&name)
    }

    /// The disk of this name, if it is awaited; from now on it is not.
    fn awaited(&mut self, name: &str) -> Option<Disk> {
        if self.waits.is_empty() {
            return None;
        }
        let label = match disk::probe(name) {
            Probe::Ext(label) => label,
            Probe::Spool => disk::SPOOL.to_owned(),
            Probe::Other | Probe::Unreadable(_) => return None,
        };
        let at = self.waits.iter().position(|wait| wait.label == label)?;
        self.waits.swap_remove(at);
        Some(Disk { label, node: disk::node(name) })
    }

    /// Takes note of a device; returns its name when it is a block device with something new to read.
    pub fn new_block_device(&mut self, event: &Uevent) -> Option<String> {
        if let Some(modalias) = event.modalias.as_deref().filter(|_| event.action == "add") {
            self.drivers.serve(modalias);
        }
        if event.subsystem == "scsi_host" {
            self.scsi.look();
        }
        let is_new = matches!(event.action.as_str(), "add" | "change");
        let name = event.devname.as_deref().filter(|_| is_new && event.subsystem == "block")?;
        debug!("block device {name} is here");
        Some(name.to_owned())
    }

    /// Does what is due by time: looks on the slow controllers, or gives up, with a report in the log. The disks
    /// that are not awaited any longer.
    pub fn due(&mut self) -> Vec<Missed> {
        let now = Instant::now();
        let slow = self.waits.iter_mut().filter_map(|wait| wait.slow_at.take_if(|at| *at <= now));
        if slow.count() > 0 {
            self.drivers.allow(Urgency::SlowDisk);
            self.scsi.look_everywhere();
        }
        let late = self.waits.extract_if(.., |wait| wait.until <= now);
        let missed: Vec<Missed> = late
            .map(|wait| Missed { label: wait.label, seconds: wait.timeout.as_secs() })
            .collect();
        if let Some(Missed { label, seconds }) = missed.first() {
            error!("no disk labeled {label} came in {seconds} s; this machine has:");
            for line in controllers().into_iter().chain(disk::survey()) {
                error!("  {line}");
            }
        }
        missed
    }

    /// When [`Self::due`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.waits.iter().map(|wait| wait.slow_at.unwrap_or(wait.until).min(wait.until)).min()
    }

    /// Gives the devices their turn that the process could start without.
    pub fn process_runs(&mut self) {
        self.drivers.allow(Urgency::Later);
        self.drivers.allow(Urgency::Network);
    }

    /// Loads one driver that nothing waits for; says whether there was one.
    pub fn load_next(&mut self) -> bool {
        self.drivers.load_next()
    }
}
