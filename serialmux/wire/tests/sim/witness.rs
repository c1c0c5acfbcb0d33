//! Watches the packets an end sends: no packet number is ever used twice under one set of keys.

use std::collections::HashSet;
use wire::frame::{Deframer, Frame};
use wire::packet::{Header, Kind};

/// One end's packets so far, by run of the end, session, tag and number.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    seen: HashSet<(u64, u64, u8, u32)>,
}

impl Witness {
    /// Sees one frame as it leaves an end in its `run`-th life and `session`-th session.
    pub(crate) fn watch(&mut self, run: u64, session: u64, bytes: &[u8]) {
        let (mut deframer, mut input) = (Deframer::new(8192), bytes);
        while let Some(frame) = deframer.next(&mut input) {
            let Frame::Packet { packet, .. } = frame else { panic!("an end sends noise") };
            let (header, _) = Header::parse(packet).unwrap();
            if matches!(header.kind, Kind::Sealed | Kind::Plain) {
                let new = self.seen.insert((run, session, header.tag, header.number));
                assert!(new, "packet number {} was used twice in one session", header.number);
            }
        }
    }
}
