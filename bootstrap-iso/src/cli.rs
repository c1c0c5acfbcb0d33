//! The command line of `cargo bootstrap-iso`, and what it resolves to.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;
use debian::ensure;

use crate::agent;
use crate::build::Build;
use crate::initramfs::Compression;
use crate::kernel::Kernel;
use crate::loaders::Loaders;
use crate::modules::Modules;

/// Makes bootstrap.iso, the image every containerVM boots: a kernel, the modules it needs there,
/// the agent (tether) as its only program, and loaders for BIOS and UEFI.
///
/// In a checkout no option is needed. What is missing is brought in and said: the musl target
/// through rustup, xorriso through apt. Kernel and loaders are downloaded and unpacked
/// under target/packages, never installed. A second run with nothing changed only says so.
///
/// The same inputs give the same bytes. Inside the image, /boot/vmlinuz, /boot/initramfs.img
/// and /boot/cmdline are there for who wants to boot the kernel directly.
#[derive(Debug, Parser)]
#[command(
    name = "bootstrap-iso",
    after_help = "Examples:\n  \
    cargo bootstrap-iso\n      the image of this checkout, at target/bootstrap.iso\n  \
    cargo bootstrap-iso -o /srv/bootstrap.iso --tether ./tether\n      with an agent built elsewhere\n  \
    cargo bootstrap-iso --kernel /boot/vmlinuz-$(uname -r) --modules /lib/modules/$(uname -r)\n      \
    with this machine's own kernel"
)]
pub struct Cli {
    /// Where to write the image [default: target/bootstrap.iso in a checkout].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A kernel to use instead of the distribution's (a bzImage); its modules keep their signatures.
    #[arg(long, value_name = "VMLINUZ", requires = "modules")]
    kernel: Option<PathBuf>,
    /// That kernel's directory of modules, such as /lib/modules/6.1.0-50-cloud-amd64.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// A built agent to use (static, x86-64) instead of building this checkout's.
    #[arg(long, value_name = "FILE")]
    tether: Option<PathBuf>,
    /// How the initramfs is stored; the default boots fastest.
    #[arg(long, value_enum, default_value_t = Compression::Lz4)]
    compression: Compression,
}

impl Cli {
    /// Brings in what is missing and makes the image.
    ///
    /// # Errors
    /// The first thing that could not be had or made.
    pub fn run(self) -> Result<()> {
        let mut tell = |line: &str| eprintln!("bootstrap-iso: {line}");
        let root = checkout();
        let target = target_dir(root.as_deref());
        let output = match (self.output, &root) {
            (Some(output), _) => output,
            (None, Some(_)) => target.join("bootstrap.iso"),
            (None, None) => {
                anyhow::bail!("not run from a checkout; say where to write the image with -o FILE")
            }
        };
        let packages = target.join("packages");
        let kernel = match (self.kernel, self.modules) {
            (Some(image), Some(modules)) => Kernel::given(image, modules),
            _ => Kernel::of_distribution(&packages, &mut tell)?,
        };
        if let Some(need) = Modules::decompressor(&kernel.modules)? {
            ensure(&[need], &mut tell)?;
        }
        let loaders = Loaders::of_distribution(&packages, &mut tell)?;
        let agent = match (self.tether, &root) {
            (Some(agent), _) => agent::check(&agent).map(|()| agent)?,
            (None, Some(root)) => agent::build(root, &target, &mut tell)?,
            (None, None) => {
                anyhow::bail!("not run from a checkout; give a built agent with --tether FILE")
            }
        };
        let build = Build { agent, kernel, loaders, compression: self.compression };
        let sizes = build.run(&output, &mut tell).context("no image was made")?;
        let state = if sizes.made { "made" } else { "is up to date" };
        match write!(io::stdout(), "{} {state}\n{sizes}", output.display()) {
            // Who closed the pipe has read enough, and the image is there.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.context("cannot print the sizes"),
        }
    }
}

/// The workspace this program was built in, if it is still there.
fn checkout() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    root.join("tether/Cargo.toml").is_file().then(|| root.to_owned())
}

/// cargo's directory for what it makes: its own variable, else the checkout's, else here.
fn target_dir(root: Option<&Path>) -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| root.unwrap_or(Path::new(".")).join("target"))
}
