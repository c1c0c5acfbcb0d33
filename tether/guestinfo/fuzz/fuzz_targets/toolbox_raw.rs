//! Raw requests of a host to the guest's tools, one after the other.
#![no_main]

use guestinfo::tclo::Toolbox;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut toolbox = Toolbox::for_container("c0ffee");
    for (now, request) in data.split(|byte| *byte == 0xfe).enumerate() {
        let answer = toolbox.handle(request, 1_700_000_000 + now as u64);
        assert!(!answer.reply.is_empty());
    }
});
