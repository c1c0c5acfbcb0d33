//! VMware's backdoor: messages to and from the hypervisor through one I/O port, as a state machine over registers.
//!
//! Nothing here executes an instruction; that is a [`Port`]'s part ([`sys::Backdoor`](crate::sys::Backdoor)
//! has the real ones).
//!
//! # Registers
//! Every call sets `EAX` to a magic number and `EDX` to the port, low half, and the channel, high half.
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
//! Status comes back in the high half of `ECX`: 0x01 success, 0x02 message waiting, 0x10 checkpoint. The
//! cookie goes in `ESI` (high) and `EDI` (low) of each call after the first.
//!
//! On the high-bandwidth port one `rep outsb` or `rep insb` moves the payload: `EBX` = 0x0001_0000 in, status in its
//! high half out, `ECX` = bytes; `RSI` or `RDI` is the memory's address, and the cookie moves out of its way into `EBP`
//! (its high part when sending, its low part when receiving).
//!
//! # Checkpoints
//! A VM that was suspended, snapshotted or moved in mid-message gets the checkpoint status; the message then starts
//! over, at most [`MAX_ATTEMPTS`] times. Nothing waits and nothing is kept between calls; a message is at most [`MAX_MESSAGE`] long.

use std::fmt;

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

/// What one attempt came to.
enum Attempt<T> {
    Done(T),
    Checkpointed(Step),
}

/// An open channel. Closed when dropped.
pub struct Channel<P: Port> {
    port: P,
    id: u16,
    cookie_high: u32,
    cookie_low: u32,
}

impl<P: Port> fmt::Debug for Channel<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.id)
    }
}

impl<P: Port> Drop for Channel<P> {
    fn drop(&mut self) {
        // Whether it succeeds makes no difference to anyone: the hypervisor reclaims a channel that it lost.
        self.call(Step::Close, 0);
    }
}

impl<P: Port> Channel<P> {
    /// Opens a channel, with a cookie if the hypervisor knows of those.
    ///
    /// # Errors
    /// It opens neither with nor without.
    pub fn open(mut port: P, protocol: Protocol) -> Result<Self, BackdoorError> {
        let mut status = 0;
        for flags in [COOKIE_FLAG, 0] {
            let mut regs = message(Step::Open, 0, protocol.number() | flags);
            port.call(&mut regs);
            status = high(regs.rcx);
            if status & status::SUCCESS != 0 {
                let (cookie_high, cookie_low) = (low32(regs.rsi), low32(regs.rdi));
                return Ok(Self { port, id: high(regs.rdx), cookie_high, cookie_low });
            }
        }
        Err(BackdoorError::Refused { step: Step::Open, status })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// It is too long, or the hypervisor does not take it.
    pub fn send(&mut self, message: &[u8]) -> Result<(), BackdoorError> {
        let size = checked_size(message.len())?;
        self.attempts(|channel| channel.try_send(message, size))
    }

    /// Takes the waiting message, if there is one.
    ///
    /// # Errors
    /// It is too long, or the hypervisor does not hand it over.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>, BackdoorError> {
        self.attempts(Self::try_receive)
    }

    fn attempts<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<Attempt<T>, BackdoorError>,
    ) -> Result<T, BackdoorError> {
        let mut cut = Step::Open;
        for _ in 0..MAX_ATTEMPTS {
            match attempt(self)? {
                Attempt::Done(value) => return Ok(value),
                Attempt::Checkpointed(step) => cut = step,
            }
        }
        Err(BackdoorError::Checkpoints { step: cut })
    }

    fn try_send(&mut self, message: &[u8], size: u32) -> Result<Attempt<()>, BackdoorError> {
        let regs = self.call(Step::SendSize, size);
        let status = high(regs.rcx);
        if let cut @ Attempt::Checkpointed(_) = judge(Step::SendSize, status)? {
            return Ok(cut);
        }
        if message.is_empty() {
            return Ok(Attempt::Done(()));
        }
        if status & status::HIGH_BANDWIDTH != 0 {
            let mut regs = self.high_bandwidth();
            (regs.rbp, regs.rdi) = (self.cookie_high.into(), self.cookie_low.into());
            self.port.send(&mut regs, message);
            return judge(Step::SendPayload, high(regs.rbx));
        }
        for word in message.chunks(4) {
            let regs = self.call(Step::SendPayload, word_of(word));
            if let cut @ Attempt::Checkpointed(_) = judge(Step::SendPayload, high(regs.rcx))? {
                return Ok(cut);
            }
        }
        Ok(Attempt::Done(()))
    }

    fn try_receive(&mut self) -> Result<Attempt<Option<Vec<u8>>>, BackdoorError> {
        let regs = self.call(Step::ReceiveSize, 0);
        let status = high(regs.rcx);
        if let Attempt::Checkpointed(step) = judge(Step::ReceiveSize, status)? {
            return Ok(Attempt::Checkpointed(step));
        }
        if status & status::WAITING == 0 {
            return Ok(Attempt::Done(None));
        }
        in_step(Step::ReceiveSize, Step::SendSize, &regs)?;
        let mut message = match checked_size(low32(regs.rbx) as usize) {
            Ok(size) => vec![0; size as usize],
            Err(error) => {
                self.call(Step::ReceiveStatus, 0);
                return Err(error);
            }
        };
        let fill =
            if status & status::HIGH_BANDWIDTH != 0 { Self::fill_high } else { Self::fill_low };
        match fill(self, &mut message) {
            Ok(Attempt::Done(())) => {}
            Ok(Attempt::Checkpointed(step)) => return Ok(Attempt::Checkpointed(step)),
            Err(error) => {
                self.call(Step::ReceiveStatus, 0);
                return Err(error);
            }
        }
        let regs = self.call(Step::ReceiveStatus, u32::from(status::SUCCESS));
        Ok(match judge(Step::ReceiveStatus, high(regs.rcx))? {
            Attempt::Done(()) => Attempt::Done(Some(message)),
            Attempt::Checkpointed(step) => Attempt::Checkpointed(step),
        })
    }

    fn fill_high(&mut self, message: &mut [u8]) -> Result<Attempt<()>, BackdoorError> {
        if message.is_empty() {
            return Ok(Attempt::Done(()));
        }
        let mut regs = self.high_bandwidth();
        (regs.rsi, regs.rbp) = (self.cookie_high.into(), self.cookie_low.into());
        self.port.receive(&mut regs, message);
        judge(Step::ReceivePayload, high(regs.rbx))
    }

    fn fill_low(&mut self, message: &mut [u8]) -> Result<Attempt<()>, BackdoorError> {
        for word in message.chunks_mut(4) {
            let regs = self.call(Step::ReceivePayload, u32::from(status::SUCCESS));
            if let cut @ Attempt::Checkpointed(_) = judge(Step::ReceivePayload, high(regs.rcx))? {
                return Ok(cut);
            }
            in_step(Step::ReceivePayload, Step::SendPayload, &regs)?;
            word.iter_mut().zip(low32(regs.rbx).to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        Ok(Attempt::Done(()))
    }

    fn call(&mut self, step: Step, rbx: u32) -> Regs {
        let mut regs = message(step, self.id, rbx);
        (regs.rsi, regs.rdi) = (self.cookie_high.into(), self.cookie_low.into());
        self.port.call(&mut regs);
        regs
    }

    fn high_bandwidth(&self) -> Regs {
        Regs {
            rax: MAGIC.into(),
            rbx: u64::from(status::SUCCESS) << 16,
            rdx: u64::from(self.id) << 16 | u64::from(PORT_HIGH),
            ..Regs::default()
        }
    }
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

fn judge(step: Step, status: u16) -> Result<Attempt<()>, BackdoorError> {
    if status & status::SUCCESS != 0 {
        Ok(Attempt::Done(()))
    } else if status & status::CHECKPOINT != 0 {
        Ok(Attempt::Checkpointed(step))
    } else {
        Err(BackdoorError::Refused { step, status })
    }
}

/// The hypervisor names the step of its own that it is at: it sends what we receive.
fn in_step(step: Step, expected: Step, regs: &Regs) -> Result<(), BackdoorError> {
    let (found, expected) = (high(regs.rdx), expected as u16);
    if found == expected { Ok(()) } else { Err(BackdoorError::OutOfStep { step, found, expected }) }
}

fn checked_size(size: usize) -> Result<u32, BackdoorError> {
    match u32::try_from(size) {
        Ok(narrow) if size <= MAX_MESSAGE => Ok(narrow),
        _ => Err(BackdoorError::TooLong { size }),
    }
}

/// Up to 4 bytes as the register has them, the first lowest.
fn word_of(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// The low 32 bits; the rest of a 64-bit register is not part of the protocol.
const fn low32(register: u64) -> u32 {
    (register & 0xFFFF_FFFF) as u32
}

/// The high half of the low 32 bits.
const fn high(register: u64) -> u16 {
    (register >> 16 & 0xFFFF) as u16
}
