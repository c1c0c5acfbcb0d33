//! A VM being made: its name is taken, its directory is filled, and it appears at once or not at all.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use guestinfo::Vmx;

use super::{
    DISK, LOCK, NEW, RECORD, Record, STARTING, Store, StoreError, Vm, exit, failed, held,
    write_json,
};
use crate::{
    disk,
    home::private_dir,
    identity,
    image::{Image, paths},
    lock::Held,
};

/// Tries for a made-up name that is free; 48² names exist.
const NAME_TRIES: usize = 64;

/// A VM that is not there yet. Dropping it undoes everything.
#[derive(Debug)]
pub struct Draft {
    store: Store,
    record: Record,
    /// Where it is made.
    dir: PathBuf,
    /// Where it will be.
    target: PathBuf,
    /// Held while it is being made, so that others see it is not abandoned.
    _lock: Held,
}

/// Held by who is about to start a VM. When it is free and the VM never ran, nobody will.
#[derive(Debug)]
pub struct Starting {
    _lock: Held,
}

impl Store {
    /// Takes a name for a new VM, or makes one up.
    ///
    /// # Errors
    /// When the name is in use or not possible, or there is no room.
    pub fn draft(
        &self,
        name: Option<&str>,
        image: &str,
        remove: bool,
    ) -> Result<Draft, StoreError> {
        if let Some(name) = name {
            identity::check_name(name)?;
        }
        let id = identity::id()?;
        let _guard = self.guard()?;
        self.sweep_halves()?;
        let name = match name {
            Some(name) => self.check_name(name).map(|()| name.to_owned())?,
            None => self.free_name()?,
        };
        let dir = self.dir.join(format!("{NEW}{id}"));
        private_dir(&dir)?;
        let lock = held(&dir.join(LOCK))?;
        let target = self.dir.join(&id);
        let record =
            Record { image: image.to_owned(), remove, ..Record::new(id, name, exit::now()) };
        let draft = Draft { store: self.clone(), record, dir, target, _lock: lock };
        write_json(&draft.dir, RECORD, &draft.record)?;
        Ok(draft)
    }

    fn free_name(&self) -> Result<String, StoreError> {
        for _ in 0..NAME_TRIES {
            let name = identity::name()?;
            match self.check_name(&name) {
                Err(StoreError::NameInUse { .. }) => {}
                result => return result.map(|()| name),
            }
        }
        // So many VMs; one more name, that cannot be taken.
        Ok(format!("vm-{}", &identity::id()?[..12]))
    }
}

impl Draft {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The directory it will have, where its VMX file's paths lead.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The directory it is made in, which becomes that.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives it its own copy of an image's disk.
    ///
    /// # Errors
    /// When there is no room, or the image cannot be read.
    pub fn copy_disk(&mut self, image: &Image) -> Result<(), StoreError> {
        self.copy_disk_file(&image.disk)?;
        let (from, to) = (paths::of(&image.disk), paths::of(&self.dir.join(DISK)));
        fs::copy(&from, &to).map_err(|source| failed(&to, source))?;
        self.record.image_key.clone_from(&image.key);
        Ok(())
    }

    pub(super) fn copy_disk_file(&mut self, from: &Path) -> Result<(), StoreError> {
        let to = self.dir.join(DISK);
        disk::copy(from, &to).map_err(|source| failed(&to, source))
    }

    /// Makes it a VM as [`finish`](Self::finish) does, which is to be started at once.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn finish_to_start(self, vmx: &Vmx) -> Result<(Vm, Starting), StoreError> {
        let lock = held(&self.dir.join(STARTING))?;
        Ok((self.finish(vmx)?, Starting { _lock: lock }))
    }

    /// Makes it a VM, described by `vmx`.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn finish(self, vmx: &Vmx) -> Result<Vm, StoreError> {
        let path = self.dir.join(format!("{}.vmx", self.record.name));
        let write = || {
            let mut file = File::options().create_new(true).write(true).mode(0o600).open(&path)?;
            file.write_all(vmx.to_string().as_bytes())
        };
        write().map_err(|source| failed(&path, source))?;
        write_json(&self.dir, RECORD, &self.record)?;
        // Whoever compares names would find it at neither place.
        let _guard = self.store.guard()?;
        fs::rename(&self.dir, &self.target).map_err(|source| failed(&self.target, source))?;
        Ok(Vm { record: self.record.clone(), dir: self.target.clone() })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `finish` there is nothing at the old place; otherwise what cannot be removed is left to `gc`.
        drop(fs::remove_dir_all(&self.dir));
    }
}
