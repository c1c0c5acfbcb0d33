//! The container's disks on their way: the root's and the volumes', awaited, mounted, and then the start. The
//! spool's comes when it comes.
//!
//! What is wrong before the container has been started ends it with that reason. Afterwards, when a reload wants
//! a further volume, it is only told: in the log, in the report, as the volume's `mounted`.

use std::collections::VecDeque;
use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use guestinfo::{ContainerSpec, MountSpec, Started};
use tracing::{info, warn};

use super::{Agent, AgentError, CGROUP};
use crate::boot::disk::{CONTAINERFS, SPOOL};
use crate::boot::hardware::{Disk, Missed};
use crate::cgroup::{self, Cgroup};
use crate::process::failure::{GENERAL, StartFailure};
use crate::rootfs::Rootfs;
use crate::spool::Spool;
use crate::sys;
use crate::volumes::joining::Joining;
use crate::volumes::{Volume, VolumeError, Volumes};

/// How long a disk may take that a reload wants: it is there already, or being attached.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the container's disks.
#[derive(Debug, Default)]
pub(super) struct Disks {
    pub(super) volumes: Volumes,
    /// The root's, once it is here.
    root: Option<std::path::PathBuf>,
    /// Whether the spool's is awaited.
    awaits_spool: bool,
    /// The volume on its way into the container that runs, and those to follow.
    joining: Option<Joining>,
    queue: VecDeque<String>,
    /// Those that come with the container's next start.
    coming: Vec<String>,
}

impl Disks {
    /// Waits until something has become of a volume on its way.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub(super) async fn wait(&self) {
        match &self.joining {
            Some(joining) => joining.ready().await,
            None => std::future::pending().await,
        }
    }
}

impl Agent {
    /// Waits for all disks from now on.
    pub(super) fn seek_disks(&mut self, timeout: Duration) -> Result<(), AgentError> {
        for (name, mount) in &self.spec.mounts {
            match Volume::of(name, mount) {
                Ok(volume) => self.disks.volumes.want(volume),
                Err(error) => {
                    self.sessions.fail(&error.into(), &mut self.uplink);
                    return Ok(());
                }
            }
        }
        let mut labels = self.disks.volumes.missing();
        labels.push(CONTAINERFS.to_owned());
        if self.spec.link.spool {
            labels.push(SPOOL.to_owned());
            self.disks.awaits_spool = true;
        }
        let found = self.hardware.seek_disks(&labels, timeout);
        self.disks_here(found)
    }

    /// Takes disks that were awaited.
    pub(super) fn disks_here(
        &mut self,
        disks: impl IntoIterator<Item = Disk>,
    ) -> Result<(), AgentError> {
        for disk in disks {
            if disk.label == CONTAINERFS {
                self.disks.root = Some(disk.node);
                if self.disks.awaits_spool || !self.disks.volumes.missing().is_empty() {
                    // Another disk is never at the first address of a controller that the root is on.
                    self.hardware.look_everywhere();
                }
                continue;
            }
            if disk.label == SPOOL {
                self.disks.awaits_spool = false;
                match Spool::on(&disk.node) {
                    Ok(spool) => self.sessions.first_mut().extend(spool),
                    Err(error) => warn!("{error}"),
                }
                continue;
            }
            let names = self.disks.volumes.waiting_for(&disk.label);
            match self.disks.volumes.mount(&disk.label, &disk.node) {
                Ok(()) if self.is_placed() => names.iter().for_each(|name| self.join(name)),
                Ok(()) => info!("{} holds the volume {}", disk.node.display(), names.join(", ")),
                Err(error) => names.iter().for_each(|name| self.volume_failed(name, &error)),
            }
        }
        self.start()
    }

    /// Does what is due by time.
    pub(super) fn disks_due(&mut self) {
        for Missed { label, seconds } in self.hardware.due() {
            if label == CONTAINERFS {
                let text = format!(
                    "no disk with an ext4 file system labeled {CONTAINERFS} came in {seconds} s"
                );
                if self.sessions.first().is_waiting() {
                    self.sessions.report_failure(GENERAL.into(), text, &mut self.uplink);
                }
                continue;
            }
            if label == SPOOL {
                self.disks.awaits_spool = false;
                warn!(
                    "no disk that begins with the line {SPOOL:?} came in {seconds} s; output that nobody takes is kept in memory only"
                );
                continue;
            }
            for name in self.disks.volumes.waiting_for(&label) {
                let error =
                    VolumeError::NoDisk { name: name.clone(), label: label.clone(), seconds };
                self.volume_failed(&name, &error);
            }
        }
    }

    /// Whether the container has been given its root.
    pub(super) fn is_placed(&self) -> bool {
        self.sessions.cgroup().is_some()
    }

    /// Starts the session in its root when all disks and networks are here, unless it is over already.
    pub(super) fn start(&mut self) -> Result<(), AgentError> {
        self.ask_servers();
        let Some(device) = self.disks.root.as_deref().map(Path::to_owned) else { return Ok(()) };
        if !self.sessions.first().is_waiting()
            || self.is_placed()
            || !self.disks.volumes.are_here()
            || !self.networks.are_settled()
        {
            return Ok(());
        }
        info!("container root is {}", device.display());
        let cgroup = Cgroup::create(Path::new(cgroup::TREE), CGROUP);
        let memory = self.upkeep.bound(cgroup.path(), &self.spec);
        let around = ContainerSpec { memory, ..self.spec.container.clone() };
        let volumes: Vec<Volume> = self.disks.volumes.all().cloned().collect();
        self.disks.coming = volumes.iter().map(|volume| volume.name.clone()).collect();
        self.written = self.etc();
        let mounted = Rootfs::mount(&device, &self.written, &around, volumes);
        let rootfs = match mounted {
            Ok(rootfs) => rootfs,
            Err(failure) => {
                self.sessions.fail(&failure, &mut self.uplink);
                return Ok(());
            }
        };
        if let Err(error) = loopback() {
            warn!("no loopback network: {error}");
        }
        self.inside.begin();
        self.sessions.place(rootfs, cgroup, &mut self.uplink);
        Ok(())
    }

    /// Looks for the spool's disk, which a reload wants.
    pub(super) fn seek_spool(&mut self) -> Result<(), AgentError> {
        self.disks.awaits_spool = true;
        let found = self.hardware.seek_disks(&[SPOOL.to_owned()], RELOAD_PATIENCE);
        if found.is_empty() {
            self.hardware.look_everywhere();
        }
        self.disks_here(found)
    }

    /// Adds a volume that a reload wants; how far it is, or why there can be none.
    pub(super) fn add_volume(&mut self, name: &str, spec: &MountSpec) -> Result<String, String> {
        let volume = Volume::of(name, spec).map_err(|error| error.to_string())?;
        let dest = volume.dest.clone();
        let had = self.disks.volumes.get(name);
        if had.is_some_and(|had| Volume { home: None, ..had.clone() } == volume) {
            return Ok(format!("volume {name} is still on {dest}"));
        }
        self.disks.volumes.want(volume);
        if !self.is_placed() {
            return Ok(format!("volume {name} comes with the start"));
        }
        let labels: Vec<String> = {
            let volume = self.disks.volumes.get(name);
            volume.filter(|it| it.home.is_none()).and_then(Volume::label).map(str::to_owned)
        }
        .into_iter()
        .collect();
        if self.disks.volumes.afar().iter().any(|afar| afar == name) {
            self.ask_servers();
        } else if labels.is_empty() {
            self.join(name);
        } else {
            let found = self.hardware.seek_disks(&labels, RELOAD_PATIENCE);
            if found.is_empty() {
                self.hardware.look_everywhere();
            }
            self.disks_here(found).map_err(|error| error.to_string())?;
        }
        Ok(format!("volume {name} is being mounted on {dest}"))
    }

    /// Puts a volume that the agent has into the container, or has it come with the next start.
    pub(super) fn join(&mut self, name: &str) {
        let Some(volume) = self.disks.volumes.get(name).cloned() else { return };
        let first = self.sessions.first();
        match first.pid() {
            Some(_) if first.is_running() => {
                self.sessions.add_volume(volume);
                self.disks.queue.push_back(name.to_owned());
                self.join_next();
            }
            Some(_) => {
                let step = "mount it while the container is being started; reload once more";
                let (name, errno) = (name.to_owned(), nix::errno::Errno::EAGAIN);
                let error = VolumeError::Step { name: name.clone(), step: step.to_owned(), errno };
                self.volume_failed(&name, &error);
            }
            None => {
                self.disks.coming.push(name.to_owned());
                self.sessions.add_volume(volume);
            }
        }
    }

    /// Begins with the next volume when the last one is there: two may be on one disk.
    fn join_next(&mut self) {
        while self.disks.joining.is_none()
            && let Some(name) = self.disks.queue.pop_front()
        {
            let Some(volume) = self.disks.volumes.get(&name).cloned() else { continue };
            let Some(pid) = self.sessions.first().pid() else {
                // It has ended, and gets it when it is started again.
                self.disks.coming.push(name);
                continue;
            };
            match Joining::start(&volume, pid) {
                Ok(joining) => self.disks.joining = Some(joining),
                Err(error) => {
                    self.sessions.remove_volume(&name);
                    self.volume_failed(&name, &error);
                }
            }
        }
    }

    /// Takes note of volumes that are in the container, and of those that are not.
    pub(super) fn volumes_turn(&mut self) {
        if self.sessions.first().is_running() {
            for name in std::mem::take(&mut self.disks.coming) {
                self.tell_volume(&name, Started::Yes);
            }
        }
        let mut context = Context::from_waker(Waker::noop());
        let Some(joining) = &self.disks.joining else { return };
        let Poll::Ready(outcome) = joining.poll_outcome(&mut context) else { return };
        let name = joining.name.clone();
        self.disks.joining = None;
        match outcome {
            Ok(()) => {
                info!("volume {name} is mounted");
                self.tell_volume(&name, Started::Yes);
            }
            Err(text) => {
                self.sessions.remove_volume(&name);
                self.forget_volume(&name, text);
            }
        }
        self.join_next();
    }

    pub(super) fn volume_failed(&mut self, name: &str, error: &VolumeError) {
        if self.is_placed() {
            return self.forget_volume(name, error.to_string());
        }
        self.tell_volume(name, Started::Failed(error.to_string()));
        self.sessions.fail(&StartFailure::Volume(error.clone()), &mut self.uplink);
    }

    /// A further volume that cannot be had; the next reload tries again.
    fn forget_volume(&mut self, name: &str, text: String) {
        warn!("{text}");
        self.disks.volumes.give_up(name);
        self.spec.mounts.remove(name);
        self.tell_volume(name, Started::Failed(text));
    }

    fn tell_volume(&mut self, name: &str, mounted: Started) {
        let reporter = self.sessions.reporter();
        reporter.volume(name, mounted);
        reporter.publish(&mut self.uplink);
    }
}

fn loopback() -> Result<(), nix::errno::Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    sys::loopback_up(&socket)
}
