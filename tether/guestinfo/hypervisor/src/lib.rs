//! The hypervisor's side of the backdoor, at register level, with the faults that a test wants.
//!
//! Who sees a guest's instructions, a tracer ([`tracer`]) or the processor's emulator, shows their registers to
//! [`Hypervisor`] and goes on with those that it answers. Nothing here executes or waits for anything.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::missing_panics_doc,
    reason = "a test's own tool: what it does not expect fails the test"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

pub mod packets;
pub mod tracer;
pub mod vix;

use guestinfo::backdoor::{
    COMMAND_MESSAGE, COMMAND_VERSION, COOKIE_FLAG, MAGIC, PORT, PORT_HIGH, Port, Protocol, Regs,
    Step, status,
};

/// A hypervisor with guestinfo. The fields are what a test sets up or looks at.
#[derive(Debug, Default, Clone)]
pub struct Hypervisor {
    /// guestinfo, keys in lower case.
    pub values: BTreeMap<String, Vec<u8>>,
    /// Whether payloads may take the high-bandwidth port.
    pub high_bandwidth: bool,
    /// Whether it knows no cookies and refuses the flag.
    pub no_cookies: bool,
    /// Whether it has no time for the guest's tools: their channel is lost and does not open.
    pub no_tools: bool,
    /// The longest value that `info-set` takes.
    pub max_value: Option<usize>,
    /// How many more times this step fails with a checkpoint.
    pub cuts: Option<(Step, usize)>,
    /// How many more times this step is refused.
    pub refusals: Option<(Step, usize)>,
    /// What is announced instead of a reply's true size.
    pub announced: Option<u32>,
    /// What is replied to every request instead of sense; `Some(None)` is no reply at all.
    pub reply: Option<Option<Vec<u8>>>,
    /// The step named in answers to both receive steps instead of the right one.
    pub wrong_step: Option<u16>,
    /// What the host says on a TCLO channel, in turn.
    pub said: VecDeque<Vec<u8>>,
    /// Every message that came from the guest, with its channel's protocol.
    pub heard: Vec<(Protocol, Vec<u8>)>,
    /// How many payload bytes went by which port.
    pub n_high: usize,
    /// The same, of the port for single words.
    pub n_low: usize,
    /// What the guest has open; not for tests to set.
    pub channels: BTreeMap<u16, Open>,
    /// The last number given out; not for tests to set.
    pub next_id: u16,
}

/// A channel that a guest has open.
#[derive(Debug, Clone)]
pub struct Open {
    protocol: Protocol,
    cookie: (u32, u32),
    /// The message that comes in, and how long it is to be.
    coming: Vec<u8>,
    announced: usize,
    /// The message that waits to go out, and how much of it went.
    going: Option<Vec<u8>>,
    gone: usize,
}

const OK: u16 = status::SUCCESS;

impl Hypervisor {
    /// One that has these values of guestinfo.
    pub fn with_values<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let lower =
            |(key, value): (&str, &str)| (key.to_ascii_lowercase(), value.as_bytes().to_vec());
        Self { values: values.into_iter().map(lower).collect(), ..Self::default() }
    }

    /// Whether the guest has closed all that it opened.
    pub fn all_closed(&self) -> bool {
        self.channels.is_empty()
    }

    /// The registers after `in eax, dx`; `None` if they are not a call of the backdoor.
    pub fn low_call(&mut self, regs: Regs) -> Option<Regs> {
        if low(regs.rax) != MAGIC || half(regs.rdx) != PORT {
            return None;
        }
        match half(regs.rcx) {
            COMMAND_VERSION => Some(Regs { rax: 6, rbx: MAGIC.into(), rcx: 2, ..regs }),
            COMMAND_MESSAGE => Some(self.message(regs)),
            _ => Some(Regs { rax: u32::MAX.into(), ..regs }),
        }
    }

    /// The registers after `rep outsb` of `data`.
    pub fn high_out(&mut self, regs: Regs, data: &[u8]) -> Option<Regs> {
        let cookie = (low(regs.rbp), low(regs.rdi));
        let status = self.high_status(&regs, Step::SendPayload, cookie, |this, id| {
            this.n_high += data.len();
            this.take(id, data)
        })?;
        Some(Regs {
            rbx: u64::from(status) << 16,
            rsi: regs.rsi + data.len() as u64,
            rcx: 0,
            ..regs
        })
    }

    /// The registers after `rep insb`, and the bytes that it brought.
    pub fn high_in(&mut self, regs: Regs) -> Option<(Regs, Vec<u8>)> {
        let (cookie, size) = ((low(regs.rsi), low(regs.rbp)), low(regs.rcx) as usize);
        let mut bytes = Vec::new();
        let status = self.high_status(&regs, Step::ReceivePayload, cookie, |this, id| {
            bytes = this.give(id, size)?;
            this.n_high += bytes.len();
            (bytes.len() == size).then_some(())
        })?;
        let rdi = regs.rdi + bytes.len() as u64;
        Some((Regs { rbx: u64::from(status) << 16, rdi, rcx: 0, ..regs }, bytes))
    }

    fn high_status(
        &mut self,
        regs: &Regs,
        step: Step,
        cookie: (u32, u32),
        act: impl FnOnce(&mut Self, u16) -> Option<()>,
    ) -> Option<u16> {
        if low(regs.rax) != MAGIC || half(regs.rdx) != PORT_HIGH {
            return None;
        }
        let id = upper(regs.rdx);
        let known = self.channels.get(&id).is_some_and(|channel| channel.cookie == cookie);
        let sensible = known && self.high_bandwidth && low(regs.rbx) == 0x0001_0000;
        Some(match self.fault(step) {
            Some(status) => status,
            None if sensible && act(self, id).is_some() => OK,
            None => 0,
        })
    }

    fn message(&mut self, regs: Regs) -> Regs {
        let (id, step, rbx) = (upper(regs.rdx), upper(regs.rcx), low(regs.rbx));
        if step == Step::Open as u16 {
            return self.open(regs, rbx);
        }
        let cookie = (low(regs.rsi), low(regs.rdi));
        if self.no_tools {
            self.channels.retain(|_, channel| channel.protocol != Protocol::Tclo);
        }
        if self.channels.get(&id).is_none_or(|channel| channel.cookie != cookie) {
            return answer(regs, 0, None);
        }
        let high = if self.high_bandwidth { status::HIGH_BANDWIDTH } else { 0 };
        match step {
            1 => self.step(regs, Step::SendSize, |this| {
                let channel = this.channels.get_mut(&id)?;
                (channel.announced, channel.coming) = (rbx as usize, Vec::new());
                this.take(id, &[])?;
                Some(answer(regs, OK | high, None))
            }),
            2 => self.step(regs, Step::SendPayload, |this| {
                let channel = this.channels.get(&id)?;
                let rest = channel.announced.checked_sub(channel.coming.len())?.min(4);
                this.n_low += rest;
                this.take(id, &rbx.to_le_bytes()[..rest])?;
                Some(answer(regs, OK, None))
            }),
            3 => self.step(regs, Step::ReceiveSize, |this| {
                let size = this.waiting(id)?;
                let Some(size) = size else { return Some(answer(regs, OK, None)) };
                let size = this.announced.unwrap_or(u32::try_from(size).ok()?);
                let step = this.wrong_step.unwrap_or(Step::SendSize as u16);
                Some(answer(regs, OK | status::WAITING | high, Some((step, size))))
            }),
            4 if rbx & 0xFFFF == 1 => self.step(regs, Step::ReceivePayload, |this| {
                let bytes = this.give(id, 4)?;
                this.n_low += bytes.len();
                let mut word = [0xEE; 4];
                word[..bytes.len()].copy_from_slice(&bytes);
                let step = this.wrong_step.unwrap_or(Step::SendPayload as u16);
                Some(answer(regs, OK, Some((step, u32::from_le_bytes(word)))))
            }),
            5 => self.step(regs, Step::ReceiveStatus, |this| {
                this.channels.get_mut(&id)?.going = None;
                Some(answer(regs, OK, None))
            }),
            6 => {
                self.channels.remove(&id);
                answer(regs, OK, None)
            }
            _ => answer(regs, 0, None),
        }
    }

    fn open(&mut self, regs: Regs, rbx: u32) -> Regs {
        if let Some(status) = self.fault(Step::Open) {
            return answer(regs, status, None);
        }
        let protocols = [Protocol::Rpci, Protocol::Tclo];
        let protocol = protocols.into_iter().find(|p| p.number() == rbx & !COOKIE_FLAG);
        let protocol = protocol.filter(|p| !(self.no_tools && *p == Protocol::Tclo));
        let (Some(protocol), false) = (protocol, self.no_cookies && rbx & COOKIE_FLAG != 0) else {
            return answer(regs, 0, None);
        };
        self.next_id += 1;
        let id = self.next_id;
        let cookie = if rbx & COOKIE_FLAG == 0 {
            (0, 0)
        } else {
            (0xC001_0000 | u32::from(id), 0xFEED_BEEF)
        };
        let open =
            Open { protocol, cookie, coming: Vec::new(), announced: 0, going: None, gone: 0 };
        self.channels.insert(id, open);
        let regs =
            Regs { rdx: u64::from(id) << 16, rsi: cookie.0.into(), rdi: cookie.1.into(), ..regs };
        Regs { rcx: u64::from(OK) << 16, ..regs }
    }

    fn step(
        &mut self,
        regs: Regs,
        step: Step,
        act: impl FnOnce(&mut Self) -> Option<Regs>,
    ) -> Regs {
        match self.fault(step) {
            Some(status) => answer(regs, status, None),
            None => act(self).unwrap_or_else(|| answer(regs, 0, None)),
        }
    }

    /// The status of a step that is to fail.
    fn fault(&mut self, step: Step) -> Option<u16> {
        for (fault, status) in [(&mut self.cuts, status::CHECKPOINT), (&mut self.refusals, 0)] {
            if let Some((at, left)) = fault
                && *at == step
                && *left > 0
            {
                *left -= 1;
                return Some(status);
            }
        }
        None
    }

    /// Takes part of the guest's message, and acts on it once it is whole.
    fn take(&mut self, id: u16, bytes: &[u8]) -> Option<()> {
        let channel = self.channels.get_mut(&id)?;
        channel.coming.extend_from_slice(bytes);
        if channel.coming.len() < channel.announced {
            return Some(());
        }
        if channel.coming.len() > channel.announced {
            return None;
        }
        let (protocol, message) = (channel.protocol, std::mem::take(&mut channel.coming));
        self.heard.push((protocol, message.clone()));
        if protocol == Protocol::Rpci {
            let reply = self.reply.clone().unwrap_or_else(|| Some(self.reply_to(&message)));
            let channel = self.channels.get_mut(&id)?;
            (channel.going, channel.gone) = (reply, 0);
        }
        Some(())
    }

    /// The size of the message that waits, and begins it from its start.
    fn waiting(&mut self, id: u16) -> Option<Option<usize>> {
        let channel = self.channels.get_mut(&id)?;
        if channel.protocol == Protocol::Tclo && channel.going.is_none() {
            channel.going = self.said.pop_front();
        }
        channel.gone = 0;
        Some(channel.going.as_ref().map(Vec::len))
    }

    fn give(&mut self, id: u16, size: usize) -> Option<Vec<u8>> {
        let channel = self.channels.get_mut(&id)?;
        let rest = channel.going.as_ref()?.get(channel.gone..)?;
        let bytes = rest[..size.min(rest.len())].to_vec();
        channel.gone += bytes.len();
        (!bytes.is_empty()).then_some(bytes)
    }

    /// One request, however it came, and the reply.
    pub fn request(&mut self, request: &[u8]) -> Vec<u8> {
        self.heard.push((Protocol::Rpci, request.to_vec()));
        self.reply_to(request)
    }

    fn reply_to(&mut self, request: &[u8]) -> Vec<u8> {
        let mut words = request.splitn(3, |byte| *byte == b' ');
        let (name, key, value) = (words.next(), words.next(), words.next());
        let key =
            key.map(|key| String::from_utf8_lossy(key).trim_end_matches('\0').to_ascii_lowercase());
        match (name, key, value) {
            (Some(b"info-get"), Some(key), None) => match self.values.get(&key) {
                Some(value) => [b"1 ", value.as_slice()].concat(),
                None => b"0 No value found".to_vec(),
            },
            (Some(b"info-set"), Some(_), Some(value))
                if self.max_value.is_some_and(|max| value.len() > max) =>
            {
                b"0 Value too large".to_vec()
            }
            (Some(b"info-set"), Some(key), Some(value)) => {
                self.values.insert(key, value.to_vec());
                b"1 ".to_vec()
            }
            (
                Some(
                    b"tools.set.version"
                    | b"tools.capability.statechange"
                    | b"tools.os.statechange.status"
                    | b"SetGuestInfo",
                ),
                ..,
            ) => b"1 ".to_vec(),
            _ => b"0 Unknown command".to_vec(),
        }
    }
}

/// The registers of an answer: a status, and for the receive steps the host's own step and a word.
fn answer(regs: Regs, status: u16, said: Option<(u16, u32)>) -> Regs {
    let (rdx, rbx) = said.map_or((regs.rdx, regs.rbx), |(step, word)| {
        (u64::from(step) << 16 | regs.rdx & 0xFFFF, word.into())
    });
    Regs { rcx: u64::from(status) << 16 | regs.rcx & 0xFFFF, rdx, rbx, ..regs }
}

fn low(register: u64) -> u32 {
    u32::try_from(register & 0xFFFF_FFFF).expect("masked")
}

fn half(register: u64) -> u16 {
    u16::try_from(register & 0xFFFF).expect("masked")
}

fn upper(register: u64) -> u16 {
    half(register >> 16)
}

/// Called directly, without an instruction.
impl Port for Hypervisor {
    fn call(&mut self, regs: &mut Regs) {
        *regs = self.low_call(*regs).expect("a call of the backdoor");
    }

    fn send(&mut self, regs: &mut Regs, data: &[u8]) {
        *regs = self.high_out(*regs, data).expect("a call of the backdoor");
    }

    fn receive(&mut self, regs: &mut Regs, buffer: &mut [u8]) {
        regs.rcx = buffer.len() as u64;
        let (after, bytes) = self.high_in(*regs).expect("a call of the backdoor");
        buffer[..bytes.len()].copy_from_slice(&bytes);
        *regs = after;
    }
}

/// One hypervisor for several users.
#[derive(Debug, Clone, Default)]
pub struct Shared(
    /// The one.
    pub Rc<RefCell<Hypervisor>>,
);

impl Port for Shared {
    fn call(&mut self, regs: &mut Regs) {
        self.0.borrow_mut().call(regs);
    }

    fn send(&mut self, regs: &mut Regs, data: &[u8]) {
        self.0.borrow_mut().send(regs, data);
    }

    fn receive(&mut self, regs: &mut Regs, buffer: &mut [u8]) {
        self.0.borrow_mut().receive(regs, buffer);
    }
}
