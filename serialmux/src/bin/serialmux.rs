//! Entry point of `serialmux`.

use clap::Parser;
use serialmux::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main("serialmux", || cli::serialmux::Cli::parse().run())
}
