//! Packages unpacked without installing: one directory per package and version, under a root of the caller's choice.
//!
//! ```text
//! <cache root>/
//!   isolinux_3%3a6.04~git20190206-3/   what `dpkg -x` gives, complete by construction
//!   linux-image-cloud-amd64.depends    the name a metapackage stood for when it was last resolved
//!   .lock-isolinux                     held while a package is being looked up or brought in
//!   .unpacking-isolinux_4711           half-made; belongs to the holder of the lock, if any
//! ```
//!
//! An entry appears by renaming a finished directory, so an entry that exists is whole. The
//! lock dies with its holder (flock(2)), so whoever holds it may remove what it finds half-made.
//! An entry is used for as long as it exists; remove it to have a newer version brought in.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::Tell;
use crate::apt::{Apt, DebianError};
use crate::host::Host;

/// The directory holding the files of `package`, downloaded and unpacked under `cache_root` if
/// it is not there yet. Nothing is installed on the host.
///
/// When some version is there, it is returned at once: no program is started, no network used.
///
/// # Errors
/// As [`ensure`](crate::ensure), and when the cache cannot be written.
pub fn unpack(package: &str, cache_root: &Path, tell: Tell<'_>) -> Result<PathBuf, DebianError> {
    unpack_on(&Host::here(), package, cache_root, tell)
}

/// Like [`unpack`], for the package that the metapackage `package` stands for: its dependency
/// whose name starts with `prefix`.
///
/// # Errors
/// As [`unpack`] and [`dependency`].
pub fn unpack_dependency(
    package: &str,
    prefix: &str,
    cache_root: &Path,
    tell: Tell<'_>,
) -> Result<PathBuf, DebianError> {
    unpack_dependency_on(&Host::here(), package, prefix, cache_root, tell)
}

/// The package whose name starts with `prefix` that the metapackage `package` depends on, such as
/// `linux-image-6.1.0-56-cloud-amd64` for `linux-image-cloud-amd64` and `linux-image-`.
///
/// Reads apt's lists, which takes some hundred milliseconds, and refreshes them once when they
/// do not hold the package.
///
/// # Errors
/// As [`ensure`](crate::ensure), and when no dependency has such a name.
pub fn dependency(package: &str, prefix: &str, tell: Tell<'_>) -> Result<String, DebianError> {
    dependency_on(&Host::here(), package, prefix, tell)
}

fn unpack_on(
    host: &Host,
    package: &str,
    cache_root: &Path,
    tell: Tell<'_>,
) -> Result<PathBuf, DebianError> {
    // The programs we start run in directories of their own.
    let cache_root = &std::path::absolute(cache_root).map_err(failed("find", cache_root))?;
    if let Some(entry) = newest_entry(package, cache_root)? {
        return Ok(entry);
    }
    fs::create_dir_all(cache_root).map_err(failed("create", cache_root))?;
    let _held_until_return = lock(package, cache_root, tell)?;
    // Another run may have brought it in while we waited for the lock.
    if let Some(entry) = newest_entry(package, cache_root)? {
        return Ok(entry);
    }
    let apt = Apt::find(host, &[package])?;
    remove_half_made(package, cache_root)?;
    // Named for this process: programs that outlive a killed run may still write into its own.
    let work = cache_root.join(format!("{}{}", half_made(package), std::process::id()));
    remove_if_there(&work)?;
    let files = work.join("files");
    fs::create_dir_all(&files).map_err(failed("create", &files))?;
    tell(&format!("downloading {package} (unpacked for our own use, not installed)"));
    apt.download(package, &work, tell)?;
    let deb = the_deb(&work, package)?;
    extract(host, package, &deb, &files)?;
    let entry = cache_root.join(entry_name(package, &deb));
    fs::rename(&files, &entry).map_err(failed("complete", &entry))?;
    remove_if_there(&work)?;
    Ok(entry)
}

fn unpack_dependency_on(
    host: &Host,
    package: &str,
    prefix: &str,
    cache_root: &Path,
    tell: Tell<'_>,
) -> Result<PathBuf, DebianError> {
    let record = cache_root.join(format!("{package}.depends"));
    if let Ok(name) = fs::read_to_string(&record) {
        let name = name.trim();
        let is_a_name = name.starts_with(prefix) && !name.contains('/');
        if is_a_name && let Some(entry) = newest_entry(name, cache_root)? {
            return Ok(entry);
        }
    }
    let name = dependency_on(host, package, prefix, tell)?;
    let entry = unpack_on(host, &name, cache_root, tell)?;
    fs::write(&record, format!("{name}\n")).map_err(failed("write", &record))?;
    Ok(entry)
}

fn dependency_on(
    host: &Host,
    package: &str,
    prefix: &str,
    tell: Tell<'_>,
) -> Result<String, DebianError> {
    let apt = Apt::find(host, &[package])?;
    let Some(apt_cache) = host.program("apt-cache") else {
        return Err(DebianError::NoApt { packages: package.to_owned() });
    };
    let arguments = ["depends", "--important", package];
    let mut asked = host.run(&apt_cache, &arguments, Path::new("/"))?;
    if !asked.success {
        apt.update(tell)?;
        asked = host.run(&apt_cache, &arguments, Path::new("/"))?;
    }
    if !asked.success {
        return Err(DebianError::UnknownPackage { package: package.to_owned() });
    }
    let depends = asked.stdout.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let mut named = depends.map(str::trim).filter(|name| name.starts_with(prefix));
    named.next().map(str::to_owned).ok_or_else(|| DebianError::NoDependency {
        package: package.to_owned(),
        prefix: prefix.to_owned(),
    })
}

/// Holds the package's lock until dropped.
fn lock(package: &str, cache_root: &Path, tell: Tell<'_>) -> Result<File, DebianError> {
    let path = cache_root.join(format!(".lock-{package}"));
    let file = File::create(&path).map_err(failed("create", &path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            tell(&format!("waiting for another run that is bringing in {package}"));
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
    }
    file.lock().map_err(failed("lock", &path))?;
    Ok(file)
}

/// The entry of `package`; of several versions, the one brought in last.
fn newest_entry(package: &str, cache_root: &Path) -> Result<Option<PathBuf>, DebianError> {
    let entries = match fs::read_dir(cache_root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", cache_root)(error)),
    };
    let mut newest = None;
    for entry in entries {
        let entry = entry.map_err(failed("read", cache_root))?;
        let name = entry.file_name();
        // Debian package names hold no underscore (Policy 5.6.7), so this ends the name.
        let of_package = name.to_str().and_then(|it| it.strip_prefix(package)?.strip_prefix('_'));
        if of_package.is_some() && entry.path().is_dir() {
            // The rename into place is the last change of the entry's inode, whatever
            // modification time the package gave its top directory.
            let metadata = entry.metadata().map_err(failed("read", &entry.path()))?;
            newest = newest.max(Some((changed(&metadata), entry.path())));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

fn changed(metadata: &fs::Metadata) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ctime(), metadata.ctime_nsec())
}

fn extract(host: &Host, package: &str, deb: &Path, files: &Path) -> Result<(), DebianError> {
    let Some(dpkg) = host.program("dpkg") else {
        return Err(DebianError::NoApt { packages: package.to_owned() });
    };
    let done = host.run(&dpkg, &[Path::new("-x"), deb, files], Path::new("/"))?;
    if done.success {
        return Ok(());
    }
    Err(DebianError::Failed { tail: done.tail(), command: done.command })
}

/// The one `.deb` that `apt-get download` left in `dir`.
fn the_deb(dir: &Path, package: &str) -> Result<PathBuf, DebianError> {
    for entry in fs::read_dir(dir).map_err(failed("read", dir))? {
        let path = entry.map_err(failed("read", dir))?.path();
        if path.extension().is_some_and(|it| it == "deb") {
            return std::path::absolute(&path).map_err(failed("read", &path));
        }
    }
    Err(DebianError::NotBrought {
        package: package.to_owned(),
        wanted: format!("a file {package}_*.deb"),
    })
}

/// `isolinux_3%3a6.04-3_all.deb` → `isolinux_3%3a6.04-3`.
fn entry_name(package: &str, deb: &Path) -> String {
    let stem = deb.file_stem().unwrap_or_default().to_string_lossy();
    let version = stem.split('_').nth(1).unwrap_or("unknown");
    format!("{package}_{version}")
}

/// How the name of a directory begins in which `package` is being unpacked; a process ID ends it.
fn half_made(package: &str) -> String {
    format!(".unpacking-{package}_")
}

/// Removes what interrupted runs left. One that cannot be removed because an orphan of its run
/// still fills it is left to the next run: nothing ever reads it.
fn remove_half_made(package: &str, cache_root: &Path) -> Result<(), DebianError> {
    let prefix = half_made(package);
    for entry in fs::read_dir(cache_root).map_err(failed("read", cache_root))? {
        let entry = entry.map_err(failed("read", cache_root))?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            match fs::remove_dir_all(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                    return Err(failed("remove", &entry.path())(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), DebianError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DebianError + use<> {
    let path = path.to_owned();
    move |reason| DebianError::Cache { doing, path, reason }
}

#[cfg(test)]
mod tests;
