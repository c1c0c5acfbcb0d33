//! The `serialmux` command: the daemon, and its clients.

use crate::api::{answer, request};
use crate::attach::{Attach, End, Session, show};
use crate::client::{self, Client};
use crate::daemon::Daemon;
use crate::place::Place;
use crate::terminal::DetachKeys;
use crate::{clock, launch, moment, signals};
use anyhow::{Context, bail};
use base64::Engine;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where VMs connect to unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:2377";

/// Multiplexes the serial ports of containerVMs.
///
/// `serialmux serve` listens for VMs, whose serial0 is a TCP connection to it, and keeps their
/// output. All other commands talk to that daemon over a unix socket in its state directory.
#[derive(Debug, Parser)]
#[command(name = "serialmux", version, propagate_version = true)]
pub struct Cli {
    /// The daemon's state directory [default: ~/.local/state/serialmux]
    #[arg(long, env = "SERIALMUX_STATE", value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(Serve),
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
    Attach(AttachArgs),
    /// Show a container's output, also after its VM is gone
    Logs(LogsArgs),
    /// Wait for containers to end, and print their exit codes
    Wait {
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Send a signal to a container's process
    Kill {
        /// Name or number
        #[arg(short, long, default_value = "KILL")]
        signal: String,
        /// Names, ids or unique starts of ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Set the size of a container's terminal
    Resize {
        /// Name, id or unique start of the id
        container: String,
        /// Character rows
        rows: u16,
        /// Character columns
        columns: u16,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (try: serialmux man | man -l -)
    Man,
}

#[derive(Debug, Args)]
struct Serve {
    /// Where VMs connect to
    ///
    /// Whoever reaches this port can only claim to be a VM, not be one: links are sealed with each
    /// VM's key. Give an address of the VMs' network to serve VMs on other hosts.
    #[arg(long, env = "SERIALMUX_LISTEN", default_value = DEFAULT_LISTEN, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Log more: once for each session, twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Args)]
struct AttachArgs {
    /// Name, id or unique start of the id
    container: String,
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Keys that detach: single characters or ctrl-x, separated by commas
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Pass signals on to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    sig_proxy: bool,
}

#[derive(Debug, Args)]
struct LogsArgs {
    /// Name, id or unique start of the id
    container: String,
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only the last so many lines, or "all"
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Only from this moment on: 2026-01-31T12:00:00Z, seconds since 1970, or how long ago (10m)
    #[arg(long)]
    since: Option<String>,
    /// Only up to this moment
    #[arg(long)]
    until: Option<String>,
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
            Command::Ps { json } => ps(&client, json).await,
            Command::Inspect { containers } => {
                super::each("serialmux", containers, |name| {
                    let client = &client;
                    async move { inspect(&client.inspect(name).await?) }
                })
                .await
            }
            Command::Register { vmx } => register(&client, &vmx).await,
            Command::Rm { containers } => {
                super::each("serialmux", containers, |name| {
                    let client = &client;
                    async move { client.remove(name).await.map_err(Into::into) }
                })
                .await
            }
            Command::Attach(args) => attach(&client, args).await,
            Command::Logs(args) => logs(&client, args).await,
            Command::Wait { containers } => {
                super::each("serialmux", containers, |name| {
                    let client = &client;
                    async move {
                        println!("{}", client.wait(name).await?.code);
                        Ok(())
                    }
                })
                .await
            }
            Command::Kill { signal, containers } => {
                let number = signals::number(&signal).with_context(|| {
                    format!("\"{signal}\" is no signal: give a name such as TERM, or 1 to 64")
                })?;
                super::each("serialmux", containers, |name| {
                    let client = &client;
                    async move { client.kill(name, number).await.map_err(Into::into) }
                })
                .await
            }
            Command::Resize { container, rows, columns } => {
                client.resize(container, rows.into(), columns.into()).await?;
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

impl Serve {
    async fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        let level = match self.verbose {
            0 => tracing::Level::WARN,
            1 => tracing::Level::INFO,
            _ => tracing::Level::TRACE,
        };
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).init();
        let daemon = Daemon::bind(place, self.listen).await?;
        // Whoever started us in the background waits for this line.
        let (vms, clients) = (daemon.listen(), place.socket());
        launch::ready(&format!(
            "serialmux: VMs connect to {vms}; clients to {}",
            clients.display()
        ));
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            () = daemon.serve() => {}
            _ = terminate.recv() => {}
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The registration of the containerVM that a VMX file describes.
///
/// # Errors
/// What is wrong with the file, with its name and line.
pub fn registration(vmx: &std::path::Path) -> anyhow::Result<request::Register> {
    let bytes = std::fs::read(vmx).with_context(|| format!("cannot read {}", vmx.display()))?;
    let parsed =
        guestinfo::vmx::Vmx::parse(bytes).map_err(|e| anyhow::anyhow!(e.at(vmx.display())))?;
    let spec = guestinfo::Spec::from_vmx(&parsed);
    let spec = match spec {
        Ok(spec) => spec,
        Err(errors) => bail!("{}: {errors}", vmx.display()),
    };
    if spec.key.0.is_empty() {
        let fresh = base64::engine::general_purpose::STANDARD.encode(containervm::identity::key()?);
        bail!(
            "{}: no key that VM and serialmux share; add the line  guestinfo.vice./key = \"{fresh}\"  \
             (made for you just now)",
            vmx.display()
        );
    }
    let primary = spec.primary().with_context(|| vmx.display().to_string())?;
    let name =
        [parsed.get("displayName").unwrap_or_default(), spec.name.as_str(), spec.id.as_str()]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default()
            .to_owned();
    Ok(request::Register {
        id: spec.id.clone(),
        name,
        key: spec.key.0.clone(),
        plain: spec.link.protection == guestinfo::Protection::Plain,
        tty: primary.tty,
        open_stdin: primary.open_stdin,
        command: primary.cmd.args.join(" "),
    })
}

async fn register(client: &Client, vmx: &std::path::Path) -> anyhow::Result<ExitCode> {
    let registration = registration(vmx)?;
    let id = registration.id.clone();
    client.register(registration).await?;
    println!("{id}");
    Ok(ExitCode::SUCCESS)
}

async fn ps(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let containers = client.list().await?;
    let mut out = std::io::stdout().lock();
    if !json {
        writeln!(out, "{:<14}{:<24}{:<12}{:<11}COMMAND", "ID", "NAME", "STATUS", "CONNECTED")?;
    }
    for container in containers {
        let answer::Summary { id, name, command, status, exit_code, error, connected, .. } =
            container;
        if json {
            let exit = (status == "exited").then_some(exit_code);
            let line = serde_json::json!({
                "id": id, "name": name, "command": command, "status": status, "exit_code": exit,
                "error": error, "connected": connected,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let status = if status == "exited" { format!("exited({exit_code})") } else { status };
        let connected = if connected { "yes" } else { "no" };
        let id = id.get(..12).unwrap_or(&id);
        writeln!(out, "{id:<14}{name:<24}{status:<12}{connected:<11}{command}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(json: &str) -> anyhow::Result<()> {
    let value: serde_json::Value =
        serde_json::from_str(json).map_err(|_| client::ClientError::Odd)?;
    writeln!(std::io::stdout(), "{value:#}")?;
    Ok(())
}

async fn attach(client: &Client, args: AttachArgs) -> anyhow::Result<ExitCode> {
    let attach = Attach {
        container: args.container,
        stdin: !args.no_stdin,
        detach_keys: args.detach_keys,
        sig_proxy: args.sig_proxy,
        boots: false,
    };
    match Session::open(client, attach).await?.run().await? {
        End::Exit(exit) => Ok(ended("serialmux", &exit)),
        End::Detached => Ok(ExitCode::SUCCESS),
    }
}

/// The exit code of a container for the shell, after saying what went wrong, if anything did.
pub fn ended(program: &str, exit: &answer::Exit) -> ExitCode {
    if !exit.error.is_empty() {
        eprintln!("{program}: {}", exit.error);
    }
    super::exit_code(exit.code)
}

async fn logs(client: &Client, args: LogsArgs) -> anyhow::Result<ExitCode> {
    let at = |text: &Option<String>| match text {
        None => Ok(0),
        Some(text) => moment::parse(text, clock::wall_us()).with_context(|| {
            format!(
                "\"{text}\" is no moment: give 2026-01-31T12:00:00Z, seconds since 1970, or 10m"
            )
        }),
    };
    let tail = match args.tail.as_str() {
        "all" => None,
        n => Some(n.parse().with_context(|| format!("--tail {n}: give a number, or \"all\""))?),
    };
    let (container, follow) = (args.container, args.follow);
    let (since_us, until_us) = (at(&args.since)?, at(&args.until)?);
    let body = request::Logs { container, follow, tail, since_us, until_us };
    let (_sender, mut receiver) = client.open(request::Body::Logs(body)).await?;
    let mut stamps = args.timestamps.then(Stamps::default);
    loop {
        match client::next(&mut receiver).await? {
            answer::Body::Output(mut output) => {
                if let Some(stamps) = &mut stamps {
                    output.bytes = stamps.stamp(&output);
                }
                show(&output)?;
            }
            answer::Body::Done(_) => return Ok(ExitCode::SUCCESS),
            _ => bail!(client::ClientError::Odd),
        }
    }
}

/// Puts the time before each line, per stream, as lines may come in pieces.
#[derive(Debug, Default)]
struct Stamps {
    inside: [bool; 3],
}

impl Stamps {
    fn stamp(&mut self, output: &answer::Output) -> bytes::Bytes {
        let mut inside = [false];
        let inside = self.inside.get_mut(output.stream as usize).unwrap_or(&mut inside[0]);
        let mut stamped = Vec::with_capacity(output.bytes.len() + 32);
        for line in output.bytes.split_inclusive(|byte| *byte == b'\n') {
            if !*inside {
                stamped.extend(moment::show(output.time_us).bytes());
                stamped.push(b' ');
            }
            stamped.extend(line);
            *inside = !line.ends_with(b"\n");
        }
        stamped.into()
    }
}
