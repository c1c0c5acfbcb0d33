//! Wrong input and a world in disorder: one clear line, exit code 125, and nothing left behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use qemu_tests::{Lab, skip};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

#[test]
fn what_is_no_image_is_refused_by_name() {
    let lab = Lab::new();
    lab.run(["nosuch"]).code(125).complains(&["no image \"nosuch\"", "docker save"]);
    let noise = lab.file("noise.tar", vec![b'x'; 100_000]);
    let noise = &*noise.to_string_lossy();
    lab.run([noise]).code(125).complains(&[noise, "is not an image", "tar"]);
    lab.containervm(["ls", "--json"]).finish().code(0).prints("");
}

/// A tar of two files of 100,000 bytes.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for name in ["bin/data", "bin/more"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(100_000);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, &*vec![b'x'; 100_000]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_damaged_tar_is_refused_with_the_place() {
    let lab = Lab::new();
    let whole = archive();
    let cut = lab.file("cut.tar", &whole[..50_000]);
    let cut = &*cut.to_string_lossy();
    lab.run([cut, "x"]).code(125).complains(&[cut, "bin/data", "ends in the middle"]);
    // The second header: one of 512 bytes and contents in blocks of 512 come before it.
    let second = 512 + 100_000_usize.next_multiple_of(512);
    let mut flipped = whole;
    flipped[second + 20] ^= 1;
    let flipped = lab.file("flipped.tar", flipped);
    let flipped = &*flipped.to_string_lossy();
    lab.run([flipped, "x"]).code(125).complains(&[
        flipped,
        &format!("byte {second}"),
        "checksum",
        "damaged",
    ]);
    lab.containervm(["ls", "--json"]).finish().code(0).prints("");
}

#[test]
fn a_wrong_vmx_is_refused_with_file_line_and_what_was_expected() {
    let lab = Lab::new();
    let vmx = lab.containervm(["run", "--print-vmx", "--name", "made", "busybox", "true"]).finish();
    let vmx = vmx.code(0).out();
    let start = |name: &str, from: &str, to: &str| {
        assert!(vmx.contains(from), "{from:?} is not in {vmx}");
        let path = lab.file(name, vmx.replace(from, to));
        let line = vmx.lines().position(|line| line.contains(from)).expect("the line") + 1;
        let path = path.to_string_lossy().into_owned();
        let ended = lab.containervm(["start", "--attach", &path]).finish();
        ended.code(125);
        (ended, format!("{path}:{line}: "))
    };
    let (ended, place) = start("syntax.vmx", "numvcpus = \"1\"", "numvcpus 1");
    ended.complains(&[&place, "numvcpus 1", "expected name = \"value\""]);
    let (ended, place) = start("value.vmx", "numvcpus = \"1\"", "numvcpus = \"many\"");
    ended.complains(&[&place, "\"many\"", "expected a number between 1 and 255"]);
    let (ended, place) = start("disk.vmx", "containerfs.img", "gone.img");
    ended.complains(&[&place, "scsi0:0.fileName", "gone.img", "expected", "there is no file"]);
    let none = lab.containervm(["start", "--attach", "/no/such.vmx"]).finish();
    none.code(125).complains(&["no such VMX file: /no/such.vmx"]);
    assert!(lab.processes("qemu-system-x86_64", "").is_empty());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let lab = Lab::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let with_port = |program: &str, arguments: &[&str]| {
        let mut command = lab.command(program, arguments);
        command.env("SERIALMUX_LISTEN", &address);
        lab.start(command).finish()
    };
    let served = with_port("serialmux", &["serve"]);
    served.code(125).complains(&["cannot listen on", &address, "in use", "--listen"]);
    let ran = with_port("containervm", &["run", "--rm", "busybox", "true"]);
    ran.code(125).complains(&["cannot start serialmux", &address, "in use"]);
    lab.containervm(["ls", "--json"]).finish().code(0).prints("");
}

#[test]
fn a_second_daemon_for_the_same_state_is_refused() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let second = lab.serialmux(["serve"]).finish();
    second.code(125).complains(&["another serialmux runs"]);
    drop(daemon);
    lab.serialmux(["logs", "nosuch"]).finish().code(125).complains(&["no such container: nosuch"]);
}

#[test]
fn a_client_without_a_daemon_says_so() {
    let lab = Lab::new();
    let ps = lab.serialmux(["ps"]).finish();
    ps.code(125).complains(&["no serialmux answers", "serialmux serve"]);
}

#[test]
fn a_missing_qemu_that_cannot_be_brought_in_is_named() {
    let lab = Lab::new();
    // The image first, as on a machine that once had a network.
    lab.containervm(["run", "--print-vmx", "busybox"]).finish().code(0);
    let bin = lab.path("bin");
    fs::create_dir(&bin).unwrap();
    script(
        bin.join("apt-get"),
        "echo \"E: Temporary failure resolving 'deb.debian.org'\" >&2; exit 100",
    );
    script(bin.join("sudo"), "exec \"$@\"");
    script(
        bin.join("env"),
        "while case $1 in *=*) true;; *) false;; esac; do shift; done; exec \"$@\"",
    );
    let mut command = lab.command("containervm", &["run", "--rm", "busybox", "true"]);
    command.env("PATH", &bin);
    let ran = lab.start(command).finish();
    ran.code(125).complains(&["qemu-system-x86", "could not be reached", "deb.debian.org"]);
    assert!(ran.err().contains("qemu-system-x86 is missing; it is needed to run"), "{ran:?}");
}

fn script(path: PathBuf, body: &str) {
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_full_disk_is_named_and_no_half_image_stays() {
    // A mount that only one command sees, and that goes with it.
    let private = Command::new("unshare").args(["--mount", "true"]).output();
    if !private.is_ok_and(|output| output.status.success()) {
        return skip("mounting a small tmpfs needs root");
    }
    let lab = Lab::first_run();
    let root = lab.path("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("big"), vec![b'x'; 20_000_000]).unwrap();
    fs::create_dir(lab.home()).unwrap();
    let script = "mount -t tmpfs -o size=8m tmpfs \"$CONTAINERVM_HOME\" || exit 99\n\
                  \"$@\" run ./root /big; code=$?\n\
                  find \"$CONTAINERVM_HOME\" -size +100k; exit $code";
    let containervm = lab.command("containervm", &[""; 0]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(containervm.get_program());
    command.current_dir(lab.path("."));
    for (name, value) in containervm.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let ran = lab.start(command).finish();
    ran.code(125).complains(&["no space left", "making the disk image"]).prints("");
}

#[test]
fn a_name_that_is_taken_is_refused_with_its_owner() {
    let lab = Lab::new();
    lab.containervm(["run", "--print-vmx", "--name", "web", "busybox", "true"]).finish().code(0);
    let second = lab.containervm(["run", "--name", "web", "busybox", "true"]).finish();
    second.code(125).complains(&["\"web\" is in use", "containervm rm web"]);
    lab.containervm(["rm", "web"]).finish().code(0);
    lab.containervm(["run", "--print-vmx", "--name", "web", "busybox", "true"]).finish().code(0);
}

#[test]
fn a_wrong_command_line_is_refused_before_anything_is_done() {
    let lab = Lab::new();
    let check = |arguments: &[&str], part: &str| {
        let ended = lab.start(lab.command("containervm", arguments)).finish();
        ended.code(125);
        assert!(ended.err().contains(part), "{part:?} is not in {ended:?}");
    };
    check(&["run", "--nope", "busybox"], "--nope");
    check(&["run"], "<IMAGE>");
    check(&["fly"], "fly");
    check(&["run", "-m", "much", "busybox", "true"], "\"much\" is not an amount of memory");
    check(&["run", "-m", "1m", "busybox", "true"], "memory");
    check(&["run", "--cpus", "0", "busybox", "true"], "not a number of processors");
    check(&["run", "-w", "here", "busybox", "true"], "\"here\" is not absolute");
    check(&["run", "--env-file", "/no/file", "busybox", "true"], "/no/file");
    check(&["run", "--name", "a/b", "busybox", "true"], "a/b");
    check(&["run", "--iso", "/no/iso", "busybox", "true"], "no such ISO: /no/iso");
    check(&["rm", "nosuch"], "no containerVM is called \"nosuch\"");
    check(&["start", "nosuch"], "nosuch");
    assert!(lab.processes("qemu-system-x86_64", "").is_empty());
    lab.containervm(["--help"]).finish().code(0).shows("containervm run -it busybox");
}
