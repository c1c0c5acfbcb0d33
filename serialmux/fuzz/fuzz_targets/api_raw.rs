//! Raw bytes of what clients and the daemon say to each other: a message that reads the same again, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use serialmux::api::{Answer, Input, Request};

fn check<M: Message + Default>(data: &[u8]) {
    if let Ok(message) = M::decode(data) {
        let bytes = message.encode_to_vec();
        let again = M::decode(&bytes[..]).expect("what was written reads");
        assert_eq!(again.encode_to_vec(), bytes);
    }
}

fuzz_target!(|data: &[u8]| {
    check::<Request>(data);
    check::<Input>(data);
    check::<Answer>(data);
});
