//! One directory record: where a file's bytes are, and what it is called.

use crate::image::Iso9660Error;

/// A file or directory of the image, as its directory record describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name in its directory; empty for the root. Never `.` or `..`, never with a `/`.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its content's length in bytes.
    pub size: u64,
    /// The first sector of its content.
    pub(crate) sector: u32,
}

/// A record of a directory, of which the first two name the directory itself and its parent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Dot { skip: usize },
    Parent,
    Entry(Entry),
}

/// Bytes before the file identifier (ECMA-119 9.1).
const FIXED: usize = 33;

impl Record {
    /// Reads the record that fills `bytes`; `skip` bytes of its system use area are not
    /// Rock Ridge's (SUSP 5.3).
    pub(crate) fn parse(bytes: &[u8], skip: usize) -> Result<Self, Iso9660Error> {
        let fixed = bytes.get(..FIXED).ok_or(SHORT)?;
        let identifier_end = FIXED + usize::from(fixed[32]);
        let identifier = bytes.get(FIXED..identifier_end).ok_or(SHORT)?;
        // The identifier is padded to an even offset (ECMA-119 9.1.12).
        let system_use = bytes.get(identifier_end + (identifier_end & 1)..).unwrap_or_default();
        let flags = fixed[25];
        match identifier {
            [0] => return Ok(Self::Dot { skip: susp_skip(system_use) }),
            [1] => return Ok(Self::Parent),
            _ => {}
        }
        // Bit 7: more extents follow; unit and gap sizes: interleaved (ECMA-119 9.1.6–9.1.8).
        if flags & 0x80 != 0 || fixed[26] != 0 || fixed[27] != 0 {
            return Err(Iso9660Error::Unsupported { what: "a file in several extents" });
        }
        let rock_ridge = system_use.get(skip..).and_then(rock_ridge_name);
        let name = rock_ridge.unwrap_or_else(|| plain_name(identifier));
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(Iso9660Error::Corrupt {
                what: "a directory record with an impossible name",
            });
        }
        Ok(Self::Entry(Entry {
            name,
            is_dir: flags & 0x02 != 0,
            size: u64::from(little_endian(&fixed[10..14])),
            sector: little_endian(&fixed[2..6]),
        }))
    }
}

/// The root directory, from the record embedded in the volume descriptor.
pub(crate) fn root(bytes: &[u8]) -> Result<Entry, Iso9660Error> {
    let fixed = bytes.get(..FIXED).ok_or(SHORT)?;
    Ok(Entry {
        name: String::new(),
        is_dir: true,
        size: u64::from(little_endian(&fixed[10..14])),
        sector: little_endian(&fixed[2..6]),
    })
}

/// The first four bytes; both-endian fields hold the little-endian half first (ECMA-119 7.3.3).
pub(crate) fn little_endian(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

const SHORT: Iso9660Error = Iso9660Error::Corrupt { what: "a directory record that is too short" };

/// `FILE.TXT;1` → `file.txt`, `FILE.;1` → `file`.
fn plain_name(identifier: &[u8]) -> String {
    let text = String::from_utf8_lossy(identifier);
    let without_version = text.split(';').next().unwrap_or_default();
    without_version.trim_end_matches('.').to_ascii_lowercase()
}

/// System use entries: two bytes of signature, length, version, data (SUSP 4.1).
fn system_use_entries(area: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = area;
    std::iter::from_fn(move || {
        let length = usize::from(*rest.get(2)?);
        let entry = rest.get(..length)?;
        let data = entry.get(4..)?;
        rest = &rest[length..];
        Some((&entry[..2], data))
    })
}

/// How many bytes the `SP` entry of the root's own record says to skip in every other record.
fn susp_skip(area: &[u8]) -> usize {
    let mut entries = system_use_entries(area);
    match entries.next() {
        Some((b"SP", [0xbe, 0xef, skip, ..])) => usize::from(*skip),
        _ => 0,
    }
}

/// The parts of all `NM` entries together (RRIP 4.1.4). Names that go on in a continuation area
/// (only beyond some 200 bytes) come out cut short.
fn rock_ridge_name(area: &[u8]) -> Option<String> {
    let mut name = Vec::new();
    for (signature, data) in system_use_entries(area) {
        if let (b"NM", [_flags, part @ ..]) = (signature, data) {
            name.extend_from_slice(part);
        }
    }
    (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(identifier: &[u8], flags: u8, system_use: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[2..6].copy_from_slice(&7u32.to_le_bytes());
        bytes[10..14].copy_from_slice(&1234u32.to_le_bytes());
        bytes[25] = flags;
        bytes[32] = u8::try_from(identifier.len()).unwrap();
        bytes.extend_from_slice(identifier);
        if bytes.len() % 2 == 1 {
            bytes.push(0);
        }
        bytes.extend_from_slice(system_use);
        bytes
    }

    #[track_caller]
    fn name_of(bytes: &[u8]) -> String {
        match Record::parse(bytes, 0).unwrap() {
            Record::Entry(entry) => entry.name,
            other => panic!("not an entry: {other:?}"),
        }
    }

    #[test]
    fn plain_names_lose_version_case_and_bare_dot() {
        assert_eq!(name_of(&record(b"VMLINUZ.;1", 0, b"")), "vmlinuz");
        assert_eq!(name_of(&record(b"GRUB.CFG;1", 0, b"")), "grub.cfg");
    }

    #[test]
    fn rock_ridge_names_win_and_may_come_in_parts() {
        let area = b"PX\x04\x01NM\x08\x01\x01LonNM\x08\x01\x00ger";
        assert_eq!(name_of(&record(b"X.;1", 0, area)), "Longer");
    }

    #[test]
    fn a_system_use_entry_of_length_zero_ends_the_area() {
        assert_eq!(name_of(&record(b"X.;1", 0, b"ZZ\0\x01NM\x06\x01\0Y")), "x");
    }

    #[test]
    fn size_place_and_kind_come_from_the_fixed_part() {
        let Record::Entry(entry) = Record::parse(&record(b"BOOT", 2, b""), 0).unwrap() else {
            panic!("not an entry")
        };
        assert!(entry.is_dir && entry.size == 1234 && entry.sector == 7);
    }

    #[test]
    fn several_extents_are_refused_not_cut() {
        let result = Record::parse(&record(b"BIG.;1", 0x80, b""), 0);
        assert!(matches!(result, Err(Iso9660Error::Unsupported { .. })), "{result:?}");
    }

    #[test]
    fn a_name_that_leaves_its_directory_is_corrupt() {
        for name in [&b"NM\x07\x01\0.."[..], b"NM\x08\x01\0a/b"] {
            let mut area = name.to_vec();
            area[2] = u8::try_from(area.len()).unwrap();
            let result = Record::parse(&record(b"X.;1", 0, &area), 0);
            assert!(matches!(result, Err(Iso9660Error::Corrupt { .. })), "{result:?}");
        }
    }
}
