//! Puts a [`Plan`] on the disk: contents first, in one pass, then the tables that describe them.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt};

use super::{
    BLOCK, Ext4Error, FormatOptions,
    allocator::{Allocator, Run},
    checksum::Checksum,
    contents::{self, CopyError},
    directory, extent,
    geometry::{BLOCKS_PER_GROUP, Geometry, INODE_SIZE},
    inode::{self, Body, Inode},
    plan::{Plan, Planned, ROOT_INODE},
    superblock::{self, FIRST_INODE, JOURNAL_INODE, Usage},
    xattr,
};
use crate::tree::{Attributes, Kind};

/// Longest link target kept in the inode (`EXT4_N_BLOCKS * 4`, with its terminating zero).
const MAX_INLINE_TARGET: usize = 59;
/// Largest file: 32-bit numbers of its blocks.
const MAX_FILE: u64 = (u32::MAX as u64) * BLOCK as u64;

/// A block of extended attributes that inodes with the same set share.
struct SharedBlock {
    place: u32,
    users: u32,
    bytes: Vec<u8>,
}

/// The file system being written.
pub(super) struct Writer<'a> {
    out: &'a File,
    geometry: &'a Geometry,
    options: &'a FormatOptions,
    allocator: Allocator<'a>,
    seed: Checksum,
    /// Inode records from number 1 on.
    table: Vec<u8>,
    /// Directories of each group.
    directories: Vec<u32>,
    /// Attribute blocks by contents; the last of each list may have room for another user.
    xattrs: HashMap<Vec<u8>, SharedBlock>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a File, geometry: &'a Geometry, options: &'a FormatOptions) -> Self {
        Self {
            out,
            geometry,
            options,
            allocator: Allocator::new(geometry),
            seed: Checksum::of_file_system(&options.uuid),
            table: Vec::new(),
            directories: vec![0; geometry.n_groups as usize],
            xattrs: HashMap::new(),
        }
    }

    /// Writes everything.
    pub(super) fn write(mut self, plan: &Plan<'_>) -> Result<(), Ext4Error> {
        let last = plan.last_inode().max(FIRST_INODE - 1);
        self.table = vec![0; last as usize * INODE_SIZE as usize];
        for number in 1..FIRST_INODE {
            if number != ROOT_INODE {
                self.reserved(number);
            }
        }
        let journal = self.journal()?;
        for planned in plan.iter() {
            self.node(plan, planned)?;
        }
        for block in std::mem::take(&mut self.xattrs).into_values() {
            self.seal(block)?;
        }
        self.tables(last)?;
        self.descriptions(last, &journal)
    }

    /// A reserved inode that nothing uses still has a record with a checksum.
    fn reserved(&mut self, number: u32) {
        let attributes = Attributes::default();
        self.put(&Inode {
            number,
            file_type: 0,
            attributes: &attributes,
            size: 0,
            links: 0,
            n_blocks: 0,
            xattr_block: 0,
            body: Body::Inline([0; 60]),
        });
    }

    fn journal(&mut self) -> Result<[u8; 60], Ext4Error> {
        let mut runs = Vec::new();
        self.allocator.extend(&mut runs, 0, self.geometry.journal_blocks)?;
        let head = superblock::journal_head(self.geometry, &self.options.uuid);
        if let Some(run) = runs.first() {
            self.at(run.physical, &head)?;
        }
        let attributes =
            Attributes { modified: self.options.time, ..Attributes::root_owned(0o600) };
        let (body, n_blocks) = self.map(JOURNAL_INODE, &runs)?;
        self.put(&Inode {
            number: JOURNAL_INODE,
            file_type: inode::S_IFREG,
            attributes: &attributes,
            size: u64::from(self.geometry.journal_blocks) * BLOCK as u64,
            links: 1,
            n_blocks,
            xattr_block: 0,
            body: Body::Extents(body),
        });
        Ok(body)
    }

    fn node(&mut self, plan: &Plan<'_>, planned: &Planned<'_>) -> Result<(), Ext4Error> {
        let attributes = &planned.node.attributes;
        let (body, size, mut n_blocks) = self.body(plan, planned)?;
        let xattr_block =
            if attributes.xattrs.is_empty() { 0 } else { self.xattrs(plan, planned)? };
        n_blocks += u64::from(xattr_block != 0);
        self.put(&Inode {
            number: planned.inode,
            file_type: planned.file_type(),
            attributes,
            size,
            links: planned.links(),
            n_blocks,
            xattr_block,
            body,
        });
        Ok(())
    }

    /// Writes what a node holds; its map, size in bytes and blocks used.
    fn body(
        &mut self,
        plan: &Plan<'_>,
        planned: &Planned<'_>,
    ) -> Result<(Body, u64, u64), Ext4Error> {
        match &planned.node.kind {
            Kind::Directory(_) => self.directory(plan, planned),
            Kind::File { size, .. } if *size > MAX_FILE => {
                Err(Ext4Error::FileTooBig { path: plan.path(planned), size: *size })
            }
            Kind::File { size, extents } => {
                let mut runs = Vec::new();
                for range in contents::blocks(*size, extents) {
                    self.allocator.extend(&mut runs, range.start, range.end - range.start)?;
                }
                contents::copy(extents, &runs, self.out).map_err(|error| match error {
                    CopyError::Read(source) => Ext4Error::Read { path: plan.path(planned), source },
                    CopyError::Write(source) => Ext4Error::Write(source),
                })?;
                if runs.len() > extent::MAX_RUNS {
                    return Err(Ext4Error::FileTooBig { path: plan.path(planned), size: *size });
                }
                let (body, n_blocks) = self.map(planned.inode, &runs)?;
                Ok((Body::Extents(body), *size, n_blocks))
            }
            Kind::Symlink(target) if target.len() <= MAX_INLINE_TARGET => {
                let mut body = [0; 60];
                body[..target.len()].copy_from_slice(target);
                Ok((Body::Inline(body), target.len() as u64, 0))
            }
            Kind::Symlink(target) => {
                let (body, n_blocks) = self.blocks(planned.inode, target)?;
                Ok((Body::Extents(body), target.len() as u64, n_blocks))
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                Ok((Body::Inline(inode::device(*major, *minor)), 0, 0))
            }
            Kind::Fifo | Kind::Socket => Ok((Body::Inline([0; 60]), 0, 0)),
        }
    }

    fn directory(
        &mut self,
        plan: &Plan<'_>,
        planned: &Planned<'_>,
    ) -> Result<(Body, u64, u64), Ext4Error> {
        let group = (planned.inode - 1) / self.geometry.inodes_per_group;
        if let Some(count) = self.directories.get_mut(group as usize) {
            *count += 1;
        }
        let bytes = directory::encode(plan.entries(planned), self.seed.of_inode(planned.inode));
        let (body, n_blocks) = self.blocks(planned.inode, &bytes)?;
        Ok((Body::Extents(body), bytes.len() as u64, n_blocks))
    }

    /// Writes `bytes` to new blocks and maps them.
    fn blocks(&mut self, inode: u32, bytes: &[u8]) -> Result<([u8; 60], u64), Ext4Error> {
        let mut runs = Vec::new();
        self.allocator.extend(&mut runs, 0, bytes.len().div_ceil(BLOCK) as u32)?;
        let mut rest = bytes;
        for run in &runs {
            let (now, later) = rest.split_at(rest.len().min(run.blocks as usize * BLOCK));
            self.at(run.physical, now)?;
            rest = later;
        }
        self.map(inode, &runs)
    }

    /// The extent tree of these runs, and the blocks it and they take.
    fn map(&mut self, inode: u32, runs: &[Run]) -> Result<([u8; 60], u64), Ext4Error> {
        let places = (0..extent::n_blocks(runs))
            .map(|_| self.allocator.one())
            .collect::<Result<Vec<_>, Ext4Error>>()?;
        let (root, blocks) = extent::encode(runs, &places, self.seed.of_inode(inode));
        for (place, block) in places.iter().zip(&blocks) {
            self.at(*place, block)?;
        }
        Ok((root, superblock::total(runs) + places.len() as u64))
    }

    /// The attribute block for a node, shared with others that have the same attributes.
    fn xattrs(&mut self, plan: &Plan<'_>, planned: &Planned<'_>) -> Result<u32, Ext4Error> {
        let bytes = xattr::encode(&planned.node.attributes.xattrs)
            .map_err(|source| Ext4Error::Attributes { path: plan.path(planned), source })?;
        if let Some(shared) = self.xattrs.get_mut(&bytes)
            && shared.users < xattr::MAX_SHARED
        {
            shared.users += 1;
            return Ok(shared.place);
        }
        let place = self.allocator.one()?;
        let fresh = SharedBlock { place, users: 1, bytes: bytes.clone() };
        if let Some(full) = self.xattrs.insert(bytes, fresh) {
            self.seal(full)?;
        }
        Ok(place)
    }

    fn seal(&self, mut block: SharedBlock) -> Result<(), Ext4Error> {
        xattr::seal(&mut block.bytes, block.users, block.place, self.seed);
        self.at(block.place, &block.bytes)
    }

    fn put(&mut self, inode: &Inode<'_>) {
        let at = (inode.number as usize - 1) * INODE_SIZE as usize;
        self.table[at..at + INODE_SIZE as usize].copy_from_slice(&inode.encode(self.seed));
    }

    /// Bitmaps and inode tables of the groups that have any.
    fn tables(&self, last: u32) -> Result<(), Ext4Error> {
        for group in 0..self.geometry.n_groups {
            let usage = self.usage(group, last);
            if usage.has_block_bitmap(group, self.geometry) {
                let bits = superblock::bitmap(usage.blocks, self.geometry.group_blocks(group));
                self.at(self.geometry.block_bitmap(group), &bits)?;
            }
            if usage.inodes > 0 {
                let bits = superblock::bitmap(usage.inodes, self.geometry.inodes_per_group);
                self.at(self.geometry.inode_bitmap(group), &bits)?;
                let from = (group * self.geometry.inodes_per_group) as usize * INODE_SIZE as usize;
                let length = usage.inodes as usize * INODE_SIZE as usize;
                self.at(self.geometry.inode_table(group), &self.table[from..from + length])?;
            }
        }
        Ok(())
    }

    /// Superblocks and descriptors, in all their copies.
    fn descriptions(&self, last: u32, journal: &[u8; 60]) -> Result<(), Ext4Error> {
        let mut descriptors = Vec::new();
        let mut free = (0, 0);
        for group in 0..self.geometry.n_groups {
            let usage = self.usage(group, last);
            free.0 += self.geometry.group_blocks(group) - usage.blocks;
            free.1 += self.geometry.inodes_per_group - usage.inodes;
            descriptors.extend_from_slice(&superblock::descriptor(
                group,
                self.geometry,
                usage,
                self.seed,
            ));
        }
        for group in (0..self.geometry.n_groups).filter(|group| Geometry::has_superblock(*group)) {
            let first = group * BLOCKS_PER_GROUP;
            let bytes = superblock::superblock(group, self.geometry, self.options, free, journal);
            // The very first 1024 bytes are the boot sector's.
            let skip = if group == 0 { 1024 } else { 0 };
            self.out.write_all_at(&bytes, u64::from(first) * BLOCK as u64 + skip)?;
            self.at(first + 1, &descriptors)?;
        }
        Ok(())
    }

    fn usage(&self, group: u32, last: u32) -> Usage {
        Usage::of(group, self.geometry, &self.allocator, &self.directories, last)
    }

    fn at(&self, block: u32, bytes: &[u8]) -> Result<(), Ext4Error> {
        Ok(self.out.write_all_at(bytes, u64::from(block) * BLOCK as u64)?)
    }
}
