//! Raw bytes of what a machine's firmware and disks hold: the DMI table, an fw_cfg item, a config disk.
#![no_main]

use guestinfo::ConfigDisk;
use guestinfo::fwcfg::FwCfg;
use guestinfo::smbios::OemStrings;
use guestinfo::source::Source;
use libfuzzer_sys::fuzz_target;
use std::cell::OnceCell;
use std::fs;
use tempfile::TempDir;

thread_local! {
    static SYS: OnceCell<TempDir> = const { OnceCell::new() };
}

fn sys() -> TempDir {
    let sys = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    for name in ["dmi/tables", "qemu_fw_cfg/by_name/opt/containervm.vmx"] {
        fs::create_dir_all(sys.path().join("firmware").join(name)).expect("a directory");
    }
    sys
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let sys = SYS.with(|cell| cell.get_or_init(sys).path().to_owned());
    let write = |name: &str, bytes: &[u8]| {
        let path = sys.join(name);
        fs::write(&path, bytes).expect("room for a small file");
        path
    };
    match kind % 3 {
        0 => {
            write("firmware/dmi/tables/DMI", data);
            drop(OemStrings::new(&sys).read());
        }
        1 => {
            let item = "firmware/qemu_fw_cfg/by_name/opt/containervm.vmx";
            let (size, raw) = data.split_at(data.len().min(4));
            write(&format!("{item}/size"), size);
            write(&format!("{item}/raw"), raw);
            drop(FwCfg::new(&sys).read());
        }
        _ => {
            // Volume descriptors begin after 32 KiB that nothing looks at but for the first line.
            let (start, rest) = data.split_at(data.len().min(64));
            let mut disk = start.to_vec();
            disk.resize(32 * 1024, 0);
            disk.extend_from_slice(rest);
            let path = write("disk", &disk);
            drop(ConfigDisk::new(path).read());
        }
    }
});
