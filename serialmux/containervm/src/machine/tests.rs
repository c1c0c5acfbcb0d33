//! VMX files as vSphere users write them, and the machines they make.

use std::path::Path;

use super::*;

/// What a vSphere administrator would recognize.
pub(crate) const TYPICAL: &str = r#"
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "14"
displayName = "web, front"
uuid.bios = "56 4d 12 34 56 78 9a bc-de f0 12 34 56 78 9a bc"
memsize = "2048"
numvcpus = "2"
firmware = "bios"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "disk.img"
ide0:0.present = "TRUE"
ide0:0.deviceType = "cdrom-image"
ide0:0.fileName = "bootstrap.iso"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.connectionType = "nat"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:AA:BB:CC"
serial0.present = "TRUE"
serial0.fileType = "network"
serial0.fileName = "tcp://127.0.0.1:2377"
serial0.network.endPoint = "client"
serial1.present = "TRUE"
serial1.fileType = "file"
serial1.fileName = "console.log"
guestinfo.vice./common/id = "abc"
"#;

/// A directory with a disk, and what the text describes in there.
pub(crate) fn machine(text: &str) -> (tempfile::TempDir, Result<Machine, MachineError>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("disk.img"), b"").unwrap();
    let file = dir.path().join("web.vmx");
    fs::write(&file, text).unwrap();
    let machine = Machine::load(&file).map(|(machine, _)| machine);
    (dir, machine)
}

#[test]
fn a_typical_file_is_understood() {
    let (dir, machine) = machine(TYPICAL);
    let machine = machine.unwrap();
    let path = |name: &str| dir.path().join(name);
    assert_eq!(machine.name, "web, front");
    assert_eq!(machine.uuid.as_deref(), Some("564d1234-5678-9abc-def0-123456789abc"));
    assert_eq!(
        (machine.memory, machine.cpus, machine.firmware, machine.boot),
        (2048, 2, Firmware::Bios, Boot::Iso)
    );
    let disk = Disk {
        place: DiskPlace::Scsi { bus: 0, target: 0 },
        file: path("disk.img"),
        format: DiskFormat::Raw,
        discards_changes: false,
    };
    assert_eq!(machine.disks, [disk]);
    assert_eq!(machine.cdroms, [Cdrom { bus: 0, unit: 0, image: CdromImage::Bootstrap }]);
    assert_eq!(machine.nics[0].mac.as_deref(), Some("00:50:56:aa:bb:cc"));
    let network = SerialBacking::Network {
        host: "127.0.0.1".into(),
        port: 2377,
        telnet: false,
        end_point: EndPoint::Client,
    };
    assert_eq!(machine.serials[0].backing, network);
    assert_eq!(machine.serials[1].backing, SerialBacking::File(path("console.log")));
}

/// Replaces one line of the typical file, by key, or adds it.
fn with(key: &str, value: &str) -> String {
    let line = format!("{key} = \"{value}\"");
    let mut lines: Vec<&str> = TYPICAL.lines().collect();
    match lines.iter().position(|line| line.starts_with(&format!("{key} "))) {
        Some(at) => lines[at] = &line,
        None => lines.push(&line),
    }
    lines.join("\n")
}

#[test]
fn every_fault_names_file_line_and_what_was_expected() {
    let check = |key: &str, value: &str, line: usize, expected: &str| {
        let (dir, machine) = machine(&with(key, value));
        let text = machine.unwrap_err().to_string();
        let file = dir.path().join("web.vmx");
        assert!(
            text.starts_with(&format!("{}:{line}: {key} = {value:?}; expected ", file.display())),
            "{text}"
        );
        assert!(text.contains(expected), "{expected:?} is not in {text:?}");
    };
    check("memsize", "lots", 7, "a number between 128 and");
    check("memsize", "64", 7, "a number between 128 and");
    check("numvcpus", "0", 8, "a number between 1 and 255");
    check("firmware", "coreboot", 9, "\"bios\" or \"efi\"");
    check("scsi0.present", "maybe", 10, "\"TRUE\" or \"FALSE\"");
    check("scsi0.virtualDev", "buslogic", 11, "\"pvscsi\" or \"lsilogic\"");
    check("scsi0:0.fileName", "gone.vmdk", 14, "there is no file /");
    check("ide0:0.fileName", "other.iso", 17, "an ISO image; there is no file");
    check("ethernet0.virtualDev", "ne2000", 19, "\"vmxnet3\" or \"e1000\"");
    check("ethernet0.address", "01:00:5e:00:00:01", 22, "a hardware address such as");
    check("serial0.fileName", "127.0.0.1:2377", 25, "an address such as \"tcp://127.0.0.1:2377\"");
    check("serial0.fileName", "tcp://:2377", 25, "a host to call");
    check("uuid.bios", "xyz", 6, "16 bytes in hexadecimal");
    check("containervm.boot", "pxe", 31, "\"iso\" or \"direct\"");
}

#[test]
fn syntax_errors_and_missing_keys_name_their_line_too() {
    let (dir, result) = machine("memsize = \"512\"\nnumvcpus 2\n");
    let text = result.unwrap_err().to_string();
    assert!(text.starts_with(&format!("{}:2: ", dir.path().join("web.vmx").display())), "{text}");
    let (_dir, result) = machine(&TYPICAL.replace("serial1.fileType = \"file\"\n", ""));
    let text = result.unwrap_err().to_string();
    assert!(
        text.contains(":27: serial1.present needs serial1.fileType; expected \"network\""),
        "{text}"
    );
    let text = Machine::load(Path::new("/no/such.vmx")).unwrap_err().to_string();
    assert!(text.starts_with("cannot read /no/such.vmx: No such file"), "{text}");
}

#[test]
fn absent_and_unconnected_devices_are_left_out() {
    let (_dir, machine) = machine(&[
        TYPICAL,
        "ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"atapi-cdrom\"\nide1:0.fileName = \"auto detect\"\n",
        "ethernet1.present = \"FALSE\"\nethernet1.virtualDev = \"nonsense\"\n",
        "scsi1:0.present = \"TRUE\"\nscsi1:0.fileName = \"gone\"\n",
    ].concat());
    let machine = machine.unwrap();
    assert_eq!((machine.cdroms.len(), machine.nics.len(), machine.disks.len()), (1, 1, 1));
}

#[test]
fn a_proxy_is_called_instead_of_the_address() {
    let backing = |text: &str| machine(text).1.unwrap().serials[0].backing.clone();
    let at = |port, telnet, end_point| SerialBacking::Network {
        host: "::1".into(),
        port,
        telnet,
        end_point,
    };
    assert_eq!(
        backing(&with("serial0.vspc", "telnet://[::1]:2377")),
        at(2377, false, EndPoint::Client)
    );
    let text =
        with("serial0.fileName", "telnet://[::1]:23/x?y").replace("= \"client\"", "= \"server\"");
    assert_eq!(backing(&text), at(23, true, EndPoint::Server));
}

#[test]
fn the_kernel_comes_from_the_cd_rom_or_the_installations_iso() {
    let bootstrap = Some(Path::new("/installed.iso"));
    let (_dir, typical) = machine(TYPICAL);
    assert_eq!(typical.unwrap().iso(bootstrap), bootstrap);
    let (dir, own) = machine(&with("ide0:0.fileName", "disk.img"));
    assert_eq!(own.unwrap().iso(bootstrap), Some(dir.path().join("disk.img").as_path()));
    let none = with("ide0:0.present", "FALSE");
    let text = machine(&none).1.unwrap_err().to_string();
    assert!(text.contains("booting needs ide0:0.fileName"), "{text}");
    let (_dir, direct) = machine(&(none + "\ncontainervm.boot = \"direct\"\n"));
    assert_eq!(direct.unwrap().iso(bootstrap), bootstrap);
}

#[test]
fn memory_and_processors_can_be_added_where_the_file_says_so() {
    let check = |text: &str, memory: &str, cpus: &str| {
        let (_dir, machine) = machine(text);
        let machine = machine.unwrap();
        let facts = crate::qemu::Facts {
            dir: "/vms/x".into(),
            accel: crate::accel::Accel::Tcg,
            bootstrap_iso: Some("/iso/b.iso".into()),
            kernel: None,
        };
        let line = crate::qemu::QemuCommand::new(&machine, &facts).unwrap().to_string();
        assert!(line.contains(&format!(" -m {memory} -smp {cpus} -")), "{line}");
    };
    check(TYPICAL, "2048M", "2");
    check(&with("mem.hotadd", "TRUE"), "2048M,slots=16,maxmem=32768M", "2");
    check(&with("vcpu.hotadd", "TRUE"), "2048M", "2,maxcpus=8");
}
