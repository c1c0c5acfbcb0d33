//! Output that nobody takes for a while, and a disk of the VM's own that it is kept on.

use std::os::unix::fs::FileExt as _;

use qemu_tests::{Lab, Program, sha256};
use rustix::process::Signal;

/// What the process writes: the numbers up to this, 30.9 MB of text.
const LAST: usize = 4_000_000;

/// Writes all of it, says so where no multiplexer is needed for it, and waits for another word.
fn script() -> String {
    format!(
        "mknod said c 1 11; echo up; read x; seq 1 {LAST}; echo '<0>everything is written' >said; read y; exit 3"
    )
}

fn written() -> Vec<u8> {
    let lines = (1..=LAST).map(|n| format!("{n}\n"));
    let all: String = std::iter::once("up\n".to_owned()).chain(lines).collect();
    all.into_bytes()
}

/// A VM whose process has written all while no multiplexer was there, and its client.
fn outran(lab: &Lab, daemon: Program, options: [&str; 2]) -> Program {
    let script = script();
    let [first, second] = options;
    let mut vm = lab.begin([
        "-i",
        "--name",
        "outran",
        "--log-opt",
        first,
        "--log-opt",
        second,
        "busybox",
        "sh",
        "-c",
        &script,
    ]);
    vm.expect("up\n");
    vm.write("go\n").expect("1000\n");
    daemon.signal(Signal::KILL);
    drop(daemon.finish());
    lab.console("outran")
        .expect("output that nobody takes is kept on /dev/sd")
        .expect("everything is written");
    vm
}

fn port(daemon: &Program) -> String {
    let said = daemon.so_far();
    let address = said.split(';').next().and_then(|it| it.rsplit(':').next()).expect("an address");
    address.trim().to_owned()
}

/// What the client was told of what is missing.
fn gaps(told: &str) -> impl Iterator<Item = &str> {
    told.lines().filter(|line| line.contains("were dropped in the VM"))
}

/// Bytes and lines that the client was told to be missing.
fn missing(told: &str) -> (usize, usize) {
    // serialmux: N bytes (M lines) of output from T to T were dropped in the VM: ...
    let counts = gaps(told).map(|line| {
        let mut numbers = line.split([' ', '(']).filter_map(|word| word.parse::<usize>().ok());
        numbers.next().zip(numbers.next()).unwrap_or_else(|| panic!("no counts in {line}"))
    });
    counts.fold((0, 0), |sum, gap| (sum.0 + gap.0, sum.1 + gap.1))
}

/// Everything is there, or counted to the byte and the line.
#[track_caller]
fn is_accounted_for(output: &[u8], told: &str) -> usize {
    let (written, (bytes, lines)) = (written(), missing(told));
    let n_lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(output.len() + bytes, written.len(), "{told}");
    assert_eq!(n_lines(output) + lines, LAST + 1, "{told}");
    bytes
}

#[test]
fn a_process_writes_30_mb_to_nobody_without_waiting_and_each_byte_arrives_later() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let port = port(&daemon);
    let mut vm = outran(&lab, daemon, ["mode=blocking", "spool=64m"]);
    // Sealed: nothing of it can be read on the disk.
    let disk = std::fs::read(lab.vm("outran").join("spool.img")).expect("the spool's disk");
    assert!(disk.starts_with(b"# containervm spool\n\0"));
    let held = disk.chunks(4096).filter(|page| page.iter().any(|byte| *byte != 0)).count();
    assert!(held > 5000, "{held} pages");
    assert!(!disk.windows(8).any(|piece| piece == b"\n123456\n"));
    let _daemon = lab.daemon(&port);
    vm.write("end\n");
    let vm = vm.finish();
    vm.code(3);
    assert_eq!(vm.err(), "");
    assert_eq!(sha256(&vm.stdout), sha256(&written()));
}

#[test]
fn a_spool_that_is_too_small_drops_the_oldest_and_counts_it() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let port = port(&daemon);
    let mut vm = outran(&lab, daemon, ["mode=non-blocking", "spool=8m"]);
    let _daemon = lab.daemon(&port);
    vm.write("end\n");
    let vm = vm.finish();
    vm.code(3);
    assert!(is_accounted_for(&vm.stdout, &vm.err()) > 15_000_000);
    let written = written();
    assert!(vm.stdout.starts_with(&written[..8000]), "the oldest had left already");
    // A disk that does not answer for a second is not waited for: a second gap then, behind what is on it.
    let n_kept = if gaps(&vm.err()).count() == 1 { 8_000_000 } else { 200_000 };
    let newest = &written[written.len() - n_kept..];
    assert!(vm.stdout.ends_with(newest), "the newest is kept, on the disk and in memory");
}

#[test]
fn a_spool_that_is_damaged_loses_what_it_held_and_counts_it() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let port = port(&daemon);
    let mut vm = outran(&lab, daemon, ["mode=blocking", "spool=64m"]);
    let disk = lab.vm("outran").join("spool.img");
    let disk = std::fs::File::options().write(true).open(disk).expect("the spool's disk");
    let junk = vec![0x5a; 1 << 20];
    (0..10).for_each(|n| disk.write_all_at(&junk, (5 + 4 * n) << 20).expect("junk"));
    let _daemon = lab.daemon(&port);
    lab.console("outran").expect("the spool's disk has failed and is not written to any more");
    vm.write("end\n");
    let vm = vm.finish();
    vm.code(3);
    let lost = is_accounted_for(&vm.stdout, &vm.err());
    assert!((5_000_000..12_000_000).contains(&lost), "{lost}");
}
