//! The machine around the container, as an operator of its hypervisor sees and moves it: its power switches,
//! its addresses, and what VMware's host asks of a guest.
//!
//! It owns the descriptors and timers of all that, and does nothing about it but to tell ([`HostEvent`]); the
//! agent acts. Nothing is polled but VMware's backdoor, which has no event to wait for, and only where CPUID says
//! that it is there: 10 to 100 ms apart (`guestinfo::tclo`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use guestinfo::sys::Backdoor;
use guestinfo::tclo::{Order, PowerChange};
use guestinfo::{EndpointReport, Ip, Spec};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::uevent::Uevent;
use button::Button;
use interfaces::{Interface, Watch};
use toolbox::HostTools;

pub mod button;
pub mod interfaces;
pub mod toolbox;

/// How long changes of addresses are gathered before they are looked at: configuring an interface takes several.
const GATHERING: Duration = Duration::from_millis(100);

/// The least time between two looks, so that a container that plays with its addresses costs little.
const SPACING: Duration = Duration::from_secs(1);

/// The most buttons that are listened to: a machine has one or two, and keyboards may have one.
const MAX_BUTTONS: usize = 8;

/// What the machine's surroundings want of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// The operator asks for something.
    Order(Order),
    /// Interfaces or their addresses may have changed, or a timer is due: [`Host::turn`] finds out.
    Progress,
}

/// Switches, addresses, and the conversation with VMware's host.
#[derive(Debug)]
pub struct Host {
    tools: Option<HostTools<Backdoor>>,
    buttons: Vec<Button>,
    /// Absent if the kernel has none: then addresses are as at the start.
    watch: Option<Watch>,
    interfaces: Vec<Interface>,
    /// When to look at the interfaces again.
    look_at: Option<Instant>,
    looked_at: Option<Instant>,
}

impl Host {
    /// Starts to listen, for the container of this spec.
    pub fn new(spec: &Spec) -> Self {
        let watch = Watch::open().inspect_err(|error| warn!("addresses are not watched: {error}"));
        let mut host = Self {
            tools: Backdoor::detect().map(|port| HostTools::new(port, spec)),
            buttons: Vec::new(),
            watch: watch.ok(),
            interfaces: Vec::new(),
            look_at: Some(Instant::now()),
            looked_at: None,
        };
        host.look_for_buttons();
        host
    }

    /// Looks at all input devices that are there.
    pub fn look_for_buttons(&mut self) {
        for entry in fs::read_dir("/dev/input").into_iter().flatten().flatten() {
            self.listen_to(&entry.path());
        }
    }

    /// Takes note of a device: listens to it if it is a power button.
    pub fn announce(&mut self, event: &Uevent) {
        let node = event.devname.as_deref().filter(|_| event.action == "add");
        let Some(name) = node.filter(|_| event.subsystem == "input") else { return };
        self.listen_to(&Path::new("/dev").join(name));
    }

    fn listen_to(&mut self, node: &Path) {
        let is_new = self.buttons.iter().all(|button| button.node() != node);
        if is_new
            && self.buttons.len() < MAX_BUTTONS
            && let Some(button) = Button::open(node)
        {
            info!("{} has a power button", node.display());
            self.buttons.push(button);
        }
    }

    /// Waits until something is asked, or until [`Host::turn`] has something to do.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: a pressed button that was not told stays readable.
    pub async fn next(&self) -> HostEvent {
        let pressed = async {
            match self.buttons.as_slice() {
                [] => std::future::pending().await,
                buttons => button::any_pressed(buttons).await,
            }
        };
        let changed = async {
            match &self.watch {
                Some(watch) if self.look_at.is_none() => watch.changed().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pressed => HostEvent::Order(Order::Power(PowerChange::Halt)),
            () = changed => HostEvent::Progress,
        }
    }

    /// Does what is due: visits VMware's host, looks at the interfaces. What the host orders, and whether the
    /// interfaces are others than before.
    pub fn turn(&mut self) -> (Option<Order>, bool) {
        let now = Instant::now();
        if self.look_at.is_none() && self.watch.as_ref().is_some_and(Watch::take) {
            let spaced = self.looked_at.map(|last| last + SPACING);
            self.look_at = Some((now + GATHERING).max(spaced.unwrap_or(now)));
        }
        let mut changed = false;
        if self.look_at.take_if(|at| *at <= now).is_some() {
            self.looked_at = Some(now);
            let interfaces = interfaces::all();
            changed = interfaces != self.interfaces;
            self.interfaces = interfaces;
        }
        let Some(tools) = &mut self.tools else { return (None, changed) };
        if changed {
            tools.set_interfaces(&self.interfaces);
        }
        (tools.turn(now), changed)
    }

    /// When [`Host::turn`] has something to do even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.look_at.into_iter().chain(self.tools.as_ref().map(HostTools::deadline)).min()
    }

    /// What the networks of a spec have got, by network name.
    pub fn endpoints(
        &self,
        spec: &Spec,
        dns: impl Fn(&str) -> Vec<Ip>,
    ) -> BTreeMap<String, EndpointReport> {
        interfaces::endpoints(&spec.networks, &self.interfaces, dns)
    }
}
