//! Raw bytes of a line to a greeter that has an offer out whenever it is asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{Greeter, Greeting, Instant, LinkConfig, Protection, Psk};

fuzz_target!(|data: &[u8]| {
    let (Some(first), rest) = (data.first(), data.get(1..).unwrap_or_default()) else { return };
    let protection = if first & 1 == 0 { Protection::Sealed } else { Protection::Plain };
    let at = Instant::default();
    let entropy = Box::new(|bytes: &mut [u8]| bytes.fill(3));
    let mut greeter = Greeter::new(&LinkConfig::uart_mux(), [1; 16], entropy, at);
    let mut out = Vec::new();
    let mut input = rest;
    while let Some(greeting) = greeter.handle_bytes(at, &mut input) {
        match greeting {
            Greeting::Asked(_) => {
                greeter.offer(at, &Psk::derive(b"key"), protection).expect("an offer");
            }
            Greeting::Rejected(text) => assert!(!text.chars().any(char::is_control)),
            Greeting::Established(_) => return,
        }
        greeter.poll_transmit(at, &mut out);
        out.clear();
    }
});
