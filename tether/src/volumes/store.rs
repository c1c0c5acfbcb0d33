//! What is on a volume's disk: the data, in a directory of its own, so that a new volume looks empty.
//!
//! ```text
//! /                  what mkfs made: lost+found
//! /.vic.vol.data     what the container sees
//! /.vic.vol.copying  there while the image's content is copied: a copy that was cut off is begun again
//! ```
//!
//! The name is VIC's, whose volumes have it. A disk with other files and without that directory is a volume
//! as it is, and so is a directory of a server, which others see too: it gets what it is to hide only if that is
//! asked for.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat, mkdirat, openat,
    openat2, unlinkat,
};

use super::copy::{self, errno};
use super::{Medium, Volume, VolumeError};
use crate::inside::root::{ContainerRoot, reopen};
use crate::sys;

const DATA: &str = ".vic.vol.data";
const COPYING: &str = ".vic.vol.copying";
/// What mkfs makes for fsck.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A volume's disk, opened where the agent has it.
#[derive(Debug)]
pub struct Store {
    disk: OwnedFd,
    /// Whether it is the volume from its root on, and not this container's alone.
    is_shared: bool,
}

impl Store {
    /// Opens the disk of a volume that is mounted for the agent. To be called among the agent's files.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(volume: &Volume) -> Result<Option<Self>, VolumeError> {
        let Some(home) = &volume.home else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let disk = rustix::fs::open(home, flags, Mode::empty());
        let disk = disk.map_err(errno).map_err(volume.step("open its disk"))?;
        Ok(Some(Self { disk, is_shared: matches!(volume.medium, Medium::Export(_)) }))
    }

    /// Its descriptor's number.
    pub fn number(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.disk)
    }

    /// The volume's data as a detached mount, made ready for the container that `root` is: a new volume gets what
    /// that has in its place.
    ///
    /// # Errors
    ///
    /// [`VolumeError`].
    pub fn mount(&self, volume: &Volume, root: &ContainerRoot) -> Result<OwnedFd, VolumeError> {
        let data = self.data().map_err(volume.step("open the data on its disk"))?;
        let gets_something = volume.copy || !self.is_shared;
        if gets_something && self.is_new(&data).map_err(volume.step("look at what it holds"))? {
            self.fill(&data, volume, root)?;
        }
        let tree = sys::copy_mount_of(&data).map_err(volume.step("bind it"))?;
        if volume.read_only {
            sys::make_read_only(&tree).map_err(volume.step("make it read-only"))?;
        }
        Ok(tree)
    }

    fn data(&self) -> Result<OwnedFd, Errno> {
        if self.is_shared {
            return self.disk.try_clone().map_err(|_| Errno::EMFILE);
        }
        match self.open_data() {
            Err(Errno::ENOENT) => {}
            result => return result,
        }
        if is_empty(&self.disk)? {
            match mkdirat(&self.disk, DATA, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => return self.open_data(),
                // A disk that cannot be written to is as it is.
                Err(rustix::io::Errno::ROFS) => {}
                Err(error) => return Err(errno(error)),
            }
        }
        self.disk.try_clone().map_err(|_| Errno::EMFILE)
    }

    /// A link of that name, which a container could have made on a disk that it saw as it is, is refused.
    fn open_data(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.disk, DATA, flags, Mode::empty(), resolve).map_err(errno)
    }

    fn is_new(&self, data: &OwnedFd) -> Result<bool, Errno> {
        let marker = rustix::fs::statat(&self.disk, COPYING, AtFlags::SYMLINK_NOFOLLOW);
        Ok(marker.is_ok() || is_empty(data)?)
    }

    /// Owner, mode and, if asked for, content of the directory that the volume will hide.
    fn fill(
        &self,
        data: &OwnedFd,
        volume: &Volume,
        root: &ContainerRoot,
    ) -> Result<(), VolumeError> {
        let image = match root.directory(volume.dest.as_bytes()) {
            Ok(image) => image,
            // Nothing there to be like.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(volume.step("open its place in the container")(errno(error))),
        };
        let failed = |text: String| VolumeError::Copy { name: volume.name.clone(), text };
        let data = match reopen(data) {
            Ok(data) => data,
            Err(error) => return Err(volume.step("open its data")(errno(error))),
        };
        match self.fill_from(&image, &data, volume.copy) {
            Ok(()) => Ok(()),
            // Nothing can be put on such a disk; it is mounted as it is.
            Err(copy::CopyError::Kernel { error: rustix::io::Errno::ROFS, .. }) => Ok(()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn fill_from(
        &self,
        image: &OwnedFd,
        data: &OwnedFd,
        content: bool,
    ) -> Result<(), copy::CopyError> {
        let failed = copy::CopyError::at;
        if content {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let marker = openat(&self.disk, COPYING, flags, Mode::from_raw_mode(0o600));
            drop(marker.map_err(failed("mark", b""))?);
            copy::copy_tree(image, data)?;
            // What was copied is on the disk before the mark is gone (ext4 orders neither by itself).
            rustix::fs::syncfs(data).map_err(failed("write", b""))?;
        }
        let stat = fstat(image).map_err(failed("look at", b""))?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchown(data, Some(uid), Some(gid)).map_err(failed("chown", b""))?;
        fchmod(data, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(failed("chmod", b""))?;
        if content {
            unlinkat(&self.disk, COPYING, AtFlags::empty()).map_err(failed("unmark", b""))?;
        }
        Ok(())
    }
}

/// Whether a directory holds nothing but what belongs to its file system.
fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let directory = reopen(directory).map_err(errno)?;
    for entry in Dir::read_from(&directory).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && name != LOST_AND_FOUND && name != COPYING.as_bytes() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn volume(copy: bool) -> Volume {
        let spec = guestinfo::MountSpec {
            source: guestinfo::Url {
                scheme: "label".into(),
                path: "x".into(),
                ..guestinfo::Url::default()
            },
            dest: "/data".into(),
            ..guestinfo::MountSpec::default()
        };
        Volume { copy, ..Volume::of("v", &spec).unwrap() }
    }

    fn store(disk: &Path) -> Store {
        let volume = Volume { home: Some(disk.to_owned()), ..volume(false) };
        Store::open(&volume).unwrap().unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_volume_is_like_what_it_hides_and_a_used_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, image) = (dir.path().join("disk"), dir.path().join("image"));
        fs::create_dir_all(disk.join("lost+found")).unwrap();
        fs::create_dir_all(image.join("data/sub")).unwrap();
        fs::write(image.join("data/sub/file"), "image").unwrap();
        fs::set_permissions(image.join("data"), fs::Permissions::from_mode(0o1750)).unwrap();
        let (store, root) = (store(&disk), ContainerRoot::at(&image));
        let data = store.data().unwrap();
        assert!(store.is_new(&data).unwrap());
        store.fill(&data, &volume(true), &root).unwrap();
        let own = disk.join(DATA);
        assert_eq!(names(&own), ["sub"]);
        assert_eq!(names(&disk), [DATA, "lost+found"]);
        assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o7777, 0o1750);
        let data = store.data().unwrap();
        assert!(!store.is_new(&data).unwrap(), "it is used now");
        // A copy that was cut off is begun again, over what it left.
        fs::write(disk.join(COPYING), "").unwrap();
        fs::write(own.join("sub/file"), "half").unwrap();
        assert!(store.is_new(&data).unwrap());
        store.fill(&data, &volume(true), &root).unwrap();
        assert_eq!(fs::read_to_string(own.join("sub/file")).unwrap(), "image");
        assert!(!store.is_new(&data).unwrap());
    }

    #[test]
    fn without_copying_a_new_volume_only_has_the_owner_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, image) = (dir.path().join("disk"), dir.path().join("image"));
        fs::create_dir_all(&disk).unwrap();
        fs::create_dir_all(image.join("data/sub")).unwrap();
        let store = store(&disk);
        let data = store.data().unwrap();
        store.fill(&data, &volume(false), &ContainerRoot::at(&image)).unwrap();
        assert_eq!(names(&disk.join(DATA)), Vec::<String>::new());
        let nowhere = dir.path().join("nowhere");
        fs::create_dir(&nowhere).unwrap();
        store.fill(&data, &volume(true), &ContainerRoot::at(&nowhere)).unwrap();
    }

    #[test]
    fn a_directory_of_a_server_is_a_volume_from_its_root_on() {
        let dir = tempfile::tempdir().unwrap();
        let (share, image) = (dir.path().join("share"), dir.path().join("image"));
        fs::create_dir_all(&share).unwrap();
        fs::create_dir_all(image.join("data")).unwrap();
        fs::write(image.join("data/file"), "image").unwrap();
        let store = Store { is_shared: true, ..store(&share) };
        let data = store.data().unwrap();
        assert!(store.is_new(&data).unwrap());
        store.fill(&data, &volume(true), &ContainerRoot::at(&image)).unwrap();
        assert_eq!(names(&share), ["file"], "no directory of its own, and no mark left");
    }

    #[test]
    fn a_disk_of_other_files_is_a_volume_as_it_is_and_a_link_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "").unwrap();
        let own = store(dir.path());
        let data = own.data().unwrap();
        assert!(!own.is_new(&data).unwrap());
        assert_eq!(names(dir.path()), ["precious"]);
        symlink("/etc", dir.path().join(DATA)).unwrap();
        assert_eq!(own.data().unwrap_err(), Errno::ELOOP);
    }
}
