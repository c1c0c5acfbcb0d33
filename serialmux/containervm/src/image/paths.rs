//! The list of an image's paths, kept beside its disk: what `diff` compares a container's disk with.
//!
//! Each entry is `seconds.nanoseconds path` and a zero byte: when the file was last changed as the file system on
//! the disk has it (its `st_ctime`), and its absolute path. Directories come before what is in them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::tree::{Kind, NodeId, Timestamp, Tree};

/// Where the list of a disk is.
#[must_use]
pub fn of(disk: &Path) -> PathBuf {
    disk.with_extension("paths")
}

/// Writes the list of `tree`.
///
/// # Errors
/// The writer's.
pub(crate) fn write(tree: &Tree, out: &mut impl Write) -> io::Result<()> {
    // Names of the directories above, and what is still to come of each.
    let mut levels = vec![(Vec::new(), names(tree, Tree::ROOT).into_iter())];
    while let Some((above, rest)) = levels.last_mut() {
        let Some((name, id)) = rest.next() else {
            levels.pop();
            continue;
        };
        let path = [above.as_slice(), b"/", name].concat();
        let Timestamp { seconds, nanoseconds } = tree.node(id).attributes.modified.on_disk();
        write!(out, "{seconds}.{nanoseconds} ")?;
        out.write_all(&path)?;
        out.write_all(&[0])?;
        if let Kind::Directory(_) = tree.node(id).kind {
            levels.push((path, names(tree, id).into_iter()));
        }
    }
    out.flush()
}

fn names(tree: &Tree, id: NodeId) -> Vec<(&[u8], NodeId)> {
    match &tree.node(id).kind {
        Kind::Directory(names) => names.iter().map(|(name, id)| (name.as_slice(), *id)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Attributes;

    #[test]
    fn every_path_is_listed_with_its_time() {
        let mut tree = Tree::new();
        let at = |seconds, nanoseconds| Attributes {
            modified: Timestamp { seconds, nanoseconds },
            ..Attributes::root_owned(0o755)
        };
        tree.insert(b"etc", at(5, 0), Kind::directory()).unwrap();
        tree.insert(b"etc/passwd", at(-3, 7), Kind::file(*b"x")).unwrap();
        tree.insert(b"bin", at(1 << 40, 4_000_000_000), Kind::directory()).unwrap();
        tree.insert(b"a\nb", at(1, 2), Kind::Fifo).unwrap();
        let mut list = Vec::new();
        write(&tree, &mut list).unwrap();
        let list = String::from_utf8(list).unwrap();
        let last = (1i64 << 34) - (1 << 31) - 1;
        let expected =
            ["1.2 /a\nb", &format!("{last}.999999999 /bin"), "5.0 /etc", "-3.7 /etc/passwd"];
        assert_eq!(list.split_terminator('\0').collect::<Vec<_>>(), expected);
    }
}
