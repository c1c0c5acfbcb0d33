//! Runs a program under ptrace and answers its forbidden instructions with the emulated hypervisor.
//!
//! `in`, `rep insb` and `rep outsb` raise SIGSEGV in a program that may not use ports; the tracer
//! sees the signal first, looks at the instruction, answers at register level, steps over it and
//! keeps the signal to itself. CPUID is not forbidden, so where a program is to believe that it
//! runs on VMware, each CPUID in its text is replaced by a breakpoint.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use guestinfo::backdoor::Regs;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Hypervisor;

/// How a traced program ended, and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// Its end.
    pub status: WaitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How many instructions were answered: `in`, `rep outsb`, `rep insb`, CPUID.
    pub answered: [usize; 4],
    /// After how many of the first [`WATCHED`] of our own the compiler's registers, RBX and RBP,
    /// came back.
    pub restored: usize,
}

/// Single steps are slow, so only so many instructions are followed by them.
pub const WATCHED: usize = 20;

/// How long a traced program may take; each takes a fraction of a second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(120);

struct Tracer<'a> {
    hypervisor: &'a mut Hypervisor,
    main: Pid,
    /// Whether CPUID is to name VMware.
    as_vmware: bool,
    entry: Option<Breakpoint>,
    cpuids: BTreeSet<u64>,
    answered: [usize; 4],
    done: fn(&Hypervisor) -> bool,
    restored: usize,
}

#[derive(Clone, Copy)]
struct Breakpoint {
    at: u64,
    was: u8,
}

/// Runs `command` to its end.
pub fn run(hypervisor: &mut Hypervisor, command: &mut Command, as_vmware: bool) -> Ended {
    run_until(hypervisor, command, as_vmware, |_| false)
}

/// Runs `command` to its end, or until the hypervisor has come to where `done` holds and the
/// program is killed.
#[expect(clippy::zombie_processes, reason = "the tracer waits for it, as for any tracee")]
pub fn run_until(
    hypervisor: &mut Hypervisor,
    command: &mut Command,
    as_vmware: bool,
    done: fn(&Hypervisor) -> bool,
) -> Ended {
    let [mut stdout, mut stderr] = [(); 2].map(|()| tempfile::tempfile().expect("temporary file"));
    // The shell stops itself, so that tracing begins before the program does.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(command.get_program());
    shell.args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = |file: &File| Stdio::from(file.try_clone().expect("second handle"));
    shell.stdin(Stdio::null()).stdout(output(&stdout)).stderr(output(&stderr));
    let child = shell.spawn().expect("a shell");
    let main = Pid::from_raw(child.id().try_into().expect("a process id"));
    waitpid(main, Some(WaitPidFlag::WUNTRACED)).expect("the shell stops itself");
    let options =
        Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).expect("ptrace must be allowed here (CAP_SYS_PTRACE, yama)");
    kill(main, Signal::SIGCONT).expect("the shell is there");
    let (ended, too_late) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if too_late.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Its end, with this signal, fails the test; a program that ended just now is no
            // matter.
            kill(main, Signal::SIGKILL).unwrap_or_default();
        }
    });
    let (cpuids, answered) = (BTreeSet::new(), [0; 4]);
    let mut tracer =
        Tracer { hypervisor, main, as_vmware, entry: None, cpuids, answered, done, restored: 0 };
    let status = tracer.follow();
    drop(ended);
    watch.join().expect("the watch ends");
    let [stdout, stderr] = [&mut stdout, &mut stderr].map(|file| {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("its output");
        text
    });
    Ended { status, stdout, stderr, answered: tracer.answered, restored: tracer.restored }
}

impl Tracer<'_> {
    fn follow(&mut self) -> WaitStatus {
        // Only this thread's tracees: other tests have theirs.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let status = waitpid(Pid::from_raw(-1), Some(flags)).expect("a tracee");
            match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == self.main => {
                    return status;
                }
                WaitStatus::Stopped(pid, signal) => {
                    let deliver = if self.answers(pid, signal) { None } else { Some(signal) };
                    go_on(pid, deliver);
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    if event == libc::PTRACE_EVENT_EXEC && self.as_vmware {
                        self.stop_at_entry(pid);
                    }
                    go_on(pid, None);
                }
                _ => {}
            }
        }
    }

    /// Answers the instruction that `pid` stands at, if it is one of ours.
    fn answers(&mut self, pid: Pid, signal: Signal) -> bool {
        match signal {
            Signal::SIGSEGV => self.answer_port(pid).is_some(),
            Signal::SIGTRAP => self.answer_breakpoint(pid).is_some(),
            _ => false,
        }
    }

    fn answer_port(&mut self, pid: Pid) -> Option<()> {
        let mut state = ptrace::getregs(pid).ok()?;
        let code = read(pid, state.rip, 2)?;
        let regs = regs_of(&state);
        // "cld" must have been executed: only upwards is emulated.
        let downwards = state.eflags & 0x400 != 0;
        let (after, length, kind) = match code.as_slice() {
            [0xED, ..] => (self.hypervisor.low_call(regs)?, 1, 0),
            [0xF3, 0x6E] if !downwards => {
                let data = read(pid, regs.rsi, usize::try_from(regs.rcx).ok()?)?;
                (self.hypervisor.high_out(regs, &data)?, 2, 1)
            }
            [0xF3, 0x6C] if !downwards => {
                let (after, bytes) = self.hypervisor.high_in(regs)?;
                write(pid, regs.rdi, &bytes)?;
                (after, 2, 2)
            }
            _ => return None,
        };
        self.answered[kind] += 1;
        if (self.done)(self.hypervisor) {
            kill(self.main, Signal::SIGKILL).ok()?;
        }
        set_regs(&mut state, &after);
        state.rip += length;
        ptrace::setregs(pid, state).ok()?;
        if !self.as_vmware && self.answered[..3].iter().sum::<usize>() <= WATCHED {
            self.restored += usize::from(comes_back(pid, state.r9, state.r10)?);
        }
        Some(())
    }

    fn answer_breakpoint(&mut self, pid: Pid) -> Option<()> {
        let mut state = ptrace::getregs(pid).ok()?;
        let at = state.rip - 1;
        if let Some(entry) = self.entry.filter(|entry| entry.at == at) {
            self.entry = None;
            poke(pid, at, entry.was)?;
            state.rip = at;
            // By now the loader has mapped everything.
            self.catch_cpuids(pid)?;
        } else if self.cpuids.contains(&at) {
            answer_cpuid(&mut state);
            self.answered[3] += 1;
            state.rip = at + 2;
        } else {
            return None;
        }
        ptrace::setregs(pid, state).ok()
    }

    fn stop_at_entry(&mut self, pid: Pid) {
        const AT_ENTRY: u64 = 9;
        let auxv = fs::read(format!("/proc/{pid}/auxv")).expect("auxv");
        let words: Vec<u64> = auxv
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
            .collect();
        let at = words.chunks_exact(2).find(|pair| pair[0] == AT_ENTRY).expect("an entry point")[1];
        let was = read(pid, at, 1).expect("text")[0];
        poke(pid, at, 0xCC).expect("text can be poked");
        self.entry = Some(Breakpoint { at, was });
    }

    /// Puts a breakpoint on each CPUID in the text of the program and of VMware's library.
    fn catch_cpuids(&mut self, pid: Pid) -> Option<()> {
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let own = |map: &&str| {
            map.ends_with(program.to_str().unwrap_or("?")) || map.contains("/libvmtools.so")
        };
        for map in maps.lines().filter(own) {
            let mut words = map.split(' ');
            let (start, end) = words.next()?.split_once('-')?;
            if words.next()?.contains('x') {
                let (start, end) =
                    (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
                let text = read(pid, start, usize::try_from(end - start).ok()?)?;
                let cpuids = text.windows(2).enumerate().filter(|(_, code)| code == &[0x0F, 0xA2]);
                self.cpuids.extend(cpuids.map(|(offset, _)| start + offset as u64));
            }
        }
        self.cpuids.iter().try_for_each(|at| poke(pid, *at, 0xCC))
    }
}

/// Whether RBX and RBP are `rbx` and `rbp` again after a few more steps; our code keeps them in R9
/// and R10.
fn comes_back(pid: Pid, rbx: u64, rbp: u64) -> Option<bool> {
    const STEPS: usize = 16;
    for _ in 0..STEPS {
        ptrace::step(pid, None).ok()?;
        waitpid(pid, Some(WaitPidFlag::__WALL)).ok()?;
        let state = ptrace::getregs(pid).ok()?;
        if (state.rbx, state.rbp) == (rbx, rbp) {
            return Some(true);
        }
    }
    Some(false)
}

/// CPUID of a VMware VM on this machine, without the newer ways into the hypervisor.
fn answer_cpuid(state: &mut user_regs_struct) {
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text).into();
    let (leaf, subleaf) = (state.rax as u32, state.rcx as u32);
    let real = std::arch::x86_64::__cpuid_count(leaf, subleaf);
    (state.rax, state.rbx, state.rcx, state.rdx) =
        (real.eax.into(), real.ebx.into(), real.ecx.into(), real.edx.into());
    match leaf {
        1 => state.rcx |= 1 << 31,
        0x4000_0000 => {
            state.rax = 0x4000_0010;
            (state.rbx, state.rcx, state.rdx) = (word(b"VMwa"), word(b"reVM"), word(b"ware"));
        }
        0x4000_0001..=0x4000_00FF => (state.rax, state.rbx, state.rcx, state.rdx) = (0, 0, 0, 0),
        _ => {}
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    match ptrace::cont(pid, signal) {
        // It may have been killed meanwhile; its end is what comes next.
        Ok(()) | Err(nix::Error::ESRCH) => {}
        Err(error) => panic!("a stopped tracee goes on: {error}"),
    }
}

fn regs_of(state: &user_regs_struct) -> Regs {
    let user_regs_struct { rax, rbx, rcx, rdx, rsi, rdi, rbp, .. } = *state;
    Regs { rax, rbx, rcx, rdx, rsi, rdi, rbp }
}

fn set_regs(state: &mut user_regs_struct, regs: &Regs) {
    let Regs { rax, rbx, rcx, rdx, rsi, rdi, rbp } = *regs;
    *state = user_regs_struct { rax, rbx, rcx, rdx, rsi, rdi, rbp, ..*state };
}

fn read(pid: Pid, base: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    let remote = RemoteIoVec { base: usize::try_from(base).ok()?, len };
    let n_read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &[remote]).ok()?;
    (n_read == len).then_some(bytes)
}

fn write(pid: Pid, base: u64, bytes: &[u8]) -> Option<()> {
    let remote = RemoteIoVec { base: usize::try_from(base).ok()?, len: bytes.len() };
    let n_written = process_vm_writev(pid, &[IoSlice::new(bytes)], &[remote]).ok()?;
    (n_written == bytes.len()).then_some(())
}

/// Changes one byte of text, which is not writable to the program itself.
fn poke(pid: Pid, at: u64, byte: u8) -> Option<()> {
    let memory = File::options().write(true).open(format!("/proc/{pid}/mem")).ok()?;
    memory.write_all_at(&[byte], at).ok()
}
