//! One build of an image: gathers the inputs, decides whether there is work, does it, reports sizes.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::esp;
use crate::image::{self, ImageError};
use crate::initramfs::{Compression, compose};
use crate::kernel::Kernel;
use crate::loaders::Loaders;
use crate::modules::{Modules, ModulesError};
use crate::stamp::Stamp;
use crate::tree::Tree;

/// All that goes into an image, as files of this host.
#[derive(Debug, Clone)]
pub struct Build {
    /// The agent: a static executable that becomes `/init`.
    pub agent: PathBuf,
    /// The kernel and its modules.
    pub kernel: Kernel,
    /// The boot loaders.
    pub loaders: Loaders,
    /// How the initramfs is stored.
    pub compression: Compression,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An input could not be read.
    #[error("cannot read {what} {}: {reason}", path.display())]
    Input {
        /// What the file was wanted as.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason of the operating system.
        reason: io::Error,
    },
    /// The file given as kernel is none.
    #[error("{} is not a Linux kernel; expected a bzImage, as installed at /boot/vmlinuz-*", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// The modules could not be brought together.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// The image could not be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The directory of the image could not be used.
    #[error("cannot use {}: {reason}; check that the directory is writable and the disk not full", path.display())]
    Output {
        /// The file or directory.
        path: PathBuf,
        /// The reason of the operating system.
        reason: io::Error,
    },
}

/// What a build gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Whether the image was made now, or was already what these inputs give.
    pub made: bool,
    kernel: usize,
    agent: usize,
    modules: usize,
    n_modules: usize,
    initramfs: usize,
    loaders: usize,
    total: u64,
}

impl Build {
    /// Makes the image at `output`, unless it is already what these inputs give.
    ///
    /// The image appears by one rename; whatever an interrupted build left beside it is
    /// removed by the next. Builds of one output wait for each other.
    ///
    /// # Errors
    /// An unreadable input, a kernel without a module that is needed, xorriso's failure, a full disk.
    pub fn run(&self, output: &Path, tell: &mut dyn FnMut(&str)) -> Result<Sizes, BuildError> {
        let directory = output.parent().filter(|it| !it.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(unusable(directory))?;
        let _held_until_return = lock(output, tell)?;
        let agent = read("the agent", &self.agent)?;
        let modules = Modules::choose(&self.kernel.modules, self.kernel.signatures)?;
        let n_agent = agent.len();
        let archive = compose(agent, &modules);
        let kernel = read("the kernel", &self.kernel.image)?;
        // Both loaders look for this signature (Documentation/x86/boot.rst, "header").
        if kernel.get(0x202..0x206) != Some(b"HdrS") {
            return Err(BuildError::NotAKernel { path: self.kernel.image.clone() });
        }
        let isolinux = read("the BIOS loader", &self.loaders.isolinux)?;
        let ldlinux = read("the BIOS loader", &self.loaders.ldlinux)?;
        let grub = read("the UEFI loader", &self.loaders.grub)?;
        let compression = format!("{:?}", self.compression);
        let parts = [&archive, &kernel, &isolinux, &ldlinux, &grub, compression.as_bytes()];
        let stamp = Stamp::of(&parts).map_err(unusable(output))?;
        let esp = esp::image(&grub).map_err(unusable(output))?;
        let initramfs = self.compression.apply(&archive);
        let tree = Tree { kernel, initramfs, isolinux, ldlinux, esp };
        let made = !stamp.holds(output);
        if made {
            tell(&format!("writing {}", output.display()));
            make(&tree, output)?;
            stamp.record_for(output).map_err(unusable(output))?;
        }
        Ok(Sizes {
            made,
            kernel: tree.kernel.len(),
            agent: n_agent,
            modules: modules.size(),
            n_modules: modules.len(),
            initramfs: tree.initramfs.len(),
            loaders: tree.isolinux.len() + tree.ldlinux.len() + tree.esp.len(),
            total: output.metadata().map_err(unusable(output))?.len(),
        })
    }
}

fn make(tree: &Tree, output: &Path) -> Result<(), BuildError> {
    let work = beside(output, "work");
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(&work)(error));
        }
        _ => {}
    }
    fs::create_dir(&work).map_err(unusable(&work))?;
    image::write(tree, &work, output)?;
    fs::remove_dir_all(&work).map_err(unusable(&work))
}

/// Holds the output's lock until dropped; it ends with its holder (flock(2)).
fn lock(output: &Path, tell: &mut dyn FnMut(&str)) -> Result<File, BuildError> {
    let path = beside(output, "lock");
    let file = File::create(&path).map_err(unusable(&path))?;
    if file.try_lock().is_err() {
        tell("waiting for another run that is making the same image");
        file.lock().map_err(unusable(&path))?;
    }
    Ok(file)
}

/// `target/bootstrap.iso` → `target/.bootstrap.iso.<suffix>`.
fn beside(output: &Path, suffix: &str) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    output.with_file_name(format!(".{name}.{suffix}"))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|reason| BuildError::Input { what, path: path.to_owned(), reason })
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> BuildError + use<> {
    let path = path.to_owned();
    move |reason| BuildError::Output { path, reason }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_modules = format!("{} modules, unpacked", self.n_modules);
        let rows: [(&str, u64); 6] = [
            ("kernel", self.kernel as u64),
            ("agent", self.agent as u64),
            (&n_modules, self.modules as u64),
            ("initramfs, stored", self.initramfs as u64),
            ("loaders (BIOS, UEFI)", self.loaders as u64),
            ("image in all", self.total),
        ];
        for (name, size) in rows {
            let kib = size.div_ceil(1024);
            writeln!(f, "  {name:<24} {kib:>8} KiB")?;
        }
        Ok(())
    }
}
