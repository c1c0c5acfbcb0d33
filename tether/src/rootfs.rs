//! The container's root: the image's file system and what every container finds mounted on it.
//!
//! The agent mounts the disk and keeps its own files outside; the container's process then makes the disk its
//! root from inside its own mount namespace ([`Rootfs::enter`]). Everything after that change resolves inside
//! the image, so whatever links the image holds can only lead back into it. Where a link would surprise, it
//! is refused: `/proc`, `/sys` and `/dev` must be plain directories.
//!
//! The root is moved and entered, not pivoted: the kernel refuses `pivot_root(2)` while the old root is the
//! initramfs. The agent's other mounts stay beneath the new root, where no path leads.

mod mounts;

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use guestinfo::{ContainerSpec, Tmpfs};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{chdir, chroot, mkdir};

use crate::inside::root::ContainerRoot;
use crate::process::failure::StartFailure;
use crate::sys;
use crate::volumes::store::Store;
use crate::volumes::{Medium, Volume, VolumeError, place};

pub(crate) use mounts::tmpfs_options;

/// Where the agent mounts the container's disk.
pub const MOUNT_POINT: &str = "/containerfs";
/// The pseudo-terminals of the container, as the agent sees them.
pub const PTS: &str = "/run/tether/pts";
/// The files that are mounted over the image's.
const ETC: &str = "/run/tether/etc";

/// The most that is read of a file of the image.
const MAX_SMALL_FILE: u64 = 1 << 20;
/// Bytes of a buffer that are free when all is read.
const SPARE: usize = 64;
/// What a link may lead to can also be a file that only looks regular: reading `/proc/kmsg` would wait.
const ODD: libc::c_int = libc::O_NOCTTY | libc::O_NONBLOCK;
/// As many links as the kernel follows in one path (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// The devices of a container: Docker's list, by `Documentation/admin-guide/devices.txt`.
const DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// The texts of the files that a container finds over its image's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// `/etc/hostname`.
    pub hostname: String,
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`; absent leaves the image's own.
    pub resolv_conf: Option<String>,
}

/// A mounted root, ready for a process.
#[derive(Debug)]
pub struct Rootfs {
    /// Names below `/etc` with a file below [`ETC`].
    files: Vec<&'static str>,
    /// What else is mounted, and how.
    around: ContainerSpec,
    volumes: Vec<Volume>,
}

impl Rootfs {
    /// Mounts `device` (ext4) and the container's pseudo-terminals, and writes the files for `/etc`. The memory
    /// in `around` is what the container may use here.
    ///
    /// # Errors
    ///
    /// The kernel's, with the step.
    pub fn mount(
        device: &Path,
        etc: &EtcFiles,
        around: &ContainerSpec,
        volumes: Vec<Volume>,
    ) -> Result<Self, StartFailure> {
        let failed = StartFailure::machine;
        fs::create_dir_all(MOUNT_POINT).map_err(|e| failed("make the mount point")(number(&e)))?;
        mount(Some(device), MOUNT_POINT, Some("ext4"), MsFlags::MS_NOATIME, None::<&str>)
            .map_err(failed("mount the container's disk as ext4 (the kernel's log has the reason, e2fsck may help)"))?;
        fs::create_dir_all(PTS).map_err(|e| failed("make a directory in /run")(number(&e)))?;
        let options = Some("newinstance,ptmxmode=0666,mode=0620,gid=5");
        mount(
            Some("devpts"),
            PTS,
            Some("devpts"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            options,
        )
        .map_err(failed("mount pseudo-terminals"))?;
        let files =
            write_etc(etc).map_err(|e| failed("write the container's /etc files")(number(&e)))?;
        Ok(Self { files, around: around.clone(), volumes })
    }

    /// What a test needs that starts nothing in it.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self { files: Vec::new(), around: ContainerSpec::default(), volumes: Vec::new() }
    }

    /// Takes a further volume, for the runs to come.
    pub fn add(&mut self, volume: Volume) {
        self.remove(&volume.name);
        self.volumes.push(volume);
    }

    /// Leaves a volume out, in the runs to come.
    pub fn remove(&mut self, name: &str) {
        self.volumes.retain(|volume| volume.name != name);
    }

    /// Makes this the root of the calling process, which must be alone in its mount namespace, and mounts
    /// what a container expects. `terminal` is the number of the process's terminal, which becomes
    /// `/dev/console`.
    ///
    /// # Errors
    ///
    /// What the image, the disk or the kernel refuses, with the path.
    pub fn enter(&self, terminal: Option<u32>) -> Result<(), StartFailure> {
        let none = None::<&str>;
        // Nothing of this may travel back to the agent's namespace, nor later mounts of it in here.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(StartFailure::machine("make mounts private"))?;
        let pts = detached(PTS)?;
        let console = terminal.map(|number| detached(&format!("{PTS}/{number}"))).transpose()?;
        let files = self.files.iter().map(|name| Ok((*name, detached(&format!("{ETC}/{name}"))?)));
        let files = files.collect::<Result<Vec<_>, StartFailure>>()?;
        let stores = self.volumes.iter().map(Store::open).collect::<Result<Vec<_>, _>>()?;
        change_root()?;
        mounts::mount_usual(self.around.shm_size, self.around.memory)?;
        make_devices()?;
        attach(&pts, &plain_directory("/dev/pts")?, "/dev/pts")?;
        if let Some(console) = console {
            attach(&console, &create_file(Path::new("/dev/console"))?, "/dev/console")?;
        }
        if self.around.mask_paths {
            mounts::mask()?;
        }
        self.mount_further(&stores)?;
        // These lead to the agent's files, and the image's links are followed from here on.
        drop((pts, stores));
        // Last, so that a volume on /etc does not hide them.
        for (name, file) in &files {
            let path = format!("/etc/{name}");
            if let Some(target) = file_target(Path::new(&path))? {
                attach(file, &target, &path)?;
            }
        }
        Ok(())
    }

    /// Mounts volumes and memory, what lies above before what lies below. What volumes copy from the image is
    /// copied before anything is mounted over it.
    fn mount_further(&self, stores: &[Option<Store>]) -> Result<(), StartFailure> {
        enum Item<'a> {
            Tree(&'a Volume, OwnedFd),
            Memory(&'a Tmpfs),
        }
        let failed = || StartFailure::machine("open the root")(Errno::EIO);
        let root = ContainerRoot::open_own().map_err(|_| failed())?;
        let mut items: Vec<(&str, Item<'_>)> =
            self.around.tmpfs.iter().map(|tmpfs| (tmpfs.path(), Item::Memory(tmpfs))).collect();
        for (volume, store) in self.volumes.iter().zip(stores) {
            let item = match (&volume.medium, store) {
                (Medium::Memory(tmpfs), _) => Item::Memory(tmpfs),
                (_, Some(store)) => Item::Tree(volume, store.mount(volume, &root)?),
                (_, None) => continue,
            };
            items.push((&volume.dest, item));
        }
        items.sort_by(|a, b| a.0.split('/').cmp(b.0.split('/')));
        items.into_iter().try_for_each(|(path, item)| match item {
            Item::Memory(tmpfs) => mounts::mount_tmpfs(&root, tmpfs, self.around.memory),
            Item::Tree(volume, tree) => place::attach(&tree, &root, path).map_err(|errno| {
                let (name, step) = (volume.name.clone(), format!("mount it on {path}"));
                VolumeError::Step { name, step, errno }.into()
            }),
        })
    }

    /// Makes the root read-only if it is to be: the last step, when nothing more has to be made in it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn seal(&self) -> Result<(), StartFailure> {
        if self.around.read_only {
            mounts::seal().map_err(StartFailure::machine("make the root read-only"))?;
        }
        Ok(())
    }
}

/// Reads a file of the image that is small by nature: at most 1 MiB, and only when it is a regular file; an
/// absent or odd one reads as empty.
pub fn read_small(path: &str) -> String {
    let regular = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let mut bytes = Vec::new();
    if let Some(metadata) = regular
        && let Ok(file) = fs::OpenOptions::new().read(true).custom_flags(ODD).open(path)
    {
        // With room to spare, so that one read finds all and the next one nothing.
        let expected = metadata.len().min(MAX_SMALL_FILE);
        bytes.reserve(usize::try_from(expected).unwrap_or(0) + SPARE);
        // A read error leaves what was read: the lookup then says what is missing.
        let _partial = file.take(MAX_SMALL_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|odd| String::from_utf8_lossy(odd.as_bytes()).into_owned())
}

fn write_etc(etc: &EtcFiles) -> io::Result<Vec<&'static str>> {
    fs::create_dir_all(ETC)?;
    let hostname = format!("{}\n", etc.hostname);
    let texts = [
        ("hostname", Some(&hostname)),
        ("hosts", Some(&etc.hosts)),
        ("resolv.conf", etc.resolv_conf.as_ref()),
    ];
    let mut names = Vec::new();
    for (name, text) in texts {
        if let Some(text) = text {
            fs::write(Path::new(ETC).join(name), text)?;
            names.push(name);
        }
    }
    Ok(names)
}

/// Changes what the container finds below `/etc`, in place: lines of its own stay.
///
/// # Errors
///
/// The kernel's.
pub fn update_etc(old: &EtcFiles, new: &EtcFiles) -> io::Result<()> {
    let files = [
        ("hosts", Some(&old.hosts), Some(&new.hosts)),
        ("resolv.conf", old.resolv_conf.as_ref(), new.resolv_conf.as_ref()),
    ];
    for (name, old, new) in files {
        let (Some(old), new) = (old, new.map_or("", String::as_str)) else { continue };
        let path = Path::new(ETC).join(name);
        let now = fs::read_to_string(&path)?;
        let text = updated(&now, old, new);
        if text != now {
            // Not by a new file: this one is what is mounted.
            fs::write(&path, text)?;
        }
    }
    Ok(())
}

/// A text without the lines that are not in its template any more, and with those that are new there.
fn updated(now: &str, old: &str, new: &str) -> String {
    let has = |text: &str, line: &str| text.lines().any(|it| it == line);
    let kept = now.lines().filter(|line| !has(old, line) || has(new, line));
    let added = new.lines().filter(|line| !has(now, line));
    kept.chain(added).flat_map(|line| [line, "\n"]).collect()
}

fn change_root() -> Result<(), StartFailure> {
    let failed = || StartFailure::machine("enter the container's root");
    chdir(MOUNT_POINT).map_err(failed())?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(failed())?;
    chroot(".").map_err(failed())?;
    chdir("/").map_err(failed())
}

fn make_devices() -> Result<(), StartFailure> {
    // The mask would take the write bits from everybody's devices.
    let mask = umask(Mode::empty());
    for (path, major, minor) in DEVICES {
        mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
            .map_err(StartFailure::rootfs("make", path))?;
    }
    umask(mask);
    for (target, path) in LINKS {
        symlink(target, path)
            .map_err(|error| StartFailure::rootfs("make", path)(number(&error)))?;
    }
    Ok(())
}

/// Makes the directory when it is missing and refuses one that is a link or something else.
fn plain_directory(path: &'static str) -> Result<OwnedFd, StartFailure> {
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(StartFailure::rootfs("make", path)(errno)),
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOTDIR | Errno::ELOOP => StartFailure::NotPlain(path),
        other => StartFailure::rootfs("open", path)(other),
    })
}

/// The file to mount over at `path`, made with its directories when it is missing, behind whatever links the
/// image has there (distributions link `/etc/resolv.conf` into `/run`). `None` when the image has a directory
/// there, which keeps its place.
fn file_target(path: &Path) -> Result<Option<OwnedFd>, StartFailure> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(None),
        Ok(_) => {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            open(path, flags, Mode::empty())
                .map(Some)
                .map_err(StartFailure::rootfs("open", &path.to_string_lossy()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_file(&follow(path)?).map(Some)
        }
        Err(error) => Err(StartFailure::rootfs("look at", &path.to_string_lossy())(number(&error))),
    }
}

/// The place that a dangling chain of links points at.
fn follow(path: &Path) -> Result<PathBuf, StartFailure> {
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&place) {
            // Joining an absolute target replaces the path.
            Ok(target) => place = place.parent().unwrap_or(Path::new("/")).join(target),
            Err(_no_link) => return Ok(place),
        }
    }
    Err(StartFailure::rootfs("follow", &path.to_string_lossy())(Errno::ELOOP))
}

fn create_file(path: &Path) -> Result<OwnedFd, StartFailure> {
    let name = path.to_string_lossy();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| {
            StartFailure::rootfs("make the directory of", &name)(number(&error))
        })?;
    }
    let flags =
        OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::from_bits_truncate(0o644)).map_err(StartFailure::rootfs("make", &name))
}

fn detached(path: &str) -> Result<OwnedFd, StartFailure> {
    let path = CString::new(path).map_err(|_| StartFailure::ZeroByte("a path"))?;
    sys::copy_mount(&path).map_err(StartFailure::machine("copy a mount"))
}

fn attach(mount: &OwnedFd, target: &OwnedFd, path: &str) -> Result<(), StartFailure> {
    sys::attach_mount(mount, target).map_err(StartFailure::rootfs("mount", path))
}

fn number(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read_and_only_their_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        fs::write(path("passwd"), "root:x:0:0::/root:\n").unwrap();
        fs::write(path("huge"), vec![b'x'; 3 << 20]).unwrap();
        nix::unistd::mkfifo(dir.path().join("fifo").as_path(), Mode::from_bits_truncate(0o600))
            .unwrap();
        assert_eq!(read_small(&path("passwd")), "root:x:0:0::/root:\n");
        assert_eq!(read_small(&path("huge")).len(), 1 << 20);
        for odd in ["fifo", "absent", "."] {
            assert_eq!(read_small(&path(odd)), "", "{odd}");
        }
    }

    #[test]
    fn what_is_changed_in_a_file_leaves_the_containers_own_lines() {
        let (old, new) =
            ("127.0.0.1 localhost\n10.0.0.1 box\n", "127.0.0.1 localhost\n10.0.0.2 box\n");
        let now = "# mine\n127.0.0.1 localhost\n10.0.0.1 box\n10.0.0.9 other";
        let expected = "# mine\n127.0.0.1 localhost\n10.0.0.9 other\n10.0.0.2 box\n";
        assert_eq!(updated(now, old, new), expected);
        assert_eq!(updated(expected, new, new), expected);
        assert_eq!(updated(expected, new, ""), "# mine\n10.0.0.9 other\n");
    }

    #[test]
    fn a_missing_file_is_made_behind_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).unwrap();
        symlink("../run/systemd/resolv.conf", etc.join("resolv.conf")).unwrap();
        let target = file_target(&etc.join("resolv.conf")).unwrap();
        assert!(target.is_some());
        assert!(dir.path().join("run/systemd/resolv.conf").is_file());
    }

    #[test]
    fn a_directory_in_the_files_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert!(file_target(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_circle_of_links_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let failure = file_target(&dir.path().join("a")).expect_err("a circle");
        assert!(failure.to_string().contains("ymbolic"), "{failure}");
    }

    #[test]
    fn a_link_is_no_plain_directory() {
        // Linux has this link everywhere, and everywhere it leads to a directory.
        assert_eq!(
            plain_directory("/proc/self").expect_err("a link"),
            StartFailure::NotPlain("/proc/self")
        );
        assert!(plain_directory("/proc").is_ok());
    }
}
