//! The 512-byte header of a tar entry, and how it spells numbers.

use super::archive::ArchiveFault;

/// A numeric field: where it is and what to call it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) name: &'static str,
}

impl Field {
    pub(super) const MODE: Self = Self { at: 100, length: 8, name: "mode" };
    pub(super) const UID: Self = Self { at: 108, length: 8, name: "owner" };
    pub(super) const GID: Self = Self { at: 116, length: 8, name: "group" };
    pub(super) const SIZE: Self = Self { at: 124, length: 12, name: "size" };
    pub(super) const MTIME: Self = Self { at: 136, length: 12, name: "modification time" };
    pub(super) const CHECKSUM: Self = Self { at: 148, length: 8, name: "checksum" };
    pub(super) const MAJOR: Self = Self { at: 329, length: 8, name: "device number" };
    pub(super) const MINOR: Self = Self { at: 337, length: 8, name: "device number" };
    pub(super) const REAL_SIZE: Self = Self { at: 483, length: 12, name: "real size" };
}

/// A header block.
#[derive(Debug)]
pub(super) struct Header<'a>(pub(super) &'a [u8; 512]);

impl Header<'_> {
    /// Whether the sum of the bytes is the one stored; historic writers summed signed bytes.
    pub(super) fn checksum_fits(&self) -> bool {
        let Ok(stored) = self.number(Field::CHECKSUM) else { return false };
        let blank = |at: usize| (148..156).contains(&at);
        let bytes =
            self.0.iter().enumerate().map(|(at, byte)| if blank(at) { b' ' } else { *byte });
        let unsigned: u64 = bytes.clone().map(u64::from).sum();
        let signed: i64 = bytes.map(|byte| i64::from(byte.cast_signed())).sum();
        stored == unsigned || i64::try_from(stored) == Ok(signed)
    }

    pub(super) fn entry_type(&self) -> u8 {
        self.0[156]
    }

    /// The name with ustar's prefix; GNU headers use those bytes for other things.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let is_ustar = &self.0[257..263] == b"ustar\0";
        match text(&self.0[345..500]) {
            prefix if is_ustar && !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn number(&self, field: Field) -> Result<u64, ArchiveFault> {
        number(&self.0[field.at..field.at + field.length], field.name)
    }
}

/// Pieces of an old GNU sparse map: pairs of 12-byte numbers, ended by an empty one.
pub(super) fn sparse_pieces(
    block: &[u8; 512],
    at: usize,
    n: usize,
) -> Result<Vec<(u64, u64)>, ArchiveFault> {
    block[at..at + n * 24]
        .chunks_exact(24)
        .take_while(|piece| piece[0] != 0)
        .map(|piece| {
            Ok((number(&piece[..12], "sparse offset")?, number(&piece[12..], "sparse length")?))
        })
        .collect()
}

/// Octal digits between blanks, or GNU's base 256 when the top bit is set. Negative numbers (times before 1970) wrap.
fn number(bytes: &[u8], name: &'static str) -> Result<u64, ArchiveFault> {
    let fault = || ArchiveFault::Number(name);
    match bytes[0] {
        0xff => Ok(bytes.iter().fold(u64::MAX, |value, byte| value << 8 | u64::from(*byte))),
        0x80 => bytes[1..].iter().try_fold(0u64, |value, byte| {
            value.checked_mul(256).map(|value| value | u64::from(*byte)).ok_or_else(fault)
        }),
        _ => {
            let digits = text(bytes).trim_ascii();
            digits.iter().try_fold(0u64, |value, byte| match byte {
                b'0'..=b'7' => value
                    .checked_mul(8)
                    .map(|value| value | u64::from(byte - b'0'))
                    .ok_or_else(fault),
                _ => Err(fault()),
            })
        }
    }
}

fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_as_octal_or_base_256() {
        let check = |bytes: &[u8], expected: Option<u64>| {
            assert_eq!(number(bytes, "size").ok(), expected, "{bytes:?}");
        };
        check(b"0000644\0", Some(0o644));
        check(b" 644 \0\0\0", Some(0o644));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"00009\0\0\0", None);
        check(b"-1\0\0\0\0\0\0", None);
        check(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], Some(0x2_0000_0000));
        check(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None);
        check(&[0xff; 12], Some(u64::MAX));
    }
}
