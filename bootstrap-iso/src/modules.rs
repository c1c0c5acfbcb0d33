//! The kernel modules of a containerVM: which, with what they depend on, and the two tables that say so.
//!
//! In the initramfs they are `/lib/modules/<name>.ko`, uncompressed, named with `_` throughout, or
//! `<name>.ko.zst` if few VMs load them, beside
//!
//! * `modules.dep`: one line `name: dep dep …` per module. The dependencies are complete and
//!   in load order: loading them from left to right and then the module itself always works.
//!   Lines are in load order too.
//! * `modules.alias`: lines `alias <glob> <name>`, sorted; the glob matches a device's modalias.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use debian::{Need, Probe};

use crate::cpio::Archive;
use crate::modinfo::{Modinfo, ModinfoError, canonical, without_signature};

/// What every containerVM may meet: VMware's and QEMU's disks, network cards, CD-ROM,
/// channels and random source, and what containers themselves need.
const REQUIRED: &[&str] = &[
    "vmw_pvscsi",
    "sd_mod",
    "sr_mod",
    "isofs",
    "ata_piix",
    "vmxnet3",
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "qemu_fw_cfg",
    "overlay",
];

/// What a containerVM makes use of when the kernel has it: other emulated hardware, the faster
/// pipes beside serial0, and the power button.
const OPTIONAL: &[&str] = &[
    "ahci",
    "e1000",
    "e1000e",
    "nvme",
    "vmw_vmci",
    "vsock",
    "vmw_vsock_vmci_transport",
    "vmw_vsock_virtio_transport",
    "button",
    "evdev",
];

/// What is loaded only where a config asks for it, when the kernel has it: volumes on NFS servers. Every VM
/// unpacks the initramfs and keeps it in memory, so these modules are in it packed: 1 MB instead of 6.
const SELDOM: &[&str] = &["nfsv3", "nfsv4"];

/// The level from which on zstd takes no more off modules.
const PACKING: i32 = 19;

/// Deepest chain of dependencies followed; the longest in Linux 6.x has nine links.
const MAX_CHAIN: usize = 64;

/// Why the modules could not be brought together.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// A module is neither in the kernel nor beside it.
    #[error("the kernel has no module {name} (needed by {wanted_by}) in {}, nor is it built in; use a kernel that has it", dir.display())]
    Missing {
        /// The module.
        name: String,
        /// What asked for it.
        wanted_by: String,
        /// The directory searched.
        dir: PathBuf,
    },
    /// Modules that depend on each other in a circle, or a chain too long to be true.
    #[error(
        "the dependencies of kernel module {name} do not end; the modules in this directory do not belong together"
    )]
    Endless {
        /// The module.
        name: String,
    },
    /// A directory or a module could not be read.
    #[error("cannot read {}: {reason}; expected the modules directory of a kernel, such as lib/modules/6.1.0-x", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The reason of the operating system.
        reason: io::Error,
    },
    /// A compressed module could not be decompressed.
    #[error("cannot decompress {} with {program}: {detail}; install {program} or use uncompressed modules", path.display())]
    Decompress {
        /// The file.
        path: PathBuf,
        /// The program that was to do it.
        program: &'static str,
        /// Its words.
        detail: String,
    },
    /// A file that is no kernel module.
    #[error("{}: {reason}", path.display())]
    Modinfo {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: ModinfoError,
    },
}

/// Whether the signatures that a distribution put on its modules are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signatures {
    /// Kept, as a kernel may insist on them (`CONFIG_MODULE_SIG_FORCE`).
    Keep,
    /// Cut off. A kernel that does not insist then saves the RSA check of each module, two
    /// milliseconds emulated. Nothing is lost: kernel and modules come from one read-only image.
    Drop,
}

/// One module, ready to be loaded.
#[derive(Debug)]
struct Module {
    name: String,
    content: Vec<u8>,
    aliases: Vec<String>,
    /// All it depends on, in load order.
    closure: Vec<String>,
    is_seldom: bool,
}

/// The modules chosen, in load order.
#[derive(Debug)]
pub struct Modules {
    loaded: Vec<Module>,
}

impl Modules {
    /// Chooses a containerVM's modules from `dir` (`lib/modules/<release>` of a kernel package).
    ///
    /// # Errors
    /// A required module that is nowhere, files that are unreadable or no modules.
    pub fn choose(dir: &Path, signatures: Signatures) -> Result<Self, ModulesError> {
        let mut selection = Selection {
            available: Available::scan(dir)?,
            signatures,
            is_seldom: false,
            loaded: vec![],
        };
        for name in REQUIRED {
            selection.add(name, "every containerVM", 0)?;
        }
        for name in OPTIONAL {
            if selection.available.files.contains_key(*name) {
                selection.add(name, "a kernel that has it", 0)?;
            }
        }
        selection.is_seldom = true;
        for name in SELDOM {
            if selection.available.files.contains_key(*name) {
                selection.add(name, "volumes on servers", 0)?;
            }
        }
        Ok(Self { loaded: selection.loaded })
    }

    /// The program that must be there to read the modules in `dir`, if they are compressed.
    ///
    /// # Errors
    /// An unreadable directory.
    pub fn decompressor(dir: &Path) -> Result<Option<Need>, ModulesError> {
        let available = Available::scan(dir)?;
        let (package, program) = match available.files.values().find_map(|path| packer(path)) {
            Some("xz") => ("xz-utils", "xz"),
            Some("zstd") => ("zstd", "zstd"),
            _ => return Ok(None),
        };
        let why = "to decompress this kernel's modules";
        Ok(Some(Need { package, probe: Probe::Program(program), why }))
    }

    /// Puts the modules and their tables into an initramfs.
    pub fn add_to(&self, archive: &mut Archive) {
        for module in &self.loaded {
            let (suffix, content) = if module.is_seldom {
                let packed = zstd::bulk::compress(&module.content, PACKING);
                (".zst", packed.expect("compressing from memory to memory"))
            } else {
                ("", module.content.clone())
            };
            archive.file(&format!("lib/modules/{}.ko{suffix}", module.name), content, false);
        }
        archive.file("lib/modules/modules.dep", self.dep_table().into_bytes(), false);
        archive.file("lib/modules/modules.alias", self.alias_table().into_bytes(), false);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.loaded.len()
    }

    /// Whether the kernel has all it needs built in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.loaded.is_empty()
    }

    /// Bytes of all of them, loaded.
    #[must_use]
    pub fn size(&self) -> usize {
        self.loaded.iter().map(|module| module.content.len()).sum()
    }

    fn dep_table(&self) -> String {
        let mut table = String::new();
        for module in &self.loaded {
            let separator = if module.closure.is_empty() { "" } else { " " };
            let closure = module.closure.join(" ");
            // Writing to a String cannot fail.
            writeln!(table, "{}:{separator}{closure}", module.name).unwrap_or_default();
        }
        table
    }

    fn alias_table(&self) -> String {
        let lines = self.loaded.iter().flat_map(|module| {
            module.aliases.iter().map(|glob| format!("alias {glob} {}\n", module.name))
        });
        let mut lines: Vec<String> = lines.collect();
        lines.sort_unstable();
        lines.dedup();
        lines.concat()
    }
}

/// What a kernel offers: files by module name, and the names it has built in.
#[derive(Debug)]
struct Available {
    dir: PathBuf,
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
}

impl Available {
    fn scan(dir: &Path) -> Result<Self, ModulesError> {
        let mut files = BTreeMap::new();
        let mut directories = vec![dir.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).map_err(unreadable(&directory))? {
                let entry = entry.map_err(unreadable(&directory))?;
                let path = entry.path();
                // Not following links: `build` and `source` lead out of the package.
                if entry.file_type().map_err(unreadable(&path))?.is_dir() {
                    directories.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        let table = dir.join("modules.builtin");
        let builtin = fs::read_to_string(&table).map_err(unreadable(&table))?;
        let builtin = builtin.lines().filter_map(|line| module_name(Path::new(line))).collect();
        Ok(Self { dir: dir.to_owned(), files, builtin })
    }
}

/// The closure of what was asked for, growing in load order.
struct Selection {
    available: Available,
    signatures: Signatures,
    is_seldom: bool,
    loaded: Vec<Module>,
}

impl Selection {
    /// Adds `name` behind all it depends on; gives its closure including itself, which is
    /// empty for a module the kernel has built in.
    fn add(
        &mut self,
        name: &str,
        wanted_by: &str,
        depth: usize,
    ) -> Result<Vec<String>, ModulesError> {
        if depth > MAX_CHAIN {
            return Err(ModulesError::Endless { name: name.to_owned() });
        }
        if let Some(module) = self.loaded.iter().find(|module| module.name == name) {
            return Ok(with(&module.closure, name));
        }
        let Some(path) = self.available.files.get(name).cloned() else {
            return self.builtin(name, wanted_by);
        };
        let content = read_module(&path)?;
        let info =
            Modinfo::parse(&content).map_err(|reason| ModulesError::Modinfo { path, reason })?;
        let soft = info.soft_depends.iter().filter(|it| self.available.files.contains_key(*it));
        let mut before: Vec<String> = soft.cloned().collect();
        before.extend(info.depends);
        let mut closure: Vec<String> = Vec::new();
        for dependency in before {
            for member in self.add(&dependency, name, depth + 1)? {
                if !closure.contains(&member) {
                    closure.push(member);
                }
            }
        }
        let content = match self.signatures {
            Signatures::Keep => content,
            Signatures::Drop => without_signature(&content).to_vec(),
        };
        let result = with(&closure, name);
        let (name, aliases, is_seldom) = (name.to_owned(), info.aliases, self.is_seldom);
        self.loaded.push(Module { name, content, aliases, closure, is_seldom });
        Ok(result)
    }

    fn builtin(&self, name: &str, wanted_by: &str) -> Result<Vec<String>, ModulesError> {
        if self.available.builtin.iter().any(|builtin| builtin == name) {
            return Ok(Vec::new());
        }
        Err(ModulesError::Missing {
            name: name.to_owned(),
            wanted_by: wanted_by.to_owned(),
            dir: self.available.dir.clone(),
        })
    }
}

fn with(closure: &[String], name: &str) -> Vec<String> {
    closure.iter().cloned().chain([name.to_owned()]).collect()
}

/// `…/virtio-rng.ko.xz` → `virtio_rng`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let uncompressed = [".xz", ".zst", ".gz"].iter().find_map(|suffix| file.strip_suffix(suffix));
    uncompressed.unwrap_or(file).strip_suffix(".ko").map(canonical)
}

/// The module's own bytes. Debian 12 has them as they are; newer releases compress them.
fn read_module(path: &Path) -> Result<Vec<u8>, ModulesError> {
    let Some(program) = packer(path) else {
        return fs::read(path).map_err(unreadable(path));
    };
    let failed =
        |detail: String| ModulesError::Decompress { path: path.to_owned(), program, detail };
    let output = Command::new(program).arg("-dcq").arg(path).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The program a module's file was compressed with, by the suffix the kernel's build gives it.
fn packer(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()? {
        "xz" => Some("xz"),
        "zst" => Some("zstd"),
        "gz" => Some("gzip"),
        _ => None,
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> ModulesError + use<> {
    let path = path.to_owned();
    move |reason| ModulesError::Read { path, reason }
}

#[cfg(test)]
mod tests;
