//! An NFS server of version 3 inside the test: one directory of files in memory, on a port of loopback.

use async_trait::async_trait;
use nfsserve::nfs::{
    fattr3, fileid3, filename3, ftype3, nfspath3, nfsstat3, sattr3, set_gid3, set_mode3, set_size3,
    set_uid3,
};
use nfsserve::tcp::{NFSTcp as _, NFSTcpListener};
use nfsserve::vfs::{DirEntry, NFSFileSystem, ReadDirResult, VFSCapabilities};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

const ROOT: fileid3 = 1;

/// A directory that is served until this is dropped.
pub(crate) struct Share {
    files: Files,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// What is in it, in the order of its making: a file's number is its place, from 2 on; and whether writes are
/// left without an answer.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<Vec<Node>>>, Arc<AtomicBool>);

#[derive(Clone)]
struct Node {
    /// Absent when it has been removed.
    name: Option<String>,
    contents: Vec<u8>,
    attributes: fattr3,
}

impl Share {
    /// Serves these files.
    pub(crate) fn new<const N: usize>(files: [(&str, &str); N]) -> Self {
        let share = Files::default();
        share.add(String::new(), Vec::new(), ftype3::NF3DIR);
        for (name, contents) in files {
            share.add(name.to_owned(), contents.into(), ftype3::NF3REG);
        }
        let (stop, stopped) = oneshot::channel();
        let (tell_port, port) = std::sync::mpsc::channel();
        let served = share.clone();
        let serving = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut listener =
                    NFSTcpListener::bind("127.0.0.1:0", served).await.expect("a port of loopback");
                listener.with_export_name("exports/v1");
                tell_port.send(listener.get_listen_port()).expect("the test waits");
                tokio::select! {
                    served = listener.handle_forever() => served.expect("it can accept"),
                    _ = stopped => {}
                }
            });
        });
        let port = port.recv().expect("the server has begun");
        Self { files: share, port, stop: Some(stop), serving: Some(serving) }
    }

    /// Mount options that lead to it, for what has no port mapper: all is on one port.
    pub(crate) fn options(&self) -> String {
        format!("addr=10.0.2.2,port={0},mountport={0},mountproto=tcp", self.port)
    }

    /// Answers no write from now on.
    pub(crate) fn hush(&self) {
        self.files.1.store(true, Ordering::Relaxed);
    }

    /// What a file has, if it is there.
    pub(crate) fn read(&self, name: &str) -> Option<String> {
        let files = self.files.0.lock().unwrap_or_else(PoisonError::into_inner);
        let node = files.iter().find(|node| node.name.as_deref() == Some(name))?;
        Some(String::from_utf8_lossy(&node.contents).into_owned())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            // A panic of it is the test's.
            serving.join().expect("the server ends");
        }
    }
}

impl Files {
    fn add(&self, name: String, contents: Vec<u8>, ftype: ftype3) -> (fileid3, fattr3) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (fileid, size) = (files.len() as u64 + ROOT, contents.len() as u64);
        let mode = if matches!(ftype, ftype3::NF3DIR) { 0o755 } else { 0o644 };
        let attributes =
            fattr3 { ftype, mode, nlink: 1, size, used: size, fileid, ..fattr3::default() };
        files.push(Node { name: Some(name), contents, attributes });
        (fileid, attributes)
    }

    fn with<T>(&self, id: fileid3, act: impl FnOnce(&mut Node) -> T) -> Result<T, nfsstat3> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = usize::try_from(id - ROOT).map_err(|_| nfsstat3::NFS3ERR_BADHANDLE)?;
        files.get_mut(at).map(act).ok_or(nfsstat3::NFS3ERR_STALE)
    }

    fn find(&self, name: &filename3) -> Result<fileid3, nfsstat3> {
        if matches!(name.as_ref(), b"." | b"..") {
            return Ok(ROOT);
        }
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |node: &Node| node.name.as_deref().map(str::as_bytes) == Some(name.as_ref());
        files.iter().position(is_it).map(|at| at as u64 + ROOT).ok_or(nfsstat3::NFS3ERR_NOENT)
    }
}

fn text(name: &filename3) -> String {
    String::from_utf8_lossy(name.as_ref()).into_owned()
}

#[async_trait]
impl NFSFileSystem for Files {
    fn capabilities(&self) -> VFSCapabilities {
        VFSCapabilities::ReadWrite
    }

    fn root_dir(&self) -> fileid3 {
        ROOT
    }

    async fn lookup(&self, _: fileid3, name: &filename3) -> Result<fileid3, nfsstat3> {
        self.find(name)
    }

    async fn getattr(&self, id: fileid3) -> Result<fattr3, nfsstat3> {
        self.with(id, |node| node.attributes)
    }

    async fn setattr(&self, id: fileid3, set: sattr3) -> Result<fattr3, nfsstat3> {
        self.with(id, |node| {
            let attributes = &mut node.attributes;
            if let set_mode3::mode(mode) = set.mode {
                attributes.mode = mode;
            }
            if let set_uid3::uid(uid) = set.uid {
                attributes.uid = uid;
            }
            if let set_gid3::gid(gid) = set.gid {
                attributes.gid = gid;
            }
            if let set_size3::size(size) = set.size {
                node.contents.resize(usize::try_from(size).expect("small"), 0);
                attributes.size = size;
            }
            *attributes
        })
    }

    async fn read(
        &self,
        id: fileid3,
        offset: u64,
        count: u32,
    ) -> Result<(Vec<u8>, bool), nfsstat3> {
        self.with(id, |node| {
            let begin = usize::try_from(offset).expect("small").min(node.contents.len());
            let end = begin.saturating_add(count as usize).min(node.contents.len());
            (node.contents[begin..end].to_vec(), end == node.contents.len())
        })
    }

    async fn write(&self, id: fileid3, offset: u64, data: &[u8]) -> Result<fattr3, nfsstat3> {
        if self.1.load(Ordering::Relaxed) {
            std::future::pending().await
        }
        self.with(id, |node| {
            let begin = usize::try_from(offset).expect("small");
            let end = begin + data.len();
            node.contents.resize(node.contents.len().max(end), 0);
            node.contents[begin..end].copy_from_slice(data);
            node.attributes.size = node.contents.len() as u64;
            node.attributes
        })
    }

    async fn create(
        &self,
        _: fileid3,
        name: &filename3,
        set: sattr3,
    ) -> Result<(fileid3, fattr3), nfsstat3> {
        let (id, _) = self.add(text(name), Vec::new(), ftype3::NF3REG);
        Ok((id, self.setattr(id, set).await?))
    }

    async fn create_exclusive(&self, _: fileid3, name: &filename3) -> Result<fileid3, nfsstat3> {
        Ok(self.add(text(name), Vec::new(), ftype3::NF3REG).0)
    }

    async fn mkdir(&self, _: fileid3, _: &filename3) -> Result<(fileid3, fattr3), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn remove(&self, _: fileid3, name: &filename3) -> Result<(), nfsstat3> {
        let id = self.find(name)?;
        self.with(id, |node| node.name = None)
    }

    async fn rename(
        &self,
        _: fileid3,
        _: &filename3,
        _: fileid3,
        _: &filename3,
    ) -> Result<(), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn readdir(
        &self,
        _: fileid3,
        after: fileid3,
        most: usize,
    ) -> Result<ReadDirResult, nfsstat3> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = files.iter().skip(1).filter(|node| node.attributes.fileid > after);
        let entry = |node: &Node| {
            let name = node.name.as_ref()?.as_bytes().into();
            Some(DirEntry { fileid: node.attributes.fileid, name, attr: node.attributes })
        };
        let mut entries: Vec<_> = named.filter_map(entry).collect();
        let end = entries.len() <= most;
        entries.truncate(most);
        Ok(ReadDirResult { entries, end })
    }

    async fn symlink(
        &self,
        _: fileid3,
        _: &filename3,
        _: &nfspath3,
        _: &sattr3,
    ) -> Result<(fileid3, fattr3), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn readlink(&self, _: fileid3) -> Result<nfspath3, nfsstat3> {
        Err(nfsstat3::NFS3ERR_INVAL)
    }
}
