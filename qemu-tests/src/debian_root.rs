//! A real image: a minimal Debian root file system in one tar, as `docker export` writes it.

use crate::checkout::Checkout;
use debian::{Need, Probe, ensure};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// The release; any would do.
const SUITE: &str = "bookworm";

/// Its tar, made from Debian's archive by the first test that asks for it and kept under target/.
///
/// # Panics
/// When it cannot be made: with mmdebstrap's last words.
#[must_use]
pub fn debian_root() -> PathBuf {
    let keep = Checkout::built().keep();
    let done = keep.join(format!("debian-{SUITE}.tar"));
    // Several tests, in several processes, may want it at once.
    let lock = File::create(keep.join("debian.lock")).expect("a lock file");
    lock.lock().expect("a lock");
    if done.is_file() {
        return done;
    }
    let need = |package, probe| Need { package, probe, why: "to make a Debian image" };
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let needs = [
        need("mmdebstrap", Probe::Program("mmdebstrap")),
        need("debian-archive-keyring", Probe::File(keyring)),
    ];
    ensure(&needs, &mut |line| eprintln!("{line}")).expect("mmdebstrap can be had");
    let partial = keep.join("debian.partial");
    let output = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--format=tar", SUITE])
        .arg(&partial)
        .output()
        .expect("mmdebstrap starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mmdebstrap failed: {errors}");
    fs::rename(&partial, &done).expect("a file can be renamed");
    done
}
