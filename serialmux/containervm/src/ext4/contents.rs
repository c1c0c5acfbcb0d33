//! Copies a file's extents to their blocks on the disk, leaving out what is zero.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

use super::{BLOCK, allocator::Run, extent::MAX_RUNS};
use crate::tree::{Extent, Source};

/// Bytes moved at once.
const CHUNK: usize = 256 * 1024;

/// Which side of a copy failed.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// The blocks of a file that need room on the disk; the rest are holes.
pub(super) fn blocks(size: u64, extents: &[Extent]) -> Vec<Range<u32>> {
    let block = BLOCK as u64;
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for extent in extents.iter().filter(|extent| extent.length > 0) {
        let first = (extent.start / block) as u32;
        let end = (extent.start + extent.length).div_ceil(block) as u32;
        match ranges.last_mut() {
            Some(last) if first <= last.end => last.end = last.end.max(end),
            _ => ranges.push(first..end),
        }
    }
    // Every range may be cut once more by the end of a group, hence the margin.
    if ranges.len() > MAX_RUNS / 2 {
        ranges.clear();
        ranges.push(0..size.div_ceil(block) as u32);
    }
    ranges
}

/// Copies all extents of a file whose blocks are `runs`.
pub(super) fn copy(extents: &[Extent], runs: &[Run], out: &File) -> Result<(), CopyError> {
    let mut buffer =
        vec![0; CHUNK.min(extents.iter().map(|extent| extent.length as usize).max().unwrap_or(0))];
    let mut run = 0;
    for extent in extents {
        let reader = Reader::open(&extent.source).map_err(CopyError::Read)?;
        let mut done = 0;
        while done < extent.length {
            let at = extent.start + done;
            while runs.get(run).is_some_and(|run| end(run) <= at) {
                run += 1;
            }
            let Some(place) = runs.get(run) else { break };
            let into = at - u64::from(place.logical) * BLOCK as u64;
            let length =
                (extent.length - done).min(end(place) - at).min(buffer.len() as u64) as usize;
            let chunk = &mut buffer[..length];
            reader.read(done, chunk).map_err(CopyError::Read)?;
            write_nonzero(out, chunk, u64::from(place.physical) * BLOCK as u64 + into)
                .map_err(CopyError::Write)?;
            done += length as u64;
        }
    }
    Ok(())
}

/// Writes what is not zero; the file below is new, so what is not written reads as zero.
fn write_nonzero(out: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut start = None;
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        let from = index * BLOCK;
        match (block.iter().all(|byte| *byte == 0), start) {
            (true, Some(begin)) => {
                out.write_all_at(&bytes[begin..from], at + begin as u64)?;
                start = None;
            }
            (false, None) => start = Some(from),
            _ => {}
        }
    }
    match start {
        Some(begin) => out.write_all_at(&bytes[begin..], at + begin as u64),
        None => Ok(()),
    }
}

fn end(run: &Run) -> u64 {
    (u64::from(run.logical) + u64::from(run.blocks)) * BLOCK as u64
}

/// An opened [`Source`].
enum Reader<'a> {
    File(std::borrow::Cow<'a, std::sync::Arc<File>>, u64),
    Bytes(&'a [u8]),
}

impl<'a> Reader<'a> {
    fn open(source: &'a Source) -> io::Result<Self> {
        Ok(match source {
            Source::Open { file, offset } => Self::File(std::borrow::Cow::Borrowed(file), *offset),
            Source::Path { path, offset } => Self::File(
                std::borrow::Cow::Owned(std::sync::Arc::new(File::open(path.as_path())?)),
                *offset,
            ),
            Source::Bytes(bytes) => Self::Bytes(bytes),
        })
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file, offset) => file.read_exact_at(into, offset + at),
            Self::Bytes(bytes) => {
                let from = bytes.get(at as usize..).and_then(|rest| rest.get(..into.len()));
                into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}
