//! Entry point of `containervm`.

use serialmux::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main("containervm", |cli: cli::containervm::Cli| cli.run())
}
