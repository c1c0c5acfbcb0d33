//! What users of other agents in VMs complain of: clients that stand still, terminals that hang, input that is lost.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use qemu_tests::{Lab, Program, sha256};
use rustix::process::Signal;

#[track_caller]
fn exec(lab: &Lab, script: &str) -> Program {
    lab.serialmux(["exec", "-i", "box", "sh", "-c", script])
}

/// Whether the exec with this in its command has ended.
fn has_ended(lab: &Lab, part: &str) -> bool {
    let shown = lab.inspect("box");
    let mut execs = shown["execs"].as_array().unwrap().iter();
    execs.any(|it| it["command"].as_str().unwrap().contains(part) && it["running"] == false)
}

#[test]
fn a_client_that_stands_still_holds_up_nobody_and_gets_all_when_it_goes_on() {
    let lab = Lab::new();
    let idle = lab.idle_after("trap 'seq 100000; echo done' USR1;", &[]);
    let large = exec(&lab, "head -c 3000000 /dev/urandom >/r; sha256sum </r >&2; cat /r; exit 7");
    let short =
        exec(&lab, "echo up; until [ -e /go ]; do sleep 0.1; done; echo last words; exit 5");
    let follower = lab.serialmux(["logs", "-f", "box"]);
    large.expect_bytes(1);
    short.expect("up\n");
    follower.expect("up\n");
    for one in [&large, &short, &follower] {
        one.signal(Signal::STOP);
    }
    // What is written meanwhile, to the log and by others, and what ends, waits for none of the three.
    lab.serialmux(["kill", "-s", "USR1", "box"]).finish().code(0);
    idle.expect("100000\ndone\n");
    exec(&lab, "touch /go").finish().code(0);
    large.await_that("the short one has ended", || has_ended(&lab, "last words"));
    for n in 0..10 {
        let said = exec(&lab, &format!("echo {n}")).finish();
        said.code(0).prints(&format!("{n}\n"));
    }
    lab.serialmux(["top", "box"]).finish().code(0).shows("cat /r");
    for one in [&large, &short, &follower] {
        one.signal(Signal::CONT);
    }
    short.end().code(5).prints("up\nlast words\n");
    let large = large.end();
    assert_eq!(large.code(7).stdout.len(), 3_000_000);
    assert!(large.err().contains(&sha256(&large.stdout)), "{}", large.err());
    lab.stop_idle(idle);
    let all: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(follower.end().code(0).out() == format!("up\n{all}done\n"), "the log is another");
}

#[test]
fn a_flood_on_the_serial_port_delays_no_start_no_key_and_no_stop() {
    let lab = Lab::new();
    let run = ["run", "-d", "--boot", "direct", "--name", "box", "busybox", "sh", "-c"];
    let script = "echo up; while :; do seq 100000; done";
    lab.start(lab.command("containervm", &[&run[..], &[script]].concat())).finish().code(0);
    let follower = lab.serialmux(["logs", "-f", "box"]);
    follower.expect("up\n");
    for n in 0..10 {
        exec(&lab, &format!("exit {n}")).finish().code(n);
    }
    let open = || lab.in_terminal(&lab.command("serialmux", &["exec", "-it", "box", "sh"]));
    let (mut floods, mut types) = (open(), open());
    floods.expect("# ").types("seq 100000; echo $((100+11))\r").expect("10000\r\n");
    for n in 0..10 {
        types.expect("# ").types(&format!("echo $(({n}+40))\r")).expect(&format!("{}\r\n", n + 40));
    }
    floods.expect("111\r\n").expect("# ");
    // Ctrl-D ends a shell, and with it its client.
    for mut shell in [floods, types] {
        shell.types("\x04");
        shell.finish().code(0);
    }
    lab.serialmux(["stop", "-t", "1", "box"]).finish().code(0);
    lab.serialmux(["wait", "box"]).finish().code(0).prints("137\n");
    follower.end().code(0);
}

#[test]
fn a_terminal_takes_all_that_is_pasted_and_goes_with_its_program() {
    let lab = Lab::new();
    let mut shell = lab.run_in_terminal(["--boot", "direct", "--name", "box", "busybox"]);
    shell.expect("# ");
    // What is not there is not waited for.
    let nosuch = lab.command("serialmux", &["exec", "-it", "box", "nosuch"]);
    lab.in_terminal(&nosuch).finish().code(127).shows("not found in $PATH");
    let text: String =
        (0..4000).map(|n| format!("line {n} of a text that somebody pastes\n")).collect();
    let reader = "sh -c 'stty -echo; echo go; sleep 1; sha256sum; stty echo'\r";
    let exec = lab.command("serialmux", &["exec", "-it", "box", "sh"]);
    let mut exec = lab.in_terminal(&exec);
    exec.expect("# ");
    for terminal in [&mut exec, &mut shell] {
        terminal.types(reader).expect("\r\ngo\r\n").types(&text).types("\x04");
        terminal.expect(&sha256(text.as_bytes())).expect("# ");
    }
    exec.types("exit 8\r");
    exec.finish().code(8);
    shell.types("\x04");
    shell.finish().code(0);
    lab.run_in_terminal(["--boot", "direct", "busybox", "nosuch"]).finish().code(127);
}

/// Bytes with no pattern that compression could use.
fn noise(n: usize) -> Vec<u8> {
    gauge::Kind::Random.bytes(n)
}

#[test]
fn input_before_the_start_and_both_ways_at_once_is_all_there() {
    let lab = Lab::new();
    let waits = ["run", "-d", "-i", "--wait-for-attach", "--boot", "direct", "--pipe", "virtio"];
    let sums = ["--name", "early", "busybox", "sha256sum"];
    lab.start(lab.command("containervm", &[&waits[..], &sums].concat())).finish().code(0);
    // Before its VM is up, so that the input is there first.
    let early = noise(1_000_000);
    let expected = format!("{}  -\n", sha256(&early));
    lab.serialmux(["attach", "early"]).feed(early).end().code(0).prints(&expected);
    let idle = lab.idle(&["--pipe", "virtio"]);
    lab.console("box").expect("the link goes over virtio now");
    // As much as it likes in both directions, whatever comes first.
    let bytes = noise(8_000_000);
    let echoed = exec(&lab, "cat").feed(bytes.clone()).end();
    assert!(echoed.code(0).stdout == bytes, "{} bytes came back", echoed.stdout.len());
    let late = exec(&lab, "sha256sum; seq 100000; exit 4").feed(bytes.clone()).end();
    let all: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(
        late.code(4).out() == format!("{}  -\n{all}", sha256(&bytes)),
        "{} bytes",
        late.stdout.len()
    );
    // Who reads nothing keeps its client from nothing.
    exec(&lab, "exec <&-; echo no, thanks; exit 6")
        .feed(bytes)
        .end()
        .code(6)
        .prints("no, thanks\n");
    lab.stop_idle(idle);
}
