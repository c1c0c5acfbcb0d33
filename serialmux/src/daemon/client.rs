//! One client of the daemon: its request, and the answers to it.

use super::container::{Handle, Input, Status};
use super::registry::Registry;
use crate::api::answer::{self, Body as Reply};
use crate::api::request::{self, Body};
use crate::api::{Answer, Receiver, Request, Sender, input, messages};
use crate::clock;
use crate::store::journal::Cursor;
use crate::store::record::Record;
use crate::store::state::{Exit, Registration};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use wire::message::mux;

/// A request that was not carried out: what the client is told, or that it is gone.
#[derive(Debug)]
enum Refusal {
    Told(String),
    Hangup(io::Error),
}

impl<T: std::error::Error> From<T> for Refusal {
    fn from(error: T) -> Self {
        Self::Told(error.to_string())
    }
}

fn hangup(error: io::Error) -> Refusal {
    Refusal::Hangup(error)
}

/// Serves one client until it or its request is done.
pub(super) async fn serve(
    stream: UnixStream,
    registry: Arc<Registry>,
    listen: SocketAddr,
    _permit: OwnedSemaphorePermit,
) {
    let (mut sender, mut receiver) = messages(stream);
    let request = match receiver.receive::<Request>().await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(error) => return tracing::debug!(%error, "client without a request"),
    };
    let done = match request.body {
        Some(body) => perform(body, &registry, listen, &mut sender, receiver).await,
        None => Err(Refusal::Told("this serialmux does not know that request; it is older".into())),
    };
    let failed = match done {
        Ok(()) => Ok(()),
        Err(Refusal::Told(text)) => send(&mut sender, Reply::Error(answer::Error { text })).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(Refusal::Hangup(error)) = failed {
        tracing::debug!(%error, "client gone");
    }
}

async fn send(sender: &mut Sender, body: Reply) -> Result<(), Refusal> {
    sender.send(&Answer { body: Some(body) }).await.map_err(hangup)
}

async fn perform(
    body: Body,
    registry: &Registry,
    listen: SocketAddr,
    sender: &mut Sender,
    receiver: Receiver,
) -> Result<(), Refusal> {
    let done = Reply::Done(request::Hello {});
    match body {
        Body::Hello(_) => {
            let (version, pid) = (env!("CARGO_PKG_VERSION").to_owned(), std::process::id());
            let hello = answer::Hello { version, listen: listen.to_string(), pid };
            send(sender, Reply::Hello(hello)).await
        }
        Body::Register(register) => {
            let registration = registration(register);
            let id = registration.id.clone();
            tokio::task::block_in_place(|| registry.register(registration))?;
            registry.find(&id)?.expect().await;
            send(sender, done).await
        }
        Body::Remove(request::Container { container }) => {
            tokio::task::block_in_place(|| registry.remove(&container))?;
            send(sender, done).await
        }
        Body::List(_) => {
            let containers = registry.list().iter().map(|handle| summary(handle)).collect();
            send(sender, Reply::List(answer::List { containers })).await
        }
        Body::Inspect(request::Container { container }) => {
            let inspection = registry.find(&container)?.inspect().await;
            let json =
                inspection.ok_or_else(|| Refusal::Told("the container was removed".into()))?;
            send(sender, Reply::Inspection(answer::Inspection { json: json.to_string() })).await
        }
        Body::Attach(attach) => {
            let handle = registry.find(&attach.container)?;
            attached(&handle, &attach, sender, receiver).await
        }
        Body::Logs(logs) => {
            let handle = registry.find(&logs.container)?;
            replay(&handle, &logs, sender, receiver).await
        }
        Body::Wait(request::Container { container }) => {
            let handle = registry.find(&container)?;
            let exit = ended(&mut handle.watch()).await?;
            send(sender, Reply::Exit(exit)).await
        }
        Body::Kill(request::Kill { container, signal }) => {
            let handle = registry.find(&container)?;
            ask(&handle, signal_request(&handle, signal)).await?;
            send(sender, done).await
        }
        Body::Resize(request::Resize { container, rows, columns }) => {
            let handle = registry.find(&container)?;
            ask(&handle, resize_request(&handle, rows, columns)).await?;
            send(sender, done).await
        }
        Body::Gone(request::Gone { container, text }) => {
            registry.find(&container)?.gone(text).await;
            send(sender, done).await
        }
    }
}

fn registration(register: request::Register) -> Registration {
    let request::Register { id, name, key, plain, tty, open_stdin, command } = register;
    let created_us = clock::wall_us();
    Registration { id, name, key, plain, tty, open_stdin, command, created_us }
}

fn summary(handle: &Handle) -> answer::Summary {
    let Registration { id, name, command, created_us, .. } = handle.registration.clone();
    let status = handle.status();
    let exit = status.exit.clone().unwrap_or(Exit { code: 0, error: String::new(), time_us: 0 });
    answer::Summary {
        id,
        name,
        command,
        status: status.word().into(),
        exit_code: exit.code,
        error: exit.error,
        connected: status.is_connected,
        created_us,
        started_us: status.started_us.unwrap_or(0),
        exited_us: exit.time_us,
    }
}

async fn ask(handle: &Handle, body: mux::Body) -> Result<(), Refusal> {
    handle.request(body).await.map_err(Refusal::Told)
}

fn signal_request(handle: &Handle, signal: i32) -> mux::Body {
    mux::Body::Signal(mux::Signal { session: handle.registration.id.clone(), signal })
}

fn resize_request(handle: &Handle, rows: u32, columns: u32) -> mux::Body {
    let session = handle.registration.id.clone();
    mux::Body::Resize(mux::Resize { session, rows, columns })
}

fn exit_message(exit: &Exit) -> answer::Exit {
    answer::Exit { code: exit.code, error: exit.error.clone() }
}

async fn ended(status: &mut watch::Receiver<Status>) -> Result<answer::Exit, Refusal> {
    let status = status
        .wait_for(|status| status.ended().is_some())
        .await
        .map_err(|_| Refusal::Told("the container was removed".into()))?;
    status
        .ended()
        .map(exit_message)
        .ok_or_else(|| Refusal::Told("the container was removed".into()))
}

// ---- attach ----

async fn attached(
    handle: &Arc<Handle>,
    attach: &request::Attach,
    sender: &mut Sender,
    receiver: Receiver,
) -> Result<(), Refusal> {
    let Registration { tty, open_stdin, .. } = handle.registration;
    let mut cursor = handle.cursor()?;
    if !attach.from_start {
        cursor.seek(handle.status().written);
    }
    send(sender, Reply::Attached(answer::Attached { tty, open_stdin })).await?;
    let stdin = attach.stdin && open_stdin;
    let inputs = pump(Arc::clone(handle), receiver, stdin);
    let outputs = follow(handle, &mut cursor, sender);
    tokio::pin!(inputs);
    tokio::select! {
        exit = outputs => {
            let exit = exit?;
            send(sender, Reply::Exit(exit)).await
        }
        // The client has hung up: detached, or dead.
        error = &mut inputs => Err(Refusal::Hangup(error)),
    }
}

// Moves a client's input until it hangs up. Waits with it when the process does not read.
async fn pump(handle: Arc<Handle>, mut receiver: Receiver, stdin: bool) -> io::Error {
    let inputs = handle.inputs();
    loop {
        let message = match receiver.receive::<crate::api::Input>().await {
            Ok(Some(message)) => message,
            Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
            Err(error) => return error,
        };
        let input = match message.body {
            Some(input::Body::Bytes(bytes)) => Input::Bytes(bytes),
            Some(input::Body::End(_)) => Input::End,
            None => continue,
        };
        if stdin && inputs.send(input).await.is_err() {
            return io::ErrorKind::BrokenPipe.into();
        }
    }
}

// Sends output as it comes until the run has ended and all of it was sent.
async fn follow(
    handle: &Handle,
    cursor: &mut Cursor,
    sender: &mut Sender,
) -> Result<answer::Exit, Refusal> {
    let mut watch = handle.watch();
    loop {
        let status = watch.borrow_and_update().clone();
        send_until(cursor, status.written, sender).await?;
        if let Some(exit) = status.ended() {
            return Ok(exit_message(exit));
        }
        watch.changed().await.map_err(|_| Refusal::Told("the container was removed".into()))?;
    }
}

async fn send_until(cursor: &mut Cursor, end: u64, sender: &mut Sender) -> Result<(), Refusal> {
    loop {
        let records = tokio::task::block_in_place(|| cursor.read(end))?;
        if records.is_empty() {
            return Ok(());
        }
        for output in records.into_iter().filter_map(output) {
            send(sender, Reply::Output(output)).await?;
        }
    }
}

fn output(record: Record) -> Option<answer::Output> {
    match record {
        Record::Output { stream, time_us, bytes, .. } => {
            Some(answer::Output { stream: stream as u32, time_us, bytes })
        }
        Record::Begin { .. } | Record::End { .. } => None,
    }
}

// ---- logs ----

async fn replay(
    handle: &Handle,
    logs: &request::Logs,
    sender: &mut Sender,
    mut receiver: Receiver,
) -> Result<(), Refusal> {
    let mut cursor = handle.cursor()?;
    let end = handle.status().written;
    let until = if logs.until_us == 0 { u64::MAX } else { logs.until_us };
    let wanted = |output: &answer::Output| (logs.since_us..until).contains(&output.time_us);
    let mut tail = Tail::new(logs.tail);
    loop {
        let records = tokio::task::block_in_place(|| cursor.read(end))?;
        if records.is_empty() {
            break;
        }
        for output in records.into_iter().filter_map(output).filter(wanted) {
            if let Some(output) = tail.push(output) {
                send(sender, Reply::Output(output)).await?;
            }
        }
    }
    for output in tail.finish() {
        send(sender, Reply::Output(output)).await?;
    }
    if logs.follow && logs.until_us == 0 {
        tokio::select! {
            exit = follow(handle, &mut cursor, sender) => exit?,
            gone = receiver.receive::<Request>() => {
                return Err(hangup(gone.err().unwrap_or(io::ErrorKind::UnexpectedEof.into())));
            }
        };
    }
    send(sender, Reply::Done(request::Hello {})).await
}

/// The last so many lines of output; holds no more than those.
struct Tail {
    lines: Option<u64>,
    held: VecDeque<(answer::Output, u64)>,
    n_held: u64,
}

impl Tail {
    fn new(lines: Option<u64>) -> Self {
        Self { lines, held: VecDeque::new(), n_held: 0 }
    }

    /// Output that can go out at once.
    fn push(&mut self, output: answer::Output) -> Option<answer::Output> {
        let Some(lines) = self.lines else { return Some(output) };
        let n = newlines(&output.bytes);
        self.held.push_back((output, n));
        self.n_held += n;
        while let Some((_, n)) = self.held.front()
            && self.n_held - n > lines
        {
            self.n_held -= n;
            self.held.pop_front();
        }
        None
    }

    fn finish(self) -> VecDeque<answer::Output> {
        let Some(lines) = self.lines else { return VecDeque::new() };
        // A last line without its newline counts as one.
        let open = self.held.back().is_some_and(|(o, _)| !o.bytes.ends_with(b"\n"));
        let mut surplus = (self.n_held + u64::from(open)).saturating_sub(lines);
        let mut kept = VecDeque::new();
        for (mut output, n) in self.held {
            if surplus > n {
                surplus -= n;
                continue;
            }
            if surplus > 0 {
                output.bytes = output.bytes.slice(after_newline(&output.bytes, surplus)..);
                surplus = 0;
            }
            kept.push_back(output);
        }
        kept
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

// Index after the nth newline, counted from 1; the end if there are fewer.
fn after_newline(bytes: &[u8], n: u64) -> usize {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(i, _)| i + 1);
    ends.nth(usize::try_from(n - 1).unwrap_or(usize::MAX)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunks: &[&'static str], lines: u64, expected: &str) {
        let mut tail = Tail::new(Some(lines));
        for chunk in chunks {
            let output = answer::Output { stream: 1, time_us: 0, bytes: chunk.as_bytes().into() };
            assert!(tail.push(output).is_none());
        }
        let found: Vec<u8> = tail.finish().into_iter().flat_map(|o| o.bytes.to_vec()).collect();
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }

    #[test]
    fn the_tail_is_the_last_lines_however_they_were_cut() {
        check(&["a\nb\nc\n"], 2, "b\nc\n");
        check(&["a\nb\nc"], 2, "b\nc");
        check(&["a\n", "b\n", "c\n"], 2, "b\nc\n");
        check(&["a", "b\nc", "\nd\n", "e"], 2, "d\ne");
        check(&["a\nb", "c\n"], 1, "bc\n");
        check(&["a\nb\n"], 0, "");
        check(&["a\nb\n"], 9, "a\nb\n");
        check(&["a\nb\nc\nd\n", "", "e\n"], 3, "c\nd\ne\n");
    }
}
