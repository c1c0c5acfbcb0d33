//! Configs that the VM finds elsewhere than in fw_cfg: in the firmware's strings, on a config disk, nowhere.

use crate::bench::{Bench, id, lines};
use crate::keys::vic;
use std::fs;
use std::process::Command;

#[test]
fn a_config_in_the_firmwares_strings_does_as_well() {
    let bench = Bench::new();
    let id = id('e');
    let env = ["A=1".to_owned()];
    let vmx = bench.vmx("strings", &lines(&vic(&id, &env)));
    let guestinfo: Vec<_> = vic(&id, &env);
    let guestinfo: Vec<_> =
        guestinfo.into_iter().filter(|it| it.0.starts_with("guestinfo.")).collect();
    let strings = bench.lab.file("strings.txt", lines(&guestinfo));
    let instead = format!("-smbios type=11,path={}", strings.display());
    let qemu = bench.without_config(&vmx, &instead);
    let attached = bench.lab.serialmux(["attach", &id]);
    bench.lab.start(qemu).finish().code(0);
    attached.finish().code(7).shows("/var/tmp\nnobody\nusers\n");
    let source = bench.inspect(&id)["report"]["guestinfo.vice..link.source"].clone();
    assert_eq!(source, "SMBIOS OEM strings", "{}", bench.console("strings"));
}

/// What of a VM's keys a guest may see, as the text of a VMX file.
pub(crate) fn visible(pairs: &[(String, String)]) -> String {
    let visible: Vec<_> =
        pairs.iter().filter(|it| it.0.starts_with("guestinfo.")).cloned().collect();
    lines(&visible)
}

/// A CD-ROM beside the VM's own.
fn cdrom(image: &str) -> String {
    format!(
        "-drive if=none,id=config,format=raw,readonly=on,file={image} -device ide-cd,drive=config,bus=ide.1,unit=1"
    )
}

/// Makes an ISO 9660 image of one file, as a user would.
fn iso(bench: &Bench, name: &str, text: &str) -> String {
    let file = bench.lab.file(name, text);
    let image = bench.lab.path(&format!("{name}.iso"));
    let mut xorrisofs = Command::new("xorrisofs");
    xorrisofs.args(["-quiet", "-V", "CONTAINERVM", "-o"]).arg(&image).arg(file);
    bench.lab.start(xorrisofs).finish().code(0);
    image.display().to_string()
}

#[test]
fn a_config_on_a_cdrom_made_in_one_command_does_as_well() {
    let bench = Bench::new();
    let id = id('a');
    let pairs = vic(&id, &["A=1".to_owned()]);
    let vmx = bench.vmx("cdrom", &lines(&pairs));
    let image = iso(&bench, "config.vmx", &visible(&pairs));
    let qemu = bench.without_config(&vmx, &cdrom(&image));
    let attached = bench.lab.serialmux(["attach", &id]);
    bench.lab.start(qemu).finish().code(0);
    attached.finish().code(7).shows("/var/tmp\nnobody\nusers\n");
    let source = bench.inspect(&id)["report"]["guestinfo.vice..link.source"].clone();
    assert_eq!(source, "config disk /dev/sr1", "{}", bench.console("cdrom"));
}

#[test]
fn a_vm_without_any_config_says_where_it_looked_and_powers_off() {
    let bench = Bench::new();
    let pairs = vic(&id('b'), &["A=1".to_owned()]);
    let vmx = bench.vmx("nowhere", &lines(&pairs));
    // A disk with the label, but without the file.
    let image = iso(&bench, "other.txt", "");
    let qemu = bench.without_config(&vmx, &cdrom(&image));
    bench.lab.start(qemu).finish().code(0);
    let console = bench.console("nowhere");
    let told =
        console.lines().find(|line| line.contains("no source has a config")).expect(&console);
    for part in [
        "fw_cfg opt/containervm.vmx: not there",
        "file /config.vmx: not there",
        "no file config.vmx",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(console.contains("power off"), "{console}");
}

/// A config disk that is a VMX file from its first byte on, of a size that stays.
pub(crate) struct PlainDisk {
    path: std::path::PathBuf,
}

impl PlainDisk {
    pub(crate) fn new(bench: &Bench) -> Self {
        Self { path: bench.lab.path("config.img") }
    }

    pub(crate) fn write(&self, pairs: &[(String, String)]) {
        let mut bytes = format!("# containervm config\n{}", visible(pairs)).into_bytes();
        bytes.resize(64 * 1024, 0);
        fs::write(&self.path, bytes).expect("a file can be written");
    }

    pub(crate) fn device(&self) -> String {
        let path = self.path.display();
        format!(
            "-drive if=none,id=config,format=raw,file={path} -device virtio-blk-pci,drive=config"
        )
    }
}

pub(crate) fn set(pairs: &mut Vec<(String, String)>, key: &str, value: &str) {
    let key = format!("guestinfo.vice.{key}");
    match pairs.iter_mut().find(|(had, _)| *had == key) {
        Some(pair) => value.clone_into(&mut pair.1),
        None => pairs.push((key, value.to_owned())),
    }
}

#[test]
fn a_running_vm_follows_its_config_as_far_as_it_can() {
    let bench = Bench::new();
    let id = id('c');
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    let script = "sh|-c|trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 1; done";
    set(&mut pairs, &format!("/sessions|{id}/cmd/Args~"), script);
    set(&mut pairs, &format!("/sessions|{id}/cmd/Args"), "2");
    set(&mut pairs, "/diagnostics/debug", "0");
    let (vmx, disk) = (bench.vmx("reload", &lines(&pairs)), PlainDisk::new(&bench));
    disk.write(&pairs);
    let vm = bench.lab.start(bench.without_config(&vmx, &disk.device()));
    let attached = bench.lab.serialmux(["attach", &id]);
    attached.expect("up");
    let reload = || bench.lab.serialmux(["reload", &id]).finish();
    reload().code(0).prints("nothing has changed\n");

    set(&mut pairs, "/diagnostics/debug", "1");
    set(&mut pairs, "/link/linger", "9");
    set(&mut pairs, "/link/mode", "non-blocking");
    set(&mut pairs, "/networks", "bridge|second");
    set(&mut pairs, "/mounts", "data");
    set(&mut pairs, "/mounts|data/dest", "/data");
    set(&mut pairs, "/hostname", "other");
    disk.write(&pairs);
    let followed = reload();
    for part in [
        "done: debug level 1; linger 9 s; link/mode non-blocking, 1048576 bytes;",
        "network second is being configured",
        "volume data: its source",
        "hostname: fixed while the container runs",
    ] {
        followed.code(0).shows(part);
    }

    let mut bad = pairs.clone();
    set(&mut bad, "/link/linger", "soon");
    set(&mut bad, &format!("/sessions|{id}/active"), "false");
    disk.write(&bad);
    reload().code(125).complains(&["nothing was changed", "link/linger", "soon"]);
    let known = bench.inspect(&id);
    assert_eq!(known["status"], "running", "{known:#}");
    let told = known["report"]["guestinfo.vice..link.reload"].as_str().unwrap_or_default();
    assert!(told.starts_with("3: nothing was changed"), "{known:#}");

    set(&mut pairs, &format!("/sessions|{id}/active"), "false");
    disk.write(&pairs);
    reload().code(0).shows("is being stopped");
    attached.finish().code(5).shows("bye\n");
    vm.finish().code(0);
    let console = bench.console("reload");
    assert!(console.contains("the config is read again"), "{console}");
}
