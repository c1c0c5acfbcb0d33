//! The container's processes, read from `/proc` and its cgroup: what `top` shows, without a program inside.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use wire::message::inside::Process;
use wire::message::put;

use super::failure::InsideError;
use super::root::ContainerRoot;

/// The most of a command line that is shown.
const MAX_COMMAND: u64 = 4096;
/// The most of the image's passwd.
const MAX_PASSWD: u64 = 1 << 20;
/// Cgroups below the container's that are looked at.
const MAX_GROUPS: usize = 4096;

/// What is the same for all processes of one look.
#[derive(Debug, Default)]
pub struct Machine {
    /// Clock ticks of `/proc` in a second (`sysconf(_SC_CLK_TCK)`): 100 on x86-64.
    pub ticks: u64,
    /// Bytes in a page.
    pub page: u64,
    /// Time since power-on, µs.
    pub uptime_us: u64,
    /// Wall-clock time, µs.
    pub now_us: u64,
    /// Memory, KiB.
    pub total_kib: u64,
    /// User names by number.
    pub users: BTreeMap<u32, String>,
}

/// Writes every process of the cgroup at `group`, each preceded by its length.
///
/// # Errors
///
/// [`InsideError`].
pub fn list(
    group: &Path,
    root: &ContainerRoot,
    now_us: u64,
    out: &mut impl Write,
) -> Result<(), InsideError> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let passwd = root.read_small(b"/etc/passwd", MAX_PASSWD);
    let machine = Machine {
        ticks: 100,
        page: 4096,
        uptime_us: uptime(&read("/proc/uptime")),
        now_us,
        total_kib: field(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0),
        users: users(&String::from_utf8_lossy(&passwd)),
    };
    for pid in members(group) {
        let dir = format!("/proc/{pid}");
        // One that has ended meanwhile is not there any more.
        let (Ok(stat), Ok(status)) =
            (fs::read(format!("{dir}/stat")), fs::read_to_string(format!("{dir}/status")))
        else {
            continue;
        };
        let command = command_line(&dir).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat);
        if let Some(process) = process(&stat, &status, &command, &machine) {
            let mut bytes = Vec::new();
            put(&process, &mut bytes);
            out.write_all(&bytes).map_err(InsideError::Pipe)?;
        }
    }
    out.flush().map_err(InsideError::Pipe)
}

/// The ids of all processes of a cgroup and those below it, sorted.
fn members(group: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let mut groups = vec![group.to_owned()];
    let mut n_groups = 0;
    while let Some(group) = groups.pop() {
        n_groups += 1;
        if n_groups > MAX_GROUPS {
            break;
        }
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        // Threaded cgroups cannot be read this way, and show their processes above.
        found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        let below = fs::read_dir(&group).into_iter().flatten().flatten();
        let dirs = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        groups.extend(dirs.map(|entry| entry.path()).take(MAX_GROUPS));
        groups.truncate(MAX_GROUPS);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn command_line(dir: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(format!("{dir}/cmdline"))?.take(MAX_COMMAND).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A process by the texts of its `stat`, `status` and `cmdline` (proc(5)). `None` when they are none of that.
fn process(stat: &str, status: &str, command: &[u8], machine: &Machine) -> Option<Process> {
    // The name stands in parentheses and may hold some itself.
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and `state` is number 3.
    let number =
        |n: usize| fields.get(n - 3).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let natural = |n: usize| u64::try_from(number(n)).unwrap_or(0);
    let us = |ticks: u64| ticks.saturating_mul(1_000_000 / machine.ticks.max(1));
    let age_us = machine.uptime_us.saturating_sub(us(natural(22)));
    let uid = second(status, "Uid:").unwrap_or(0);
    let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    Some(Process {
        pid: pid.trim().parse().ok()?,
        inner_pid: last(status, "NSpid:").unwrap_or(0),
        parent: u32::try_from(number(4)).unwrap_or(0),
        uid,
        user: machine.users.get(&uid).cloned().unwrap_or_default(),
        gid: second(status, "Gid:").unwrap_or(0),
        state: (*fields.first()?).to_owned(),
        tty: terminal(number(7)),
        started_us: machine.now_us.saturating_sub(age_us),
        age_us,
        cpu_us: us(natural(14) + natural(15)),
        virtual_kib: natural(23) / 1024,
        resident_kib: natural(24).saturating_mul(machine.page) / 1024,
        nice: i32::try_from(number(19)).unwrap_or(0),
        threads: u32::try_from(number(20)).unwrap_or(0),
        name: name.to_owned(),
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
        total_kib: machine.total_kib,
        time_us: machine.now_us,
    })
}

/// A terminal's name by its device number (`Documentation/admin-guide/devices.txt`); empty for none.
fn terminal(device: i64) -> String {
    // Minor numbers are split: bits 0 to 7 and 20 to 31.
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match (major, minor) {
        (0, _) => String::new(),
        (4, 64..) => format!("ttyS{}", minor - 64),
        (4, _) => format!("tty{minor}"),
        (5, 1) => "console".to_owned(),
        // Pseudo-terminals have eight majors of 256 each.
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".to_owned(),
    }
}

/// Numbers after a key of `/proc/PID/status`.
fn numbers<'a>(text: &'a str, key: &str) -> impl Iterator<Item = u32> + 'a {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|word| word.parse().ok())
}

/// The effective one of real, effective, saved and file-system id.
fn second(text: &str, key: &str) -> Option<u32> {
    numbers(text, key).nth(1)
}

/// The innermost namespace's id stands last.
fn last(text: &str, key: &str) -> Option<u32> {
    numbers(text, key).last()
}

/// A number of `/proc/meminfo`, KiB.
pub fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The first number of `/proc/uptime`, µs.
pub fn uptime(text: &str) -> u64 {
    let word = text.split_ascii_whitespace().next().unwrap_or_default();
    let (seconds, hundredths) = word.split_once('.').unwrap_or((word, "0"));
    let (seconds, hundredths): (u64, u64) =
        (seconds.parse().unwrap_or(0), hundredths.parse().unwrap_or(0));
    seconds.saturating_mul(1_000_000).saturating_add(hundredths * 10_000)
}

/// Names of passwd(5) by number; the first one of a number counts.
fn users(passwd: &str) -> BTreeMap<u32, String> {
    let mut users = BTreeMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok()));
        if let (Some(name), Some(uid)) = (name, uid) {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "412 (a) b (c) S 410 412 412 34817 412 4194560 155 0 0 0 210 45 0 0 20 -5 3 0 \
        1250 4243456 512 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    const STATUS: &str = "Name:\tsh\nUmask:\t0022\nPid:\t412\nUid:\t0\t1000\t0\t0\nGid:\t0\t100\t0\t0\n\
        NSpid:\t412\t7\nVmRSS:\t 2048 kB\n";

    fn machine() -> Machine {
        Machine {
            ticks: 100,
            page: 4096,
            uptime_us: 100_000_000,
            now_us: 1_700_000_000_000_000,
            total_kib: 256 * 1024,
            users: users(
                "root:x:0:0::/root:/bin/sh\nbad\nalice:x:1000:100::/:\nbob:x:1000:1::/:\n",
            ),
        }
    }

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let found = process(STAT, STATUS, b"sh\0-c\0sleep 9\0", &machine()).unwrap();
        assert_eq!((found.pid, found.inner_pid, found.parent), (412, 7, 410));
        assert_eq!((found.uid, found.user.as_str(), found.gid), (1000, "alice", 100));
        assert_eq!((found.name.as_str(), found.command.as_str()), ("a) b (c", "sh -c sleep 9"));
        assert_eq!((found.state.as_str(), found.tty.as_str()), ("S", "pts/1"));
        assert_eq!(found.cpu_us, 2_550_000);
        assert_eq!(found.age_us, 87_500_000);
        assert_eq!(found.started_us, 1_700_000_000_000_000 - 87_500_000);
        assert_eq!((found.virtual_kib, found.resident_kib), (4144, 2048));
        assert_eq!((found.nice, found.threads), (-5, 3));
    }

    #[test]
    fn a_process_without_a_command_line_shows_its_name() {
        assert_eq!(process(STAT, STATUS, b"", &machine()).unwrap().command, "[a) b (c]");
    }

    #[test]
    fn texts_that_are_no_process_are_none() {
        for text in ["", "412", "412 (x", "x (y) S", "412 (x) "] {
            assert_eq!(process(text, "", b"", &machine()), None, "{text}");
        }
    }

    #[test]
    fn terminals_have_the_names_that_ps_gives_them() {
        let device = |major: i64, minor: i64| (major << 8) | (minor & 0xff) | ((minor >> 8) << 20);
        for (major, minor, name) in [
            (0, 0, ""),
            (4, 1, "tty1"),
            (4, 65, "ttyS1"),
            (5, 1, "console"),
            (136, 0, "pts/0"),
            (137, 3, "pts/259"),
            (250, 0, "?"),
        ] {
            assert_eq!(terminal(device(major, minor)), name);
        }
    }

    #[test]
    fn the_machine_itself_can_be_listed() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        fs::write(dir.path().join("cgroup.procs"), format!("{own}\n4194305\n")).unwrap();
        let root = ContainerRoot::at(Path::new("/"));
        let mut bytes = Vec::new();
        list(dir.path(), &root, crate::clock::wall_us(), &mut bytes).unwrap();
        let mut reader = wire::message::Reader::default();
        reader.push(&bytes);
        let (found, _) = reader.next_message::<Process>().unwrap().unwrap();
        assert_eq!(found.pid, own);
        assert!(found.resident_kib > 0 && found.total_kib > found.resident_kib, "{found:?}");
        assert!(reader.next_message::<Process>().unwrap().is_none(), "the other does not exist");
    }
}
