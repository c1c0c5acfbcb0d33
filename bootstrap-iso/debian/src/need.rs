//! What a command needs from the host before it can do its work, and how to get it.

use std::path::PathBuf;

use crate::Tell;
use crate::apt::{Apt, DebianError};
use crate::host::Host;

/// One thing a command needs, and the package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The Debian (and Ubuntu) package to install when the probe finds nothing.
    pub package: &'static str,
    /// What to look for.
    pub probe: Probe,
    /// What it is wanted for, completing the sentence "it is needed …".
    pub why: &'static str,
}

/// How to tell that a package's content is already here, whoever brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// An executable of this name on the search path (or in an sbin directory).
    Program(&'static str),
    /// A file at this absolute path.
    File(&'static str),
}

/// Makes sure that all of `needs` are there, installing the missing ones.
///
/// What is missing and why goes to `tell` before anything is installed. When all is there,
/// nothing is said and no program is started.
///
/// # Errors
/// No apt or no way to become root, an archive out of reach, an unknown package, or a
/// package that does not bring what it was installed for.
pub fn ensure(needs: &[Need], tell: Tell<'_>) -> Result<(), DebianError> {
    ensure_on(&Host::here(), needs, tell)
}

/// Where the program `name` is on this host, looked up as [`Probe::Program`] does.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    Host::here().program(name)
}

fn ensure_on(host: &Host, needs: &[Need], tell: Tell<'_>) -> Result<(), DebianError> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.probe.found(host)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let apt = Apt::find(host, &packages)?;
    for need in &missing {
        tell(&format!("{} is missing; it is needed {}", need.package, need.why));
    }
    let how = if host.is_root() { "apt-get" } else { "sudo apt-get" };
    tell(&format!("installing {} ({how} install)", packages.join(", ")));
    apt.install(&packages, tell)?;
    match missing.iter().find(|need| !need.probe.found(host)) {
        None => Ok(()),
        Some(need) => Err(DebianError::NotBrought {
            package: need.package.to_owned(),
            wanted: need.probe.wanted(),
        }),
    }
}

impl Probe {
    fn found(self, host: &Host) -> bool {
        match self {
            Self::Program(name) => host.program(name).is_some(),
            Self::File(path) => std::path::Path::new(path).is_file(),
        }
    }

    fn wanted(self) -> String {
        match self {
            Self::Program(name) => format!("the program {name}"),
            Self::File(path) => format!("the file {path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::script;

    const NEED: Need = Need {
        package: "frobnicate",
        probe: Probe::Program("frobnicate-for-tests"),
        why: "to test",
    };

    fn script(dir: &Path, name: &str, body: &str) {
        script::write(dir, name, &format!("cd {}\n{body}", dir.display()));
    }

    /// Runs `ensure` against an apt-get that is a shell script; gives its result and what was told.
    fn ensure_with(dir: &Path, apt: &str, root: bool) -> (Result<(), DebianError>, Vec<String>) {
        script(dir, "apt-get", &format!("echo \"$@\" >> calls\n{apt}"));
        let host = Host::with_programs(dir, root);
        let mut told = Vec::new();
        let result = ensure_on(&host, &[NEED], &mut |line| told.push(line.to_owned()));
        (result, told)
    }

    const INSTALL: &str = "case $1 in install) printf '#!/bin/sh\\n' > frobnicate-for-tests
        chmod +x frobnicate-for-tests;; esac";

    #[test]
    fn a_missing_program_is_announced_with_its_reason_and_installed() {
        let dir = tempfile::tempdir().unwrap();
        let (result, told) = ensure_with(dir.path(), INSTALL, true);
        result.unwrap();
        assert_eq!(told[0], "frobnicate is missing; it is needed to test");
        let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
        assert!(calls.starts_with("install -y --no-install-recommends frobnicate"), "{calls}");
    }

    #[test]
    fn what_is_already_there_costs_no_call_and_no_word() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "frobnicate-for-tests", "");
        let (result, told) = ensure_with(dir.path(), "exit 1", true);
        result.unwrap();
        assert!(told.is_empty() && !dir.path().join("calls").exists());
    }

    #[test]
    fn without_root_the_installation_goes_through_sudo() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "sudo", "echo sudo >> calls\nexec \"$@\"");
        let (result, _) = ensure_with(dir.path(), INSTALL, false);
        result.unwrap();
        let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
        assert!(calls.starts_with("sudo\ninstall"), "{calls}");
    }

    #[test]
    fn an_unknown_package_refreshes_the_lists_once_then_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let apt = "[ $1 = update ] && exit 0; echo 'E: Unable to locate package frobnicate' >&2; exit 100";
        let (result, _) = ensure_with(dir.path(), apt, true);
        assert!(matches!(result, Err(DebianError::UnknownPackage { .. })), "{result:?}");
        let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
        assert_eq!(calls.lines().count(), 3, "{calls}");
    }

    #[test]
    fn an_archive_out_of_reach_is_one_line_that_names_the_package() {
        let dir = tempfile::tempdir().unwrap();
        let apt = "echo 'E: Failed to fetch http://deb.example/f.deb  Temporary failure resolving deb.example' >&2
            exit 100";
        let (result, _) = ensure_with(dir.path(), apt, true);
        let text = result.unwrap_err().to_string();
        assert!(
            text.starts_with("cannot bring in frobnicate: the package archive could not"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn an_interrupted_dpkg_is_finished_before_trying_again() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "dpkg", "[ \"$*\" = '--configure -a' ] && touch repaired");
        let apt = format!(
            "[ -e repaired ] || {{ echo \"E: dpkg was interrupted, you must manually run 'dpkg --configure -a'\" >&2; exit 100; }}\n{INSTALL}"
        );
        ensure_with(dir.path(), &apt, true).0.unwrap();
    }

    #[test]
    fn a_package_that_does_not_bring_its_program_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (result, _) = ensure_with(dir.path(), "exit 0", true);
        assert!(matches!(result, Err(DebianError::NotBrought { .. })), "{result:?}");
    }

    #[test]
    fn a_host_without_apt_is_told_what_to_install_by_hand() {
        let dir = tempfile::tempdir().unwrap();
        let text =
            ensure_on(&Host::with_only(dir.path()), &[NEED], &mut |_| ()).unwrap_err().to_string();
        assert!(text.contains("no apt-get to bring in frobnicate"), "{text}");
    }
}
