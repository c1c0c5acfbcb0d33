//! Entry point of the agent: as PID 1 it runs the machine, as anything else it only says what it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before the next question: it is process 1, too, of a container's namespace.
    if tether::process::init::is_called() {
        tether::process::init::run();
    }
    if std::process::id() == 1 {
        tether::run();
    }
    eprintln!(
        "tether {}: the agent of a containerVM. It runs as PID 1 of such a VM and does nothing elsewhere.",
        env!("CARGO_PKG_VERSION")
    );
    ExitCode::from(2)
}
