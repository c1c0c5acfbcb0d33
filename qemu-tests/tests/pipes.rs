//! The same link over each kind of pipe: bytes both ways, a pipe cut in the middle, serialmux restarted, and which is used.

use qemu_tests::{HostVsock, Lab, Program, Proxy, record, sha256, skip};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Takes input to its end, then gives as much noise; says what it took and gave by hash.
const BOTH_WAYS: &str =
    "echo up; sha256sum >&2; head -c 3000000 /dev/urandom >g; sha256sum <g >&2; cat g";

fn noise(n: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..n).map(|_| next()).collect()
}

/// Where the daemon listens, by what it says of it.
fn address_of(daemon: &Program) -> String {
    let said = daemon.so_far();
    let address = said.split(';').next().and_then(|it| it.rsplit(' ').next());
    address.expect("an address").to_owned()
}

/// What inspect says of the link: the pipe in use, and those at rest.
fn pipes(lab: &Lab, name: &str) -> (String, Vec<String>) {
    let seen = lab.serialmux(["inspect", name]).finish();
    let seen: serde_json::Value = serde_json::from_str(&seen.code(0).out()).expect("JSON");
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let idle = seen["link"]["idle_pipes"].as_array().cloned().unwrap_or_default();
    (word(&seen["link"]["pipe"]), idle.iter().map(|it| word(&it["pipe"])).collect())
}

fn begin(lab: &Lab, run: &[&str], script: &str) -> Program {
    let run = [&["run", "--rm"], run, &[script]].concat();
    lab.start(lab.command("containervm", &run))
}

fn goes_both_ways(lab: &Lab, name: &str, vm: Program, kind: &str) {
    vm.expect("up\n");
    if kind != "uart" {
        lab.console(name).expect(&format!("the link goes over {kind} now"));
        assert_eq!(pipes(lab, name), (kind.to_owned(), vec!["uart".to_owned()]));
    }
    let input = noise(if kind == "uart" { 200_000 } else { 5_000_000 });
    let expected = sha256(&input);
    let ended = vm.feed(input).end();
    ended.code(0);
    assert!(ended.err().contains(&expected), "not {expected}: {}", ended.err());
    let output = ended.stdout.strip_prefix(b"up\n").expect("as it began");
    assert_eq!(output.len(), 3_000_000);
    assert!(ended.err().contains(&sha256(output)), "{}", ended.err());
}

#[test]
fn output_and_input_arrive_as_they_left_over_the_serial_port() {
    let lab = Lab::new();
    let run = ["--pipe", "uart", "--boot", "direct", "--name", "u", "-i", "busybox", "sh", "-c"];
    let vm = begin(&lab, &run, BOTH_WAYS);
    goes_both_ways(&lab, "u", vm, "uart");
}

#[test]
fn output_and_input_arrive_as_they_left_over_a_virtio_port() {
    let lab = Lab::new();
    let run = ["--pipe", "virtio", "--boot", "direct", "--name", "v", "-i", "busybox", "sh", "-c"];
    let vm = begin(&lab, &run, BOTH_WAYS);
    goes_both_ways(&lab, "v", vm, "virtio");
}

#[test]
fn output_and_input_arrive_as_they_left_over_vsock() {
    let lab = Lab::new();
    let Some(vsock) = HostVsock::start(&lab) else {
        return skip("vhost-device-vsock is not there; `cargo qemu-tests` builds it");
    };
    let _daemon = lab.daemon_at(&vsock.port(2377));
    let device = vsock.device();
    let run =
        ["--pipe", "vsock", "--vsock-socket", &device, "--boot", "direct", "--name", "k", "-i"];
    let run = [&run[..], &["busybox", "sh", "-c"]].concat();
    goes_both_ways(&lab, "k", begin(&lab, &run, BOTH_WAYS), "vsock");
}

#[test]
fn a_vm_has_a_virtio_port_unless_told_otherwise() {
    let lab = Lab::new();
    let mut command = lab.command("containervm", &["run", "--print-vmx", "--name", "d", "busybox"]);
    command.env_remove("CONTAINERVM_PIPE");
    let vmx = lab.start(command).finish();
    vmx.code(0).shows("containervm.pipe = \"virtio\"").shows("serial0.present = \"TRUE\"");
}

#[test]
fn twenty_megabytes_go_on_when_their_pipe_is_cut_and_again_when_it_is_back() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let target = address_of(&daemon).parse().expect("an address");
    let proxy = Proxy::fair(target).expect("a proxy");
    let script = "head -c 20000000 /dev/urandom >f; sha256sum <f >&2; read x; cat f; read y";
    let run = ["run", "--print-vmx", "--pipe", "virtio", "--boot", "direct", "--name", "c", "-i"];
    let run = [&run[..], &["busybox", "sh", "-c", script]].concat();
    let vmx = lab.start(lab.command("containervm", &run)).finish();
    let through = format!("containervm.pipe.fileName = \"tcp://{}\"\n", proxy.address());
    let vmx = lab.file("cut.vmx", vmx.code(0).out() + &through);
    let mut vm = lab.containervm(["start", "--attach", "-i", &vmx.to_string_lossy()]);
    vm.expect_error("  -\n");
    let console = lab.console("c");
    console.expect("the link goes over virtio now");
    vm.write("go\n");
    for n in [2_000_000, 8_000_000, 14_000_000] {
        vm.expect_bytes(n);
        // The port is closed at once, and QEMU calls again after a second.
        proxy.hold();
        proxy.cut();
        console.expect("the link goes over uart now");
        proxy.let_go();
        console.expect("the link goes over virtio now");
    }
    vm.write("end\n");
    let ended = vm.end();
    assert_eq!(ended.code(0).stdout.len(), 20_000_000);
    assert!(ended.err().contains(&sha256(&ended.stdout)), "{}", ended.err());
}

#[test]
fn a_daemon_killed_with_both_pipes_up_loses_nothing() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let address = address_of(&daemon);
    let port = address.rsplit(':').next().expect("a port").to_owned();
    let script = "head -c 12000000 /dev/urandom >f; sha256sum <f >&2; read x; cat f";
    let run = ["run", "-d", "-i", "--pipe", "virtio", "--boot", "direct", "--name", "b"];
    let run = [&run[..], &["busybox", "sh", "-c", script]].concat();
    lab.start(lab.command("containervm", &run)).finish().code(0);
    let mut attached = lab.serialmux(["attach", "b"]);
    attached.expect_error("  -\n");
    lab.console("b").expect("the link goes over virtio now");
    attached.write("go\n");
    let mut daemon = daemon;
    for n in [1, 3_000_000, 7_000_000] {
        let follower = lab.serialmux(["logs", "-f", "b"]);
        follower.expect_bytes(n);
        daemon.signal(Signal::KILL);
        drop(daemon.finish());
        follower.signal(Signal::KILL);
        daemon = lab.daemon(&port);
    }
    lab.serialmux(["wait", "b"]).finish().code(0).prints("0\n");
    attached.signal(Signal::KILL);
    let logs = lab.serialmux(["logs", "b"]).finish();
    assert_eq!(logs.code(0).stdout.len(), 12_000_000);
    assert!(logs.err().contains(&sha256(&logs.stdout)), "{}", logs.err());
}

/// How long a megabyte takes each way, for the record.
#[test]
fn figures_of_a_virtio_port_are_recorded() {
    let lab = Lab::new();
    let script = "head -c 60000000 /dev/zero | tr '\\0' x >f; echo up; cat >/dev/null; cat f";
    let run = ["--pipe", "virtio", "--boot", "direct", "--name", "f", "-i", "busybox", "sh", "-c"];
    let vm = begin(&lab, &run, script);
    vm.expect("up\n");
    lab.console("f").expect("the link goes over virtio now");
    let start = Instant::now();
    let vm = vm.feed(noise(20_000_000));
    vm.expect_bytes(4);
    let input = start.elapsed();
    let ended = vm.end();
    assert_eq!(ended.code(0).stdout.len(), 60_000_003);
    let output = start.elapsed() - input;
    let rate = |n: f64, time: Duration| n / 1e6 / time.as_secs_f64();
    record(&format!(
        "virtio-serial: in {:.1} MB/s, out {:.1} MB/s, the end included",
        rate(2e7, input),
        rate(6e7, output)
    ));
}
