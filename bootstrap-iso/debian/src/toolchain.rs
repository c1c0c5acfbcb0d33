//! The Rust toolchain's targets, added through rustup when one is missing.

use std::path::Path;

use crate::Tell;
use crate::apt::DebianError;
use crate::host::Host;

/// Makes sure that the active toolchain can compile for `target`, such as
/// `x86_64-unknown-linux-musl`.
///
/// Looks into the compiler's own directory first, so a distribution's Rust that has the
/// target is as good as rustup's.
///
/// # Errors
/// No rustc or rustup, or rustup's own failure with its last lines.
pub fn rust_target(target: &str, tell: Tell<'_>) -> Result<(), DebianError> {
    let host = Host::here();
    if is_installed(&host, target)? {
        return Ok(());
    }
    let Some(rustup) = host.program("rustup") else {
        return Err(DebianError::NoRustup { target: target.to_owned() });
    };
    tell(&format!("the Rust target {target} is missing; it is needed for static binaries"));
    tell(&format!("adding it (rustup target add {target})"));
    let added = host.run(&rustup, &["target", "add", target], Path::new("."))?;
    if added.success {
        return Ok(());
    }
    Err(DebianError::Failed { tail: added.tail(), command: added.command })
}

fn is_installed(host: &Host, target: &str) -> Result<bool, DebianError> {
    let Some(rustc) = host.program("rustc") else { return Ok(false) };
    let asked = host.run(&rustc, &["--print", "sysroot"], Path::new("."))?;
    let sysroot = Path::new(asked.stdout.trim());
    Ok(asked.success && sysroot.join("lib/rustlib").join(target).join("lib").is_dir())
}
