//! Watches the packets an end sends: no packet number is ever used twice under one set of keys.

use std::collections::HashMap;
use wire::frame::{Deframer, Frame};
use wire::packet::{Header, Kind};

/// The last packet number of each run of an end, session and tag: the next one must be higher.
#[derive(Debug)]
pub(crate) struct Witness {
    last: HashMap<(u64, u64, u8), u32>,
    deframer: Deframer,
}

impl Default for Witness {
    fn default() -> Self {
        Self { last: HashMap::new(), deframer: Deframer::new(32 * 1024) }
    }
}

impl Witness {
    /// Sees one frame as it leaves an end in its `run`-th life and `session`-th session.
    pub(crate) fn watch(&mut self, run: u64, session: u64, frame: &[u8]) {
        let mut input = frame;
        while let Some(frame) = self.deframer.next(&mut input) {
            let Frame::Packet { packet, .. } = frame else { panic!("an end sends noise") };
            let (header, _) = Header::parse(packet).unwrap();
            if matches!(header.kind, Kind::Sealed | Kind::Plain) {
                let last = self.last.insert((run, session, header.tag), header.number);
                let rises = last.is_none_or(|last| last < header.number);
                assert!(rises, "packet number {} after {last:?} in one session", header.number);
            }
        }
    }
}
