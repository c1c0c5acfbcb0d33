//! The `bootstrap-iso` command: reads its command line, says what went wrong in one line.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match bootstrap_iso::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bootstrap-iso: {error:#}");
            ExitCode::FAILURE
        }
    }
}
