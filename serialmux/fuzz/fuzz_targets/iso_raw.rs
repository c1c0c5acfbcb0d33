//! Raw bytes of an ISO 9660 image, behind its boot code: files that lie in it, or an error.
#![no_main]

use iso9660::Image;
use libfuzzer_sys::fuzz_target;
use std::io::{self, Cursor};

/// What is before the volume descriptors (ECMA-119 6.2.1).
const SYSTEM_AREA: usize = 32 * 1024;
/// How much of a file is read, and of how many.
const MOST: u64 = 64 * 1024;
const FILES: usize = 32;

fuzz_target!(|data: &[u8]| {
    let mut bytes = vec![0; SYSTEM_AREA];
    bytes.extend_from_slice(data);
    let length = bytes.len() as u64;
    let Ok(mut image) = Image::open(Cursor::new(bytes)) else { return };
    drop(image.list("/"));
    let Ok(files) = image.walk() else { return };
    assert!(files.is_sorted_by(|a, b| a.0 <= b.0));
    for (path, entry) in files.iter().take(FILES) {
        assert!(!entry.is_dir && path.starts_with('/') && !path.contains("//"));
        // One of the same name may be before it.
        let Ok(found) = image.find(path) else { continue };
        if found.is_dir || found.size > length {
            assert!(image.read(path, MOST).is_err());
            continue;
        }
        let read = image.read(path, MOST);
        assert!(read.is_err() || read.is_ok_and(|it| it.len() as u64 == found.size));
        let copied = image.copy(path, &mut io::sink());
        assert!(copied.is_err() || copied.is_ok_and(|it| it == found.size));
    }
});
