//! Raw bytes to the packet header and the clear body: what parses is what was made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::packet::{Header, clear, clear_body};

fuzz_target!(|data: &[u8]| {
    if let Ok((header, rest)) = Header::parse(data) {
        assert_eq!([&header.to_bytes()[..], rest].concat(), data);
        if let Ok(body) = clear_body(data) {
            assert_eq!(clear(header, body), data);
        }
    }
});
