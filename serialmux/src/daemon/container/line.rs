//! The pipe over which a container's VM has its session now.

use crate::daemon::outbox::Outbox;
use crate::daemon::peer::Pipe;
use crate::daemon::registry::Registry;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf};
use wire::Transport;

/// A VM's pipe, both ways.
pub(super) struct Line {
    pub(super) read: ReadHalf<Box<dyn Pipe>>,
    pub(super) write: WriteHalf<Box<dyn Pipe>>,
    pub(super) from: String,
    pub(super) transport: Transport,
    pub(super) registry: Arc<Registry>,
    pub(super) outbox: Outbox,
    pub(super) buffer: Vec<u8>,
    /// Why nothing can be written any more. What has arrived is there to be read nevertheless: the last words of a VM
    /// that was killed, which nobody has but this host.
    pub(super) is_cut: Option<String>,
}

/// What happened on a pipe.
pub(super) enum Moved {
    In(io::Result<usize>),
    Out(io::Result<()>),
}

pub(super) async fn exchange(line: &mut Option<Line>, writing: bool) -> Moved {
    let Some(Line { read, write, outbox, buffer, .. }) = line else {
        return std::future::pending().await;
    };
    tokio::select! {
        n = read.read(buffer) => Moved::In(n),
        done = outbox.write(write), if writing => Moved::Out(done),
    }
}
