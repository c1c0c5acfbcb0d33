//! A DHCP server that says what it likes when it likes: datagrams with a true header, and a clock that goes on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use tether::network::dhcp::{Action, Client, MAX_DNS};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// What was asked last, which an answer must repeat.
fn answer(question: &[u8], said: &[u8]) -> Vec<u8> {
    let mut bytes = question[..240].to_vec();
    bytes[0] = 2;
    bytes[16..20].copy_from_slice(&[10, 0, 0, 9]);
    bytes.extend_from_slice(said);
    bytes
}

fn check(action: &Action) {
    if let Action::Use(lease) = action {
        assert!((1..=32).contains(&lease.address.prefix_len));
        assert!(lease.dns.len() <= MAX_DNS);
        let IpAddr::V4(v4) = lease.address.addr else { panic!("{lease:?}") };
        assert!(!v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast());
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut client, mut now, mut question) = (Client::new(MAC, "box", 7, 0), 0_u64, vec![0; 300]);
    for step in data.split(|byte| *byte == 0xfe) {
        let mut n_sent = 0;
        while let Some(action) = client.poll(now) {
            check(&action);
            if let Action::Send(_, bytes) = action {
                question = bytes;
            }
            n_sent += 1;
            assert!(n_sent < 4, "it talks without end");
        }
        assert!(client.deadline() > now);
        match step.split_first() {
            // Time goes on to the next deadline.
            Some((0, _)) | None => now = client.deadline(),
            Some((1, raw)) => drop(client.hear(raw, now)),
            Some((_, said)) => {
                if let Some(action) = client.hear(&answer(&question, said), now) {
                    check(&action);
                }
            }
        }
    }
});
