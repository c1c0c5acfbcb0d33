//! Raw bytes of a packed stream: blocks within their bounds or an error, the same however they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::pack::{Block, MAX_PLAIN, Unpacker};

fn blocks(data: &[u8], cut: usize) -> Vec<Block> {
    let (mut unpacker, mut found) = (Unpacker::default(), Vec::new());
    for piece in data.chunks(cut) {
        unpacker.push(piece);
        loop {
            match unpacker.next_block() {
                Ok(Some(block)) => {
                    assert!(block.plain.len() <= MAX_PLAIN);
                    found.push(block);
                }
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

fuzz_target!(|data: &[u8]| {
    assert_eq!(blocks(data, data.len().max(1)), blocks(data, 3));
});
