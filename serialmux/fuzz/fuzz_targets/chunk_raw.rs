//! Raw bytes of an output channel: entries or an error, the same however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::chunk::{Entry, Reader};

fn entries(data: &[u8], cut: usize) -> Vec<Entry> {
    let (mut reader, mut found) = (Reader::default(), Vec::new());
    for piece in data.chunks(cut) {
        reader.push(piece);
        loop {
            match reader.next_entry() {
                Ok(Some((entry, _))) => found.push(entry),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

fuzz_target!(|data: &[u8]| {
    assert_eq!(entries(data, data.len().max(1)), entries(data, 3));
});
