//! The two directories everything of ours lives in: a cache that may be deleted at any time, and the data of the VMs.
//!
//! ```text
//! cache/images/<key>.img, <key>.json   file systems made from images      cache/debian/   unpacked packages
//! cache/boot/<digest>/                 kernels taken out of ISOs           cache/accel.json
//! data/vms/<id>/                       one containerVM each
//! data/volumes/<name>/                 volumes with a name
//! ```

use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Why there is no place to keep things.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// No variable says where.
    #[error(
        "neither CONTAINERVM_HOME nor HOME is set to an absolute path; set one so that images and VMs have a place"
    )]
    Unset,
    /// A directory could not be made.
    #[error("cannot make the directory {path}: {source}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where cache and data are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    cache: PathBuf,
    data: PathBuf,
}

impl Home {
    /// From the environment: `CONTAINERVM_HOME` for both, else `XDG_CACHE_HOME` and `XDG_DATA_HOME` with the
    /// defaults of the XDG base directory specification, which also says to ignore relative paths there.
    ///
    /// # Errors
    /// When nothing says where.
    pub fn from_env() -> Result<Self, HomeError> {
        Self::from_variables(|name| env::var_os(name))
    }

    /// Everything below one directory.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { cache: root.join("cache"), data: root.join("data") }
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, HomeError> {
        let absolute =
            |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(root) = absolute("CONTAINERVM_HOME") {
            return Ok(Self::at(&root));
        }
        let base = |name: &str, default: &str| {
            absolute(name).or_else(|| Some(absolute("HOME")?.join(default))).ok_or(HomeError::Unset)
        };
        Ok(Self {
            cache: base("XDG_CACHE_HOME", ".cache")?.join("containervm"),
            data: base("XDG_DATA_HOME", ".local/share")?.join("containervm"),
        })
    }

    /// Root of the cache.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// File systems made from images.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// Packages unpacked without installing.
    #[must_use]
    pub fn debian(&self) -> PathBuf {
        self.cache.join("debian")
    }

    /// Kernels and initramfs taken out of ISOs.
    #[must_use]
    pub fn boot(&self) -> PathBuf {
        self.cache.join("boot")
    }

    /// The volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// The VMs.
    #[must_use]
    pub fn vms(&self) -> PathBuf {
        self.data.join("vms")
    }
}

/// Makes a directory with its parents; only the user can look into it, for keys and disks of containers are there.
///
/// # Errors
/// When it cannot be made.
pub fn private_dir(path: &Path) -> Result<(), HomeError> {
    let create = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    };
    create().map_err(|source| HomeError::Create { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(variables: &[(&str, &str)]) -> Result<Home, HomeError> {
        Home::from_variables(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn one_variable_moves_everything_and_relative_paths_do_not_count() {
        let both = home(&[("CONTAINERVM_HOME", "/x"), ("HOME", "/root")]).unwrap();
        assert_eq!((both.images(), both.vms()), ("/x/cache/images".into(), "/x/data/vms".into()));
        let xdg =
            home(&[("XDG_CACHE_HOME", "relative"), ("XDG_DATA_HOME", "/d"), ("HOME", "/root")])
                .unwrap();
        assert_eq!(xdg.images(), Path::new("/root/.cache/containervm/images"));
        assert_eq!(xdg.vms(), Path::new("/d/containervm/vms"));
        assert!(matches!(home(&[]), Err(HomeError::Unset)));
    }
}
