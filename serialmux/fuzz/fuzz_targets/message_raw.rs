//! Raw bytes of control channels and labels: messages or an error, and never more taken than came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use wire::message::{GuestMessage, Label, MuxMessage, Reader};

fn read<M: Message + Default>(data: &[u8]) {
    let (mut reader, mut taken) = (Reader::default(), 0);
    for piece in data.chunks(5) {
        reader.push(piece);
        while let Ok(Some((_, n))) = reader.next_message::<M>() {
            taken += n;
        }
    }
    assert!(taken <= data.len());
}

fuzz_target!(|data: &[u8]| {
    read::<GuestMessage>(data);
    read::<MuxMessage>(data);
    if let Ok(label) = Label::decode(data) {
        assert_eq!(Label::decode(&label.encode_to_vec()[..]), Ok(label));
    }
});
