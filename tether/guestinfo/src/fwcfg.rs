//! QEMU's fw_cfg, the item `opt/containervm.vmx` holding VMX lines.
//!
//! `-fw_cfg name=opt/containervm.vmx,file=…`; Linux shows the item below `/sys/firmware/qemu_fw_cfg` with its
//! selector, size and bytes. The device can only be read from an item's start, so the kernel's driver throws
//! all bytes before the offset of a read away, one by one, and sysfs reads in pages: the time for a long item
//! grows with its square (0.2 s for 64 KiB under emulation). What is longer than a page is therefore taken
//! from the device itself in one go, which the kernel allows to root unless it is locked down, and believed if
//! it begins as the kernel says; else the kernel's slow way is taken.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::source::{MAX_CONFIG, Source, SourceError, Values, is_absent, parsed, read_bounded};
use crate::sys;

/// The item in which a VM's VMX lines are.
#[derive(Debug, Clone)]
pub struct FwCfg {
    item: PathBuf,
    device: DeviceRead,
}

/// Fills the buffer with the bytes of the item that has this selector; whether that could be done.
type DeviceRead = fn(u16, &mut [u8]) -> bool;

/// What sysfs gives in one read.
const PAGE: usize = 4096;

/// The files of an item that say its selector and size are that long at most.
const MAX_NUMBER: u64 = 32;

impl FwCfg {
    /// The item in the sysfs that is mounted at `sys`; the device itself is not touched.
    pub fn new(sys: impl AsRef<Path>) -> Self {
        let item = "firmware/qemu_fw_cfg/by_name/opt/containervm.vmx";
        Self { item: sys.as_ref().join(item), device: |_, _| false }
    }

    fn number(&self, name: &str) -> Option<u64> {
        let bytes = read_bounded(&self.item.join(name), MAX_NUMBER).ok()??;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }

    /// The whole item by the fast way.
    fn at_once(&self, raw: &Path) -> Option<Vec<u8>> {
        let (size, key) = (self.number("size")?, self.number("key")?);
        let size = usize::try_from(size).ok().filter(|size| *size > PAGE)?;
        let mut start = [0; PAGE];
        File::open(raw).ok()?.read_exact_at(&mut start, 0).ok()?;
        let mut bytes = vec![0; size];
        let is_read = (self.device)(u16::try_from(key).ok()?, &mut bytes);
        (is_read && bytes.starts_with(&start)).then_some(bytes)
    }
}

impl Default for FwCfg {
    fn default() -> Self {
        Self { device: sys::read_fw_cfg, ..Self::new("/sys") }
    }
}

impl Source for FwCfg {
    fn name(&self) -> &str {
        "fw_cfg opt/containervm.vmx"
    }

    fn read(&self) -> Result<Option<Values>, SourceError> {
        let raw = self.item.join("raw");
        match self.number("size") {
            Some(size) if size > MAX_CONFIG => {
                return Err(SourceError::TooLarge { path: raw, limit: MAX_CONFIG });
            }
            None if is_absent(&raw) => return Ok(None),
            _ => {}
        }
        let bytes = match self.at_once(&raw) {
            Some(bytes) => Some(bytes),
            None => read_bounded(&raw, MAX_CONFIG)?,
        };
        bytes.map_or(Ok(None), |bytes| parsed(&raw, &bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn item(text: &[u8]) -> (tempfile::TempDir, FwCfg) {
        let sys = tempfile::tempdir().unwrap();
        let mut source = FwCfg::new(sys.path());
        source.device = |_, _| panic!("the device is of no use for so little");
        fs::create_dir_all(&source.item).unwrap();
        fs::write(source.item.join("raw"), text).unwrap();
        fs::write(source.item.join("size"), format!("{}\n", text.len())).unwrap();
        fs::write(source.item.join("key"), "42\n").unwrap();
        (sys, source)
    }

    fn long() -> Vec<u8> {
        format!("a = \"{}\"\nb = \"2\"\n", "x".repeat(2 * PAGE)).into_bytes()
    }

    fn last(source: &FwCfg) -> String {
        source.read().unwrap().unwrap().pop().unwrap().1
    }

    #[test]
    fn what_fits_into_a_page_is_read_by_the_kernel() {
        let (_sys, source) = item(b"a = \"1\"\n\0");
        assert_eq!(last(&source), "1");
    }

    #[test]
    fn what_is_longer_is_taken_from_the_device() {
        let (_sys, mut source) = item(&long());
        source.device = |selector, bytes| {
            bytes.copy_from_slice(&long());
            let at = bytes.len() - 3;
            bytes[at] = b'3';
            selector == 42
        };
        assert_eq!(last(&source), "3", "from the device");
    }

    #[test]
    fn a_device_that_cannot_be_read_or_says_otherwise_is_left_to_the_kernel() {
        let refuses: DeviceRead = |_, _| false;
        let differs: DeviceRead = |_, bytes| {
            bytes.fill(b'#');
            true
        };
        for device in [refuses, differs] {
            let (_sys, mut source) = item(&long());
            source.device = device;
            assert_eq!(last(&source), "2", "from the kernel");
        }
    }

    #[test]
    fn a_size_beyond_reason_is_told_before_anything_is_read() {
        let (_sys, source) = item(b"a = \"1\"\n");
        fs::write(source.item.join("size"), "99999999999").unwrap();
        assert!(matches!(source.read(), Err(SourceError::TooLarge { .. })));
    }

    #[test]
    fn machines_without_the_item_have_no_such_source() {
        assert!(FwCfg::new("/nonexistent").read().unwrap().is_none());
    }
}
