//! The machine we run on: where its programs are, and whether we are root.
//!
//! Everything else in this crate starts programs through [`Host`], so that a test can put
//! its own `apt-get` in front of it.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::DebianError;

/// How many lines of a failed program's output an error repeats: apt's last words are in
/// its final few lines, and more hides the sentence that says what to do.
const TAIL_LINES: usize = 6;

/// Where programs are looked up, and with what rights they run.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    search: Vec<PathBuf>,
    root: bool,
}

/// What a program that ran to its end left: whether it succeeded, and all it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) command: String,
    pub(crate) success: bool,
    pub(crate) stdout: String,
    stderr: String,
}

impl Host {
    /// This process's own host.
    pub(crate) fn here() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut search: Vec<PathBuf> = std::env::split_paths(&path).collect();
        // A desktop user's PATH has no sbin, yet that is where some packages put programs.
        search.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        // `/proc/self` belongs to the effective user of the process that looks (proc(5)).
        let root = std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0);
        Self { search, root }
    }

    #[cfg(test)]
    pub(crate) fn with_programs(dir: &Path, root: bool) -> Self {
        Self { search: vec![dir.to_owned(), "/usr/bin".into(), "/bin".into()], root }
    }

    #[cfg(test)]
    pub(crate) fn with_only(dir: &Path) -> Self {
        Self { search: vec![dir.to_owned()], root: true }
    }

    /// The executable file that `name` stands for.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let candidates = self.search.iter().filter(|dir| dir.is_absolute());
        candidates.map(|dir| dir.join(name)).find(|path| is_executable(path))
    }

    /// Whether a program of this host can change the system without help.
    pub(crate) fn is_root(&self) -> bool {
        self.root
    }

    /// Runs `program` to its end in `dir`, capturing what it writes. Standard input is empty:
    /// nothing we start may wait for an answer nobody sees asked.
    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: &[S],
        dir: &Path,
    ) -> Result<Finished, DebianError> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(dir).stdin(Stdio::null());
        // Their messages decide what we do next, so they must not come translated.
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        let shown = shown(program, arguments);
        let output = command
            .output()
            .map_err(|reason| DebianError::Start { command: shown.clone(), reason })?;
        Ok(Finished {
            command: shown,
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

impl Finished {
    /// Whether either output stream holds one of these phrases.
    pub(crate) fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|it| self.stderr.contains(it) || self.stdout.contains(it))
    }

    /// The last lines, errors preferred, indented for an error message.
    pub(crate) fn tail(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines[from..].iter().map(|line| format!("\n  {line}")).collect()
    }

    /// The first line that apt marks as an error, shortened to its own words.
    pub(crate) fn first_error(&self) -> String {
        let marked = self.stderr.lines().find_map(|line| line.strip_prefix("E: "));
        marked.or_else(|| self.stderr.lines().next()).unwrap_or("no reason given").trim().to_owned()
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

fn shown<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> String {
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut text = name.to_string_lossy().into_owned();
    for argument in arguments {
        text.push(' ');
        text.push_str(&argument.as_ref().to_string_lossy());
    }
    text
}
