//! What process 1 of the machine owes it: an agent that answers whatever the container does, clock, entropy,
//! added hardware, and an end in order.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use qemu_tests::deadline::deadline;
use qemu_tests::{Lab, Monitor, Program};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// `containervm run --name NAME` with a QEMU whose arguments are changed on the way: `edits` are lines of a
/// shell's `case` over the argument before, a colon, and the argument.
fn run_changed(lab: &Lab, edits: &str, arguments: &[&str]) -> Program {
    let dir = lab.path("bin");
    fs::create_dir_all(&dir).unwrap();
    let wrapper = dir.join("qemu-system-x86_64");
    let text = format!(
        "#!/bin/sh\nlast=\nfor arg do\n shift\n before=$last last=$arg\n case \"$before:$arg\" in\n{edits}\n esac\n \
         set -- \"$@\" \"$arg\"\ndone\nPATH=${{PATH#*:}}\nexec qemu-system-x86_64 \"$@\"\n"
    );
    fs::write(&wrapper, text).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let all = [&["run", "--boot", "direct"], arguments].concat();
    let mut command = lab.command("containervm", &all);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", dir.display()));
    lab.start(command)
}

fn console(lab: &Lab, name: &str) -> String {
    String::from_utf8_lossy(&fs::read(lab.vm(name).join("console.log")).unwrap()).into_owned()
}

/// Waits until no QEMU of this lab runs any more.
fn await_power_off(lab: &Lab) {
    let left = lab.processes("qemu-system-x86_64", "");
    assert!(left.iter().all(|qemu| qemu.wait(deadline())), "a VM stays on");
}

#[test]
fn a_fork_bomb_leaves_the_agent_alive() {
    let lab = Lab::new();
    // Process 1 forks nothing more itself: it looks whether the bound has been met, and sleeps.
    let script = "bomb() { bomb | bomb & }; (bomb 2>/dev/null) & \
                  until [ \"$n\" ] && [ $n -gt 0 ]; do read -r k n </sys/fs/cgroup/pids.events; done; \
                  echo full; exec sleep 100000";
    let bombed = lab.begin([
        "--boot",
        "direct",
        "--name",
        "bombed",
        "--pids-limit",
        "300",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    bombed.expect("full");
    lab.serialmux(["logs", "bombed"]).finish().code(0).prints("full\n");
    lab.serialmux(["exec", "bombed", "cat", "/sys/fs/cgroup/pids.max"])
        .finish()
        .code(0)
        .prints("300\n");
    lab.serialmux(["stop", "-t", "1", "bombed"]).finish().code(0);
    bombed.end().code(137).prints("full\n");
}

#[test]
fn a_memory_hog_leaves_the_agent_alive() {
    let lab = Lab::new();
    let script = "(exec tail /dev/zero); echo hog $?; exit 6";
    let hogged = lab.run([
        "--boot",
        "direct",
        "-m",
        "256m",
        "--tmpfs",
        "/big:size=10g",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    hogged.code(6).prints("hog 137\n");
}

#[test]
fn files_that_fill_the_memory_leave_room_for_processes() {
    let lab = Lab::new();
    // Without the bound on what a tmpfs holds, the shell itself finds no room for its program any more.
    let script = "cat /dev/zero >/big/f; cat /dev/zero >/dev/shm/f; echo full; read -r line; rm /big/f; exit 6";
    let tmpfs = ["--tmpfs", "/big:size=10g", "--shm-size", "1g"];
    let [tmpfs, big, shm, size] = tmpfs;
    let mut full = lab.begin([
        "--boot", "direct", "-m", "256m", "-i", "--name", "full", tmpfs, big, shm, size, "busybox",
        "sh", "-c", script,
    ]);
    full.expect("full");
    assert_eq!(full_said(&lab), "full\n");
    let inside =
        lab.serialmux(["exec", "full", "sh", "-c", "df -k /big | (cat; echo here)"]).finish();
    inside.code(0).shows("100% /big").shows("here\n");
    full.write("on\n");
    full.finish().code(6);
}

fn full_said(lab: &Lab) -> String {
    lab.serialmux(["logs", "full"]).finish().code(0).out()
}

#[test]
fn hogs_of_memory_that_come_again_and_again_leave_it_to_be_looked_after() {
    let lab = Lab::new();
    let script = "echo up; while :; do tail /dev/zero; done";
    let hogs = lab
        .begin(["--boot", "direct", "-m", "256m", "--name", "hogs", "busybox", "sh", "-c", script]);
    hogs.expect("up\n");
    lab.console("hogs").expect("out of memory: 1 killed").expect("out of memory: 1 killed");
    for _ in 0..5 {
        lab.serialmux(["exec", "hogs", "echo", "here"]).finish().code(0).prints("here\n");
    }
    lab.serialmux(["logs", "hogs"]).finish().code(0).prints("up\n");
    lab.serialmux(["stop", "-t", "1", "hogs"]).finish().code(0);
    hogs.end().code(137);
}

#[test]
fn a_full_disk_leaves_the_agent_alive() {
    let lab = Lab::new();
    let script = "trap 'exit 9' TERM; dd if=/dev/zero of=/fill bs=1M 2>&1 | grep -c 'No space'; \
                  echo more 2>/dev/null >/y || echo full; while :; do sleep 1000 & wait $!; done";
    let filled = [
        "--boot",
        "direct",
        "--name",
        "filled",
        "--disk-size",
        "200m",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let filled = lab.begin(filled);
    filled.expect("1\nfull\n");
    lab.serialmux(["logs", "filled"]).finish().code(0).prints("1\nfull\n");
    let fails = lab.serialmux(["exec", "filled", "sh", "-c", "echo here; echo x >/z"]).finish();
    fails.code(1).prints("here\n").complains(&["No space left"]);
    lab.serialmux(["stop", "filled"]).finish().code(0);
    filled.end().code(9).prints("1\nfull\n");
}

/// Asserts that a VM's disk needs no repair, not even a replay of its journal.
fn assert_clean(lab: &Lab, name: &str) {
    let disk = lab.vm(name).join("containerfs.img");
    let tool = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).arg(&disk).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (_, header) = tool("/sbin/dumpe2fs", &["-h"]);
    let value = |key: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key} in {header}")).trim().to_owned()
    };
    assert_eq!(value("Filesystem state:"), "clean");
    assert!(!value("Filesystem features:").contains("needs_recovery"), "{header}");
    let (code, said) = tool("/sbin/e2fsck", &["-fn"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_stopped_vm_leaves_a_clean_disk() {
    let lab = Lab::new();
    let script = "sh -c 'while :; do dd if=/dev/zero of=/data bs=64k count=64 2>/dev/null; done' & \
                  echo up; read -r line; exit 4";
    let begin = |name: &str| {
        let all = ["run", "--name", name, "--boot", "direct", "-i", "busybox", "sh", "-c", script];
        let vm = lab.start(lab.command("containervm", &all));
        vm.expect("up");
        vm
    };
    let mut ended = begin("ended");
    ended.write("end\n");
    ended.finish().code(4);
    await_power_off(&lab);
    assert_clean(&lab, "ended");
    assert!(console(&lab, "ended").contains("tether: power off"), "its last word");
    let killed = begin("killed");
    lab.serialmux(["kill", "killed"]).finish().code(0);
    killed.end().code(137);
    await_power_off(&lab);
    assert_clean(&lab, "killed");
}

#[test]
fn a_process_that_hangs_in_the_kernel_does_not_keep_the_vm_on() {
    let lab = Lab::new();
    // A frozen file system holds whoever writes to it where no signal reaches (ioctl FIFREEZE).
    let script = "fsfreeze --freeze /; (echo frozen >/held) & \
                  until grep -q '^State:.D' /proc/$!/status; do sleep 1; done; echo held; exec sleep 100000";
    let begin = |name: &str| {
        let all = ["run", "--name", name, "--boot", "direct", "busybox", "sh", "-c", script];
        let hangs = lab.start(lab.command("containervm", &all));
        hangs.expect("held");
        hangs
    };
    let check = |name: &str, hangs: Program| {
        let hangs = hangs.end();
        hangs.code(137).complains(&["does not end, not even by SIGKILL"]);
        await_power_off(&lab);
        assert!(console(&lab, name).contains("tether: power off"));
        assert_clean(&lab, name);
    };
    // A stop is enough, after its grace; so is a kill, to which the power button adds nothing.
    let hangs = begin("stopped");
    lab.serialmux(["stop", "-t", "1", "stopped"]).finish().code(0);
    check("stopped", hangs);
    let hangs = begin("killed");
    lab.serialmux(["kill", "-s", "KILL", "killed"]).finish().code(0);
    Monitor::connect(&lab.vm("killed")).unwrap().execute("system_powerdown", &json!({})).unwrap();
    check("killed", hangs);
}

#[test]
fn an_exec_that_hangs_in_the_kernel_or_is_stopped_does_not_keep_its_client() {
    let lab = Lab::new();
    let script = "trap 'exit 3' TERM; echo up; while :; do sleep 1000 & wait $!; done";
    let all = ["run", "--name", "box", "--boot", "direct", "busybox", "sh", "-c", script];
    let vm = lab.start(lab.command("containervm", &all));
    vm.expect("up");
    let id = || {
        let shown = lab.serialmux(["inspect", "box"]).finish().code(0).out();
        let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let execs = value["execs"].as_array().unwrap().clone();
        let exec = execs.iter().find(|exec| exec["running"] == true).expect("one runs");
        exec["id"].as_str().unwrap().to_owned()
    };
    let kill = |signal: &str| {
        lab.serialmux(["kill", "-s", signal, "--exec", &id(), "box"]).finish().code(0);
    };
    let stopped = lab.serialmux(["exec", "box", "sh", "-c", "echo go; exec sleep 1000"]);
    stopped.expect("go");
    kill("STOP");
    // Only from then on does it not take the next one.
    stopped.await_that("it stops", || {
        let seen = lab.serialmux(["top", "box", "-o", "stat,args"]).finish().code(0).out();
        seen.lines().any(|line| line.starts_with('T') && line.contains("sleep 1000"))
    });
    kill("TERM");
    kill("KILL");
    stopped.end().code(137);
    lab.serialmux(["freeze", "box"]).finish().code(0);
    let hangs = lab.serialmux(["exec", "box", "sh", "-c", "echo go; echo frozen >/held"]);
    hangs.expect("go");
    // Before that it ends like any other.
    hangs.await_that("it hangs", || {
        let seen = lab.serialmux(["top", "box", "-o", "stat,args"]).finish().code(0).out();
        seen.lines().any(|line| line.starts_with('D') && line.contains("frozen"))
    });
    kill("KILL");
    hangs.end().code(137).complains(&["does not end, not even by SIGKILL"]);
    lab.serialmux(["thaw", "box"]).finish().code(0);
    lab.serialmux(["exec", "box", "cat", "/held"]).finish().code(0);
    lab.serialmux(["stop", "box"]).finish().code(0);
    vm.end().code(3);
}

#[test]
fn the_clock_and_the_random_generator_are_the_multiplexers() {
    let lab = Lab::new();
    let script = "date +%Y; until [ $(date +%Y) -gt 2020 ]; do sleep 1; done; date +%s";
    let edits =
        "-rtc:*) arg=base=2020-01-01T00:00:00;;\n-append:*) arg=\"$arg tether.log=debug\";;";
    let all = ["--name", "late", "busybox", "sh", "-c", script];
    let late = run_changed(&lab, edits, &all).finish();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let told: u64 = late.code(0).out().lines().last().unwrap().parse().unwrap();
    // What happened in between is the end of the VM, and of the program.
    assert!(told <= now + 1 && now - told < 60, "{told} in the VM, {now} here");
    let console = console(&lab, "late");
    assert!(console.contains("the clock was wrong and is set: +"), "{console}");
    assert!(console.contains("random generator seeded by the multiplexer"), "{console}");
}

#[test]
fn a_clock_that_stood_still_is_set_again_while_the_container_runs() {
    let lab = Lab::new();
    let vm = lab.begin([
        "--boot",
        "direct",
        "--name",
        "late",
        "busybox",
        "sh",
        "-c",
        "echo up; exec sleep 1000",
    ]);
    vm.expect("up\n");
    let console = lab.console("late");
    console.expect("runs as process");
    let mut monitor = Monitor::connect(&lab.vm("late")).unwrap();
    monitor.execute("stop", &json!({})).unwrap();
    // Meanwhile a whole life of another VM fits in: seconds, which this one's clock does not count.
    lab.run(["--boot", "direct", "busybox", "true"]).code(0);
    monitor.execute("cont", &json!({})).unwrap();
    // At the start it was wrong by less than a second, if at all.
    vm.await_that("the clock to be set", || {
        let told = fs::read_to_string(lab.vm("late").join("console.log")).unwrap_or_default();
        let mut steps = told.split("the clock was wrong and is set: +").skip(1);
        steps.any(|step| !step.starts_with("0."))
    });
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    let told = lab.serialmux(["exec", "late", "date", "+%s"]).finish().code(0).out();
    let (told, after): (u64, u64) = (told.trim().parse().unwrap(), now());
    assert!((before - 1..=after + 1).contains(&told), "{told} in the VM, {before} to {after} here");
    lab.serialmux(["kill", "late"]).finish().code(0);
    vm.end().code(137);
}

#[test]
fn added_processors_and_memory_are_taken_into_use() {
    let lab = Lab::new();
    let script = "total() { while read -r k n u; do [ $k = MemTotal: ] && echo $n && return; done </proc/meminfo; }; \
                  nproc; old=$(total); max=$(cat /sys/fs/cgroup/memory.max); echo up; \
                  until [ $(nproc) = 2 ]; do sleep 1; done; echo two; \
                  until [ $(total) -gt $((old+100000)) ]; do sleep 1; done; echo more; \
                  until [ $(cat /sys/fs/cgroup/memory.max) -gt $((max+100000000)) ]; do sleep 1; done; echo bound";
    let all = ["--boot", "direct", "--name", "grows", "--hot-add", "busybox", "sh", "-c", script];
    let grows = lab.start(lab.command("containervm", &[&["run"][..], &all].concat()));
    grows.expect("1\nup\n");
    let mut monitor = Monitor::connect(&lab.vm("grows")).unwrap();
    let slots = monitor.execute("query-hotpluggable-cpus", &json!({})).unwrap();
    let slots = slots.as_array().unwrap();
    let free = slots.iter().find(|slot| slot.get("qom-path").is_none()).expect("a free slot");
    let mut cpu = free["props"].clone();
    cpu["driver"] = free["type"].clone();
    cpu["id"] = json!("cpu1");
    monitor.execute("device_add", &cpu).unwrap();
    grows.expect("two");
    let memory = json!({"qom-type": "memory-backend-ram", "id": "mem1", "size": 128 << 20});
    monitor.execute("object-add", &memory).unwrap();
    let dimm = json!({"driver": "pc-dimm", "id": "dimm1", "memdev": "mem1"});
    monitor.execute("device_add", &dimm).unwrap();
    grows.expect("more").expect("bound");
    grows.finish().code(0);
}

#[test]
fn a_panic_of_the_agent_is_told_and_ends_the_vm() {
    let lab = Lab::new();
    let edits = "-append:*) arg=\"$arg tether.panic=reload\";;";
    let script = "(while :; do echo more >>/data; done) & echo up; sleep 1000";
    for pipe in ["uart", "virtio"] {
        let all = ["--name", pipe, "--pipe", pipe, "busybox", "sh", "-c", script];
        let panics = run_changed(&lab, edits, &all);
        panics.expect("up\n");
        let exec = lab.serialmux(["exec", pipe, "sh", "-c", "echo go; exec sleep 1000"]);
        exec.expect("go\n");
        lab.serialmux(["reload", pipe]).finish().code(125);
        let asks = "tether.panic on the kernel command line asks for it";
        panics.finish().code(137).prints("up\n").complains(&["panic at ", asks]);
        exec.end().code(125);
        // By the link, not by what somebody has found on the console; and as it is to be after any end.
        let exit = &lab.inspect(pipe)["exit"];
        assert_eq!(exit["code"], 137, "{exit}");
        assert!(exit["error"].as_str().unwrap().starts_with("panic at "), "{exit}");
        lab.serialmux(["wait", pipe]).finish().code(0).prints("137\n");
        await_power_off(&lab);
        let console = console(&lab, pipe);
        assert!(console.contains("error: panic at "), "{console}");
        assert!(console.contains("tether: power off"), "{console}");
        assert_clean(&lab, pipe);
    }
}
