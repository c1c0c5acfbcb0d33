//! How a process is set up: limits, capabilities, mounts, an init, and the signals that reach it.

use qemu_tests::Lab;

#[test]
fn limits_groups_and_mounts_are_as_asked_for() {
    let lab = Lab::new();
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; id -G; pwd; \
                  grep -E ' (/dev/shm|/scratch) ' /proc/mounts | cut -d' ' -f2,4; \
                  touch /x 2>/dev/null || echo refused; echo '#!/bin/sh\necho runs' >/scratch/x; \
                  chmod 755 /scratch/x; /scratch/x; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max";
    let seen = lab.run([
        "--boot",
        "direct",
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--oom-score-adj",
        "77",
        "--group-add",
        "users",
        "--group-add",
        "4242",
        "--shm-size",
        "8m",
        "--tmpfs",
        "/scratch:size=4m,exec",
        "--read-only",
        "--pids-limit",
        "99",
        "--cpus",
        "0.5",
        "-w",
        "/made/for/this",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let mounts = "/dev/shm rw,nosuid,nodev,noexec,relatime,size=8192k,inode64\n\
                  /scratch rw,nosuid,nodev,relatime,size=4096k,inode64\n";
    let before = format!("100\n200\n0\n77\n0 100 4242\n/made/for/this\n{mounts}refused\n");
    seen.code(0).prints(&format!("{before}runs\n99\n50000 100000\n"));
}

/// The capability sets of a process, and whether it can gain new ones, as `/proc` shows them.
const SETS: &str = "grep -E '^(Cap|NoNew)' /proc/self/status | tr -s '\\t\\n' '  '";

fn sets(inherited: u64, effective: u64, bounding: u64, no_new: u8) -> String {
    format!(
        "CapInh: {inherited:016x} CapPrm: {effective:016x} CapEff: {effective:016x} \
         CapBnd: {bounding:016x} CapAmb: {:016x} NoNewPrivs: {no_new} ",
        0
    )
}

#[test]
fn capabilities_are_all_or_those_left_as_docker_gives_them() {
    let lab = Lab::new();
    let all = (1 << 41) - 1;
    let root = lab.run(["--boot", "direct", "busybox", "sh", "-c", SETS]);
    root.code(0).prints(&sets(0, all, all, 0));
    let net_raw = 1 << 13;
    let few = ["--cap-drop", "ALL", "--cap-add", "net_raw", "--security-opt", "no-new-privileges"];
    let [drop, all_, add, net, opt, privileges] = few;
    let few =
        ["--boot", "direct", drop, all_, add, net, opt, privileges, "busybox", "sh", "-c", SETS];
    lab.run(few).code(0).prints(&sets(0, net_raw, net_raw, 1));
    let user = ["--boot", "direct", "-u", "nobody", "--cap-drop", "CAP_KILL", "busybox"];
    let [boot, direct, u, nobody, drop, kill, image] = user;
    let user = [boot, direct, u, nobody, drop, kill, image, "sh", "-c", SETS];
    lab.run(user).code(0).prints(&sets(0, 0, all & !(1 << 5), 0));
}

#[test]
fn what_no_process_can_be_given_is_refused_before_anything_starts() {
    let lab = Lab::new();
    let check = |option: &str, value: &str, parts: &[&str]| {
        let refused = lab.containervm(["run", option, value, "busybox", "true"]).finish();
        let said = refused.err();
        assert_eq!(refused.status.code(), Some(125), "{refused:?}");
        assert!(parts.iter().all(|part| said.contains(part)), "{refused:?}");
    };
    check("--ulimit", "files=1", &["files=1", "NAME=SOFT[:HARD]"]);
    check("--ulimit", "nofile=2:1", &["nofile=2:1", "above"]);
    check("--cap-add", "NET", &["\"NET\"", "capabilities(7)"]);
    check("--tmpfs", "tmp", &["\"tmp\"", "absolute"]);
    check("--security-opt", "seccomp=x", &["seccomp=x", "no-new-privileges"]);
    check("--oom-score-adj", "2000", &["2000", "-1000 and 1000"]);
}

#[test]
fn system_paths_are_hidden_when_asked_for() {
    let lab = Lab::new();
    let script = "cat /proc/timer_list /proc/keys | wc -c; echo 1 >/proc/sys/vm/drop_caches; echo $?; \
                  ls /sys/firmware | wc -l";
    let confined = "systempaths=confined";
    let seen =
        lab.run(["--boot", "direct", "--security-opt", confined, "busybox", "sh", "-c", script]);
    seen.code(0).prints("0\n1\n0\n");
    let seen = lab.run(["--boot", "direct", "busybox", "sh", "-c", script]);
    assert!(!seen.out().starts_with("0\n") && seen.out().contains("\n0\n"), "{seen:?}");
}

#[test]
fn an_init_collects_ten_thousand_orphans_and_ends_as_its_program_does() {
    let lab = Lab::new();
    // Two forks each, no exec: the middle one ends at once and leaves the other to process 1.
    let script = "cat /proc/1/comm; tr '\\0' ' ' </proc/1/cmdline | cut -c1-20; echo; echo $$; \
                  i=0; while [ $i -lt 10000 ]; do (: &); i=$((i+1)); case $i in *000) echo at $i;; esac; done; \
                  until ! grep -qs '^State:.Z' /proc/[0-9]*/status; do sleep 1; done; echo clean; \
                  ls -d /proc/[0-9]* | wc -l; kill -37 $$";
    let forks = lab.begin(["--boot", "direct", "--init", "busybox", "sh", "-c", script]);
    forks.expect("docker-init\n/sbin/docker-init --\n\n2\n");
    for thousands in 1..=10 {
        forks.expect(&format!("at {thousands}000"));
    }
    // The init, the shell, and the two of the pipe that counts.
    forks.end().code(128 + 37).shows("clean\n4\n");
}

#[test]
fn a_container_may_use_exactly_the_memory_it_is_given() {
    let lab = Lab::new();
    for (given, bytes) in [("8m", 8 << 20), ("256m", 256 << 20), ("1g", 1_u64 << 30)] {
        let cat = ["busybox", "cat", "/sys/fs/cgroup/memory.max"];
        let [busybox, cat, file] = cat;
        let seen = lab.run(["--boot", "direct", "-m", given, busybox, cat, file]);
        seen.code(0).prints(&format!("{bytes}\n"));
    }
}

#[test]
fn every_signal_reaches_the_process() {
    let lab = Lab::new();
    let script = "for n in $(seq 64); do case $n in 9|19|32|33) ;; *) trap \"echo got $n.\" $n;; esac; \
                  done; echo up; while :; do sleep 0.1; done";
    let waits =
        lab.begin(["--boot", "direct", "--name", "traps", "-i", "busybox", "sh", "-c", script]);
    waits.expect("up");
    let kill = |name: &str, signal: u32| {
        lab.serialmux(["kill", "-s", &signal.to_string(), name]).finish().code(0);
    };
    // Two that nobody can trap, and two that the C library keeps for itself.
    for signal in (1..=64).filter(|signal| ![9, 19, 32, 33].contains(signal)) {
        kill("traps", signal);
        waits.expect(&format!("got {signal}."));
    }
    // Stopped, it takes none of the others, but it can be killed.
    kill("traps", 19);
    kill("traps", 15);
    kill("traps", 9);
    waits.end().code(137);
    // Without a handler they end it, also when it is under an init.
    for signal in [32, 33] {
        let asleep = ["--boot", "direct", "--name", "asleep", "--init", "busybox", "sh", "-c"];
        let [boot, direct, name, is, init, image, sh, c] = asleep;
        let asleep =
            lab.begin([boot, direct, name, is, init, image, sh, c, "echo up; exec sleep 1000"]);
        asleep.expect("up");
        kill("asleep", signal);
        asleep.end().code(128 + signal.cast_signed());
    }
}
