//! The virtio-serial port that is the multiplexer's, found by its name.
//!
//! Its driver is loaded once the process runs, as that of any device nothing waits for; the port then
//! announces itself twice, with its node and when it has got its name. It is open as soon as the host's end
//! is connected, and tells when that goes and comes (`drivers/char/virtio_console.c`).

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use tracing::{debug, warn};
use wire::Transport;

use super::Line;

/// Name that the hypervisor gives the port.
pub const NAME: &str = "org.containervm.serial0";

/// Where the kernel lists ports.
const CLASS: &str = "/sys/class/virtio-ports";

/// The port, if there is one by now.
pub fn find() -> Option<Line> {
    let ports = fs::read_dir(CLASS).ok()?;
    let node = ports.flatten().map(|entry| entry.path()).find(|port| {
        fs::read_to_string(port.join("name")).is_ok_and(|name| name.trim_end() == NAME)
    })?;
    let node = Path::new("/dev").join(node.file_name()?);
    match open(&node) {
        Ok(line) => {
            debug!("{} is the multiplexer's", node.display());
            Some(line)
        }
        Err(error) => {
            warn!("{} cannot be used: {error}", node.display());
            None
        }
    }
}

fn open(node: &Path) -> io::Result<Line> {
    let port = OpenOptions::new().read(true).write(true).open(node)?;
    Line::nested(port.into(), Transport::Virtio)
}
