//! VMX files by hand and by `--print-vmx`, what stays on disk, first runs that are interrupted, and the agent's file.

use object::read::elf::{ElfFile64, ProgramHeader as _};
use qemu_tests::deadline::deadline;
use qemu_tests::{Checkout, Lab, record};
use rustix::process::Signal;
use std::fs;
use std::path::Path;

#[test]
fn a_printed_vmx_can_be_edited_and_started() {
    let lab = Lab::new();
    // A file that is printed names the daemon that runs.
    let _daemon = lab.daemon("0");
    let print = ["run", "--print-vmx", "--name", "draft", "-m", "256m", "busybox", "sh", "-c"];
    let mut command = lab.command("containervm", &print);
    command.arg("nproc; echo $COLOR");
    let vmx = lab.start(command).finish();
    let vmx = vmx.code(0).out();
    let edited = vmx.replace("numvcpus = \"1\"", "numvcpus = \"2\"");
    let edited = edited.replace("~ = \"PATH=", "~ = \"COLOR=green|7CPATH=");
    let edited = count_one_more(&edited, "cmd/Env = ");
    let file = lab.file("edited.vmx", &edited);
    let file = &*file.to_string_lossy();

    let shown = lab.containervm(["start", "--print-qemu", file]).finish();
    shown.code(0).shows("qemu-system-x86_64").shows("-smp 2").shows(file);
    shown.shows("pvscsi").shows("vmxnet3").shows("ide-cd").shows("isa-serial,index=0");
    assert!(lab.processes("qemu-system-x86_64", "").is_empty());

    lab.containervm(["start", "--attach", file]).finish().code(0).prints("2\ngreen\n");
    // It can be started again, by its name too.
    lab.containervm(["start", "--attach", "draft"]).finish().code(0).shows("1\n");
    // And edited once more, though its container has run.
    lab.file("edited.vmx", edited.replace("nproc; ", "echo again; "));
    lab.containervm(["start", "--attach", file]).finish().code(0).prints("again\ngreen\n");
}

fn count_one_more(vmx: &str, key: &str) -> String {
    let lines = vmx.lines().map(|line| match line.split_once(key) {
        Some((before, number)) => {
            let number: u32 = number.trim_matches('"').parse().expect("a count");
            format!("{before}{key}\"{}\"\n", number + 1)
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn a_vmx_written_by_hand_boots() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let said = daemon.so_far();
    let address = said.split(';').next().and_then(|it| it.rsplit(' ').next()).expect("an address");
    lab.containervm(["run", "--print-vmx", "--name", "disk", "busybox"]).finish().code(0);
    // Copying would fill its holes.
    fs::rename(lab.vm("disk").join("containerfs.img"), lab.path("disk.img")).unwrap();
    let vmx = format!(
        r#"# as somebody would type it
displayName = "byhand"
memsize = "192"
firmware = "bios"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "disk.img"
ide0:0.present = "TRUE"
ide0:0.deviceType = "cdrom-image"
ide0:0.fileName = "bootstrap.iso"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
serial0.present = "TRUE"
serial0.fileType = "network"
serial0.fileName = "tcp://{address}"
serial0.network.endPoint = "client"
guestinfo.vice./common/id = "byhand"
guestinfo.vice./key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
guestinfo.vice./sessions = "byhand"
guestinfo.vice./sessions|byhand/common/id = "byhand"
guestinfo.vice./sessions|byhand/cmd/Path = "/bin/sh"
guestinfo.vice./sessions|byhand/cmd/Args = "2"
guestinfo.vice./sessions|byhand/cmd/Args~ = "sh|7C-c|7Cecho by hand; exit 11"
guestinfo.vice./sessions|byhand/cmd/Dir = "/"
"#
    );
    let file = lab.file("byhand.vmx", vmx);
    let file = &*file.to_string_lossy();
    lab.containervm(["start", "--attach", file]).finish().code(11).prints("by hand\n");
}

#[test]
fn what_is_not_needed_any_more_is_collected() {
    let lab = Lab::first_run();
    let root = lab.path("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("init"), "#!/bin/sh\n").unwrap();
    let print = |name: &str| {
        let print = ["run", "--print-vmx", "--name", name, "./root", "/init"];
        lab.containervm(print).finish().code(0);
    };
    print("one");
    print("two");
    lab.containervm(["ls"]).finish().code(0).shows("one").shows("two").shows("created");
    lab.containervm(["rm", "one", "nosuch"]).finish().code(125).prints("one\n");
    // Needed by the other one still.
    let gc = lab.containervm(["gc"]).finish();
    assert!(!gc.code(0).out().contains("disk image"), "{gc:?}");
    lab.containervm(["rm", "two"]).finish().code(0);
    lab.containervm(["gc"]).finish().code(0).shows("removed disk image of ./root");
    assert_eq!(big_files(lab.home()), [""; 0]);
}

/// Names of all files that are no mere records.
fn big_files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.flat_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => big_files(&entry.path()),
        _ if entry.metadata().is_ok_and(|it| it.len() > 64 * 1024) => {
            vec![entry.path().display().to_string()]
        }
        _ => Vec::new(),
    });
    names.collect()
}

#[test]
fn an_interrupt_at_any_moment_of_a_first_run_does_not_disturb_the_next() {
    let lab = Lab::first_run();
    let run = ["run", "--rm", "--name", "first", "busybox", "echo", "here"];
    for moment in ["downloading busybox", "making a disk image", "starting serialmux"] {
        let interrupted = lab.containervm(run);
        interrupted.expect_error(moment);
        interrupted.signal_group(Signal::INT);
        let interrupted = interrupted.finish();
        // In the end it may be attached already: then the signal is for the process, which ignores it as the
        // first of its container.
        let too_late = moment == "starting serialmux" && interrupted.out() == "here\n";
        assert!(!interrupted.status.success() || too_late, "{interrupted:?}");
        // Who saw to the VM, if that had begun, cleans up behind it.
        let supervisors = lab.processes("containervm", "supervise");
        assert!(supervisors.iter().all(|supervisor| supervisor.wait(deadline())));
    }
    // An interrupt while the VM boots is for the process in it; so here the hard way.
    let booting = lab.containervm(run);
    lab.await_qemu("first", &booting);
    booting.signal_group(Signal::KILL);
    drop(booting.finish());
    // The VM lives on without its user, who may end it; it may have ended by itself, too.
    let supervisors = lab.processes("containervm", "supervise");
    drop(lab.containervm(["rm", "-f", "first"]).finish());
    assert!(supervisors.iter().all(|supervisor| supervisor.wait(deadline())));

    lab.containervm(run).finish().code(0).prints("here\n");
    lab.containervm(["gc"]).finish().code(0);
    lab.containervm(["ls", "--json"]).finish().code(0).prints("");
    let left = fs::read_dir(lab.home().join("data/vms")).unwrap().flatten();
    let left: Vec<_> = left.map(|it| it.file_name()).filter(|name| name != ".lock").collect();
    assert!(left.is_empty(), "{left:?}");
    let images = fs::read_dir(lab.home().join("cache/images")).unwrap().flatten();
    let halves: Vec<_> = images
        .map(|it| it.path())
        .filter(|path| path.extension().is_some_and(|it| it == "partial"))
        .collect();
    assert!(halves.is_empty(), "{halves:?}");
}

#[test]
fn an_interrupt_before_its_vm_runs_leaves_the_name_free() {
    let lab = Lab::new();
    let _daemon = lab.daemon("0");
    // A kernel that has not been taken out of its ISO yet, and cannot be while this lock is held.
    let iso = lab.path("other.iso");
    fs::copy(Checkout::built().iso(), &iso).unwrap();
    let iso = &*iso.to_string_lossy();
    let boot = lab.home().join("cache/boot");
    fs::create_dir_all(&boot).unwrap();
    let lock = fs::File::create(boot.join(".lock")).unwrap();
    lock.lock().unwrap();
    for (form, signal) in [("--sig-proxy=true", Signal::INT), ("-d", Signal::TERM)] {
        let run = ["run", "--rm", form, "--name", "first", "--iso", iso, "busybox", "true"];
        let interrupted = lab.containervm(run);
        interrupted.await_that("it has its name", || {
            lab.containervm(["ls"]).finish().code(0).out().contains("first")
        });
        interrupted.signal_group(signal);
        interrupted.finish().code(128 + signal.as_raw()).complains(&["before the VM was started"]);
        // At once: there is nobody left to wait for.
        lab.containervm(["ls", "--json"]).finish().code(0).prints("");
        lab.serialmux(["ps", "--json"]).finish().code(0).prints("");
    }
    lock.unlock().unwrap();
    lab.containervm(["run", "--rm", "--name", "first", "busybox", "true"]).finish().code(0);
}

#[test]
fn a_file_names_the_daemon_that_will_run_and_a_start_says_when_it_does_not() {
    let lab = Lab::new();
    let print = |listen: &str, name: &str| {
        let mut command = lab.command("containervm", &["run", "--print-vmx", "--boot", "direct"]);
        command.args(["--name", name, "busybox", "true"]).env("SERIALMUX_LISTEN", listen);
        lab.start(command).finish()
    };
    print("127.0.0.1:2399", "told").code(0).shows("\"tcp://127.0.0.1:2399\"");
    let open = print("127.0.0.1:0", "open");
    open.code(0).shows("\"tcp://127.0.0.1:2377\"");
    open.complains(&["no serialmux runs", "SERIALMUX_LISTEN", "127.0.0.1:2377"]);
    let daemon = lab.daemon("0");
    let listens = daemon.so_far();
    let address = listens.split(';').next().and_then(|it| it.rsplit(' ').next()).unwrap();
    let started = lab.containervm(["start", "told"]).finish();
    started.code(0).complains(&["leads to 127.0.0.1:2399", &format!("listens on {address}")]);
    lab.containervm(["rm", "-f", "told"]).finish().code(0);
}

#[test]
fn the_agent_is_static_and_small() {
    let path = Checkout::built().agent();
    let bytes = fs::read(&path).unwrap();
    record(&format!("tether: {} bytes", bytes.len()));
    assert!(bytes.len() < 2_500_000, "{} bytes", bytes.len());
    let elf = ElfFile64::<object::LittleEndian>::parse(&*bytes).unwrap();
    let headers = elf.elf_program_headers().iter();
    let mut kinds = headers.map(|header| header.p_type(object::LittleEndian));
    assert!(!kinds.any(|kind| kind == object::elf::PT_INTERP), "it asks for an interpreter");
}
