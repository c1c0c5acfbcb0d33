//! VMs on a bad line, with serialmux killed under them, and stopped in the middle: every byte arrives once.

use qemu_tests::deadline::deadline;
use qemu_tests::{Lab, Monitor, Program, Proxy, Weather, sha256};
use rustix::process::Signal;
use serde_json::json;
use std::net::SocketAddr;

/// Which faults happen where, unless FAULT_SEED says otherwise. It is printed by each proxy.
fn seed() -> u64 {
    std::env::var("FAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Where a daemon listens, by what it said.
fn listen(daemon: &Program) -> SocketAddr {
    let said = daemon.so_far();
    let address = said.split(';').next().and_then(|it| it.rsplit(' ').next());
    address.and_then(|it| it.trim().parse().ok()).expect("an address")
}

/// The VMX file of a VM that calls `proxy` instead of the daemon.
fn draft(lab: &Lab, proxy: &Proxy, name: &str, more: &[&str]) -> String {
    let mut arguments =
        vec!["run", "--print-vmx", "--boot", "direct", "--pipe", "uart", "--name", name];
    arguments.extend(more);
    let vmx = lab.start(lab.command("containervm", &arguments)).finish().code(0).out();
    let (before, rest) = vmx.split_once("serial0.fileName = \"").expect("a serial port");
    let (_, after) = rest.split_once('"').expect("an address");
    let vmx = format!("{before}serial0.fileName = \"tcp://{}\"{after}", proxy.address());
    lab.file(&format!("{name}.vmx"), vmx).to_string_lossy().into_owned()
}

/// How many megabytes go over the bad line, unless FAULT_MEGABYTES says otherwise.
fn megabytes() -> usize {
    std::env::var("FAULT_MEGABYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Prints the sum of so many million bytes, and then those: a fifth noise, the rest lines that differ.
fn output_of(megabytes: usize) -> (String, usize) {
    let script = format!(
        "head -c 200000 /dev/urandom >r; seq 1000000 1100000 | sed 's/^/line /;s/$/ of the output/' | head -c 800000 >>r; \
         gen() {{ for i in $(seq 100 {}); do echo part $i; cat r; done; }}; \
         gen | sha256sum >&2; gen; exit 3",
        99 + megabytes
    );
    (script, megabytes * 1_000_009)
}

#[test]
fn output_and_a_terminal_are_whole_on_a_bad_line() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let proxy = |seed, up, down| {
        let (up, down) = (Weather::bad(up), Weather::bad(down));
        Proxy::start(listen(&daemon), seed, up, down).expect("a proxy")
    };
    let (bulk, typed) = (proxy(seed(), 100_000, 4_000), proxy(seed() + 1, 2_000, 1_500));
    let (script, length) = output_of(megabytes());
    let vmx = draft(&lab, &bulk, "bulk", &["busybox", "sh", "-c", &script]);
    let output = lab.start(lab.command("containervm", &["start", "--attach", &vmx]));

    let vmx = draft(&lab, &typed, "typed", &["-it", "busybox", "sh"]);
    let mut shell =
        lab.in_terminal(&lab.command("containervm", &["start", "--attach", "-i", &vmx]));
    shell.expect("# ");
    for i in 0..20 {
        // Key by key, as a person types; what comes back is not what was typed.
        for key in format!("echo $(({i}*7))x").chars() {
            shell.types(&key.to_string());
        }
        shell.types("\r").expect(&format!("\n{}x\r\n", i * 7)).expect("# ");
    }
    shell.types("exit 9\r");
    shell.finish().code(9);

    // In steps, for a step has its time, and the whole takes longer than anything may.
    for n in 1..=megabytes() {
        output.expect_bytes(n * 1_000_000);
    }
    let output = output.end();
    eprintln!("bulk: {}\ntyped: {}", bulk.tally(), typed.tally());
    assert_eq!(output.code(3).stdout.len(), length);
    assert!(output.err().contains(&sha256(&output.stdout)), "{}", output.err());
    for kind in ["drops", "bursts", "flips", "insertions", "stalls"] {
        assert!(bulk.count(kind) > 0, "no {kind} happened");
    }
    assert!(bulk.count("cuts") + bulk.count("half-open connections") > 0, "nothing was cut");
}

#[test]
fn twenty_daemons_are_killed_under_output_and_its_readers() {
    const LENGTH: usize = 4_000_000;
    let lab = Lab::new();
    let mut daemon = lab.daemon("0");
    let port = listen(&daemon).port().to_string();
    let script = "head -c 4000000 /dev/urandom >f; read x; cat f; sha256sum <f >&2; exit 5";
    let start = ["run", "-d", "-i", "--boot", "direct", "--pipe", "uart", "--name", "long"];
    let mut arguments = start.to_vec();
    arguments.extend(["busybox", "sh", "-c", script]);
    lab.start(lab.command("containervm", &arguments)).finish().code(0);
    let mut attached = lab.serialmux(["attach", "long"]);
    attached.write("go\n").expect_bytes(1);
    let follower = lab.serialmux(["logs", "-f", "long"]);
    follower.expect_bytes(1);
    let mut noise = gauge::Noise::new(seed());
    for kill in 1..=20 {
        // At moments that nobody chose, but never when it is all over.
        let step = LENGTH / 22;
        let offset = usize::try_from(noise.below(step as u64)).unwrap();
        follower.expect_bytes(kill * step - offset);
        daemon.signal(Signal::KILL);
        drop(daemon.finish());
        daemon = lab.daemon(&port);
    }
    for reader in [follower.end(), attached.end()] {
        assert_eq!(reader.stdout.len(), LENGTH, "{reader:?}");
        assert!(reader.err().contains(&sha256(&reader.stdout)), "{}", reader.err());
        assert!(matches!(reader.status.code(), Some(0 | 5)), "{reader:?}");
    }
    lab.serialmux(["wait", "long"]).finish().code(0).prints("5\n");
}

#[test]
fn a_vm_stopped_in_both_ways_amid_output_goes_on() {
    let lab = Lab::new();
    let script = "head -c 1500000 /dev/urandom >f; cat f; sha256sum <f >&2; read end; exit 8";
    let start = ["--boot", "direct", "--pipe", "uart", "--name", "halting", "busybox", "sh", "-c"];
    let mut arguments = vec!["run", "-i", "--rm"];
    arguments.extend(start);
    arguments.push(script);
    let mut vm = lab.start(lab.command("containervm", &arguments));
    vm.expect_bytes(200_000);
    let mut monitor = Monitor::connect(&lab.vm("halting")).expect("a monitor");
    let qemu = lab.qemu("halting");
    for n in [400_000, 800_000, 1_200_000] {
        monitor.execute("stop", &json!({})).expect("it stops");
        // Meanwhile a whole life of another VM fits in.
        lab.run(["--boot", "direct", "busybox", "true"]).code(0);
        monitor.execute("cont", &json!({})).expect("it goes on");
        vm.expect_bytes(n);
        qemu.signal(Signal::STOP);
        lab.serialmux(["ps"]).finish().code(0).shows("halting");
        qemu.signal(Signal::CONT);
    }
    vm.write("end\n");
    let vm = vm.finish();
    assert_eq!(vm.code(8).stdout.len(), 1_500_000);
    assert!(vm.err().contains(&sha256(&vm.stdout)), "{}", vm.err());
}

#[test]
fn a_connection_cut_again_and_again_comes_back() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let proxy = Proxy::fair(listen(&daemon)).expect("a proxy");
    let script = "head -c 1000000 /dev/urandom >f; cat f; sha256sum <f >&2; read end";
    let vmx = draft(&lab, &proxy, "cut", &["-i", "busybox", "sh", "-c", script]);
    let mut vm = lab.start(lab.command("containervm", &["start", "--attach", "-i", &vmx]));
    for cut in 1..=8 {
        vm.expect_bytes(cut * 100_000);
        proxy.cut();
        assert!(proxy.accepted(cut + 1, deadline()).is_some(), "the VM calls again");
    }
    vm.write("end\n");
    let vm = vm.end();
    assert_eq!(vm.code(0).stdout.len(), 1_000_000);
    assert!(vm.err().contains(&sha256(&vm.stdout)), "{}", vm.err());
}

#[test]
fn execs_over_a_bad_line_are_whole_and_end_as_they_did() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let (up, down) = (Weather::bad(30_000), Weather::bad(4_000));
    let proxy = Proxy::start(listen(&daemon), seed() + 2, up, down).expect("a proxy");
    let script = "trap 'exit 6' TERM; echo up; while :; do sleep 1000 & wait $!; done";
    let vmx = draft(&lab, &proxy, "box", &["busybox", "sh", "-c", script]);
    let idle = lab.start(lab.command("containervm", &["start", "--attach", &vmx]));
    idle.expect("up\n");
    // What it was given, then noise, whose hash it tells; nothing of it is like another's.
    let script = "cat; head -c 40000 /dev/urandom >/r$1; cat /r$1; sha256sum </r$1 >&2; exit $1";
    for round in 0..5_u8 {
        let input = |i: u8| gauge::Noise::new(u64::from(i)).next().to_string().repeat(100);
        let mut shell = lab.in_terminal(&lab.command("serialmux", &["exec", "-it", "box", "sh"]));
        let piped: Vec<_> = (round * 6..round * 6 + 6)
            .map(|i| {
                let code = i.to_string();
                let exec = ["exec", "-i", "box", "sh", "-c", script, "sh", &code];
                (i, lab.serialmux(exec).feed(input(i).into_bytes()))
            })
            .collect();
        shell.expect("# ");
        for i in 0..6 {
            let cuts = proxy.connections();
            proxy.cut();
            shell.types(&format!("echo $(({i}*7))x\r")).expect(&format!("\n{}x\r\n", i * 7));
            assert!(proxy.connections() > cuts, "the VM has called again");
        }
        for (i, exec) in piped {
            let exec = exec.end();
            exec.code(i.into());
            let (given, noise) = exec.stdout.split_at(exec.stdout.len().saturating_sub(40_000));
            assert_eq!(given, input(i).as_bytes(), "exec {i}");
            assert!(exec.err().contains(&sha256(noise)), "exec {i}: {}", exec.err());
        }
        shell.types(&format!("exit {}\r", round + 40));
        shell.finish().code((round + 40).into());
        lab.serialmux(["exec", "box", "sh", "-c", "kill -9 $$"]).finish().code(137);
    }
    lab.serialmux(["exec", "box", "nosuch"]).finish().code(127);
    lab.serialmux(["stop", "box"]).finish().code(0);
    eprintln!("execs: {}", proxy.tally());
    idle.end().code(6).prints("up\n");
}
