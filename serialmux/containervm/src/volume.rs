//! Volumes: disk images that containers have beside their own, and that outlive the VMs they are used in.
//!
//! ```text
//! data/volumes/<name>/volume.img    a volume of that name
//! data/volumes/<name>/export.json   one that is a directory of an NFS server
//! data/vms/<id>/volume-<n>.img      one without a name: it goes with its VM
//! ```
//!
//! The agent finds a volume by the label of its file system, 16 hexadecimal digits as VIC's. Which VM may write to
//! it is QEMU's to decide, which locks the images it uses.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use sha2::{Digest as _, Sha256};

pub use export::{Export, ExportError};

use crate::{
    ext4::{self, Ext4Error, FormatOptions},
    home::{Home, HomeError, private_dir},
    identity::{self, IdentityError},
    image::blob::hex,
    store::{Store, StoreError},
    tree::{Timestamp, Tree},
};

mod export;

const IMAGE: &str = "volume.img";
/// Disks that a controller can have beside the root's: 16 addresses, of which it has one itself.
pub const MAX_VOLUMES: usize = 14;
/// Size of a volume that nobody gave one, bytes. Only what is written takes space.
pub const DEFAULT_SIZE: u64 = 10 << 30;

/// `-v [NAME:]PATH[:OPTIONS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeOption {
    /// The volume's name; without one, a volume for this container alone.
    pub name: Option<String>,
    /// Where it goes in the container.
    pub dest: String,
    /// Whether the container may only read.
    pub read_only: bool,
    /// Whether a new volume gets what the image has in its place.
    pub copy: bool,
}

/// What is no such option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeOptionError {
    /// A directory of the host.
    #[error(
        "{0:?}: a directory of the host cannot be a volume, for a containerVM shares no file system with it; \
         name a volume (-v NAME:/path) and copy files with `serialmux cp`"
    )]
    HostDirectory(String),
    /// Something else.
    #[error(
        "{0:?} is no volume; expected NAME:/path or /path, then :ro, :rw or :nocopy if need be"
    )]
    Form(String),
}

impl FromStr for VolumeOption {
    type Err = VolumeOptionError;

    fn from_str(text: &str) -> Result<Self, VolumeOptionError> {
        let fault = || VolumeOptionError::Form(text.to_owned());
        let mut parts = text.split(':');
        let first = parts.next().unwrap_or_default();
        let second = parts.clone().next().filter(|part| part.starts_with('/'));
        let (name, dest) = match second {
            Some(_) if first.starts_with(['/', '.', '~']) => {
                return Err(VolumeOptionError::HostDirectory(text.to_owned()));
            }
            Some(dest) => {
                identity::check_name(first).map_err(|_| fault())?;
                parts.next();
                (Some(first.to_owned()), dest)
            }
            None => (None, first),
        };
        let names = || dest.split('/').filter(|name| !name.is_empty());
        if !dest.starts_with('/')
            || names().next().is_none()
            || names().any(|it| matches!(it, "." | ".."))
        {
            return Err(fault());
        }
        let mut option = Self { name, dest: dest.to_owned(), read_only: false, copy: true };
        for word in parts.flat_map(|part| part.split(',')) {
            match word {
                "ro" => option.read_only = true,
                "rw" => option.read_only = false,
                "nocopy" => option.copy = false,
                // For SELinux, of which there is none in here.
                "z" | "Z" => {}
                _ => return Err(fault()),
            }
        }
        Ok(option)
    }
}

/// A volume of a VM: what was asked for, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// What was asked for.
    pub option: VolumeOption,
    /// Where it is, and how the VM's agent finds it.
    pub place: Place,
}

/// Where a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In an image of this host.
    Image {
        /// The label of its file system.
        label: String,
        /// The image.
        image: PathBuf,
    },
    /// In a directory of a server.
    Export(Export),
}

/// Why something about a volume cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none.
    #[error("there is no volume {0:?}; `containervm volume ls` shows those there are")]
    NotFound(String),
    /// There is one.
    #[error("there is a volume {0:?} already; use it, or remove it first (containervm volume rm)")]
    Exists(String),
    /// It has a VM.
    #[error("the volume {name:?} belongs to {vms}; remove that first (containervm rm)")]
    InUse {
        /// The volume.
        name: String,
        /// The VMs, for people.
        vms: String,
    },
    /// More than fit.
    #[error("{0} volumes are too many for one container; {MAX_VOLUMES} are possible")]
    TooMany(usize),
    /// Two for one place.
    #[error("two volumes are to be mounted on {0}; give each a place of its own")]
    SamePlace(String),
    /// A name that cannot be, or no random numbers.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no place for volumes.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The VMs cannot be looked through.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be formatted.
    #[error("the volume {name:?} cannot be made: {source}")]
    Format {
        /// The volume.
        name: String,
        /// Why.
        source: Ext4Error,
    },
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// All volumes with a name of a [`Home`].
#[derive(Debug, Clone)]
pub struct Volumes {
    dir: PathBuf,
}

impl Volumes {
    /// The volumes of this home; their directory is made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(home: &Home) -> Result<Self, VolumeError> {
        let dir = home.volumes();
        private_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Makes a new volume.
    ///
    /// # Errors
    /// When there is one of that name, or no room.
    pub fn create(&self, name: &str, size: u64) -> Result<(), VolumeError> {
        if self.made(name, size)? { Ok(()) } else { Err(VolumeError::Exists(name.to_owned())) }
    }

    /// Takes note of a directory of a server as a new volume.
    ///
    /// # Errors
    /// When there is one of that name, or no room.
    pub fn create_on_server(&self, name: &str, export: &Export) -> Result<(), VolumeError> {
        let write = |dir: &Path| export.write(dir).map_err(failed(dir));
        if self.made_by(name, write)? { Ok(()) } else { Err(VolumeError::Exists(name.to_owned())) }
    }

    /// Their names, and what people are to know of them, by name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<(String, String)>, VolumeError> {
        let entries = fs::read_dir(&self.dir).map_err(failed(&self.dir))?;
        let sized = entries.flatten().filter_map(|entry| {
            let about = match Export::read(&entry.path()) {
                Some(export) => export.shown(),
                None => format!("{} MiB", fs::metadata(entry.path().join(IMAGE)).ok()?.len() >> 20),
            };
            Some((entry.file_name().to_string_lossy().into_owned(), about))
        });
        let mut all: Vec<_> = sized.filter(|(name, _)| !name.starts_with('.')).collect();
        all.sort();
        Ok(all)
    }

    /// Removes a volume that no VM has.
    ///
    /// # Errors
    /// When there is none, or a VM has it.
    pub fn remove(&self, name: &str, store: &Store) -> Result<(), VolumeError> {
        identity::check_name(name)?;
        let dir = self.dir.join(name);
        if !is_volume(&dir) {
            return Err(VolumeError::NotFound(name.to_owned()));
        }
        let image = dir.join(IMAGE);
        let shown = image.display().to_string();
        let has_it = |vmx: &Path| fs::read_to_string(vmx).is_ok_and(|text| text.contains(&shown));
        let vms = store.list()?.into_iter().filter(|vm| has_it(&vm.vmx()));
        let vms: Vec<String> = vms.map(|vm| vm.record.name).collect();
        if !vms.is_empty() {
            return Err(VolumeError::InUse { name: name.to_owned(), vms: vms.join(", ") });
        }
        fs::remove_dir_all(&dir).map_err(failed(&dir))
    }

    /// The images for a VM's volumes, made where they are missing; those without a name in `own`, which the VM will
    /// know as `target`.
    ///
    /// # Errors
    /// When they are too many, collide, or cannot be made.
    pub fn attach(
        &self,
        options: &[VolumeOption],
        own: &Path,
        target: &Path,
    ) -> Result<Vec<Attached>, VolumeError> {
        if options.len() > MAX_VOLUMES {
            return Err(VolumeError::TooMany(options.len()));
        }
        let mut places = BTreeSet::new();
        let mut attached = Vec::new();
        for (n, option) in options.iter().enumerate() {
            if !places.insert(option.dest.trim_end_matches('/')) {
                return Err(VolumeError::SamePlace(option.dest.clone()));
            }
            let place = match &option.name {
                Some(name) => {
                    self.made(name, DEFAULT_SIZE)?;
                    let dir = self.dir.join(name);
                    match Export::read(&dir) {
                        Some(export) => Place::Export(export),
                        None => Place::Image { label: label(name), image: dir.join(IMAGE) },
                    }
                }
                None => {
                    let (file, label) = (format!("volume-{n}.img"), label(&identity::id()?));
                    let path = own.join(&file);
                    make(&path, &label, DEFAULT_SIZE).map_err(|source| VolumeError::Format {
                        name: option.dest.clone(),
                        source,
                    })?;
                    Place::Image { label, image: target.join(file) }
                }
            };
            attached.push(Attached { option: option.clone(), place });
        }
        Ok(attached)
    }

    /// Makes the volume, a disk, if it is not there; whether it was made.
    fn made(&self, name: &str, size: u64) -> Result<bool, VolumeError> {
        self.made_by(name, |dir| {
            make(&dir.join(IMAGE), &label(name), size)
                .map_err(|source| VolumeError::Format { name: name.to_owned(), source })
        })
    }

    /// Makes a volume by filling its directory; whether it was made. It appears by one rename, whole.
    fn made_by(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<(), VolumeError>,
    ) -> Result<bool, VolumeError> {
        identity::check_name(name)?;
        let dir = self.dir.join(name);
        if is_volume(&dir) {
            return Ok(false);
        }
        let new = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.dir);
        let new = new.map_err(failed(&self.dir))?;
        fill(new.path())?;
        match fs::rename(new.path(), &dir) {
            Ok(()) => Ok(true),
            // Somebody else was faster, and it is as good.
            Err(_) if is_volume(&dir) => Ok(false),
            Err(source) => Err(VolumeError::File { path: dir, source }),
        }
    }
}

fn is_volume(dir: &Path) -> bool {
    dir.join(IMAGE).is_file() || Export::read(dir).is_some()
}

/// The label of the volume of this name.
#[must_use]
pub fn label(name: &str) -> String {
    let mut label = hex(&Sha256::digest(name.as_bytes()));
    label.truncate(16);
    label
}

fn make(path: &Path, label: &str, size: u64) -> Result<(), Ext4Error> {
    let file = File::options().create_new(true).read(true).write(true).mode(0o600).open(path)?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&Sha256::digest(label.as_bytes())[..16]);
    // Version 8 and variant 1 of RFC 9562: made from what we like.
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp { seconds: now.as_secs().cast_signed(), nanoseconds: 0 };
    let options = FormatOptions { label: label.to_owned(), uuid, size, time };
    ext4::write(&Tree::new(), &file, &options)?;
    Ok(file.sync_all()?)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(text: &str) -> VolumeOption {
        text.parse().unwrap()
    }

    #[test]
    fn an_option_is_a_name_a_place_and_words() {
        let data = option("data:/var/lib:ro,nocopy");
        assert_eq!((data.name.as_deref(), data.dest.as_str()), (Some("data"), "/var/lib"));
        assert!(data.read_only && !data.copy);
        let own = option("/cache");
        assert_eq!((own.name, own.dest.as_str(), own.copy), (None, "/cache", true));
        assert!(option("/cache:ro").read_only && !option("/cache:rw,z").read_only);
        for bad in ["", "data", "data:", "a b:/x", "/a/../b", "/", "data:/x:rw,fast", "a:b:/c"] {
            assert!(
                matches!(bad.parse::<VolumeOption>(), Err(VolumeOptionError::Form(_))),
                "{bad}"
            );
        }
        for host in ["/srv:/srv", "./x:/x", "~/x:/x:ro"] {
            let error = host.parse::<VolumeOption>().unwrap_err().to_string();
            assert!(error.contains("directory of the host"), "{error}");
        }
    }

    #[test]
    fn a_named_volume_is_made_once_and_one_without_goes_with_its_vm() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let volumes = Volumes::open(&home).unwrap();
        let own = dir.path().join("own");
        fs::create_dir(&own).unwrap();
        let options = [option("data:/a"), option("data:/b:ro"), option("/c")];
        let attached = volumes.attach(&options, &own, Path::new("/target")).unwrap();
        assert_eq!(attached[0].place, attached[1].place);
        let place = |at: usize| match &attached[at].place {
            Place::Image { label, image } => (label.clone(), image.clone()),
            Place::Export(export) => panic!("{export:?}"),
        };
        assert_eq!(place(0).0, label("data"));
        assert_eq!(place(2).1, Path::new("/target/volume-2.img"));
        assert!(own.join("volume-2.img").is_file());
        assert_eq!(volumes.list().unwrap(), [("data".to_owned(), "10240 MiB".to_owned())]);
        assert!(matches!(volumes.create("data", 1 << 20), Err(VolumeError::Exists(_))));
        let twice = [option("a:/x"), option("b:/x/")];
        let error = volumes.attach(&twice, &own, &own).unwrap_err();
        assert!(matches!(error, VolumeError::SamePlace(_)), "{error}");
        let store = Store::open(&home).unwrap();
        volumes.remove("data", &store).unwrap();
        assert!(matches!(volumes.remove("data", &store), Err(VolumeError::NotFound(_))));
    }

    #[test]
    fn a_directory_of_a_server_is_a_volume_by_name_and_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let (volumes, store) = (Volumes::open(&home).unwrap(), Store::open(&home).unwrap());
        let [host, path, options] = ["nas", "/srv", "soft"].map(str::to_owned);
        let export = Export { host, path, options };
        volumes.create_on_server("far", &export).unwrap();
        assert!(matches!(volumes.create_on_server("far", &export), Err(VolumeError::Exists(_))));
        assert!(matches!(volumes.create("far", 1 << 20), Err(VolumeError::Exists(_))));
        let attached = volumes.attach(&[option("far:/a:ro")], dir.path(), dir.path()).unwrap();
        assert_eq!(attached[0].place, Place::Export(export));
        assert_eq!(volumes.list().unwrap(), [("far".to_owned(), "nfs nas:/srv soft".to_owned())]);
        volumes.remove("far", &store).unwrap();
        assert!(volumes.list().unwrap().is_empty());
    }
}
