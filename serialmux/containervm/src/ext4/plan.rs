//! Which inode every node of a tree becomes, how many names it has, and which directory it is in.

use std::collections::HashMap;

use super::{Ext4Error, directory::Entry, inode, superblock::FIRST_INODE};
use crate::tree::{Kind, Node, NodeId, Tree};

/// The root directory's inode.
pub(super) const ROOT_INODE: u32 = 2;
/// Most names of a file (`EXT4_LINK_MAX`); a directory with more subdirectories counts as 1 (`dir_nlink`).
const MAX_LINKS: u32 = 65_000;

/// One node that will be written.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) node: &'a Node,
    pub(super) inode: u32,
    /// Inode of the directory with its first name.
    pub(super) parent: u32,
    links: u32,
    /// Index of the parent and its name there, for messages.
    name: (usize, &'a [u8]),
}

/// All reachable nodes of a tree, parents before children.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    planned: Vec<Planned<'a>>,
    inodes: HashMap<NodeId, usize>,
}

impl<'a> Plan<'a> {
    /// Walks the tree breadth first.
    pub(super) fn of(tree: &'a Tree) -> Result<Self, Ext4Error> {
        let root = Planned {
            node: tree.node(Tree::ROOT),
            inode: ROOT_INODE,
            parent: ROOT_INODE,
            links: 2,
            name: (0, b""),
        };
        let mut plan = Self { planned: vec![root], inodes: HashMap::from([(Tree::ROOT, 0)]) };
        let mut next = 0;
        while next < plan.planned.len() {
            if let Kind::Directory(entries) = &plan.planned[next].node.kind {
                for (name, id) in entries {
                    plan.name(tree, next, name, *id);
                }
            }
            next += 1;
        }
        plan.check_links()?;
        Ok(plan)
    }

    fn name(&mut self, tree: &'a Tree, parent: usize, name: &'a [u8], id: NodeId) {
        if let Some(index) = self.inodes.get(&id) {
            self.planned[*index].links += 1;
            return;
        }
        let index = self.planned.len();
        let node = tree.node(id);
        let is_directory = matches!(node.kind, Kind::Directory(_));
        if is_directory {
            self.planned[parent].links += 1;
        }
        self.inodes.insert(id, index);
        self.planned.push(Planned {
            node,
            inode: FIRST_INODE + index as u32 - 1,
            parent: self.planned[parent].inode,
            links: if is_directory { 2 } else { 1 },
            name: (parent, name),
        });
    }

    fn check_links(&self) -> Result<(), Ext4Error> {
        match self
            .planned
            .iter()
            .find(|planned| planned.links > MAX_LINKS && !planned.is_directory())
        {
            Some(planned) => {
                Err(Ext4Error::TooManyLinks { path: self.path(planned), links: planned.links })
            }
            None => Ok(()),
        }
    }

    /// The nodes in inode order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Planned<'a>> {
        self.planned.iter()
    }

    /// Number of the last inode in use.
    pub(super) fn last_inode(&self) -> u32 {
        FIRST_INODE - 1 + self.planned.len() as u32 - 1
    }

    /// What a directory holds, "." and ".." first.
    pub(super) fn entries<'b>(
        &'b self,
        directory: &'b Planned<'a>,
    ) -> impl Iterator<Item = Entry<'b>> {
        let named = match &directory.node.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        };
        [(&b"."[..], directory.inode), (b"..", directory.parent)]
            .into_iter()
            .map(|(name, inode)| Entry { name, inode, file_type: 2 })
            .chain(named.into_iter().flatten().filter_map(|(name, id)| {
                let planned = &self.planned[*self.inodes.get(id)?];
                Some(Entry { name, inode: planned.inode, file_type: planned.entry_type() })
            }))
    }

    /// The path of a node in the image, for messages.
    pub(super) fn path(&self, planned: &Planned<'_>) -> String {
        let mut parts = Vec::new();
        let (mut parent, mut name) = planned.name;
        while !name.is_empty() {
            parts.push(String::from_utf8_lossy(name).into_owned());
            (parent, name) = self.planned[parent].name;
        }
        parts.reverse();
        format!("/{}", parts.join("/"))
    }
}

impl Planned<'_> {
    pub(super) fn is_directory(&self) -> bool {
        matches!(self.node.kind, Kind::Directory(_))
    }

    /// The link count as it is stored.
    pub(super) fn links(&self) -> u16 {
        if self.links > MAX_LINKS { 1 } else { self.links as u16 }
    }

    /// Type bits of the inode's mode.
    pub(super) fn file_type(&self) -> u16 {
        match self.node.kind {
            Kind::Directory(_) => inode::S_IFDIR,
            Kind::File { .. } => inode::S_IFREG,
            Kind::Symlink(_) => inode::S_IFLNK,
            Kind::CharDevice { .. } => inode::S_IFCHR,
            Kind::BlockDevice { .. } => inode::S_IFBLK,
            Kind::Fifo => inode::S_IFIFO,
            Kind::Socket => inode::S_IFSOCK,
        }
    }

    /// Type byte of a directory entry (`EXT4_FT_*`).
    fn entry_type(&self) -> u8 {
        match self.node.kind {
            Kind::File { .. } => 1,
            Kind::Directory(_) => 2,
            Kind::CharDevice { .. } => 3,
            Kind::BlockDevice { .. } => 4,
            Kind::Fifo => 5,
            Kind::Socket => 6,
            Kind::Symlink(_) => 7,
        }
    }
}
