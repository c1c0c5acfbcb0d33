//! What an operator of the hypervisor orders, and what the agent does about it.

use guestinfo::tclo::{Order, PowerChange};
use tracing::{info, warn};

use super::Agent;
use crate::host::HostEvent;
use crate::signal;

/// What happens to the machine when the agent is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// It is powered off.
    #[default]
    PowerOff,
    /// It starts again.
    Restart,
}

impl Ending {
    /// How the machine ends that the operator asks for this change; for others than an end, nothing.
    fn after(change: PowerChange) -> Option<Self> {
        match change {
            PowerChange::Halt => Some(Self::PowerOff),
            PowerChange::Reboot => Some(Self::Restart),
            PowerChange::PowerOn | PowerChange::Resume | PowerChange::Suspend => None,
        }
    }
}

impl Agent {
    pub(super) fn host_event(&mut self, event: HostEvent) {
        match event {
            HostEvent::Order(order) => self.obey(order),
            HostEvent::Progress => {}
        }
    }

    /// Does what is due around the machine, and reports its addresses if they have changed.
    pub(super) fn look_around(&mut self) {
        let (order, changed) = self.host.turn();
        if changed {
            self.report_endpoints();
        }
        if let Some(order) = order {
            self.obey(order);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Power(change) => match Ending::after(change) {
                Some(ending) => {
                    match ending {
                        Ending::PowerOff => info!("the operator shuts the machine down"),
                        Ending::Restart => info!("the operator restarts the machine"),
                    }
                    self.ending = ending;
                    self.stop();
                }
                None => info!("the host says: {change:?}"),
            },
            Order::Reload => {
                // The report says how it went.
                let _told = self.reload();
            }
            Order::Signal { signal, group } => self.send(&signal, group),
        }
    }

    fn send(&mut self, name: &str, group: bool) {
        let Some(number) = signal::number(name) else {
            return warn!("the host asks for signal {name:?}, which does not exist");
        };
        match self.sessions.signal_first(number, group, &mut self.uplink) {
            Ok(()) => info!("signal {number} sent for the host"),
            Err(error) => warn!("signal {number} for the host: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_to_halt_ends_in_a_power_off_and_one_to_reboot_in_a_restart() {
        for (change, expected) in [
            (PowerChange::Halt, Some(Ending::PowerOff)),
            (PowerChange::Reboot, Some(Ending::Restart)),
            (PowerChange::PowerOn, None),
            (PowerChange::Resume, None),
            (PowerChange::Suspend, None),
        ] {
            assert_eq!(Ending::after(change), expected, "{change:?}");
        }
    }
}
