//! The VMX file of a containerVM made by `run`: hardware such as VIC gives its VMs, and the session in guestinfo.

use std::path::{Path, PathBuf};

use guestinfo::{Blob, CopyMode, MountSpec, Spec, Url, Vmx};

use super::{RunError, RunOptions, process};
use crate::{
    identity,
    image::ImageConfig,
    machine::{BOOTSTRAP_ISO, Boot, DEFAULT_MEMORY, Firmware, PipeKind},
    store::{CONSOLE, DISK, Draft},
    volume::{Attached, Place},
};

/// The VM's hardware, as far as `run` lets one choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// Whether memory and processors can be added while it runs.
    pub hot_add: bool,
    /// BIOS or UEFI.
    pub firmware: Firmware,
    /// From the ISO, or the kernel directly.
    pub boot: Boot,
    /// Where serial0 leads: `tcp://HOST:PORT` of the multiplexer.
    pub pipe: String,
    /// What is beside serial0.
    pub fast_pipe: PipeKind,
    /// For vsock, the socket of a vhost-user program; without one, the host's kernel serves it.
    pub vsock_socket: Option<PathBuf>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            memory: DEFAULT_MEMORY,
            cpus: 1,
            hot_add: false,
            firmware: Firmware::Bios,
            boot: Boot::Iso,
            pipe: "tcp://127.0.0.1:2377".to_owned(),
            fast_pipe: PipeKind::Virtio,
            vsock_socket: None,
        }
    }
}

/// Writes the VMX of a drafted VM. Paths in it are absolute, so it can be moved, edited and started elsewhere.
///
/// # Errors
/// When the options make no sense together with the image.
pub fn vmx(
    draft: &Draft,
    options: &RunOptions,
    config: &ImageConfig,
    hardware: &Hardware,
) -> Result<Vmx, RunError> {
    let host =
        |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let spec = spec(draft, options, config, &host)?;
    let mut vmx = Vmx::new();
    for (key, value) in lines(draft, options, hardware)? {
        vmx.set(key, value)?;
    }
    let spool = options.spool.as_ref().map(|spool| spool.image.as_path());
    for (key, value) in disk_lines(&options.volumes, spool) {
        vmx.set(&key, value)?;
    }
    for (key, value) in spec.to_vmx_pairs()? {
        vmx.set(key, value)?;
    }
    Ok(vmx)
}

fn spec(
    draft: &Draft,
    options: &RunOptions,
    config: &ImageConfig,
    host: &dyn Fn(&str) -> Option<String>,
) -> Result<Spec, RunError> {
    let id = draft.id();
    let hostname = process::hostname(id, options)?;
    let session = process::session(id, &hostname, options, config, host)?;
    let mut spec = Spec {
        id: id.to_owned(),
        name: draft.name().to_owned(),
        hostname,
        repo: options.image.clone(),
        key: Blob(identity::key()?.to_vec()),
        container: options.container.clone(),
        ..Spec::default()
    };
    options.log_opts.iter().for_each(|option| option.apply(&mut spec.link));
    spec.sessions.insert(id.to_owned(), session);
    spec.networks.extend(options.network.spec());
    for volume in &options.volumes {
        let label = match &volume.place {
            Place::Image { label, .. } => label,
            Place::Export(export) => &export.path,
        };
        let name = volume.option.name.as_deref().unwrap_or(label);
        // A volume may have several places; a key has one.
        let key = match spec.mounts.contains_key(name) {
            true => format!("{name}.{}", spec.mounts.len()),
            false => name.to_owned(),
        };
        spec.mounts.insert(key, mount(volume));
    }
    Ok(spec)
}

fn mount(volume: &Attached) -> MountSpec {
    let option = &volume.option;
    let (source, mode) = match &volume.place {
        Place::Image { label, .. } => {
            let (scheme, path) = ("label".to_owned(), label.clone());
            let mode = if option.read_only { "ro" } else { "rw" };
            (Url { scheme, path, ..Url::default() }, mode.to_owned())
        }
        Place::Export(export) => (export.source(), export.mode(option.read_only)),
    };
    let copy_mode = if option.copy { CopyMode::New } else { CopyMode::Never };
    MountSpec { source, dest: option.dest.clone(), mode, copy_mode }
}

/// The disks of volumes, each image once, and that of the spool, at the addresses after the root's.
fn disk_lines(volumes: &[Attached], spool: Option<&Path>) -> Vec<(String, String)> {
    let mut images: Vec<&Path> = Vec::new();
    for volume in volumes {
        if let Place::Image { image, .. } = &volume.place
            && !images.contains(&image.as_path())
        {
            images.push(image);
        }
    }
    images.extend(spool);
    // 7 is the controller's own.
    let targets = (1..16).filter(|target| *target != 7);
    let lines = images.into_iter().zip(targets).flat_map(|(image, target)| {
        let line = |key: &str, value: String| (format!("scsi0:{target}.{key}"), value);
        [
            line("present", "TRUE".to_owned()),
            line("deviceType", "scsi-hardDisk".to_owned()),
            line("fileName", image.display().to_string()),
        ]
    });
    lines.collect()
}

fn lines(
    draft: &Draft,
    options: &RunOptions,
    hardware: &Hardware,
) -> Result<Vec<(&'static str, String)>, RunError> {
    let file = |name: &str| draft.target().join(name).display().to_string();
    let mut lines = vec![
        (".encoding", "UTF-8".to_owned()),
        ("config.version", "8".to_owned()),
        ("virtualHW.version", "14".to_owned()),
        ("displayName", draft.name().to_owned()),
        ("uuid.bios", identity::uuid_bios()?),
        ("memsize", hardware.memory.to_string()),
        ("numvcpus", hardware.cpus.to_string()),
        ("firmware", if hardware.firmware == Firmware::Efi { "efi" } else { "bios" }.to_owned()),
        ("scsi0:0.fileName", file(DISK)),
        ("ide0:0.fileName", BOOTSTRAP_ISO.to_owned()),
        ("serial0.fileName", hardware.pipe.clone()),
        ("serial1.fileName", file(CONSOLE)),
    ];
    lines.push(("containervm.pipe", hardware.fast_pipe.word().to_owned()));
    if let Some(socket) = &hardware.vsock_socket {
        lines.push(("containervm.vsock.socket", socket.display().to_string()));
    }
    if hardware.hot_add {
        lines.extend([("mem.hotadd", "TRUE".to_owned()), ("vcpu.hotadd", "TRUE".to_owned())]);
    }
    if hardware.boot == Boot::Direct {
        lines.push(("containervm.boot", "direct".to_owned()));
    }
    let fixed = [
        ("guestOS", "other5xlinux-64"),
        ("scsi0.present", "TRUE"),
        ("scsi0.virtualDev", "pvscsi"),
        ("scsi0:0.present", "TRUE"),
        ("scsi0:0.deviceType", "scsi-hardDisk"),
        ("ide0:0.present", "TRUE"),
        ("ide0:0.deviceType", "cdrom-image"),
        ("serial0.present", "TRUE"),
        ("serial0.fileType", "network"),
        ("serial0.network.endPoint", "client"),
        ("serial1.present", "TRUE"),
        ("serial1.fileType", "file"),
    ];
    lines.extend(fixed.map(|(key, value)| (key, value.to_owned())));
    lines.extend(options.network.lines());
    // Devices together, as people read them; what has no dot describes the whole VM and comes first.
    lines.sort_by_key(|(key, _)| {
        (key.contains('.') && !key.starts_with(['.', 'c', 'v', 'u']), group(key))
    });
    Ok(lines)
}

/// What a key belongs to: the part before its first dot or colon.
fn group(key: &str) -> &str {
    key.split(['.', ':']).next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        home::Home,
        machine::{FastPipe, Machine, SerialBacking},
        run::SpoolDisk,
        store::Store,
    };

    #[test]
    fn what_run_writes_describes_a_machine_and_a_session() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Home::at(dir.path())).unwrap();
        let draft = store.draft(Some("web"), "busybox", true).unwrap();
        let options = RunOptions {
            image: "busybox".into(),
            tty: true,
            interactive: true,
            env: vec!["ODD=a \"b\" | #c".into()],
            command: vec!["echo".into(), "a|b".into(), String::new(), "ä\n".into()],
            log_opts: vec!["spool=2m".parse().unwrap()],
            spool: Some(SpoolDisk { image: draft.target().join("spool.img") }),
            ..RunOptions::default()
        };
        let config = ImageConfig {
            user: "nobody".into(),
            stop_signal: "SIGINT".into(),
            ..ImageConfig::default()
        };
        let hardware = Hardware { memory: 256, cpus: 2, boot: Boot::Direct, ..Hardware::default() };
        let vmx = vmx(&draft, &options, &config, &hardware).unwrap();
        std::fs::create_dir_all(draft.target()).unwrap();
        std::fs::write(draft.target().join(DISK), b"").unwrap();
        std::fs::write(draft.target().join("spool.img"), b"").unwrap();

        let read = Vmx::parse(vmx.to_string()).unwrap();
        let machine = Machine::from_vmx(&read, &dir.path().join("elsewhere.vmx")).unwrap();
        assert_eq!((machine.name.as_str(), machine.memory, machine.cpus), ("web", 256, 2));
        assert_eq!(machine.boot, Boot::Direct);
        assert!(matches!(machine.fast_pipe, Some(FastPipe::Virtio(_))), "{:?}", machine.fast_pipe);
        assert_eq!(machine.disks[0].file, draft.target().join(DISK));
        assert_eq!(machine.disks[1].file, draft.target().join("spool.img"));
        assert_eq!(machine.serials[1].backing, SerialBacking::File(draft.target().join(CONSOLE)));

        let spec = Spec::from_vmx(&read).unwrap();
        assert_eq!((spec.id.as_str(), spec.key.0.len()), (draft.id(), 32));
        assert!(spec.link.spool);
        let session = spec.primary().unwrap();
        assert_eq!(session.cmd.args, options.command);
        assert!(session.cmd.env.contains(&options.env[0]), "{:?}", session.cmd.env);
        assert!(session.tty && session.open_stdin && session.attach && !session.run_block);
        assert_eq!((session.user.as_str(), session.stop_signal.as_str()), ("nobody", "SIGINT"));
    }
}
