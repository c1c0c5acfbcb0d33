//! What a link is like at this moment: how fast, how full, and where bytes wait.

use super::{Half, Link};
use crate::channel::Class;
use crate::time::Duration;

/// Bytes of the channels of one class, where they are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depths {
    /// Open channels.
    pub channels: usize,
    /// Written here and not yet sent, or to be sent again.
    pub queued: u64,
    /// Written here and not yet released by the peer, what is queued included.
    pub unreleased: u64,
    /// Received here and not yet read by the owner.
    pub unread: u64,
    /// Received here beyond a gap that is still to be filled.
    pub ahead: u64,
}

/// A link's state in numbers. Those of the session are 0 or `None` without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Shortest round trip of the session.
    pub rtt_min: Option<Duration>,
    /// Delivery rate to the peer, bytes per second.
    pub rate: Option<u64>,
    /// Bytes of packets on the way to the peer.
    pub in_flight: usize,
    /// As many bytes may be.
    pub window: usize,
    /// Most record bytes in a packet at this rate.
    pub packet: usize,
    /// Bytes of memory, of which [`LinkConfig`](crate::LinkConfig) has the bound.
    pub memory: usize,
    /// By class, in the order of [`Class::ALL`].
    pub depths: [Depths; Class::ALL.len()],
}

impl Link {
    /// How the link is now.
    pub fn gauges(&self) -> Gauges {
        let mut depths = [Depths::default(); Class::ALL.len()];
        for channel in self.channels.values() {
            let Some(depth) = depths.get_mut(channel.class as usize) else { continue };
            depth.channels += 1;
            match &channel.half {
                Half::Send(send) => {
                    depth.queued += send.queued();
                    depth.unreleased += send.end() - send.base();
                }
                Half::Recv(recv) => {
                    depth.unread += recv.unread();
                    depth.ahead += recv.ahead();
                }
            }
        }
        let live = self.live.as_ref();
        Gauges {
            rtt: live.and_then(|live| live.rtt.smoothed()),
            rtt_min: live.and_then(|live| live.rtt.min()),
            rate: live.and_then(|live| live.rtt.rate()),
            in_flight: live.map_or(0, |live| live.in_flight.bytes()),
            window: self.window(),
            packet: self.packet_limit(),
            memory: self.memory(),
            depths,
        }
    }
}
