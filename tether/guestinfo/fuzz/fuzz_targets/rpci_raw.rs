//! Raw bytes of a host that is asked over a stream.
#![no_main]

use guestinfo::rpci::{Packets, info_get};
use libfuzzer_sys::fuzz_target;
use std::io::{self, Read, Write};

struct Host<'a>(&'a [u8]);

impl Read for Host<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Host<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut packets = Packets::new(Host(data));
    let mut n_bytes = 0;
    while let Ok(Some(value)) = info_get(&mut packets, "guestinfo.vice./common/id") {
        n_bytes += value.len() + 1;
        assert!(n_bytes <= data.len());
    }
});
