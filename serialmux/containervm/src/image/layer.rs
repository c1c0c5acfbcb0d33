//! One layer of an image laid over the tree of those below it, with whiteouts.
//!
//! Whiteouts are names that begin with `.wh.` (OCI image spec, layer.md, "Whiteouts"): `.wh.x` removes `x` of the
//! layers below, `.wh..wh..opq` removes all they put into its directory. Other names beginning with `.wh..wh.` are
//! AUFS's own bookkeeping and are left out, as Docker does.

use super::{
    archive::{self, ArchiveError, ArchiveFault, Entry, EntryType},
    blob::Blob,
};
use crate::tree::{Kind, Tree};

const WHITEOUT: &[u8] = b".wh.";
const BOOKKEEPING: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Lays the entries of an unpacked layer over `tree`.
///
/// # Errors
/// The first fault of the archive.
pub fn apply(layer: &Blob, tree: &mut Tree) -> Result<(), ArchiveError> {
    tree.start_layer();
    archive::read(layer, &mut |entry| lay(entry, tree, Whiteouts::Honored))
}

/// Puts the entries of a plain archive (`docker export`) into `tree`, where no name has a second meaning.
///
/// # Errors
/// The first fault of the archive.
pub fn extract(archive: &Blob, tree: &mut Tree) -> Result<(), ArchiveError> {
    archive::read(archive, &mut |entry| lay(entry, tree, Whiteouts::Plain))
}

#[derive(Clone, Copy, PartialEq)]
enum Whiteouts {
    Honored,
    Plain,
}

fn lay(entry: Entry, tree: &mut Tree, whiteouts: Whiteouts) -> Result<(), ArchiveFault> {
    let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
    let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (directory, name) = path.split_at(cut);
    if whiteouts == Whiteouts::Honored && name.starts_with(WHITEOUT) {
        match name {
            OPAQUE => tree.make_opaque(directory)?,
            _ if name.starts_with(BOOKKEEPING) => {}
            _ => tree.white_out(&[directory, &name[WHITEOUT.len()..]].concat())?,
        }
        return Ok(());
    }
    let (major, minor) = entry.device;
    let kind = match entry.entry_type {
        EntryType::HardLink => return Ok(tree.link(path, &entry.link)?),
        EntryType::File => Kind::File { size: entry.size, extents: entry.extents },
        EntryType::Symlink => Kind::Symlink(entry.link),
        EntryType::Directory => Kind::directory(),
        EntryType::CharDevice => Kind::CharDevice { major, minor },
        EntryType::BlockDevice => Kind::BlockDevice { major, minor },
        EntryType::Fifo => Kind::Fifo,
    };
    tree.insert(path, entry.attributes, kind)?;
    Ok(())
}
