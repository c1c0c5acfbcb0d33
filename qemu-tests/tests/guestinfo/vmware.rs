//! VMware as the host: what it holds for a VM, what it is told, and what its operators and a VCH ask of the guest.

use crate::bench::{Bench, id, lines};
use crate::disks::set;
use crate::keys::{as_told, faulty, values_of_every_kind, vic};
use crate::volumes::runs;
use guestinfo::backdoor::{Protocol, Step};
use hypervisor::{Hypervisor, vix};
use qemu_tests::{HostVsock, Program, Vmware, skip};
use std::collections::BTreeMap;

/// What of a VM's keys VMware shows to the VM.
fn holding(pairs: &[(String, String)]) -> Hypervisor {
    let visible = pairs.iter().filter(|it| it.0.starts_with("guestinfo."));
    let pairs = visible.map(|(key, value)| (key.as_str(), value.as_str()));
    Hypervisor { high_bandwidth: true, ..Hypervisor::with_values(pairs) }
}

/// VIC's keys without networks: an agent waits for its card for a while, in which a VM that is stopped again and again
/// on a busy machine may not have found it.
fn bare(id: &str, env: &[String]) -> Vec<(String, String)> {
    let mut pairs = vic(id, env);
    pairs.retain(|(key, _)| !key.contains("networks"));
    pairs
}

/// A VM that has a config from its host alone, and its host.
struct Hosted {
    bench: Bench,
    host: Vmware,
    vm: Program,
    attached: Program,
}

impl Hosted {
    /// Boots it with these keys and this hypervisor, which has them, with changes of QEMU's line.
    fn boot(id: &str, pairs: &[(String, String)], host: Hypervisor, changes: &[[&str; 2]]) -> Self {
        Self::boot_in(Bench::new(), id, pairs, host, changes)
    }

    fn boot_in(
        bench: Bench,
        id: &str,
        pairs: &[(String, String)],
        host: Hypervisor,
        changes: &[[&str; 2]],
    ) -> Self {
        let vmx = bench.vmx("vmware", &lines(pairs));
        let host = Vmware::new(&bench.lab.path(""), host);
        bench.lab.serialmux(["register", &vmx]).finish().code(0);
        let shown = bench.lab.containervm(["start", "--print-qemu", &vmx]).finish();
        let mut line = shown.code(0).out();
        let given = format!(" -fw_cfg name=opt/containervm.vmx,file={vmx}");
        for [part, instead] in changes.iter().chain([&[given.as_str(), ""]]) {
            assert!(line.contains(part), "{line}");
            line = line.replace(part, instead);
        }
        let vm = bench.lab.start(bench.shell(&host.hosting(&line)));
        let attached = bench.lab.serialmux(["attach", id]);
        Self { bench, host, vm, attached }
    }

    /// Waits for the end of a VM that powers itself off, its client's with this code; what its host has then.
    fn end(self, code: i32, prints: &str) -> (Bench, Hypervisor) {
        self.vm.finish().code(0);
        self.attached.finish().code(code).prints(prints);
        let hypervisor = self.host.end();
        assert!(hypervisor.all_closed(), "a channel was left open: {:?}", hypervisor.channels);
        (self.bench, hypervisor)
    }
}

/// The values that a guest has given to each key, in turn.
fn written(host: &Hypervisor) -> BTreeMap<String, Vec<String>> {
    let mut written = BTreeMap::<String, Vec<String>>::new();
    for (protocol, message) in &host.heard {
        let text = String::from_utf8_lossy(message);
        if let (Protocol::Rpci, Some(pair)) = (protocol, text.strip_prefix("info-set ")) {
            let (key, value) = pair.split_once(' ').expect("a key and a value");
            written.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    written
}

fn session(id: &str, key: &str) -> String {
    format!("guestinfo.vice..sessions|{id}.{key}")
}

#[test]
fn a_config_comes_by_the_backdoor_alone_and_the_report_goes_back_as_it_changes() {
    let (id, env) = (id('a'), values_of_every_kind());
    let pairs = bare(&id, &env);
    let hosted = Hosted::boot(&id, &pairs, holding(&pairs), &[]);
    let (bench, host) = hosted.end(7, &as_told(&env));
    let console = bench.console("vmware");
    assert!(console.contains("config from VMware guestinfo"), "{console}");
    let report = bench.inspect(&id)["report"].clone();
    assert_eq!(report["guestinfo.vice..link.source"], "VMware guestinfo", "{report:#}");
    let written = written(&host);
    for (key, value) in &written {
        let mut all = value.clone();
        all.dedup();
        assert_eq!(all, *value, "{key} is written when it changes and no more often");
        let last = value.last().expect("a value");
        assert_eq!(report[key], last.as_str(), "{key}: what the link told");
        assert_eq!(host.values[&key.to_lowercase()], last.as_bytes(), "{key}");
    }
    let values = |key: &str| written.get(&session(&id, key)).cloned().unwrap_or_default();
    assert_eq!(values("started"), ["<nil>", "true"], "{written:#?}");
    assert_eq!(values("status"), ["7"], "{written:#?}");
    assert_eq!(values("detail.createtime"), ["1500000000"], "{written:#?}");
    assert_eq!(values("diagnostics.exitlogs|0.ExitStatus"), ["7"], "{written:#?}");
    for key in ["detail.starttime", "detail.stoptime"] {
        let last = values(key).last().cloned();
        assert!(last.is_some_and(|it| *it > *"1500000000"), "{key}: {written:#?}");
    }
    assert_eq!(written["guestinfo.vice..link.version"], [env!("CARGO_PKG_VERSION")]);
    // The large value by the port for whole payloads, as everything.
    assert!(host.n_high > 65536 && host.n_low == 0, "{} and {}", host.n_high, host.n_low);
}

#[test]
fn words_alone_do_as_well_and_what_the_host_refuses_is_told() {
    // Word by word, a large value and an id as VIC gives it would take minutes.
    let (id, mut env) = ("short".to_owned(), values_of_every_kind());
    env.pop();
    let pairs = bare(&id, &env);
    // And some of them are cut short, as by a snapshot, and one channel is lost, as by a vMotion.
    let host = Hypervisor {
        high_bandwidth: false,
        max_value: Some(20),
        cuts: Some((Step::ReceivePayload, 5)),
        refusals: Some((Step::ReceiveSize, 1)),
        ..holding(&pairs)
    };
    let (bench, host) = Hosted::boot(&id, &pairs, host, &[]).end(7, &as_told(&env));
    assert!(host.n_high == 0 && host.n_low > 1000, "{} and {}", host.n_high, host.n_low);
    assert_eq!(
        (host.cuts, host.refusals),
        (Some((Step::ReceivePayload, 0)), Some((Step::ReceiveSize, 0)))
    );
    // The time of an exit log is longer than that.
    let key = session(&id, "diagnostics.exitlogs|0.Time");
    let report = bench.inspect(&id)["report"].clone();
    assert!(report[&key].as_str().is_some_and(|time| time.len() > 20), "{report:#}");
    assert!(!host.values.contains_key(&key.to_lowercase()));
    let console = bench.console("vmware");
    let told = format!("info-set {key}: the hypervisor refused: Value too large");
    let line = console.lines().find(|line| line.contains(&told)).expect(&console);
    assert!(line.contains("VMware guestinfo did not take 1 of the report's values"), "{line}");
    assert_eq!(host.values[&session(&id, "status").to_lowercase()], b"7", "the others are there");
}

#[test]
fn the_faults_of_a_config_are_told_to_the_host_and_the_vm_powers_off() {
    let id = id('8');
    let good = bare(&id, &["PATH=/bin".to_owned()]);
    let (bench, host) = Hosted::boot(&id, &good, holding(&faulty(&id)), &[]).end(125, "");
    let value = |key: &str| {
        String::from_utf8_lossy(&host.values[&session(&id, key).to_lowercase()]).into_owned()
    };
    let started = value("started");
    assert!(started.starts_with("the config from VMware guestinfo has 3 faults:"), "{started}");
    for (key, value) in [("openstdin", "maybe"), ("cmd/Args", "many"), ("link/linger", "soon")] {
        let names = |line: &str| line.contains(key) && line.contains(value);
        assert!(started.lines().any(names), "{key} is not told in: {started}");
    }
    assert_eq!(value("status"), "125");
    let console = bench.console("vmware");
    assert!(console.contains("power off"), "{console}");
}

#[test]
fn shut_down_guest_stops_the_container_in_order_and_powers_off() {
    let id = id('c');
    let mut pairs = bare(&id, &["PATH=/bin:/sbin".to_owned()]);
    let script = "until ip link set eth0 up 2>/dev/null; do sleep 0.1; done; ip addr add 10.0.2.15/24 dev eth0; \
                  trap 'echo bye; exit 5' TERM; sleep 100000 & echo up; wait";
    runs(&mut pairs, &id, script);
    let hosted = Hosted::boot(&id, &pairs, holding(&pairs), &[]);
    hosted.attached.expect("up\n");
    hosted.host.listens(true);
    let says =
        ["reset", "ping", "Set_Option broadcastIP 1", "Capabilities_Register", "OS_PowerOn", "f x"];
    says.iter().for_each(|request| hosted.host.says(request.as_bytes()));
    hosted.host.await_replies();
    let replies = ["OK ATR toolbox", "OK ", "OK ", "OK ", "OK ", "Unknown Command"];
    assert_eq!(hosted.host.heard(Protocol::Tclo), replies);
    // The interface was up before it had its address, which may have been told, too.
    let is_told = |(_, message): &(Protocol, Vec<u8>)| {
        message.starts_with(b"SetGuestInfo  9 ")
            && message.windows(4).any(|it| it == [10, 0, 2, 15])
    };
    hosted.host.await_that("the interface's address", |host| host.heard.iter().any(is_told));
    hosted.host.says_at_last(b"OS_Halt");
    let (bench, host) = hosted.end(5, "up\nbye\n");
    let requests = host.heard.iter().filter(|it| it.0 == Protocol::Rpci);
    let requests: Vec<_> = requests.map(|it| String::from_utf8_lossy(&it.1)).collect();
    let at = |wanted: &str| {
        let found = requests.iter().position(|it| *it == wanted);
        found.unwrap_or_else(|| panic!("no {wanted:?} among {requests:#?}"))
    };
    at("info-set guestinfo.ip 10.0.2.15");
    at("tools.set.version 2147483647");
    at("tools.capability.statechange");
    at("tools.os.statechange.status 1 3\0");
    let (halt, status) = ("tools.os.statechange.status 1 1\0", session(&id, "status"));
    assert!(at(halt) < at(&format!("info-set {status} 5")), "the host knows before the end");
    assert_eq!(
        host.heard.iter().rfind(|it| it.0 == Protocol::Tclo && !it.1.is_empty()).expect("one").1,
        b"OK "
    );
    let console = bench.console("vmware");
    assert!(console.contains("the operator shuts the machine down"), "{console}");
    assert!(console.contains("power off") && !console.contains(": restart"), "{console}");
}

#[test]
fn restart_guest_stops_the_container_in_order_and_boots_the_vm_again() {
    let id = id('d');
    let mut pairs = bare(&id, &["PATH=/bin".to_owned()]);
    let boot_id = "cat /proc/sys/kernel/random/boot_id";
    let script = format!("trap 'echo bye; exit 5' TERM; {boot_id}; sleep 100000 & echo up; wait");
    runs(&mut pairs, &id, &script);
    let hosted = Hosted::boot(&id, &pairs, holding(&pairs), &[[" -no-reboot", ""]]);
    let Hosted { bench, host, vm, attached } = hosted;
    attached.expect("up\n");
    host.listens(true);
    host.says_at_last(b"OS_Reboot");
    let first = attached.finish();
    first.code(5).shows("up\nbye\n");
    // Its own end is told and the VM goes on: the same QEMU runs it again.
    let events = bench.lab.serialmux(["events", "--since", "1h", &id]);
    events.expect("container die").expect("container start");
    let again = bench.lab.serialmux(["logs", "-f", &id]);
    again.expect("up\nbye\n").expect("up\n");
    host.listens(true);
    host.says_at_last(b"OS_Halt");
    vm.finish().code(0);
    let all = again.end();
    let lines = all.out();
    let lines: Vec<&str> = lines.lines().collect();
    let [one, "up", "bye", two, "up", "bye"] = lines[..] else { panic!("{lines:?}") };
    assert!(one.len() == 36 && two.len() == 36 && one != two, "two boots: {lines:?}");
    let host = host.end();
    assert!(host.all_closed(), "{:?}", host.channels);
    let states = host.heard.iter().map(|it| String::from_utf8_lossy(&it.1));
    let states: Vec<_> = states.filter(|it| it.starts_with("tools.os.statechange")).collect();
    assert_eq!(states, ["tools.os.statechange.status 1 2\0", "tools.os.statechange.status 1 1\0"]);
    assert_eq!(written(&host)[&session(&id, "status")], ["5", "5"], "one for each boot");
    let console = bench.console("vmware");
    assert!(console.contains("the operator restarts the machine"), "{console}");
    assert_eq!(console.matches("config from VMware guestinfo").count(), 2, "{console}");
}

#[test]
fn a_vchs_commands_reload_the_config_and_send_signals() {
    let id = id('e');
    let mut pairs = bare(&id, &["PATH=/bin".to_owned()]);
    // What they wait for ends by no signal.
    let script = "(trap '' USR1 HUP; exec sleep 100000) & trap 'echo parent' USR1; trap 'exit 4' HUP; \
                  (trap '' USR1 HUP; (exec sleep 100000) & trap 'echo child' USR1; echo up; while :; do wait; done) & \
                  while :; do wait; done";
    runs(&mut pairs, &id, script);
    let Hosted { bench, host, vm, attached } = Hosted::boot(&id, &pairs, holding(&pairs), &[]);
    attached.expect("up\n");
    host.listens(true);

    // What another says is refused, and so is what is no command.
    host.says(&vix::start("somebody", "kill", "HUP"));
    host.says(&vix::start(&id, "/bin/sh", ""));
    host.await_replies();
    let refusals = host.heard(Protocol::Tclo);
    assert!(
        refusals[0].starts_with("OK 35 0 ") && refusals[1].starts_with("OK 3 0 "),
        "{refusals:?}"
    );

    set(&mut pairs, "/execs@non-persistent", "E1");
    for (key, value) in [
        ("common/id", "E1"),
        ("cmd/Path", "/bin/sh"),
        ("cmd/Args~", "sh|-c|exit 6"),
        ("cmd/Args", "2"),
        ("active", "true"),
    ] {
        set(&mut pairs, &format!("/execs|E1/{key}@non-persistent"), value);
    }
    let newer = holding(&pairs).values;
    host.with(|host| host.values.extend(newer));
    host.says(&vix::start(&id, "reload", ""));
    let exec = "guestinfo.vice..execs|e1.status@non-persistent";
    host.await_that("the end of the new process", |host| {
        host.values.get(exec).is_some_and(|value| value == b"6")
    });
    let reload = host.with(|host| host.values["guestinfo.vice..link.reload"].clone());
    let reload = String::from_utf8_lossy(&reload).into_owned();
    assert!(reload.starts_with("1: done: session E1 is being started"), "{reload}");

    host.says(&vix::start(&id, "kill", "USR1"));
    attached.expect("parent\n");
    host.says(&vix::start(&id, "group-kill", "SIGUSR1"));
    // Had the first gone to the group, the child's line would be there twice.
    attached.await_that("a line of each", || {
        let said = attached.so_far();
        said.matches("parent").count() == 2 && said.contains("child")
    });
    host.says(&vix::start(&id, "kill", "NOSUCH"));
    host.says_at_last(&vix::start(&id, "group-kill", "HUP"));
    vm.finish().code(0);
    let said = attached.finish();
    said.code(4);
    let count = |word: &str| said.out().lines().filter(|it| *it == word).count();
    assert_eq!((count("parent"), count("child")), (2, 1), "{}", said.out());
    let replies = host.heard(Protocol::Tclo);
    let started = |n: u32| format!("OK 0 0 {n}\0\0");
    let expected: Vec<_> = (32769..32774).map(started).collect();
    assert_eq!(replies[2..], expected);
    let console = bench.console("vmware");
    assert!(
        console.contains("the host asks for signal \"NOSUCH\", which does not exist"),
        "{console}"
    );
    assert!(host.end().all_closed());
}

#[test]
fn a_panic_of_the_agent_is_told_to_the_host() {
    let id = id('f');
    let mut pairs = bare(&id, &["PATH=/bin".to_owned()]);
    runs(&mut pairs, &id, "echo up; exec sleep 100000");
    let panics = [" -append '", " -append 'tether.panic=reload "];
    let Hosted { bench, host, vm, attached } =
        Hosted::boot(&id, &pairs, holding(&pairs), &[panics]);
    attached.expect("up\n");
    host.listens(true);
    host.says_at_last(&vix::start(&id, "reload", ""));
    attached.finish().code(137).prints("up\n");
    vm.finish().code(0);
    let written = written(&host.end());
    let started: Vec<_> = written[&session(&id, "started")].iter().map(String::as_str).collect();
    let words = "tether.panic on the kernel command line asks for it";
    let ["<nil>", "true", told] = started[..] else { panic!("{started:?}") };
    assert!(told.starts_with("panic at ") && told.contains(words), "{told}");
    assert_eq!(written[&session(&id, "status")], ["137"]);
    assert_eq!(bench.inspect(&id)["exit"]["code"], 137);
}

#[test]
fn a_host_that_is_reached_over_vsock_alone_is_asked_and_told_there() {
    let bench = Bench::new();
    let Some(vsock) = HostVsock::start(&bench.lab) else {
        return skip("vhost-device-vsock is not there; `cargo qemu-tests` builds it");
    };
    let id = id('9');
    let mut pairs = bare(&id, &["PATH=/bin".to_owned()]);
    runs(&mut pairs, &id, "echo up; exec sleep 100000");
    let memory = "-object memory-backend-memfd,id=memory,size=512M,share=on \
                  -machine pc,memory-backend=memory ";
    let card = format!(
        "-chardev socket,id=vsock,path={} -device vhost-user-vsock-pci,chardev=vsock -qmp ",
        vsock.device()
    );
    // The driver comes after the config. So it is the agent's second life, after a panic, that asks anew and has it.
    let changes = [
        [" -append '", " -append 'tether.panic=reload "],
        ["-machine pc ", memory],
        ["-qmp ", &card],
    ];
    let Hosted { bench, host, vm, attached } =
        Hosted::boot_in(bench, &id, &pairs, holding(&pairs), &changes);
    attached.expect("up\n");
    vm.await_that("the driver", || {
        bench.console("vmware").contains("module vmw_vsock_virtio_transport loaded")
    });
    host.moves_to_vsock(vsock.host());
    bench.lab.serialmux(["reload", &id]).finish();
    attached.finish().code(137).prints("up\n");
    vm.finish().code(0);
    let report = bench.inspect(&id)["report"].clone();
    assert_eq!(report["guestinfo.vice..link.source"], "VMware guestinfo over vsock", "{report:#}");
    let written = written(&host.end());
    let sources: Vec<_> =
        written["guestinfo.vice..link.source"].iter().map(String::as_str).collect();
    assert_eq!(sources, ["VMware guestinfo", "VMware guestinfo over vsock"]);
    assert_eq!(written[&session(&id, "status")], ["137"]);
    let console = bench.console("vmware");
    let found = console.lines().find(|line| line.contains("guestinfo over vsock")).expect(&console);
    let before = "VMware guestinfo: info-get guestinfo.vice./common/id: the hypervisor refused to open a channel";
    assert!(console.contains(before), "{found}\n{console}");
}
