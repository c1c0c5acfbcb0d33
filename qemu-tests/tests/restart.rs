//! What ends a container and what does not: restart policies, a start that waits for somebody, stop with its grace.

use qemu_tests::Lab;

const DIRECT: [&str; 2] = ["--boot", "direct"];

#[test]
fn a_process_that_fails_is_run_again_as_often_as_the_policy_says() {
    let lab = Lab::new();
    let script = "echo run; exit 3";
    let [boot, direct] = DIRECT;
    let all = [
        boot,
        direct,
        "--name",
        "again",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let ended = lab.start(lab.command("containervm", &[&["run"][..], &all].concat())).finish();
    ended.code(3).prints("run\nrun\nrun\n");
    let shown = lab.serialmux(["inspect", "again"]).finish();
    shown.code(0).shows("\"restarts\": 2").shows("resurrections\": \"2\"");
}

#[test]
fn a_process_that_is_always_run_again_keeps_its_files_and_ends_by_a_stop() {
    let lab = Lab::new();
    // The trap first: a stop may come as soon as the line is out.
    let script = "trap 'echo bye; exit 0' TERM; n=$(cat /count 2>/dev/null); n=$((n+1)); \
                  echo $n >/count; echo run $n; test $n -ge 3 || exit 0; while :; do sleep 0.1; done";
    for policy in ["always", "unless-stopped"] {
        let run = ["run", "--name", policy, "--restart", policy, "--boot", "direct"];
        let all = [&run[..], &["busybox", "sh", "-c", script]].concat();
        let vm = lab.start(lab.command("containervm", &all));
        vm.expect("run 1\n").expect("run 2\n").expect("run 3\n");
        lab.containervm(["stop", policy]).finish().code(0).prints(&format!("{policy}\n"));
        vm.end().code(0).prints("run 1\nrun 2\nrun 3\nbye\n");
        assert_eq!(lab.inspect(policy)["restarts"], 2);
        // As with Docker: what is not running need not be stopped.
        lab.serialmux(["stop", policy]).finish().code(0);
    }
    lab.containervm(["run", "--restart", "sometimes", "busybox", "true"]).finish().code(125);
}

#[test]
fn a_process_that_does_not_heed_its_stop_signal_is_killed_vic_52_to_54() {
    let lab = Lab::new();
    let script =
        "trap 'trap \"\" HUP; echo StopSignalHUP' HUP; echo up; while :; do sleep 0.1; done";
    let stubborn = lab.begin([
        "--name",
        "stubborn",
        "--stop-signal",
        "HUP",
        "--boot",
        "direct",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    stubborn.expect("up\n");
    // Somebody who keeps the daemon, and so what has happened, when the VM is gone.
    let events = lab.serialmux(["events", "--since", "1h", "stubborn"]);
    let patient = lab.serialmux(["stop", "-t", "600", "stubborn"]);
    stubborn.expect("StopSignalHUP\n");
    // Of two that stop it, the sooner end counts.
    lab.serialmux(["stop", "-t", "2", "stubborn"]).finish().code(0);
    patient.finish().code(0);
    stubborn.end().code(137).prints("up\nStopSignalHUP\n");
    events.expect("container stop").expect("container stop");
    // As with Docker, each signal is told, then the end, then that somebody asked for it; here two did.
    let told = lab.events();
    let told: Vec<&str> = told.iter().map(String::as_str).filter(|it| *it != "destroy").collect();
    let asked = ["create", "start", "kill 1", "kill 1", "kill 9", "die 137", "stop", "stop"];
    assert_eq!(told, asked);
}

#[test]
fn a_process_waits_for_somebody_and_nothing_else_does() {
    let lab = Lab::new();
    let all = [
        "run",
        "-d",
        "-i",
        "--wait-for-attach",
        "--name",
        "patient",
        "--boot",
        "direct",
        "busybox",
        "sh",
        "-c",
        "echo first words; read x; echo $x",
    ];
    lab.start(lab.command("containervm", &all)).finish().code(0);
    lab.console("patient").expect("waits until somebody is attached");
    // Requests and the report are served meanwhile.
    lab.serialmux(["exec", "patient", "true"]).finish().code(125).complains(&["not running"]);
    lab.serialmux(["ps"]).finish().code(0).shows("created");
    let mut attached = lab.serialmux(["attach", "patient"]);
    attached.expect("first words\n");
    attached.write("second\n");
    attached.end().code(0).prints("first words\nsecond\n");

    // One that nobody comes to can be stopped (VIC 6236).
    let [boot, direct] = DIRECT;
    let all =
        ["run", "-d", "--wait-for-attach", "--name", "lonely", boot, direct, "busybox", "true"];
    lab.start(lab.command("containervm", &all)).finish().code(0);
    lab.console("lonely").expect("waits until somebody is attached");
    lab.serialmux(["stop", "lonely"]).finish().code(0);
    lab.serialmux(["wait", "lonely"]).finish().code(0).prints("143\n");
}

#[test]
fn what_a_process_is_sent_before_its_start_waits_for_it() {
    let lab = Lab::new();
    let waits = |name: &str, options: &[&str], command: &[&str]| {
        let run = ["run", "-d", "--wait-for-attach", "--name", name, "--boot", "direct"];
        let all = [&run[..], options, &["busybox"], command].concat();
        lab.start(lab.command("containervm", &all)).finish().code(0);
        lab.console(name).expect("waits until somebody is attached");
    };
    waits("sized", &["-t"], &["stty", "size"]);
    lab.serialmux(["resize", "sized", "33", "44"]).finish().code(0);
    lab.serialmux(["attach", "--no-stdin", "sized"]).finish().code(0).prints("33 44\r\n");
    // Under an init, as process 1 of a namespace ends by no signal that it does not heed.
    waits("signaled", &["--init"], &["sleep", "1000"]);
    lab.serialmux(["kill", "-s", "USR1", "signaled"]).finish().code(0);
    lab.serialmux(["attach", "--no-stdin", "signaled"]).finish().code(128 + 10);
    waits("killed", &[], &["sleep", "1000"]);
    lab.serialmux(["kill", "killed"]).finish().code(0);
    lab.serialmux(["attach", "--no-stdin", "killed"]).finish().code(137);
}
