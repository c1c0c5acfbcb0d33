//! Entry point of `serialmux`.

use serialmux::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main("serialmux", |cli: cli::serialmux::Cli| cli.run())
}
