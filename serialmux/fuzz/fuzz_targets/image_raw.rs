//! Raw bytes of an image, plain or compressed: a tree whose contents lie in the file, and a disk of it, or an error.
#![no_main]

use containervm::ext4::{self, FormatOptions};
use containervm::image::archive;
use containervm::image::blob::Blob;
use containervm::image::layer;
use containervm::tree::{Source, Timestamp, Tree};
use libfuzzer_sys::fuzz_target;
use serialmux_fuzz::heads::sealed;
use std::cell::OnceCell;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

thread_local! {
    static DISK: OnceCell<File> = const { OnceCell::new() };
}

fn scratch() -> File {
    tempfile::tempfile_in("/dev/shm").expect("a file in memory")
}

fuzz_target!(|data: &[u8]| {
    let bytes = sealed(data);
    let mut file = scratch();
    file.write_all(&bytes).expect("room in memory");
    let length = bytes.len() as u64;
    let blob = Blob { file: Arc::new(file), offset: 0, length, name: "image".into() };
    let Ok(blob) = blob.unpacked(Path::new("/dev/shm")) else { return };
    let whole = archive::read(&blob, &mut |entry| {
        let mut end = 0;
        for extent in &entry.extents {
            assert!(end <= extent.start && extent.length > 0);
            end = extent.start + extent.length;
            let Source::Open { offset, .. } = extent.source else { panic!("it is in the file") };
            assert!(offset.checked_add(extent.length).is_some_and(|end| end <= blob.length));
        }
        assert!(end <= entry.size);
        Ok(())
    });
    let mut tree = Tree::new();
    if layer::extract(&blob, &mut tree).is_ok() {
        assert!(whole.is_ok());
    }
    // As a layer over itself: whiteouts, and what they leave.
    drop(layer::apply(&blob, &mut tree));
    let options = FormatOptions {
        label: "containerfs".into(),
        uuid: [7; 16],
        size: 16 << 20,
        time: Timestamp::default(),
    };
    DISK.with(|disk| {
        let disk = disk.get_or_init(scratch);
        disk.set_len(0).expect("it can be cut");
        if ext4::write(&tree, disk, &options).is_ok() {
            assert_eq!(disk.metadata().expect("it is there").len(), 16 << 20);
        }
    });
});
