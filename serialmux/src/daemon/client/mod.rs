//! One client of the daemon: its request, and the answers to it.

mod attach;
mod exec;
mod inside;
mod logs;
mod order;

use super::container::{Handle, Status};
use super::events::Event;
use super::registry::Registry;
use crate::api::answer::{self, Body as Reply};
use crate::api::request::{self, Body};
use crate::api::{Answer, Receiver, Request, Sender, messages};
use crate::clock;
use crate::store::state::{Exit, Registration};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
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
    mut receiver: Receiver,
) -> Result<(), Refusal> {
    match body {
        Body::Attach(request) => {
            let handle = registry.find(&request.container)?;
            attach::attached(&handle, &request, sender, receiver).await
        }
        Body::Logs(request) => {
            let handle = registry.find(&request.container)?;
            logs::replay(&handle, &request, sender, receiver).await
        }
        Body::Exec(request) => {
            let handle = registry.find(&request.container)?;
            exec::run(&handle, request, sender, receiver).await
        }
        Body::CopyIn(copy) => {
            let handle = registry.find(&copy.container)?;
            inside::copy_in(&handle, copy.place, sender, receiver).await
        }
        // Done to the end, whoever has left meanwhile.
        Body::Register(_) | Body::Remove(_) | Body::Gone(_) => change(body, registry, sender).await,
        // What such a client waits for may never come, and it holds a permit.
        body => tokio::select! {
            // First, so that a guest is asked even if nobody waits for its answer.
            biased;
            done = fulfil(body, registry, listen, sender) => done,
            gone = left(&mut receiver) => Err(gone),
        },
    }
}

/// A client that says nothing more may still go away.
async fn left(receiver: &mut Receiver) -> Refusal {
    let gone = receiver.receive::<Request>().await;
    hangup(gone.err().unwrap_or(io::ErrorKind::UnexpectedEof.into()))
}

async fn done(sender: &mut Sender) -> Result<(), Refusal> {
    send(sender, Reply::Done(request::Hello {})).await
}

/// Changes which containers there are, or that one's VM is gone.
async fn change(body: Body, registry: &Registry, sender: &mut Sender) -> Result<(), Refusal> {
    match body {
        Body::Register(register) => {
            let restarts = register.restarts;
            let registration = registration(register);
            let id = registration.id.clone();
            let named = registration.name.clone();
            let is_new = registry.find(&id).is_err();
            tokio::task::block_in_place(|| registry.register(registration))?;
            registry.find(&id)?.expect(restarts).await;
            if is_new {
                registry.events().tell(Event::now(&id, &named, "create"));
            }
        }
        Body::Remove(request::Container { container }) => {
            tokio::task::block_in_place(|| registry.remove(&container))?;
        }
        Body::Gone(request::Gone { container, text, since_us }) => {
            if !registry.find(&container)?.gone(text, since_us).await {
                let text = "another VM of this container has been started meanwhile";
                return Err(Refusal::Told(text.into()));
            }
        }
        other => return Err(Refusal::Told(format!("{other:?} changes nothing"))),
    }
    done(sender).await
}

/// Answers a client that says nothing more; dropped when it leaves.
async fn fulfil(
    body: Body,
    registry: &Registry,
    listen: SocketAddr,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    match body {
        Body::Hello(_) => {
            let (version, pid) = (env!("CARGO_PKG_VERSION").to_owned(), std::process::id());
            let hello = answer::Hello { version, listen: listen.to_string(), pid };
            send(sender, Reply::Hello(hello)).await
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
        Body::Wait(request::Container { container }) => {
            let handle = registry.find(&container)?;
            let exit = ended(&handle).await?;
            send(sender, Reply::Exit(exit)).await
        }
        Body::Kill(_)
        | Body::Resize(_)
        | Body::Stop(_)
        | Body::Pause(_)
        | Body::Unpause(_)
        | Body::Reload(_) => {
            order::carry_out(body, registry).await?;
            done(sender).await
        }
        body => inside::perform(body, registry, sender).await,
    }
}

fn registration(register: request::Register) -> Registration {
    let request::Register { id, name, key, plain, tty, open_stdin, command, .. } = register;
    let (image_paths, options) = (register.image_paths, register.options);
    let image_paths = Some(image_paths).filter(|path| !path.is_empty()).map(Into::into);
    let created_us = clock::wall_us();
    Registration {
        id,
        name,
        key,
        plain,
        tty,
        open_stdin,
        command,
        created_us,
        image_paths,
        options,
    }
}

fn summary(handle: &Handle) -> answer::Summary {
    let Registration { id, name, command, created_us, .. } = handle.registered();
    let status = handle.status();
    let none = || Exit::without_process(0, String::new(), 0);
    let exit = status.exit.clone().unwrap_or_else(none);
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

async fn ask(handle: &Handle, body: mux::Body) -> Result<Vec<u8>, Refusal> {
    handle.request(body).await.map_err(Refusal::Told)
}

fn exit_message(exit: &Exit) -> answer::Exit {
    answer::Exit { code: exit.code, error: exit.error.clone() }
}

async fn ended(handle: &Handle) -> Result<answer::Exit, Refusal> {
    let mut watch = handle.watch();
    let run = watch.borrow().run;
    let is_over = |status: &Status| status.since(run).1.is_some();
    let status = watch.wait_for(is_over).await.map_err(|_| over(handle))?;
    status.since(run).1.map(exit_message).ok_or_else(|| over(handle))
}

/// Why nothing more is heard of a container: it was removed, or the daemon ends, which is for the client
/// to see by itself: it comes back to the next one.
fn over(handle: &Handle) -> Refusal {
    match handle.is_removed() {
        true => Refusal::Told("the container was removed".into()),
        false => Refusal::Hangup(io::ErrorKind::UnexpectedEof.into()),
    }
}
