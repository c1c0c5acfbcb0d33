//! The names on the container's disk and when each was changed: what `diff` compares with the image's.
//!
//! It is the bare disk that is listed, as the agent has mounted it: nothing that is mounted over it in the
//! container shows. `st_ctime` changes with contents, owner, mode, attributes and names of a file, and no
//! program can set it.

use std::io::Write;

use wire::message::inside::Listed;
use wire::message::put;

use super::failure::InsideError;
use super::root::ContainerRoot;
use super::walk::Walk;

/// Writes all names below the root, each preceded by its length.
///
/// # Errors
///
/// [`InsideError`].
pub fn list(root: &ContainerRoot, out: &mut impl Write) -> Result<(), InsideError> {
    let top = root.directory(b"/").map_err(InsideError::path("open", b"/"))?;
    let mut walk = Walk::default();
    walk.enter(&top, b"/")?;
    let mut bytes = Vec::new();
    while let Some(found) = walk.next(|| ()).map_err(InsideError::path("read", b"/"))? {
        bytes.clear();
        let listed = Listed {
            depth: u32::try_from(walk.depth()).unwrap_or(u32::MAX),
            name: found.name.clone(),
            mode: found.stat.st_mode,
            changed: found.stat.st_ctime,
            changed_ns: u32::try_from(found.stat.st_ctime_nsec).unwrap_or(0),
        };
        put(&listed, &mut bytes);
        out.write_all(&bytes).map_err(InsideError::Pipe)?;
        if found.kind() == libc::S_IFDIR {
            walk.enter(&found.node, &found.name)?;
        }
    }
    out.flush().map_err(InsideError::Pipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_come_depth_first_in_order_of_bytes() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/x/y", "a", "b.d", "b/x"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("b/file"), "").unwrap();
        std::os::unix::fs::symlink("b", dir.path().join("c")).unwrap();
        let mut bytes = Vec::new();
        list(&ContainerRoot::at(dir.path()), &mut bytes).unwrap();
        let mut reader = wire::message::Reader::default();
        reader.push(&bytes);
        let mut names = Vec::new();
        while let Some((listed, _)) = reader.next_message::<Listed>().unwrap() {
            assert!(listed.changed > 1_600_000_000, "{listed:?}");
            names.push((listed.depth, String::from_utf8(listed.name).unwrap()));
        }
        let expected = [(1, "a"), (1, "b"), (2, "file"), (2, "x"), (3, "y"), (1, "b.d"), (1, "c")];
        let expected: Vec<_> = expected.map(|(depth, name)| (depth, name.to_owned())).into();
        assert_eq!(names, expected);
    }
}
