//! VMware as the host of a VM that QEMU emulates: the agent's instructions that reach for it are answered.
//!
//! QEMU stops the VM where the agent, unchanged, is about to ask CPUID who the hypervisor is, or to use the backdoor's
//! ports ([`Debugger`]). The emulated hypervisor answers at register level, and the VM goes on behind the instruction.
//! Nothing in the VM knows of it, so it is there from the agent's first question to its last, whatever it kills or
//! executes, and through resets.
//!
//! With each such stop QEMU forgets all that it has translated, so a VM whose tools come by ten times a second is a slow
//! one. It gets on where the host has no time for them until the test has something to say ([`Vmware::listens`]).
//!
//! Each stop also takes a device of vhost-user down and puts it up again, and what that has for the VM meanwhile is not
//! announced. So a VM that is reached over vsock stops where it connects, and not while it is answered.

use crate::checkout::Checkout;
use crate::deadline::deadline;
use crate::debugger::{Debugger, Standing};
use anyhow::{Context as _, Result, ensure};
use guestinfo::backdoor::{Protocol, Regs, Step};
use hypervisor::{Hypervisor, packets};
use object::LittleEndian;
use object::elf::{PF_X, PT_LOAD};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Where the kernel of a 64-bit machine ends what a process maps if addresses are not to be random: 128 MiB, the
/// least that it leaves for the stack, below the end of all (`mmap_base` in `arch/x86/mm/mmap.c`). The agent, which
/// can be anywhere and has no interpreter, is mapped first.
const TOP: u64 = 0x7FFF_FFFF_F000 - (128 << 20);
const PAGE: u64 = 4096;

/// Where the hypervisor takes requests over vsock.
const RPCI_PORT: u32 = 976;

/// How much of the agent's text before and behind an instruction tells that it is the agent's.
const AROUND: usize = 16;

/// What the agent has between loading all registers and storing them (`guestinfo::sys`).
const LOADED: [u8; 4] = [0x49, 0x8B, 0x68, 0x30];
/// `mov eax, 0x4000_0000`, shortly before a CPUID.
const LEAF: [u8; 5] = [0xB8, 0x00, 0x00, 0x00, 0x40];

/// An instruction that reaches for the hypervisor, or may do so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Instruction {
    Cpuid,
    In,
    RepOutsb,
    RepInsb,
    /// The number of the kernel's call `connect` is loaded, as the last of what the C library passes on.
    Connect,
}

impl Instruction {
    fn code(self) -> &'static [u8] {
        match self {
            Self::Cpuid => &[0x0F, 0xA2],
            Self::In => &[0xED],
            Self::RepOutsb => &[0xF3, 0x6E],
            Self::RepInsb => &[0xF3, 0x6C],
            // mov edi, 42; call
            Self::Connect => &[0xBF, 42, 0, 0, 0, 0xE8],
        }
    }
}

/// Where one is in the agent's memory, and what is around it there.
#[derive(Debug, Clone)]
struct Site {
    instruction: Instruction,
    around: Vec<u8>,
}

/// A VM's host.
#[derive(Debug)]
pub struct Vmware {
    door: PathBuf,
    shared: Arc<Shared>,
    /// Ends with the VM.
    attendant: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    hypervisor: Hypervisor,
    n_answered: BTreeMap<Instruction, usize>,
    /// How much was said to the guest's tools.
    n_said: usize,
    /// Whether connections to the hypervisor's own address over vsock are to arrive.
    leads_vsock: bool,
    /// How the VM has ended: as it should, or why it could not be attended any more.
    ended: Option<Result<(), String>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vmware {
    /// A host for one VM, which will call at a socket in this directory. It does not listen to the tools yet.
    ///
    /// # Panics
    /// When there can be no such socket.
    #[must_use]
    pub fn new(dir: &Path, hypervisor: Hypervisor) -> Self {
        let door = dir.join("vmware.sock");
        let listener = UnixListener::bind(&door).expect("a socket can be made");
        let shared = Arc::new(Shared::default());
        shared.state().hypervisor = Hypervisor { no_tools: true, ..hypervisor };
        let theirs = Arc::clone(&shared);
        let attendant = thread::spawn(move || {
            let ended =
                listener.accept().map_err(Into::into).and_then(|(it, _)| attend(it, &theirs));
            theirs.state().ended = Some(ended.map_err(|error| format!("{error:#}")));
            theirs.changed.notify_all();
        });
        Self { door, shared, attendant: Some(attendant) }
    }

    /// The line that starts a QEMU, changed so that it has this host.
    #[must_use]
    pub fn hosting(&self, line: &str) -> String {
        // There must be no accelerator between.
        let line = line.replace("-accel kvm -cpu host", "-accel tcg -cpu qemu64,+rdrand");
        assert!(line.contains(" -append '"), "a direct boot: {line}");
        let line = line.replacen(" -append '", " -append 'norandmaps tether.disk_timeout=300 ", 1);
        format!("{} -S -gdb unix:{}", line.trim_end(), self.door.display())
    }

    /// From now on the host opens the channel of the guest's tools, or does so no more and lets go of what is open.
    pub fn listens(&self, to_tools: bool) {
        self.with(|hypervisor| hypervisor.no_tools = !to_tools);
    }

    /// The host says something to the guest's tools, when these come by.
    pub fn says(&self, request: &[u8]) {
        let mut state = self.shared.state();
        state.hypervisor.said.push_back(request.to_vec());
        state.n_said += 1;
    }

    /// Says something, and waits for the reply to all that was said, after which the host listens no more.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn says_at_last(&self, request: &[u8]) {
        self.says(request);
        self.await_replies();
        self.listens(false);
    }

    /// Waits for the reply to all that was said.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn await_replies(&self) {
        let n_said = self.shared.state().n_said;
        self.await_that("a reply to each request", |host| {
            heard(host, Some(Protocol::Tclo)).len() == n_said
        });
    }

    /// Looks at the hypervisor, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut Hypervisor) -> T) -> T {
        look(&mut self.shared.state().hypervisor)
    }

    /// From now on the host is reached over vsock alone: its ports refuse every channel. What the VM sends to the
    /// hypervisor's own address goes to 2, the host's, since no device that QEMU can have knows another; it arrives at
    /// `uds`, where such a device leaves it (`vhost-device-vsock`).
    ///
    /// # Panics
    /// When there can be no such socket.
    pub fn moves_to_vsock(&self, uds: &Path) {
        let door = format!("{}_{RPCI_PORT}", uds.display());
        let listener = UnixListener::bind(door).expect("a socket can be made");
        let shared = Arc::clone(&self.shared);
        // It waits for the next guest until the test's process ends.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let request = |request: &[u8]| {
                    let reply = shared.state().hypervisor.request(request);
                    shared.changed.notify_all();
                    reply
                };
                if let Err(error) = packets::serve(stream, request) {
                    shared.state().ended = Some(Err(format!("over vsock: {error}")));
                }
            }
        });
        let mut state = self.shared.state();
        state.hypervisor.refusals = Some((Step::Open, usize::MAX));
        state.leads_vsock = true;
    }

    /// Waits until the hypervisor has come to this.
    #[track_caller]
    pub fn await_that(&self, what: &str, it_is_so: impl Fn(&Hypervisor) -> bool) {
        let end = Instant::now() + deadline();
        let mut state = self.shared.state();
        while !it_is_so(&state.hypervisor) {
            let heard = || heard(&state.hypervisor, None).join("\n  ");
            if let Some(ended) = &state.ended {
                panic!("the VM has ended ({ended:?}) without {what}; heard\n  {}", heard());
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} in time; heard\n  {}", heard());
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the guest has said in this protocol, as text, but for its coming by to say nothing.
    #[must_use]
    pub fn heard(&self, protocol: Protocol) -> Vec<String> {
        heard(&self.shared.state().hypervisor, Some(protocol))
    }

    /// Waits until the VM has ended, which it must have done as it should.
    #[track_caller]
    pub fn end(mut self) -> Hypervisor {
        if let Some(attendant) = self.attendant.take() {
            attendant.join().expect("the VM's attendant ends");
        }
        let state = std::mem::take(&mut *self.shared.state());
        assert_eq!(state.ended, Some(Ok(())));
        let n_answered = |it| state.n_answered.get(&it).copied().unwrap_or(0);
        assert!(n_answered(Instruction::Cpuid) > 0 && n_answered(Instruction::In) > 0);
        state.hypervisor
    }
}

impl Drop for Vmware {
    fn drop(&mut self) {
        // Nobody may have called yet; whoever has, ends with the lab.
        drop(UnixStream::connect(&self.door));
    }
}

fn heard(hypervisor: &Hypervisor, wanted: Option<Protocol>) -> Vec<String> {
    let heard = hypervisor.heard.iter();
    let heard = heard.filter(|(protocol, message)| {
        wanted.is_none_or(|wanted| wanted == *protocol) && !message.is_empty()
    });
    heard.map(|(_, message)| String::from_utf8_lossy(message).into_owned()).collect()
}

/// Answers what the agent asks until the VM ends.
fn attend(stream: UnixStream, shared: &Shared) -> Result<()> {
    let agent = fs::read(Checkout::built().agent()).context("no agent")?;
    let sites = sites(&agent)?;
    let mut debugger = Debugger::begin(stream)?;
    sites.keys().for_each(|at| debugger.stop_at(*at));
    let mut is_led = false;
    while let Some(standing) = debugger.go_on()? {
        let at = standing.rip;
        let Some(site) = sites.get(&at) else { continue };
        if !is_there(&mut debugger, at, site)? {
            // Another program has something there, too.
            debugger.step_from(at)?;
            continue;
        }
        if site.instruction == Instruction::Connect {
            if shared.state().leads_vsock && lead(&mut debugger, &standing.regs)? && !is_led {
                is_led = true;
                // QEMU's own backdoor refuses channels, too, and does so without a stop.
                let ports = sites.iter().filter(|(_, site)| site.instruction == Instruction::In);
                ports.for_each(|(at, _)| debugger.pass(*at));
            }
            debugger.step_from(at)?;
            continue;
        }
        let Some(after) = answer(&mut debugger, &standing, site, shared)? else { break };
        debugger.place(&after.0, &after.1);
        *shared.state().n_answered.entry(site.instruction).or_default() += 1;
        shared.changed.notify_all();
    }
    Ok(())
}

fn is_there(debugger: &mut Debugger, at: u64, site: &Site) -> Result<bool> {
    let around = debugger.read(at - AROUND as u64, site.around.len())?;
    Ok(around.is_some_and(|it| it == site.around))
}

/// If this connects to the hypervisor's own address, another is put there. Whether it does.
fn lead(debugger: &mut Debugger, regs: &Regs) -> Result<bool> {
    // `struct sockaddr_vm`: family, two bytes of nothing, port, address.
    let [family, port, address] = [0, 4, 8];
    let Some(socket) = debugger.read(regs.rdx, 12)? else { return Ok(false) };
    let is_vsock = socket[family..].starts_with(&[40, 0]);
    let is_rpci = socket[port..].starts_with(&RPCI_PORT.to_le_bytes());
    let is_ours = is_vsock && is_rpci && socket[address..] == [0; 4];
    if is_ours {
        debugger.write(regs.rdx + address as u64, &2u32.to_le_bytes());
    }
    Ok(is_ours)
}

/// Where the processor stands, and where it is to; `None` if the VM has ended.
fn answer(
    debugger: &mut Debugger,
    standing: &Standing,
    site: &Site,
    shared: &Shared,
) -> Result<Option<(Standing, Standing)>> {
    let Standing { regs, rip } = *standing;
    let behind = rip + site.instruction.code().len() as u64;
    let strange = || format!("the backdoor is not called so: {regs:x?}");
    let after = match site.instruction {
        Instruction::Cpuid => named(regs),
        Instruction::Connect => regs,
        Instruction::In => shared.state().hypervisor.low_call(regs).with_context(strange)?,
        Instruction::RepOutsb | Instruction::RepInsb => {
            // It is executed, too, on a port where nothing is, so that the memory is there.
            let Some(standing) = executed(debugger, rip, behind, site)? else { return Ok(None) };
            let after = if site.instruction == Instruction::RepOutsb {
                let len = usize::try_from(regs.rcx)?;
                let data = debugger.read(regs.rsi, len)?.context("it was just read")?;
                shared.state().hypervisor.high_out(regs, &data)
            } else {
                let received = shared.state().hypervisor.high_in(regs);
                if let Some((_, bytes)) = &received {
                    debugger.write(regs.rdi, bytes);
                }
                received.map(|(after, _)| after)
            };
            let regs = after.with_context(strange)?;
            return Ok(Some((standing, Standing { regs, rip: behind })));
        }
    };
    Ok(Some((*standing, Standing { regs: after, rip: behind })))
}

/// Has the processor execute the instruction, page faults and all; where it stands then.
fn executed(
    debugger: &mut Debugger,
    at: u64,
    behind: u64,
    site: &Site,
) -> Result<Option<Standing>> {
    debugger.pass(at);
    debugger.stop_at(behind);
    let standing = loop {
        let Some(standing) = debugger.go_on()? else { return Ok(None) };
        if standing.rip == behind && is_there(debugger, at, site)? {
            break standing;
        }
        if standing.rip == behind {
            debugger.step_from(behind)?;
        }
    };
    debugger.pass(behind);
    debugger.stop_at(at);
    Ok(Some(standing))
}

/// CPUID's leaf 0x4000_0000 of a VMware VM.
fn named(regs: Regs) -> Regs {
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text).into();
    Regs { rax: 0x4000_0010, rbx: word(b"VMwa"), rcx: word(b"reVM"), rdx: word(b"ware"), ..regs }
}

/// The agent's instructions that reach for the hypervisor, by where they are in a VM without random addresses.
fn sites(agent: &[u8]) -> Result<BTreeMap<u64, Site>> {
    let elf = ElfFile64::<LittleEndian>::parse(agent)?;
    let headers = elf.elf_program_headers().iter();
    let loaded = headers.filter(|it| it.p_type(LittleEndian) == PT_LOAD);
    let end = |it: &_| {
        let (at, len): (u64, u64) = place(it);
        at + len
    };
    let size = loaded.clone().map(end).max().context("nothing is loaded")?;
    let base = TOP - size.next_multiple_of(PAGE);
    let mut sites = BTreeMap::new();
    for header in loaded.filter(|it| it.p_flags(LittleEndian).contains(PF_X)) {
        let text = header.data(LittleEndian, agent).map_err(|()| anyhow::anyhow!("cut short"))?;
        let start = base + header.p_vaddr(LittleEndian);
        for (offset, instruction) in found(text) {
            let first = offset.checked_sub(AROUND).context("at the very start")?;
            let around = text.get(first..offset + AROUND).context("at the very end")?.to_vec();
            sites.insert(start + offset as u64, Site { instruction, around });
        }
    }
    for wanted in [
        Instruction::Cpuid,
        Instruction::In,
        Instruction::RepOutsb,
        Instruction::RepInsb,
        Instruction::Connect,
    ] {
        ensure!(sites.values().any(|it| it.instruction == wanted), "the agent has no {wanted:?}");
    }
    Ok(sites)
}

fn place(header: &object::elf::ProgramHeader64<LittleEndian>) -> (u64, u64) {
    (header.p_vaddr(LittleEndian), header.p_memsz(LittleEndian))
}

fn found(text: &[u8]) -> Vec<(usize, Instruction)> {
    let mut found = Vec::new();
    for offset in AROUND..text.len() {
        let (before, rest) = text.split_at(offset);
        let is = |it: Instruction| rest.starts_with(it.code());
        let near = &before[offset - AROUND..];
        if is(Instruction::Cpuid) && near.windows(LEAF.len()).any(|it| it == LEAF) {
            found.push((offset, Instruction::Cpuid));
        }
        if is(Instruction::Connect) {
            found.push((offset, Instruction::Connect));
        }
        if is(Instruction::In) && before.ends_with(&LOADED) {
            found.push((offset, Instruction::In));
        }
        // cld
        if before.strip_suffix(&[0xFC]).is_some_and(|it| it.ends_with(&LOADED)) {
            let strings = [Instruction::RepOutsb, Instruction::RepInsb];
            found.extend(strings.into_iter().filter(|it| is(*it)).map(|it| (offset, it)));
        }
    }
    found
}
