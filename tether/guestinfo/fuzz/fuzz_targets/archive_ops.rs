//! Heads of a tar archive as a container's files have them: what is written reads the same again.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{Stat, makedev, stat};
use std::cell::OnceCell;
use tether::inside::archive::header::{Entry, pad, write_head};
use tether::inside::archive::reader::Reader;

#[derive(Debug, Arbitrary)]
struct File {
    name: Vec<u8>,
    kind: Kind,
    mode: u16,
    owner: (u32, u32),
    modified: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Arbitrary)]
enum Kind {
    File(Vec<u8>),
    /// Lengths of holes and of data behind them.
    Sparse(Vec<(u32, u8)>),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Device(u32, u32),
    Fifo,
}

thread_local! {
    static STAT: OnceCell<Stat> = const { OnceCell::new() };
}

/// What a path can hold.
fn path(bytes: &[u8]) -> Vec<u8> {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).take(4095).collect();
    if text.is_empty() { b"x".to_vec() } else { text }
}

fn stat_of(file: &File) -> Stat {
    let mut found = STAT.with(|cell| *cell.get_or_init(|| stat("/").expect("a root")));
    found.st_mode = u32::from(file.mode & 0o7777);
    (found.st_uid, found.st_gid) = file.owner;
    // Times before 1970 are written in whole seconds; what is beyond 34 bits no file system has.
    found.st_mtime = file.modified.0.rem_euclid(1 << 34) - (1 << 31);
    found.st_mtime_nsec = match found.st_mtime {
        ..0 => 0,
        _ => (file.modified.1 % 1_000_000_000).into(),
    };
    if let Kind::Device(major, minor) = file.kind {
        found.st_rdev = makedev(major % 0o7777777, minor % 0o7777777);
    }
    found
}

fuzz_target!(|files: Vec<File>| {
    let mut archive = Vec::new();
    let mut told = Vec::new();
    for file in &files {
        let (name, stat) = (path(&file.name), stat_of(file));
        let xattrs = file
            .xattrs
            .iter()
            // An equal sign ends the name in an archive.
            .map(|(name, value)| {
                (path(name).into_iter().filter(|byte| *byte != b'=').collect(), value.clone())
            })
            .collect();
        let (mut target, mut data, mut extents) = (Vec::new(), Vec::new(), Vec::new());
        let entry = match &file.kind {
            Kind::File(bytes) => {
                data.clone_from(bytes);
                extents.push((0, data.len() as u64));
                Entry::File(data.len() as u64)
            }
            Kind::Sparse(pieces) => {
                let mut end = 0;
                for (hole, len) in pieces.iter().filter(|(_, len)| *len > 0) {
                    extents.push((end + u64::from(*hole), u64::from(*len)));
                    end += u64::from(*hole) + u64::from(*len);
                    data.resize(data.len() + usize::from(*len), *len);
                }
                Entry::Sparse(end, &extents)
            }
            Kind::Directory => Entry::Directory,
            Kind::Symlink(bytes) => {
                target = path(bytes);
                Entry::Symlink(&target)
            }
            Kind::HardLink(bytes) => {
                target = path(bytes);
                Entry::HardLink(&target)
            }
            Kind::Device(..) => Entry::CharDevice,
            Kind::Fifo => Entry::Fifo,
        };
        write_head(&mut archive, &name, entry, &stat, &xattrs).expect("memory takes it");
        archive.extend(&data);
        pad(&mut archive, data.len() as u64).expect("memory takes it");
        told.push((name, target, stat, xattrs, extents, data));
    }
    let mut reader = Reader::new(&archive[..]);
    for (name, target, stat, xattrs, extents, data) in told {
        let head = reader.next_head().expect("what was written").expect("as many");
        assert_eq!((head.name, head.target, head.xattrs), (name, target, xattrs));
        assert_eq!((head.mode, head.uid, head.gid), (stat.st_mode, stat.st_uid, stat.st_gid));
        assert_eq!(head.modified, (stat.st_mtime, stat.st_mtime_nsec as u32));
        if !data.is_empty() {
            assert_eq!(head.extents, extents);
        }
        let (mut found, mut piece) = (Vec::<u8>::new(), [0; 100]);
        while let n @ 1.. = reader.data(&mut piece).expect("its data") {
            found.extend(&piece[..n]);
        }
        assert_eq!(found, data);
    }
    assert!(reader.next_head().expect("an end").is_none());
});
