//! A file tree held in memory: names, owners and modes, with file contents left where they are.
//!
//! An image is merged here, layer upon layer, before a byte of it is written: nothing is ever extracted onto the
//! host's file system, so no entry of a hostile archive can reach outside, and no privilege is needed for owners
//! or devices. Contents are [`Extent`]s of files that stay open or are opened when copied; only names and
//! attributes are in memory.
//!
//! Hard links are several names for one [`NodeId`]. A node that lost its last name is simply not reached any more.

use std::{collections::BTreeMap, fs::File, path::PathBuf, sync::Arc};

/// Symbolic links followed while resolving one name; Linux's own bound (`path_resolution(7)`).
const MAX_LINKS_FOLLOWED: usize = 40;
/// Longest name of one directory entry in bytes (ext4's and Linux's `NAME_MAX`).
pub const MAX_NAME: usize = 255;
/// Longest path from the root, in bytes: what lies deeper has no name that a system call takes (`PATH_MAX`, with its
/// terminating zero). It also bounds the list of all paths, in which each stands in full.
pub const MAX_PATH: usize = 4095;
/// Longest target of a symbolic link that ext4 stores: one block less the terminating zero.
pub const MAX_TARGET: usize = 4095;

/// What extended attributes may begin with (`xattr(7)`); of `system`, only access lists belong to files.
const NAMESPACES: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];

/// Whether an extended attribute is one that a file on Linux can have.
pub(crate) fn has_namespace(xattr: &[u8]) -> bool {
    NAMESPACES.iter().any(|prefix| xattr.starts_with(prefix))
}

/// Index of a node in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(usize);

/// Why a name cannot be part of a tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// The name climbs out of the root.
    #[error(
        "its name climbs above the root directory with \"..\"; names must stay inside the image"
    )]
    Escapes,
    /// A zero byte, which no system call can pass.
    #[error("its name or link target contains a zero byte")]
    ZeroByte,
    /// A component is longer than a file system can hold.
    #[error("a part of its name is {0} bytes long; at most {MAX_NAME} are possible")]
    NameTooLong(usize),
    /// Directories in directories without end.
    #[error("it lies {0} bytes of names deep; at most {MAX_PATH} are possible")]
    PathTooLong(usize),
    /// A link target is longer than a file system can hold.
    #[error("its link target is {0} bytes long; between 1 and {MAX_TARGET} are possible")]
    TargetLength(usize),
    /// A name passes through something that is no directory.
    #[error("{0:?} in its path is not a directory")]
    NotADirectory(String),
    /// Symbolic links lead round in a circle.
    #[error(
        "more than {MAX_LINKS_FOLLOWED} symbolic links lead to it; they probably form a circle"
    )]
    LinkLoop,
    /// A hard link's target is not there.
    #[error("it is a hard link to {0:?}, which is not in the image before it")]
    NoLinkTarget(String),
    /// A hard link to a directory.
    #[error("it is a hard link to the directory {0:?}; only files can have several names")]
    LinkToDirectory(String),
    /// The root given as something else than a directory.
    #[error("it stands for the root directory but is not a directory")]
    RootMustBeDirectory,
}

/// A point in time: seconds since 1970 and nanoseconds below 10⁹.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds of that second.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// As ext4 holds it: times beyond its range (1901 to 2446) are moved to its ends.
    pub(crate) fn on_disk(self) -> Self {
        Self {
            seconds: self.seconds.clamp(-(1 << 31), (1 << 34) - (1 << 31) - 1),
            nanoseconds: self.nanoseconds.min(999_999_999),
        }
    }
}

/// What every node has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, set-id and sticky bits: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the contents.
    pub modified: Timestamp,
    /// Extended attributes by full name (`security.capability`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Attributes {
    /// Attributes of something owned by root, with `mode` and no special time.
    #[must_use]
    pub fn root_owned(mode: u16) -> Self {
        Self { mode, ..Self::default() }
    }
}

/// Where the bytes of an extent are.
#[derive(Debug, Clone)]
pub enum Source {
    /// At `offset` of an open file.
    Open {
        /// The file.
        file: Arc<File>,
        /// First byte.
        offset: u64,
    },
    /// At `offset` of a file that is opened only while it is copied.
    Path {
        /// Its path on the host.
        path: Arc<PathBuf>,
        /// First byte.
        offset: u64,
    },
    /// In memory; for small made-up files.
    Bytes(Arc<[u8]>),
}

/// A stretch of a file's contents. What no extent covers reads as zeros.
#[derive(Debug, Clone)]
pub struct Extent {
    /// Position in the file.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Where the bytes come from.
    pub source: Source,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory and its names.
    Directory(BTreeMap<Vec<u8>, NodeId>),
    /// A regular file; extents are sorted and do not overlap.
    File {
        /// Length in bytes.
        size: u64,
        /// Its contents.
        extents: Vec<Extent>,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

impl Kind {
    /// A small file with contents from memory.
    #[must_use]
    pub fn file(contents: impl Into<Arc<[u8]>>) -> Self {
        let contents = contents.into();
        let length = contents.len() as u64;
        let extents = vec![Extent { start: 0, length, source: Source::Bytes(contents) }];
        Self::File { size: length, extents: if length == 0 { Vec::new() } else { extents } }
    }

    /// An empty directory.
    #[must_use]
    pub fn directory() -> Self {
        Self::Directory(BTreeMap::new())
    }
}

/// One file, directory, link or device.
#[derive(Debug, Clone)]
pub struct Node {
    /// Mode, owner and the like.
    pub attributes: Attributes,
    /// What it is.
    pub kind: Kind,
    /// The layer that last wrote it, so that an opaque directory spares what its own layer brings.
    layer: u32,
    /// The layer in which what earlier ones had put below it was removed last.
    pruned: u32,
}

impl Node {
    fn new(attributes: Attributes, kind: Kind, layer: u32) -> Self {
        Self { attributes, kind, layer, pruned: 0 }
    }
}

/// A merged file tree with a root directory.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
    layer: u32,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// A tree with an empty root directory, mode 0755.
    #[must_use]
    pub fn new() -> Self {
        let root = Node::new(Attributes::root_owned(0o755), Kind::directory(), 0);
        Self { nodes: vec![root], layer: 0 }
    }

    /// Starts another layer: whiteouts that follow remove only what was there before this call.
    pub fn start_layer(&mut self) {
        self.layer += 1;
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Number of nodes ever added: an upper bound of those still reachable.
    #[must_use]
    pub fn n_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Puts a node at `path`, creating missing parents (0755, root) and replacing what is there, as extracting it
    /// inside a chroot would: symbolic links among the parents are followed within the tree, and a directory laid
    /// over a directory keeps its contents.
    ///
    /// # Errors
    /// When the name cannot be in this tree.
    pub fn insert(
        &mut self,
        path: &[u8],
        attributes: Attributes,
        kind: Kind,
    ) -> Result<NodeId, TreeError> {
        if let Kind::Symlink(target) = &kind
            && !(1..=MAX_TARGET).contains(&target.len())
        {
            return Err(TreeError::TargetLength(target.len()));
        }
        if let Kind::Symlink(target) = &kind
            && target.contains(&0)
        {
            return Err(TreeError::ZeroByte);
        }
        let Some((parent, name)) = self.parent_of(path)? else {
            return self.replace_root(attributes, &kind);
        };
        let layer = self.layer;
        if let (Some(existing), Kind::Directory(_)) = (self.child(parent, &name), &kind)
            && matches!(self.node(existing).kind, Kind::Directory(_))
        {
            let node = &mut self.nodes[existing.0];
            node.attributes = attributes;
            node.layer = layer;
            return Ok(existing);
        }
        let id = self.add(Node::new(attributes, kind, layer));
        self.entries_mut(parent).insert(name, id);
        Ok(id)
    }

    /// Gives the file at `target` another name.
    ///
    /// # Errors
    /// When there is no such file, or it is a directory.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let shown = || String::from_utf8_lossy(target).into_owned();
        let found = self.existing(target)?.ok_or_else(|| TreeError::NoLinkTarget(shown()))?.0;
        if matches!(self.node(found).kind, Kind::Directory(_)) {
            return Err(TreeError::LinkToDirectory(shown()));
        }
        let (parent, name) = self.parent_of(path)?.ok_or(TreeError::RootMustBeDirectory)?;
        self.nodes[found.0].layer = self.layer;
        self.entries_mut(parent).insert(name, found);
        Ok(())
    }

    /// Removes what earlier layers put at `path`, if anything.
    ///
    /// # Errors
    /// When the name cannot be in this tree.
    pub fn white_out(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let Some((id, Some((parent, name)))) = self.existing(path)? else { return Ok(()) };
        self.prune(id);
        if !self.is_of_this_layer_or_holds(id) {
            self.entries_mut(parent).remove(&name);
        }
        Ok(())
    }

    /// Removes what earlier layers put into the directory at `path`.
    ///
    /// # Errors
    /// When the name cannot be in this tree.
    pub fn make_opaque(&mut self, path: &[u8]) -> Result<(), TreeError> {
        if let Some((id, _)) = self.existing(path)? {
            self.prune(id);
        }
        Ok(())
    }

    /// The node at `path`, without following a symbolic link in its last part.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        let mut at = Self::ROOT;
        for part in parts(path).ok()? {
            at = self.child(at, &part)?;
        }
        Some(at)
    }

    fn replace_root(&mut self, attributes: Attributes, kind: &Kind) -> Result<NodeId, TreeError> {
        if !matches!(kind, Kind::Directory(_)) {
            return Err(TreeError::RootMustBeDirectory);
        }
        self.nodes[0].attributes = attributes;
        Ok(Self::ROOT)
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(directory).kind {
            Kind::Directory(entries) => entries.get(name).copied(),
            _ => None,
        }
    }

    fn entries_mut(&mut self, directory: NodeId) -> &mut BTreeMap<Vec<u8>, NodeId> {
        match &mut self.nodes[directory.0].kind {
            Kind::Directory(entries) => entries,
            _ => unreachable!("parent_of returns directories only"),
        }
    }

    /// The directory that holds the last part of `path`, and that part; `None` for the root itself.
    fn parent_of(&mut self, path: &[u8]) -> Result<Option<(NodeId, Vec<u8>)>, TreeError> {
        let mut parts = parts(path)?;
        let Some(last) = parts.pop() else { return Ok(None) };
        let Some((parent, length)) = self.directory_at(parts, Missing::Create)? else {
            return Ok(None);
        };
        longer(length, &last)?;
        Ok(Some((parent, last)))
    }

    /// The node named `path` with the entry it hangs in (none for the root), creating nothing.
    fn existing(&mut self, path: &[u8]) -> Result<Option<Named>, TreeError> {
        let mut parts = parts(path)?;
        let Some(last) = parts.pop() else { return Ok(Some((Self::ROOT, None))) };
        let Some((parent, _)) = self.directory_at(parts, Missing::Stop)? else { return Ok(None) };
        Ok(self.child(parent, &last).map(|id| (id, Some((parent, last)))))
    }

    /// Walks to a directory as a process with this root would; also the length of its path. `None` where one is
    /// missing and not to be created.
    fn directory_at(
        &mut self,
        parts: Vec<Vec<u8>>,
        missing: Missing,
    ) -> Result<Option<(NodeId, usize)>, TreeError> {
        let mut todo: Vec<Vec<u8>> = parts.into_iter().rev().collect();
        let mut trail = vec![(Self::ROOT, 0)];
        let mut followed = 0;
        while let Some(part) = todo.pop() {
            let (here, length) = *trail.last().unwrap_or(&(Self::ROOT, 0));
            match part.as_slice() {
                b"" | b"." => continue,
                // Above the root is the root, as for a process in a chroot; only link targets come here with "..".
                b".." => {
                    if trail.len() > 1 {
                        trail.pop();
                    }
                    continue;
                }
                name if name.len() > MAX_NAME => return Err(TreeError::NameTooLong(name.len())),
                _ => {}
            }
            let length = longer(length, &part)?;
            let next = match (self.child(here, &part), missing) {
                (Some(id), _) => id,
                (None, Missing::Create) => self.new_parent(here, &part),
                (None, Missing::Stop) => return Ok(None),
            };
            match &self.node(next).kind {
                Kind::Directory(_) => trail.push((next, length)),
                Kind::Symlink(target) => {
                    followed += 1;
                    if followed > MAX_LINKS_FOLLOWED {
                        return Err(TreeError::LinkLoop);
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    todo.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
                _ => {
                    return Err(TreeError::NotADirectory(
                        String::from_utf8_lossy(&part).into_owned(),
                    ));
                }
            }
        }
        Ok(trail.last().copied())
    }

    fn new_parent(&mut self, directory: NodeId, name: &[u8]) -> NodeId {
        let layer = self.layer;
        let id = self.add(Node::new(Attributes::root_owned(0o755), Kind::directory(), layer));
        self.entries_mut(directory).insert(name.to_vec(), id);
        id
    }

    /// Removes everything below `top` that earlier layers brought. Iterative: the depth is the archive's choice. So is
    /// how often it asks for that, hence no directory is gone through twice in a layer, which brings nothing old back.
    fn prune(&mut self, top: NodeId) {
        let mut order = vec![top];
        let mut next = 0;
        while let Some(id) = order.get(next).copied() {
            let node = &mut self.nodes[id.0];
            if node.pruned == self.layer {
                order.swap_remove(next);
                continue;
            }
            node.pruned = self.layer;
            next += 1;
            if let Kind::Directory(entries) = &node.kind {
                order.extend(entries.values().copied());
            }
        }
        // Children before parents, so that emptied directories go too.
        for id in order.into_iter().rev() {
            let Kind::Directory(entries) = &self.node(id).kind else { continue };
            let kept = entries
                .iter()
                .filter(|(_, child)| self.is_of_this_layer_or_holds(**child))
                .map(|(name, child)| (name.clone(), *child))
                .collect();
            self.nodes[id.0].kind = Kind::Directory(kept);
        }
    }

    fn is_of_this_layer_or_holds(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.layer == self.layer
            || matches!(&node.kind, Kind::Directory(entries) if !entries.is_empty())
    }
}

/// A node that is there, and the entry it hangs in (none for the root).
type Named = (NodeId, Option<(NodeId, Vec<u8>)>);

/// What a walk does about a directory that is not there.
#[derive(Debug, Clone, Copy)]
enum Missing {
    Create,
    Stop,
}

/// The length of a path that goes on with a name.
fn longer(length: usize, name: &[u8]) -> Result<usize, TreeError> {
    match length + 1 + name.len() {
        length @ 0..=MAX_PATH => Ok(length),
        length => Err(TreeError::PathTooLong(length)),
    }
}

/// The parts of a path below the root. Absolute names count from the root, as `tar` and docker take them.
fn parts(path: &[u8]) -> Result<Vec<Vec<u8>>, TreeError> {
    if path.contains(&0) {
        return Err(TreeError::ZeroByte);
    }
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or(TreeError::Escapes)?;
            }
            name if name.len() > MAX_NAME => return Err(TreeError::NameTooLong(name.len())),
            name => parts.push(name.to_vec()),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests;
