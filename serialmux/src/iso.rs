//! Finding bootstrap.iso: told, installed, or built in this checkout.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const INSTALLED: [&str; 2] =
    ["/usr/local/share/containervm/bootstrap.iso", "/usr/share/containervm/bootstrap.iso"];

/// The ISO to boot: `told` (by --iso or `$CONTAINERVM_ISO`), else this checkout's, brought up to
/// date, else an installed one.
///
/// # Errors
/// When there is none, or it cannot be built.
pub fn find(told: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(path) = told {
        if !path.is_file() {
            bail!("no such ISO: {}; build one with `cargo bootstrap-iso`", path.display());
        }
        return Ok(path);
    }
    if let Some(root) = checkout() {
        return build(&root);
    }
    let installed = INSTALLED.iter().map(PathBuf::from).find(|path| path.is_file());
    installed.with_context(|| {
        format!(
            "no bootstrap.iso: give one with --iso or $CONTAINERVM_ISO, or install it as {}",
            INSTALLED[0]
        )
    })
}

// Where this program was built, if that is still there.
fn checkout() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    root.join("bootstrap-iso/Cargo.toml").is_file().then(|| root.to_owned())
}

fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let iso = target.unwrap_or_else(|| root.join("target")).join("bootstrap.iso");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--release", "--quiet", "--package", "bootstrap-iso", "--", "-o"])
        .arg(&iso)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot run cargo to build bootstrap.iso")?;
    if !status.success() {
        bail!("bootstrap.iso could not be built; `cargo bootstrap-iso` shows why");
    }
    Ok(iso)
}
