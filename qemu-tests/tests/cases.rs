//! Cases of VIC's suite that no other test stands for, by their numbers in `vic.rs`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use qemu_tests::deadline::deadline;
use qemu_tests::{Lab, Program};
use rustix::process::Signal;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// `containervm run -d` with these options, image and command included.
#[track_caller]
fn run_detached(lab: &Lab, name: &str, options: &[&str]) {
    let run = ["run", "-d", "--boot", "direct", "--name", name];
    lab.start(lab.command("containervm", &[&run[..], options].concat())).finish().code(0);
}

/// A shell that lives until it is told to end.
const IDLE: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done";

#[track_caller]
fn idle(lab: &Lab) {
    run_detached(lab, "box", &["busybox", "sh", "-c", IDLE]);
    lab.serialmux(["logs", "-f", "box"]).expect("up\n");
}

#[track_caller]
fn stop(lab: &Lab) {
    lab.containervm(["stop", "box"]).finish().code(0);
}

/// Makes a VM that is to be started later.
#[track_caller]
fn create(lab: &Lab, name: &str, options: &[&str]) {
    let draft = ["run", "--print-vmx", "--boot", "direct", "--name", name];
    lab.start(lab.command("containervm", &[&draft[..], options].concat())).finish().code(0);
}

#[test]
fn vic_4_6_one_container_is_started_five_times_and_says_the_same() {
    let lab = Lab::new();
    // Whose address the files name.
    let _daemon = lab.daemon("0");
    create(&lab, "sorts", &["-i", "busybox", "sort"]);
    create(&lab, "says", &["-t", "busybox", "echo", "one"]);
    for _ in 0..5 {
        let sorts = lab.containervm(["start", "--attach", "--interactive", "sorts"]);
        let sorted = sorts.feed(b"one\n".to_vec()).end();
        sorted.code(0).prints("one\n");
        let says = lab.containervm(["start", "--attach", "says"]).finish();
        says.code(0).prints("one\r\n");
    }
}

#[test]
fn vic_11_what_the_kernel_has_said_comes_out_whole_in_all_forms() {
    let lab = Lab::new();
    let command = ["busybox", "ash", "-c", "dmesg; echo END_OF_\"\"THE_TEST"];
    let check = |said: String| {
        assert!(said.contains("Linux version") && said.contains("END_OF_THE_TEST"), "{said}");
    };
    for form in [&[][..], &["-i"], &["-t"]] {
        let run = [&["run", "--rm", "--boot", "direct"], form, &command].concat();
        check(lab.start(lab.command("containervm", &run)).finish().code(0).out());
    }
    let run = [&["run", "--rm", "--boot", "direct", "-it"], &command[..]].concat();
    let mut in_terminal = lab.in_terminal(&lab.command("containervm", &run));
    in_terminal.expect("Linux version").expect("END_OF_THE_TEST");
    in_terminal.finish().code(0);
}

#[test]
fn vic_13_what_ran_in_a_terminal_is_started_in_the_background() {
    let lab = Lab::new();
    let run = ["run", "-it", "--boot", "direct", "--name", "dated", "busybox", "date", "+at-%s-"];
    lab.in_terminal(&lab.command("containervm", &run)).finish().code(0).shows("at-");
    lab.containervm(["start", "dated"]).finish().code(0);
    lab.serialmux(["wait", "dated"]).finish().code(0).prints("0\n");
    let said = lab.serialmux(["logs", "dated"]).finish().code(0).out();
    assert_eq!(said.matches("at-").count(), 2, "{said}");
}

#[test]
fn vic_14_51_a_top_in_a_terminal_is_logged_and_stopped() {
    let lab = Lab::new();
    run_detached(&lab, "top", &["-it", "busybox", "top"]);
    let logs = lab.serialmux(["logs", "-f", "top"]);
    logs.expect("Mem:").expect("CPU:").expect("Load average:");
    lab.containervm(["stop", "top"]).finish().code(0);
    lab.serialmux(["wait", "top"]).finish().code(0).prints("143\n");
}

#[test]
fn vic_18_23_29_43_79_what_a_container_sees_of_itself_and_is_asked_for() {
    let lab = Lab::new();
    let run = |options: &[&str], command: &[&str]| {
        let all = [&["run", "--rm", "--boot", "direct"], options, &["busybox"], command].concat();
        lab.start(lab.command("containervm", &all)).finish()
    };
    run(&[], &["fakeCommand"]).code(127).complains(&["fakeCommand", "not found in $PATH"]);
    // It sees itself and nothing of the machine around it, least of all a key.
    let seen = run(&[], &["ps", "auxww"]);
    assert_eq!(seen.code(0).out().lines().count(), 2, "{seen:?}");
    seen.shows("ps auxww");
    let name = "hostname; hostname -d; grep -c vic.test /etc/hosts";
    run(&["--hostname", "vic.test"], &["sh", "-c", name]).code(0).prints("vic.test\ntest\n1\n");
    let listed = run(&[], &["ls", "/"]);
    listed.code(0).shows("bin\n").shows("root\n").shows("var\n");
    let all: String = (1..=128).map(|n| format!("{n}\n")).collect();
    run(&[], &["sh", "-c", "seq 1 128 | xargs -n1 echo"]).code(0).prints(&all);
}

#[test]
fn vic_36_38_39_49_62_what_is_not_there_is_said_so() {
    let lab = Lab::new();
    let empty = lab.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let refused = lab.containervm(["run", "--name", "none", &empty.to_string_lossy()]).finish();
    refused.code(125).complains(&["no command"]);
    let same = ["run", "--print-vmx", "--name", "same", "busybox", "true"];
    let all: Vec<Program> = (0..4).map(|_| lab.containervm(same)).collect();
    let all: Vec<_> = all.into_iter().map(Program::finish).collect();
    let (made, refused): (Vec<_>, Vec<_>) = all.iter().partition(|it| it.status.success());
    assert_eq!(made.len(), 1, "{all:?}");
    refused.iter().for_each(|it| drop(it.code(125).complains(&["\"same\" is in use"]).out()));
    lab.containervm(["start", "fakeContainer"]).finish().code(125).complains(&["fakeContainer"]);
    // What was never started need not be stopped.
    lab.containervm(["stop", "same"]).finish().code(0).prints("same\n");
    let killed = lab.serialmux(["kill", "fakeContainer"]).finish();
    killed.code(125).complains(&["no such container: fakeContainer"]);
    let attached = lab.serialmux(["attach", "fakeContainer"]).finish();
    attached.code(125).complains(&["no such container: fakeContainer"]);
}

/// The time, as `inspect` shows it, a little off.
fn clock(offset: &str) -> String {
    let shown = Command::new("date").args(["-u", "-d", offset, "+%Y-%m-%dT%H:%M:%S.%NZ"]).output();
    String::from_utf8(shown.unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn vic_24_start_and_end_are_when_they_were() {
    let lab = Lab::new();
    let before = clock("-1 sec");
    run_detached(&lab, "short", &["busybox", "sleep", "2"]);
    lab.serialmux(["wait", "short"]).finish().code(0).prints("0\n");
    let after = clock("+1 sec");
    let shown = lab.serialmux(["inspect", "short"]).finish().code(0).out();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let (start, end) = (shown["started"].as_str(), shown["exit"]["time"].as_str());
    let (start, end) = (start.unwrap(), end.unwrap());
    // All of one length, so their order is that of the moments.
    assert!(before.as_str() < start && start < end && end < after.as_str(), "{shown}");
    // Who has been told of the end need not know that its VM takes a moment longer.
    lab.containervm(["rm", "short"]).finish().code(0).prints("short\n");
}

#[test]
fn vic_27_42_sixteen_are_started_at_once_and_go_when_they_have_ended() {
    let lab = Lab::new();
    let _daemon = lab.daemon("0");
    let names: Vec<String> = (0..16).map(|n| format!("box-{n}")).collect();
    let run = ["run", "-d", "--rm", "--boot", "direct", "-m", "64m", "--name"];
    let begin = |name: &String| {
        let script = "echo up; until [ -e /go ]; do sleep 1; done";
        let all = [&run[..], &[name.as_str(), "busybox", "sh", "-c", script]].concat();
        lab.start(lab.command("containervm", &all))
    };
    let all: Vec<Program> = names.iter().map(begin).collect();
    all.into_iter().for_each(|one| assert_eq!(one.finish().code(0).out().trim().len(), 64));
    for name in &names {
        lab.serialmux(["logs", "-f", name]).expect("up\n");
    }
    // All sixteen are there, before any ends.
    assert_eq!(lab.processes("qemu-system-x86_64", "").len(), 16);
    let supervisors = lab.processes("containervm", "supervise");
    for name in &names {
        lab.serialmux(["exec", "-d", name, "touch", "/go"]).finish().code(0);
    }
    assert!(supervisors.iter().all(|supervisor| supervisor.wait(deadline())));
    lab.containervm(["ls", "--json"]).finish().code(0).prints("");
}

#[test]
fn vic_32_78_logs_are_followed_and_asked_for_since_a_moment() {
    let lab = Lab::new();
    let script =
        "ls -A /var/log | wc -l; for n in 1 2 3 4 5 6 7 8 9; do sleep 1; echo line $n; done";
    let _daemon = lab.daemon("0");
    create(&lab, "lines", &["-v", "/var/log", "busybox", "sh", "-c", script]);
    lab.containervm(["start", "lines"]).finish().code(0);
    let follower = lab.serialmux(["logs", "--follow", "lines"]);
    follower.expect("line 9\n");
    let lines = |options: &[&str]| {
        let logs = [&["logs"], options, &["lines"]].concat();
        let logs = lab.start(lab.command("serialmux", &logs)).finish();
        logs.code(0).out().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lately = lines(&["--since", "5s"]);
    assert!(lately.len() < 10, "{lately:?}");
    assert!(lately.last().is_none_or(|line| line == "line 9"), "{lately:?}");
    for options in [&["--since", "1h"][..], &[]] {
        let all = lines(options);
        assert_eq!((all.len(), all[0].as_str(), all[9].as_str()), (10, "0", "line 9"), "{all:?}");
    }
    let stamped = lines(&["--timestamps"]);
    for line in &stamped {
        // As VIC's case has it: YYYY-MM-DDThh:mm:ss, nine digits of a second, Z.
        let form: String = line[..30].replace(|c: char| c.is_ascii_digit(), "d");
        assert_eq!(form, "dddd-dd-ddTdd:dd:dd.dddddddddZ", "{line}");
    }
    // From the moment of a line on, that line and those behind it.
    let since = lines(&["--since", &stamped[6][..30]]);
    assert_eq!(since, ["line 6", "line 7", "line 8", "line 9"]);
    follower.end().code(0);
}

#[test]
fn vic_64_71_one_that_starts_is_stopped_and_a_restart_keeps_its_address() {
    let lab = Lab::new();
    let _daemon = lab.daemon("0");
    run_detached(&lab, "box", &["busybox", "sh", "-c", IDLE]);
    // Its VM boots: there is nobody yet who could be asked to end.
    stop(&lab);
    lab.serialmux(["ps"]).finish().code(0).shows("exited");
    let id = lab.inspect("box")["id"].as_str().unwrap().to_owned();
    let address = || {
        let restarted = lab.containervm(["restart", "box"]).finish();
        restarted.code(0).prints(&format!("{id}\n"));
        while lab.inspect("box")["started"].is_null() {}
        lab.serialmux(["ps"]).finish().code(0).shows("running");
        lab.serialmux(["exec", "box", "hostname", "-i"]).finish().code(0).out()
    };
    let first = address();
    assert_eq!(first, "10.0.2.15\n");
    assert_eq!(address(), first);
    stop(&lab);
}

#[test]
fn vic_104_106_108_112_what_was_asked_for_is_shown_and_a_port_is_free_again() {
    let lab = Lab::new();
    let _daemon = lab.daemon("0");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).unwrap();
    let port = format!("{free}:80");
    let shown = format!("{free}->80/tcp");
    let isolated = ["--network", "isolated", "-p", &port, "--dns", "192.0.2.8"];
    let options = ["-h", "testhostname", "-u", "7:8", "-w", "/tmp", "--stop-signal", "INT"];
    run_detached(&lab, "first", &[&isolated, &options[..], &["busybox", "sleep", "1000"]].concat());
    while lab.inspect("first")["started"].is_null() {}
    let asked = &lab.inspect("first")["options"];
    for (name, value) in [
        ("hostname", "testhostname"),
        ("user", "7:8"),
        ("workdir", "/tmp"),
        ("stop_signal", "INT"),
        ("ports", &format!("{}:80/tcp", free.port())),
    ] {
        assert_eq!(asked[name], value, "{asked}");
    }
    // Which name servers are in use, the agent tells.
    let dns = |report: &serde_json::Value| {
        let report = report.as_object().unwrap().iter();
        report
            .filter(|(key, _)| key.contains("assigned.dns"))
            .map(|it| it.1.clone())
            .collect::<Vec<_>>()
    };
    let events = lab.serialmux(["events", "--since", "1h", "first"]);
    while dns(&lab.inspect("first")["report"]).is_empty() {}
    // 192.0.2.8, as VIC writes addresses.
    let told = dns(&lab.inspect("first")["report"]);
    assert!(told.iter().any(|value| value == "AAAAAAAAAAAAAP//wAACCA=="), "{told:?}");
    let listed = || lab.containervm(["ls"]).finish().code(0).out();
    assert!(listed().contains(&shown), "{}", listed());
    // One that is cut off is as good as ended, and its port somebody else's.
    let supervisors = lab.processes("containervm", "supervise");
    lab.qemu("first").signal(Signal::KILL);
    events.expect("container die");
    assert!(supervisors.iter().all(|supervisor| supervisor.wait(deadline())));
    assert!(!listed().contains(&shown), "{}", listed());
    run_detached(&lab, "box", &[&isolated[..], &["busybox", "sh", "-c", IDLE]].concat());
    lab.serialmux(["logs", "-f", "box"]).expect("up\n");
    drop(TcpStream::connect(free).unwrap());
    assert!(listed().contains(&shown), "{}", listed());
    let supervisors = lab.processes("containervm", "supervise");
    stop(&lab);
    // The exit code is the last that they write.
    assert!(supervisors.iter().all(|supervisor| supervisor.wait(deadline())));
    let ended = listed();
    assert!(ended.contains("exited(0)") && !ended.contains(&shown), "{ended}");
}

#[test]
fn vic_52_a_shell_that_heeds_only_hup_is_ended_by_term_under_an_init() {
    let lab = Lab::new();
    let script = "trap 'echo hup' HUP; echo up; while :; do sleep 0.1; done";
    run_detached(&lab, "box", &["--init", "busybox", "sh", "-c", script]);
    lab.serialmux(["logs", "-f", "box"]).expect("up\n");
    lab.containervm(["stop", "-t", "600", "box"]).finish().code(0);
    // Not 137: nothing was killed.
    lab.serialmux(["wait", "box"]).finish().code(0).prints("143\n");
}

#[test]
fn vic_53_a_stop_signal_that_is_heard_but_not_heeded_is_followed_by_kill() {
    let lab = Lab::new();
    let script =
        "trap 'trap \"\" USR1; echo StopSignalUSR1' USR1; echo up; while :; do sleep 0.1; done";
    let stop = ["--stop-signal", "USR1", "busybox", "sh", "-c", script];
    run_detached(&lab, "box", &stop);
    let logs = lab.serialmux(["logs", "-f", "box"]);
    logs.expect("up\n");
    let patient = lab.serialmux(["stop", "-t", "600", "box"]);
    logs.expect("StopSignalUSR1\n");
    // Of two that stop it, the sooner end counts.
    lab.containervm(["stop", "-t", "2", "box"]).finish().code(0);
    patient.finish().code(0);
    lab.serialmux(["logs", "box"]).finish().code(0).prints("up\nStopSignalUSR1\n");
    lab.serialmux(["wait", "box"]).finish().code(0).prints("137\n");
}

#[test]
fn vic_61_a_signal_reaches_the_process_and_not_its_children() {
    let lab = Lab::new();
    let script = "trap 'echo KillSignalParentHUP' HUP; \
                  sh -c 'trap \"echo KillSignalChildHUP\" HUP; echo child; while :; do sleep 0.1; done' & \
                  while :; do wait; done";
    run_detached(&lab, "box", &["busybox", "sh", "-c", script]);
    let logs = lab.serialmux(["logs", "-f", "box"]);
    logs.expect("child\n");
    lab.serialmux(["kill", "-s", "HUP", "box"]).finish().code(0);
    logs.expect("KillSignalParentHUP\n");
    lab.containervm(["stop", "-t", "1", "box"]).finish().code(0);
    lab.serialmux(["logs", "box"]).finish().code(0).prints("child\nKillSignalParentHUP\n");
}

#[test]
fn vic_74_who_follows_the_last_lines_sees_what_a_signal_makes_it_say() {
    let lab = Lab::new();
    let script = "trap 'seq 11 20; exit' HUP; seq 1 10; while :; do sleep 0.1; done";
    run_detached(&lab, "box", &["busybox", "sh", "-c", script]);
    lab.serialmux(["logs", "-f", "box"]).expect("10\n");
    lab.serialmux(["kill", "-s", "HUP", "box"]).finish().code(0);
    let logs = lab.serialmux(["logs", "--tail", "5", "--follow", "box"]);
    logs.expect("20\n");
    let logs = logs.end();
    assert!(logs.code(0).out().lines().count() >= 5, "{logs:?}");
}

/// Tells the others that it is over, however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn vic_66_restarts_starts_and_stops_at_once_end_in_words() {
    let lab = Lab::new();
    idle(&lab);
    let does = |arguments: &[&str]| {
        let one = lab.start(lab.command("containervm", arguments)).finish();
        assert!(!format!("{}{}", one.out(), one.err()).contains("EOF"), "{one:?}");
        assert!(matches!(one.status.code(), Some(0 | 125)), "{one:?}");
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    does(&["restart", "-t", "5", "box"]);
                }
            });
        }
        let _over = Over(&is_over);
        for _ in 0..10 {
            does(&["start", "box"]);
            does(&["stop", "-t", "1", "box"]);
        }
    });
    // Whatever came of it, the container is as good as before.
    stop(&lab);
    lab.containervm(["start", "box"]).finish().code(0);
    stop(&lab);
    lab.serialmux(["ps"]).finish().code(0).shows("exited");
}

#[test]
fn vic_84_86_92_execs_in_all_forms_and_many_in_the_background() {
    let lab = Lab::new();
    idle(&lab);
    for n in 1..=9 {
        let script = format!("exit {n}");
        lab.serialmux(["exec", "box", "sh", "-c", &script]).finish().code(n);
    }
    lab.serialmux(["exec", "box", "/bin/false"]).finish().code(1);
    lab.serialmux(["exec", "box", "/bin/true"]).finish().code(0);
    let text = "Do what you can, with what you have, where you are.";
    for (form, end) in [("-e=A=1", "\n"), ("-i", "\n"), ("-t", "\r\n"), ("-it", "\r\n")] {
        for _ in 0..5 {
            let said = lab.serialmux(["exec", form, "box", "echo", text]).finish();
            said.code(0).prints(&format!("{text}{end}"));
        }
    }
    let all: Vec<Program> = (0..49)
        .map(|n| lab.serialmux(["exec", "-d", "box", "touch", &format!("/tmp/{n}")]))
        .collect();
    all.into_iter().for_each(|one| drop(one.finish().code(0).out()));
    let count = "until [ $(ls /tmp | wc -l) = 49 ]; do sleep 0.1; done";
    lab.serialmux(["exec", "box", "sh", "-c", count]).finish().code(0);
    stop(&lab);
}

#[test]
fn vic_93_execs_while_it_is_stopped_say_why_they_do_not_run() {
    let lab = Lab::new();
    idle(&lab);
    let begin = |_| lab.serialmux(["exec", "box", "ls", "/"]);
    let mut all: Vec<Program> = (0..7).map(begin).collect();
    let stop = lab.containervm(["stop", "box"]);
    all.extend((0..7).map(begin));
    for one in all {
        let one = one.finish();
        match one.status.code() {
            Some(0) => drop(one.shows("etc")),
            // It ran, and was ended with its container.
            Some(137) => {}
            _ => {
                let words = ["is not running", "has ended", "has been stopped"];
                assert!(words.iter().any(|word| one.err().contains(word)), "{one:?}");
                one.code(125);
            }
        }
    }
    stop.finish().code(0);
}

#[test]
fn vic_98_101_102_users_are_who_they_are_with_docker() {
    let lab = Lab::new();
    let run = ["--boot", "direct", "-u", "2000", "busybox", "id"];
    let [boot, direct, u, user, busybox, id] = run;
    lab.run([boot, direct, u, user, busybox, id]).code(0).prints("uid=2000 gid=0(root)\n");
    lab.run([boot, direct, u, "0:0", busybox, "whoami"]).code(0).prints("root\n");
    idle(&lab);
    let add = "echo testuser:x:77:88::/home/testuser:/bin/sh >>/etc/passwd";
    lab.serialmux(["exec", "box", "sh", "-c", add]).finish().code(0);
    for (user, home) in [("testuser", "/home/testuser\n"), ("root", "/root\n"), ("2000", "/\n")] {
        let said = lab.serialmux(["exec", "-u", user, "box", "sh", "-c", "echo $HOME"]).finish();
        said.code(0).prints(home);
    }
    stop(&lab);
}
