//! TCLO: what VMware's hypervisor asks of the tools in a guest, and what this toolbox answers.
//!
//! The host has no way to call a guest, so the guest comes by and asks: it sends the reply to the
//! last request (at first an empty one), and receives the next, if there is one. A request is a
//! name, a blank and arguments; a reply is `OK` with a result, `ERR` with a reason, or `Unknown
//! Command`.
//!
//! | request | what is done |
//! |---|---|
//! | `reset` | the guest's addresses are reported if the host wants them; `OK ATR toolbox` |
//! | `ping` | nothing |
//! | `Capabilities_Register` | tools version and "can change power state" are registered |
//! | `Set_Option broadcastIP 1` | the addresses are reported, now and whenever they change |
//! | `Set_Option` otherwise | nothing |
//! | `OS_Halt`, `OS_Reboot` | acknowledged; the agent is to stop in order, then power off or restart |
//! | `OS_PowerOn`, `OS_Resume`, `OS_Suspend` | acknowledged |
//! | `Vix_1_Relayed_Command` | a VCH's `reload` and `kill`, see the module `vix` |
//!
//! [`Toolbox`] is the state machine, without a clock or a channel. [`Conversation`] carries it over
//! a channel and says how long to wait before the next visit: the backdoor has no event to wait
//! for.

use std::fmt;
use std::time::Duration;

use crate::backdoor::{BackdoorError, Channel, Port, Protocol};
use crate::rpci::{Requests as _, RpciError};

mod nicinfo;
mod vix;

pub use nicinfo::Nic;

use vix::Programs;

/// A change of the VM's power state. The number is the one that it is acknowledged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PowerChange {
    /// "Shut Down Guest": stop in order, then power off.
    Halt = 1,
    /// "Restart Guest": stop in order, then restart.
    Reboot = 2,
    /// The VM was powered on.
    PowerOn = 3,
    /// The VM was resumed.
    Resume = 4,
    /// The VM is about to be suspended.
    Suspend = 5,
}

/// What the host wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The VM's power changes.
    Power(PowerChange),
    /// The config is to be read again.
    Reload,
    /// The container's process, or its whole group, is to get a signal.
    Signal {
        /// Its name or number, as the host wrote it.
        signal: String,
        /// Whether the group is meant.
        group: bool,
    },
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Power(change) => write!(f, "{change:?}"),
            Self::Reload => f.write_str("Reload"),
            Self::Signal { signal, group: false } => write!(f, "signal {signal}"),
            Self::Signal { signal, group: true } => write!(f, "signal {signal} to the group"),
        }
    }
}

/// What a request comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// RPCI requests to make, before the reply.
    pub requests: Vec<Vec<u8>>,
    /// The reply.
    pub reply: Vec<u8>,
    /// What is to be done, if that is what it was about.
    pub order: Option<Order>,
}

/// What the guest's tools know between requests.
#[derive(Debug, Clone, Default)]
pub struct Toolbox {
    nics: Vec<Nic>,
    /// Whether the host wants to hear of addresses.
    reports_addresses: bool,
    programs: Programs,
}

/// The tools version of those that are not VMware's own and not VMware's to upgrade.
const UNMANAGED_VERSION: &[u8] = b"tools.set.version 2147483647";

impl Toolbox {
    /// A toolbox that knows of no addresses, and of no user who may start anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// A toolbox of the container with this id.
    pub fn for_container(id: &str) -> Self {
        Self { programs: Programs::of(id), ..Self::default() }
    }

    /// What the guest's interfaces have now. The requests to make for it, none if nothing changed
    /// or the host does not want to know.
    pub fn set_nics(&mut self, nics: Vec<Nic>) -> Vec<Vec<u8>> {
        if self.nics == nics {
            return Vec::new();
        }
        self.nics = nics;
        self.address_requests()
    }

    /// Answers one request of the host; `now` is in seconds since 1970.
    pub fn handle(&mut self, request: &[u8], now: u64) -> Answer {
        let (name, arguments) = split_at_blank(request);
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        match name {
            b"reset" => Answer { requests: self.address_requests(), ..ok("ATR toolbox") },
            b"ping" => ok(""),
            b"Set_Option" => self.set_option(arguments),
            b"Capabilities_Register" => Answer {
                requests: vec![
                    UNMANAGED_VERSION.to_vec(),
                    b"tools.capability.statechange".to_vec(),
                ],
                ..ok("")
            },
            b"OS_Halt" => power(PowerChange::Halt),
            b"OS_Reboot" => power(PowerChange::Reboot),
            b"OS_PowerOn" => power(PowerChange::PowerOn),
            b"OS_Resume" => power(PowerChange::Resume),
            b"OS_Suspend" => power(PowerChange::Suspend),
            b"Vix_1_Relayed_Command" => {
                let (result, order) = self.programs.handle(arguments, now);
                let reply = [b"OK ", result.as_slice()].concat();
                Answer { reply, order, ..Answer::default() }
            }
            _ => Answer { reply: b"Unknown Command".to_vec(), ..Answer::default() },
        }
    }

    fn set_option(&mut self, arguments: &[u8]) -> Answer {
        let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
        match split_at_blank(arguments) {
            (b"broadcastIP", b"1") => {
                self.reports_addresses = true;
                Answer { requests: self.address_requests(), ..ok("") }
            }
            (b"broadcastIP", b"0") => {
                self.reports_addresses = false;
                ok("")
            }
            (b"" | b"broadcastIP", _) => Answer {
                reply: b"ERR an option needs a name and a value".to_vec(),
                ..Answer::default()
            },
            _ => ok(""),
        }
    }

    fn address_requests(&self) -> Vec<Vec<u8>> {
        if !self.reports_addresses {
            return Vec::new();
        }
        let primary = nicinfo::primary(&self.nics);
        let primary = primary.map(|ip| format!("info-set guestinfo.ip {ip}").into_bytes());
        primary.into_iter().chain([nicinfo::request(&self.nics)]).collect()
    }
}

fn ok(result: &str) -> Answer {
    Answer { reply: format!("OK {result}").into_bytes(), ..Answer::default() }
}

fn power(change: PowerChange) -> Answer {
    let acknowledged = format!("tools.os.statechange.status 1 {}\0", change as u8);
    Answer {
        requests: vec![acknowledged.into_bytes()],
        order: Some(Order::Power(change)),
        ..ok("")
    }
}

fn split_at_blank(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b' ') {
        Some(at) => (text.get(..at).unwrap_or(text), text.get(at + 1..).unwrap_or(b"")),
        None => (text, b""),
    }
}

/// What one visit to the host brought.
#[derive(Debug)]
pub struct Visit {
    /// What the host wants done. It has had its reply.
    pub order: Option<Order>,
    /// What went wrong; the conversation goes on regardless.
    pub faults: Vec<VisitFault>,
    /// How long to wait before the next visit.
    pub wait: Duration,
}

/// Something that went wrong on a visit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VisitFault {
    /// The channel broke; it is opened anew on the next visit.
    #[error("the toolbox lost its channel: {0}")]
    Channel(#[from] BackdoorError),
    /// The host would not have what it had asked for.
    #[error("the toolbox could not do what the host asked: {0}")]
    Request(#[from] RpciError),
}

/// A toolbox in conversation with the host.
#[derive(Debug)]
pub struct Conversation<P: Port + Clone> {
    port: P,
    toolbox: Toolbox,
    channel: Option<Channel<P>>,
    /// What the host is still to be told.
    reply: Vec<u8>,
    /// How many visits in a row found nothing.
    n_idle: u32,
}

impl<P: Port + Clone> Conversation<P> {
    /// A conversation that has not begun.
    pub const fn new(port: P, toolbox: Toolbox) -> Self {
        Self { port, toolbox, channel: None, reply: Vec::new(), n_idle: 0 }
    }

    /// Tells the host what the guest's interfaces have now, if it wants to know and they changed.
    pub fn set_nics(&mut self, nics: Vec<Nic>) -> Vec<VisitFault> {
        let requests = self.toolbox.set_nics(nics);
        self.make(&requests)
    }

    /// Visits the host once: hands over the last reply, takes and answers the next request.
    /// `now` is in seconds since 1970.
    pub fn visit(&mut self, now: u64) -> Visit {
        self.try_visit(now).unwrap_or_else(|error| {
            self.channel = None;
            self.reply.clear();
            Visit { order: None, faults: vec![error.into()], wait: AFTER_A_LOSS }
        })
    }

    fn try_visit(&mut self, now: u64) -> Result<Visit, BackdoorError> {
        let channel = match &mut self.channel {
            Some(channel) => channel,
            none => none.insert(Channel::open(self.port.clone(), Protocol::Tclo)?),
        };
        channel.send(&std::mem::take(&mut self.reply))?;
        let Some(request) = channel.receive()? else {
            self.n_idle = self.n_idle.saturating_add(1);
            return Ok(Visit { order: None, faults: Vec::new(), wait: idle_wait(self.n_idle) });
        };
        self.n_idle = 0;
        let Answer { requests, reply, order } = self.toolbox.handle(&request, now);
        let faults = self.make(&requests);
        self.reply = reply;
        if order.is_some()
            && let Some(channel) = &mut self.channel
        {
            // There may be no next visit.
            channel.send(&std::mem::take(&mut self.reply))?;
        }
        Ok(Visit { order, faults, wait: Duration::ZERO })
    }

    fn make(&mut self, requests: &[Vec<u8>]) -> Vec<VisitFault> {
        let refused = |request: &Vec<u8>| self.port.request(request).err();
        requests.iter().filter_map(refused).map(VisitFault::from).collect()
    }
}

/// How long a lost channel is left alone.
const AFTER_A_LOSS: Duration = Duration::from_secs(5);

/// 10, 20, 40, 80, then 100 ms: a host that talks is answered at once, an idle one costs ten visits
/// a second.
fn idle_wait(n_idle: u32) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_millis(100);
    (SHORTEST * (1 << n_idle.saturating_sub(1).min(4))).min(LONGEST)
}

#[cfg(test)]
mod tests;
