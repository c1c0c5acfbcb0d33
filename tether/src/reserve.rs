//! What the machine keeps back for its agent, so that it answers whatever the container does to itself.
//!
//! A container may use all of its VM; but a fork bomb, a memory hog or a full `/dev/shm` must leave the agent
//! able to tell of it and to end it. Three things see to that: the container's cgroup has bounds a little
//! below the kernel's own, so that the container meets its bound first; the agent is in a cgroup of its own
//! with a guaranteed share of memory and a high weight for processor time; and the kernel never chooses process 1
//! of a machine when it must kill for memory (`oom_unkillable_task`). The numbers are in [`Bounds::of`].

use std::fs;
use std::path::Path;

use guestinfo::ContainerSpec;
use tracing::{info, warn};

/// Memory that the container never gets, at least, beside what is taken before it starts: for the growth of the
/// agent, its link's buffers, and what the kernel needs to go on. Of larger machines a 32nd, for the kernel's
/// tables grow with them.
const MIN_MEMORY: u64 = 16 << 20;
const MAX_MEMORY: u64 = 256 << 20;

/// Memory of the agent that is not reclaimed before all else is (`memory.min`).
const AGENT_MEMORY: u64 = 8 << 20;

/// Threads that the container never gets: the kernel's own, which come and go, and the agent's.
const THREADS: u64 = 512;

/// The agent's weight for processor time; a container has the default of 100. A thousand runnable processes
/// of a container are one competitor to it.
const AGENT_WEIGHT: u64 = 1000;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes of memory that processes can have.
    pub memory: u64,
    /// Threads the kernel will make (`kernel.threads-max`), and numbers it has for them
    /// (`kernel.pid_max`), whichever is less.
    pub threads: u64,
}

impl Capacity {
    /// What this machine has beside the memory that is [`taken`], `u64::MAX` where it cannot be told.
    pub fn read(taken: u64) -> Self {
        let number =
            |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let threads = number("/proc/sys/kernel/threads-max").unwrap_or(u64::MAX);
        let numbers = number("/proc/sys/kernel/pid_max").unwrap_or(u64::MAX);
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = field(&memory, "MemTotal:").map_or(u64::MAX, |it| it.saturating_sub(taken));
        Self { memory, threads: threads.min(numbers) }
    }
}

/// Bytes of memory that the kernel and the agent have taken by now: what a container that uses the rest would
/// make the kernel look for somebody to end.
pub fn taken() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (total, available) = (field(&memory, "MemTotal:"), field(&memory, "MemAvailable:"));
    total.zip(available).map_or(0, |(total, available)| total.saturating_sub(available))
}

/// A field of a `meminfo` text (proc(5)), in bytes.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a container's processes may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of memory (`memory.max`).
    pub memory: u64,
    /// Processes and threads (`pids.max`).
    pub threads: u64,
    /// Nanoseconds of processor time per second (`cpu.max`), if not all there is.
    pub nano_cpus: Option<u64>,
}

impl Bounds {
    /// What is asked for, but no more than leaves the agent its reserve.
    pub fn of(asked: &ContainerSpec, capacity: Capacity) -> Self {
        let reserve = (capacity.memory / 32).clamp(MIN_MEMORY, MAX_MEMORY);
        // However small the machine: something has to be left for the container.
        let memory = capacity.memory.saturating_sub(reserve).max(capacity.memory / 2);
        let threads = capacity.threads.saturating_sub(THREADS).max(capacity.threads / 2);
        let within = |asked: u64, bound: u64| if asked == 0 { bound } else { asked.min(bound) };
        Self {
            memory: within(asked.memory, memory),
            threads: within(asked.pids, threads),
            nano_cpus: (asked.nano_cpus > 0).then_some(asked.nano_cpus),
        }
    }

    /// Sets them on a cgroup. A kernel without one of the controllers has no such bound.
    pub fn set(&self, cgroup: &Path) {
        // cpu.max takes microseconds of time per 100,000 (Documentation/admin-guide/cgroup-v2.rst), and 1000 at least.
        let cpu = self.nano_cpus.map(|nano| format!("{} 100000", (nano / 10_000).max(1000)));
        let values = [
            ("memory.max", Some(self.memory.to_string())),
            ("pids.max", Some(self.threads.to_string())),
            ("cpu.max", cpu),
        ];
        for (file, value) in values {
            if let Some(value) = value
                && let Err(error) = fs::write(cgroup.join(file), &value)
            {
                warn!("{file} of the container stays as it is, {value} is refused: {error}");
            }
        }
        info!("the container may use {} MiB and {} threads", self.memory >> 20, self.threads);
    }
}

/// Puts the agent, the calling process, where the container cannot starve it. These are wishes, each of which
/// helps by itself.
pub fn protect_agent(tree: &Path) {
    let own = tree.join("agent");
    let wishes = [
        (own.join("memory.min"), AGENT_MEMORY.to_string()),
        (own.join("cpu.weight"), AGENT_WEIGHT.to_string()),
        (own.join("cgroup.procs"), std::process::id().to_string()),
    ];
    // An existing one shows in what follows.
    let _exists = fs::create_dir(&own);
    for (path, value) in wishes {
        if let Err(error) = fs::write(&path, value) {
            warn!("the agent is less protected: {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[track_caller]
    fn check(memory: u64, threads: u64, asked: (u64, u64), expected: (u64, u64)) {
        let spec = ContainerSpec { memory: asked.0, pids: asked.1, ..ContainerSpec::default() };
        let bounds = Bounds::of(&spec, Capacity { memory: memory * MIB, threads });
        assert_eq!((bounds.memory / MIB, bounds.threads), expected);
    }

    #[test]
    fn the_agent_keeps_its_reserve_whatever_is_asked_for() {
        check(480, 3800, (0, 0), (464, 3288));
        check(480, 3800, (u64::MAX, u64::MAX), (464, 3288));
        check(480, 3800, (100 * MIB, 50), (100, 50));
        check(4096, 32_768, (0, 0), (3968, 32_256));
        check(64 * 1024, 4_194_304, (0, 0), (64 * 1024 - 256, 4_193_792));
        check(20, 300, (0, 0), (10, 150));
    }

    #[test]
    fn a_part_of_a_processor_is_microseconds_of_a_period() {
        let dir = tempfile::tempdir().unwrap();
        let spec = ContainerSpec { nano_cpus: 1_500_000_000, ..ContainerSpec::default() };
        Bounds::of(&spec, Capacity { memory: 512 * MIB, threads: 4000 }).set(dir.path());
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("memory.max"), (496 * MIB).to_string());
        assert_eq!(read("pids.max"), "3488");
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(
            field("MemTotal:         491520 kB\nMemFree: 1 kB\n", "MemTotal:"),
            Some(480 * MIB)
        );
        assert_eq!(field("MemFree: 1 kB\n", "MemTotal:"), None);
    }
}
