//! `serialmux exec`.

use super::ended;
use crate::client::Client;
use crate::exec::{End, Exec, new_id, run};
use crate::terminal::{DetachKeys, size};
use clap::Args;
use std::process::ExitCode;
use wire::message::mux;

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave it in the background, without output, and print its id
    #[arg(short, long, conflicts_with = "interactive")]
    detach: bool,
    /// Set a variable (NAME=VALUE), or pass one on (NAME)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// User and group, by name or number, instead of the container's
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "")]
    user: String,
    /// Directory to start in, instead of the container's
    #[arg(short, long, value_name = "DIR", default_value = "")]
    workdir: String,
    /// Keys that detach: single characters or ctrl-x, separated by commas
    #[arg(long, default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
    /// Name, id or unique start of the id
    container: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) async fn exec(client: &Client, args: ExecArgs) -> anyhow::Result<ExitCode> {
    let ExecArgs { interactive, tty, detach, env, user, workdir, detach_keys, .. } = args;
    let session = new_id()?;
    // One without a value is passed on from here, if it is set here.
    let value = |entry: String| match entry.contains('=') {
        true => Some(entry),
        false => std::env::var(&entry).ok().map(|value| format!("{entry}={value}")),
    };
    let (rows, columns) = size().filter(|_| tty).unwrap_or((0, 0));
    let exec = mux::Exec {
        session: session.clone(),
        args: args.command,
        env: env.into_iter().filter_map(value).collect(),
        dir: workdir,
        user,
        tty,
        open_stdin: interactive,
        detach,
        rows,
        columns,
        // What the daemon can do, it says.
        unpacks: false,
    };
    let exec = Exec { container: args.container, exec, detach_keys };
    match run(client, exec).await? {
        End::Exit(exit) => Ok(ended("serialmux", &exit)),
        End::Detached => {
            if detach {
                println!("{session}");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
