//! The `containervm` command: `docker run` with a VM around each container.

mod confinement;
mod interrupt;
mod restart;
mod run;
mod start;
mod volume;

use super::serialmux as mux;
use crate::client::Client;
use crate::place::Place;
use clap::{CommandFactory, Parser, Subcommand};
use containervm::home::Home;
use containervm::machine::{Machine, Nic};
use containervm::store::{State, Store, Vm};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Runs containers, each in a VM of its own, on QEMU.
///
/// `containervm run` makes a disk from an image, writes a VMX file for it, and starts that VM; the
/// container's terminal comes over the VM's serial port, through serialmux, which is started if
/// none runs. `serialmux` shows logs, attaches again and sends signals.
#[derive(Debug, Parser)]
#[command(
    name = "containervm",
    version,
    propagate_version = true,
    after_help = "Examples:\n  \
    containervm run -it busybox                 a shell in a VM\n  \
    containervm run --rm busybox uname -a       one command, and nothing left behind\n  \
    containervm run -d --name web ./rootfs httpd -f\n  \
    serialmux logs -f web"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command in a new containerVM
    Run(Box<run::Run>),
    /// Start a containerVM that a VMX file describes, or that has ended
    Start(start::Start),
    /// Ask containers to end, kill those that do not, and wait until their VMs are gone
    ///
    /// A VM that does not answer is powered off.
    Stop(mux::Stop),
    /// Stop containers as `stop` does, and start them again
    Restart(restart::Restart),
    /// List containerVMs
    Ls {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Remove containerVMs with their disks and their output
    Rm {
        /// End running ones first
        #[arg(short, long)]
        force: bool,
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Volumes that have a name
    #[command(subcommand)]
    Volume(volume::Volume),
    /// Remove what is no longer needed: leftovers of interrupted runs, and images of no containerVM
    Gc,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (try: containervm man | man -l -)
    Man,
    /// Wait for a VM's end (used by `run` and `start`)
    #[command(hide = true)]
    Supervise(start::Supervise),
    /// The serialmux command (used by `run` and `start`)
    #[command(hide = true)]
    Serialmux(mux::Cli),
}

/// Where VMs, their images and the daemon's state are.
#[derive(Clone)]
pub(super) struct Surroundings {
    home: Home,
    store: Store,
    place: Place,
}

impl Surroundings {
    fn here() -> anyhow::Result<Self> {
        let home = Home::from_env()?;
        let store = Store::open(&home)?;
        Ok(Self { home, store, place: Place::new(None) })
    }

    fn client(&self) -> Client {
        Client::new(&self.place)
    }
}

/// Says what is being done, one line each.
pub(super) fn tell(line: &str) {
    eprintln!("containervm: {line}");
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(run) => run.run().await,
            Command::Start(start) => start.run().await,
            Command::Supervise(supervise) => supervise.run().await,
            Command::Serialmux(cli) => Box::pin(cli.run()).await,
            Command::Volume(volume) => volume.run().await,
            Command::Stop(args) => stop(args).await,
            Command::Restart(restart) => Box::pin(restart.run()).await,
            Command::Ls { json } => ls(json),
            Command::Rm { force, containers } => rm(force, containers).await,
            Command::Gc => {
                let surroundings = Surroundings::here()?;
                let removed = surroundings.store.gc()?;
                for vm in removed.vms {
                    println!("removed containerVM {}", vm.name);
                    forget(&surroundings, &vm.id).await;
                }
                removed.others.iter().for_each(|line| println!("removed {line}"));
                Ok(ExitCode::SUCCESS)
            }
            Command::Completions { shell } => {
                super::reference(Self::command(), Some(shell))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Man => {
                super::reference(Self::command(), None)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn ls(json: bool) -> anyhow::Result<ExitCode> {
    let Surroundings { store, .. } = Surroundings::here()?;
    let mut out = std::io::stdout().lock();
    if !json {
        writeln!(out, "{:<14}{:<24}{:<24}{:<24}PORTS", "ID", "NAME", "IMAGE", "STATE")?;
    }
    for vm in store.list()? {
        let (state, code) = match store.state(&vm)? {
            State::Created => ("created".to_owned(), None),
            State::Running => ("running".to_owned(), None),
            State::Exited(exit) => {
                let code = exit.code;
                (code.map_or(exit.how, |code| format!("exited({code})")), code)
            }
            State::Dead => ("dead".to_owned(), None),
        };
        let record = &vm.record;
        let ports = if state == "running" { ports(&vm) } else { Vec::new() };
        if json {
            let line = serde_json::json!({
                "id": record.id, "name": record.name, "image": record.image, "state": state,
                "exit_code": code, "ports": ports, "vmx": vm.vmx(), "console": vm.console(),
            });
            writeln!(out, "{line}")?;
        } else {
            let id = containervm::store::short(&record.id);
            let (name, image) = (&record.name, &record.image);
            let line = format!("{id:<14}{name:<24}{image:<24}{state:<24}{}", ports.join(", "));
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

// What leads to it from this host, in Docker's way of writing; nothing if its file cannot be read any more.
fn ports(vm: &Vm) -> Vec<String> {
    let nics = Machine::load(&vm.vmx()).map(|(machine, _)| machine.nics).unwrap_or_default();
    let shown = |forward: &String| {
        let (protocol, host, port) = Nic::parts(forward)?;
        Some(format!("{host}->{port}/{protocol}"))
    };
    nics.iter().flat_map(|nic| &nic.forwards).filter_map(shown).collect()
}

/// How long a VM may take over the time that its container has, before it is powered off.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

async fn stop(args: mux::Stop) -> anyhow::Result<ExitCode> {
    let surroundings = &Surroundings::here()?;
    super::each("containervm", args.containers.clone(), |name| {
        let args = &args;
        async move {
            let vm = surroundings.store.find(&name)?;
            if matches!(surroundings.store.state(&vm)?, State::Running) {
                end(surroundings, &vm, args).await?;
            }
            println!("{name}");
            Ok(())
        }
    })
    .await
}

// Whatever keeps the container from being asked, its VM does not go on for that.
async fn end(surroundings: &Surroundings, vm: &Vm, args: &mux::Stop) -> anyhow::Result<()> {
    let client = surroundings.client();
    let patience = args.grace().saturating_add(STOP_PATIENCE);
    let (id, gone) = (vm.record.id.clone(), vm.clone());
    let asked = tokio::time::timeout(patience, args.one(&client, id)).await;
    let why = match asked {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("it does not answer".to_owned()),
    };
    let waits = tokio::task::spawn_blocking(move || gone.wait());
    if let Some(why) = why {
        tell(&format!("{why}; its VM is powered off"));
        containervm::supervise::kill(vm)?;
        return Ok(waits.await??);
    }
    let mut waits = waits;
    match tokio::time::timeout(patience, &mut waits).await {
        Ok(ended) => Ok(ended??),
        Err(_) => {
            tell("its VM does not end, and is powered off");
            containervm::supervise::kill(vm)?;
            Ok(waits.await??)
        }
    }
}

async fn rm(force: bool, containers: Vec<String>) -> anyhow::Result<ExitCode> {
    let surroundings = &Surroundings::here()?;
    super::each("containervm", containers, |name| async move {
        remove(surroundings, &name, force).await?;
        println!("{name}");
        Ok(())
    })
    .await
}

async fn remove(surroundings: &Surroundings, name: &str, force: bool) -> anyhow::Result<()> {
    let vm = surroundings.store.find(name)?;
    if !force {
        until_off(surroundings, &vm).await?;
    }
    surroundings.store.remove(&vm, force)?;
    forget(surroundings, &vm.record.id).await;
    Ok(())
}

/// Waits for the VM of a container that has ended: whoever has been told of that end may start it again, or remove
/// it. The VM itself takes a moment longer.
async fn until_off(surroundings: &Surroundings, vm: &Vm) -> anyhow::Result<()> {
    if !matches!(surroundings.store.state(vm)?, State::Running) {
        return Ok(());
    }
    // Without a daemon nobody has been told.
    let known = surroundings.client().list().await.unwrap_or_default();
    let has_ended = known.iter().any(|it| it.id == vm.record.id && it.status == "exited");
    if has_ended {
        let vm = vm.clone();
        tokio::task::spawn_blocking(move || vm.wait()).await??;
    }
    Ok(())
}

// The output goes with the VM; a daemon that is not there, or has never heard of it, has none.
async fn forget(surroundings: &Surroundings, id: &str) {
    let client = surroundings.client();
    let gone = client.gone(id.to_owned(), "removed".into()).await;
    if gone.is_ok()
        && let Err(error) = client.remove(id.to_owned()).await
    {
        tell(&format!("its output stays: {error}"));
    }
}
