//! The container's volumes: what the config wants mounted beside the root, and how far each has come.
//!
//! ```text
//!  wanted ── its disk is here ────▶ mounted for the agent ── by the container's process ──▶ in the container
//!         └─ its server answers ─▶                       └─── by a child, while it runs ──▶
//! ```
//!
//! The agent mounts each disk once, below `HOME`, where no path of the container leads; a server is asked by a
//! child ([`reaching`]), for as long as it may take. What the container gets is a bind mount of the volume's data on it ([`store`]), put in its place ([`place`]) from inside the
//! container's mount namespace: by its first process before that becomes its program, or while it runs by a
//! child of the agent ([`joining`]).

pub mod copy;
pub mod errand;
pub mod joining;
pub mod nfs;
pub mod place;
pub mod reaching;
pub mod store;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use guestinfo::{CopyMode, MountSpec, Tmpfs, TmpfsError};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use thiserror::Error;

use crate::boot::disk::CONTAINERFS;
use crate::process::executable::errno_text;
use nfs::Export;

/// Where the agent mounts the volumes' disks.
const HOME: &str = "/run/tether/volumes";

/// Why a volume is not in the container.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VolumeError {
    /// A source that this agent does not know.
    #[error(
        "volume {name}: its source {source_url:?} is nothing this agent can mount; expected a disk's label \
         (source/Scheme = label, source/Path = LABEL), a server's directory (nfs, Host and Path) or memory (tmpfs)"
    )]
    Source {
        /// The volume.
        name: String,
        /// Its source, for people.
        source_url: String,
    },
    /// The label of the container's own disk, or none.
    #[error(
        "volume {name}: {label:?} cannot be a volume's label; give its file system another (e2label)"
    )]
    Label {
        /// The volume.
        name: String,
        /// Its label.
        label: String,
    },
    /// A place where nothing can be mounted.
    #[error(
        "volume {name}: cannot be mounted on {dest:?}; expected an absolute path below /, without \"..\""
    )]
    Dest {
        /// The volume.
        name: String,
        /// Where it was to go.
        dest: String,
    },
    /// Options that no tmpfs has.
    #[error("volume {name}: {error}")]
    Options {
        /// The volume.
        name: String,
        /// What is wrong with them.
        error: TmpfsError,
    },
    /// Its disk did not come.
    #[error(
        "volume {name}: no disk with an ext4 file system labeled {label} came in {seconds} s; attach it, or label it so (e2label)"
    )]
    NoDisk {
        /// The volume.
        name: String,
        /// The label.
        label: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The kernel refused a step.
    #[error("volume {name}: cannot {step}: {}", errno_text(*errno))]
    Step {
        /// The volume.
        name: String,
        /// What was being done.
        step: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// A directory of a server that cannot be.
    #[error("volume {name}: {error}")]
    Export {
        /// The volume.
        name: String,
        /// What is wrong with it.
        error: &'static str,
    },
    /// Its server does not let it be mounted, or does not answer.
    #[error("volume {name}: {text}")]
    Server {
        /// The volume.
        name: String,
        /// What went wrong, with the server.
        text: String,
    },
    /// The image's content could not be copied to the volume.
    #[error("volume {name}: the image's content cannot be copied to it: {text}")]
    Copy {
        /// The volume.
        name: String,
        /// What went wrong, with the path.
        text: String,
    },
}

/// Where a volume's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    /// On the disk with this label.
    Disk(String),
    /// In a directory of a server.
    Export(Export),
    /// In memory.
    Memory(Tmpfs),
}

/// A volume, as the config wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name in the config.
    pub name: String,
    /// Where its bytes are.
    pub medium: Medium,
    /// Where it goes in the container.
    pub dest: String,
    /// Whether the container may only read.
    pub read_only: bool,
    /// Whether it gets what the image has in its place, if it is new.
    pub copy: bool,
    /// Where the agent has it; absent until it is mounted, and for memory.
    pub home: Option<PathBuf>,
}

impl Volume {
    /// The volume of this name.
    ///
    /// # Errors
    ///
    /// When there can be no such volume.
    pub fn of(name: &str, spec: &MountSpec) -> Result<Self, VolumeError> {
        let name = name.to_owned();
        let mut parts = spec.dest.split('/').filter(|part| !part.is_empty()).peekable();
        let odd = |part: &str| matches!(part, "." | "..") || part.contains('\0');
        if !spec.dest.starts_with('/') || parts.peek().is_none() || parts.any(odd) {
            return Err(VolumeError::Dest { name, dest: spec.dest.clone() });
        }
        let medium = match spec.source.scheme.as_str() {
            "label" => match spec.source.path.trim_start_matches('/') {
                label @ ("" | CONTAINERFS) => {
                    return Err(VolumeError::Label { name, label: label.to_owned() });
                }
                label => Medium::Disk(label.to_owned()),
            },
            "tmpfs" => {
                let tmpfs = format!("{}:{}", spec.dest, spec.mode).parse();
                let options = |error| VolumeError::Options { name: name.clone(), error };
                Medium::Memory(tmpfs.map_err(options)?)
            }
            "nfs" => match Export::of(spec) {
                Ok(export) => Medium::Export(export),
                Err(error) => return Err(VolumeError::Export { name, error }),
            },
            _ => return Err(VolumeError::Source { name, source_url: spec.source.to_string() }),
        };
        Ok(Self {
            read_only: spec.mode.split(',').any(|word| word == "ro"),
            copy: spec.copy_mode == CopyMode::New,
            dest: spec.dest.clone(),
            home: None,
            medium,
            name,
        })
    }

    /// The label of its disk.
    pub fn label(&self) -> Option<&str> {
        match &self.medium {
            Medium::Disk(label) => Some(label),
            Medium::Export(_) | Medium::Memory(_) => None,
        }
    }

    /// For `map_err`: what the kernel said to a step.
    pub(crate) fn step<'a>(&'a self, step: &'a str) -> impl FnOnce(Errno) -> VolumeError + 'a {
        move |errno| VolumeError::Step { name: self.name.clone(), step: step.to_owned(), errno }
    }
}

/// The volumes of the container.
#[derive(Debug, Default)]
pub struct Volumes {
    all: BTreeMap<String, Volume>,
    /// Disks that are mounted, by label, and where.
    disks: BTreeMap<String, PathBuf>,
    n_homes: usize,
}

impl Volumes {
    /// Wants a volume from now on.
    pub fn want(&mut self, mut volume: Volume) {
        volume.home = volume.label().and_then(|label| self.disks.get(label)).cloned();
        self.all.insert(volume.name.clone(), volume);
    }

    /// Wants a volume no more, because there is no way to have it.
    pub fn give_up(&mut self, name: &str) {
        self.all.remove(name);
    }

    /// The labels of disks that are not mounted yet, each once.
    pub fn missing(&self) -> Vec<String> {
        let mut labels: Vec<String> = self.unmounted().map(|(label, _)| label.to_owned()).collect();
        labels.sort();
        labels.dedup();
        labels
    }

    /// The volumes whose servers have not let them be mounted yet.
    pub fn afar(&self) -> Vec<String> {
        let is_afar = |it: &&Volume| it.home.is_none() && matches!(it.medium, Medium::Export(_));
        self.all.values().filter(is_afar).map(|volume| volume.name.clone()).collect()
    }

    /// Whether all are there that the container is to find.
    pub fn are_here(&self) -> bool {
        self.unmounted().next().is_none() && self.afar().is_empty()
    }

    /// A directory for the agent's mount of something.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new_home(&mut self) -> Result<PathBuf, Errno> {
        let home = Path::new(HOME).join(self.n_homes.to_string());
        self.n_homes += 1;
        fs::create_dir_all(&home)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(home)
    }

    /// Takes note that a volume's server has let it be mounted there.
    pub fn reached(&mut self, name: &str, home: PathBuf) {
        if let Some(volume) = self.all.get_mut(name) {
            volume.home = Some(home);
        }
    }

    /// The volumes that wait for the disk of this label.
    pub fn waiting_for(&self, label: &str) -> Vec<String> {
        let waiting = self.unmounted().filter(|(of, _)| *of == label);
        waiting.map(|(_, volume)| volume.name.clone()).collect()
    }

    fn unmounted(&self) -> impl Iterator<Item = (&str, &Volume)> {
        let waiting = self.all.values().filter(|volume| volume.home.is_none());
        waiting.filter_map(|volume| Some((volume.label()?, volume)))
    }

    /// The volume of this name.
    pub fn get(&self, name: &str) -> Option<&Volume> {
        self.all.get(name)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Volume> {
        self.all.values()
    }

    /// Mounts the disk of this label for the volumes that wait for it.
    ///
    /// # Errors
    ///
    /// What the kernel said, in the words of the first of these volumes.
    pub fn mount(&mut self, label: &str, device: &Path) -> Result<(), VolumeError> {
        let names = self.waiting_for(label);
        let home = self.new_home();
        let Some(first) = names.first().and_then(|name| self.all.get(name)) else { return Ok(()) };
        let shown = format!("mount the disk {} as ext4", device.display());
        let home = home.map_err(first.step("make a directory in /run"))?;
        mount_disk(device, &home).map_err(first.step(&shown))?;
        self.disks.insert(label.to_owned(), home.clone());
        for name in names {
            if let Some(volume) = self.all.get_mut(&name) {
                volume.home = Some(home.clone());
            }
        }
        Ok(())
    }
}

/// Writable, so that the data has a directory of its own; unless the disk itself is not.
fn mount_disk(device: &Path, home: &Path) -> Result<(), Errno> {
    let try_with = |flags| mount(Some(device), home, Some("ext4"), flags, None::<&str>);
    match try_with(MsFlags::MS_NOATIME) {
        Err(Errno::EACCES | Errno::EROFS) => try_with(MsFlags::MS_NOATIME | MsFlags::MS_RDONLY),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestinfo::Url;

    fn spec(scheme: &str, path: &str, dest: &str, mode: &str) -> MountSpec {
        let source = Url { scheme: scheme.to_owned(), path: path.to_owned(), ..Url::default() };
        let (dest, mode) = (dest.to_owned(), mode.to_owned());
        MountSpec { source, dest, mode, copy_mode: CopyMode::New }
    }

    #[test]
    fn a_volume_is_a_labeled_disk_or_memory() {
        let disk = Volume::of("data", &spec("label", "8d777f385d3dfec8", "/data", "rw")).unwrap();
        assert_eq!(disk.label(), Some("8d777f385d3dfec8"));
        assert!(disk.copy && !disk.read_only);
        assert!(Volume::of("x", &spec("label", "x", "/x", "nocopy,ro")).unwrap().read_only);
        let memory = Volume::of("m", &spec("tmpfs", "", "/m", "size=64m,ro")).unwrap();
        assert_eq!(memory.medium, Medium::Memory("/m:size=64m,ro".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_a_volume_is_named_with_what_to_do() {
        let refused = |spec| Volume::of("v", &spec).expect_err("no volume").to_string();
        for dest in ["", "/", "data", "/a/../b", "/./a", "/a\0"] {
            assert!(refused(spec("label", "x", dest, "")).contains("absolute path"), "{dest:?}");
        }
        for label in ["", "containerfs"] {
            assert!(refused(spec("label", label, "/d", "")).contains("e2label"), "{label:?}");
        }
        assert!(refused(spec("nfs", "/export", "/d", "soft")).contains("no server"));
        assert!(refused(spec("cifs", "/export", "/d", "")).contains("cifs:///export"));
        assert!(refused(spec("tmpfs", "", "/d", "bogus")).contains("bogus"));
        assert!(refused(MountSpec::default()).starts_with("volume v: "));
    }

    #[test]
    fn a_directory_of_a_server_is_afar_until_it_is_reached() {
        let mut volumes = Volumes::default();
        volumes.want(Volume::of("n", &spec("nfs", "/v1", "/n", "addr=h,ro")).unwrap());
        assert!(volumes.get("n").unwrap().read_only && volumes.missing().is_empty());
        assert_eq!((volumes.afar(), volumes.are_here()), (vec!["n".to_owned()], false));
        volumes.reached("n", "/there".into());
        assert!(volumes.afar().is_empty() && volumes.are_here());
    }

    #[test]
    fn two_volumes_of_one_disk_wait_for_it_together() {
        let mut volumes = Volumes::default();
        for (name, label) in [("a", "one"), ("b", "one"), ("c", "two")] {
            volumes.want(Volume::of(name, &spec("label", label, "/d", "")).unwrap());
        }
        volumes.want(Volume::of("m", &spec("tmpfs", "", "/m", "")).unwrap());
        assert_eq!(volumes.missing(), ["one", "two"]);
        assert_eq!(volumes.waiting_for("one"), ["a", "b"]);
        volumes.give_up("c");
        assert_eq!(volumes.missing(), ["one"]);
        volumes.disks.insert("one".into(), "/there".into());
        volumes.want(Volume::of("d", &spec("label", "one", "/e", "")).unwrap());
        assert_eq!(volumes.get("d").unwrap().home.as_deref(), Some(Path::new("/there")));
    }
}
