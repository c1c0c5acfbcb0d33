//! Files of bytes, one for each thing that was released.

use std::fs;
use std::path::PathBuf;

fn vector(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/v1");
    dir.join(name.to_owned() + ".hex")
}

pub(super) fn check(name: &str, bytes: &[u8]) {
    let path = vector(name);
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text: String = digits.chunks(32).map(|line| line.concat() + "\n").collect();
    if std::env::var_os("VECTORS_WRITE").is_some() && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert_eq!(text, kept, "{name} is not what version 1 says");
}

/// The bytes of a vector that was made once.
pub(super) fn released(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = vector(name);
    if !path.exists() {
        check(name, &make());
    }
    let text = fs::read_to_string(&path).unwrap().replace('\n', "");
    let digits = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
