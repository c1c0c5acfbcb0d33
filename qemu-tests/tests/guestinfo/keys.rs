//! VIC's own keys, old and new, and bad ones.

use crate::bench::{Bench, id, lines};
use qemu_tests::record;

/// Says all that a process can say of itself, each part between two marks.
const TELL: &str = "cat /proc/$$/cmdline; echo; echo =; cat /proc/$$/environ; echo; echo =; \
                    readlink /proc/$$/cwd; id -un; id -gn; hostname; echo =; exit 7";

/// Every key that VIC writes, with values of every kind in those that can be seen inside.
pub(crate) fn vic(id: &str, env: &[String]) -> Vec<(String, String)> {
    let common = |key: &str, value: &str| (format!("guestinfo.vice.{key}"), value.to_owned());
    let session = |key: &str, value: &str| common(&format!("/sessions|{id}{key}"), value);
    vec![
        common("/common/id", id),
        ("common/name".to_owned(), "happy_turing".to_owned()),
        common(".createtime", "1500000000000000000"),
        common("/hostname", "turing"),
        common("/domainname", "<nil>"),
        common("/sessions", id),
        session("/common/id", id),
        session("/cmd/Path", "/bin/sh"),
        session("/cmd/Args", "6"),
        session("/cmd/Args~", &format!("sh|-c|{TELL}|größe #1|two\nlines\t|| \"x\" ")),
        session("/cmd/Env", &(env.len() - 1).to_string()),
        session("/cmd/Env~", &env.join("|")),
        session("/cmd/Dir", "/var/tmp"),
        session("/tty", "false"),
        session("/attach", "true"),
        session("/openstdin", "false"),
        session("/active", "true"),
        session("/restart", "false"),
        common(&format!(".sessions|{id}.runblock"), "false"),
        common(&format!(".sessions|{id}.detail.createtime"), "1500000000"),
        session("/stopSignal", "15"),
        session("/User", "nobody"),
        session("/Group", "users"),
        session("/diagnostics/debug", "0"),
        common("/networks", "bridge"),
        common("/networks|bridge/Common/id", "192"),
        common("/networks|bridge/Common/name", "bridge"),
        common("/networks|bridge/static", "true"),
        common("/networks|bridge/ip/IP", "AAAAAAAAAAAAAP//rBAAAg=="),
        common("/networks|bridge/ip/Mask", "//8AAA=="),
        common("/networks|bridge/network/dns", "1"),
        common("/networks|bridge/network/dns|0", "rBAAAQ=="),
        common("/networks|bridge/network/dns|1", "AAAAAAAAAAAAAP//CAgICA=="),
        common(".networks|bridge.network.type", "bridge"),
        common("/networks|bridge/network/TrustLevel", "2"),
        common("/networks|bridge/ports", "1"),
        common("/networks|bridge/ports~", "80/tcp|8080:80/tcp"),
        ("networks|bridge/network/aliases~".to_owned(), "a:b".to_owned()),
        ("networks|bridge/network/aliases".to_owned(), "0".to_owned()),
        common("/key", "LS0tLS1CRUdJTg=="),
        common("/diagnostics/debug", "3"),
        common("/execs@non-persistent", "<nil>"),
        common("/version/PluginVersion", "10"),
        ("annotations".to_owned(), "docker/x".to_owned()),
        ("annotations|docker/x".to_owned(), "y".to_owned()),
    ]
}

/// An environment with all that a value can hold, and 64 KiB.
pub(crate) fn values_of_every_kind() -> Vec<String> {
    let large: String = (0..8192).map(|n| format!("{n:07} ")).collect();
    let env = ["PATH=/bin", "HOME=/nowhere", "HOSTNAME=ümlaut", "EMPTY=", "NL=a\nb\n", "Q=\"'`$x#"];
    let mut env: Vec<String> = env.map(str::to_owned).to_vec();
    env.push(format!("LARGE={large}"));
    env
}

/// What the process of [`vic`] tells of itself in this environment.
pub(crate) fn as_told(env: &[String]) -> String {
    let args = ["sh", "-c", TELL, "größe #1", "two\nlines\t", "", " \"x\" "];
    let zero = |words: &[&str]| words.iter().map(|word| format!("{word}\0")).collect::<String>();
    let environment = zero(&env.iter().map(String::as_str).collect::<Vec<_>>());
    let place = "/var/tmp\nnobody\nusers\nturing\n";
    format!("{}\n=\n{environment}\n=\n{place}=\n", zero(&args))
}

#[test]
fn a_vm_of_vics_keys_runs_exactly_what_they_say() {
    let bench = Bench::new();
    let (id, env) = (id('a'), values_of_every_kind());
    let vmx = bench.vmx("vic", &lines(&vic(&id, &env)));
    let told = bench.lab.containervm(["start", "-a", &vmx]).finish();
    told.code(7).prints(&as_told(&env));

    let known = bench.inspect("happy_turing");
    assert_eq!((&known["status"], &known["exit"]["code"]), (&"exited".into(), &7.into()));
    assert_eq!(known["link"]["agent"], concat!("tether ", env!("CARGO_PKG_VERSION")), "{known}");
    let reported = |key: &str| known["report"][format!("guestinfo.vice.{key}")].clone();
    assert_eq!(reported(&format!(".sessions|{id}.started")), "true", "{known}");
    assert_eq!(reported(&format!(".sessions|{id}.status")), "7", "{known}");
    assert_eq!(reported(&format!(".sessions|{id}.detail.createtime")), "1500000000", "{known}");
    let stop = reported(&format!(".sessions|{id}.detail.stoptime"));
    assert!(stop.as_str().is_some_and(|stop| stop > "1500000000"), "{known}");
    assert_eq!(reported(".link.source"), "fw_cfg opt/containervm.vmx");
    let console = bench.console("vic");
    let found = console.lines().find(|line| line.contains("config from fw_cfg")).expect(&console);
    assert!(found.contains("VMware guestinfo: not there"), "{found}");
    record(&format!("all config sources asked: {found}"));
}

#[test]
fn a_vm_of_vic_04s_keys_says_hello() {
    let bench = Bench::new();
    let id = id('b');
    // What the image of hello-world has, and no search path leads to.
    bench.lab.containervm(["start", "-a", "hardware"]).finish().code(0);
    let key = |key: &str| format!("guestinfo.{key}");
    let session = |rest: &str| key(&format!("/sessions|{id}{rest}"));
    let pairs = [
        (key("/common/id"), id.as_str()),
        (key("/common/name"), "jolly_panini"),
        (key("/common/created"), "1470000000"),
        (key("/common/diagnostics/debug"), "2"),
        (key("/repo"), "hello-world"),
        (key("/key"), "LS0tLS1CRUdJTg=="),
        (key("/sessions"), &id),
        (session("/common/id"), &id),
        (session("/cmd/Path"), "/hello"),
        (session("/cmd/Args"), "0"),
        (session("/cmd/Args~"), "/hello"),
        (session("/attach"), "true"),
        (key("/networks"), "bridge"),
        (key("/networks|bridge/staticip/IP"), "rBAAAg=="),
        (key("/networks|bridge/staticip/Mask"), "//8AAA=="),
    ];
    let vmx = bench.vmx("old", &lines(&pairs));
    bench.lab.containervm(["start", "-a", &vmx]).finish().code(0).prints("hello\n");
    let known = bench.inspect("jolly_panini");
    assert_eq!(known["report"][format!("guestinfo..sessions|{id}.status")], "0", "{known}");
}

/// A config with the key to tell its faults with, and three of those.
pub(crate) fn faulty(id: &str) -> Vec<(String, String)> {
    let mut pairs = vic(id, &["A=1".to_owned()]);
    let bad = [("/openstdin", "maybe"), ("/cmd/Args", "many")];
    for (key, value) in bad {
        let key = format!("guestinfo.vice./sessions|{id}{key}");
        pairs.iter_mut().find(|(had, _)| *had == key).expect("VIC writes it").1 = value.to_owned();
    }
    pairs.push(("guestinfo.vice./link/linger".to_owned(), "soon".to_owned()));
    pairs
}

#[test]
fn every_fault_of_a_config_is_told_and_the_vm_powers_off() {
    let bench = Bench::new();
    let id = id('c');
    let good = bench.vmx("good", &lines(&vic(&id, &["A=1".to_owned()])));
    let bad = bench.vmx("bad", &lines(&faulty(&id)));
    // A host that reads it first does not even boot it.
    let refused = bench.lab.containervm(["start", "-a", &bad]).finish();
    refused.code(125);
    let attached = bench.boot_instead(&good, &bad, &id);
    attached.code(125);
    let (known, console) = (bench.inspect(&id), bench.console("bad"));
    assert_eq!(known["exit"]["code"], 125, "{known}\n{console}");
    let error = known["exit"]["error"].as_str().unwrap_or_default().to_owned();
    for (key, value) in [("openstdin", "maybe"), ("cmd/Args", "many"), ("link/linger", "soon")] {
        let names = |line: &str| line.contains(key) && line.contains(value);
        for text in [&error, &console, &refused.err(), &attached.err()] {
            assert!(text.lines().any(names), "{key} is not told in: {text}");
        }
    }
    let started = &known["report"][format!("guestinfo.vice..sessions|{id}.started")];
    assert_eq!(*started, error.as_str(), "{known}");
    assert!(console.contains("power off"), "{console}");
}

#[test]
fn a_config_without_a_key_ends_on_the_console() {
    let bench = Bench::new();
    let id = id('d');
    let good = bench.vmx("good", &lines(&vic(&id, &["A=1".to_owned()])));
    let mut pairs = vic(&id, &["A=1".to_owned()]);
    pairs.iter_mut().find(|(key, _)| key.ends_with("/key")).expect("a key").1 = "!".to_owned();
    let bad = bench.vmx("bad", &lines(&pairs));
    bench.boot_instead(&good, &bad, &id).code(137);
    let console = bench.console("bad");
    assert!(console.contains("guestinfo.vice./key = "), "{console}");
    assert!(console.contains("power off"), "{console}");
    let error = bench.inspect(&id)["exit"]["error"].clone();
    assert!(error.as_str().is_some_and(|it| it.contains("without an exit status")), "{error}");
}

#[test]
fn keys_of_every_kind_are_understood_and_true_values_too() {
    let bench = Bench::new();
    let id = id('f');
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    let script = "sh|-c|test -t 0 && test -t 1 && echo terminal; read x; echo got $x; exit 4";
    let session = |key: &str| format!("/sessions|{id}{key}");
    let exec = |key: &str| format!("/execs|E1{key}@non-persistent");
    let route = "/networks|bridge/network";
    for (key, value) in [
        (session("/cmd/Args~"), script),
        (session("/cmd/Args"), "2"),
        (session("/tty"), "true"),
        (session("/openstdin"), "true"),
        (format!(".sessions|{id}.runblock"), "true"),
        (session("/diagnostics/syslog/Network"), "tcp"),
        (session("/diagnostics/syslog/RAddr"), "192.0.2.1:514"),
        ("/diagnostics/syslog/Network".to_owned(), "udp"),
        ("/diagnostics/syslog/RAddr".to_owned(), "192.0.2.1:514"),
        (format!("{route}/gateway/IP"), "rBAAAQ=="),
        (format!("{route}/gateway/Mask"), "//8AAA=="),
        (format!("{route}/default"), "true"),
        (format!("{route}/destinations"), "0"),
        (format!("{route}/destinations|0/IP"), "CgAAAA=="),
        (format!("{route}/destinations|0/Mask"), "/wAAAA=="),
        (format!("{route}/pools"), "0"),
        (format!("{route}/pools|0/first"), "rBAAAg=="),
        (format!("{route}/pools|0/last"), "rBD//g=="),
        ("/execs@non-persistent".to_owned(), "E1"),
        (exec("/common/id"), "E1"),
        (exec("/cmd/Path"), "/bin/true"),
        (exec("/cmd/Args~"), "true"),
        (exec("/cmd/Args"), "0"),
        (exec("/active"), "true"),
    ] {
        let key = format!("guestinfo.vice.{key}");
        match pairs.iter_mut().find(|(had, _)| *had == key) {
            Some(pair) => value.clone_into(&mut pair.1),
            None => pairs.push((key, value.to_owned())),
        }
    }
    let vmx = bench.vmx("every", &lines(&pairs));
    let mut vm = bench.lab.containervm(["start", "-ai", &vmx]);
    vm.expect("terminal");
    vm.write("hi\n");
    vm.finish().code(4).shows("got hi");
    let report = bench.inspect(&id)["report"].clone();
    let value = |key: &str| report[format!("guestinfo.vice..sessions|{id}.{key}")].clone();
    assert_eq!((value("started"), value("status")), ("true".into(), "4".into()), "{report:#}");
    assert_eq!(value("diagnostics.exitlogs|0.ExitStatus"), "4", "{report:#}");
    assert_eq!(value("diagnostics.resurrections"), "0", "{report:#}");
}
