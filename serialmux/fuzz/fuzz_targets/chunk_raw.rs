//! Raw bytes of an output channel: entries or an error, the same however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::chunk::{Chunk, Reader};

fn entries(data: &[u8], cut: usize) -> Vec<Chunk> {
    let (mut reader, mut found) = (Reader::default(), Vec::new());
    for piece in data.chunks(cut) {
        reader.push(piece);
        loop {
            match reader.next_chunk() {
                Ok(Some((chunk, _))) => found.push(chunk),
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
