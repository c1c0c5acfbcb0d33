//! A client that looks into a container, or copies in or out of it.
//!
//! That it leaves is seen elsewhere, and then all of this is dropped; but who copies in says more meanwhile.

use super::{Handle, Refusal, Reply, ask, done, hangup, send};
use crate::api::inside::{self as api, Change};
use crate::api::request::Body;
use crate::api::{Input, Receiver, Sender, answer, input, request};
use crate::daemon::container::{Ends, Incoming};
use crate::daemon::events::{Event, Events};
use crate::daemon::registry::Registry;
use crate::difference::{self, ImagePaths};
use bytes::Bytes;
use std::io;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use wire::message::inside::{self, Diagnosis, Listed, PathStat, Process, Sample};
use wire::message::{self, mux};

/// Pieces on their way to a client.
const PIECES: usize = 4;
/// Rows in one answer.
const ROWS: usize = 256;
/// The shortest interval between two samples.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

type Replied = oneshot::Receiver<Result<Vec<u8>, String>>;

/// Carries out a request about the inside of a container.
pub(super) async fn perform(
    body: Body,
    registry: &Registry,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    match body {
        Body::Top(asked) => {
            let handle = registry.find(&asked.container)?;
            top(&handle, sender).await
        }
        Body::Stats(asked) => {
            let handle = registry.find(&asked.container)?;
            stats(&handle, asked.interval_ms, sender).await
        }
        Body::Listen(asked) => {
            let named = Some(&asked.container).filter(|name| !name.is_empty());
            let id = named.map(|name| registry.find(name)).transpose()?;
            let id = id.map(|handle| handle.id.clone());
            listen(id, &asked, registry.events(), sender).await
        }
        Body::StatPath(look) => {
            let handle = registry.find(&look.container)?;
            stat_path(&handle, look.path, sender).await
        }
        Body::CopyOut(copy) => {
            let handle = registry.find(&copy.container)?;
            copy_out(&handle, copy.path, sender).await
        }
        Body::Diff(request::Container { container }) => {
            let handle = registry.find(&container)?;
            diff(&handle, sender).await
        }
        Body::Freeze(api::Freeze { container, seconds }) => {
            let handle = registry.find(&container)?;
            ask(&handle, mux::Body::Freeze(inside::Freeze { seconds })).await?;
            done(sender).await
        }
        Body::Thaw(request::Container { container }) => {
            let handle = registry.find(&container)?;
            ask(&handle, mux::Body::Thaw(inside::Thaw {})).await?;
            done(sender).await
        }
        Body::Diagnose(request::Container { container }) => {
            let handle = registry.find(&container)?;
            diagnose(&handle, sender).await
        }
        _ => Err(Refusal::Told("this serialmux does not know that request; it is older".into())),
    }
}

/// What a guest sends for a request, besides its reply.
struct Upstream {
    pieces: mpsc::Receiver<Incoming>,
    reply: Replied,
}

impl Upstream {
    async fn open(handle: &Handle, body: mux::Body) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        Self { pieces, reply: handle.stream(body, Ends::Up(sender)).await }
    }

    /// The next bytes; `None` once all have come and the guest has said that this is right. A good reply may come
    /// before bytes that are lost with the VM then, so that it alone means nothing.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let piece = self.pieces.recv().await;
        if let Some(Incoming::Bytes(bytes)) = piece {
            return Ok(Some(bytes));
        }
        replied(&mut self.reply).await?;
        match piece {
            Some(_) => Ok(None),
            None => Err(Refusal::Told("the VM went away before all of it had come".into())),
        }
    }
}

async fn replied(reply: &mut Replied) -> Result<Vec<u8>, Refusal> {
    let gone = |_| Err("the container was removed".to_owned());
    reply.await.unwrap_or_else(gone).map_err(Refusal::Told)
}

fn decoded<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, Refusal> {
    M::decode(bytes).map_err(|_| Refusal::Told("the agent's answer cannot be read".into()))
}

async fn top(handle: &Handle, sender: &mut Sender) -> Result<(), Refusal> {
    let body = mux::Body::Top(inside::Top {});
    let mut stream = Upstream::open(handle, body).await;
    let mut reader = message::Reader::default();
    while let Some(piece) = stream.next().await? {
        reader.push(&piece);
        let mut processes = Vec::new();
        while let Some((process, _)) = reader.next_message::<Process>()? {
            processes.push(process);
            if processes.len() >= ROWS {
                let processes = std::mem::take(&mut processes);
                send(sender, Reply::Processes(api::Processes { processes })).await?;
            }
        }
        send(sender, Reply::Processes(api::Processes { processes })).await?;
    }
    done(sender).await
}

async fn stats(handle: &Handle, interval_ms: u32, sender: &mut Sender) -> Result<(), Refusal> {
    let interval = Duration::from_millis(interval_ms.into()).max(MIN_INTERVAL);
    let mut ticks = tokio::time::interval(interval);
    // A VM that answers late is asked again an interval later, not at once.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = ask(handle, mux::Body::Stats(inside::Stats {})).await?;
        send(sender, Reply::Sample(decoded::<Sample>(&sample)?)).await?;
        if interval_ms == 0 {
            return done(sender).await;
        }
    }
}

async fn stat_path(
    handle: &Handle,
    path: Option<inside::StatPath>,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    let body = ask(handle, mux::Body::StatPath(path.unwrap_or_default())).await?;
    send(sender, Reply::PathStat(decoded::<PathStat>(&body)?)).await
}

async fn copy_out(
    handle: &Handle,
    path: Option<inside::CopyOut>,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    let body = mux::Body::CopyOut(path.unwrap_or_default());
    let mut stream = Upstream::open(handle, body).await;
    while let Some(bytes) = stream.next().await? {
        send(sender, Reply::Piece(api::Piece { bytes })).await?;
    }
    done(sender).await
}

/// Brings a client's archive into a container.
pub(super) async fn copy_in(
    handle: &Handle,
    place: Option<inside::CopyIn>,
    sender: &mut Sender,
    mut receiver: Receiver,
) -> Result<(), Refusal> {
    let (pieces, from) = mpsc::channel(PIECES);
    let body = mux::Body::CopyIn(place.unwrap_or_default());
    let mut reply = handle.stream(body, Ends::Down(from)).await;
    loop {
        let input = tokio::select! {
            // Before its end, too: an archive may be refused at its first entry.
            answer = replied(&mut reply) => {
                answer?;
                return done(sender).await;
            }
            input = receiver.receive::<Input>() => input,
        };
        // A client that goes before the end must not leave an archive that looks whole.
        let eof = || hangup(io::ErrorKind::UnexpectedEof.into());
        match input.map_err(hangup)?.ok_or_else(eof)?.body {
            Some(input::Body::Bytes(bytes)) => {
                // The guest reads no more when it has found a fault, which its reply tells.
                drop(pieces.send(Incoming::Bytes(bytes)).await);
            }
            Some(input::Body::End(_)) => drop(pieces.send(Incoming::End).await),
            None => {}
        }
    }
}

async fn diff(handle: &Handle, sender: &mut Sender) -> Result<(), Refusal> {
    let name = &handle.name;
    let path = handle.registered().image_paths.ok_or_else(|| {
        let text =
            "there is no list of its image's files; only a VM made by `containervm run` has one";
        Refusal::Told(format!("{name}: {text}"))
    })?;
    let image = tokio::task::block_in_place(|| ImagePaths::read(&path))?;
    let mut stream = Upstream::open(handle, mux::Body::ListDisk(inside::ListDisk {})).await;
    let mut reader = message::Reader::default();
    let mut comparison = difference::Comparison::new(image);
    while let Some(piece) = stream.next().await? {
        reader.push(&piece);
        while let Some((listed, _)) = reader.next_message::<Listed>()? {
            comparison.listed(&listed)?;
        }
    }
    let changes: Vec<Change> = comparison.finish();
    for changes in changes.chunks(ROWS) {
        let changes = changes.to_vec();
        send(sender, Reply::Changes(api::Changes { changes })).await?;
    }
    done(sender).await
}

async fn diagnose(handle: &Handle, sender: &mut Sender) -> Result<(), Refusal> {
    let body = ask(handle, mux::Body::Diagnose(inside::Diagnose {})).await?;
    send(sender, Reply::Diagnosis(decoded::<Diagnosis>(&body)?)).await
}

async fn listen(
    id: Option<String>,
    listen: &api::Listen,
    events: &Events,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    let (kept, mut coming) = events.listen();
    let wanted = |event: &Event| id.as_ref().is_none_or(|id| *id == event.id);
    if listen.since_us > 0 {
        let since = |event: &&Event| event.time_us >= listen.since_us;
        for event in kept.iter().filter(since).filter(|event| wanted(event)) {
            if listen.until_us == 0 || event.time_us < listen.until_us {
                send(sender, told(event)).await?;
            }
        }
    }
    loop {
        let left_us = match listen.until_us {
            0 => u64::MAX / 1_000_000,
            until => until.saturating_sub(crate::clock::wall_us()),
        };
        if left_us == 0 {
            return done(sender).await;
        }
        let event = tokio::select! {
            event = coming.recv() => event,
            () = tokio::time::sleep(Duration::from_micros(left_us)) => continue,
        };
        match event {
            Ok(event) if wanted(&event) => send(sender, told(&event)).await?,
            Ok(_) => {}
            Err(RecvError::Lagged(n)) => {
                let text = format!("{n} events were lost: they came faster than they were read");
                return Err(Refusal::Told(text));
            }
            Err(RecvError::Closed) => return done(sender).await,
        }
    }
}

fn told(event: &Event) -> answer::Body {
    let Event { time_us, id, name, action, attributes } = event.clone();
    Reply::Event(api::Event { time_us, id, name, action: action.to_owned(), attributes })
}
