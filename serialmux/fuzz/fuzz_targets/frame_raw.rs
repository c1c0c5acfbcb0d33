//! Raw bytes of a line to the deframer, cut in two ways: both must find the same packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::frame::{Deframer, Frame};

fn packets(data: &[u8], cut: usize) -> Vec<Vec<u8>> {
    let mut deframer = Deframer::new(300);
    let mut found = Vec::new();
    for mut piece in data.chunks(cut) {
        while let Some(frame) = deframer.next(&mut piece) {
            if let Frame::Packet { packet, .. } = frame {
                found.push(packet.to_vec());
            }
        }
    }
    found
}

fuzz_target!(|data: &[u8]| {
    let whole = packets(data, data.len().max(1));
    assert_eq!(whole, packets(data, 7));
    assert_eq!(whole, packets(data, 1));
});
