//! What a VMX file's guestinfo keys say, and what a VM makes of them: VIC's own keys, old and new, and bad ones.

use qemu_tests::{Finished, Lab, Program, record};
use std::path::PathBuf;
use std::process::Command;

/// Keys whose values a test brings itself, and those of the VM that the hardware is taken from.
const IDENTITY: [&str; 6] =
    ["guestinfo.", "common/", "sessions|", "networks|", "annotations", "displayName"];

/// A lab with a disk that has busybox on it, and the lines of a VMX file for its hardware.
struct Bench {
    lab: Lab,
    _daemon: Program,
    hardware: String,
}

/// An id such as VIC gives, of one digit.
fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A value as a VMX file holds it.
fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        match c {
            '"' | '|' | '#' | '\0'..='\x1f' => escaped += &format!("|{:02X}", u32::from(c)),
            _ => escaped.push(c),
        }
    }
    escaped
}

fn lines<V: AsRef<str>>(pairs: &[(String, V)]) -> String {
    let line = |(key, value): &(String, V)| format!("{key} = \"{}\"\n", escaped(value.as_ref()));
    pairs.iter().map(line).collect()
}

impl Bench {
    fn new() -> Self {
        let lab = Lab::new();
        let daemon = lab.daemon("0");
        let script = "printf '#!/bin/sh\\necho hello\\n' >/hello; chmod 755 /hello";
        let made = ["run", "--name", "hardware", "--boot", "direct", "--print-vmx"];
        let made = [&made[..], &["busybox", "sh", "-c", script]].concat();
        let made = lab.start(lab.command("containervm", &made)).finish();
        made.code(0);
        let is_hardware = |line: &&str| !IDENTITY.iter().any(|key| line.starts_with(key));
        let kept: Vec<String> = made.out().lines().filter(is_hardware).map(str::to_owned).collect();
        let hardware = kept.into_iter().filter(|line| !line.starts_with("serial1.fileName"));
        let hardware = hardware.map(|line| line + "\n").collect();
        Self { lab, _daemon: daemon, hardware }
    }

    fn console_path(&self, name: &str) -> PathBuf {
        self.lab.path(&format!("{name}.console"))
    }

    /// What the VM of that VMX file said on its console.
    fn console(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.console_path(name)).expect("a console"))
            .into_owned()
    }

    /// A VMX file of that hardware with these keys.
    fn vmx(&self, name: &str, guestinfo: &str) -> String {
        let console = self.console_path(name);
        let console = format!("serial1.fileName = \"{}\"\n", console.display());
        let text = self.hardware.clone() + &console + guestinfo;
        self.lab.file(&format!("{name}.vmx"), text).display().to_string()
    }

    /// Registers a VM by one VMX file and boots it with another, as a host would that cannot tell good from bad.
    /// Returns when QEMU has ended, with what an attached client saw.
    fn boot_instead(&self, good: &str, bad: &str, id: &str) -> Finished {
        self.lab.containervm(["start", "--print-qemu", good]).finish().code(0);
        self.lab.serialmux(["register", good]).finish().code(0);
        let attached = self.lab.serialmux(["attach", id]);
        self.lab.containervm(["supervise", id, "--vmx", bad]).finish().code(0);
        attached.finish()
    }

    fn inspect(&self, name: &str) -> serde_json::Value {
        let inspected = self.lab.serialmux(["inspect", name]).finish();
        serde_json::from_str(inspected.code(0).out().as_str()).expect("JSON")
    }
}

/// Says all that a process can say of itself, each part between two marks.
const TELL: &str = "cat /proc/$$/cmdline; echo; echo =; cat /proc/$$/environ; echo; echo =; \
                    readlink /proc/$$/cwd; id -un; id -gn; hostname; echo =; exit 7";

/// Every key that VIC writes, with values of every kind in those that can be seen inside.
fn vic(id: &str, env: &[String]) -> Vec<(String, String)> {
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

#[test]
fn a_vm_of_vics_keys_runs_exactly_what_they_say() {
    let bench = Bench::new();
    let id = id('a');
    let large: String = (0..8192).map(|n| format!("{n:07} ")).collect();
    let env = ["PATH=/bin", "HOME=/nowhere", "HOSTNAME=ümlaut", "EMPTY=", "NL=a\nb\n", "Q=\"'`$x#"];
    let mut env: Vec<String> = env.map(str::to_owned).to_vec();
    env.push(format!("LARGE={large}"));
    let vmx = bench.vmx("vic", &lines(&vic(&id, &env)));
    let told = bench.lab.containervm(["start", "-a", &vmx]).finish();
    told.code(7);
    let args = ["sh", "-c", TELL, "größe #1", "two\nlines\t", "", " \"x\" "];
    let zero = |words: &[&str]| words.iter().map(|word| format!("{word}\0")).collect::<String>();
    let environment = zero(&env.iter().map(String::as_str).collect::<Vec<_>>());
    let place = "/var/tmp\nnobody\nusers\nturing\n";
    told.prints(&format!("{}\n=\n{environment}\n=\n{place}=\n", zero(&args)));

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
fn faulty(id: &str) -> Vec<(String, String)> {
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
fn a_config_in_the_firmwares_strings_does_as_well() {
    let bench = Bench::new();
    let id = id('e');
    let env = ["A=1".to_owned()];
    let vmx = bench.vmx("strings", &lines(&vic(&id, &env)));
    bench.lab.serialmux(["register", &vmx]).finish().code(0);
    let shown = bench.lab.containervm(["start", "--print-qemu", &vmx]).finish();
    let guestinfo: Vec<_> = vic(&id, &env);
    let guestinfo: Vec<_> =
        guestinfo.into_iter().filter(|it| it.0.starts_with("guestinfo.")).collect();
    let strings = bench.lab.file("strings.txt", lines(&guestinfo));
    let there = format!("-fw_cfg name=opt/containervm.vmx,file={vmx}");
    let instead = format!("-smbios type=11,path={}", strings.display());
    let line = shown.code(0).out();
    assert!(line.contains(&there), "{line}");
    let mut qemu = Command::new("sh");
    qemu.args(["-c", line.replace(&there, &instead).trim()]);
    qemu.env("CONTAINERVM_HOME", bench.lab.home());
    let attached = bench.lab.serialmux(["attach", &id]);
    bench.lab.start(qemu).finish().code(0);
    attached.finish().code(7).shows("/var/tmp\nnobody\nusers\n");
    let source = bench.inspect(&id)["report"]["guestinfo.vice..link.source"].clone();
    assert_eq!(source, "SMBIOS OEM strings", "{}", bench.console("strings"));
}
