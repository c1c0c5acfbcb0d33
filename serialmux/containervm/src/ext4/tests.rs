//! What e2fsck and debugfs, written by others, say about the file systems this module writes.

use std::{collections::BTreeMap, path::Path, process::Command};

use super::*;
use crate::tree::{Attributes, Extent, Kind, Source};

const SIZE: u64 = 10 << 30;

fn format(tree: &Tree, size: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    let options = FormatOptions {
        label: "containerfs".into(),
        uuid: *b"0123456789abcdef",
        size,
        time: Timestamp { seconds: 1_700_000_000, nanoseconds: 0 },
    };
    write(tree, &file, &options).unwrap();
    (dir, path)
}

/// Output of a tool of package e2fsprogs, which every Debian has; missing is a failure, not a skip.
#[track_caller]
fn tool(name: &str, arguments: &[&str], image: &Path) -> String {
    let path = ["/usr/sbin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists());
    let program =
        path.unwrap_or_else(|| panic!("{name} is missing; install the package e2fsprogs"));
    let output = Command::new(program).args(arguments).arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {}\n{text}", output.status);
    text
}

fn debugfs(image: &Path, request: &str) -> String {
    tool("debugfs", &["-R", request], image)
}

fn put(tree: &mut Tree, path: &str, attributes: Attributes, kind: Kind) {
    tree.insert(path.as_bytes(), attributes, kind).unwrap();
}

fn plain(mode: u16) -> Attributes {
    Attributes {
        modified: Timestamp { seconds: 1_600_000_000, nanoseconds: 7 },
        ..Attributes::root_owned(mode)
    }
}

#[test]
fn an_empty_tree_is_a_clean_file_system_that_takes_little_room() {
    use std::os::unix::fs::MetadataExt as _;
    let (_dir, image) = format(&Tree::new(), SIZE);
    tool("e2fsck", &["-fn"], &image);
    let about = tool("dumpe2fs", &["-h"], &image);
    for line in [
        "Filesystem volume name:   containerfs",
        "30313233-3435-3637-3839-616263646566",
        "has_journal",
    ] {
        assert!(about.contains(line), "{line} is missing in\n{about}");
    }
    let metadata = std::fs::metadata(&image).unwrap();
    assert_eq!(metadata.len(), SIZE);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} bytes on disk", metadata.blocks() * 512);
}

#[test]
fn every_kind_of_node_is_kept_with_its_attributes() {
    let mut tree = Tree::new();
    let xattrs = BTreeMap::from([
        (
            b"security.capability".to_vec(),
            vec![1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (b"user.note".to_vec(), b"hello".to_vec()),
        (
            b"system.posix_acl_access".to_vec(),
            vec![
                2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0,
                4, 0, 255, 255, 255, 255,
            ],
        ),
    ]);
    let owned = Attributes { uid: 70_000, gid: 80_000, xattrs, ..plain(0o4755) };
    put(&mut tree, "bin/ping", owned.clone(), Kind::file(*b"#!/bin/true\n"));
    put(&mut tree, "bin/ping6", owned, Kind::file(*b"#!/bin/true\n"));
    put(&mut tree, "dev/null", plain(0o666), Kind::CharDevice { major: 1, minor: 3 });
    put(&mut tree, "dev/big", plain(0o600), Kind::BlockDevice { major: 259, minor: 70_000 });
    put(&mut tree, "run/pipe", plain(0o600), Kind::Fifo);
    put(&mut tree, "run/socket", plain(0o600), Kind::Socket);
    put(&mut tree, "short", plain(0o777), Kind::Symlink(b"bin/ping".to_vec()));
    put(&mut tree, "edge", plain(0o777), Kind::Symlink(vec![b'e'; 59]));
    put(&mut tree, "long", plain(0o777), Kind::Symlink(vec![b'l'; 60]));
    put(&mut tree, "longest", plain(0o777), Kind::Symlink(vec![b'l'; 4095]));
    put(&mut tree, "empty", plain(0o644), Kind::file(*b""));
    tree.link(b"bin/pong", b"bin/ping").unwrap();
    put(&mut tree, &"n".repeat(255), plain(0o644), Kind::file(*b"name"));
    put(&mut tree, "tmp", plain(0o1777), Kind::directory());
    let (_dir, image) = format(&tree, SIZE);
    tool("e2fsck", &["-fn"], &image);

    let ping = debugfs(&image, "stat bin/ping");
    for part in [
        "Mode:  04755",
        "User: 70000",
        "Group: 80000",
        "Links: 2",
        "security.capability",
        "user.note",
    ] {
        assert!(ping.contains(part), "{part:?} is missing in\n{ping}");
    }
    assert!(ping.contains("0x5f5e1000:0000001c"), "{ping}");
    assert!(debugfs(&image, "cat bin/pong").contains("#!/bin/true"));
    assert!(debugfs(&image, "stat dev/null").contains("01:03"));
    assert!(debugfs(&image, "stat dev/big").contains("Device major/minor number: 259:70000"));
    assert!(debugfs(&image, "stat run/pipe").contains("Type: FIFO"));
    assert!(debugfs(&image, "stat run/socket").contains("Type: socket"));
    assert!(debugfs(&image, "stat short").contains("Fast link dest: \"bin/ping\""));
    assert!(debugfs(&image, "stat edge").contains(&"e".repeat(59)));
    assert!(debugfs(&image, "stat long").contains("Size: 60"));
    assert!(debugfs(&image, "stat tmp").contains("Mode:  01777"));
    assert!(!debugfs(&image, "ls").contains("lost+found"));
}

#[test]
fn large_directories_and_many_files_are_clean() {
    let mut tree = Tree::new();
    for number in 0..30_000 {
        put(
            &mut tree,
            &format!("many/file-with-a-longer-name-{number}"),
            plain(0o644),
            Kind::file(*b"x"),
        );
    }
    for number in 0..2000 {
        put(&mut tree, &format!("dirs/{number}/inner"), plain(0o755), Kind::directory());
    }
    let (_dir, image) = format(&tree, 1 << 30);
    tool("e2fsck", &["-fn"], &image);
    assert!(debugfs(&image, "stat many/file-with-a-longer-name-29999").contains("Size: 1"));
    assert!(debugfs(&image, "stat dirs").contains("Links: 2002"));
}

#[test]
fn holes_stay_holes_and_files_cross_groups() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let bytes: Vec<u8> =
        (0..300u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect();
    std::fs::write(&path, &bytes).unwrap();
    let source = || Source::Path { path: std::sync::Arc::new(path.clone()), offset: 0 };
    let mut tree = Tree::new();
    let size = bytes.len() as u64;
    put(
        &mut tree,
        "big",
        plain(0o644),
        Kind::File { size, extents: vec![Extent { start: 0, length: size, source: source() }] },
    );
    let pieces = |n: u64| {
        (0..n).map(|n| Extent { start: n * 12_288 + 5, length: 100, source: source() }).collect()
    };
    put(&mut tree, "pieces", plain(0o644), Kind::File { size: 600 * 12_288, extents: pieces(600) });
    put(
        &mut tree,
        "dense",
        plain(0o644),
        Kind::File { size: 2000 * 12_288, extents: pieces(2000) },
    );
    put(&mut tree, "hole", plain(0o644), Kind::File { size: 5 << 30, extents: Vec::new() });
    let (_out, image) = format(&tree, SIZE);
    tool("e2fsck", &["-fn"], &image);
    for name in ["big", "pieces"] {
        debugfs(&image, &format!("dump {name} {}", dir.path().join(name).display()));
    }
    assert!(std::fs::read(dir.path().join("big")).unwrap() == bytes, "contents differ");
    let pieces = std::fs::read(dir.path().join("pieces")).unwrap();
    assert_eq!(pieces.len(), 600 * 12_288);
    assert_eq!(pieces[599 * 12_288 + 5..][..100], bytes[..100]);
    assert!(pieces[105..12_288].iter().all(|byte| *byte == 0));
    assert!(debugfs(&image, "stat hole").contains("Blockcount: 0"));
}

#[test]
fn a_tree_larger_than_the_disk_is_refused() {
    let mut tree = Tree::new();
    let path = std::sync::Arc::new(std::path::PathBuf::from("/dev/zero"));
    let extents =
        vec![Extent { start: 0, length: 64 << 20, source: Source::Path { path, offset: 0 } }];
    put(&mut tree, "zeros", plain(0o644), Kind::File { size: 64 << 20, extents });
    let file = tempfile::tempfile().unwrap();
    let options = FormatOptions {
        label: "x".into(),
        uuid: [1; 16],
        size: 32 << 20,
        time: Timestamp::default(),
    };
    assert!(matches!(write(&tree, &file, &options), Err(Ext4Error::Full { .. })));
}
