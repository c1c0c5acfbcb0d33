//! Volumes of a config as VIC writes it: awaited by label, added by a reload, told of when they are not there.

use crate::bench::{Bench, id, lines};
use crate::disks::{PlainDisk, set};
use crate::keys::vic;
use qemu_tests::Monitor;
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;

/// Makes a disk as a VCH does: formatted by mke2fs, so with a `lost+found`.
fn formatted(bench: &Bench, label: &str) -> PathBuf {
    let path = bench.lab.path(&format!("{label}.img"));
    let mut mke2fs = Command::new("/sbin/mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-L", label]).arg(&path).arg("64M");
    bench.lab.start(mke2fs).finish().code(0);
    path
}

/// What a disk has, as debugfs tells it.
fn on_disk(bench: &Bench, disk: &PathBuf, request: &str) -> String {
    let mut debugfs = Command::new("/sbin/debugfs");
    debugfs.args(["-R", request]).arg(disk);
    bench.lab.start(debugfs).finish().out()
}

fn volume(pairs: &mut Vec<(String, String)>, name: &str, source: (&str, &str), dest: &str) {
    for (key, value) in [
        ("source/Scheme", source.0),
        ("source/Path", source.1),
        ("dest", dest),
        ("mode", if source.0 == "tmpfs" { "size=1m" } else { "rw" }),
        ("copymode", "2"),
    ] {
        set(pairs, &format!("/mounts|{name}/{key}"), value);
    }
}

pub(crate) fn runs(pairs: &mut Vec<(String, String)>, id: &str, script: &str) {
    set(pairs, &format!("/sessions|{id}/cmd/Args~"), &format!("sh|-c|{script}"));
    set(pairs, &format!("/sessions|{id}/cmd/Args"), "2");
    set(pairs, &format!("/sessions|{id}/User"), "root");
    set(pairs, &format!("/sessions|{id}/Group"), "root");
    set(pairs, &format!("/sessions|{id}/openstdin"), "true");
}

#[test]
fn a_volume_whose_disk_does_not_come_is_told_on_the_console_in_the_report_and_to_clients() {
    let bench = Bench::new();
    let id = id('a');
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    set(&mut pairs, "/mounts", "data");
    volume(&mut pairs, "data", ("label", "8d777f385d3dfec8"), "/data");
    let vmx = bench.vmx("missing", &lines(&pairs));
    bench.lab.serialmux(["register", &vmx]).finish().code(0);
    let qemu = bench.changed(&vmx, "-append '", "-append 'tether.disk_timeout=4 ");
    let attached = bench.lab.serialmux(["attach", &id]);
    bench.lab.start(qemu).finish().code(0);
    let told = "volume data: no disk with an ext4 file system labeled 8d777f385d3dfec8 came in 4 s";
    attached.finish().code(125).complains(&[told]);
    let report = bench.inspect(&id)["report"].clone();
    for key in ["mounts|data.mounted".to_owned(), format!("sessions|{id}.started")] {
        let value = report[format!("guestinfo.vice..{key}")].as_str().unwrap_or_default();
        assert!(value.starts_with(told), "{key}: {report:#}");
    }
    let console = bench.console("missing");
    assert!(console.contains(told) && console.contains("controller 0000:00"), "{console}");
}

#[test]
fn a_volume_of_another_kind_is_refused_by_name() {
    let bench = Bench::new();
    let id = id('b');
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    set(&mut pairs, "/mounts", "share");
    volume(&mut pairs, "share", ("cifs", "/exports/v1"), "/share");
    set(&mut pairs, "/mounts|share/source/Host", "server.example.com");
    let vmx = bench.vmx("cifs", &lines(&pairs));
    let refused = bench.lab.containervm(["start", "-a", &vmx]).finish();
    refused.code(125).complains(&["volume share", "cifs://server.example.com/exports/v1", "nfs"]);
}

#[test]
fn a_reload_mounts_what_is_new_where_no_link_leads_out() {
    let bench = Bench::new();
    let id = id('c');
    let mut pairs = vic(&id, &["PATH=/bin:/sbin".to_owned()]);
    let script = "ln -s ../../../../var /link; ln -s /proc/1/root/run /magic; ln -s /nowhere/x /out; \
                  mkdir -p /var/keep; echo image >/var/keep/file; echo up; \
                  while read line; do eval \"$line\"; done; exit 3";
    runs(&mut pairs, &id, script);
    let (vmx, config) = (bench.vmx("reload", &lines(&pairs)), PlainDisk::new(&bench));
    config.write(&pairs);
    let (first, second) = (formatted(&bench, "first"), formatted(&bench, "second"));
    let devices = format!(
        "{} -drive if=none,id=first,format=raw,file={} -device scsi-hd,bus=scsi0.0,scsi-id=9,drive=first",
        config.device(),
        first.display()
    );
    let vm = bench.lab.start(bench.without_config(&vmx, &devices));
    let mut attached = bench.lab.serialmux(["attach", &id]);
    attached.expect("up\n");
    let mounted = |name: &str, wanted: &str| {
        let key = format!("guestinfo.vice..mounts|{name}.mounted");
        let report = bench.await_report(&id, |report| !report[&key].is_null());
        let value = report[&key].as_str().unwrap_or_default().to_owned();
        assert!(value.contains(wanted), "{name}: {value}");
    };
    let reload = || bench.lab.serialmux(["reload", &id]).finish();

    set(&mut pairs, "/mounts", "data|magic|memory|out");
    volume(&mut pairs, "data", ("label", "first"), "/link/keep");
    volume(&mut pairs, "magic", ("label", "first"), "/magic/x");
    volume(&mut pairs, "out", ("label", "first"), "/out");
    volume(&mut pairs, "memory", ("tmpfs", ""), "/new/tmp");
    config.write(&pairs);
    reload().code(0).shows("volume data is being mounted on /link/keep");
    mounted("data", "true");
    mounted("memory", "true");
    mounted("magic", "cannot mount it on /magic/x");
    mounted("out", "cannot mount it on /out");
    attached.write("ls -A /var/keep; cat /var/keep/file; stat -f -c %b /new/tmp\n");
    attached.expect("file\nimage\n256\n");
    attached.write("echo mine >/var/keep/mine; ls -d /nowhere || echo not there\n");
    attached.expect("not there\n");

    // One that is plugged in while it runs.
    let mut monitor = Monitor::connect(&bench.vm_dir(&id)).expect("QEMU listens");
    let node = json!({"driver": "raw", "node-name": "second", "file":
        {"driver": "file", "filename": second.display().to_string()}});
    monitor.execute("blockdev-add", &node).expect("QEMU takes the disk");
    let device = json!({"driver": "scsi-hd", "bus": "scsi0.0", "scsi-id": 3, "drive": "second", "id": "second"});
    monitor.execute("device_add", &device).expect("QEMU plugs it in");
    set(&mut pairs, "/mounts", "data|plugged");
    volume(&mut pairs, "plugged", ("label", "second"), "/plugged");
    config.write(&pairs);
    let told = reload();
    told.code(0).shows("mounts|memory: stays until the next boot").shows("volume plugged is being");
    mounted("plugged", "true");
    attached.write("ls -A /plugged; echo x >/plugged/x; df -P /plugged | tail -1\n");
    attached.expect("/plugged\n");
    attached.write("exit 4\n");
    attached.finish().code(4);
    vm.finish().code(0);
    assert_eq!(on_disk(&bench, &first, "cat .vic.vol.data/mine"), "mine\n");
    assert_eq!(on_disk(&bench, &second, "cat .vic.vol.data/x"), "x\n");
    for disk in [&first, &second] {
        let mut e2fsck = Command::new("/sbin/e2fsck");
        e2fsck.arg("-fn").arg(disk);
        bench.lab.start(e2fsck).finish().code(0);
    }
}

#[test]
fn a_start_mounts_nothing_where_a_link_of_the_image_leads_out() {
    let bench = Bench::new();
    // Three VMs after each other with the same disk.
    let begin = |name: &str, digit, script: &str, dest: &str| {
        let id = id(digit);
        let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
        pairs.iter_mut().find(|it| it.0 == "common/name").expect("VIC writes it").1 =
            name.to_owned();
        set(&mut pairs, "/key", &format!("{digit}2V5IG9mIGEgVk0="));
        runs(&mut pairs, &id, script);
        if !dest.is_empty() {
            set(&mut pairs, "/mounts", "memory");
            volume(&mut pairs, "memory", ("tmpfs", ""), dest);
        }
        let vmx = bench.vmx(name, &lines(&pairs));
        bench.lab.containervm(["start", "-a", &vmx]).finish()
    };
    begin("links", 'a', "ln -s /proc/1/root /magic; ln -s ../../../../../../run /up", "").code(0);
    let inside = begin("inside", 'b', "grep -c ' /run/here ' /proc/mounts; exit 6", "/up/here");
    inside.code(6).prints("1\n");
    let outside = begin("outside", 'c', "true", "/magic/here");
    outside.code(125).complains(&["mount a tmpfs on /magic/here"]);
}
