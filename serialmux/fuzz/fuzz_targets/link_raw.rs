//! Raw record bodies, under good keys, to a live mux and a live guest: no panic, bounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serialmux_fuzz::forger::{Forger, drain};
use wire::{Class, Direction, Event, Instant, LinkConfig, Open};

fuzz_target!(|data: &[u8]| {
    for upwards in [true, false] {
        let config = if upwards { LinkConfig::uart_mux() } else { LinkConfig::uart() };
        let limit = config.clone();
        let (mut link, mut forger) =
            if upwards { Forger::guest(config) } else { Forger::mux(config) };
        for direction in [Direction::ToMux, Direction::ToGuest] {
            if !upwards {
                let open = Open { direction, class: Class::Log, label: vec![1] };
                let id = link.open_channel(open).expect("room for two");
                link.write(id, &[7; 5000]);
            }
        }
        for (i, body) in data.split(|byte| *byte == 0xfe).enumerate() {
            let at = Instant::from_micros(i as u64 * 30_000);
            link.handle_bytes(at, &forger.frame(body));
            for event in drain(&mut link, at) {
                match event {
                    Event::Opened { channel, base, .. } => link.accept(channel, base),
                    Event::Readable(id) => drop(link.read(id, 100)),
                    _ => {}
                }
            }
            assert!(link.memory() <= limit.memory_limit(link.channels()));
        }
    }
});
