//! Processes beside a container's own: what they write and how they end, many at once, and what they get through.

use qemu_tests::{Lab, Program, record, sha256};
use rustix::process::Signal;
use std::cell::Cell;
use std::time::Instant;

/// A container in the background that waits to be killed, under a daemon of the test's own, which it can have die; and
/// that one's port.
fn idle_without_us(lab: &Lab) -> (Program, String) {
    let daemon = lab.daemon("0");
    let port = port_of(&daemon.so_far());
    let script = "echo up; exec sleep 1000";
    let idle = ["run", "-d", "--name", "box", "--boot", "direct", "busybox", "sh", "-c", script];
    lab.containervm(idle).finish().code(0);
    lab.serialmux(["logs", "-f", "box"]).expect("up\n");
    (daemon, port)
}

/// Has a daemon die, and another one in its place.
fn another(lab: &Lab, daemon: Program, port: &str) -> Program {
    daemon.signal(Signal::KILL);
    drop(daemon.finish());
    lab.daemon(port)
}

/// The id of the exec that runs.
fn running(lab: &Lab) -> String {
    let shown = lab.inspect("box");
    let mut execs = shown["execs"].as_array().expect("execs").iter();
    let runs = execs.find(|exec| exec["running"] == true).expect("one runs");
    runs["id"].as_str().expect("an id").to_owned()
}

#[test]
fn an_exec_is_as_dockers_vic_84_to_91() {
    let lab = Lab::new();
    let idle = lab.idle(&["-e", "A=own", "-w", "/var/tmp"]);
    // VIC 84: the exit status is the command's.
    for n in ["0", "1", "7", "255"] {
        let script = format!("exit {n}");
        lab.serialmux(["exec", "box", "sh", "-c", &script]).finish().code(n.parse().unwrap());
    }
    lab.serialmux(["exec", "box", "sh", "-c", "kill -9 $$"]).finish().code(137);
    // VIC 86: the exact text, and stdout apart from stderr.
    let both = lab.serialmux(["exec", "box", "sh", "-c", "echo out; echo err >&2"]).finish();
    both.code(0).prints("out\n");
    assert_eq!(both.err(), "err\n");
    // VIC 87 and 88: no input without -i, all of it and its end with -i.
    let none = lab.serialmux(["exec", "box", "sort"]);
    none.feed(b"one\n".to_vec()).end().code(0).prints("");
    let sorted = lab.serialmux(["exec", "-i", "box", "sort"]);
    sorted.feed(b"b\na\n".to_vec()).end().code(0).prints("a\nb\n");
    // VIC 89 and 91, in Docker's words.
    let absent = lab.serialmux(["exec", "box", "/NonExisting"]).finish();
    absent.code(127).complains(&["/NonExisting", "no such file or directory"]);
    let absent = lab.serialmux(["exec", "box", "nosuch"]).finish();
    absent.code(127).complains(&["nosuch", "executable file not found in $PATH"]);
    lab.serialmux(["exec", "-d", "box", "/does/not/exist"]).finish().code(127);
    let empty = "touch /tmp/empty; chmod +x /tmp/empty";
    lab.serialmux(["exec", "box", "sh", "-c", empty]).finish().code(0);
    lab.serialmux(["exec", "box", "/tmp/empty"])
        .finish()
        .code(126)
        .complains(&["exec format error"]);
    lab.serialmux(["exec", "box", "/etc/passwd"]).finish().code(126);
    let nobody = lab.serialmux(["exec", "-u", "nosuchuser", "box", "true"]).finish();
    nobody.code(125).complains(&["unable to find user nosuchuser"]);
    // What it is not told is as with the container; it is in there, not beside it.
    let script = "echo $A $B $HOME $(pwd) $(id -un); cat /proc/1/comm; hostname | wc -c";
    let seen = lab.serialmux(["exec", "-e", "B=more", "box", "sh", "-c", script]).finish();
    seen.code(0).prints("own more /root /var/tmp root\nsh\n13\n");
    let other = ["exec", "-e", "A=2", "-u", "nobody", "-w", "/var", "box", "sh", "-c"];
    let script = "echo $A $(pwd) $(id -u)";
    let mut all = other.to_vec();
    all.push(script);
    lab.start(lab.command("serialmux", &all)).finish().code(0).prints("2 /var 65534\n");
    let cgroup = lab.serialmux(["exec", "box", "cat", "/proc/self/cgroup"]).finish();
    cgroup.code(0).prints("0::/\n");
    lab.serialmux(["inspect", "box"]).finish().code(0).shows("\"execs\"").shows("cat /proc/self");
    lab.stop_idle(idle);
    let late = lab.serialmux(["exec", "box", "true"]).finish();
    late.code(125);
}

#[test]
fn an_exec_in_a_terminal_is_typed_at_resized_and_killed() {
    let lab = Lab::new();
    let idle = lab.idle(&[]);
    let mut shell = lab.in_terminal(&lab.command("serialmux", &["exec", "-it", "box", "sh"]));
    shell.expect("# ").types("tty; echo $TERM $((40+2))\r").expect("/dev/pts/0\r\nxterm 42\r\n");
    shell.expect("# ").types("stty size\r").expect("24 80\r\n").expect("# ");
    // ash asks for news of the size a moment after its prompt, and echoes nothing before.
    shell.types("stty").expect("stty").resize(50, 132).expect("\x1b[J");
    shell.types(" size\r").expect("50 132\r\n").expect("# ");
    // Once it says so itself, the keys are its own and no longer the shell's.
    shell.types("sh -c 'echo go; sleep 1000'\r").expect("\r\ngo\r\n").types("\x03").expect("# ");
    // By its id, its size is set from outside, too; the shell draws its line again then.
    let id = running(&lab);
    shell.types("stty").expect("stty");
    lab.serialmux(["resize", "--exec", &id, "box", "33", "44"]).finish().code(0);
    shell.expect("\x1b[J").types(" size\r").expect("33 44\r\n").expect("# ");
    shell.types("exit 9\r");
    shell.finish().code(9);

    // A signal to the client is one to the process; one by the exec's id reaches no other.
    let script = "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.1; done";
    let trap = lab.serialmux(["exec", "box", "sh", "-c", script]);
    trap.expect("ready\n").signal(Signal::USR1);
    trap.end().code(3).prints("ready\ngot it\n");
    let asleep = lab.serialmux(["exec", "box", "sh", "-c", "echo ready; exec sleep 1001"]);
    asleep.expect("ready\n");
    let id = running(&lab);
    lab.serialmux(["kill", "-s", "TERM", "--exec", &id, "box"]).finish().code(0);
    asleep.end().code(143);
    lab.stop_idle(idle);
}

#[test]
fn output_of_a_thousand_execs_that_end_at_once_is_never_lost() {
    let lab = Lab::new();
    let idle = lab.idle(&[]);
    let n: usize = std::env::var("EXEC_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let begin = Instant::now();
    let mut done = 0;
    // Some at a time: that is what the two sides have to tell apart.
    while done < n {
        let some = (n - done).min(8);
        let runs: Vec<_> = (done..done + some)
            .map(|i| {
                let script = format!("seq {i} {}; exit {}", i + 200, i % 256);
                (i, lab.serialmux(["exec", "box", "sh", "-c", &script]))
            })
            .collect();
        for (i, run) in runs {
            let expected: String = (i..=i + 200).map(|k| format!("{k}\n")).collect();
            let run = run.finish();
            run.code(i32::try_from(i % 256).unwrap());
            assert_eq!(sha256(&run.stdout), sha256(expected.as_bytes()), "exec {i}: {run:?}");
        }
        done += some;
    }
    record(&format!("{n} execs, 8 at a time: {:.1?}", begin.elapsed()));
    // What the agent has not collected would be shown; those left are the container's own two.
    let left = lab.serialmux(["top", "box", "-o", "stat,args"]).finish().code(0).out();
    assert_eq!(left.lines().count(), 3, "{left}");
    assert!(!left.lines().any(|line| line.starts_with('Z')), "{left}");
    lab.stop_idle(idle);
}

#[test]
fn an_exec_of_true_is_measured_against_the_vms_own_fork_and_exec() {
    const RUNS: u32 = 200;
    for pipe in ["uart", "virtio"] {
        let lab = Lab::new();
        let idle = lab.idle(&["--pipe", pipe]);
        if pipe == "virtio" {
            lab.console("box").expect("the link goes over virtio now");
        }
        let run = |script: &str| {
            let begin = Instant::now();
            lab.serialmux(["exec", "box", "sh", "-c", script]).finish().code(0);
            begin.elapsed()
        };
        // A shell's `true` is its own; this one is made and waited for.
        let own = run(&format!("i=0; while [ $i -lt {RUNS} ]; do /bin/true; i=$((i+1)); done"));
        let own = (own.saturating_sub(run(":"))) / RUNS;
        let mut all: Vec<_> = (0..RUNS)
            .map(|_| {
                let begin = Instant::now();
                lab.serialmux(["exec", "box", "/bin/true"]).finish().code(0);
                begin.elapsed()
            })
            .collect();
        all.sort();
        let (half, most) = (all[all.len() / 2], all[all.len() * 9 / 10]);
        record(&format!(
            "exec of true over {pipe}, client and all: p50 {half:.1?}, p90 {most:.1?}; \
             fork, exec and exit in the VM alone: {own:.1?}"
        ));
        lab.stop_idle(idle);
    }
}

#[test]
fn a_grandchild_that_holds_stdout_delays_neither_exec_nor_stop() {
    let lab = Lab::new();
    let script = "trap 'exit 0' TERM; sleep 1002 & echo up; while :; do sleep 1003 & wait $!; done";
    let all = ["--name", "box", "--boot", "direct", "busybox", "sh", "-c", script];
    let held = lab.begin(all);
    held.expect("up\n");
    let exec = lab.serialmux(["exec", "box", "sh", "-c", "sleep 1004 & echo said"]);
    exec.finish().code(0).prints("said\n");
    let exec = lab.serialmux(["exec", "-t", "box", "sh", "-c", "sleep 1005 & echo said"]);
    exec.finish().code(0).shows("said");
    // They are still there: nobody waited for them.
    let left = lab.serialmux(["exec", "box", "sh", "-c", "ps | grep -c 'sleep 100[45]'"]).finish();
    assert!(left.out().trim().parse::<u32>().is_ok_and(|n| n >= 1), "{left:?}");
    lab.serialmux(["stop", "box"]).finish().code(0);
    held.end().code(0);
}

#[test]
fn an_exec_outlives_the_daemon_and_its_client_notices_nothing() {
    let lab = Lab::new();
    let (mut daemon, port) = idle_without_us(&lab);
    lab.serialmux(["exec", "box", "true"]).finish().code(0);
    let script = "head -c 400000 /dev/urandom >f; sha256sum <f >&2; cat f; sha256sum >g; \
                  cat g >&2; exit 5";
    let exec = lab.serialmux(["exec", "-i", "box", "sh", "-c", script]);
    let input: Vec<u8> = (0..30_000_u32).flat_map(u32::to_be_bytes).collect();
    for n in [1, 150_000] {
        exec.expect_bytes(n);
        daemon = another(&lab, daemon, &port);
    }
    let sent = sha256(&input);
    let done = exec.feed(input).end();
    done.code(5);
    assert!(done.err().contains(&sent), "{}", done.err());
    assert_eq!(done.stdout.len(), 400_000);
    assert!(done.err().contains(&sha256(&done.stdout)), "{}", done.err());
    // How it ended is known to a daemon that was not there when it did.
    let _daemon = another(&lab, daemon, &port);
    lab.serialmux(["exec", "box", "true"]).finish().code(0);
    lab.serialmux(["inspect", "box"]).finish().code(0).shows("\"code\": 5");
    lab.containervm(["stop", "-t", "1", "box"]).finish().code(0);
}

/// Bytes that the daemon has received from the VM.
fn received(lab: &Lab) -> u64 {
    let shown = lab.serialmux(["inspect", "box"]).finish();
    let said: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    said["link"]["statistics"]["bytes_in"].as_u64().unwrap_or_else(|| panic!("{said:#}"))
}

#[test]
fn text_of_an_exec_comes_packed_and_no_dying_daemon_changes_a_byte() {
    let lab = Lab::new();
    let (mut daemon, port) = idle_without_us(&lab);
    let text: String = (1..=600_000).map(|n| format!("{n}\n")).collect();
    let exec = lab.serialmux(["exec", "box", "seq", "1", "600000"]);
    for n in [1, 700_000, 2_000_000, 3_500_000] {
        exec.expect_bytes(n);
        daemon = another(&lab, daemon, &port);
    }
    let exec = exec.end();
    assert_eq!(exec.code(0).err(), "");
    assert_eq!(sha256(&exec.stdout), sha256(text.as_bytes()));
    // What that costs on the line shows where nothing is sent twice.
    let before = received(&lab);
    let exec = lab.serialmux(["exec", "box", "seq", "1", "600000"]).finish();
    assert_eq!(sha256(&exec.code(0).stdout), sha256(text.as_bytes()));
    let cost = received(&lab) - before;
    assert!(cost * 2 < text.len() as u64, "{cost} for {}", text.len());
    record(&format!("an exec's {} bytes of text took {cost} on the serial line", text.len()));
    lab.containervm(["stop", "-t", "1", "box"]).finish().code(0);
}

#[test]
fn many_execs_at_once_write_as_much_as_they_like() {
    let lab = Lab::new();
    // Over the serial port; crowd.rs has more of them, and more bytes, where there is a faster pipe.
    let (n, bytes): (usize, usize) = (40, 100_000);
    let idle = lab.idle(&["-m", "1g"]);
    let begin = Instant::now();
    let script = format!(
        "f=$(mktemp); yes \"$$ a line of text\" | head -c {bytes} >$f; sha256sum <$f >&2; cat $f"
    );
    let all: Vec<_> = (0..n).map(|_| lab.serialmux(["exec", "box", "sh", "-c", &script])).collect();
    for exec in all {
        let exec = exec.finish();
        exec.code(0);
        assert_eq!(exec.stdout.len(), bytes);
        assert!(exec.err().contains(&sha256(&exec.stdout)), "{}", exec.err());
    }
    record(&format!("{n} execs of {bytes} bytes at once: {:.1?}", begin.elapsed()));
    lab.stop_idle(idle);
}

#[test]
fn a_container_that_has_used_up_its_tasks_can_be_looked_after() {
    let lab = Lab::new();
    let idle = lab.idle(&["--pids-limit", "20"]);
    // Of another name than what the container's own process starts, which could not start it again at once.
    let script = "while tail -f /dev/null & do :; done";
    let full = lab.serialmux(["exec", "box", "sh", "-c", script]).finish();
    full.code(2).complains(&["can't fork"]);
    // In the place of the shell.
    lab.serialmux(["exec", "-d", "box", "tail", "-f", "/dev/null"]).finish().code(0);
    // The limit is on what it makes itself, and holds for what is started beside it, too.
    let script = "read max </sys/fs/cgroup/pids.max; read now </sys/fs/cgroup/pids.current; \
                  echo $max $((now > max)); (:) || echo never";
    let inside = lab.serialmux(["exec", "box", "sh", "-c", script]).finish();
    inside.code(2).prints("20 1\n").complains(&["can't fork"]);
    lab.serialmux(["exec", "box", "killall", "-9", "tail"]).finish().code(0);
    lab.serialmux(["exec", "box", "sh", "-c", "(echo again)"]).finish().code(0).prints("again\n");
    lab.stop_idle(idle);
}

#[test]
fn a_paused_container_takes_no_exec_and_can_be_stopped() {
    let lab = Lab::new();
    let script = "trap 'echo ended; exit 4' TERM; echo up; while :; do sleep 0.1; done";
    let box_ = lab.begin(["--name", "box", "--boot", "direct", "busybox", "sh", "-c", script]);
    box_.expect("up\n");
    lab.serialmux(["pause", "box"]).finish().code(0);
    lab.serialmux(["ps"]).finish().code(0).shows("paused");
    lab.serialmux(["pause", "box"]).finish().code(125).complains(&["paused"]);
    lab.serialmux(["exec", "box", "true"]).finish().code(125).complains(&["paused"]);
    // It starts ten programs in a second, and now none: what it has used stays the same.
    let used = || {
        let shown = lab.serialmux(["stats", "--no-stream", "--json", "box"]).finish().code(0).out();
        let stats: serde_json::Value = serde_json::from_str(shown.trim()).expect("JSON");
        stats["cpu_us"].as_u64().expect("a number")
    };
    // Who is in the middle of a system call stops when that is done.
    let last = Cell::new(0);
    box_.await_that("it to stand still", || {
        last.set(used());
        (0..20).all(|_| used() == last.get())
    });
    lab.serialmux(["unpause", "box"]).finish().code(0);
    box_.await_that("it to go on", || used() != last.get());
    lab.serialmux(["unpause", "box"]).finish().code(125).complains(&["not paused"]);
    lab.serialmux(["exec", "box", "echo", "hi"]).finish().code(0).prints("hi\n");
    lab.serialmux(["pause", "box"]).finish().code(0);
    lab.serialmux(["stop", "box"]).finish().code(0);
    box_.end().code(4).prints("up\nended\n");
}

fn port_of(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    let address = line.split(';').next().unwrap_or_default();
    address.rsplit(':').next().unwrap_or_default().to_owned()
}
