//! Archives that ask for more than they hold.

use super::*;

/// A head of this kind with these records.
fn extended(kind: tar::EntryType, records: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(records.len() as u64);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), records].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest..).find(|length| *length == rest + length.to_string().len()).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

#[test]
fn what_few_bytes_of_an_archive_ask_for_is_bounded() {
    use tar::EntryType::{XGlobalHeader, XHeader};
    let bench = Bench::new();
    let fault = |heads: &[Vec<u8>]| {
        let archive = [heads.concat(), tar_of(&[("f", b"x")])].concat();
        bench.fault(&bench.write("x.tar", &archive))
    };
    let global = extended(XGlobalHeader, &pax("comment", &[b'x'; 40_000]));
    let other = extended(XGlobalHeader, &pax("other", &[b'x'; 40_000]));
    let text = fault(&[global.clone(), other]);
    assert!(text.contains("says of all entries is 80012 bytes"), "{text}");
    let text = fault(&[extended(XGlobalHeader, &pax("SCHILY.xattr.user.x", &[b'x'; 9000]))]);
    assert!(text.contains("extended attributes take 9006 bytes"), "{text}");
    let own = extended(XHeader, &pax("comment", &[b'x'; 600_000]));
    let text = fault(&[own.clone(), own.clone()]);
    assert!(text.contains("at most 1048576 make sense"), "{text}");
    let fine = [global.clone(), own, global, tar_of(&[("f", b"x")])].concat();
    bench.resolve(&bench.write("x.tar", &fine)).unwrap();
}

#[test]
fn pieces_at_the_end_of_all_numbers_are_not_in_the_archive() {
    let bench = Bench::new();
    let most = u64::MAX.to_string();
    let records = [
        pax("size", most.as_bytes()),
        pax("GNU.sparse.size", most.as_bytes()),
        pax("GNU.sparse.map", format!("0,{0},{0},1", u64::MAX - 1).as_bytes()),
    ];
    let head = extended(tar::EntryType::XHeader, &records.concat());
    let text = bench.fault(&bench.write("x.tar", &[head, tar_of(&[("f", b"x")])].concat()));
    assert!(text.contains("ends in the middle of it"), "{text}");
}
