//! The `serialmux` command: the daemon, and its clients.

mod attach;
mod change;
mod exec;
mod inside;
mod logs;
mod register;
mod serve;
mod show;
mod stop;

pub use attach::ended;
pub use register::registration;
pub use serve::DEFAULT_LISTEN;
pub use stop::Stop;

use crate::client::Client;
use crate::place::Place;
use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Multiplexes the serial ports of containerVMs.
///
/// `serialmux serve` listens for VMs, whose serial0 is a TCP connection to it, and keeps their
/// output. All other commands talk to that daemon over a unix socket in its state directory.
#[derive(Debug, Parser)]
#[command(name = "serialmux", version, propagate_version = true)]
pub struct Cli {
    /// The daemon's state directory [default: $CONTAINERVM_HOME/serialmux, or ~/.local/state/serialmux]
    #[arg(long, env = "SERIALMUX_STATE", value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(serve::Serve),
    /// List containers
    Ps {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Show everything known of containers, one JSON object for each
    ///
    /// What was registered, what became of it, how its link does, and what the VM's agent reports,
    /// with the keys that it would use in a vSphere VM's extraConfig.
    Inspect {
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Register the containerVM that a VMX file describes
    Register {
        /// The VMX file; its guestinfo keys say id, name and key
        vmx: PathBuf,
    },
    /// Forget containers that do not run, with their output
    Rm {
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Connect the terminal to a container
    ///
    /// Ends with the container's exit status, or with 0 after the detach keys.
    Attach(attach::AttachArgs),
    /// Show a container's output, also after its VM is gone
    Logs(logs::LogsArgs),
    /// Wait for containers to end, and print their exit codes
    Wait {
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Run another command in a container
    ///
    /// Ends with the command's exit status; 126 if it cannot be run, 127 if it is not there, 125 if
    /// serialmux failed. It lasts through a restart of serialmux.
    Exec(exec::ExecArgs),
    /// Ask containers to end, kill those that do not, and wait until they have
    Stop(Stop),
    /// Freeze all processes of containers
    Pause {
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Let frozen processes go on
    Unpause {
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Send a signal to a container's process
    Kill {
        /// Name or number
        #[arg(short, long, default_value = "KILL")]
        signal: String,
        /// To an exec's process instead, by its id (see inspect)
        #[arg(long, value_name = "ID", default_value = "")]
        exec: String,
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Set the size of a container's terminal
    Resize {
        /// That of an exec instead, by its id (see inspect)
        #[arg(long, value_name = "ID", default_value = "")]
        exec: String,
        /// Name, id or unique start of the id
        container: String,
        /// Character rows
        rows: u16,
        /// Character columns
        columns: u16,
    },
    /// Have containers' agents read their configs again, and print what they do about it
    ///
    /// A config with faults changes nothing. What a running container cannot follow is told.
    Reload {
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Show a container's processes, without a program inside
    Top(inside::Top),
    /// Show what containers use of processor, memory, network and disk
    Stats(inside::Stats),
    /// Show what happens to containers: create, start, oom, die, destroy, ...
    Events(inside::Listen),
    /// List what has been added (A), changed (C) and deleted (D) on a container's disk since its image
    Diff {
        /// One JSON object per path
        #[arg(long)]
        json: bool,
        /// Name, id or unique start of the id
        container: String,
    },
    /// Copy files between a running container and here
    ///
    /// As `docker cp`: an existing directory takes the source under its own name, one that ends with /. gives
    /// what is in it. With - for here, a tar archive is read or written.
    Cp(inside::CopyArgs),
    /// Hold all writes to containers' disks, with everything written before on them: for a snapshot
    Freeze {
        /// Thaw by itself after so many seconds, 3600 at most
        #[arg(long, default_value_t = 60)]
        timeout: u32,
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Let writes go on that `freeze` holds
    Thaw {
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Show how a container's agent and machine are: sessions, link, memory, cgroup, log
    ///
    /// Also when the container has used up all processes, memory or disk space.
    Debug {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// Name, id or unique start of the id
        container: String,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (try: serialmux man | man -l -)
    Man,
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let place = Place::new(self.state);
        let client = Client::new(&place);
        match self.command {
            Command::Serve(serve) => serve.run(&place).await,
            Command::Ps { json } => show::ps(&client, json).await,
            Command::Inspect { containers } => {
                crate::cli::each("serialmux", containers, |name| {
                    let client = &client;
                    async move { show::inspect(&client.inspect(name).await?) }
                })
                .await
            }
            Command::Register { vmx } => register::register(&client, &vmx).await,
            Command::Rm { containers } => change::remove(&client, containers).await,
            Command::Attach(args) => attach::attach(&client, args).await,
            Command::Logs(args) => logs::logs(&client, args).await,
            Command::Wait { containers } => change::wait(&client, containers).await,
            Command::Exec(args) => exec::exec(&client, args).await,
            Command::Stop(stop) => stop.run(&client).await,
            Command::Pause { containers } => change::pause(&client, containers).await,
            Command::Unpause { containers } => change::unpause(&client, containers).await,
            Command::Kill { signal, exec, containers } => {
                change::kill(&client, containers, exec, &signal).await
            }
            Command::Resize { exec, container, rows, columns } => {
                client.resize_exec(container, exec, (rows.into(), columns.into())).await?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Reload { containers } => change::reload(&client, containers).await,
            Command::Top(args) => inside::top(&client, args).await,
            Command::Stats(args) => inside::stats(&client, args).await,
            Command::Events(args) => inside::listen(&client, args).await,
            Command::Diff { json, container } => inside::diff(&client, container, json).await,
            Command::Cp(args) => inside::copy(&client, args).await,
            Command::Freeze { timeout, containers } => {
                inside::freeze(&client, containers, timeout).await
            }
            Command::Thaw { containers } => inside::thaw(&client, containers).await,
            Command::Debug { json, container } => inside::debug(&client, container, json).await,
            Command::Completions { shell } => {
                crate::cli::reference(Self::command(), Some(shell))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Man => {
                crate::cli::reference(Self::command(), None)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
