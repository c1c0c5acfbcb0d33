//! VMware's backdoor, messages through one I/O port, as a state machine over registers.
//!
//! Nothing here executes an instruction; that is a [`Port`]'s part
//! ([`sys::Backdoor`](crate::sys::Backdoor) has the real ones).
//!
//! # Registers
//! Every call sets `EAX` to a magic number and `EDX` to the port, low half, and the channel, high
//! half.
//!
//! | step (`ECX` high half, low is 0x1E) | `EBX` in | answer |
//! |---|---|---|
//! | 0 open | protocol, with the flag 0x8000_0000 for cookies | `EDX` high = channel, `ESI`/`EDI` = cookie |
//! | 1 send size | bytes | status 0x80: the high-bandwidth port takes the payload |
//! | 2 send payload | next 4 bytes | |
//! | 3 receive size | 0 | status 0x02: there is a message, of `EBX` bytes; `EDX` high = 1 |
//! | 4 receive payload | 1 | `EBX` = next 4 bytes; `EDX` high = 2 |
//! | 5 receive status | 1 taken, 0 not | |
//! | 6 close | 0 | |
//!
//! Status comes back in the high half of `ECX`: 0x01 success, 0x02 message waiting, 0x10
//! checkpoint. The cookie goes in `ESI` (high) and `EDI` (low) of each call after the first.
//!
//! On the high-bandwidth port one `rep outsb` or `rep insb` moves the payload: `EBX` = 0x0001_0000
//! in, status in its high half out, `ECX` = bytes; `RSI` or `RDI` is the memory's address, and the
//! cookie moves out of its way into `EBP` (its high part when sending, its low part when
//! receiving).
//!
//! # Checkpoints
//! A VM that was suspended, snapshotted or moved in mid-message gets the checkpoint status; the
//! message then starts over, at most [`MAX_ATTEMPTS`] times. Nothing waits and nothing is kept
//! between calls; a message is at most [`MAX_MESSAGE`] long.

use std::fmt;

mod channel;

pub use channel::Channel;

/// The registers that a call hands over and gets back, each 64 bits wide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the processor's")]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
}

/// What executes the instructions that reach the hypervisor.
pub trait Port {
    /// `in eax, dx` with these registers; all of them may come back changed.
    fn call(&mut self, regs: &mut Regs);

    /// `rep outsb` of `data`: sets `RCX` and `RSI` for it, the rest is as given.
    fn send(&mut self, regs: &mut Regs, data: &[u8]);

    /// `rep insb` to fill `buffer`: sets `RCX` and `RDI` for it, the rest is as given.
    fn receive(&mut self, regs: &mut Regs, buffer: &mut [u8]);
}

impl<P: Port + ?Sized> Port for &mut P {
    fn call(&mut self, regs: &mut Regs) {
        (**self).call(regs);
    }

    fn send(&mut self, regs: &mut Regs, data: &[u8]) {
        (**self).send(regs, data);
    }

    fn receive(&mut self, regs: &mut Regs, buffer: &mut [u8]) {
        (**self).receive(regs, buffer);
    }
}

/// `EAX` of every call, "VMXh".
pub const MAGIC: u32 = 0x564D_5868;
/// The port for single calls, and the one for payloads.
pub const PORT: u16 = 0x5658;
/// The port that moves whole payloads.
pub const PORT_HIGH: u16 = 0x5659;
/// `ECX` low half of a version request.
pub const COMMAND_VERSION: u16 = 0x0A;
/// `ECX` low half of all messages.
pub const COMMAND_MESSAGE: u16 = 0x1E;
/// Added to the protocol when opening: the channel shall have a cookie.
pub const COOKIE_FLAG: u32 = 0x8000_0000;

/// The longest message either way, in bytes: vSphere holds 1 MiB of guestinfo for a VM in all.
pub const MAX_MESSAGE: usize = 1 << 20;
/// How often a message is begun before checkpoints are given up on.
pub const MAX_ATTEMPTS: usize = 16;

/// Bits of a status.
pub mod status {
    /// Done.
    pub const SUCCESS: u16 = 0x01;
    /// A message waits to be received.
    pub const WAITING: u16 = 0x02;
    /// The VM was checkpointed; start the message over.
    pub const CHECKPOINT: u16 = 0x10;
    /// The payload may take the high-bandwidth port.
    pub const HIGH_BANDWIDTH: u16 = 0x80;
}

/// Who starts the talk on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The guest asks, the host answers.
    Rpci,
    /// The host asks, the guest answers.
    Tclo,
}

impl Protocol {
    /// The number that opens it, its name's letters.
    pub const fn number(self) -> u32 {
        match self {
            Self::Rpci => u32::from_le_bytes(*b"RPCI"),
            Self::Tclo => u32::from_le_bytes(*b"TCLO"),
        }
    }
}

/// A step of a message; the number is `ECX`'s high half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Step {
    /// Opens a channel.
    Open = 0,
    /// Announces a message.
    SendSize = 1,
    /// Hands over its bytes.
    SendPayload = 2,
    /// Asks for a message.
    ReceiveSize = 3,
    /// Takes its bytes.
    ReceivePayload = 4,
    /// Says that it was taken.
    ReceiveStatus = 5,
    /// Closes the channel.
    Close = 6,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open a channel",
            Self::SendSize => "announce a message",
            Self::SendPayload => "send a message",
            Self::ReceiveSize => "ask for a message",
            Self::ReceivePayload => "receive a message",
            Self::ReceiveStatus => "acknowledge a message",
            Self::Close => "close the channel",
        })
    }
}

/// Why a message did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackdoorError {
    /// The hypervisor did not report success.
    #[error("the hypervisor refused to {step}, with status {status:#06x}; expected 0x0001 set")]
    Refused {
        /// What was asked of it.
        step: Step,
        /// What it answered.
        status: u16,
    },
    /// Each attempt was cut short.
    #[error("{MAX_ATTEMPTS} attempts to {step} were all cut short by checkpoints; try again later")]
    Checkpoints {
        /// What was asked last.
        step: Step,
    },
    /// The hypervisor answered something else than was asked.
    #[error("asked to {step}, the hypervisor went on with step {found}; expected {expected}")]
    OutOfStep {
        /// What was asked of it.
        step: Step,
        /// The step that it named.
        found: u16,
        /// The step that belongs to the question.
        expected: u16,
    },
    /// A message longer than any that makes sense.
    #[error("a message of {size} bytes; expected at most {MAX_MESSAGE}")]
    TooLong {
        /// Its length.
        size: usize,
    },
}

/// The hypervisor's version of the backdoor; `None` if what answers is none.
pub fn version<P: Port + ?Sized>(port: &mut P) -> Option<u32> {
    let mut regs = Regs {
        rax: MAGIC.into(),
        rbx: u64::from(!MAGIC),
        rcx: COMMAND_VERSION.into(),
        rdx: PORT.into(),
        ..Regs::default()
    };
    port.call(&mut regs);
    let version = low32(regs.rax);
    (low32(regs.rbx) == MAGIC && version != 0 && version != u32::MAX).then_some(version)
}

fn message(step: Step, channel: u16, rbx: u32) -> Regs {
    Regs {
        rax: MAGIC.into(),
        rbx: rbx.into(),
        rcx: u64::from(step as u16) << 16 | u64::from(COMMAND_MESSAGE),
        rdx: u64::from(channel) << 16 | u64::from(PORT),
        ..Regs::default()
    }
}

/// The low 32 bits; the rest of a 64-bit register is not part of the protocol.
const fn low32(register: u64) -> u32 {
    (register & 0xFFFF_FFFF) as u32
}

/// The high half of the low 32 bits.
const fn high(register: u64) -> u16 {
    (register >> 16 & 0xFFFF) as u16
}
