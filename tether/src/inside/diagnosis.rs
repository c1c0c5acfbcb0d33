//! How the agent and its machine are, for somebody who cannot get a shell in there.
//!
//! Everything comes from the agent's own memory and from files that the kernel keeps in its own: no process is
//! made, no disk is read, so this answers when a container has used up all processes, memory or disk space.

use std::fs;
use std::path::Path;

use wire::LinkStats;
use wire::message::inside::{Diagnosis, Fact, Section};

use super::Inside;
use super::measure::sample;
use crate::{clock, logbook};

/// The longest value of a file that is shown whole.
const MAX_VALUE: usize = 400;

/// Files of the container's cgroup that tell the most.
const GROUP_FILES: [&str; 12] = [
    "cgroup.events",
    "cpu.stat",
    "memory.current",
    "memory.max",
    "memory.peak",
    "memory.events",
    "memory.pressure",
    "pids.current",
    "pids.max",
    "pids.events",
    "io.stat",
    "io.pressure",
];

/// One section, from names and values.
pub fn section(title: &str, facts: impl IntoIterator<Item = (String, String)>) -> Section {
    let facts = facts.into_iter().map(|(name, value)| Fact { name, value }).collect();
    Section { title: title.to_owned(), facts }
}

/// Everything: what the agent says of its sessions and its link, then what can be seen of the machine.
pub fn diagnose(mut sections: Vec<Section>, inside: &Inside) -> Diagnosis {
    sections.push(section(
        "requests",
        [
            ("copies and looks under way".to_owned(), inside.n_jobs().to_string()),
            ("disk frozen".to_owned(), if inside.is_frozen() { "yes" } else { "no" }.to_owned()),
        ],
    ));
    sections.push(machine(&|path| fs::read_to_string(path).unwrap_or_default()));
    sections.push(agent(&fs::read_to_string("/proc/self/status").unwrap_or_default()));
    sections.push(group(inside.group()));
    Diagnosis { sections, log: logbook::lines(), time_us: clock::wall_us() }
}

/// What the link's own counters say.
pub fn link_section(stats: LinkStats, rtt: Option<wire::Duration>, queued: usize) -> Section {
    let LinkStats {
        bytes_in,
        bytes_out,
        packets_in,
        packets_out,
        noise_bytes,
        damaged,
        duplicates,
        strays,
        lost,
        probes,
        sessions,
        ..
    } = stats;
    let counters = [
        ("bytes in", bytes_in),
        ("bytes out", bytes_out),
        ("packets in", packets_in),
        ("packets out", packets_out),
        ("noise bytes", noise_bytes),
        ("damaged packets", damaged),
        ("duplicate packets", duplicates),
        ("stray packets", strays),
        ("lost packets", lost),
        ("probes", probes),
        ("sessions", sessions),
        ("message bytes waiting", queued as u64),
    ];
    let facts = counters.map(|(name, n)| (name.to_owned(), n.to_string()));
    let rtt = rtt.map_or("unknown".to_owned(), |rtt| format!("{} µs", rtt.as_micros()));
    section("link", facts.into_iter().chain([("round trip".to_owned(), rtt)]))
}

fn machine(read: &dyn Fn(&str) -> String) -> Section {
    let memory = read("/proc/meminfo");
    let wanted =
        ["MemTotal", "MemFree", "MemAvailable", "Dirty", "Writeback", "Slab", "PageTables"];
    let line = |key: &str| {
        memory.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
    };
    let memory = wanted.iter().filter_map(|key| Some(((*key).to_owned(), line(key)?.to_owned())));
    let whole = [
        ("uptime and idle, s", "/proc/uptime"),
        ("load", "/proc/loadavg"),
        ("most tasks", "/proc/sys/kernel/pid_max"),
        ("open files", "/proc/sys/fs/file-nr"),
        ("memory pressure", "/proc/pressure/memory"),
        ("disk pressure", "/proc/pressure/io"),
        ("processor pressure", "/proc/pressure/cpu"),
    ];
    let whole = whole.map(|(name, path)| (name.to_owned(), one_line(&read(path))));
    let whole = whole.into_iter().filter(|(_, value)| !value.is_empty());
    section("machine", whole.chain(memory))
}

fn agent(status: &str) -> Section {
    let wanted = ["VmRSS", "VmHWM", "VmData", "Threads", "FDSize"];
    let line = |key: &str| {
        status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
    };
    let version = ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let facts = wanted.iter().filter_map(|key| Some(((*key).to_owned(), line(key)?.to_owned())));
    section("agent", std::iter::once(version).chain(facts))
}

fn group(path: &Path) -> Section {
    let files = GROUP_FILES.iter().filter_map(|name| {
        let text = fs::read_to_string(path.join(name)).ok()?;
        Some(((*name).to_owned(), one_line(&text)))
    });
    let sample = sample(path);
    let used = sample.memory.saturating_sub(sample.inactive_file);
    let of = format!("{used} of {}", sample.memory_limit);
    section("container", files.chain([("memory used, bytes".to_owned(), of)]))
}

/// A text with its lines side by side, cut where it gets long.
fn one_line(text: &str) -> String {
    let mut joined = text.trim().replace('\n', "; ").replace('\t', " ");
    if joined.len() > MAX_VALUE {
        let end = (0..=MAX_VALUE).rev().find(|at| joined.is_char_boundary(*at)).unwrap_or(0);
        joined.truncate(end);
        joined.push('…');
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_many_lines_are_shown_on_one_and_not_for_ever() {
        assert_eq!(one_line("low 0\nhigh 0\n"), "low 0; high 0");
        let long = one_line(&"µ".repeat(4000));
        assert!(long.len() <= MAX_VALUE + '…'.len_utf8() && long.ends_with('…'), "{}", long.len());
    }

    #[test]
    fn a_machine_is_told_by_what_can_be_read_of_it() {
        let read = |path: &str| match path {
            "/proc/meminfo" => "MemTotal:  240000 kB\nMemFree: 9 kB\nOther: 1 kB\n".to_owned(),
            "/proc/loadavg" => "0.1 0.2 0.3 1/99 412\n".to_owned(),
            _ => String::new(),
        };
        let facts = machine(&read).facts;
        let shown: Vec<_> = facts.iter().map(|f| (f.name.as_str(), f.value.as_str())).collect();
        assert_eq!(
            shown,
            [("load", "0.1 0.2 0.3 1/99 412"), ("MemTotal", "240000 kB"), ("MemFree", "9 kB")]
        );
    }
}
