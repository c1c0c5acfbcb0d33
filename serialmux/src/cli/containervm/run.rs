//! `containervm run`: an image made into a VM, which is then started.

use super::confinement::Confinement;
use super::interrupt::{Interrupted, Interrupts};
use super::start::{How, Stay, start};
use super::{Surroundings, remove, tell};
use crate::cli::exit_code;
use crate::cli::serialmux::DEFAULT_LISTEN;
use crate::launch;
use clap::{Args, ValueEnum};
use containervm::image;
use containervm::machine::{Boot, DEFAULT_MEMORY, Firmware, PipeKind};
use containervm::run::{
    Hardware, LogOpt, Memory, NetworkMode, NetworkOptions, Publish, RunOptions, SpoolDisk, cpus,
    disk, memory, vmx,
};
use containervm::store::{Starting, Vm};
use containervm::volume::{VolumeOption, Volumes};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

/// Run a command in a new containerVM.
///
/// IMAGE is one of: busybox (made from Debian's package), a directory, a tar file of `docker
/// export` or `docker save`, an OCI layout directory or tar file.
///
/// Exits with the command's status; 125 if containervm itself failed, 126 if the command cannot be
/// run, 127 if it is not there, 128 + n if signal n ended it.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Run {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave it in the background and print its id
    #[arg(short, long)]
    detach: bool,
    /// Remove the VM and its disk when it has ended
    #[arg(long)]
    rm: bool,
    /// Its name, instead of a made-up one
    #[arg(long)]
    name: Option<String>,
    /// Set a variable (NAME=VALUE), or pass one on (NAME)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the variables in a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Its host name, instead of its short id
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Instead of the image's entry point
    #[arg(long)]
    entrypoint: Option<String>,
    /// Run it again when it ends: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: String,
    /// Start it only when somebody attaches
    #[arg(long)]
    wait_for_attach: bool,
    /// The signal that asks it to end, instead of the image's
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// What becomes of output that nobody takes: mode=blocking or mode=non-blocking, max-buffer-size=4m, spool=64m
    /// for a disk of its own that takes more
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<LogOpt>,
    /// The memory it may use (256m, 1g); its VM gets more, for its kernel [default: what a VM of 512m has left]
    #[arg(short, long)]
    memory: Option<String>,
    /// The VM's processors
    #[arg(long, default_value = "1")]
    cpus: String,
    /// Let memory and processors be added while it runs, which takes some memory from the start
    #[arg(long)]
    hot_add: bool,
    #[command(flatten)]
    confinement: Confinement,
    /// Mount a volume (NAME:/path[:ro|nocopy]), made if it is missing; without a name, one for this container alone
    #[arg(short = 'v', long = "volume", value_name = "[NAME:]PATH[:OPTIONS]")]
    volumes: Vec<VolumeOption>,
    /// What its network card leads to: nat, isolated (nothing beyond the VM), or none
    #[arg(long, value_name = "NETWORK", default_value = "nat")]
    network: NetworkMode,
    /// A name server, instead of the host's
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Lead a port of the host to one of the container
    #[arg(short, long, value_name = "[IP:]HOST_PORT:PORT[/udp]")]
    publish: Vec<Publish>,
    /// Size of its disk, of which only what is written takes space
    #[arg(long, default_value = "10g", value_name = "SIZE")]
    disk_size: String,
    /// How the VM boots
    #[arg(long, value_enum, default_value_t = BootBy::Bios)]
    boot: BootBy,
    /// The VM's fastest pipe to serialmux; it has a serial port in any case, and falls back to that
    #[arg(long, env = "CONTAINERVM_PIPE", value_enum, default_value_t = PipeBy::Auto)]
    pipe: PipeBy,
    /// With --pipe vsock: the socket of the VM's own vhost-device-vsock, instead of the host's vsock
    #[arg(long, value_name = "PATH")]
    vsock_socket: Option<PathBuf>,
    /// Prepare the disk and show the VMX file, ready to be edited and started, instead of starting it
    #[arg(long)]
    print_vmx: bool,
    #[command(flatten)]
    how: How,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image
    image: String,
    /// The command, instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Where the next daemon will listen, as far as that can be told.
fn unborn() -> String {
    let told = std::env::var("SERIALMUX_LISTEN").unwrap_or_default();
    let told = told.parse::<SocketAddr>().unwrap_or(DEFAULT_LISTEN);
    if told.port() != 0 {
        return told.to_string();
    }
    tell(&format!(
        "no serialmux runs, and SERIALMUX_LISTEN leaves its port open; the file names {DEFAULT_LISTEN}: \
         start serialmux first to have its own, or change serial0.fileName"
    ));
    DEFAULT_LISTEN.to_string()
}

/// How a VM boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BootBy {
    /// From the ISO, by the BIOS
    Bios,
    /// From the ISO, by UEFI
    Efi,
    /// The ISO's kernel, loaded by QEMU: fastest
    Direct,
}

/// What a VM has beside its serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PipeBy {
    /// Nothing
    Uart,
    /// A virtio-serial port
    Virtio,
    /// A vsock device; serialmux must listen there (serve --listen-vsock, or --listen-unix)
    Vsock,
    /// What is fastest without further ado: a virtio-serial port
    Auto,
}

impl Run {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let surroundings = Surroundings::here()?;
        // The last one is held until the VM runs.
        let (vm, interrupts, _starting) = self.make(&surroundings).await?;
        if self.print_vmx {
            print!("{}", std::fs::read_to_string(vm.vmx())?);
            return Ok(ExitCode::SUCCESS);
        }
        let stay = (!self.detach).then_some(Stay { interactive: self.interactive });
        let started = start(&surroundings, &vm, &self.how, stay, interrupts).await;
        if (started.is_err() || self.how.print_qemu) && self.rm {
            // What made it fail is what the user should see; a leftover is for `gc`.
            drop(remove(&surroundings, &vm.record.id, true).await);
        }
        started.or_else(|error| match error.downcast_ref() {
            Some(Interrupted(number)) => {
                tell(&error.to_string());
                Ok(exit_code(128 + number))
            }
            None => Err(error),
        })
    }

    async fn make(
        &self,
        surroundings: &Surroundings,
    ) -> anyhow::Result<(Vm, Interrupts, Option<Starting>)> {
        let Surroundings { home, store, place } = surroundings;
        let hardware = self.hardware()?;
        let mut options = self.options()?;
        // The name first: it is the cheapest thing that can be wrong.
        let mut draft = store.draft(self.name.as_deref(), &self.image, self.rm)?;
        let disk_size = u64::from(disk(&self.disk_size)?) * 1024 * 1024;
        let image = image::resolve(&self.image, disk_size, home, &mut tell)?;
        draft.copy_disk(&image)?;
        if !self.volumes.is_empty() {
            let volumes = Volumes::open(home)?;
            options.volumes = volumes.attach(&self.volumes, draft.dir(), draft.target())?;
        }
        options.spool = SpoolDisk::make(&self.log_opt, self.volumes.len(), &draft)?;
        let dry = self.print_vmx || self.how.print_qemu;
        let listen = match dry {
            true => surroundings.client().hello().await.map(|hello| hello.listen).ok(),
            false => Some(launch::daemon(place, &mut tell).await?),
        };
        let pipe = listen.unwrap_or_else(unborn);
        let hardware = Hardware { pipe: format!("tcp://{pipe}"), ..hardware };
        let vmx = vmx(&draft, &options, &image.config, &hardware)?;
        // From here on it is there for others, too.
        if self.print_vmx {
            return Ok((draft.finish(&vmx)?, Interrupts::default(), None));
        }
        let interrupts = Interrupts::catch()?;
        let (vm, starting) = draft.finish_to_start(&vmx)?;
        Ok((vm, interrupts, Some(starting)))
    }

    fn hardware(&self) -> anyhow::Result<Hardware> {
        let memory = self.memory()?.map_or(DEFAULT_MEMORY, |memory| memory.vm);
        let (firmware, boot) = match self.boot {
            BootBy::Bios => (Firmware::Bios, Boot::Iso),
            BootBy::Efi => (Firmware::Efi, Boot::Iso),
            BootBy::Direct => (Firmware::Bios, Boot::Direct),
        };
        let fast_pipe = match self.pipe {
            PipeBy::Uart => PipeKind::Uart,
            PipeBy::Virtio | PipeBy::Auto => PipeKind::Virtio,
            PipeBy::Vsock => PipeKind::Vsock,
        };
        let vsock_socket = self.vsock_socket.as_ref().map(std::path::absolute).transpose()?;
        let cpus = cpus(&self.cpus)?;
        let hot_add = self.hot_add;
        let hardware = Hardware { memory, cpus, firmware, boot, fast_pipe, ..Hardware::default() };
        Ok(Hardware { hot_add, vsock_socket, ..hardware })
    }

    fn memory(&self) -> anyhow::Result<Option<Memory>> {
        Ok(self.memory.as_deref().map(memory).transpose()?)
    }

    fn options(&self) -> anyhow::Result<RunOptions> {
        let memory = self.memory()?.map_or(0, |memory| memory.container);
        Ok(RunOptions {
            image: self.image.clone(),
            tty: self.tty,
            interactive: self.interactive,
            env: self.env.clone(),
            env_files: self.env_file.clone(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            entrypoint: self.entrypoint.clone(),
            command: self.command.clone(),
            process: self.confinement.process()?,
            container: self.confinement.container(memory, &self.cpus)?,
            waits_for_attach: self.wait_for_attach,
            restart: if self.restart == "no" { String::new() } else { self.restart.clone() },
            stop_signal: self.stop_signal.clone(),
            log_opts: self.log_opt.clone(),
            volumes: Vec::new(),
            spool: None,
            network: NetworkOptions {
                mode: self.network,
                dns: self.dns.clone(),
                publish: self.publish.clone(),
            },
        })
    }
}
