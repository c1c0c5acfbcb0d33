//! Raw bytes of a tar archive that is copied into a container: entries within their bounds or an error.
#![no_main]

#[path = "../../../../serialmux/fuzz/src/heads.rs"]
mod heads;

use heads::sealed;
use libfuzzer_sys::fuzz_target;
use tether::inside::archive::reader::Reader;

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
