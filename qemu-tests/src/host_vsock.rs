//! A host's vsock for one VM, where the host's kernel has none.

use crate::checkout::Checkout;
use crate::lab::Lab;
use crate::program::Program;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A `vhost-device-vsock`, which serves the device of one VM. What the VM connects to arrives at sockets in the file
/// system.
#[derive(Debug)]
pub struct HostVsock {
    device: PathBuf,
    host: PathBuf,
    _served: Program,
}

impl HostVsock {
    /// One that waits for its VM; `None` if the program could not be installed.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab) -> Option<Self> {
        let tool = Checkout::built().tool("vhost-device-vsock");
        if !tool.exists() {
            return None;
        }
        let (device, host) = (lab.path("vhost"), lab.path("uds"));
        let mut command = Command::new(tool);
        let vm = format!("guest-cid=3,uds-path={},socket={}", host.display(), device.display());
        command.args(["--vm", &vm]).env("CONTAINERVM_HOME", lab.home()).env("RUST_LOG", "warn");
        let served = lab.start(command);
        served.await_that("the socket of vhost-device-vsock", || device.exists());
        Some(Self { device, host, _served: served })
    }

    /// The socket of the device: what `--vsock-socket` takes.
    #[must_use]
    pub fn device(&self) -> String {
        self.device.display().to_string()
    }

    /// What the paths of the host's ports begin with.
    #[must_use]
    pub fn host(&self) -> &Path {
        &self.host
    }

    /// Where the VM's connections to a port of the host arrive.
    #[must_use]
    pub fn port(&self, number: u32) -> PathBuf {
        format!("{}_{number}", self.host.display()).into()
    }
}
