//! The agent's executable, built from this checkout when none is given.

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};

use debian::{DebianError, Need, Probe, Tell, ensure, rust_target};

/// What the agent is compiled for: static, so that an initramfs with no library can run it.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// The workspace profile made for it.
const PROFILE: &str = "guest";

/// The compressor of the agent's output is C.
const COMPILER: Need = Need {
    package: "musl-tools",
    probe: Probe::Program("musl-gcc"),
    why: "to compile what of the agent is C",
};

/// Why the agent could not be built.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The Rust target could not be had.
    #[error(transparent)]
    Target(#[from] DebianError),
    /// The agent given cannot be read.
    #[error("cannot read the agent {}: {reason}; give the file of a built agent", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason of the operating system.
        reason: io::Error,
    },
    /// The agent given cannot run as the only program of a machine.
    #[error("{} cannot be the agent: it is {is}; expected a static x86-64 executable, as for {TARGET}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        is: &'static str,
    },
    /// cargo could not be started.
    #[error(
        "cannot start cargo to build the agent: {0}; install Rust, or give a built agent with --tether"
    )]
    NoCargo(io::Error),
    /// cargo failed, and has said why.
    #[error("building the agent failed ({0}); see cargo's own words above")]
    Failed(ExitStatus),
}

/// Checks that the file at `path` can be `/init` where there is no library and no shell: an ELF
/// executable for x86-64 that asks for no interpreter.
///
/// # Errors
/// What it is instead.
pub fn check(path: &Path) -> Result<(), AgentError> {
    use object::elf::{EM_X86_64, FileHeader64, PT_INTERP};
    use object::read::elf::{FileHeader as _, ProgramHeader as _};

    let path = path.to_owned();
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(reason) => return Err(AgentError::Unreadable { path, reason }),
    };
    let Ok(header) = FileHeader64::<object::LittleEndian>::parse(&*content) else {
        return Err(AgentError::Unfit { path, is: "no 64-bit ELF file" });
    };
    let endian = object::LittleEndian;
    if header.e_machine(endian) != EM_X86_64 {
        return Err(AgentError::Unfit { path, is: "for another processor" });
    }
    let Ok(segments) = header.program_headers(endian, &*content) else {
        return Err(AgentError::Unfit { path, is: "damaged" });
    };
    if segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP) {
        return Err(AgentError::Unfit { path, is: "linked against shared libraries" });
    }
    Ok(())
}

/// Builds the agent of the checkout at `root` into `target_dir`; gives its executable.
///
/// cargo's words go to this process's standard error, unless there was nothing to do.
///
/// # Errors
/// No musl target, no cargo, or code that does not compile.
pub fn build(root: &Path, target_dir: &Path, tell: Tell<'_>) -> Result<PathBuf, AgentError> {
    rust_target(TARGET, tell)?;
    ensure(&[COMPILER], tell)?;
    // Set by cargo for what it runs: the same cargo builds the agent.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--profile", PROFILE, "--package", "tether", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(AgentError::NoCargo)?;
    if let Some(words) = child.stderr.take() {
        relay(words, tell);
    }
    let status = child.wait().map_err(AgentError::NoCargo)?;
    match status.success() {
        true => Ok(target_dir.join(TARGET).join(PROFILE).join("tether")),
        false => Err(AgentError::Failed(status)),
    }
}

// cargo says little when there is nothing to do, and then nothing should be said here.
fn relay(words: ChildStderr, tell: Tell<'_>) {
    let mut told = false;
    for line in BufReader::new(words).lines().map_while(Result::ok) {
        if !told && line.contains("Compiling") {
            tell("building the agent, tether");
            told = true;
        }
        if told || !line.contains("Finished") {
            eprintln!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_executable_or_a_script_is_refused_as_agent() {
        // This test itself is linked against glibc.
        let this = std::env::current_exe().unwrap();
        let text = check(&this).unwrap_err().to_string();
        assert!(text.contains("linked against shared libraries"), "{text}");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let text = check(&manifest).unwrap_err().to_string();
        assert!(text.contains("no 64-bit ELF file"), "{text}");
    }
}
