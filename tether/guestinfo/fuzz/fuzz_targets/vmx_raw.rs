//! Raw bytes of a VMX file: what is read can be written, and reads the same again.
#![no_main]

use guestinfo::{Spec, Vmx};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(vmx) = Vmx::parse(data) else { return };
    let again = Vmx::parse(vmx.to_string()).expect("what was written reads");
    assert!(vmx.iter().eq(again.iter()));
    let decoded = Spec::decode(vmx.iter());
    assert!(decoded.value.is_some());
});
