//! `containervm start`: a VM from a VMX file, waited for in the background.

use super::interrupt::{Interrupted, Interrupts};
use super::{Surroundings, tell, until_off};
use crate::api::request::Register;
use crate::attach::{Attach, End, Session};
use crate::cli::exit_code;
use crate::cli::serialmux::{ended, registration};
use crate::launch::{self, Background};
use crate::terminal::DetachKeys;
use anyhow::Context;
use clap::Args;
use containervm::accel::Accel;
use containervm::kernel::Kernel;
use containervm::machine::{Boot, EndPoint, Machine, SerialBacking};
use containervm::qemu::{self, Facts, QemuCommand};
use containervm::store::{State, StoreError, Vm};
use containervm::supervise;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Start a containerVM that a VMX file describes, or that has ended.
///
/// A VMX file such as those of vSphere is understood: memsize, numvcpus, firmware, scsi, ide,
/// ethernet and serial devices, guestinfo keys; the rest is passed over. Its serial0 should lead to
/// serialmux: serial0.fileName = "tcp://127.0.0.1:2377".
#[derive(Debug, Args)]
pub(super) struct Start {
    /// A VMX file, or the name or id of a containerVM
    vmx: PathBuf,
    /// Stay with it: stream its output, and exit with its status
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input on (with --attach)
    #[arg(short, long, requires = "attach")]
    interactive: bool,
    #[command(flatten)]
    how: How,
}

/// What `run` and `start` have in common.
#[derive(Debug, Args)]
pub(super) struct How {
    /// The ISO to boot [default: this checkout's, or the installed one]
    #[arg(long, env = "CONTAINERVM_ISO", value_name = "FILE")]
    pub(super) iso: Option<PathBuf>,
    /// Show the QEMU command line instead of starting anything
    #[arg(long)]
    pub(super) print_qemu: bool,
    /// Keys that detach: single characters or ctrl-x, separated by commas
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    pub(super) detach_keys: DetachKeys,
    /// Pass signals on to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(super) sig_proxy: bool,
    /// It has been ended for this
    #[arg(skip)]
    pub(super) restarts: bool,
}

/// How to stay with a VM.
pub(super) struct Stay {
    pub(super) interactive: bool,
}

impl Start {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let surroundings = Surroundings::here()?;
        let vm = if self.vmx.is_file() {
            adopt(&surroundings, &self.vmx)?
        } else if let Some(name) = self.vmx.to_str().filter(|name| !name.contains('/')) {
            surroundings.store.find(name).with_context(|| format!("no file {name} either"))?
        } else {
            anyhow::bail!("no such VMX file: {}", self.vmx.display());
        };
        let stay = self.attach.then_some(Stay { interactive: self.interactive });
        start(&surroundings, &vm, &self.how, stay, Interrupts::default()).await
    }
}

fn adopt(surroundings: &Surroundings, file: &Path) -> anyhow::Result<Vm> {
    let registration = registration(file)?;
    Ok(surroundings.store.adopt(file, Some(&registration.id), &registration.name)?)
}

/// Everything between a VM's files and its end. The interrupts are those from before it was here.
pub(super) async fn start(
    surroundings: &Surroundings,
    vm: &Vm,
    how: &How,
    stay: Option<Stay>,
    mut interrupts: Interrupts,
) -> anyhow::Result<ExitCode> {
    let registration = Register { restarts: how.restarts, ..registration(&vm.vmx())? };
    let id = registration.id.clone();
    let (here, this, iso) = (surroundings.clone(), vm.clone(), how.iso.clone());
    let opened = async {
        if !how.print_qemu {
            until_off(surroundings, vm).await?;
            // The daemon would take what is to come for another run, and the end of this one for one of before.
            if surroundings.store.state(vm)? == State::Running {
                return Err(StoreError::Running(vm.record.name.clone()).into());
            }
        }
        // In a thread of its own, as it may take its time and is not to keep an interrupt from its effect.
        let prepared = tokio::task::spawn_blocking(move || prepare(&here, &this, iso)).await??;
        let session = match how.print_qemu {
            true => None,
            false => open(surroundings, registration, &prepared.machine, how, stay).await?,
        };
        anyhow::Ok((prepared, session))
    };
    let opened = tokio::select! {
        opened = opened => opened,
        number = interrupts.next() => Err(Interrupted(number).into()),
    };
    let (prepared, session) = opened?;
    // The last moment in which one is not the process's: the session has heard this one, too, and is dropped.
    if let Some(number) = interrupts.pending() {
        anyhow::bail!(Interrupted(number));
    }
    if how.print_qemu {
        println!("{}", prepared.command);
        return Ok(ExitCode::SUCCESS);
    }
    let supervisor = supervised(vm, &prepared.iso)?;
    let Some(session) = session else {
        println!("{id}");
        return Ok(ExitCode::SUCCESS);
    };
    let end = tokio::select! {
        end = session.run() => end?,
        number = interrupts.next(), if !how.sig_proxy => return Ok(exit_code(128 + number)),
    };
    match end {
        End::Detached => Ok(ExitCode::SUCCESS),
        End::Exit(exit) => {
            // The VM is gone, and with --rm its disk, when the supervisor has ended.
            supervisor.join()?;
            Ok(ended("containervm", &exit))
        }
    }
}

// Has a daemon know it, and its process have the signals if somebody stays.
async fn open(
    surroundings: &Surroundings,
    registration: Register,
    machine: &Machine,
    how: &How,
    stay: Option<Stay>,
) -> anyhow::Result<Option<Session>> {
    let listen = launch::daemon(&surroundings.place, &mut tell).await?;
    if let Some(address) = other_address(machine, &listen) {
        tell(&format!("its serial0 leads to {address}, and serialmux listens on {listen}"));
    }
    let client = surroundings.client();
    let container = registration.id.clone();
    client.register(registration).await?;
    let Some(Stay { interactive: stdin }) = stay else { return Ok(None) };
    let (detach_keys, sig_proxy) = (how.detach_keys.clone(), how.sig_proxy);
    let attach = Attach { container, stdin, detach_keys, sig_proxy, boots: true };
    Ok(Some(Session::open(&client, attach).await?))
}

/// Where the VM calls, if that is another port than the daemon's. Something may well lead on from there.
fn other_address(machine: &Machine, listen: &str) -> Option<String> {
    let serial = machine.serials.iter().find(|serial| serial.index == 0)?;
    let SerialBacking::Network { host, port, end_point: EndPoint::Client, .. } = &serial.backing
    else {
        return None;
    };
    let listens: SocketAddr = listen.parse().ok()?;
    (listens.port() != *port).then(|| format!("{host}:{port}"))
}

struct Prepared {
    machine: Machine,
    command: QemuCommand,
    /// The installation's ISO, found or built.
    iso: PathBuf,
}

fn prepare(surroundings: &Surroundings, vm: &Vm, iso: Option<PathBuf>) -> anyhow::Result<Prepared> {
    let Surroundings { home, .. } = surroundings;
    let (machine, _) = Machine::load(&vm.vmx())?;
    debian::ensure(&qemu::needs(&machine), &mut tell)?;
    qemu::check_host(&machine)?;
    check_disks(surroundings, vm, &machine)?;
    let iso = std::path::absolute(crate::iso::find(iso)?)?;
    let kernel = Kernel::of_iso(machine.iso(Some(&iso)).unwrap_or(&iso), home)?;
    let accel = Accel::decide(&kernel, home, &mut tell)?;
    let kernel = (machine.boot == Boot::Direct).then_some(kernel);
    let facts = Facts { dir: vm.dir.clone(), accel, bootstrap_iso: Some(iso.clone()), kernel };
    let command = QemuCommand::new(&machine, &facts)?;
    Ok(Prepared { machine, command, iso })
}

// QEMU would say so, too, but not who has it.
fn check_disks(surroundings: &Surroundings, vm: &Vm, machine: &Machine) -> anyhow::Result<()> {
    let Surroundings { store, .. } = surroundings;
    // A VM that runs has its own disks; that it runs is told elsewhere.
    if store.state(vm)? == State::Running {
        return Ok(());
    }
    for disk in machine.disks.iter().filter(|disk| !disk.discards_changes) {
        if !containervm::disk::is_in_use(&disk.file)? {
            continue;
        }
        let file = disk.file.display().to_string();
        let has_it = |it: &Vm| std::fs::read_to_string(it.vmx()).is_ok_and(|s| s.contains(&file));
        let runs = |it: &Vm| store.state(it).is_ok_and(|state| state == State::Running);
        let others = store.list()?.into_iter().filter(|it| has_it(it) && runs(it));
        let others: Vec<String> = others.map(|it| it.record.name).collect();
        let whom = if others.is_empty() { "another VM".to_owned() } else { others.join(", ") };
        anyhow::bail!("the disk {file} is in use by {whom}; stop that first");
    }
    Ok(())
}

// The ISO is handed on, so that it is looked for, and brought up to date, only once.
fn supervised(vm: &Vm, iso: &Path) -> anyhow::Result<Background> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let mut args: Vec<OsString> =
        vec!["supervise".into(), vm.record.id.clone().into(), "--iso".into(), iso.into()];
    if let Some(vmx) = &vm.record.vmx {
        args.extend(["--vmx".into(), vmx.clone().into()]);
    }
    Background::start(&program, &args, &vm.dir.join("supervise.log"))
}

/// Wait for a VM's end.
#[derive(Debug, Args)]
pub(super) struct Supervise {
    id: String,
    #[arg(long)]
    vmx: Option<PathBuf>,
    #[arg(long)]
    iso: Option<PathBuf>,
}

impl Supervise {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let surroundings = Surroundings::here()?;
        let Surroundings { store, .. } = &surroundings;
        let mut vm = store.find(&self.id)?;
        vm.record.vmx = self.vmx.or(vm.record.vmx);
        let prepared = prepare(&surroundings, &vm, self.iso)?;
        let since_us = crate::clock::wall_us();
        let running = supervise::launch(store, &vm, &prepared.machine, &prepared.command)?;
        launch::ready("started");
        let exit = tokio::task::spawn_blocking(move || running.wait()).await??;
        // The daemon knows the process's exit from the guest, unless the VM failed before that.
        let client = surroundings.client();
        client.gone_at_last(self.id.clone(), last_words(&vm, &exit.how), since_us).await?;
        let ended = client.wait(self.id.clone()).await?;
        store.record_code(&vm, ended.code)?;
        if vm.record.remove {
            store.remove(&vm, false)?;
            client.remove(self.id).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

// How QEMU ended, with the console's last line: what the guest itself said of a failure.
fn last_words(vm: &Vm, how: &str) -> String {
    let console = std::fs::read(vm.console()).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    // The kernel's own farewell says nothing about why.
    let mut lines = console.lines().rev().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !line.contains("] reboot: "));
    match line {
        Some(line) => format!("{how}; the console's last line: {line}"),
        None => format!("{how}; nothing on its console"),
    }
}
