//! What is asked about the inside of the running container, and what is copied in and out of it.
//!
//! | module | does |
//! |---|---|
//! | [`job`], [`walk`], [`root`] | a child for what may wait; a walk and look-ups that never leave the container |
//! | [`processes`], [`archive`], [`disk_list`] | done by such children: top, copies, the names for diff |
//! | [`measure`], [`diagnosis`], [`memory_watch`] | done by the agent itself, from what the kernel keeps in memory |
//! | [`freezer`] | the disk held still for a snapshot |
//!
//! The rule that cuts them: the agent itself touches nothing that can wait for the container, its disk or its
//! memory. So everything here answers while the container is stopped, out of memory or out of processes; and
//! what needs a child then fails with an error rather than late.

pub mod archive;
pub mod diagnosis;
pub mod disk_list;
pub mod failure;
pub mod freezer;
pub mod job;
pub mod measure;
pub mod memory_watch;
pub mod processes;
pub mod root;
pub mod walk;

use std::path::PathBuf;

use nix::unistd::Pid;
use prost::Message as _;
use rustix::fs::fstat;
use wire::ChannelId;
use wire::message::inside::{PathStat, StatPath, Thaw, What};
use wire::message::{guest, mux};

use self::archive::{pack, unpack};
use self::failure::InsideError;
use self::freezer::Freezer;
use self::job::{Ends, Job, MAX_JOBS, Outcome, Streams};
use self::memory_watch::MemoryWatch;
use self::root::ContainerRoot;
use crate::cgroup::TREE;
use crate::clock;
use crate::reap::Exit;
use crate::uplink::Uplink;

/// All that is under way.
#[derive(Debug)]
pub struct Inside {
    jobs: Vec<Job>,
    freezer: Option<Freezer>,
    memory: Option<MemoryWatch>,
    /// The container's cgroup.
    group: PathBuf,
    has_disk: bool,
}

impl Inside {
    /// Nothing is under way. `group` is the name of the container's cgroup.
    pub fn new(group: &str) -> Self {
        let group = PathBuf::from(TREE).join(group);
        Self { jobs: Vec::new(), freezer: None, memory: None, group, has_disk: false }
    }

    /// The container's disk is mounted and its cgroup made.
    pub fn begin(&mut self) {
        self.has_disk = true;
        self.memory = MemoryWatch::begin(&self.group);
    }

    /// Whether it is asked here.
    pub fn takes(body: &mux::Body) -> bool {
        matches!(
            body,
            mux::Body::Top(_)
                | mux::Body::Stats(_)
                | mux::Body::StatPath(_)
                | mux::Body::CopyOut(_)
                | mux::Body::CopyIn(_)
                | mux::Body::ListDisk(_)
                | mux::Body::Freeze(_)
                | mux::Body::Thaw(_)
        )
    }

    /// Takes a request on. `process` is the container's first, if its program runs. `None` when the reply comes
    /// later.
    pub fn request(
        &mut self,
        request: u64,
        body: &mux::Body,
        process: Option<Pid>,
        uplink: &mut Uplink,
    ) -> Option<guest::Reply> {
        let answered = match body {
            mux::Body::Stats(_) => Ok(Some(measure::sample(&self.group).encode_to_vec())),
            mux::Body::Freeze(freeze) => self.freeze(request, freeze.seconds).map(|()| None),
            mux::Body::Thaw(_) => match &mut self.freezer {
                None => {
                    return Some(reply(request, Err("the container's disk is not frozen".into())));
                }
                Some(freezer) => {
                    freezer.thaw(request);
                    Ok(None)
                }
            },
            body => self.start(request, body, process, uplink).map(|()| None),
        };
        match answered {
            Ok(None) => None,
            Ok(Some(body)) => Some(reply(request, Ok(body))),
            Err(error) => Some(reply(request, Err(error.to_string()))),
        }
    }

    fn freeze(&mut self, request: u64, seconds: u32) -> Result<(), InsideError> {
        if !self.has_disk {
            return Err(InsideError::NoDisk);
        }
        if self.freezer.is_some() {
            return Err(InsideError::Frozen);
        }
        self.freezer = Some(Freezer::start(request, seconds)?);
        Ok(())
    }

    fn start(
        &mut self,
        request: u64,
        body: &mux::Body,
        process: Option<Pid>,
        uplink: &mut Uplink,
    ) -> Result<(), InsideError> {
        if !self.has_disk {
            return Err(InsideError::NoDisk);
        }
        if self.jobs.len() >= MAX_JOBS {
            return Err(InsideError::TooMany);
        }
        // The disk's own names are those of the bare disk.
        let process = process.filter(|_| !matches!(body, mux::Body::ListDisk(_)));
        let root = ContainerRoot::open(process)?;
        let streams = match body {
            mux::Body::StatPath(_) => Streams::None,
            mux::Body::CopyIn(_) => Streams::Down,
            _ => Streams::Up,
        };
        let keep = [root.number()];
        let done = |ends: &mut Ends| work(body, &root, &self.group, ends);
        self.jobs.push(Job::start(request, streams, &keep, uplink, done)?);
        Ok(())
    }

    /// Does all that can be done without waiting.
    pub fn turn(&mut self, uplink: &mut Uplink) {
        self.jobs.retain_mut(|job| !job.turn(uplink));
        if let Some(reply) = self.freezer.as_mut().and_then(Freezer::answer) {
            uplink.say(guest::Body::Reply(reply));
        }
        if let Some(news) = self.memory.as_mut().and_then(MemoryWatch::take) {
            tracing::warn!("the container is out of memory: {} killed", news.kills);
            uplink.happened(What::OutOfMemory(news));
        }
    }

    /// A child of the agent has ended; those of others are passed over.
    pub fn reaped(&mut self, pid: Pid, exit: Exit, uplink: &mut Uplink) {
        if let Some(job) = self.jobs.iter_mut().find(|job| job.pid() == pid) {
            job.reaped(exit);
        }
        if let Some(mut freezer) = self.freezer.take_if(|freezer| freezer.pid() == pid) {
            if let Some(reply) = freezer.answer() {
                uplink.say(guest::Body::Reply(reply));
            }
            let thawed = freezer.ended(exit);
            for request in thawed.requests {
                uplink.say(guest::Body::Reply(reply(request, Ok(Vec::new()))));
            }
            if thawed.overdue {
                uplink.happened(What::Thawed(Thaw {}));
            }
        }
    }

    /// A stream to the guest has ended.
    pub fn finished(&mut self, channel: ChannelId) {
        self.jobs.iter_mut().for_each(|job| job.finished(channel));
    }

    /// A channel is gone at the other end.
    pub fn gone(&mut self, channel: ChannelId) {
        self.jobs.iter_mut().for_each(|job| job.gone(channel));
    }

    /// Waits until something may move.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken or given.
    pub async fn wait(&self) {
        let memory = async {
            match &self.memory {
                Some(watch) => watch.wait().await,
                None => std::future::pending().await,
            }
        };
        let freezer = async {
            match &self.freezer {
                Some(freezer) => freezer.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = memory => {}
            () = freezer => {}
            () = any(self.jobs.iter().map(Job::wait).collect()) => {}
        }
    }

    /// How much is under way, for [`diagnosis`].
    pub fn n_jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Whether the container's disk is held.
    pub fn is_frozen(&self) -> bool {
        self.freezer.is_some()
    }

    /// The container's cgroup.
    pub fn group(&self) -> &std::path::Path {
        &self.group
    }
}

/// Waits for the first of few futures.
async fn any<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        let ready = futures.iter_mut().any(|future| future.as_mut().poll(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn reply(request: u64, result: Result<Vec<u8>, String>) -> guest::Reply {
    match result {
        Ok(body) => guest::Reply { request, error: String::new(), body },
        Err(error) => guest::Reply { request, error, body: Vec::new() },
    }
}

/// What the child does.
fn work(
    body: &mux::Body,
    root: &ContainerRoot,
    group: &std::path::Path,
    ends: &mut Ends,
) -> Outcome {
    match body {
        mux::Body::Top(_) => processes::list(group, root, clock::wall_us(), &mut ends.out)?,
        mux::Body::ListDisk(_) => disk_list::list(root, &mut ends.out)?,
        mux::Body::StatPath(request) => return Ok(stat_path(root, request)?.encode_to_vec()),
        mux::Body::CopyOut(request) => {
            check_absolute(&request.path)?;
            pack::pack(root, request, &mut ends.out)?;
        }
        mux::Body::CopyIn(request) => {
            check_absolute(&request.directory)?;
            let owner = request.set_owner.then_some((request.uid, request.gid));
            unpack::unpack(root, &request.directory, owner, &mut ends.input)?;
        }
        _ => return Err(InsideError::Unknown),
    }
    Ok(Vec::new())
}

fn check_absolute(path: &[u8]) -> Result<(), InsideError> {
    let relative = || InsideError::Relative(String::from_utf8_lossy(path).into_owned());
    path.starts_with(b"/").then_some(()).ok_or_else(relative)
}

fn stat_path(root: &ContainerRoot, request: &StatPath) -> Result<PathStat, InsideError> {
    use std::os::fd::AsFd as _;
    let path = &request.path;
    check_absolute(path)?;
    let node = root.find(path, request.follow).map_err(InsideError::path("look at", path))?;
    let stat = fstat(&node).map_err(InsideError::path("look at", path))?;
    let link_target = if stat.st_mode & libc::S_IFMT == libc::S_IFLNK {
        root::read_link(node.as_fd()).map_err(InsideError::path("read", path))?
    } else {
        Vec::new()
    };
    Ok(PathStat {
        name: pack::last_component(path).to_vec(),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified: stat.st_mtime,
        modified_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        link_target,
        uid: stat.st_uid,
        gid: stat.st_gid,
    })
}
