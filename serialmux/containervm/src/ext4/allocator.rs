//! Blocks handed out front to back: an image is written once, so nothing is ever freed.

use super::{
    Ext4Error,
    geometry::{BLOCKS_PER_GROUP, Geometry},
};

/// Longest extent the format can mark as initialized (`EXT_INIT_MAX_LEN`).
const MAX_RUN: u32 = 32768;

/// Consecutive blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First block within the file.
    pub(super) logical: u32,
    /// First block on the disk.
    pub(super) physical: u32,
    /// Number of blocks.
    pub(super) blocks: u32,
}

/// The next free block of a [`Geometry`].
#[derive(Debug)]
pub(super) struct Allocator<'a> {
    geometry: &'a Geometry,
    /// Group that blocks come from now; all before it are full.
    group: u32,
    /// Blocks used at the head of that group, its metadata included.
    used: u32,
}

impl<'a> Allocator<'a> {
    pub(super) fn new(geometry: &'a Geometry) -> Self {
        Self { geometry, group: 0, used: geometry.overhead(0) }
    }

    /// Appends runs for `blocks` blocks of a file, starting at its block `logical`.
    pub(super) fn extend(
        &mut self,
        runs: &mut Vec<Run>,
        mut logical: u32,
        mut blocks: u32,
    ) -> Result<(), Ext4Error> {
        while blocks > 0 {
            let free = self.geometry.group_blocks(self.group) - self.used;
            if free == 0 {
                self.next_group()?;
                continue;
            }
            let taken = free.min(blocks).min(MAX_RUN);
            let physical = Geometry::first_block(self.group) + self.used;
            runs.push(Run { logical, physical, blocks: taken });
            self.used += taken;
            logical += taken;
            blocks -= taken;
        }
        Ok(())
    }

    /// One block for metadata.
    pub(super) fn one(&mut self) -> Result<u32, Ext4Error> {
        let mut runs = Vec::with_capacity(1);
        self.extend(&mut runs, 0, 1)?;
        runs.first().map(|run| run.physical).ok_or_else(|| self.full())
    }

    /// Blocks used at the head of `group`.
    pub(super) fn used_in(&self, group: u32) -> u32 {
        match group.cmp(&self.group) {
            std::cmp::Ordering::Less => self.geometry.group_blocks(group),
            std::cmp::Ordering::Equal => self.used,
            std::cmp::Ordering::Greater => self.geometry.overhead(group),
        }
    }

    /// Whether any data lies in `group`.
    pub(super) fn has_data(&self, group: u32) -> bool {
        self.used_in(group) > self.geometry.overhead(group)
    }

    fn next_group(&mut self) -> Result<(), Ext4Error> {
        if self.group + 1 >= self.geometry.n_groups {
            return Err(self.full());
        }
        self.group += 1;
        self.used = self.geometry.overhead(self.group);
        Ok(())
    }

    fn full(&self) -> Ext4Error {
        Ext4Error::Full { size: u64::from(self.geometry.n_blocks) * super::BLOCK as u64 }
    }
}

const _: () = assert!(
    BLOCKS_PER_GROUP <= MAX_RUN,
    "a run never crosses a group, so it never exceeds an extent"
);
