//! The agent's executable, built from this checkout when none is given.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use debian::{DebianError, Tell, rust_target};

/// What the agent is compiled for: static, so that an initramfs with no library can run it.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// The workspace profile made for it.
const PROFILE: &str = "guest";

/// Why the agent could not be built.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The Rust target could not be had.
    #[error(transparent)]
    Target(#[from] DebianError),
    /// cargo could not be started.
    #[error(
        "cannot start cargo to build the agent: {0}; install Rust, or give a built agent with --tether"
    )]
    NoCargo(io::Error),
    /// cargo failed, and has said why.
    #[error("building the agent failed ({0}); see cargo's own words above")]
    Failed(ExitStatus),
}

/// Builds the agent of the checkout at `root` into `target_dir`; gives its executable.
///
/// cargo's progress goes to this process's standard error.
///
/// # Errors
/// No musl target, no cargo, or code that does not compile.
pub fn build(root: &Path, target_dir: &Path, tell: Tell<'_>) -> Result<PathBuf, AgentError> {
    rust_target(TARGET, tell)?;
    tell("building the agent, tether");
    // Set by cargo for what it runs: the same cargo builds the agent.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--profile", PROFILE, "--package", "tether", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .status()
        .map_err(AgentError::NoCargo)?;
    match status.success() {
        true => Ok(target_dir.join(TARGET).join(PROFILE).join("tether")),
        false => Err(AgentError::Failed(status)),
    }
}
