//! Raw bytes to the records of a packet: each that is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::record::{Records, put};

fuzz_target!(|data: &[u8]| {
    for record in Records::new(data).flatten() {
        let mut out = Vec::new();
        put(&mut out, &record);
        let again: Vec<_> = Records::new(&out).collect();
        assert_eq!(again, vec![Ok(record)]);
    }
});
