//! The agent of a containerVM: PID 1, the container process, and its end of serial0.
//!
//! # Reading order
//!
//! [`agent`] is the event loop and the only owner of state that changes; [`config`] finds out what to run;
//! [`boot`] brings the machine up to the point where the container's disk is found; [`sessions`] holds all that
//! runs, [`session`] is the life of one, [`rootfs`] and [`process`] turn its config into a running program;
//! [`stdio`], [`relay`], [`spool`], [`uplink`], [`pipes`], [`ladder`] and [`mod@line`] carry
//! its bytes; [`power`] ends it all, also after a panic ([`afterlife`]).
//!
//! # What is deliberately absent
//!
//! No thread but the first: the container's process is made by a plain clone, which only a process with one
//! thread can do safely. No `unsafe` outside [`sys`]. No shell, no helper program: the initramfs holds the
//! agent and kernel modules, nothing else. No state on the container's disk: what the agent writes for the
//! container lives in memory and is mounted over the image.

pub mod afterlife;
pub mod agent;
pub mod alarm;
pub mod boot;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod console;
pub mod entropy;
pub mod environment;
pub mod host;
pub mod hotplug;
pub mod identity;
pub mod inside;
pub mod ladder;
pub mod line;
pub mod logbook;
pub mod network;
#[cfg(test)]
mod peer;
pub mod pipes;
pub mod power;
pub mod process;
pub mod ready;
pub mod reap;
pub mod relay;
pub mod report;
pub mod reserve;
pub mod rootfs;
pub mod session;
pub mod sessions;
pub mod signal;
pub mod spool;
pub mod stdio;
pub mod sys;
pub mod timekeeper;
pub mod uevent;
pub mod upkeep;
pub mod uplink;
pub mod user;
pub mod volumes;

use std::fs;
use std::path::Path;

use tracing::{error, info, warn};

use boot::cmdline::Switches;
use boot::filesystems;

/// Runs the machine as its PID 1 and powers it off at the end, whatever happens.
pub fn run() -> ! {
    power::guard();
    let last_words = afterlife::last_words();
    // All is mounted in a second life.
    let mounted = if last_words.is_none() { filesystems::mount_all() } else { Ok(()) };
    let mut switches = Switches::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    console::start(switches.log);
    info!("tether {} starts", env!("CARGO_PKG_VERSION"));
    if last_words.is_some() {
        switches.panics_at_reload = false;
    }
    for word in &switches.unknown {
        warn!("kernel command line: {word} is not understood and ignored");
    }
    if let Err(error) = mounted {
        error!("{error}");
        power::off(|| {});
    }
    if let Err(errno) = filesystems::sane_descriptors() {
        warn!("standard descriptors cannot be redirected: {errno}");
    }
    filesystems::tune();
    cgroup::enable_controllers(Path::new(cgroup::TREE));
    reserve::protect_agent(Path::new(cgroup::TREE));
    hotplug::prefer_automatic(Path::new(hotplug::SYS));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(agent::run(&switches, last_words)),
        Err(error) => Err(agent::AgentError::Kernel { step: "make an event loop", error }),
    };
    match outcome {
        Ok(agent::Ended { ending, networks }) => match ending {
            agent::Ending::PowerOff => power::off(|| networks.give_back()),
            agent::Ending::Restart => power::restart(|| networks.give_back()),
        },
        Err(error) => {
            error!("{error}");
            power::off(|| {})
        }
    }
}
