//! Bounds of a link; each says what it costs.

use crate::time::Duration;

/// Protocol versions this build speaks, lowest and highest.
pub const PROTOCOLS: (u32, u32) = (1, 1);

/// Feature bit of a hello: the mux keeps a pipe that answers it only to be known (see
/// [`Standby`](crate::Standby)).
pub const RESTING: u64 = 1 << 8;

/// Feature bit of a hello: receivers tell what they have by DIGEST records and the mux which channel
/// ids by USED, so that an end whose memory went back in time is found out.
pub const REWIND: u64 = 1;

/// All features this build has.
pub const FEATURES: u64 = REWIND | RESTING;

/// Kinds of pipe, in the order in which a guest prefers them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A serial port; also what a peer that does not say has.
    #[default]
    Uart,
    /// A vsock connection.
    Vsock,
    /// A virtio-serial port.
    Virtio,
}

impl Transport {
    /// All of them, in that order.
    pub const ALL: [Self; 3] = [Self::Uart, Self::Vsock, Self::Virtio];

    /// A word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Uart => "uart",
            Self::Virtio => "virtio",
            Self::Vsock => "vsock",
        }
    }

    /// Its number in a hello.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Uart => 0,
            Self::Virtio => 1,
            Self::Vsock => 2,
        }
    }

    /// The one with this number; a number of a newer peer's counts as the plainest.
    pub(crate) fn of(number: u32) -> Self {
        Self::ALL.into_iter().find(|it| it.number() == number).unwrap_or_default()
    }
}

/// Bytes at which the receiving FIFO of a guest's serial port asks to be read, as the agent sets it: the
/// highest of the four levels that a 16550A has. The fewer times the guest is interrupted, the more
/// it can take.
pub const UART_TRIGGER: usize = 14;

/// How long an end is attentive after little has come. Longer would be felt where it floods, as text of a log goes a
/// third slower meanwhile; and who pauses between two keys does not notice 8 ms in the place of 3.
pub const ATTENTION: Duration = Duration::from_millis(100);

/// Bytes of a record that are little: a keystroke's, a request's.
pub(crate) const LITTLE: usize = 64;

/// Bounds of a link.
///
/// What one end holds is bounded by them, see [`memory_limit`](Self::memory_limit).
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Most record bytes in one packet either way. Larger costs latency behind it on a slow line.
    pub max_packet: usize,
    /// Record bytes in one packet until the line's rate is known.
    pub first_packet: usize,
    /// How long one packet may occupy the line; sizes packets to the measured rate.
    pub packet_time: Duration,
    /// The same while little comes from the peer, and has within [`ATTENTION`]: somebody types, or asks. What answers
    /// that waits for a packet of something else.
    pub attentive_packet_time: Duration,
    /// Most bytes on the way and not acknowledged. Larger costs latency, smaller throughput.
    pub window: usize,
    /// That many bytes may be on the way whatever the measured rate says. As much as `window` where
    /// the line takes bytes only as fast as it carries them (a tty does), so that nothing piles up
    /// beyond the reach of priorities; little where a socket takes whatever it is given.
    pub least_window: usize,
    /// Bytes of one channel kept until released by the peer.
    pub send_buffer: usize,
    /// Bytes of one channel the peer may send ahead of what was released here.
    pub receive_window: u64,
    /// Most channels open at once; further ones are refused.
    pub max_channels: usize,
    /// What is sent ends at a multiple of so many bytes, filled up with delimiters, when nothing more
    /// follows at once; 0 or 1: at any byte. As many as it takes to make a FIFO ask to be read: the
    /// bytes behind the last such multiple would lie in it until its timer runs out, which is for four
    /// characters (347 µs at 115,200 bits per second).
    pub align: usize,
    /// Longest wait before an acknowledgement that nobody asked to have at once. Within it, it goes along with
    /// whatever is sent anyway: a keystroke's with its echo.
    pub ack_delay: Duration,
    /// The same for little that was released. A sender that has sent all it may is told at once.
    pub release_delay: Duration,
    /// Silence after which a mux asks whether the guest is still there.
    pub keepalive: Duration,
    /// Whether bytes on the line cost more than the processor's time for compressing them. The link does not
    /// compress; it is for those who write to its channels.
    pub scarce: bool,
    /// Features to offer and to agree to, as bits. Without one, a link is as one of an older build.
    pub features: u64,
    /// Protocol versions to speak, lowest and highest.
    pub protocols: (u32, u32),
}

impl LinkConfig {
    /// Most bytes one end holds with so many channels open, the allocator's slack apart, whatever
    /// the peer does:
    ///
    /// - frames: 5 × (`max_packet` + 1 KiB);
    /// - notes on what is on the way: 32 × (`window` + `max_packet` + 1 KiB), as a record of four
    ///   bytes can take a note of a hundred;
    /// - what the last packets were, to know them again: 3 KiB;
    /// - ids of channels gone, reset or to be told: 64 × `max_channels`;
    /// - per channel: 1 KiB, and the larger of a sender's 2 × `send_buffer` and a receiver's
    ///   `receive_window` + 4,096 scattered pieces × 64 bytes.
    pub fn memory_limit(&self, channels: usize) -> usize {
        let packet = self.max_packet + 1024;
        let window = usize::try_from(self.receive_window).unwrap_or(usize::MAX);
        let receiver = window.saturating_add(crate::recv::MAX_AHEAD * 64);
        let channel = receiver.max(2 * self.send_buffer).saturating_add(1024);
        let fixed = 3072 + 5 * packet + 32 * (self.window + packet) + 64 * self.max_channels;
        fixed.saturating_add(channels.saturating_mul(channel))
    }

    /// What the guest's end of a link over this kind of pipe uses.
    pub fn guest(transport: Transport) -> Self {
        match transport {
            Transport::Uart => Self::uart(),
            Transport::Virtio => Self::virtio(),
            Transport::Vsock => Self::vsock(),
        }
    }

    /// What the mux's end of a link over this kind of pipe uses.
    pub fn mux(transport: Transport) -> Self {
        match transport {
            Transport::Uart => Self::uart_mux(),
            Transport::Virtio => Self::virtio_mux(),
            Transport::Vsock => Self::vsock_mux(),
        }
    }

    /// For a 16550 serial port, emulated or real: 10 KB/s to 2 MB/s.
    pub fn uart() -> Self {
        Self {
            // What 10 ms of the fastest emulated port carry.
            max_packet: 16 * 1024,
            first_packet: 512,
            packet_time: Duration::from_millis(10),
            attentive_packet_time: Duration::from_millis(1),
            window: 64 * 1024,
            least_window: 64 * 1024,
            send_buffer: 256 * 1024,
            receive_window: 64 * 1024,
            max_channels: 1024,
            align: 0,
            ack_delay: Duration::from_millis(20),
            release_delay: Duration::from_millis(20),
            keepalive: Duration::from_secs(30),
            scarce: true,
            features: FEATURES,
            protocols: PROTOCOLS,
        }
    }

    /// The mux's end of the same: little on the way, as a guest's tty holds little.
    pub fn uart_mux() -> Self {
        let (window, least_window) = (16 * 1024, 4 * 1024);
        let align = UART_TRIGGER;
        let uart = Self::uart();
        // What comes of a guest is its output: little of that asks for nothing.
        let attentive_packet_time = uart.packet_time;
        let receive_window = 256 * 1024;
        Self { window, least_window, receive_window, align, attentive_packet_time, ..uart }
    }

    /// For a virtio-serial port: lossless while both ends stay, 10 to 500 MB/s. Output is held until
    /// it is durable, so the buffer is what that rate needs for some milliseconds of a disk.
    pub fn virtio() -> Self {
        Self {
            max_packet: 24 * 1024,
            first_packet: 4096,
            window: 512 * 1024,
            least_window: 256 * 1024,
            attentive_packet_time: Duration::from_millis(10),
            send_buffer: 1024 * 1024,
            receive_window: 512 * 1024,
            ack_delay: Duration::from_millis(2),
            scarce: false,
            ..Self::uart()
        }
    }

    /// The mux's end of the same.
    pub fn virtio_mux() -> Self {
        Self { least_window: 64 * 1024, receive_window: 1024 * 1024, ..Self::virtio() }
    }

    /// For a vsock connection, which is much like a virtio-serial port.
    pub fn vsock() -> Self {
        Self::virtio()
    }

    /// The mux's end of the same.
    pub fn vsock_mux() -> Self {
        Self::virtio_mux()
    }
}
