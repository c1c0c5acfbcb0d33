//! The wait for a config disk: every driver that one may need is loaded, and each block device is looked at as
//! it appears.
//!
//! Only a machine without any other config gets here, so that no boot pays for the slow controllers without
//! need.

use std::path::PathBuf;
use std::time::Duration;

use guestinfo::ConfigDisk;
use guestinfo::source::{Answer, NoAnswer, PassedOver, Source, first_answering};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::disk::{node, present};
use super::hardware::Hardware;
use crate::uevent::{Announcement, UeventSocket};

/// How long a disk may take to appear: probing an empty IDE channel takes a second or two, emulated, and a host that is
/// overloaded runs its VMs ten times slower.
const PATIENCE: Duration = Duration::from_secs(30);

/// The config disks among the devices that are there, in the order of their names.
pub fn all_present() -> Vec<ConfigDisk> {
    present().iter().map(|name| ConfigDisk::new(node(name))).collect()
}

/// Waits for a config disk, after the other sources had nothing.
///
/// # Errors
///
/// When none came in time: that of the other sources, and what was wrong with disks.
pub async fn awaited(
    hardware: &mut Hardware,
    uevents: &UeventSocket,
    mut nowhere: NoAnswer,
) -> Result<Answer, NoAnswer> {
    info!("no other source has a config, looking for a config disk");
    hardware.start_all_disks();
    let until = Instant::now() + PATIENCE;
    let mut candidates: Vec<PathBuf> = present().iter().map(|name| node(name)).collect();
    loop {
        for device in candidates.drain(..) {
            match first_answering(&[&ConfigDisk::new(device) as &dyn Source]) {
                Ok(mut answer) => {
                    answer.passed_over = nowhere.0;
                    return Ok(answer);
                }
                Err(NoAnswer(disks)) => note_broken(disks, &mut nowhere),
            }
        }
        match timeout_at(until, uevents.next()).await {
            Ok(Ok(Announcement::Event(event))) => {
                candidates.extend(hardware.new_block_device(&event).map(|name| node(&name)));
            }
            Ok(Ok(Announcement::Overrun)) => {
                hardware.look();
                candidates.extend(present().iter().map(|name| node(name)));
            }
            Ok(Err(error)) => {
                warn!("device announcements have ended: {error}");
                return Err(nowhere);
            }
            Err(_elapsed) => {
                let name = format!("config disk in {} s", PATIENCE.as_secs());
                nowhere.0.push(PassedOver { name, error: None });
                return Err(nowhere);
            }
        }
    }
}

/// Remembers a disk that has the label but cannot be understood, once.
fn note_broken(disks: Vec<PassedOver>, nowhere: &mut NoAnswer) {
    for disk in disks.into_iter().filter(|disk| disk.error.is_some()) {
        if nowhere.0.iter().all(|known| known.name != disk.name) {
            warn!("{disk}");
            nowhere.0.push(disk);
        }
    }
}
