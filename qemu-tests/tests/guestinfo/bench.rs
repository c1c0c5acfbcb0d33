//! The hardware that the VMs of these tests share, and what is done with their VMX files.

use qemu_tests::deadline::deadline;
use qemu_tests::{Finished, Lab, Program};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Keys whose values a test brings itself, and those of the VM that the hardware is taken from.
const IDENTITY: [&str; 6] =
    ["guestinfo.", "common/", "sessions|", "networks|", "annotations", "displayName"];

/// A lab with a disk that has busybox on it, and the lines of a VMX file for its hardware.
pub(crate) struct Bench {
    pub(crate) lab: Lab,
    _daemon: Program,
    hardware: String,
}

/// An id such as VIC gives, of one digit.
pub(crate) fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A value as a VMX file holds it.
pub(crate) fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        match c {
            '"' | '|' | '#' | '\0'..='\x1f' => escaped += &format!("|{:02X}", u32::from(c)),
            _ => escaped.push(c),
        }
    }
    escaped
}

pub(crate) fn lines<V: AsRef<str>>(pairs: &[(String, V)]) -> String {
    let line = |(key, value): &(String, V)| format!("{key} = \"{}\"\n", escaped(value.as_ref()));
    pairs.iter().map(line).collect()
}

impl Bench {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn console(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.console_path(name)).expect("a console"))
            .into_owned()
    }

    /// A VMX file of that hardware with these keys.
    pub(crate) fn vmx(&self, name: &str, guestinfo: &str) -> String {
        let console = self.console_path(name);
        let console = format!("serial1.fileName = \"{}\"\n", console.display());
        let text = self.hardware.clone() + &console + guestinfo;
        self.lab.file(&format!("{name}.vmx"), text).display().to_string()
    }

    /// Registers a VM by one VMX file and boots it with another, as a host would that cannot tell good from bad.
    /// Returns when QEMU has ended, with what an attached client saw.
    pub(crate) fn boot_instead(&self, good: &str, bad: &str, id: &str) -> Finished {
        self.lab.containervm(["start", "--print-qemu", good]).finish().code(0);
        self.lab.serialmux(["register", good]).finish().code(0);
        let attached = self.lab.serialmux(["attach", id]);
        self.lab.containervm(["supervise", id, "--vmx", bad]).finish().code(0);
        attached.finish()
    }

    pub(crate) fn inspect(&self, name: &str) -> serde_json::Value {
        let inspected = self.lab.serialmux(["inspect", name]).finish();
        serde_json::from_str(inspected.code(0).out().as_str()).expect("JSON")
    }

    /// Registers the VM of a VMX file, and gives the line that boots it without its config, but with these
    /// arguments of QEMU.
    pub(crate) fn without_config(&self, vmx: &str, instead: &str) -> Command {
        self.lab.serialmux(["register", vmx]).finish().code(0);
        self.changed(vmx, &format!("-fw_cfg name=opt/containervm.vmx,file={vmx}"), instead)
    }

    /// The line that boots a VM, with a part of it replaced.
    pub(crate) fn changed(&self, vmx: &str, part: &str, instead: &str) -> Command {
        let shown = self.lab.containervm(["start", "--print-qemu", vmx]).finish();
        let line = shown.code(0).out();
        assert!(line.contains(part), "{line}");
        self.shell(&line.replace(part, instead))
    }

    /// Such a line, to be started.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let mut qemu = Command::new("sh");
        qemu.args(["-c", line.trim()]);
        qemu.env("CONTAINERVM_HOME", self.lab.home());
        qemu
    }

    /// The directory of the VM of that id.
    pub(crate) fn vm_dir(&self, id: &str) -> PathBuf {
        self.lab.home().join("data/vms").join(id)
    }

    /// Looks at a VM's report until it is as wanted, or fails when time is up.
    pub(crate) fn await_report(
        &self,
        name: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let end = Instant::now() + deadline();
        loop {
            let report = self.inspect(name)["report"].clone();
            if wanted(&report) {
                return report;
            }
            assert!(Instant::now() < end, "it never came to that: {report:#}");
        }
    }
}
