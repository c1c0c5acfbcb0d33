//! The cpio archive an initramfs is: format "newc", the same bytes for the same entries.
//!
//! Every entry is owned by root, dated 1970 and numbered in order, so nothing of the machine that
//! built it gets in. Layout: Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeMap;

/// Device number of `/dev/console` (Documentation/admin-guide/devices.txt): the kernel opens
/// it for init's three standard descriptors, before any file system is mounted on `/dev`.
const CONSOLE: (u32, u32) = (5, 1);

/// What stands at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File { content: Vec<u8>, executable: bool },
    CharacterDevice { major: u32, minor: u32 },
}

/// An archive in the making. Paths are without a leading `/` and end up sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    nodes: BTreeMap<String, Node>,
}

impl Archive {
    /// An archive with `/dev/console` and nothing else.
    #[must_use]
    pub fn with_console() -> Self {
        let mut archive = Self::default();
        let (major, minor) = CONSOLE;
        archive.insert("dev/console", Node::CharacterDevice { major, minor });
        archive
    }

    /// Adds a file and the directories above it. A path added before is replaced.
    pub fn file(&mut self, path: &str, content: Vec<u8>, executable: bool) {
        self.insert(path, Node::File { content, executable });
    }

    /// The archive's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Sorted order puts a directory before what it holds, as the kernel's unpacker needs.
        for (ino, (path, node)) in (1..).zip(&self.nodes) {
            entry(&mut bytes, ino, path, Some(node));
        }
        entry(&mut bytes, 0, "TRAILER!!!", None);
        bytes
    }

    fn insert(&mut self, path: &str, node: Node) {
        for (end, _) in path.match_indices('/') {
            self.nodes.entry(path[..end].to_owned()).or_insert(Node::Directory);
        }
        self.nodes.insert(path.to_owned(), node);
    }
}

fn entry(bytes: &mut Vec<u8>, ino: u32, path: &str, node: Option<&Node>) {
    let (mode, n_links, device, content): (u32, u32, (u32, u32), &[u8]) = match node {
        None => (0, 1, (0, 0), &[]),
        Some(Node::Directory) => (0o040_755, 2, (0, 0), &[]),
        Some(Node::File { content, executable: true }) => (0o100_755, 1, (0, 0), content),
        Some(Node::File { content, executable: false }) => (0o100_644, 1, (0, 0), content),
        Some(Node::CharacterDevice { major, minor }) => (0o020_600, 1, (*major, *minor), &[]),
    };
    // The header's own order: ino mode uid gid nlink mtime filesize dev(2) rdev(2) namesize check.
    let (file_size, name_size) = (content.len(), path.len() + 1);
    bytes.extend_from_slice(
        format!(
            "070701{ino:08X}{mode:08X}{zero:08X}{zero:08X}{n_links:08X}{zero:08X}{file_size:08X}\
             {zero:08X}{zero:08X}{:08X}{:08X}{name_size:08X}{zero:08X}",
            device.0,
            device.1,
            zero = 0,
        )
        .as_bytes(),
    );
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(content);
    pad(bytes);
}

/// Names and contents each end on a multiple of four.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut archive = Archive::default();
        archive.file("a", b"xyz".to_vec(), true);
        let text = String::from_utf8(archive.to_bytes()).unwrap();
        let expected = "070701000000010000\
            81ED0000000000000000000000010000000000000003000000000000000000000000000000000000000200000000\
            a\0xyz\0";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(text.len() % 4, 0);
    }

    #[test]
    fn the_order_of_adding_does_not_show() {
        let build = |names: [&str; 3]| {
            let mut archive = Archive::with_console();
            for name in names {
                archive.file(name, name.into(), false);
            }
            archive.to_bytes()
        };
        assert_eq!(build(["z", "lib/b", "lib/a"]), build(["lib/a", "z", "lib/b"]));
    }

    #[test]
    fn directories_come_before_what_they_hold() {
        let mut archive = Archive::with_console();
        archive.file("lib/modules/x.ko", Vec::new(), false);
        let paths: Vec<_> = archive.nodes.keys().map(String::as_str).collect();
        assert_eq!(paths, ["dev", "dev/console", "lib", "lib/modules", "lib/modules/x.ko"]);
    }
}
