//! Scanning SCSI controllers for disks: the first address at once, the others only when they matter.
//!
//! A full scan asks every address of a controller, and each one that is empty costs some 10 ms, because the
//! kernel tears the request queue it made for the question down again. A containerVM's root is at the first
//! address, so `scsi_mod` is loaded with `scan=manual` ([`MANUAL`]) and the agent asks
//! (`Documentation/ABI/testing/sysfs-class-scsi_host`).

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use crate::sys::{self, Cloned};

/// The module parameter that leaves scanning to the agent.
pub const MANUAL: &CStr = c"scan=manual";

const HOSTS: &str = "/sys/class/scsi_host";
/// Channel, target and unit of the first address.
const FIRST: &str = "0 0 0";
/// Every address.
const ALL: &str = "- - -";

/// The controllers of this machine.
#[derive(Debug, Default)]
pub struct ScsiHosts {
    asked: BTreeSet<PathBuf>,
    fully: bool,
}

impl ScsiHosts {
    /// Asks the controllers that are new for their first disk; what answers is announced like any device.
    pub fn look(&mut self) {
        for host in fs::read_dir(HOSTS).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if !self.asked.contains(&host) && !scans_itself(&host) {
                scan(&host, if self.fully { ALL } else { FIRST });
                self.asked.insert(host);
            }
        }
    }

    /// Asks all controllers, those to come as well, for all of their disks, in a process of its own: it takes
    /// long, and the kernel lets the asking process wait.
    pub fn look_everywhere(&mut self) {
        self.fully = true;
        if self.asked.is_empty() {
            return;
        }
        match sys::clone_process(0, None) {
            Ok(Cloned::Child) => {
                self.asked.iter().for_each(|host| scan(host, ALL));
                sys::exit_now(0);
            }
            Ok(Cloned::Parent(pid)) => debug!("process {pid} scans all SCSI addresses"),
            Err(errno) => warn!("SCSI controllers cannot be scanned: {errno}"),
        }
    }
}

/// Whether the controller's driver finds its disks without a scan: those of libata, which take one for the
/// wish to reset every port.
fn scans_itself(host: &Path) -> bool {
    let driver = fs::read_to_string(host.join("proc_name")).unwrap_or_default();
    ["ahci", "ata", "pata", "sata"].iter().any(|prefix| driver.starts_with(prefix))
}

fn scan(host: &Path, addresses: &str) {
    if let Err(error) = fs::write(host.join("scan"), addresses) {
        warn!("{} cannot be scanned: {error}", host.display());
    }
}
