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
//!
//! [`Toolbox`] is the state machine, without a clock or a channel. [`Conversation`] carries it over
//! a channel and says how long to wait before the next visit: the backdoor has no event to wait
//! for.

use std::time::Duration;

use crate::backdoor::{BackdoorError, Channel, Port, Protocol};
use crate::rpci::{Requests as _, RpciError};

mod nicinfo;

pub use nicinfo::Nic;

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

/// What a request comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// RPCI requests to make, before the reply.
    pub requests: Vec<Vec<u8>>,
    /// The reply.
    pub reply: Vec<u8>,
    /// What happens to the VM, if that is what it was about.
    pub power: Option<PowerChange>,
}

/// What the guest's tools know between requests.
#[derive(Debug, Clone, Default)]
pub struct Toolbox {
    nics: Vec<Nic>,
    /// Whether the host wants to hear of addresses.
    reports_addresses: bool,
}

/// The tools version of those that are not VMware's own and not VMware's to upgrade.
const UNMANAGED_VERSION: &[u8] = b"tools.set.version 2147483647";

impl Toolbox {
    /// A toolbox that knows of no addresses.
    pub fn new() -> Self {
        Self::default()
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

    /// Answers one request of the host.
    pub fn handle(&mut self, request: &[u8]) -> Answer {
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
    Answer { requests: vec![acknowledged.into_bytes()], power: Some(change), ..ok("") }
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
    /// What happens to the VM. The host has had its reply.
    pub power: Option<PowerChange>,
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
    pub fn visit(&mut self) -> Visit {
        self.try_visit().unwrap_or_else(|error| {
            self.channel = None;
            self.reply.clear();
            Visit { power: None, faults: vec![error.into()], wait: AFTER_A_LOSS }
        })
    }

    fn try_visit(&mut self) -> Result<Visit, BackdoorError> {
        let channel = match &mut self.channel {
            Some(channel) => channel,
            none => none.insert(Channel::open(self.port.clone(), Protocol::Tclo)?),
        };
        channel.send(&std::mem::take(&mut self.reply))?;
        let Some(request) = channel.receive()? else {
            self.n_idle = self.n_idle.saturating_add(1);
            return Ok(Visit { power: None, faults: Vec::new(), wait: idle_wait(self.n_idle) });
        };
        self.n_idle = 0;
        let Answer { requests, reply, power } = self.toolbox.handle(&request);
        let faults = self.make(&requests);
        self.reply = reply;
        if power.is_some()
            && let Some(channel) = &mut self.channel
        {
            // There may be no next visit.
            channel.send(&std::mem::take(&mut self.reply))?;
        }
        Ok(Visit { power, faults, wait: Duration::ZERO })
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
