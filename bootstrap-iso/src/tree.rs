//! The files inside the image, by path: the one list of what it holds.
//!
//! `/boot/vmlinuz`, `/boot/initramfs.img` and `/boot/cmdline` are a contract: whoever boots
//! the kernel directly takes these three out of the image and gets what the loaders start.

use std::fs;
use std::io;
use std::path::Path;

/// The kernel's command line, for every way of booting.
///
/// * `console=ttyS1,115200`: kernel and agent log to the second serial port; the first carries
///   the session, and one stray byte there is the session's to pay for.
/// * `quiet loglevel=4`: every byte logged costs the guest a trap; warnings still show.
/// * `no_timer_check`: the kernel's test of the timer fails on an emulated machine that is short of time, and
///   then it does not boot; on VMware and KVM it leaves that test out by itself.
/// * `panic=-1`: a kernel that panicked reboots at once, so a runner sees the VM end.
/// * `cryptomgr.notests`: skips the kernel's test of its own ciphers, 0.4 s emulated.
/// * `noreplace-smp`: skips rewriting lock prefixes for a single CPU, 0.15 s emulated (each
///   rewrite throws away translated code); costs nothing measurable afterwards.
///
/// Tried without gain: `tsc=reliable`, `nokaslr`, `mitigations=off`,
/// `random.trust_cpu=on` (the kernel's default), `i8042.*`, `audit=0`, `rcupdate.rcu_expedited=1`.
pub const CMDLINE: &str = "console=ttyS1,115200 quiet loglevel=4 panic=-1 cryptomgr.notests noreplace-smp \
     no_timer_check";

/// What the image is made of; its paths follow from the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The kernel, `/boot/vmlinuz`.
    pub kernel: Vec<u8>,
    /// The initramfs as stored, `/boot/initramfs.img`.
    pub initramfs: Vec<u8>,
    /// isolinux, which xorriso completes with a table of where it lies.
    pub isolinux: Vec<u8>,
    /// isolinux's second part.
    pub ldlinux: Vec<u8>,
    /// The EFI system partition.
    pub esp: Vec<u8>,
}

/// Path of the EFI system partition in the image.
pub const ESP: &str = "/boot/efi.img";
/// Path of isolinux in the image.
pub const ISOLINUX: &str = "/isolinux/isolinux.bin";
/// Path of the boot catalog, which xorriso writes.
pub const CATALOG: &str = "/isolinux/boot.cat";

impl Tree {
    /// Every file with its path, sorted; without the boot catalog.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            // GRUB takes the volume that has this file for its own.
            ("/.disk/info", b"containerVM bootstrap\n".to_vec()),
            ("/boot/cmdline", format!("{CMDLINE}\n").into_bytes()),
            (ESP, self.esp.clone()),
            ("/boot/grub/grub.cfg", grub_config().into_bytes()),
            ("/boot/initramfs.img", self.initramfs.clone()),
            ("/boot/vmlinuz", self.kernel.clone()),
            (ISOLINUX, self.isolinux.clone()),
            ("/isolinux/isolinux.cfg", isolinux_config().into_bytes()),
            ("/isolinux/ldlinux.c32", self.ldlinux.clone()),
        ]
    }

    /// Writes the files under `root`.
    ///
    /// # Errors
    /// A failed write.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        for (path, content) in self.files() {
            let path = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap_or(root))?;
            fs::write(path, content)?;
        }
        Ok(())
    }
}

/// No prompt, no timeout, no serial line: a session's port stays silent.
fn isolinux_config() -> String {
    format!(
        "DEFAULT containervm\nPROMPT 0\nNOESCAPE 1\nLABEL containervm\n  \
         KERNEL /boot/vmlinuz\n  INITRD /boot/initramfs.img\n  APPEND {CMDLINE}\n"
    )
}

fn grub_config() -> String {
    format!("linux /boot/vmlinuz {CMDLINE}\ninitrd /boot/initramfs.img\nboot\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_configures_the_session_port() {
        for text in [isolinux_config(), grub_config(), CMDLINE.to_owned()] {
            assert!(!text.contains("ttyS0") && !text.to_lowercase().contains("serial"), "{text}");
        }
    }

    #[test]
    fn files_are_listed_once_and_sorted() {
        let empty = Vec::new;
        let tree = Tree {
            kernel: empty(),
            initramfs: empty(),
            isolinux: empty(),
            ldlinux: empty(),
            esp: empty(),
        };
        let paths: Vec<_> = tree.files().into_iter().map(|it| it.0).collect();
        assert!(paths.is_sorted());
    }
}
