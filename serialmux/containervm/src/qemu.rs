//! The QEMU command line that gives a [`Machine`] the hardware its VMX file asks for.
//!
//! No shell is involved: arguments are a list. [`QemuCommand`] displays as a line that a shell would split into the
//! same list. QEMU starts in the VM's own directory and finds its socket there by a relative name, because the path
//! of a Unix socket may have 107 bytes at most and a home directory can use those up.
//!
//! | VMX | QEMU |
//! |---|---|
//! | `pvscsi` | `pvscsi` with `scsi-hd` |
//! | `cdrom-image` | `ide-cd`, first in the boot order |
//! | `vmxnet3`, `e1000`, `e1000e` | the same, with user-mode networking and no boot ROM |
//! | `serialN` | `isa-serial` of the same number; the first with an interrupt of its own (`SERIAL0_IRQ`) |
//! | `containervm.pipe` | `virtserialport` called [`PORT_NAME`], `vhost-vsock-pci`, or `vhost-user-vsock-pci` with memory that its program can share |
//! | `guestinfo.*` | the whole file as `opt/containervm.vmx` in fw_cfg |

use std::{
    fmt,
    path::{Path, PathBuf},
};

use debian::{Need, Probe};

use crate::{
    accel::Accel,
    kernel::Kernel,
    machine::{
        Boot, CdromImage, Disk, DiskFormat, DiskPlace, EndPoint, FastPipe, Firmware, Machine, Nic,
        NicModel, ScsiModel, SerialBacking,
    },
};

/// The program.
pub const QEMU: &str = "qemu-system-x86_64";
/// Name of the control socket in the VM's directory.
pub const QMP_SOCKET: &str = "qmp.sock";
/// UEFI's code, shared by all VMs, and the initial contents of its variables, of which each VM gets a copy.
pub const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// See [`OVMF_CODE`].
pub const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The interrupt of serial0. A serial port's own, 4, is triggered by edges: an emulated port, which has room again as
/// soon as a byte is written to it, makes one for each byte, and that costs two fifths of what the byte
/// does. Of this one QEMU tells the guest that levels trigger it (`ACPI_BUILD_PCI_IRQS` in `hw/i386/acpi-common.c`: 5,
/// 9, 10 and 11), and neither SeaBIOS nor OVMF leads a PCI device to it.
const SERIAL0_IRQ: u32 = 5;

/// The name by which the agent finds its virtio-serial port.
pub const PORT_NAME: &str = "org.containervm.serial0";
/// What a host has whose kernel serves vsock.
pub const VHOST_VSOCK: &str = "/dev/vhost-vsock";
/// Name of that copy in the VM's directory.
pub const VARS: &str = "efivars.fd";

/// Why there is no command line for a machine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QemuError {
    /// The machine wants the installation's ISO, and there is none.
    #[error(
        "{0} boots bootstrap.iso, but none was found; build it with `cargo bootstrap-iso`, or name one with --iso"
    )]
    NoBootstrapIso(String),
    /// A vsock device that the host cannot serve.
    #[error(
        "{0} has containervm.pipe = \"vsock\", but this host has no {VHOST_VSOCK} (try `modprobe vhost_vsock`); \
         or name the socket of a vhost-device-vsock with containervm.vsock.socket"
    )]
    NoVsock(String),
    /// Direct boot without a kernel.
    #[error("{0} boots a kernel directly, but no kernel was taken from its ISO")]
    NoKernel(String),
}

/// What the machine does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where QEMU runs and keeps its socket and variables.
    pub dir: PathBuf,
    /// Hardware virtualization or emulation.
    pub accel: Accel,
    /// The installation's ISO.
    pub bootstrap_iso: Option<PathBuf>,
    /// What to boot directly, when the machine does.
    pub kernel: Option<Kernel>,
}

/// A program with its arguments and the directory to run it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuCommand {
    /// Working directory.
    pub dir: PathBuf,
    /// Arguments after the program's name.
    pub arguments: Vec<String>,
}

/// What a machine needs from the host, for [`debian::ensure`].
#[must_use]
pub fn needs(machine: &Machine) -> Vec<Need> {
    let mut needs = vec![Need {
        package: "qemu-system-x86",
        probe: Probe::Program(QEMU),
        why: "to run containerVMs",
    }];
    if machine.firmware == Firmware::Efi {
        needs.push(Need {
            package: "ovmf",
            probe: Probe::File(OVMF_CODE),
            why: "to boot a VM with UEFI",
        });
    }
    needs
}

/// Whether the host can serve the machine's devices.
///
/// # Errors
/// When it wants the host's vsock and there is none.
pub fn check_host(machine: &Machine) -> Result<(), QemuError> {
    match machine.fast_pipe {
        Some(FastPipe::HostVsock { .. }) if !Path::new(VHOST_VSOCK).exists() => {
            Err(QemuError::NoVsock(machine.name.clone()))
        }
        _ => Ok(()),
    }
}

/// Modules that can be added to a VM's memory, and to how many times of what it has at first: VMware's.
const MODULES: u32 = 16;
/// Processors that a VM can come to have; each has a price in the kernel from the start.
const MOST_CPUS: u32 = 8;

fn memory(machine: &Machine) -> String {
    let Machine { memory, memory_hot_add, .. } = *machine;
    let most = u64::from(memory) * u64::from(MODULES);
    if memory_hot_add {
        format!("{memory}M,slots={MODULES},maxmem={most}M")
    } else {
        format!("{memory}M")
    }
}

fn processors(machine: &Machine) -> String {
    let Machine { cpus, cpu_hot_add, .. } = *machine;
    if cpu_hot_add && cpus < MOST_CPUS {
        format!("{cpus},maxcpus={MOST_CPUS}")
    } else {
        cpus.to_string()
    }
}

impl QemuCommand {
    /// The command for a machine.
    ///
    /// # Errors
    /// When the machine wants an ISO or kernel that `facts` do not have.
    pub fn new(machine: &Machine, facts: &Facts) -> Result<Self, QemuError> {
        let mut line = Arguments::default();
        line.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
        line.option("-display", "none");
        line.option("-name", &format!("guest={}", escape(&machine.name)));
        let shared = matches!(machine.fast_pipe, Some(FastPipe::UserVsock(_)));
        line.option("-machine", if shared { "pc,memory-backend=memory" } else { "pc" });
        if shared {
            let size = format!("memory-backend-memfd,id=memory,size={}M,share=on", machine.memory);
            line.option("-object", &size);
        }
        line.accel(facts.accel);
        line.option("-m", &memory(machine));
        line.option("-smp", &processors(machine));
        line.option("-rtc", "base=utc");
        if let Some(uuid) = &machine.uuid {
            line.option("-uuid", uuid);
        }
        if machine.firmware == Firmware::Efi {
            line.option(
                "-drive",
                &format!("if=pflash,unit=0,format=raw,readonly=on,file={OVMF_CODE}"),
            );
            line.option("-drive", &format!("if=pflash,unit=1,format=raw,file={VARS}"));
        }
        line.boot(machine, facts)?;
        line.storage(machine, facts)?;
        machine.nics.iter().for_each(|nic| line.nic(nic));
        for serial in &machine.serials {
            line.serial(serial.index, &serial.backing);
        }
        if let Some(pipe) = &machine.fast_pipe {
            line.fast_pipe(pipe);
        }
        // A fresh VM has no entropy of its own, and getrandom(2) waits for some.
        line.option("-object", "rng-builtin,id=rng0").option("-device", "virtio-rng-pci,rng=rng0");
        line.option("-fw_cfg", &format!("name=opt/containervm.vmx,file={}", path(&machine.file)));
        line.option("-qmp", &format!("unix:{QMP_SOCKET},server=on,wait=off"));
        Ok(Self { dir: facts.dir.clone(), arguments: line.0 })
    }
}

impl fmt::Display for QemuCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cd {} && {QEMU}", quote(&self.dir.display().to_string()))?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", quote(argument)))
    }
}

#[derive(Debug, Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.to_owned());
        self
    }

    fn option(&mut self, name: &str, value: &str) -> &mut Self {
        self.flag(name).flag(value)
    }

    fn accel(&mut self, accel: Accel) {
        match accel {
            Accel::Kvm => self.option("-accel", "kvm").option("-cpu", "host"),
            // The plainest model is the fastest to emulate; with RDRAND the kernel has entropy before any driver.
            Accel::Tcg => self.option("-accel", "tcg").option("-cpu", "qemu64,+rdrand"),
        };
    }

    fn boot(&mut self, machine: &Machine, facts: &Facts) -> Result<(), QemuError> {
        if machine.boot == Boot::Iso {
            return Ok(());
        }
        let kernel =
            facts.kernel.as_ref().ok_or_else(|| QemuError::NoKernel(machine.name.clone()))?;
        // These three are not option lists; commas mean themselves.
        self.option("-kernel", &kernel.kernel.display().to_string());
        self.option("-initrd", &kernel.initramfs.display().to_string());
        self.option("-append", &kernel.cmdline);
        Ok(())
    }

    fn storage(&mut self, machine: &Machine, facts: &Facts) -> Result<(), QemuError> {
        for controller in &machine.controllers {
            let model = match controller.model {
                ScsiModel::Pvscsi => "pvscsi",
                ScsiModel::LsiLogic => "lsi53c895a",
                ScsiModel::LsiSas => "mptsas1068",
            };
            self.option("-device", &format!("{model},id=scsi{}", controller.bus));
        }
        machine.disks.iter().for_each(|disk| self.disk(disk));
        for (order, cdrom) in machine.cdroms.iter().enumerate() {
            let image = match &cdrom.image {
                CdromImage::File(path) => path,
                CdromImage::Bootstrap => {
                    let missing = || QemuError::NoBootstrapIso(machine.file.display().to_string());
                    facts.bootstrap_iso.as_ref().ok_or_else(missing)?
                }
            };
            let id = format!("ide{}-{}", cdrom.bus, cdrom.unit);
            self.option(
                "-drive",
                &format!("if=none,id={id},media=cdrom,format=raw,readonly=on,file={}", path(image)),
            );
            let place = format!("bus=ide.{},unit={}", cdrom.bus, cdrom.unit);
            // A kernel given directly takes the first place in the boot order itself.
            let order = match machine.boot {
                Boot::Iso => format!(",bootindex={order}"),
                Boot::Direct => String::new(),
            };
            self.option("-device", &format!("ide-cd,drive={id},{place}{order}"));
        }
        Ok(())
    }

    fn disk(&mut self, disk: &Disk) {
        let format = match disk.format {
            DiskFormat::Raw => "raw",
            DiskFormat::Vmdk => "vmdk",
            DiskFormat::Qcow2 => "qcow2",
        };
        let (id, device) = match disk.place {
            DiskPlace::Scsi { bus, target } => {
                (format!("scsi{bus}-{target}"), format!("scsi-hd,bus=scsi{bus}.0,scsi-id={target}"))
            }
            DiskPlace::Ide { bus, unit } => {
                (format!("ide{bus}-{unit}"), format!("ide-hd,bus=ide.{bus},unit={unit}"))
            }
        };
        // Freed blocks become holes again, so a container's disk shrinks when it deletes files.
        let options =
            if disk.discards_changes { "snapshot=on" } else { "discard=unmap,detect-zeroes=unmap" };
        self.option(
            "-drive",
            &format!("if=none,id={id},format={format},{options},file={}", path(&disk.file)),
        );
        self.option("-device", &format!("{device},drive={id}"));
    }

    fn nic(&mut self, nic: &Nic) {
        let id = format!("ethernet{}", nic.index);
        let restrict = if nic.isolated { ",restrict=on" } else { "" };
        let forwards: String = nic.forwards.iter().map(|it| format!(",hostfwd={it}")).collect();
        self.option("-netdev", &format!("user,id={id}{restrict}{forwards}"));
        let model = match nic.model {
            NicModel::Vmxnet3 => "vmxnet3",
            NicModel::E1000 => "e1000",
            NicModel::E1000e => "e1000e",
        };
        let mac = nic.mac.as_ref().map(|mac| format!(",mac={mac}")).unwrap_or_default();
        // Without its boot ROM the firmware does not try the network.
        self.option("-device", &format!("{model},netdev={id}{mac},romfile="));
    }

    fn serial(&mut self, index: u32, backing: &SerialBacking) {
        let id = format!("serial{index}");
        self.option("-chardev", &chardev(&id, backing));
        let irq = if index == 0 { format!(",irq={SERIAL0_IRQ}") } else { String::new() };
        self.option("-device", &format!("isa-serial,index={index}{irq},chardev={id}"));
    }

    fn fast_pipe(&mut self, pipe: &FastPipe) {
        match pipe {
            FastPipe::Virtio(backing) => {
                // Each write is a packet here, and need not wait for the acknowledgement of the one before
                // (RFC 896). A 16550 writes byte by byte, where that wait makes one piece of many.
                let nodelay = match backing {
                    SerialBacking::Network { .. } => ",nodelay=on",
                    SerialBacking::File(_) | SerialBacking::Pipe { .. } => "",
                };
                self.option("-chardev", &format!("{}{nodelay}", chardev("pipe", backing)));
                self.option("-device", "virtio-serial-pci,id=ports,max_ports=2");
                let port = format!("virtserialport,bus=ports.0,nr=1,chardev=pipe,name={PORT_NAME}");
                self.option("-device", &port);
            }
            FastPipe::HostVsock { cid } => {
                self.option("-device", &format!("vhost-vsock-pci,guest-cid={cid}"));
            }
            FastPipe::UserVsock(socket) => {
                self.option("-chardev", &format!("socket,id=vsock,path={}", path(socket)));
                self.option("-device", "vhost-user-vsock-pci,chardev=vsock");
            }
        }
    }
}

fn chardev(id: &str, backing: &SerialBacking) -> String {
    let listens = |end_point: &EndPoint| match end_point {
        // Tried again each second until it is answered, also after the other side went away.
        EndPoint::Client => "server=off,reconnect=1",
        EndPoint::Server => "server=on,wait=off",
    };
    match backing {
        SerialBacking::Network { host, port, telnet, end_point } => {
            let telnet = if *telnet { ",telnet=on" } else { "" };
            let (host, listens) = (escape(host), listens(end_point));
            format!("socket,id={id},host={host},port={port},{listens}{telnet}")
        }
        SerialBacking::File(file) => format!("file,id={id},path={}", path(file)),
        SerialBacking::Pipe { path: socket, end_point } => {
            format!("socket,id={id},path={},{}", path(socket), listens(end_point))
        }
    }
}

fn path(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// A value inside a list of options, where a comma ends it and two stand for one (QEMU's `QemuOpts` syntax).
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// A word for a POSIX shell.
fn quote(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+./:,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::{TYPICAL, machine};

    fn facts(dir: &Path) -> Facts {
        Facts {
            dir: dir.into(),
            accel: Accel::Tcg,
            bootstrap_iso: Some("/iso/b,1.iso".into()),
            kernel: None,
        }
    }

    #[test]
    fn a_typical_machine_becomes_exactly_this_line() {
        let (dir, machine) = machine(TYPICAL);
        let command = QemuCommand::new(&machine.unwrap(), &facts(dir.path())).unwrap();
        let dir = dir.path().display();
        let expected = [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-name",
            "guest=web,, front",
            "-machine",
            "pc",
            "-accel",
            "tcg",
            "-cpu",
            "qemu64,+rdrand",
            "-m",
            "2048M",
            "-smp",
            "2",
            "-rtc",
            "base=utc",
            "-uuid",
            "564d1234-5678-9abc-def0-123456789abc",
            "-device",
            "pvscsi,id=scsi0",
            "-drive",
            &format!(
                "if=none,id=scsi0-0,format=raw,discard=unmap,detect-zeroes=unmap,file={dir}/disk.img"
            ),
            "-device",
            "scsi-hd,bus=scsi0.0,scsi-id=0,drive=scsi0-0",
            "-drive",
            "if=none,id=ide0-0,media=cdrom,format=raw,readonly=on,file=/iso/b,,1.iso",
            "-device",
            "ide-cd,drive=ide0-0,bus=ide.0,unit=0,bootindex=0",
            "-netdev",
            "user,id=ethernet0",
            "-device",
            "vmxnet3,netdev=ethernet0,mac=00:50:56:aa:bb:cc,romfile=",
            "-chardev",
            "socket,id=serial0,host=127.0.0.1,port=2377,server=off,reconnect=1",
            "-device",
            "isa-serial,index=0,irq=5,chardev=serial0",
            "-chardev",
            &format!("file,id=serial1,path={dir}/console.log"),
            "-device",
            "isa-serial,index=1,chardev=serial1",
            "-object",
            "rng-builtin,id=rng0",
            "-device",
            "virtio-rng-pci,rng=rng0",
            "-fw_cfg",
            &format!("name=opt/containervm.vmx,file={dir}/web.vmx"),
            "-qmp",
            "unix:qmp.sock,server=on,wait=off",
        ];
        assert_eq!(command.arguments, expected);
    }

    #[test]
    fn uefi_direct_boot_and_kvm_add_their_own() {
        let text = TYPICAL.replace("\"bios\"", "\"efi\"") + "containervm.boot = \"direct\"\n";
        let (dir, machine) = machine(&text);
        let machine = machine.unwrap();
        let mut facts = Facts { accel: Accel::Kvm, ..facts(dir.path()) };
        let error = QemuCommand::new(&machine, &facts).unwrap_err();
        assert_eq!(error, QemuError::NoKernel("web, front".into()));
        facts.kernel = Some(Kernel {
            kernel: "/k,1".into(),
            initramfs: "/i".into(),
            cmdline: "console=ttyS1,115200 quiet".into(),
        });
        let line = QemuCommand::new(&machine, &facts).unwrap().to_string();
        for part in [
            " -accel kvm -cpu host ",
            " -drive if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd ",
            " -drive if=pflash,unit=1,format=raw,file=efivars.fd ",
            " -kernel /k,1 -initrd /i -append 'console=ttyS1,115200 quiet' ",
            " ide-cd,drive=ide0-0,bus=ide.0,unit=0 ",
        ] {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
        let needed: Vec<_> = needs(&machine).iter().map(|need| need.package).collect();
        assert_eq!(needed, ["qemu-system-x86", "ovmf"]);
    }

    #[test]
    fn other_backings_and_controllers_have_their_counterparts() {
        let text = TYPICAL
            .replace("\"pvscsi\"", "\"lsilogic\"")
            .replace("disk.img", "disk.vmdk")
            .replace("\"nat\"", "\"hostonly\"\ncontainervm.ethernet0.forward = \"tcp::8080-:80 udp:[::1]:5-10.0.2.15:6\"")
            .replace("tcp://127.0.0.1:2377", "telnet://[::1]:23")
            .replace("\"client\"", "\"server\"")
            .replace("serial1.fileType = \"file\"", "serial1.fileType = \"pipe\"")
            + "scsi0:0.mode = \"independent-nonpersistent\"\n";
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("disk.vmdk"), b"").unwrap();
        std::fs::write(dir.path().join("web.vmx"), text).unwrap();
        let (machine, _) = Machine::load(&dir.path().join("web.vmx")).unwrap();
        let line = QemuCommand::new(&machine, &facts(dir.path())).unwrap().to_string();
        for part in [
            " lsi53c895a,id=scsi0 ",
            ",format=vmdk,snapshot=on,file=",
            "user,id=ethernet0,restrict=on,hostfwd=tcp::8080-:80,hostfwd=udp:[::1]:5-10.0.2.15:6",
            " socket,id=serial0,host=::1,port=23,server=on,wait=off,telnet=on ",
            "console.log,server=off,reconnect=1 ",
        ] {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
    }

    #[test]
    fn a_fast_pipe_is_a_device_beside_serial0() {
        let line = |lines: &str| {
            let (dir, machine) = machine(&format!("{TYPICAL}{lines}"));
            QemuCommand::new(&machine.unwrap(), &facts(dir.path())).unwrap().to_string()
        };
        let check = |lines: &str, parts: &[&str]| {
            let line = line(lines);
            assert!(line.contains(" isa-serial,index=0,irq=5,chardev=serial0 "), "{line}");
            parts.iter().for_each(|part| assert!(line.contains(part), "{part:?} not in {line}"));
        };
        check(
            "containervm.pipe = \"virtio\"\n",
            &[
                " -machine pc ",
                " -chardev socket,id=pipe,host=127.0.0.1,port=2377,server=off,reconnect=1,nodelay=on ",
                " virtserialport,bus=ports.0,nr=1,chardev=pipe,name=org.containervm.serial0 ",
            ],
        );
        check(
            "containervm.pipe = \"vsock\"\ncontainervm.vsock.socket = \"/v,1\"\n",
            &[
                " -machine pc,memory-backend=memory ",
                " memory-backend-memfd,id=memory,size=2048M,share=on ",
                " socket,id=vsock,path=/v,,1 ",
                " vhost-user-vsock-pci,chardev=vsock ",
            ],
        );
        check(
            "containervm.pipe = \"vsock\"\ncontainervm.vsock.cid = \"9\"\n",
            &[" vhost-vsock-pci,guest-cid=9 "],
        );
    }

    #[test]
    fn a_missing_iso_says_how_to_get_one() {
        let (dir, machine) = machine(TYPICAL);
        let facts = Facts { bootstrap_iso: None, ..facts(dir.path()) };
        let text = QemuCommand::new(&machine.unwrap(), &facts).unwrap_err().to_string();
        assert!(text.contains("cargo bootstrap-iso"), "{text}");
    }

    #[test]
    fn a_shell_splits_the_shown_line_into_the_same_words() {
        let words = ["plain", "two words", "it's", "", "$HOME", "a,b=c"];
        let line: Vec<_> = words.iter().map(|word| quote(word)).collect();
        let script = format!("printf '%s\\n' {}", line.join(" "));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), words.join("\n") + "\n");
    }
}
