//! Whether VMs run by hardware virtualization or by emulation, found out by trying.
//!
//! `/dev/kvm` that exists proves little: nested or foreign implementations may hang any stock kernel. So the very
//! kernel that will boot is started once under KVM, without a root file system, and must get as far as missing it.
//! The answer is remembered for this QEMU, host kernel and guest kernel.

use std::{
    collections::BTreeMap,
    env, fs, io,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::{
    home::{Home, private_dir},
    image::stat_identity,
    kernel::Kernel,
    qemu::QEMU,
};

/// How long the kernel may take under KVM: it needs well under two seconds on any machine whose KVM works.
const LIMIT: Duration = Duration::from_secs(10);
/// What the kernel prints last when it finds no root file system.
const REACHED: [&str; 2] = ["Unable to mount root fs", "Kernel panic"];
/// The variable that overrides all this.
const VARIABLE: &str = "CONTAINERVM_ACCEL";

/// How a VM's processor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// Hardware virtualization.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Why it cannot be decided.
#[derive(Debug, thiserror::Error)]
pub enum AccelError {
    /// The override is neither.
    #[error("{VARIABLE} is {0:?}; expected \"kvm\" or \"tcg\"")]
    Variable(String),
    /// QEMU does not run.
    #[error("cannot run {QEMU}: {0}")]
    Qemu(io::Error),
}

impl Accel {
    /// The word QEMU has for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Kvm, Self::Tcg].into_iter().find(|accel| accel.word() == word)
    }

    /// Decides for this kernel: by `CONTAINERVM_ACCEL`, by what was found before, or by trying, which `tell` hears of.
    ///
    /// # Errors
    /// When the variable has another value, or QEMU does not run.
    pub fn decide(
        kernel: &Kernel,
        home: &Home,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self, AccelError> {
        if let Some(word) = env::var_os(VARIABLE) {
            let word = word.to_string_lossy().into_owned();
            return Self::from_word(&word).ok_or(AccelError::Variable(word));
        }
        if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Tcg);
        }
        let key = key(kernel).map_err(AccelError::Qemu)?;
        let known = home.cache().join("accel.json");
        let mut answers = recall(&known);
        if let Some(accel) = answers.get(&key).and_then(|word| Self::from_word(word)) {
            return Ok(accel);
        }
        tell("trying whether KVM boots the kernel (once)");
        let accel = if boots(kernel).map_err(AccelError::Qemu)? { Self::Kvm } else { Self::Tcg };
        if accel == Self::Tcg {
            tell("KVM is there but does not boot the kernel; VMs are emulated, which is slower");
        }
        answers.insert(key, accel.word().to_owned());
        // An answer that cannot be kept is asked for again; nothing else is lost.
        drop(keep(&known, &answers));
        Ok(accel)
    }
}

/// What the answer depends on. The kernel's directory is named for its ISO; QEMU is told from another by its file, as
/// asking it for its version takes longer than all else here.
fn key(kernel: &Kernel) -> io::Result<String> {
    let qemu = debian::on_path(QEMU).ok_or(io::ErrorKind::NotFound)?;
    let host = rustix::system::uname().release().to_string_lossy().into_owned();
    Ok(format!("{} | {host} | {}", stat_identity(&qemu)?, kernel.kernel.display()))
}

fn recall(known: &Path) -> BTreeMap<String, String> {
    fs::read(known).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn keep(known: &Path, answers: &BTreeMap<String, String>) -> io::Result<()> {
    let dir = known.parent().unwrap_or(Path::new("."));
    private_dir(dir).map_err(io::Error::other)?;
    let temporary = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&temporary, answers)?;
    temporary.persist(known).map_err(|error| error.error)?;
    Ok(())
}

/// Whether the kernel comes up under KVM in time.
fn boots(kernel: &Kernel) -> io::Result<bool> {
    let mut child = Command::new(QEMU)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-machine",
            "pc",
        ])
        .args(["-accel", "kvm", "-cpu", "host", "-m", "256M", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(&kernel.kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let reached = console_shows(&mut child, &REACHED, LIMIT);
    child.kill()?;
    child.wait()?;
    Ok(reached)
}

/// Whether one of `texts` appears on the child's output before `limit` or the output's end.
fn console_shows(child: &mut Child, texts: &[&str], limit: Duration) -> bool {
    let Some(mut output) = child.stdout.take() else { return false };
    let (send, receive) = mpsc::sync_channel::<Vec<u8>>(16);
    // Ends with the child's output, for the caller kills the child.
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = output.read(&mut buffer) {
            if send.send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let mut seen = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(bytes) = receive.recv_timeout(left) else { return false };
        seen.push_str(&String::from_utf8_lossy(&bytes));
        if texts.iter().any(|text| seen.contains(text)) {
            return true;
        }
        // A text may be cut in two by a read, so its length of what was seen is kept.
        let mut keep = seen.len().saturating_sub(256);
        while !seen.is_char_boundary(keep) {
            keep += 1;
        }
        seen.drain(..keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(script: &str, limit: Duration) -> bool {
        let mut child =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let shown = console_shows(&mut child, &REACHED, limit);
        child.kill().unwrap();
        child.wait().unwrap();
        shown
    }

    #[test]
    fn a_console_is_watched_until_the_text_its_end_or_the_limit() {
        let long = Duration::from_secs(60);
        assert!(shows(
            "seq 1 3000; printf 'Kernel '; sleep 0.2; echo panic - not syncing; exec sleep 60",
            long
        ));
        assert!(!shows("echo Linux version 6.1", long));
        assert!(!shows("echo Linux version 6.1; exec sleep 60", Duration::from_millis(200)));
    }

    #[test]
    fn answers_are_recalled_and_damage_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let known = dir.path().join("cache/accel.json");
        let answers = BTreeMap::from([("key".to_owned(), "tcg".to_owned())]);
        keep(&known, &answers).unwrap();
        assert_eq!(recall(&known), answers);
        fs::write(&known, b"{").unwrap();
        assert!(recall(&known).is_empty());
    }
}
