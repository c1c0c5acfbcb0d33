//! Entry point of `containervm`.

use clap::Parser;
use serialmux::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main("containervm", || cli::containervm::Cli::parse().run())
}
