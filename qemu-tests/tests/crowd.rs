//! Much at once: a hundred megabytes into a process, eighty processes that write at the same time, four hundred that live.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use qemu_tests::deadline::deadline;
use qemu_tests::{Lab, Program, record, sha256};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

/// A size that the environment may change.
fn size(name: &str, or: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}

/// A container on the fast pipe that waits to be told to end, and is up.
fn idle(lab: &Lab) -> Program {
    let idle = lab.idle(&["--pipe", "virtio", "-m", "1g"]);
    lab.console("box").expect("the link goes over virtio now");
    idle
}

#[test]
fn a_hundred_megabytes_of_input_arrive_as_they_are() {
    const PIECE: usize = 10_000_000;
    let lab = Lab::new();
    let pieces = size("INPUT_MEGABYTES", 100).div_ceil(10);
    // Piece by piece, so that each wait is for a part; what comes behind the last must be nothing.
    let script = format!(
        "echo up; n=0; while [ $n -lt {pieces} ]; do \
         dd bs=100000 count=100 iflag=fullblock 2>/dev/null | sha256sum; n=$((n+1)); done; wc -c"
    );
    let run =
        ["--pipe", "virtio", "--boot", "direct", "--name", "fed", "-i", "busybox", "sh", "-c"];
    let [pipe, virtio, boot, direct, name, fed, i, busybox, sh, c] = run;
    let vm = lab.begin([pipe, virtio, boot, direct, name, fed, i, busybox, sh, c, &script]);
    vm.expect("up\n");
    lab.console("fed").expect("the link goes over virtio now");
    let input = gauge::Kind::Random.bytes(pieces * PIECE);
    let sums: Vec<String> = input.chunks(PIECE).map(sha256).collect();
    let begin = Instant::now();
    let vm = vm.feed(input);
    for sum in sums {
        vm.expect(&sum);
    }
    record(&format!("{} MB of input over virtio: {:.1?}", pieces * 10, begin.elapsed()));
    vm.expect("0\n");
    vm.end().code(0);
}

/// What a reader of a program's output tells.
enum Told {
    Progress,
    /// The reader of this number has come to the end: bytes, their hash, standard error, exit code.
    End(usize, usize, String, String, Option<i32>),
}

/// Runs a command to its end in a thread, and keeps nothing of its output but the hash.
fn digest(n: usize, mut command: Command, teller: Sender<Told>) {
    let piped = || (Stdio::piped(), Stdio::piped());
    let (stdout, stderr) = piped();
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
    let mut errors = child.stderr.take().unwrap();
    let errors = thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text).unwrap_or_default()
    });
    thread::spawn(move || {
        let mut output = child.stdout.take().unwrap();
        let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
        while let Ok(read @ 1..) = output.read(&mut buffer) {
            hash.update(&buffer[..read]);
            length += read;
            // Nobody waits any more when the test has failed.
            teller.send(Told::Progress).ok();
        }
        let code = child.wait().unwrap().code();
        let hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        teller.send(Told::End(n, length, hash, errors.join().unwrap(), code)).ok();
    });
}

/// Waits for `n` ends. That nothing moves is what a test must not wait for.
fn ends(told: &Receiver<Told>, n: usize) -> Vec<(usize, usize, String, String, Option<i32>)> {
    let mut all = Vec::new();
    while all.len() < n {
        match told.recv_timeout(deadline()) {
            Ok(Told::Progress) => {}
            Ok(Told::End(n, length, hash, errors, code)) => {
                all.push((n, length, hash, errors, code));
            }
            Err(_) => panic!("{} of {n} have ended, and nothing moves any more", all.len()),
        }
    }
    all
}

#[test]
fn eighty_execs_at_once_write_as_much_as_they_like() {
    let lab = Lab::new();
    let (n, megabytes) = (size("EXEC_MANY", 80), size("EXEC_MEGABYTES", 20));
    let idle = idle(&lab);
    let part = [gauge::Kind::Random.bytes(200_000), gauge::Kind::Text.bytes(800_000)].concat();
    let file = lab.file("part", &part).display().to_string();
    lab.serialmux(["cp", &file, "box:/part"]).finish().code(0);
    // Each has words of its own between the parts, so that no two outputs are alike, and none is a repetition.
    let script = format!(
        "i=0; while [ $i -lt {megabytes} ]; do echo \"$1 has part $i\"; cat /part; i=$((i+1)); done; \
         echo ended >&2; exit $1"
    );
    let sum = |n: usize| {
        let mut hash = Sha256::new();
        for i in 0..megabytes {
            hash.update(format!("{n} has part {i}\n"));
            hash.update(&part);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let begin = Instant::now();
    let (teller, told) = mpsc::channel();
    for i in 0..n {
        let number = i.to_string();
        let command = ["exec", "box", "sh", "-c", script.as_str(), "sh", number.as_str()];
        digest(i, lab.command("serialmux", &command), teller.clone());
    }
    drop(teller);
    for (i, length, hash, errors, code) in ends(&told, n) {
        assert_eq!(code, i32::try_from(i).ok(), "exec {i}: {errors}");
        assert_eq!((errors.as_str(), hash), ("ended\n", sum(i)), "exec {i} wrote {length} bytes");
    }
    record(&format!("{n} execs of {megabytes} MB at once over virtio: {:.1?}", begin.elapsed()));
    lab.stop_idle(idle);
}

#[test]
fn four_hundred_execs_live_at_once_and_no_more() {
    let lab = Lab::new();
    let idle = idle(&lab);
    let begin = Instant::now();
    let mut all: Vec<Program> =
        (0..400).map(|_| lab.serialmux(["exec", "-i", "box", "cat"])).collect();
    // Each answers, so all are there.
    for (i, cat) in all.iter_mut().enumerate() {
        cat.write(&format!("first {i}\n")).expect(&format!("first {i}\n"));
    }
    record(&format!("400 execs at once, all answer after {:.1?}", begin.elapsed()));
    let debug = lab.serialmux(["debug", "box"]).finish().code(0).out();
    let most = debug.lines().find_map(|line| line.trim().strip_prefix("VmHWM"));
    record(&format!("the agent's memory with 400 execs, at most: {}", most.unwrap().trim()));
    let refused = lab.serialmux(["exec", "box", "true"]).finish();
    refused.code(125).complains(&["400 processes", "no more"]);
    for (i, mut cat) in all.into_iter().enumerate() {
        cat.write(&format!("second {i}\n"));
        cat.finish().code(0).prints(&format!("first {i}\nsecond {i}\n"));
    }
    lab.serialmux(["exec", "box", "echo", "again"]).finish().code(0).prints("again\n");
    lab.stop_idle(idle);
}
