//! The agent's part of VMware's guest tools: the toolbox, driven by the agent's clock.
//!
//! The backdoor has no event, so the host is visited: at once after a request, then at growing intervals up to
//! 100 ms, 5 s after a channel was lost and twice as long after each further loss.

use std::time::Duration;

use guestinfo::Spec;
use guestinfo::backdoor::Port;
use guestinfo::tclo::{Conversation, Order, Toolbox};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::clock;

use super::interfaces::{Interface, nics};

/// The most visits in one turn: a host that keeps asking must not keep the agent from its container.
const MAX_VISITS: usize = 16;

/// The longest that a host without the channel is left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A toolbox that knows when to visit its host.
#[derive(Debug)]
pub struct HostTools<P: Port + Clone> {
    conversation: Conversation<P>,
    visit_at: Instant,
    n_faults: u32,
}

impl<P: Port + Clone> HostTools<P> {
    /// Tools for the container of this spec, which visit their host at once.
    pub fn new(port: P, spec: &Spec) -> Self {
        let toolbox = Toolbox::for_container(&spec.id);
        Self {
            conversation: Conversation::new(port, toolbox),
            visit_at: Instant::now(),
            n_faults: 0,
        }
    }

    /// Tells the host what the guest's interfaces have now, if it wants to know.
    pub fn set_interfaces(&mut self, interfaces: &[Interface]) {
        for fault in self.conversation.set_nics(nics(interfaces)) {
            warn!("{fault}");
        }
    }

    /// When the host is to be visited.
    pub fn deadline(&self) -> Instant {
        self.visit_at
    }

    /// Visits the host if it is time; what it orders.
    pub fn turn(&mut self, now: Instant) -> Option<Order> {
        for _ in 0..MAX_VISITS {
            if self.visit_at > now {
                return None;
            }
            let visit = self.conversation.visit(clock::wall_us() / 1_000_000);
            for fault in &visit.faults {
                // Once in a while is enough of the same.
                if self.n_faults < 3 {
                    warn!("{fault}");
                } else {
                    debug!("{fault}");
                }
            }
            let is_lost = visit.wait >= Duration::from_secs(1);
            self.n_faults = if is_lost { self.n_faults.saturating_add(1) } else { 0 };
            let longer = 1 << self.n_faults.saturating_sub(1).min(10);
            self.visit_at = now + (visit.wait * longer).min(LONGEST_WAIT);
            if let Some(order) = visit.order {
                info!("the host orders: {order}");
                return Some(order);
            }
        }
        self.visit_at = now + Duration::from_millis(10);
        None
    }
}

#[cfg(test)]
mod tests {
    use guestinfo::backdoor::Regs;

    use super::*;

    /// A hypervisor that knows the port but no messages, as QEMU's `vmport`.
    #[derive(Debug, Clone)]
    struct Deaf;

    impl Port for Deaf {
        fn call(&mut self, regs: &mut Regs) {
            regs.rax = u64::from(u32::MAX);
        }

        fn send(&mut self, _: &mut Regs, _: &[u8]) {
            panic!("there is no channel to send on");
        }

        fn receive(&mut self, _: &mut Regs, _: &mut [u8]) {
            panic!("there is no channel to receive from");
        }
    }

    #[test]
    fn a_host_without_the_channel_is_asked_ever_more_rarely() {
        let mut tools = HostTools::new(Deaf, &Spec::default());
        let mut waits = Vec::new();
        for _ in 0..9 {
            let now = tools.deadline();
            assert_eq!(tools.turn(now), None);
            waits.push((tools.deadline() - now).as_secs());
            assert_eq!(tools.turn(now), None, "not before its time");
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }
}
