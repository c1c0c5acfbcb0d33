//! Processors and memory that are added while the machine runs: the kernel sees them, somebody must take them
//! into use.

use std::fs;
use std::io;
use std::path::Path;

use tracing::{info, warn};

use crate::uevent::Uevent;

/// Where the kernel shows its devices.
pub const SYS: &str = "/sys";
const PROCESSORS: &str = "devices/system/cpu";
const MEMORY: &str = "devices/system/memory";

/// What was taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// A processor.
    Processor,
    /// A block of memory.
    Memory,
}

/// Has the kernel take new memory into use by itself: then none is missed. A kernel that knows no such
/// setting announces each block.
pub fn prefer_automatic(sys: &Path) {
    // A wish, see above.
    let _announced = fs::write(sys.join(MEMORY).join("auto_online_blocks"), "online");
}

/// Takes the device of an announcement into use, if it is a new processor or memory.
pub fn announce(sys: &Path, event: &Uevent) -> Option<Added> {
    if event.action != "add" {
        return None;
    }
    let device = sys.join(event.devpath.trim_start_matches('/'));
    match event.subsystem.as_str() {
        "cpu" => bring_online(&device.join("online"), "0", "1").then_some(Added::Processor),
        // Whether or not somebody else was faster: there is more of it now.
        "memory" => {
            bring_online(&device.join("state"), "offline", "online");
            Some(Added::Memory)
        }
        _ => None,
    }
}

/// Looks at all processors and memory, because announcements were lost.
pub fn look(sys: &Path) {
    for (class, file, off, on) in
        [(PROCESSORS, "online", "0", "1"), (MEMORY, "state", "offline", "online")]
    {
        let entries = fs::read_dir(sys.join(class)).into_iter().flatten().flatten();
        for entry in entries {
            bring_online(&entry.path().join(file), off, on);
        }
    }
}

/// Switches a device on that is off; whether it did.
fn bring_online(switch: &Path, off: &str, on: &str) -> bool {
    // The first processor has no switch, and what is not a device has none.
    let is_off = fs::read_to_string(switch).is_ok_and(|state| state.trim() == off);
    if !is_off {
        return false;
    }
    match fs::write(switch, on) {
        Ok(()) => info!("{} is in use now", name(switch)),
        // The kernel, set to do it itself, was faster.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return false,
        Err(error) => {
            warn!("{} cannot be taken into use: {error}", name(switch));
            return false;
        }
    }
    true
}

fn name(switch: &Path) -> String {
    let device = switch.parent().and_then(Path::file_name).unwrap_or_default();
    device.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn event(action: &str, subsystem: &str, device: &str) -> Uevent {
        Uevent {
            action: action.into(),
            devpath: format!("/devices/system/{subsystem}/{device}"),
            subsystem: subsystem.into(),
            ..Uevent::default()
        }
    }

    const CPU1: &str = "devices/system/cpu/cpu1/online";
    const BLOCK: &str = "devices/system/memory/memory32/state";

    #[test]
    fn what_is_announced_is_switched_on() {
        let sys = tree(&[(CPU1, "0\n"), (BLOCK, "offline\n")]);
        let read = |name: &str| fs::read_to_string(sys.path().join(name)).unwrap();
        assert_eq!(announce(sys.path(), &event("remove", "cpu", "cpu1")), None);
        assert_eq!(announce(sys.path(), &event("add", "cpu", "cpu1")), Some(Added::Processor));
        assert_eq!(announce(sys.path(), &event("add", "cpu", "cpu1")), None, "it is on");
        assert_eq!(announce(sys.path(), &event("add", "memory", "memory32")), Some(Added::Memory));
        assert_eq!((read(CPU1), read(BLOCK)), ("1".to_owned(), "online".to_owned()));
        assert_eq!(announce(sys.path(), &event("add", "block", "sda")), None);
    }

    #[test]
    fn a_look_finds_what_nobody_announced() {
        let sys = tree(&[
            (CPU1, "0\n"),
            (BLOCK, "offline\n"),
            ("devices/system/cpu/cpu0/topology/core_id", "0"),
            ("devices/system/memory/memory0/state", "going-offline\n"),
        ]);
        look(sys.path());
        let read = |name: &str| fs::read_to_string(sys.path().join(name)).unwrap();
        assert_eq!((read(CPU1), read(BLOCK)), ("1".to_owned(), "online".to_owned()));
        assert_eq!(read("devices/system/memory/memory0/state"), "going-offline\n");
    }
}
