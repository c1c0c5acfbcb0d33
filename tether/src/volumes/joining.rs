//! A volume on its way into a container that runs: a child of the agent puts it there.
//!
//! Only a process of the container's mount namespace can mount something in it (mount_namespaces(7)), and the
//! copy of the image's content may take long; the agent itself does neither. The child prepares the volume among
//! the agent's files, enters the namespace, attaches it, and leaves one record in a pipe. A child that is killed
//! leaves none.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::mount;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, pipe2, read, write};
use tokio::io::unix::AsyncFd;

use super::place;
use super::store::Store;
use super::{HOME, Medium, Volume, VolumeError};
use crate::inside::root::ContainerRoot;
use crate::rootfs::tmpfs_options;
use crate::stdio;
use crate::sys::{self, Cloned};

/// The longest record: `PIPE_BUF`, so that one write is atomic.
const MAX_RECORD: usize = 4096;

/// A volume on its way.
#[derive(Debug)]
pub struct Joining {
    /// Its name.
    pub name: String,
    status: AsyncFd<OwnedFd>,
}

impl Joining {
    /// Starts to put a volume that the agent has into the container whose first process is `first`.
    ///
    /// # Errors
    ///
    /// When there can be no child.
    pub fn start(volume: &Volume, first: Pid) -> Result<Self, VolumeError> {
        let (status, child_status) = pipe2(OFlag::O_CLOEXEC).map_err(volume.step("make a pipe"))?;
        // Between birth and reset, the child must not run the agent's signal handlers.
        let mask = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(volume.step("block signals"))?;
        let cloned = sys::clone_process(0, None);
        if matches!(cloned, Ok(Cloned::Child)) {
            run(volume, first, &child_status);
        }
        mask.thread_set_mask().map_err(volume.step("unblock signals"))?;
        cloned.map_err(volume.step("make a process"))?;
        drop(child_status);
        let status = stdio::watch(status).map_err(volume.step("watch a pipe"))?;
        Ok(Self { name: volume.name.clone(), status })
    }

    /// Waits until that is known.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn ready(&self) {
        match self.status.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            Err(_shutting_down) => std::future::pending().await,
        }
    }

    /// How it went, once that is known; the context's task is woken then.
    pub fn poll_outcome(&self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        loop {
            let mut ready = match self.status.poll_read_ready(context) {
                Poll::Ready(Ok(ready)) => ready,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
                Poll::Pending => return Poll::Pending,
            };
            let mut record = [0; MAX_RECORD];
            match ready.try_io(|fd| Ok(read(fd.get_ref(), &mut record)?)) {
                Ok(Ok(len)) => return Poll::Ready(self.outcome(&record[..len])),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error.to_string())),
                Err(_would_block) => {}
            }
        }
    }

    fn outcome(&self, record: &[u8]) -> Result<(), String> {
        match record {
            [] => Err(format!("volume {}: what was mounting it was killed", self.name)),
            b"\n" => Ok(()),
            text => Err(String::from_utf8_lossy(text).into_owned()),
        }
    }
}

/// A line break is success, anything else the reason.
fn run(volume: &Volume, first: Pid, status: &OwnedFd) -> ! {
    sys::reset_signals();
    umask(Mode::from_bits_truncate(0o022));
    let mut record = match enter(volume, first, status) {
        Ok(()) => "\n".to_owned(),
        Err(error) => error.to_string(),
    };
    record.truncate(record.floor_char_boundary(MAX_RECORD));
    // The only reader is the agent; when even this write fails, there is nobody left to tell.
    let _unreported = write(status, record.as_bytes());
    sys::exit_now(0)
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
