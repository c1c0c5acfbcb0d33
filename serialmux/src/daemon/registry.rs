//! Which containers exist: by id, by name, and by the key their VM proves to hold.

use super::container::{Container, Handle, Inputs};
use super::events::{Event, Events};
use crate::store::journal::{Journal, JournalError};
use crate::store::state::{self, Registration, State};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use wire::pack::Budget;
use wire::{KeyId, Protection, Psk};

/// Most containers registered at once.
const MAX_CONTAINERS: usize = 10_000;

/// What cannot be done to the registry.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// A name that is taken.
    #[error(
        "the name \"{name}\" is taken by container {id}; remove it with `serialmux rm {name}` or \
         choose another name"
    )]
    Name {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// An id that is registered otherwise.
    #[error(
        "container {id} is registered as \"{name}\", with another name, key or protection; remove it with \
         `serialmux rm {name}` first"
    )]
    Identity {
        /// The id.
        id: String,
        /// Its name.
        name: String,
    },
    /// A key that another container has: their links could not be told apart.
    #[error("the key belongs to container {0} already; every VM needs a key of its own")]
    Key(String),
    /// An id or name that cannot be a directory's name.
    #[error("\"{0}\" is no container id or name: use letters, digits and _.- up to 128 of them")]
    Word(String),
    /// No key.
    #[error("no key: the VMX needs guestinfo.vice./key")]
    NoKey,
    /// No such container.
    #[error("no such container: {0}")]
    Unknown(String),
    /// Several containers' ids start like that.
    #[error("\"{0}\" is the start of several ids; give more of it")]
    Ambiguous(String),
    /// Still running.
    #[error("container {0} is running; stop it first")]
    Running(String),
    /// Too many.
    #[error("{MAX_CONTAINERS} containers are registered, no more are taken")]
    Full,
    /// The state directory.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Standard inputs that are compressed at once, at some 400 KB each; the others go as they are.
const MAX_PACKERS: usize = 64;

/// Everything registered. Its lock is held for look-ups only, never for I/O on a link.
#[derive(Debug)]
pub(super) struct Registry {
    dir: PathBuf,
    /// Names this run of the daemon to guests.
    instance: [u8; 16],
    containers: Mutex<BTreeMap<String, Arc<Handle>>>,
    events: Arc<Events>,
    /// Who may compress standard input.
    packers: Budget,
}

impl Registry {
    /// Reads back what an earlier run left in `dir`, and starts a task for each container.
    ///
    /// # Errors
    /// [`RegistryError::Io`] if `dir` cannot be read. A container that cannot be read is logged and
    /// left where it is: it must not keep the others from being served.
    pub(super) fn recover(dir: PathBuf) -> Result<Self, RegistryError> {
        let io = |error| RegistryError::Io(dir.clone(), error);
        fs::create_dir_all(&dir).map_err(io)?;
        let mut instance = [0; 16];
        getrandom::fill(&mut instance).map_err(|error| io(io::Error::other(error)))?;
        let registry = Self {
            dir: dir.clone(),
            instance,
            containers: Mutex::default(),
            events: Arc::default(),
            packers: Budget::new(MAX_PACKERS),
        };
        for entry in fs::read_dir(&dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if let Err(error) = registry.load(&path) {
                tracing::error!(path = %path.display(), %error, "container left out");
            }
        }
        Ok(registry)
    }

    fn load(&self, dir: &Path) -> Result<(), RegistryError> {
        let io = |error| RegistryError::Io(dir.to_owned(), error);
        let Some(registration) =
            state::load::<Registration>(&dir.join("container.json")).map_err(io)?
        else {
            // A registration that was cut short: nobody was told it succeeded.
            return fs::remove_dir_all(dir).map_err(io);
        };
        self.start(dir, registration)
    }

    fn start(&self, dir: &Path, registration: Registration) -> Result<(), RegistryError> {
        let io = |error| RegistryError::Io(dir.to_owned(), error);
        let state = state::load::<State>(&dir.join("state.json")).map_err(io)?.unwrap_or_default();
        let journal = Journal::open(&dir.join("output.log"))?;
        let inputs = Inputs::open(dir, &self.packers).map_err(io)?;
        let id = registration.id.clone();
        let events = Arc::clone(&self.events);
        let handle = Container::start(dir.to_owned(), registration, state, journal, events, inputs);
        self.lock().insert(id, Arc::new(handle));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Handle>>> {
        // Nothing panics while it is held, and if something did, the map is still a map.
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to them.
    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// Names this run of the daemon to guests.
    pub(super) fn instance(&self) -> [u8; 16] {
        self.instance
    }

    /// Adds a container; durable when it returns. One that does not run may be registered again, with another config.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(super) fn register(&self, registration: Registration) -> Result<(), RegistryError> {
        for word in [&registration.id, &registration.name] {
            check_word(word)?;
        }
        if registration.key.is_empty() {
            return Err(RegistryError::NoKey);
        }
        let key_id = Psk::derive(&registration.key).id();
        {
            let containers = self.lock();
            if let Some(there) = containers.get(&registration.id) {
                let Some(changed) = there.register(registration)? else { return Ok(()) };
                let path = self.dir.join(&changed.id).join("container.json");
                return state::save(&path, &changed)
                    .map_err(|error| RegistryError::Io(path.clone(), error));
            }
            let taken = |other: &&Arc<Handle>| other.name == registration.name;
            if let Some(other) = containers.values().find(taken) {
                let (name, id) = (registration.name.clone(), other.id.clone());
                return Err(RegistryError::Name { name, id });
            }
            if let Some(other) = containers.values().find(|other| other.key_id == key_id) {
                return Err(RegistryError::Key(other.name.clone()));
            }
            if containers.len() >= MAX_CONTAINERS {
                return Err(RegistryError::Full);
            }
        }
        let dir = self.dir.join(&registration.id);
        let io = |error| RegistryError::Io(dir.clone(), error);
        fs::create_dir_all(&dir).map_err(io)?;
        state::save(&dir.join("container.json"), &registration).map_err(io)?;
        self.start(&dir, registration)
    }

    /// Forgets a container that does not run, its output too.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(super) fn remove(&self, word: &str) -> Result<(), RegistryError> {
        let handle = self.find(word)?;
        let id = &handle.id;
        if handle.status().is_connected {
            return Err(RegistryError::Running(handle.name.clone()));
        }
        self.lock().remove(id);
        self.events.tell(Event::now(id, &handle.name, "destroy"));
        handle.stop();
        let dir = self.dir.join(id);
        fs::remove_dir_all(&dir).map_err(|error| RegistryError::Io(dir, error))
    }

    /// The container of that name, id, or unique start of an id.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] or [`RegistryError::Ambiguous`].
    pub(super) fn find(&self, word: &str) -> Result<Arc<Handle>, RegistryError> {
        let containers = self.lock();
        if let Some(handle) = containers.get(word) {
            return Ok(Arc::clone(handle));
        }
        if let Some(handle) = containers.values().find(|handle| handle.name == word) {
            return Ok(Arc::clone(handle));
        }
        let mut starts = containers.range(word.to_owned()..).map(|(_, handle)| handle);
        let matches = |handle: &&Arc<Handle>| !word.is_empty() && handle.id.starts_with(word);
        let Some(first) = starts.next().filter(matches) else {
            return Err(RegistryError::Unknown(word.to_owned()));
        };
        match starts.next().filter(matches) {
            None => Ok(Arc::clone(first)),
            Some(_) => Err(RegistryError::Ambiguous(word.to_owned())),
        }
    }

    /// The container whose key has this id, with what its VM must prove.
    pub(super) fn by_key(&self, key: KeyId) -> Option<(Arc<Handle>, Psk, Protection)> {
        let containers = self.lock();
        let handle = containers.values().find(|handle| handle.key_id == key)?;
        let Registration { key, plain, .. } = handle.registered();
        let protection = if plain { Protection::Plain } else { Protection::Sealed };
        Some((Arc::clone(handle), Psk::derive(&key), protection))
    }

    /// All containers, in order of registration.
    pub(super) fn list(&self) -> Vec<Arc<Handle>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_cached_key(|handle| handle.registered().created_us);
        all
    }
}

fn check_word(word: &str) -> Result<(), RegistryError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let good = (1..=128).contains(&word.len())
        && word.chars().all(fits)
        && word.starts_with(|c: char| c.is_ascii_alphanumeric());
    if good { Ok(()) } else { Err(RegistryError::Word(word.to_owned())) }
}
