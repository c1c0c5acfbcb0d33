//! Raw bytes of a tar archive that is copied into a container: entries within their bounds or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tether::inside::archive::reader::Reader;

/// What a fuzzer cannot guess is filled in: the checksum of whatever says that it is a head.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    let archive = sealed(data);
    let (mut reader, mut buffer, mut n_read) = (Reader::new(&archive[..]), [0; 600], 0);
    while let Ok(Some(head)) = reader.next_head() {
        assert!(head.mode <= 0o7777 && head.modified.1 < 1_000_000_000);
        for (at, len) in &head.extents {
            assert!(at.checked_add(*len).is_some_and(|end| end <= head.size));
        }
        let stored = head.extents.iter().map(|(_, len)| u128::from(*len)).sum::<u128>();
        let mut n_data = 0;
        // Every second entry is passed over.
        while head.name.len() % 2 == 0 {
            match reader.data(&mut buffer) {
                Ok(0) => {
                    assert_eq!(n_data, stored);
                    break;
                }
                Ok(n) => n_data += n as u128,
                Err(_) => return,
            }
        }
        n_read += 512 + n_data;
        assert!(n_read <= archive.len() as u128);
    }
});
