//! A channel of the backdoor: messages sent and received whole, step by step.

use std::fmt;

use super::{
    BackdoorError, COOKIE_FLAG, MAGIC, MAX_ATTEMPTS, MAX_MESSAGE, PORT_HIGH, Port, Protocol, Regs,
    Step, high, low32, message, status,
};

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
        // Whether it succeeds makes no difference to anyone: the hypervisor reclaims a channel that
        // it lost.
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
