//! Raw bytes of a journal after a crash: records up to the first damage, and those can be written again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serialmux::store::record::{Taken, put, take};

fuzz_target!(|data: &[u8]| {
    let mut rest = Bytes::copy_from_slice(data);
    loop {
        // What a fuzzer cannot guess is filled in: the checksum.
        if let Some((len, body)) = rest.split_first_chunk::<4>()
            && let Some(body) = body.get(4..)
            && let Some(body) = body.get(..u32::from_le_bytes(*len) as usize)
        {
            let mut fixed = rest.to_vec();
            fixed[4..8].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
            rest = fixed.into();
        }
        let Taken::Record(record, n) = take(&rest) else { return };
        assert!(n > 0 && n <= rest.len());
        let mut out = Vec::new();
        put(&record, &mut out);
        assert!(matches!(take(&out.into()), Taken::Record(again, _) if again == record));
        rest = rest.slice(n..);
    }
});
