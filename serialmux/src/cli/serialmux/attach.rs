//! `serialmux attach`.

use crate::api::answer;
use crate::attach::{Attach, End, Session};
use crate::client::Client;
use crate::terminal::DetachKeys;
use clap::Args;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct AttachArgs {
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

pub(super) async fn attach(client: &Client, args: AttachArgs) -> anyhow::Result<ExitCode> {
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
    crate::cli::exit_code(exit.code)
}
