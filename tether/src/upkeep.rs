//! What the agent does for the machine besides its container: clock, random generator, added hardware, bounds.
//!
//! Driven by the agent's loop: each turn, each announcement of the kernel and each message of the multiplexer
//! passes by here.

use std::path::{Path, PathBuf};

use guestinfo::{Protection, Spec};
use tokio::time::Instant;
use wire::message::mux;

use crate::boot::cmdline::Switches;
use crate::entropy;
use crate::hotplug::{self, Added, SYS};
use crate::reserve::{self, Bounds, Capacity};
use crate::timekeeper::Timekeeper;
use crate::uevent::Announcement;
use crate::uplink::Uplink;

/// The agent's other duties.
#[derive(Debug)]
pub struct Upkeep {
    clock: Timekeeper,
    is_sealed: bool,
    /// The container's cgroup, once there is one.
    container: Option<PathBuf>,
    /// Memory that was taken before the container started, bytes.
    taken: Option<u64>,
    /// Whether to fail on purpose.
    panics_at_reload: bool,
}

impl Upkeep {
    /// Of a machine that has just started.
    pub fn new(switches: &Switches, spec: &Spec) -> Self {
        Self {
            clock: Timekeeper::new(),
            is_sealed: spec.link.protection == Protection::Sealed,
            container: None,
            taken: None,
            panics_at_reload: switches.panics_at_reload,
        }
    }

    /// Does what is due.
    pub fn turn(&mut self, uplink: &mut Uplink) {
        self.clock.turn(uplink);
    }

    /// The config is about to be read again.
    ///
    /// # Panics
    ///
    /// When the kernel command line asks for it.
    pub fn before_reload(&self) {
        assert!(!self.panics_at_reload, "tether.panic on the kernel command line asks for it");
    }

    /// When the next [`Self::turn`] is due even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.clock.deadline()
    }

    /// Takes a message if it is about one of these duties; whether it was.
    pub fn take(&mut self, message: &mux::Body) -> bool {
        match message {
            mux::Body::Time(time) => self.clock.answered(*time),
            mux::Body::Seed(seed) => entropy::add(&seed.bytes, self.is_sealed),
            _ => return false,
        }
        true
    }

    /// Bounds the container's cgroup by what the config and the machine allow, from now on; bytes of memory.
    pub fn bound(&mut self, cgroup: &Path, spec: &Spec) -> u64 {
        // Once, before there is a container whose own use would count.
        let taken = *self.taken.get_or_insert_with(reserve::taken);
        let bounds = Bounds::of(&spec.container, Capacity::read(taken));
        bounds.set(cgroup);
        self.container = Some(cgroup.to_owned());
        bounds.memory
    }

    /// Takes note of a device.
    pub fn announce(&mut self, announcement: &Announcement, spec: &Spec) {
        let grown = match announcement {
            Announcement::Event(event) => {
                hotplug::announce(Path::new(SYS), event) == Some(Added::Memory)
            }
            Announcement::Overrun => {
                hotplug::look(Path::new(SYS));
                true
            }
        };
        if let Some(container) = self.container.clone().filter(|_| grown) {
            self.bound(&container, spec);
        }
    }
}
