//! A volume on its way into a container that runs: a child of the agent puts it there.
//!
//! Only a process of the container's mount namespace can mount something in it (mount_namespaces(7)), and the
//! copy of the image's content may take long; the agent itself does neither. The child prepares the volume among
//! the agent's files, enters the namespace and attaches it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::mount::mount;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use super::errand::Errand;
use super::place;
use super::store::Store;
use super::{HOME, Medium, Volume, VolumeError};
use crate::inside::root::ContainerRoot;
use crate::rootfs::tmpfs_options;
use crate::sys;

/// A volume on its way.
#[derive(Debug)]
pub struct Joining {
    /// Its name.
    pub name: String,
    errand: Errand,
}

impl Joining {
    /// Starts to put a volume that the agent has into the container whose first process is `first`.
    ///
    /// # Errors
    ///
    /// When there can be no child.
    pub fn start(volume: &Volume, first: Pid) -> Result<Self, VolumeError> {
        let errand =
            Errand::start(|status| enter(volume, first, status).map_err(|error| error.to_string()));
        let errand = errand.map_err(|(step, errno)| volume.step(step)(errno))?;
        Ok(Self { name: volume.name.clone(), errand })
    }

    /// Waits until that is known.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn ready(&self) {
        self.errand.ready().await;
    }

    /// How it went, once that is known; the context's task is woken then.
    pub fn poll_outcome(&self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.errand.poll_outcome(context)
    }
}

fn enter(volume: &Volume, first: Pid, status: &OwnedFd) -> Result<(), VolumeError> {
    let process = sys::open_process(first).map_err(volume.step("open the container's process"))?;
    let inside = |_| VolumeError::Step {
        name: volume.name.clone(),
        step: "open the container's root".to_owned(),
        errno: Errno::ESRCH,
    };
    let root = ContainerRoot::open(Some(first)).map_err(inside)?;
    let tree = match Store::open(volume)? {
        Some(store) => {
            let keep = vec![status.as_raw_fd(), process.as_raw_fd(), root.number(), store.number()];
            sys::close_all_but(keep);
            store.mount(volume, &root)?
        }
        None => memory(volume)?,
    };
    setns(&process, CloneFlags::CLONE_NEWNS)
        .map_err(volume.step("enter the container's mount namespace"))?;
    let root = ContainerRoot::open_own().map_err(inside)?;
    place::attach(&tree, &root, &volume.dest)
        .map_err(volume.step(&format!("mount it on {}", volume.dest)))
}

/// Memory as a detached mount, made where only the agent's files are.
fn memory(volume: &Volume) -> Result<OwnedFd, VolumeError> {
    let Medium::Memory(tmpfs) = &volume.medium else {
        return Err(volume.step("find its disk")(Errno::ENODEV));
    };
    // A namespace of its own for the moment: what is mounted here is nobody's else.
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(volume.step("make a namespace"))?;
    let home = Path::new(HOME).join("memory");
    std::fs::create_dir_all(&home)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        .map_err(volume.step("make a directory in /run"))?;
    let (flags, data) = tmpfs_options(tmpfs);
    mount(Some("tmpfs"), &home, Some("tmpfs"), flags, Some(data.as_str()))
        .map_err(volume.step("mount a tmpfs"))?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(&home, flags, rustix::fs::Mode::empty());
    let opened = opened.map_err(place::errno).map_err(volume.step("open the tmpfs"))?;
    sys::copy_mount_of(&opened).map_err(volume.step("bind it"))
}
