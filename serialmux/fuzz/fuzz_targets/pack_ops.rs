//! Pushes of every kind and size: what a packer makes, an unpacker reads, from any segment's start.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::pack::{Budget, Packer, Unpacker};

/// A push: how many bytes of the input, how often repeated, so that some compress and some do not.
fn pushes(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((&[len, times, high], rest)) = data.split_first_chunk::<3>() {
        let len = usize::from(len).min(rest.len());
        let (piece, rest) = rest.split_at(len);
        let times = usize::from(times) + 256 * usize::from(high % 8);
        found.push(piece.repeat(times).into_iter().take(40_000).collect());
        data = rest;
    }
    found
}

fuzz_target!(|data: &[u8]| {
    let (mut packer, mut line, mut plain) = (Packer::new(&Budget::new(1)), Vec::new(), Vec::new());
    for push in pushes(data) {
        packer.push(&push, &mut line);
        plain.extend(push);
    }
    let mut starts = vec![(0, 0)];
    let mut unpacker = Unpacker::default();
    unpacker.push(&line);
    let (mut at, mut read) = (0, 0);
    while let Some(block) = unpacker.next_block().expect("a packer's own work") {
        if block.fresh {
            starts.push((at, read));
        }
        assert_eq!(block.plain, &plain[read..read + block.plain.len()]);
        (at, read) = (at + block.taken, read + block.plain.len());
    }
    assert_eq!((at, read), (line.len(), plain.len()));
    if let Some((at, mut read)) = starts.pop() {
        let mut unpacker = Unpacker::default();
        unpacker.push(&line[at..]);
        while let Some(block) = unpacker.next_block().expect("a segment's start") {
            assert_eq!(block.plain, &plain[read..read + block.plain.len()]);
            read += block.plain.len();
        }
        assert_eq!(read, plain.len());
    }
});
