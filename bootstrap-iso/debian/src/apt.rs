//! apt-get as this project drives it: install, update and download, with its failures told apart.
//!
//! apt reports every failure with status 100, so the reason is read from its (untranslated)
//! words. Four reasons matter because each has a different remedy: a package list too old,
//! an archive out of reach, a dpkg that was interrupted, and everything else.

use std::path::{Path, PathBuf};

use crate::Tell;
use crate::host::{Finished, Host};

/// Why something could not be brought in from the host's distribution or from rustup.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// The host has no apt-get: not Debian, not Ubuntu.
    #[error(
        "this host has no apt-get to bring in {packages}; install by hand what these Debian packages hold and run the command again"
    )]
    NoApt {
        /// The Debian packages wanted, separated by spaces.
        packages: String,
    },
    /// Installing needs root, and there is no sudo to become root with.
    #[error(
        "installing {packages} needs root and this host has no sudo; run as root: apt-get install {packages}"
    )]
    NoSudo {
        /// The Debian packages wanted, separated by spaces.
        packages: String,
    },
    /// The package archive did not answer.
    #[error(
        "cannot bring in {packages}: the package archive could not be reached ({detail}); connect to the network (or fix /etc/apt/sources.list) and run the command again"
    )]
    Unreachable {
        /// The Debian packages wanted, separated by spaces.
        packages: String,
        /// apt's own words.
        detail: String,
    },
    /// The archive answered, and does not have the package.
    #[error(
        "the package archive of this host has no package {package}; enable the section that holds it in /etc/apt/sources.list, or install it by hand"
    )]
    UnknownPackage {
        /// The Debian package wanted.
        package: String,
    },
    /// apt reported success, yet what the package was wanted for is still not there.
    #[error(
        "{package} was installed, but it did not bring {wanted}; check with: dpkg -L {package}"
    )]
    NotBrought {
        /// The Debian package installed.
        package: String,
        /// The program or file that was expected.
        wanted: String,
    },
    /// A program of the host failed for a reason of its own.
    #[error("{command} failed:{tail}")]
    Failed {
        /// The command line.
        command: String,
        /// Its last lines, indented.
        tail: String,
    },
    /// A program of the host could not be started at all.
    #[error("cannot start {command}: {reason}")]
    Start {
        /// The command line.
        command: String,
        /// The reason of the operating system.
        reason: std::io::Error,
    },
    /// The directory that holds unpacked packages could not be read or written.
    #[error("cannot {doing} {}: {reason}; check that the directory is writable and the disk not full", path.display())]
    Cache {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// The reason of the operating system.
        reason: std::io::Error,
    },
    /// A metapackage that depends on nothing of the expected name.
    #[error(
        "package {package} depends on no package whose name starts with {prefix:?}; name the package to use instead"
    )]
    NoDependency {
        /// The metapackage.
        package: String,
        /// What the name of its dependency was expected to start with.
        prefix: String,
    },
    /// A Rust target is missing and there is no rustup to add it.
    #[error(
        "the Rust target {target} is not installed and this host has no rustup; install rustup from https://rustup.rs, or your distribution's standard library for {target}"
    )]
    NoRustup {
        /// The target triple.
        target: String,
    },
}

/// Words apt uses when a server did not answer, in any of its transports.
const UNREACHABLE: &[&str] = &[
    "Temporary failure resolving",
    "Could not resolve",
    "Could not connect",
    "Cannot initiate the connection",
    "Unable to connect",
    "Connection failed",
    "Connection timed out",
    "Network is unreachable",
    "No route to host",
];

/// Words apt uses when its lists do not hold the package, or hold a version the archive has dropped.
const STALE: &[&str] = &[
    "Unable to locate package",
    "has no installation candidate",
    "Can't select candidate version",
    "Can't find a source to download",
    "No packages found",
    "404  Not Found",
    "Unable to fetch some archives",
    "Hash Sum mismatch",
];

const UNKNOWN: &[&str] = &[
    "Unable to locate package",
    "has no installation candidate",
    "Can't select candidate version",
    "No packages found",
];

/// apt's words after an interrupted installation; they name the remedy too.
const INTERRUPTED: &[&str] = &["dpkg --configure -a"];

/// Options for every call: fail within a minute when a server is silent, wait for another
/// apt to finish instead of failing, and treat a list that could not be fetched as an error.
const OPTIONS: &[&str] = &[
    "-q",
    "-o",
    "Acquire::Retries=1",
    "-o",
    "Acquire::http::Timeout=20",
    "-o",
    "Acquire::https::Timeout=20",
    "-o",
    "DPkg::Lock::Timeout=300",
    "-o",
    "APT::Update::Error-Mode=any",
];

/// The host's apt-get.
#[derive(Debug)]
pub(crate) struct Apt<'a> {
    host: &'a Host,
    program: PathBuf,
    packages: String,
}

impl<'a> Apt<'a> {
    /// apt-get, wanted for `packages` (which its errors will name).
    pub(crate) fn find(host: &'a Host, packages: &[&str]) -> Result<Self, DebianError> {
        let packages = packages.join(" ");
        match host.program("apt-get") {
            Some(program) => Ok(Self { host, program, packages }),
            None => Err(DebianError::NoApt { packages }),
        }
    }

    /// Installs `packages`; repairs an interrupted dpkg and refreshes the lists when that is
    /// what stood in the way, once each.
    pub(crate) fn install(&self, packages: &[&str], tell: Tell<'_>) -> Result<(), DebianError> {
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend(packages);
        let mut finished = self.as_root(&self.program, &with_options(&arguments))?;
        if !finished.success && finished.says(INTERRUPTED) {
            tell("an earlier installation was interrupted; letting dpkg finish it");
            self.repair()?;
            finished = self.as_root(&self.program, &with_options(&arguments))?;
        }
        if !finished.success && finished.says(STALE) && !finished.says(UNREACHABLE) {
            self.update(tell)?;
            finished = self.as_root(&self.program, &with_options(&arguments))?;
        }
        self.judge(finished).map(drop)
    }

    /// Downloads the `.deb` of `package` into `dir`; refreshes the lists once if they are too old.
    pub(crate) fn download(
        &self,
        package: &str,
        dir: &Path,
        tell: Tell<'_>,
    ) -> Result<(), DebianError> {
        let mut arguments = vec!["download", package];
        if self.host.is_root() {
            // Root's download directory is closed to apt's sandbox user, which is all it would warn of.
            arguments.extend(["-o", "APT::Sandbox::User=root"]);
        }
        let arguments = with_options(&arguments);
        let mut finished = self.host.run(&self.program, &arguments, dir)?;
        if !finished.success && finished.says(STALE) && !finished.says(UNREACHABLE) {
            self.update(tell)?;
            finished = self.host.run(&self.program, &arguments, dir)?;
        }
        self.judge(finished).map(drop)
    }

    /// Refreshes the package lists.
    pub(crate) fn update(&self, tell: Tell<'_>) -> Result<(), DebianError> {
        tell("refreshing the package lists (apt-get update)");
        let finished = self.as_root(&self.program, &with_options(&["update"]))?;
        self.judge(finished).map(drop)
    }

    fn repair(&self) -> Result<(), DebianError> {
        let Some(dpkg) = self.host.program("dpkg") else {
            return Err(DebianError::NoApt { packages: self.packages.clone() });
        };
        let finished = self.as_root(&dpkg, &["--configure", "-a"])?;
        self.judge(finished).map(drop)
    }

    /// Runs `program` with the right to change the system.
    fn as_root(&self, program: &Path, arguments: &[&str]) -> Result<Finished, DebianError> {
        if self.host.is_root() {
            return self.host.run(program, arguments, Path::new("/"));
        }
        let Some(sudo) = self.host.program("sudo") else {
            return Err(DebianError::NoSudo { packages: self.packages.clone() });
        };
        // sudo asks for a password on the terminal itself, and empties the environment.
        let program = program.to_string_lossy();
        let mut all = vec!["env", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", program.as_ref()];
        all.extend(arguments);
        self.host.run(&sudo, &all, Path::new("/"))
    }

    fn judge(&self, finished: Finished) -> Result<Finished, DebianError> {
        if finished.success {
            return Ok(finished);
        }
        let packages = self.packages.clone();
        if finished.says(UNREACHABLE) {
            return Err(DebianError::Unreachable { packages, detail: finished.first_error() });
        }
        if finished.says(UNKNOWN) {
            return Err(DebianError::UnknownPackage { package: packages });
        }
        Err(DebianError::Failed { tail: finished.tail(), command: finished.command })
    }
}

fn with_options<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().chain(OPTIONS).copied().collect()
}
