//! Who a containerVM is: its id, its key, its name.

use std::fmt::Write as _;

/// Bytes of the key that seals a containerVM's pipe.
const KEY_LENGTH: usize = 32;
/// Longest name: it becomes a file name.
const MAX_NAME: usize = 128;

/// First words of a made-up name.
const ADJECTIVES: [&str; 48] = [
    "amber", "bold", "brave", "bright", "brisk", "calm", "candid", "clever", "cosmic", "crisp",
    "daring", "deft", "eager", "early", "fair", "fleet", "fond", "frank", "gentle", "glad",
    "golden", "grand", "happy", "hardy", "humble", "jolly", "keen", "kind", "lively", "loyal",
    "lucid", "mellow", "merry", "mild", "neat", "nimble", "noble", "patient", "placid", "polite",
    "prompt", "proud", "quiet", "rapid", "serene", "steady", "sunny", "witty",
];
/// Second words: people who taught machines to compute and to talk to each other.
const SURNAMES: [&str; 48] = [
    "allen",
    "amdahl",
    "babbage",
    "bachman",
    "backus",
    "baran",
    "bartik",
    "berners",
    "boole",
    "brooks",
    "cerf",
    "church",
    "clarke",
    "codd",
    "conway",
    "cray",
    "dahl",
    "davies",
    "dijkstra",
    "engelbart",
    "estrin",
    "feinler",
    "floyd",
    "gray",
    "hamilton",
    "hamming",
    "hoare",
    "hopper",
    "huffman",
    "iverson",
    "johnson",
    "kahn",
    "kernighan",
    "kilburn",
    "knuth",
    "lamport",
    "liskov",
    "lovelace",
    "mccarthy",
    "naur",
    "neumann",
    "perlman",
    "postel",
    "ritchie",
    "shannon",
    "turing",
    "wilkes",
    "zuse",
];

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The name would not do as a file name or on a command line.
    #[error(
        "the name {0:?} is not possible; use letters, digits, \"_\", \".\" and \"-\", beginning with a letter or digit, at most {MAX_NAME}"
    )]
    Name(String),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// A fresh id: 64 hexadecimal digits, as Docker's.
///
/// # Errors
/// When there are no random numbers.
pub fn id() -> Result<String, IdentityError> {
    Ok(crate::image::blob::hex(&random::<32>()?))
}

/// A fresh key.
///
/// # Errors
/// When there are no random numbers.
pub fn key() -> Result<[u8; KEY_LENGTH], IdentityError> {
    random()
}

/// A fresh UUID (version 4) in the form of `uuid.bios`: `xx xx xx xx xx xx xx xx-xx xx xx xx xx xx xx xx`.
///
/// # Errors
/// When there are no random numbers.
pub fn uuid_bios() -> Result<String, IdentityError> {
    let mut bytes = random::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        let separator = match index {
            0 => "",
            8 => "-",
            _ => " ",
        };
        write!(text, "{separator}{byte:02x}").expect("a String takes any text");
    }
    Ok(text)
}

/// A made-up name, which may be taken already.
///
/// # Errors
/// When there are no random numbers.
pub fn name() -> Result<String, IdentityError> {
    let [a, b, c, d] = random::<4>()?;
    let pick = |list: &[&'static str; 48], high: u8, low: u8| {
        list[usize::from(u16::from_be_bytes([high, low])) % list.len()]
    };
    Ok(format!("{}_{}", pick(&ADJECTIVES, a, b), pick(&SURNAMES, c, d)))
}

/// Checks a name that a user chose, by Docker's rule.
///
/// # Errors
/// When it is not possible.
pub fn check_name(name: &str) -> Result<(), IdentityError> {
    let is_first = |byte: u8| byte.is_ascii_alphanumeric();
    let is_other = |byte: u8| is_first(byte) || b"_.-".contains(&byte);
    let bytes = name.as_bytes();
    let fits = bytes.len() <= MAX_NAME && bytes.first().copied().is_some_and(is_first);
    if fits && bytes.iter().copied().all(is_other) {
        Ok(())
    } else {
        Err(IdentityError::Name(name.to_owned()))
    }
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(IdentityError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ_and_have_their_forms() {
        let (one, two) = (id().unwrap(), id().unwrap());
        assert!(one != two && one.len() == 64 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let uuid = uuid_bios().unwrap();
        assert_eq!((uuid.len(), &uuid[23..24], &uuid[18..19]), (47, "-", "4"), "{uuid}");
        check_name(&name().unwrap()).unwrap();
    }

    #[test]
    fn names_are_those_docker_takes() {
        for good in ["a", "web-1", "A_b.c", "0"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", ".", "a/b", "../x", "a b", "ä", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
