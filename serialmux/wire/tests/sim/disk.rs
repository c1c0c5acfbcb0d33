//! The mux's disk: what is written survives a killed process, only what is synced survives the power.

/// One output channel's log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Written, in order.
    pub(crate) bytes: Vec<u8>,
    synced: usize,
    /// The stream's end was written; it takes one place of its own.
    ended: bool,
    end_synced: bool,
    /// A sync has failed: what the page cache holds is unknown, so nothing counts any more.
    broken: bool,
}

impl Log {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        assert!(!self.ended, "bytes after the end");
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// How far a sync started now will reach: length, and one more for the end.
    pub(crate) fn written(&self) -> u64 {
        self.bytes.len() as u64 + u64::from(self.ended)
    }

    /// A sync of everything below `upto` is over. Says whether it worked.
    pub(crate) fn sync(&mut self, upto: u64, works: bool) -> bool {
        self.broken |= !works;
        if !self.broken {
            self.synced = self.synced.max(self.bytes.len().min(upto as usize));
            self.end_synced |= self.ended && upto > self.bytes.len() as u64;
        }
        !self.broken
    }

    /// The offset up to which everything survives whatever happens.
    pub(crate) fn durable(&self) -> u64 {
        self.synced as u64 + u64::from(self.end_synced)
    }

    /// The bytes that survive whatever happens.
    pub(crate) fn kept(&self) -> &[u8] {
        &self.bytes[..self.synced]
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.end_synced
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The machine lost its power, or the disk was replaced after an error.
    pub(crate) fn lose_power(&mut self) {
        self.bytes.truncate(self.synced);
        self.ended = self.end_synced;
        self.broken = false;
    }

    /// The process was killed; the next one syncs what it finds before it trusts it.
    pub(crate) fn recover(&mut self) {
        if self.broken {
            self.lose_power();
        }
        let written = self.written();
        self.sync(written, true);
    }
}
