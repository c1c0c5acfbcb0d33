//! The corpora of the fuzz targets for what a host, a hypervisor, firmware, a disk or an image tells the guest.

extern crate self as libfuzzer_sys;

#[macro_use]
#[path = "../../serialmux/fuzz/src/replay.rs"]
mod replay;

replay! { "guestinfo/fuzz", "../guestinfo/fuzz/fuzz_targets":
    archive_ops archive_raw backdoor_ops config_ops dhcp_ops firmware_raw rpci_raw spool_ops toolbox_raw users_raw
    vmx_raw
}
