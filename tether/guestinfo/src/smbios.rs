//! SMBIOS OEM strings, a few lines of config that any hypervisor can hand to a guest's firmware.
//!
//! A string that begins with `guestinfo.` is VMX text, one line or several; others are somebody
//! else's. QEMU: `-smbios 'type=11,value=guestinfo.vice./common/id = "x"'` (a comma in a value is
//! doubled), or `type=11,path=FILE` for a whole file.
//!
//! ```text
//! type 11 │ length ≥ 5 │ handle (2) │ number of strings │ …up to length │ string NUL string NUL … NUL
//! ```
//! (SMBIOS 3.7, 6.1.3 and 7.12.) Linux shows the tables below `/sys/firmware/dmi` to root alone.

use std::path::{Path, PathBuf};

use crate::Vmx;
use crate::source::{Source, SourceError, Values, read_bounded};

/// The OEM strings of the machine's firmware.
#[derive(Debug, Clone)]
pub struct OemStrings {
    table: PathBuf,
}

impl OemStrings {
    /// The strings in the sysfs that is mounted at `sys` (`/sys`).
    pub fn new(sys: impl AsRef<Path>) -> Self {
        Self { table: sys.as_ref().join("firmware/dmi/tables/DMI") }
    }
}

impl Default for OemStrings {
    fn default() -> Self {
        Self::new("/sys")
    }
}

/// The largest table that is read, in bytes. One of version 2 has 64 KiB at most; version 3 leaves
/// room for more, which firmware hardly uses.
const MAX_TABLE: u64 = 4 << 20;

impl Source for OemStrings {
    fn name(&self) -> &str {
        "SMBIOS OEM strings"
    }

    fn read(&self) -> Result<Option<Values>, SourceError> {
        let Some(table) = read_bounded(&self.table, MAX_TABLE)? else { return Ok(None) };
        let mut text = Vec::new();
        for string in oem_strings(&table).filter(|string| string.starts_with(b"guestinfo.")) {
            text.extend_from_slice(string);
            text.push(b'\n');
        }
        if text.is_empty() {
            return Ok(None);
        }
        let path = self.table.clone();
        let vmx = Vmx::parse(&text).map_err(|error| SourceError::Vmx { path, error })?;
        Ok(Some(vmx.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }
}

/// All the strings of all structures of type 11, up to the first structure that makes no sense.
fn oem_strings(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    structures(table)
        .filter(|structure| structure.kind == OEM_STRINGS)
        .flat_map(|structure| structure.strings)
}

const OEM_STRINGS: u8 = 11;
const END_OF_TABLE: u8 = 127;

struct Structure<'a> {
    kind: u8,
    strings: Vec<&'a [u8]>,
}

fn structures(table: &[u8]) -> impl Iterator<Item = Structure<'_>> {
    let mut rest = table;
    std::iter::from_fn(move || {
        let (structure, after) = split_structure(rest)?;
        rest = if structure.kind == END_OF_TABLE { &[] } else { after };
        Some(structure)
    })
}

/// The first structure, and what follows it.
fn split_structure(table: &[u8]) -> Option<(Structure<'_>, &[u8])> {
    let (&kind, &length) = (table.first()?, table.get(1)?);
    let mut rest = table.get(usize::from(length).max(4)..)?;
    let mut strings = Vec::new();
    loop {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (string, after) = (rest.get(..end)?, rest.get(end + 1..)?);
        if string.is_empty() {
            // A structure without strings ends with two zeros, one with strings with one more.
            let after =
                if strings.is_empty() { after.strip_prefix(&[0]).unwrap_or(after) } else { after };
            return Some((Structure { kind, strings }, after));
        }
        strings.push(string);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn structure(kind: u8, strings: &[&str]) -> Vec<u8> {
        let mut bytes = vec![kind, 5, 0, 1, u8::try_from(strings.len()).unwrap()];
        for string in strings {
            bytes.extend(string.as_bytes());
            bytes.push(0);
        }
        bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
        bytes
    }

    fn read(table: &[u8]) -> Result<Option<Vec<(String, String)>>, SourceError> {
        let sys = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sys.path().join("firmware/dmi/tables")).unwrap();
        std::fs::write(sys.path().join("firmware/dmi/tables/DMI"), table).unwrap();
        OemStrings::new(sys.path()).read()
    }

    #[test]
    fn lines_are_taken_from_all_oem_structures_and_no_others() {
        let table = [
            structure(0, &["SeaBIOS", "guestinfo.not = \"bios\""]),
            structure(4, &[]),
            structure(11, &["io.systemd.credential:x=y", "guestinfo.a = \"1\""]),
            structure(11, &["guestinfo.b = \"|22two|22\"\nguestinfo.c = \"3\""]),
            structure(127, &[]),
            structure(11, &["guestinfo.after = \"the end\""]),
        ];
        let pairs = read(&table.concat()).unwrap().unwrap();
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("guestinfo.a", "1"), ("guestinfo.b", "\"two\""), ("guestinfo.c", "3")]);
    }

    #[test]
    fn machines_without_our_strings_have_no_such_source() {
        assert!(read(&structure(11, &["of somebody else"])).unwrap().is_none());
        assert!(read(&[]).unwrap().is_none());
        assert!(OemStrings::new("/nonexistent").read().unwrap().is_none());
    }

    #[test]
    fn a_string_that_is_no_vmx_line_is_told() {
        let error = read(&structure(11, &["guestinfo.a = \"1"])).unwrap_err().to_string();
        assert!(error.contains("tables/DMI:1:") && error.contains("closing quote"), "{error}");
    }

    proptest! {
        #[test]
        fn any_table_is_read_to_an_end(table in prop::collection::vec(prop_oneof![Just(0u8), Just(11), any::<u8>()], 0..300)) {
            prop_assert!(oem_strings(&table).map(<[u8]>::len).sum::<usize>() <= table.len());
        }
    }
}
