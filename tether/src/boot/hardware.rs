//! The machine's devices as far as they concern the container: drivers in their order, and the root's disk.
//!
//! Three steps, driven by the agent: [`Hardware::begin`] makes the config readable, [`Hardware::seek_disk`]
//! starts the drivers a disk may need, [`Hardware::process_runs`] lets the rest follow. In between, every
//! announcement of the kernel goes through [`Hardware::announce`]. Nothing is polled: what is not there yet
//! announces itself, and two timers ([`Hardware::due`]) end the waiting.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error};

use super::disk::{self, CONTAINERFS};
use super::drivers::{Drivers, Probing, Urgency, controllers};
use super::scsi::ScsiHosts;
use crate::uevent::Uevent;

/// How long a disk is awaited on the usual controllers before IDE and SATA are probed as well.
const FAST_DISK_PATIENCE: Duration = Duration::from_secs(1);

/// Waiting for the root's disk.
#[derive(Debug, Clone, Copy)]
struct DiskWait {
    until: Instant,
    timeout: Duration,
    /// When to look on the slow controllers as well.
    slow_at: Option<Instant>,
}

/// Drivers and disks.
#[derive(Debug)]
pub struct Hardware {
    drivers: Drivers,
    scsi: ScsiHosts,
    disk: Option<DiskWait>,
}

impl Hardware {
    /// Loads what is needed to read the config.
    pub fn begin() -> Self {
        let mut drivers = Drivers::new();
        drivers.allow(Urgency::Config);
        Self { drivers, scsi: ScsiHosts::default(), disk: None }
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

    /// Waits for the root's disk from now on; returns it when it is there already.
    pub fn seek_disk(&mut self, timeout: Duration) -> Option<PathBuf> {
        let now = Instant::now();
        let patience = if self.drivers.has_served(Urgency::Disk) {
            FAST_DISK_PATIENCE
        } else {
            Duration::ZERO
        };
        self.disk = Some(DiskWait { until: now + timeout, timeout, slow_at: Some(now + patience) });
        self.look()
    }

    /// Looks at everything again, because announcements were lost; returns the root's disk when it is found
    /// and awaited.
    pub fn look(&mut self) -> Option<PathBuf> {
        self.drivers.look();
        self.scsi.look();
        let wait = self.disk.take()?;
        let found = disk::find(CONTAINERFS);
        if found.is_none() {
            self.disk = Some(wait);
        }
        found
    }

    /// Takes note of a device; returns the root's disk when this is it and it is awaited.
    pub fn announce(&mut self, event: &Uevent) -> Option<PathBuf> {
        let name = self.new_block_device(event)?;
        self.disk?;
        disk::carries(&name, CONTAINERFS).then(|| {
            self.disk = None;
            disk::node(&name)
        })
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

    /// Does what is due by time: looks on the slow controllers, or gives up, with a report in the log and the
    /// text to tell.
    pub fn due(&mut self) -> Option<String> {
        let now = Instant::now();
        let wait = self.disk.as_mut()?;
        if wait.slow_at.take_if(|at| *at <= now).is_some() {
            self.drivers.allow(Urgency::SlowDisk);
            self.scsi.look_everywhere();
        }
        let wait = self.disk.take_if(|wait| wait.until <= now)?;
        let seconds = wait.timeout.as_secs();
        error!("no disk labeled {CONTAINERFS} came in {seconds} s; this machine has:");
        for line in controllers().into_iter().chain(disk::survey()) {
            error!("  {line}");
        }
        Some(format!("no disk with an ext4 file system labeled {CONTAINERFS} came in {seconds} s"))
    }

    /// When [`Self::due`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.disk.map(|wait| wait.slow_at.unwrap_or(wait.until).min(wait.until))
    }

    /// Gives the devices their turn that the process could start without; `volumes` says whether it has disks
    /// besides its root.
    pub fn process_runs(&mut self, volumes: bool) {
        self.drivers.allow(Urgency::Later);
        if volumes {
            self.scsi.look_everywhere();
        }
    }

    /// Loads one driver that nothing waits for; says whether there was one.
    pub fn load_next(&mut self) -> bool {
        self.drivers.load_next()
    }
}
