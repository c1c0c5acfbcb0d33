//! What the container uses of processor, memory, disks, network and tasks, by its cgroup and `/proc`.
//!
//! All of it is counters that the kernel keeps in memory: reading them waits for nothing, so the agent does it
//! itself, also when no process can be made any more.

use std::fs;
use std::path::Path;

use wire::message::inside::{Interface, Sample};

use super::processes::{field, uptime};
use crate::clock;

/// The most interfaces that are told; a container may make as many as it likes.
const MAX_INTERFACES: usize = 64;

/// Measures the cgroup at `group`.
pub fn sample(group: &Path) -> Sample {
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    let machine = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpu, events, disks) = (read("cpu.stat"), read("memory.events"), read("io.stat"));
    let memory_kib = field(&machine("/proc/meminfo"), "MemTotal:").unwrap_or(0);
    let disks = Disks::parse(&disks);
    Sample {
        time_us: clock::wall_us(),
        uptime_us: uptime(&machine("/proc/uptime")),
        processors: processors(&machine("/proc/stat")),
        cpu_us: keyed(&cpu, "usage_usec"),
        cpu_user_us: keyed(&cpu, "user_usec"),
        cpu_system_us: keyed(&cpu, "system_usec"),
        throttled: keyed(&cpu, "nr_throttled"),
        throttled_us: keyed(&cpu, "throttled_usec"),
        memory: number(&read("memory.current")),
        inactive_file: keyed(&read("memory.stat"), "inactive_file"),
        memory_limit: limit(&read("memory.max"))
            .unwrap_or(memory_kib * 1024)
            .min(memory_kib * 1024),
        ooms: keyed(&events, "oom"),
        oom_kills: keyed(&events, "oom_kill"),
        tasks: number(&read("pids.current")),
        tasks_limit: limit(&read("pids.max")).unwrap_or(0),
        disk_read: disks.read,
        disk_written: disks.written,
        disk_reads: disks.reads,
        disk_writes: disks.writes,
        interfaces: interfaces(&machine("/proc/net/dev")),
    }
}

/// A value of a file of `key value` lines; 0 when it is not there.
pub fn keyed(text: &str, key: &str) -> u64 {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter(|(found, _)| *found == key).find_map(|(_, n)| n.trim().parse().ok()).unwrap_or(0)
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// A limit; `max` is none.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn processors(stat: &str) -> u32 {
    let per_processor = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    u32::try_from(stat.lines().filter(per_processor).count()).unwrap_or(u32::MAX)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Disks {
    read: u64,
    written: u64,
    reads: u64,
    writes: u64,
}

impl Disks {
    /// The sum over all devices of an `io.stat` (`Documentation/admin-guide/cgroup-v2.rst`).
    fn parse(text: &str) -> Self {
        let mut sum = Self::default();
        for (key, value) in text.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => sum.read += value,
                "wbytes" => sum.written += value,
                "rios" => sum.reads += value,
                "wios" => sum.writes += value,
                _ => {}
            }
        }
        sum
    }
}

/// The interfaces of a `/proc/net/dev` but loopback.
fn interfaces(text: &str) -> Vec<Interface> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let lines = lines.map(|(name, rest)| (name.trim(), rest)).filter(|(name, _)| *name != "lo");
    let parsed = lines.map(|(name, rest)| {
        let n: Vec<u64> =
            rest.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
        let at = |i: usize| n.get(i).copied().unwrap_or(0);
        Interface {
            name: name.to_owned(),
            received: at(0),
            received_packets: at(1),
            received_errors: at(2),
            received_dropped: at(3),
            sent: at(8),
            sent_packets: at(9),
            sent_errors: at(10),
            sent_dropped: at(11),
        }
    });
    parsed.take(MAX_INTERFACES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_measured_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "cpu.stat",
                "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_throttled 4\nthrottled_usec 9\n",
            ),
            ("memory.current", "1048576\n"),
            ("memory.max", "2097152\n"),
            ("memory.stat", "anon 1\nfile 9\ninactive_file 4096\nactive_file 7\n"),
            ("memory.events", "low 0\nhigh 0\nmax 5\noom 3\noom_kill 2\noom_group_kill 0\n"),
            ("pids.current", "7\n"),
            ("pids.max", "max\n"),
            (
                "io.stat",
                "8:0 rbytes=100 wbytes=20 rios=3 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=3 wios=4\n",
            ),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let found = sample(dir.path());
        assert_eq!((found.cpu_us, found.cpu_user_us, found.cpu_system_us), (5000, 3000, 2000));
        assert_eq!((found.throttled, found.throttled_us), (4, 9));
        assert_eq!((found.memory, found.inactive_file), (1_048_576, 4096));
        assert_eq!((found.memory_limit, found.ooms, found.oom_kills), (2_097_152, 3, 2));
        assert_eq!((found.tasks, found.tasks_limit), (7, 0));
        assert_eq!((found.disk_read, found.disk_written), (101, 22));
        assert_eq!((found.disk_reads, found.disk_writes), (6, 5));
        assert!(found.processors > 0 && found.uptime_us > 0);
    }

    #[test]
    fn without_a_limit_the_machine_is_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let unlimited = sample(dir.path()).memory_limit;
        assert!(unlimited > 1 << 20);
        fs::write(dir.path().join("memory.max"), "9223372036854771712\n").unwrap();
        assert_eq!(sample(dir.path()).memory_limit, unlimited);
    }

    #[test]
    fn interfaces_are_told_without_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:  99 1 0 0 0 0 0 0 99 1 0 0 0 0 0 0\n  \
            eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        let eth = &found[0];
        assert_eq!((eth.name.as_str(), eth.received, eth.received_packets), ("eth0", 1000, 10));
        assert_eq!((eth.received_errors, eth.received_dropped), (1, 2));
        assert_eq!(
            (eth.sent, eth.sent_packets, eth.sent_errors, eth.sent_dropped),
            (2000, 20, 3, 4)
        );
    }

    #[test]
    fn only_whole_keys_count() {
        assert_eq!(keyed("oom_kill 2\noom 7\n", "oom"), 7);
        assert_eq!(keyed("", "oom"), 0);
    }
}
