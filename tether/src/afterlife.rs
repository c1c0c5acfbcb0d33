//! What a panic of the agent leads to: another life, in which it only tells, and ends the machine in order.
//!
//! Whatever failed, its memory is not to be trusted any more. So the agent is executed anew, still as PID 1:
//!
//! ```text
//! panic ─▶ console ─▶ kill the container ─▶ sync ─▶ execve(the agent, NAME, words) ─▶ config, link, report ─▶ power off
//!                                                          │ refused, or a second panic
//!                                                          └──────────────────────────────────────────────▶ power off
//! ```
//!
//! To the multiplexer that is another boot, whose container could not be started; to the hypervisor, a report. Output
//! that was still waiting in the first life is lost.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::panic::{self, PanicHookInfo};

use nix::errno::Errno;
use nix::unistd::{Pid, execve, getpid, sync};
use tracing::error;

use crate::power;
use crate::sys;

/// What the agent is called in its second life. The kernel starts the first by the path of its file.
const NAME: &CStr = c"tether-after-a-panic";

/// The most that is told of a panic, bytes.
const MAX_WORDS: usize = 4096;

/// What the agent's first life ended with, if this is the second.
pub fn last_words() -> Option<String> {
    let mut args = std::env::args_os();
    let name = args.next()?;
    let words = args.next().unwrap_or_default();
    (name.as_encoded_bytes() == NAME.to_bytes()).then(|| words.to_string_lossy().into_owned())
}

/// Sees to it that a panic is told, and ends the machine. For PID 1 only.
pub fn guard() {
    panic::set_hook(Box::new(report));
}

/// The last line of the console is what the host's side tells of a VM that ends without an exit record, so
/// the panic is the last thing that is said if nothing more comes of it, and in one line.
fn report(info: &PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or("no text").replace('\n', " ");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let words =
        format!("panic at {place}: {text}; this is a defect of the agent, the machine stops");
    // A child of a clone shares this hook until its exec; it tells its parent by its end.
    if getpid() != Pid::from_raw(1) || sys::is_a_copy() {
        return error!("panic at {place}: {text}");
    }
    error!("{words}");
    // Nothing of the container goes on without an agent.
    let _none_left = sys::kill(Pid::from_raw(-1), libc::SIGKILL);
    if !power::within(power::PANIC_PATIENCE, sync) {
        error!("the disks do not answer, the machine stops without them");
    }
    if last_words().is_none()
        && let Err(errno) = begin(words)
    {
        error!("the agent cannot tell of its panic: {errno}");
    }
    power::cut()
}

fn begin(mut words: String) -> Result<Infallible, Errno> {
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    words.retain(|c| c != '\0');
    let words = CString::new(words).map_err(|_| Errno::EINVAL)?;
    // What was blocked would stay so.
    sys::reset_signals();
    execve(c"/proc/self/exe", &[NAME, &words], &[] as &[&CStr])
}
