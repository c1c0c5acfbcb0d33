//! The event loop: boots the machine, runs the session, serves the link, and says when it is time to end.
//!
//! One task owns everything. A turn does all that can be done without waiting (`Agent::turn`); then the
//! loop waits for any one of a closed set of events (`Event`) and takes the next turn. There is no other
//! place where state changes.

use std::io;
use std::time::Duration;

use guestinfo::Spec;
use guestinfo::source::NoAnswer;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use wire::{GuestIdentity, Link, LinkConfig, Protection, Psk, Standby};

use crate::alarm::Alarm;
use crate::boot::cmdline::Switches;
use crate::boot::hardware::Hardware;
use crate::clock::Clock;
use crate::config::Config;
use crate::host::{Host, HostEvent};
use crate::inside::Inside;
use crate::line::uart::{self, LineError};
use crate::network::Networks;
use crate::pipes::Pipes;
use crate::process::failure::GENERAL;
use crate::rootfs::EtcFiles;
use crate::session::{MAX_LINGER, STOP_GRACE};
use crate::sessions::Sessions;
use crate::uevent::{Announcement, UeventSocket};
use crate::upkeep::Upkeep;
use crate::uplink::{News, Uplink, UplinkError};
use crate::{console, reap, sys};

mod disks;
mod networks;
mod orders;
mod reload;
mod servers;

use disks::Disks;

pub use orders::Ending;
use servers::Servers;

mod requests;

/// How long a machine that is asked to stop goes on offering what the multiplexer has not taken.
const STOP_LINGER: Duration = Duration::from_secs(2);

/// The exit code of a process that SIGKILL ended, as what runs in a machine that is switched off.
const KILLED: i32 = 128 + libc::SIGKILL;

/// The cgroup of the container's processes.
const CGROUP: &str = "container";
/// How long a machine that is asked to stop waits for a process to end: the grace of its stop signal, and as
/// long again after the SIGKILL.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How often session and link take turns before other events are looked at.
const ROUNDS: u32 = 8;
/// The same as a time: only then does the runtime find out which other process has written something.
const TURN: Duration = Duration::from_millis(2);

/// Why the machine cannot be run. All of these end in a power-off.
#[derive(Debug, Error)]
pub enum AgentError {
    /// No config for this VM.
    #[error(transparent)]
    NoConfig(#[from] NoAnswer),
    /// A config with faults, and no key to tell the multiplexer with.
    #[error("{0}")]
    Config(String),
    /// No line to the multiplexer.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The conversation cannot go on.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The kernel refuses something every machine has.
    #[error("cannot {step}: {error}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// All that can happen.
#[derive(Debug)]
enum Event {
    /// The link or a session can move on, or a timer is due: the next turn finds out.
    Progress,
    /// Children have ended.
    Children,
    /// The machine is asked to stop.
    Stop,
    /// The config is to be read again.
    Reload,
    /// Something of the machine around the container.
    Host(HostEvent),
    /// The kernel announces a device.
    Device(Announcement),
    /// The kernel's announcements have ended for good.
    NoMoreDevices(io::Error),
}

struct Signals {
    children: Signal,
    stop: [Signal; 3],
    reload: Signal,
}

/// What is left when the agent is done.
#[derive(Debug)]
pub struct Ended {
    /// What happens to the machine.
    pub ending: Ending,
    /// With the leases that are to be given back.
    pub networks: Networks,
}

/// The agent.
struct Agent {
    spec: Spec,
    hardware: Hardware,
    disks: Disks,
    servers: Servers,
    networks: Networks,
    /// What the container found in its files below `/etc`.
    written: EtcFiles,
    /// Absent after it has failed: what runs goes on without new devices.
    uevents: Option<UeventSocket>,
    uplink: Uplink,
    sessions: Sessions,
    inside: Inside,
    /// The container's process has run: devices get their turn that it could start without.
    has_run: bool,
    /// When to power off although the multiplexer has not taken everything; set when the session is over.
    linger_until: Option<Instant>,
    stopping: bool,
    host: Host,
    ending: Ending,
    n_reloads: u64,
    /// When to power off although the process does not end; set when the machine is asked to stop.
    stop_by: Option<Instant>,
    upkeep: Upkeep,
    /// Whether the next turn has something to do even if nothing happens.
    busy: bool,
}

/// Runs the machine from its pseudo file systems to the end of its session. Returns when it is time to power
/// off, or to start again. With `last_words`, the end of an earlier life of the agent in this machine, nothing is
/// run: they are told, as a fault of the config would be.
///
/// # Errors
///
/// [`AgentError`]: why there was nothing to run, or no way to go on.
pub async fn run(switches: &Switches, last_words: Option<String>) -> Result<Ended, AgentError> {
    let kernel = |step| move |error| AgentError::Kernel { step, error };
    let uevents = UeventSocket::open().map_err(kernel("listen to device announcements"))?;
    let mut signals = Signals::listen().map_err(kernel("listen to signals"))?;
    let mut alarm = Alarm::new().map_err(kernel("make a timer"))?;
    let mut hardware = Hardware::begin();
    let config = Config::find(&mut hardware, &uevents).await?;
    console::set_debug(config.spec.diagnostics.debug);
    let panicked = last_words.map(|words| (KILLED, words));
    let complaint = panicked.or_else(|| config.complaint().map(|text| (GENERAL.into(), text)));
    if complaint.is_none() {
        hardware.start_disks();
    }
    let mut agent = Agent::new(switches, hardware, uevents, config)?;
    if let Some((code, text)) = complaint {
        agent.refuse(code, text)?;
    } else {
        agent.seek_networks()?;
        agent.seek_disks(switches.disk_timeout)?;
    }
    loop {
        agent.turn()?;
        if agent.is_done() {
            return Ok(Ended { ending: agent.ending, networks: agent.networks });
        }
        let event = agent.next(&mut signals, &mut alarm).await?;
        agent.handle(event)?;
    }
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let stop =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::from_raw(libc::SIGPWR)];
        let [term, int, pwr] = stop.map(signal);
        let reload = signal(SignalKind::hangup())?;
        Ok(Self { children: signal(SignalKind::child())?, stop: [term?, int?, pwr?], reload })
    }

    async fn next(&mut self) -> Event {
        let [term, int, pwr] = &mut self.stop;
        tokio::select! {
            _ = self.children.recv() => Event::Children,
            _ = term.recv() => Event::Stop,
            _ = int.recv() => Event::Stop,
            _ = pwr.recv() => Event::Stop,
            _ = self.reload.recv() => Event::Reload,
        }
    }
}

impl Agent {
    fn new(
        switches: &Switches,
        hardware: Hardware,
        uevents: UeventSocket,
        config: Config,
    ) -> Result<Self, AgentError> {
        Ok(Self {
            hardware,
            disks: Disks::default(),
            servers: Servers::default(),
            networks: Networks::new(&config.spec.full_hostname()),
            written: EtcFiles::default(),
            uevents: Some(uevents),
            uplink: uplink(&config.spec)?,
            sessions: Sessions::new(&config),
            inside: Inside::new(CGROUP),
            has_run: false,
            host: Host::new(&config.spec),
            ending: Ending::default(),
            n_reloads: 0,
            upkeep: Upkeep::new(switches, &config.spec),
            spec: config.spec,
            linger_until: None,
            stopping: false,
            stop_by: None,
            busy: false,
        })
    }

    /// Runs nothing, and has the multiplexer told why: that needs a key.
    fn refuse(&mut self, code: i32, complaint: String) -> Result<(), AgentError> {
        if self.spec.key.0.is_empty() && self.spec.link.protection == guestinfo::Protection::Sealed
        {
            return Err(AgentError::Config(complaint));
        }
        self.sessions.report_failure(code, complaint, &mut self.uplink);
        Ok(())
    }

    /// Waits for the next event.
    async fn next(&self, signals: &mut Signals, alarm: &mut Alarm) -> Result<Event, AgentError> {
        if self.busy || self.sessions.are_due() {
            // The runtime looks at descriptors and signals only when somebody waits, and nobody is going to.
            tokio::task::yield_now().await;
        }
        let deadline = self.deadline();
        let failed = |error| AgentError::Kernel { step: "wait for a timer", error };
        let announcement = async {
            match &self.uevents {
                Some(uevents) => uevents.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = std::future::ready(()), if self.busy => Ok(Event::Progress),
            moved = self.uplink.wait() => moved.map(|()| Event::Progress).map_err(|e| UplinkError::from(e).into()),
            () = self.sessions.wait() => Ok(Event::Progress),
            () = self.inside.wait() => Ok(Event::Progress),
            () = self.disks.wait() => Ok(Event::Progress),
            () = self.servers.wait() => Ok(Event::Progress),
            () = self.networks.wait() => Ok(Event::Progress),
            event = signals.next() => Ok(event),
            event = self.host.next() => Ok(Event::Host(event)),
            announcement = announcement => Ok(announcement.map_or_else(Event::NoMoreDevices, Event::Device)),
            rang = alarm.wait(deadline) => rang.map(|()| Event::Progress).map_err(failed),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), AgentError> {
        match event {
            Event::Progress => {}
            Event::Children => {
                for (pid, exit) in reap::collect() {
                    self.inside.reaped(pid, exit, &mut self.uplink);
                    self.sessions.reaped(pid, exit, &mut self.uplink);
                }
            }
            Event::Stop => self.stop(),
            Event::Reload => {
                // The report says how it went.
                let _told = self.reload();
            }
            Event::Host(event) => self.host_event(event),
            Event::Device(announcement) => {
                self.upkeep.announce(&announcement, &self.spec);
                self.uplink.look(match &announcement {
                    Announcement::Event(event) => Some(event),
                    Announcement::Overrun => None,
                });
                let disks = match &announcement {
                    Announcement::Event(event) => {
                        self.host.announce(event);
                        self.hardware.announce(event).into_iter().collect()
                    }
                    Announcement::Overrun => {
                        self.host.look_for_buttons();
                        self.hardware.look()
                    }
                };
                let is_interface = match &announcement {
                    Announcement::Event(event) => event.subsystem == "net",
                    Announcement::Overrun => true,
                };
                if is_interface {
                    self.look_for_interfaces()?;
                }
                self.disks_here(disks)?;
            }
            Event::NoMoreDevices(error) => {
                warn!("device announcements have ended: {error}");
                self.uevents = None;
            }
        }
        Ok(())
    }

    /// Does everything that can be done without waiting: what the link brings is for the sessions, and what they
    /// make of it goes out with the answer. What has gone out may make room for more, so this goes on
    /// until there are no news, or for [`ROUNDS`] or a [`TURN`]: then there is more to do at once.
    fn turn(&mut self) -> Result<(), AgentError> {
        self.look_around();
        self.upkeep.turn(&mut self.uplink);
        self.give_up();
        self.disks_due();
        self.volumes_turn();
        self.servers_turn()?;
        self.networks_turn()?;
        let runs = self.sessions.first().is_running();
        if runs && !self.has_run {
            self.has_run = true;
            self.hardware.process_runs();
        }
        self.busy = runs && self.hardware.load_next();
        let until = Instant::now() + TURN;
        for round in 1..=ROUNDS {
            let mut news = Vec::new();
            self.uplink.hear(|item| news.push(item))?;
            self.take_all(news)?;
            self.sessions.turn(&mut self.uplink);
            self.inside.turn(&mut self.uplink);
            let mut news = Vec::new();
            let more = self.uplink.speak(|item| news.push(item))?;
            if news.is_empty() && !more {
                break;
            }
            self.take_all(news)?;
            if round == ROUNDS || until <= Instant::now() {
                self.busy = true;
                break;
            }
        }
        let first = self.sessions.first();
        if first.is_over() && self.linger_until.is_none() {
            let linger = if first.gave_up() { 0 } else { self.spec.link.linger.min(MAX_LINGER) };
            self.linger_until = Some(Instant::now() + Duration::from_secs(linger));
            debug!("the agent has {} KiB resident", resident_kib());
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        [
            self.uplink.deadline(),
            self.sessions.deadline(),
            self.hardware.deadline(),
            self.host.deadline(),
            self.networks.deadline(),
            self.servers.deadline(),
            self.upkeep.deadline(),
            self.stop_by,
            self.linger_until,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether nothing is left to do but to power off.
    fn is_done(&self) -> bool {
        let Some(until) = self.linger_until else { return false };
        if self.sessions.are_over() && self.uplink.is_drained() {
            return true;
        }
        let late = until <= Instant::now();
        if late {
            warn!("the multiplexer did not take everything in {} s", self.spec.link.linger);
        }
        late
    }

    fn take_all(&mut self, news: Vec<News>) -> Result<(), AgentError> {
        news.into_iter().try_for_each(|item| self.take(item))
    }

    fn take(&mut self, news: News) -> Result<(), AgentError> {
        match news {
            News::Request(request) => self.request(request)?,
            // The session's next turn reads, or writes.
            News::Readable(channel) | News::Writable(channel) => {
                self.sessions.channel_ready(channel);
            }
            News::Finished(channel) => {
                self.inside.finished(channel);
                self.sessions.input_finished(channel);
            }
            News::Gone(channel) => {
                self.inside.gone(channel);
                self.sessions.channel_gone(channel);
            }
            News::RolledBack(channel) => {
                self.inside.gone(channel);
                self.sessions.rolled_back(channel, &mut self.uplink)?;
            }
            News::Up { peer_is_new } => {
                self.sessions.link_ready();
                if peer_is_new {
                    self.sessions.introduce(&mut self.uplink)?;
                }
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        if !self.stopping {
            info!("asked to stop");
            self.stopping = true;
            self.stop_by = Some(Instant::now() + STOP_PATIENCE);
        }
        self.sessions.stop_all(STOP_GRACE, &mut self.uplink);
        // Whoever stops a machine whose process has ended does not want to wait for the multiplexer for long.
        let soon = Instant::now() + STOP_LINGER;
        self.linger_until = self.linger_until.map(|until| until.min(soon));
    }

    /// Ends a stop that does not come to its end: a process that hangs in the kernel, on a device that does not
    /// answer, cannot be killed.
    fn give_up(&mut self) {
        if self.stop_by.take_if(|by| *by <= Instant::now()).is_some() {
            let text =
                "the process does not end, not even by SIGKILL; the machine stops without it";
            self.sessions.leave_first(KILLED, text, &mut self.uplink);
        }
    }
}

/// Memory of this process that is in RAM, 0 when it cannot be told (`VmRSS` in proc(5)).
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn uplink(spec: &Spec) -> Result<Uplink, AgentError> {
    let kernel = |error: nix::errno::Errno| AgentError::Kernel {
        step: "draw random bytes",
        error: error.into(),
    };
    let line = uart::open()?;
    let mut boot_id = [0; 16];
    sys::random(&mut boot_id).map_err(kernel)?;
    let identity = GuestIdentity {
        psk: Psk::derive(&spec.key.0),
        protection: match spec.link.protection {
            guestinfo::Protection::Sealed => Protection::Sealed,
            guestinfo::Protection::Plain => Protection::Plain,
        },
        boot_id,
        agent: concat!("tether ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    // The kernel's generator is seeded by now and cannot fail any more.
    let entropy = || -> wire::Entropy {
        Box::new(|bytes: &mut [u8]| sys::random(bytes).expect("the kernel's generator was seeded"))
    };
    let clock = Clock::start();
    let standby = |it| Standby::new(it, identity.clone(), entropy(), clock.now());
    let pipes = Pipes::new(line, standby, clock.now());
    let link = Link::guest(LinkConfig::uart(), identity.clone(), entropy(), clock.now());
    let mut uplink = Uplink::new(link, pipes, clock)?;
    // What the kernel has built in announced itself before anybody listened.
    uplink.look(None);
    Ok(uplink)
}
