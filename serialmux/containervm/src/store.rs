//! The containerVMs on this host: one directory each, found by name or id.
//!
//! ```text
//! vms/.lock             held while names are compared, appear and go, and while it is found out who runs
//! vms/<id>/vm.json      name, image, when created        <name>.vmx   what it is, mode 0600: it holds the key
//! vms/<id>/lock         flock(2), held by the VM's QEMU   containerfs.img, console.log, qemu.log, qemu.pid
//! vms/<id>/exit.json    how it ended                      qmp.sock     control, while it runs
//! vms/<id>/starting      flock(2), held by who made it to start it at once
//! vms/.new-<id>/        being made; its lock is held       vms/.gone-<id>/   being removed
//! ```
//!
//! A VM runs exactly as long as someone holds its lock: QEMU inherits the locked file, so neither a crash of whoever
//! started it nor a reused process id can be mistaken for anything. A directory appears and goes by renaming.

mod draft;
mod exit;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::{
    draft::{Draft, Starting},
    exit::Exit,
};
use crate::{
    home::{Home, HomeError, private_dir},
    identity::IdentityError,
    image::{self, ImageError},
    kernel,
    lock::{self, Held},
    qmp::QmpError,
    supervise,
};

const RECORD: &str = "vm.json";
const LOCK: &str = "lock";
const STARTING: &str = "starting";
const NEW: &str = ".new-";
const GONE: &str = ".gone-";
/// Name of a VM's own disk.
pub const DISK: &str = "containerfs.img";
/// Name of the file with what the guest's kernel and agent say.
pub const CONSOLE: &str = "console.log";
/// Name of the file with the process id of a VM's QEMU, valid while the lock is held.
pub(crate) const PID: &str = "qemu.pid";

/// Why something about a VM cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another VM has the name.
    #[error(
        "the name {name:?} is in use by the containerVM {}; remove that one (containervm rm {name}) or choose another",
        short(id)
    )]
    NameInUse {
        /// The name.
        name: String,
        /// The VM that has it.
        id: String,
    },
    /// No VM of that name or id.
    #[error(
        "no containerVM is called {0:?}, and no id begins so; `containervm ls` shows those there are"
    )]
    NotFound(String),
    /// Several ids begin so.
    #[error("{prefix:?} is the beginning of {n} ids; give more of it")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many.
        n: usize,
    },
    /// It runs.
    #[error("the containerVM {0} is running; stop it first, or remove it with --force")]
    Running(String),
    /// No room for its disk.
    #[error(
        "no space left in {0} for the disk of a containerVM; free some, or set XDG_DATA_HOME to a larger disk"
    )]
    DiskFull(PathBuf),
    /// A name that cannot be, or no random numbers.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no place for VMs.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Cached images cannot be looked through.
    #[error(transparent)]
    Image(#[from] Box<ImageError>),
    /// It cannot be told to stop.
    #[error(transparent)]
    Control(#[from] QmpError),
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is known of a VM besides its VMX file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, unique on this host.
    pub name: String,
    /// The image it was made from, for people.
    #[serde(default)]
    pub image: String,
    /// The cached image's key.
    #[serde(default)]
    pub image_key: String,
    /// Seconds since 1970.
    #[serde(default)]
    pub created: u64,
    /// Whether it goes when it has ended (`--rm`).
    #[serde(default)]
    pub remove: bool,
    /// Its VMX file, when that is not in its directory.
    #[serde(default)]
    pub vmx: Option<PathBuf>,
}

/// What [`Store::gc`] has removed.
#[derive(Debug)]
pub struct Garbage {
    /// VMs, which a daemon may still know.
    pub vms: Vec<Record>,
    /// Other things, a line for each.
    pub others: Vec<String>,
}

/// What a VM is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It never ran.
    Created,
    /// It runs.
    Running,
    /// It ended, as told.
    Exited(Exit),
    /// It ended, and nobody was there to see how.
    Dead,
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// What is known of it.
    pub record: Record,
    /// Its directory.
    pub dir: PathBuf,
}

/// All VMs of a [`Home`].
#[derive(Debug, Clone)]
pub struct Store {
    home: Home,
    dir: PathBuf,
}

impl Vm {
    /// Its VMX file.
    #[must_use]
    pub fn vmx(&self) -> PathBuf {
        self.record
            .vmx
            .clone()
            .unwrap_or_else(|| self.dir.join(format!("{}.vmx", self.record.name)))
    }

    /// What the guest's kernel and agent say.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.dir.join(CONSOLE)
    }

    /// Waits until it does not run any more. Returns at once when it does not run now.
    ///
    /// # Errors
    /// When its lock cannot be used.
    pub fn wait(&self) -> Result<(), StoreError> {
        let lock = self.lock_file()?;
        lock.lock_shared().map_err(|source| failed(&self.dir.join(LOCK), source))
    }

    pub(crate) fn lock_file(&self) -> Result<File, StoreError> {
        lock_file(&self.dir.join(LOCK))
    }
}

impl Store {
    /// The VMs of this home; its directory is made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(home: &Home) -> Result<Self, StoreError> {
        let dir = home.vms();
        private_dir(&dir)?;
        Ok(Self { home: home.clone(), dir })
    }

    /// All VMs, oldest first. What is being made or removed is not among them.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Vm>, StoreError> {
        let mut vms: Vec<Vm> = self
            .entries()?
            .into_iter()
            .filter(|(name, _)| !name.starts_with('.'))
            .filter_map(|(_, dir)| read(&dir))
            .collect();
        vms.sort_by(|a, b| (a.record.created, &a.record.id).cmp(&(b.record.created, &b.record.id)));
        Ok(vms)
    }

    /// The VM called `name`, else the only one whose id begins so.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn find(&self, name: &str) -> Result<Vm, StoreError> {
        let vms = self.list()?;
        if let Some(vm) = vms.iter().find(|vm| vm.record.name == name || vm.record.id == name) {
            return Ok(vm.clone());
        }
        let mut found =
            vms.into_iter().filter(|vm| !name.is_empty() && vm.record.id.starts_with(name));
        match (found.next(), found.count()) {
            (Some(vm), 0) => Ok(vm),
            (None, _) => Err(StoreError::NotFound(name.to_owned())),
            (Some(_), n) => Err(StoreError::Ambiguous { prefix: name.to_owned(), n: n + 1 }),
        }
    }

    /// What a VM is doing.
    ///
    /// # Errors
    /// When its lock cannot be used.
    pub fn state(&self, vm: &Vm) -> Result<State, StoreError> {
        let _guard = self.guard()?;
        state(vm)
    }

    /// Removes a VM with its disk. One that runs is refused, or ended first when `force` is set.
    ///
    /// # Errors
    /// When it runs, cannot be ended, or its directory cannot be removed.
    pub fn remove(&self, vm: &Vm, force: bool) -> Result<(), StoreError> {
        let gone = loop {
            let guard = self.guard()?;
            if !is_locked(&vm.lock_file()?, &vm.dir)? {
                break self.retire(vm)?;
            }
            if !force {
                return Err(StoreError::Running(vm.record.name.clone()));
            }
            drop(guard);
            supervise::kill(vm)?;
            vm.wait()?;
        };
        fs::remove_dir_all(&gone).map_err(|source| failed(&gone, source))
    }

    /// Takes a VM out of the store; its directory is to be removed. Call with the guard held.
    fn retire(&self, vm: &Vm) -> Result<PathBuf, StoreError> {
        let gone = self.dir.join(format!("{GONE}{}", vm.record.id));
        fs::rename(&vm.dir, &gone).map_err(|source| failed(&vm.dir, source))?;
        Ok(gone)
    }

    /// Keeps the exit code of the container's process, which only its client knows.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_code(&self, vm: &Vm, code: i32) -> Result<(), StoreError> {
        let _guard = self.guard()?;
        let exit = Exit { code: Some(code), ..Exit::read(&vm.dir).unwrap_or_else(Exit::now) };
        exit.write(&vm.dir).map_err(|source| failed(&vm.dir, source))
    }

    /// Keeps how QEMU ended, with the code recorded during this run, if any.
    pub(crate) fn record_end(&self, vm: &Vm, how: &str) -> Result<Exit, StoreError> {
        let _guard = self.guard()?;
        let code = Exit::read(&vm.dir).and_then(|exit| exit.code);
        let exit = Exit { code, how: how.to_owned(), ..Exit::now() };
        exit.write(&vm.dir).map_err(|source| failed(&vm.dir, source))?;
        Ok(exit)
    }

    /// Takes the VM's lock for a new run, or says that it runs.
    pub(crate) fn begin(&self, vm: &Vm) -> Result<File, StoreError> {
        let _guard = self.guard()?;
        let lock = vm.lock_file()?;
        if is_locked(&lock, &vm.dir)? {
            return Err(StoreError::Running(vm.record.name.clone()));
        }
        // Whoever holds it now has waited for the last run to end, and lets go at once.
        lock.lock().map_err(|source| failed(&vm.dir, source))?;
        Exit::forget(&vm.dir).map_err(|source| failed(&vm.dir, source))?;
        Ok(lock)
    }

    /// The VM of a VMX file that a user wrote or moved: the one it was made as, if its `guestinfo` id is here, else
    /// one of its own, the same at each start.
    ///
    /// # Errors
    /// When another VM has its name, or its directory cannot be made.
    pub fn adopt(&self, vmx: &Path, id: Option<&str>, name: &str) -> Result<Vm, StoreError> {
        use sha2::Digest as _;
        let path = fs::canonicalize(vmx).map_err(|source| failed(vmx, source))?;
        let id = match id
            .filter(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            Some(id) => id.to_ascii_lowercase(),
            None => image::blob::hex(&sha2::Sha256::digest(path.as_os_str().as_encoded_bytes())),
        };
        let dir = self.dir.join(&id);
        let _guard = self.guard()?;
        if let Some(mut vm) = read(&dir) {
            vm.record.vmx = Some(path);
            return Ok(vm);
        }
        self.check_name(name)?;
        private_dir(&dir)?;
        let created = exit::now();
        let record = Record { vmx: Some(path), ..Record::new(id, name.to_owned(), created) };
        let vm = Vm { record, dir };
        write_json(&vm.dir, RECORD, &vm.record)?;
        Ok(vm)
    }

    /// Removes what nobody needs: VMs with `--rm` that have ended, or that nobody starts any more, half-made and
    /// half-removed ones, cached images that no VM was made from, and kernels that can be had again.
    ///
    /// # Errors
    /// The first thing that cannot be removed.
    pub fn gc(&self) -> Result<Garbage, StoreError> {
        let (mut removed, mut vms) = (Vec::new(), Vec::new());
        {
            // One look at all of them: nobody starts one that is found to have ended, or removes it too.
            let _guard = self.guard()?;
            removed.extend(self.sweep_halves()?);
            for vm in self.list()?.into_iter().filter(|vm| vm.record.remove) {
                if is_over(&vm)? {
                    let gone = self.retire(&vm)?;
                    fs::remove_dir_all(&gone).map_err(|source| failed(&gone, source))?;
                    vms.push(vm.record);
                }
            }
        }
        let used: Vec<String> = self.list()?.into_iter().map(|vm| vm.record.image_key).collect();
        let images = image::sweep(&self.home, &|key| used.iter().any(|used| used == key))
            .map_err(Box::new)?;
        removed.extend(images.into_iter().map(|image| format!("disk image of {image}")));
        if kernel::sweep(&self.home).map_err(|source| failed(&self.home.boot(), source))? {
            removed.push("kernels taken out of ISOs".to_owned());
        }
        Ok(Garbage { vms, others: removed })
    }

    /// Removes what interrupted runs left. Call with the guard held.
    fn sweep_halves(&self) -> Result<Vec<String>, StoreError> {
        let mut removed = Vec::new();
        for (name, dir) in self.entries()? {
            let is_stale = match (name.starts_with(GONE), name.starts_with(NEW)) {
                (true, _) => true,
                (_, true) => !is_locked(&lock_file(&dir.join(LOCK))?, &dir)?,
                _ => false,
            };
            if is_stale {
                match fs::remove_dir_all(&dir) {
                    // Whoever is removing it too was faster.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(&dir, error));
                    }
                    _ => removed.push(format!("leftovers in {}", dir.display())),
                }
            }
        }
        Ok(removed)
    }

    /// Whether nobody has this name, those being made included. Call with the guard held.
    fn check_name(&self, name: &str) -> Result<(), StoreError> {
        for (entry, dir) in self.entries()? {
            let abandoned = || -> Result<bool, StoreError> {
                Ok(entry.starts_with(GONE)
                    || entry.starts_with(NEW) && !is_locked(&lock_file(&dir.join(LOCK))?, &dir)?)
            };
            if let Some(vm) = read(&dir)
                && vm.record.name == name
                && !abandoned()?
            {
                return Err(StoreError::NameInUse { name: name.to_owned(), id: vm.record.id });
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let list = || -> io::Result<Vec<(String, PathBuf)>> {
            fs::read_dir(&self.dir)?
                .map(|entry| {
                    entry.map(|entry| {
                        (entry.file_name().to_string_lossy().into_owned(), entry.path())
                    })
                })
                .collect()
        };
        list().map_err(|source| failed(&self.dir, source))
    }

    fn guard(&self) -> Result<Held, StoreError> {
        held(&self.dir.join(".lock"))
    }
}

impl Record {
    fn new(id: String, name: String, created: u64) -> Self {
        Self {
            id,
            name,
            image: String::new(),
            image_key: String::new(),
            created,
            remove: false,
            vmx: None,
        }
    }
}

/// The first 12 digits of an id, as people see it.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn read(dir: &Path) -> Option<Vm> {
    let record = serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()?;
    Some(Vm { record, dir: dir.to_owned() })
}

/// What a VM is doing. Call with the store's guard held.
fn state(vm: &Vm) -> Result<State, StoreError> {
    if is_locked(&vm.lock_file()?, &vm.dir)? {
        return Ok(State::Running);
    }
    Ok(match Exit::read(&vm.dir) {
        Some(exit) => State::Exited(exit),
        None if vm.dir.join(PID).exists() => State::Dead,
        None => State::Created,
    })
}

/// Whether a VM has run, or whoever made it to start it at once has gone without having done so. Call with the
/// store's guard held.
fn is_over(vm: &Vm) -> Result<bool, StoreError> {
    let starting = vm.dir.join(STARTING);
    Ok(match state(vm)? {
        State::Exited(_) | State::Dead => true,
        State::Created => starting.exists() && !is_locked(&lock_file(&starting)?, &vm.dir)?,
        State::Running => false,
    })
}

fn held(path: &Path) -> Result<Held, StoreError> {
    Held::take(path).map_err(|source| failed(path, source))
}

fn lock_file(path: &Path) -> Result<File, StoreError> {
    lock::open(path).map_err(|source| failed(path, source))
}

/// Whether someone else holds the lock. Only with the store's guard held, for trying takes it for a moment.
fn is_locked(lock: &File, dir: &Path) -> Result<bool, StoreError> {
    match lock.try_lock_shared() {
        Ok(()) => lock.unlock().map(|()| false).map_err(|source| failed(dir, source)),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(failed(dir, source)),
    }
}

/// Writes a small file so that it is there whole or not at all.
fn write_json(dir: &Path, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
    exit::write_json(dir, name, value).map_err(|source| failed(&dir.join(name), source))
}

fn failed(path: &Path, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::StorageFull => {
            StoreError::DiskFull(path.parent().unwrap_or(path).to_owned())
        }
        _ => StoreError::File { path: path.to_owned(), source },
    }
}
