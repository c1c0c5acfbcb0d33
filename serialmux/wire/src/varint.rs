//! Variable-length integers as in RFC 9000 section 16: 1, 2, 4 or 8 bytes, length in the top two bits.

/// Largest value a varint can hold: 2^62 − 1.
pub const MAX: u64 = (1 << 62) - 1;

/// Number of bytes [`put`] appends for `value`.
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends `value`, which is cut to [`MAX`].
pub fn put(out: &mut Vec<u8>, value: u64) {
    let value = value.min(MAX);
    let be = value.to_be_bytes();
    let n = len(value);
    let start = out.len();
    out.extend(be.iter().skip(8 - n));
    let prefix = match n {
        1 => 0x00,
        2 => 0x40,
        4 => 0x80,
        _ => 0xc0,
    };
    if let Some(first) = out.get_mut(start) {
        *first |= prefix;
    }
}

/// Takes one varint off the front of `input`; `None` if it is cut short.
pub fn take(input: &mut &[u8]) -> Option<u64> {
    let first = *input.first()?;
    let n = 1usize << (first >> 6);
    let (bytes, rest) = input.split_at_checked(n)?;
    *input = rest;
    let value = bytes.iter().fold(0u64, |acc, byte| (acc << 8) | u64::from(*byte));
    Some(value & (u64::MAX >> (66 - 8 * n as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_9000_examples_decode() {
        let check = |bytes: &[u8], value| assert_eq!(take(&mut &bytes[..]), Some(value));
        check(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652);
        check(&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333);
        check(&[0x7b, 0xbd], 15_293);
        check(&[0x25], 37);
    }

    proptest! {
        #[test]
        fn every_value_survives(value in 0..=MAX) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            let mut rest = &out[..];
            prop_assert_eq!(take(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(take(&mut &out[..out.len() - 1]), None);
        }
    }
}
