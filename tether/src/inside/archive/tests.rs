//! Archives made of real trees and unpacked again, with GNU tar as the second opinion.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use wire::message::inside::CopyOut;

use super::pack::{last_component, pack};
use super::reader::Reader;
use super::unpack::unpack;
use crate::inside::failure::InsideError;
use crate::inside::root::ContainerRoot;

fn packed(root: &Path, path: &str) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(&ContainerRoot::at(root), &request(path, ""), &mut archive).unwrap();
    archive
}

fn request(path: &str, name: &str) -> CopyOut {
    CopyOut { path: path.into(), follow: false, name: name.into() }
}

fn unpacked(root: &Path, directory: &str, archive: &[u8]) -> Result<(), InsideError> {
    unpack(&ContainerRoot::at(root), directory.as_bytes(), None, archive)
}

fn gnu_tar(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("tar")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "tar {arguments:?}");
    output.stdout
}

/// A tree with one of everything that needs no privilege.
fn tree(root: &Path) {
    let long = "n".repeat(200);
    fs::create_dir_all(root.join("t/deep").join(&long)).unwrap();
    fs::write(root.join("t/file"), "hello\n").unwrap();
    fs::write(root.join("t/deep").join(&long).join("x"), "in deep").unwrap();
    fs::write(root.join("t/empty"), "").unwrap();
    fs::write(root.join("t/größe"), "utf").unwrap();
    fs::hard_link(root.join("t/file"), root.join("t/second name")).unwrap();
    symlink("/etc/passwd", root.join("t/absolute")).unwrap();
    symlink("x".repeat(300), root.join("t/long target")).unwrap();
    nix::unistd::mkfifo(&root.join("t/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::set_permissions(root.join("t/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("t/deep"), PermissionsExt::from_mode(0o1777)).unwrap();
    let sparse = File::create(root.join("t/sparse")).unwrap();
    sparse.set_len(10 << 40).unwrap();
    for at in 0..30 {
        sparse.write_all_at(b"data", at << 30).unwrap();
    }
    let modified = fs::FileTimes::new().set_modified(
        std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_500_000_000_123_456_789),
    );
    File::open(root.join("t/file")).unwrap().set_times(modified).unwrap();
    let directory = File::open(root.join("t/deep")).unwrap();
    directory.set_times(modified).unwrap();
}

#[test]
fn a_tree_is_the_same_after_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(&to).unwrap();
    tree(&from);
    let archive = packed(&from, "/t");
    assert!(archive.len() < 1 << 20, "holes are not sent: {} bytes", archive.len());
    unpacked(&to, "/", &archive).unwrap();
    check(&from.join("t"), &to.join("t"));
}

fn check(from: &Path, to: &Path) {
    let long = "n".repeat(200);
    for name in ["file", "empty", "größe", "second name", &format!("deep/{long}/x")] {
        assert_eq!(fs::read(from.join(name)).unwrap(), fs::read(to.join(name)).unwrap(), "{name}");
    }
    for name in ["absolute", "long target"] {
        let target = |root: &Path| fs::read_link(root.join(name)).unwrap();
        assert_eq!(target(from), target(to), "{name}");
    }
    for name in ["file", "deep", "fifo", "sparse", &format!("deep/{long}")] {
        let meta = |root: &Path| {
            let meta = root.join(name).symlink_metadata().unwrap();
            (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec())
        };
        assert_eq!(meta(from), meta(to), "{name}");
    }
    let inode = |name: &str| to.join(name).metadata().unwrap().ino();
    assert_eq!(inode("file"), inode("second name"));
    let sparse = to.join("sparse");
    let meta = sparse.metadata().unwrap();
    assert_eq!(meta.len(), 10 << 40);
    assert!(meta.blocks() < 1000, "{} blocks", meta.blocks());
    let file = File::open(&sparse).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 29 << 30).unwrap();
    assert_eq!(&bytes, b"data\0\0\0\0");
}

#[test]
fn gnu_tar_reads_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(&to).unwrap();
    tree(&from);
    gnu_tar(&["-xpSf", "-", "-C", &to.to_string_lossy()], &packed(&from, "/t"));
    check(&from.join("t"), &to.join("t"));
}

#[test]
fn what_gnu_tar_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    tree(&from);
    for format in ["--format=gnu", "--format=pax"] {
        let to = tempfile::tempdir_in(dir.path()).unwrap();
        let mut arguments = vec![format, "-cf", "-", "-C"];
        let place = from.to_string_lossy().into_owned();
        // GNU tar's POSIX form of holes is refused, and says so; and it has no fractions in its own form.
        arguments.extend([place.as_str(), "--exclude=t/sparse", "t"]);
        unpacked(to.path(), "/", &gnu_tar(&arguments, b"")).unwrap();
        let read = |root: &Path| fs::read(root.join("t/second name")).unwrap();
        assert_eq!(read(&from), read(to.path()), "{format}");
        let long = format!("t/deep/{}/x", "n".repeat(200));
        assert_eq!(fs::read(to.path().join(long)).unwrap(), b"in deep", "{format}");
    }
    let sparse = ["-cSf", "-", "-C", &from.to_string_lossy(), "--format=gnu", "t/sparse"];
    let to = tempfile::tempdir_in(dir.path()).unwrap();
    unpacked(to.path(), "/", &gnu_tar(&sparse, b"")).unwrap();
    assert!(to.path().join("t/sparse").metadata().unwrap().blocks() < 1000);
    let posix = ["-cSf", "-", "-C", &from.to_string_lossy(), "--format=pax", "t/sparse"];
    let refused = unpacked(to.path(), "/", &gnu_tar(&posix, b"")).unwrap_err();
    assert!(refused.to_string().contains("--format=gnu"), "{refused}");
}

/// An archive of one entry, with whatever name.
fn entry(name: &str, kind: tar::EntryType, target: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    let ids = fs::metadata(".").unwrap();
    header.set_uid(ids.uid().into());
    header.set_gid(ids.gid().into());
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive
}

fn file(name: &str) -> Vec<u8> {
    entry(name, tar::EntryType::Regular, "", b"owned")
}

#[test]
fn no_archive_writes_outside_of_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("base")).unwrap();
    fs::write(dir.path().join("victim"), "safe").unwrap();
    let outside = dir.path().to_string_lossy().into_owned();
    for name in ["../victim", "a/../../../victim", "..", "/../victim"] {
        let error = unpacked(&root, "/base", &file(name)).unwrap_err();
        assert!(matches!(error, InsideError::Escapes(_)), "{name}: {error}");
    }
    // Through links that the archive itself brings: absolute ones begin at the root.
    for target in [outside.as_str(), "../../..", "/../../.."] {
        let mut archive = entry("way", tar::EntryType::Symlink, target, b"");
        archive.extend(file("way/victim"));
        // Whether it finds a place inside or none: not outside.
        drop(unpacked(&root, "/base", &archive));
        drop(unpacked(&root, "/base", &entry("way", tar::EntryType::Regular, "", b"")));
    }
    // A link at the very name is replaced, not followed.
    let mut archive = entry("victim", tar::EntryType::Symlink, &format!("{outside}/victim"), b"");
    archive.extend(file("victim"));
    unpacked(&root, "/base", &archive).unwrap();
    assert_eq!(fs::read(root.join("base/victim")).unwrap(), b"owned");
    // Hard links to what is outside are not found.
    let link = entry("hard", tar::EntryType::Link, &format!("{outside}/victim"), b"");
    assert!(unpacked(&root, "/base", &link).is_err());
    assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"safe");
    // What is linked inside may be written through, as with Docker.
    symlink("/etc", root.join("base/inside")).unwrap();
    unpacked(&root, "/base", &file("inside/hosts")).unwrap();
    assert_eq!(fs::read(root.join("etc/hosts")).unwrap(), b"owned");
}

#[test]
fn directories_and_files_do_not_replace_each_other() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("f"), "").unwrap();
    let text = |archive: &[u8]| unpacked(dir.path(), "/", archive).unwrap_err().to_string();
    assert_eq!(text(&file("d")), "cannot overwrite directory \"d\" with non-directory");
    let directory = entry("f", tar::EntryType::Directory, "", b"");
    assert_eq!(text(&directory), "cannot overwrite non-directory \"f\" with directory");
    assert_eq!(
        unpacked(dir.path(), "/nosuch", &[]).unwrap_err().to_string(),
        "no such file or directory: /nosuch"
    );
    assert!(unpacked(dir.path(), "/f", &[]).unwrap_err().to_string().contains("ot a directory"));
}

#[test]
fn broken_archives_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let good = file("good");
    let mut bad_sum = good.clone();
    bad_sum[0] ^= 1;
    let mut vast = good.clone();
    vast[124..136].copy_from_slice(b"77777777777\0");
    for (what, archive) in [
        ("sum", &bad_sum[..]),
        ("cut head", &good[..300]),
        ("cut data", &good[..515]),
        ("gzip", b"\x1f\x8b\x08\0\0"),
    ] {
        let error = unpacked(dir.path(), "/", archive).unwrap_err();
        assert!(matches!(error, InsideError::Archive(_)), "{what}: {error}");
    }
    assert!(unpacked(dir.path(), "/", &vast).is_err());
    unpacked(dir.path(), "/", &[]).unwrap();
    unpacked(dir.path(), "/", &good).unwrap();
}

#[test]
fn no_changed_byte_of_an_archive_makes_it_panic_or_wait() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    tree(&from);
    let archive = packed(&from, "/t");
    let to = dir.path().join("to");
    // Heads of every kind are in it; each seventh byte of theirs gets an odd value once. Blocks of zeros are data.
    let is_zeros = |at: &usize| archive[at / 512 * 512..].iter().take(512).all(|byte| *byte == 0);
    for at in (0..archive.len()).step_by(7).filter(|at| !is_zeros(at)) {
        let mut changed = archive.clone();
        changed[at] = changed[at].wrapping_mul(31).wrapping_add(0x80);
        fix_checksums(&mut changed);
        fs::create_dir_all(&to).unwrap();
        // Whatever comes of it.
        drop(unpacked(&to, "/", &changed));
        fs::remove_dir_all(&to).unwrap();
    }
}

/// A PAX head with these records, and the entry that it is for.
fn extended(records: &[u8]) -> Vec<u8> {
    [entry("pax", tar::EntryType::XHeader, "", records), file("f")].concat()
}

#[test]
fn numbers_at_the_end_of_their_range_are_refused() {
    let first = |archive: &[u8]| Reader::new(archive).next_head().unwrap_err().to_string();
    let text = first(&extended(b"29 size=18446744073709551615\n"));
    assert!(text.contains("18446744073709551615 bytes"), "{text}");
    let mut vast = file("f");
    vast[124..136].copy_from_slice(&[0x80, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    fix_checksums(&mut vast);
    assert!(first(&vast).contains("18446744073709551615 bytes"));
    let text = first(&extended(b"32 mtime=-9223372036854775808.5\n"));
    assert!(text.contains("no number"), "{text}");
}

#[test]
fn heads_that_only_go_on_are_given_up() {
    let record = [b"600000 x=", vec![b'v'; 599_990].as_slice(), b"\n"].concat();
    let head = entry("pax", tar::EntryType::XHeader, "", &record);
    let mut archive = [head.as_slice(), &head, &file("f")].concat();
    let text = Reader::new(&archive[..]).next_head().unwrap_err().to_string();
    assert!(text.contains("without end"), "{text}");
    archive.drain(..head.len());
    assert_eq!(Reader::new(&archive[..]).next_head().unwrap().unwrap().name, b"f");
}

/// Makes every block that looks like a head one with a right checksum, so that more than that is tried.
fn fix_checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

#[test]
fn a_named_pipe_makes_nobody_wait_and_a_socket_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let listed = gnu_tar(&["-tf", "-"], &packed(dir.path(), "/"));
    assert_eq!(String::from_utf8(listed).unwrap(), "./\n./fifo\n");
}

#[test]
fn the_client_says_what_the_copy_is_called() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), "x").unwrap();
    for (path, name, listed) in
        [("/d", "new", "new/\nnew/f\n"), ("/d/", ".", "./\n./f\n"), ("/d/f", "g", "g\n")]
    {
        let mut archive = Vec::new();
        pack(&ContainerRoot::at(dir.path()), &request(path, name), &mut archive).unwrap();
        assert_eq!(String::from_utf8(gnu_tar(&["-tf", "-"], &archive)).unwrap(), listed);
    }
}

#[test]
fn directories_without_end_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut at =
        rustix::fs::open(dir.path(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
            .unwrap();
    for _ in 0..2100 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
            .unwrap();
    }
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 4096, 4096).unwrap();
    let error =
        pack(&ContainerRoot::at(dir.path()), &request("/", ""), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, InsideError::TooDeep { .. }), "{error}");
}

#[test]
fn the_last_component_is_the_archives_first_name() {
    for (path, name) in
        [("/a/b", "b"), ("/a/b/", "b"), ("/", "/"), ("/a/b/.", "b"), ("//", "/"), ("/x/..", "x")]
    {
        assert_eq!(last_component(path.as_bytes()), name.as_bytes(), "{path}");
    }
}
