//! Entry point of the agent: as PID 1 it runs the machine, as anything else it only says what it is.

use std::process::ExitCode;

/// What the kernel calls the PID namespace it starts with (`PROC_PID_INIT_INO`, linux/proc_ns.h).
const OUTERMOST: &str = "pid:[4026531836]";

/// Whether process 1 is the machine's, and not one of an image whose program is a link to `/proc/self/exe`. Where
/// nothing is mounted there, the machine has just started.
fn is_outermost() -> bool {
    std::fs::read_link("/proc/self/ns/pid").map_or(true, |name| name.as_os_str() == OUTERMOST)
}

fn main() -> ExitCode {
    // Before the next question: it is process 1, too, of a container's namespace.
    if tether::process::init::is_called() {
        tether::process::init::run();
    }
    if std::process::id() == 1 && is_outermost() {
        tether::run();
    }
    eprintln!(
        "tether {}: the agent of a containerVM. It runs as PID 1 of such a VM and does nothing elsewhere.",
        env!("CARGO_PKG_VERSION")
    );
    ExitCode::from(2)
}
