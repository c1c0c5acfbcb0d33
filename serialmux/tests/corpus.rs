//! The corpora of the fuzz targets for what a peer, a client, an image or a damaged disk can reach.

extern crate self as libfuzzer_sys;
extern crate self as serialmux_fuzz;

#[path = "../wire/tests/sim/forger.rs"]
#[allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "as in its own tests")]
mod forger;
#[allow(unreachable_pub, reason = "of a library there")]
#[path = "../fuzz/src/heads.rs"]
mod heads;
#[macro_use]
#[path = "../fuzz/src/replay.rs"]
mod replay;

replay! { "fuzz", "../fuzz/fuzz_targets":
    api_raw chunk_raw difference_ops frame_raw greeter_raw image_ops image_raw iso_raw journal_raw line_raw link_ops
    link_raw message_raw pack_ops pack_raw packet_raw records_raw
}
