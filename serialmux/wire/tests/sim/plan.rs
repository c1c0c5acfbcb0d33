//! What a simulated run is like, drawn from its seed.

use crate::line::Faults;
use crate::rng::Rng;
use wire::{LinkConfig, Protection};

/// What the simulator itself gets wrong on purpose, to show that its checks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// The mux releases what is written, not what is synced.
    ReleaseBeforeSync,
    /// The mux writes two reads in the wrong order.
    Reorder,
    /// The mux writes a read twice.
    Repeat,
    /// The mux leaves a byte of a read out.
    Omit,
    /// A restarted mux claims more than its disk holds.
    ClaimTooMuch,
    /// The guest's frames are seen twice, as if sealed twice under one number.
    ReuseNumber,
    /// The mux never reads again after a while.
    Starve,
}

/// What a run is like.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Faults,
    pub(crate) rate: u64,
    pub(crate) protection: Protection,
    /// Bytes out of each output channel, and into the input channel.
    pub(crate) output: Vec<usize>,
    pub(crate) input: usize,
    /// How hostile the payload is: random, zeros, 0xFF, or frames of our own.
    pub(crate) payload: u64,
    /// A receiver is woken for so many bytes at once, as a UART's FIFO does it.
    pub(crate) grain: usize,
    /// Buffers and windows of a few kilobytes, so that each is full at times.
    pub(crate) is_tight: bool,
    /// Once in so many bytes on the line each: the pipe is cut, a new one takes over from a half-open one, the
    /// mux is killed, its machine loses power, the guest is suspended, an end's clock jumps, the
    /// guest reboots, a short channel is opened besides.
    pub(crate) cut: u64,
    pub(crate) takeover: u64,
    pub(crate) kill: u64,
    pub(crate) power: u64,
    pub(crate) suspend: u64,
    pub(crate) jump: u64,
    pub(crate) reboot: u64,
    pub(crate) visit: u64,
    /// Once in so many bytes the guest is put back to a snapshot, and twice as often one is taken.
    pub(crate) restore: u64,
    /// Its connection stays then.
    pub(crate) keeps_pipe: bool,
    /// Once in so many syncs one fails.
    pub(crate) bad_sync: u64,
    /// The mux's readers take up to so long, µs.
    pub(crate) lag_us: u64,
    pub(crate) sabotage: Option<Sabotage>,
    /// The guest's window, bytes.
    pub(crate) window: usize,
}

impl Plan {
    /// A clean line of `rate` bytes per second.
    pub(crate) fn clean(seed: u64, rate: u64, output: Vec<usize>, input: usize) -> Self {
        Self {
            seed,
            faults: Faults::default(),
            rate,
            protection: Protection::Sealed,
            output,
            input,
            payload: 0,
            grain: 1,
            is_tight: false,
            cut: 0,
            takeover: 0,
            kill: 0,
            power: 0,
            suspend: 0,
            jump: 0,
            reboot: 0,
            visit: 0,
            restore: 0,
            keeps_pipe: false,
            bad_sync: 0,
            lag_us: 0,
            sabotage: None,
            window: LinkConfig::uart().window,
        }
    }

    /// Whatever the seed says.
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let mut odds = |most: u64, least: u64| match rng.below(3) {
            0 => 0,
            _ => least + rng.below(most),
        };
        let faults = Faults {
            drop: odds(20_000, 200),
            burst: odds(40_000, 500),
            flip: odds(20_000, 200),
            insert: odds(20_000, 200),
            text: odds(40_000, 2_000),
            repeat: odds(40_000, 1_000),
            stall: odds(80_000, 4_000),
            rate: odds(40_000, 4_000),
        };
        let mut rare = |most: u64, least: u64| match rng.below(2) {
            0 => 0,
            _ => least + rng.below(most),
        };
        let (cut, takeover, kill) = (rare(12_000, 400), rare(12_000, 400), rare(24_000, 800));
        let (power, suspend, jump) = (rare(24_000, 800), rare(24_000, 800), rare(24_000, 800));
        let (reboot, bad_sync, visit) = (rare(60_000, 4_000), rare(400, 20), rare(800, 40));
        let restore = if rng.one_in(4) { 1_000 + rng.below(30_000) } else { 0 };
        let lag_us = [0, 0, 50_000, 3_000_000][rng.below(4) as usize];
        let rate = [11_000, 60_000, 200_000, 900_000][rng.below(4) as usize];
        let output = (0..1 + rng.below(4)).map(|_| rng.below(16_000) as usize).collect();
        let input = rng.below(6_000) as usize;
        // Curves and seals take most of a run's time and know nothing of what happens to it.
        let protection = if rng.one_in(4) { Protection::Sealed } else { Protection::Plain };
        let grain = [1, 14, 14, 64, 64, 64, 250, 250][rng.below(8) as usize];
        Self {
            faults,
            protection,
            payload: rng.below(6),
            grain,
            is_tight: rng.one_in(3),
            cut,
            takeover,
            kill,
            power,
            suspend,
            jump,
            reboot,
            visit,
            restore,
            keeps_pipe: rng.one_in(2),
            bad_sync,
            lag_us,
            ..Self::clean(seed, rate, output, input)
        }
    }

    /// The guest's bounds.
    pub(crate) fn guest_config(&self) -> LinkConfig {
        let config = LinkConfig { window: self.window, ..LinkConfig::uart() };
        if self.is_tight {
            LinkConfig { send_buffer: 2_500, receive_window: 900, window: 3_000, ..config }
        } else {
            config
        }
    }

    /// The mux's bounds. Its windows hold at least the credit that comes with an OPEN.
    pub(crate) fn mux_config(&self) -> LinkConfig {
        let config = LinkConfig::uart_mux();
        if self.is_tight {
            LinkConfig { send_buffer: 1_500, receive_window: 16 * 1024, window: 2_000, ..config }
        } else {
            config
        }
    }

    /// Bytes of the kind this run sends.
    pub(crate) fn bytes(&self, rng: &mut Rng, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        match self.payload {
            1 => {}
            2 => bytes.fill(0xff),
            3 => bytes.iter_mut().for_each(|b| *b = [0, 0xff][rng.below(2) as usize]),
            4 => {
                let mut frame = Vec::new();
                let header =
                    wire::packet::Header { kind: wire::packet::Kind::Hello, tag: 1, number: 2 };
                wire::frame::encode(&wire::packet::clear(header, b"no hello"), &mut frame);
                bytes.iter_mut().zip(frame.iter().cycle()).for_each(|(b, f)| *b = *f);
            }
            _ => rng.fill(&mut bytes),
        }
        // Told apart at every offset even so, or a splice would go unseen.
        bytes.chunks_mut(64).enumerate().for_each(|(i, chunk)| {
            if let [first, second, ..] = chunk {
                (*first, *second) = (i as u8, (i >> 8) as u8);
            }
        });
        bytes
    }
}
