//! What a session keeps of output that the link has no room for: how much, where, and how much there is.

use guestinfo::LinkSpec;

use super::{Session, Streams, launch};
use crate::spool::Spool;

impl Session {
    /// What becomes of output from now on that the link has no room for.
    pub fn set_mode(&mut self, link: &LinkSpec) {
        self.backlog = launch::backlog(link);
        if let Some(streams) = &mut self.streams {
            streams.keep(self.backlog);
        }
    }

    /// Keeps on a disk from now on what memory has no room for.
    pub fn extend(&mut self, spool: Spool) {
        match &mut self.streams {
            Some(streams) => streams.extend(spool),
            None => self.spool = Some(spool),
        }
    }

    /// Output that is kept because the link has no room for it, how much of it on a disk, and what was dropped; bytes.
    pub fn kept(&self) -> [u64; 3] {
        self.streams.as_ref().map_or([0; 3], Streams::kept)
    }
}
