//! The container's own init (`--init`): process 1 in there, which passes signals on and collects orphans.
//!
//! It is the agent's program under another name, executed anew so that nothing of the agent's memory is left
//! in a process that the container can look into:
//!
//! ```text
//! child, as the container's user ──divide──┬─▶ process 1: execve(agent) as docker-init: run()
//!                                          └─▶ process 2: its own group, the terminal's foreground, execve(program)
//! ```
//!
//! All signals are blocked before the two part: those for process 1 wait until it asks for them. The C library
//! unblocks 33 and 34 before `main`, so the init keeps the status pipe open until it has blocked them again: nobody
//! has a signal for a container that has not started. Its exit code is the program's, 128 + n after signal n.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, fexecve, getpgrp, setpgid, tcsetpgrp};

use super::failure::StartFailure;
use crate::reap::{self, Exit};
use crate::sys::{self, Cloned};

/// What it is called inside: Docker's name for its own.
const NAME: &CStr = c"/sbin/docker-init";
const SHORT_NAME: &CStr = c"docker-init";
/// Tells it the program's number.
const PROGRAM: &str = "TETHER_INIT_PROGRAM";

/// The init's file, opened while it can still be reached.
#[derive(Debug)]
pub(super) struct InitProgram<'a> {
    file: OwnedFd,
    /// The pipe that is closed when the init is there.
    status: &'a OwnedFd,
}

impl<'a> InitProgram<'a> {
    /// Opens the agent's own file. To be called before the root changes.
    pub(super) fn open(status: &'a OwnedFd) -> Result<Self, StartFailure> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let opened = open("/proc/self/exe", flags, Mode::empty());
        let file = opened.map_err(StartFailure::machine("open the init"))?;
        Ok(Self { file, status })
    }

    /// Its descriptor.
    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }
}

/// Divides this process into the init, which never returns from here, and the program to come, which does.
pub(super) fn divide(
    init: InitProgram<'_>,
    args: &[CString],
    tty: bool,
) -> Result<(), StartFailure> {
    let failed = StartFailure::machine;
    sys::block_signals().map_err(failed("block signals"))?;
    match sys::clone_process(0, None).map_err(failed("make the init's child"))? {
        Cloned::Parent(program) => match become_init(&init, program, args) {
            Ok(never) => match never {},
            // The program goes down with process 1 of its namespace.
            Err(failure) => Err(failure),
        },
        Cloned::Child => {
            drop(init);
            // Signals of the terminal are for the program, not for the init.
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(failed("make a process group"))?;
            if tty {
                tcsetpgrp(std::io::stdin(), getpgrp()).map_err(failed("take the foreground"))?;
            }
            SigSet::empty().thread_set_mask().map_err(failed("unblock signals"))
        }
    }
}

fn become_init(
    InitProgram { file, status }: &InitProgram<'_>,
    program: Pid,
    args: &[CString],
) -> Result<Infallible, StartFailure> {
    // As `docker top` shows it there.
    let mut shown = vec![NAME.to_owned(), c"--".to_owned()];
    shown.extend_from_slice(args);
    let environment = CString::new(format!("{PROGRAM}={program}"))
        .map_err(|_| StartFailure::ZeroByte("the init's environment"))?;
    fcntl(status, FcntlArg::F_SETFD(FdFlag::empty()))
        .map_err(StartFailure::machine("keep the status pipe"))?;
    fexecve(file, &shown, &[environment]).map_err(StartFailure::machine("start the init"))
}

/// Whether this program was started as a container's init, by its name.
pub fn is_called() -> bool {
    std::env::args_os().next().is_some_and(|name| name.as_encoded_bytes() == NAME.to_bytes())
}

/// Passes signals on and collects orphans until the program ends.
pub fn run() -> ! {
    // Again, see above. Refused only for a set that is none.
    let _blocked = sys::block_signals();
    // Only a name in a list.
    let _unnamed = prctl::set_name(SHORT_NAME);
    // The status pipe: it has started.
    sys::close_all_but(Vec::new());
    let program = std::env::var(PROGRAM).ok().and_then(|number| number.parse().ok());
    let Some(program) = program.map(Pid::from_raw) else {
        sys::exit_now(super::failure::GENERAL);
    };
    loop {
        if let Some(code) = ended(program, &reap::collect()) {
            sys::exit_now(code);
        }
        match sys::wait_signal() {
            // Looked after above. The other two would only say that the init is in the background.
            Ok(libc::SIGCHLD | libc::SIGTTIN | libc::SIGTTOU) | Err(_) => {}
            // Gone already: that shows in the next round.
            Ok(signal) => {
                let _gone = sys::kill(program, signal);
            }
        }
    }
}

fn ended(program: Pid, exits: &[(Pid, Exit)]) -> Option<u8> {
    let (_, exit) = exits.iter().find(|(pid, _)| *pid == program)?;
    // At most 128 + 64.
    Some(u8::try_from(exit.code).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::RawStatus;

    #[test]
    fn the_programs_end_is_told_from_that_of_orphans() {
        let exits = |list: &[(i32, i32)]| {
            list.iter()
                .map(|&(pid, raw)| (Pid::from_raw(pid), RawStatus(raw).into()))
                .collect::<Vec<_>>()
        };
        let program = Pid::from_raw(2);
        assert_eq!(ended(program, &exits(&[(7, 0), (8, 9)])), None);
        assert_eq!(ended(program, &exits(&[(7, 0), (2, 3 << 8)])), Some(3));
        assert_eq!(ended(program, &exits(&[(2, 64)])), Some(192));
    }
}
