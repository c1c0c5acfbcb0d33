//! A client of a process beside a container's own: what it asked for, what that writes, how it ended.

use super::{Handle, Refusal, Reply, ask, exit_message, send};
use crate::api::{Receiver, Sender, answer, input, request};
use crate::daemon::container::{Attachment, ExecEvent, Notes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use wire::message::guest::Known;
use wire::message::mux;

/// Most characters of an id that a client makes up.
const MAX_ID: usize = 64;

pub(super) async fn run(
    handle: &Arc<Handle>,
    request: request::Exec,
    sender: &mut Sender,
    receiver: Receiver,
) -> Result<(), Refusal> {
    let exec = mux::Exec { unpacks: true, ..request.exec.unwrap_or_default() };
    check(&exec, &handle.id)?;
    let attached = handle.attach_exec(known(&exec), request.from).await;
    let (attachment, is_known) = attached.ok_or_else(removed)?;
    let notes = attachment.notes.clone();
    let inputs = pump(notes.clone(), receiver);
    tokio::pin!(inputs);
    let done = async {
        if !is_known {
            begin(handle, exec, inputs.as_mut()).await?;
        }
        attend(attachment, sender, inputs).await
    };
    let done = done.await;
    if done.is_err() {
        notes.left().await;
    }
    done
}

// Has the guest run it, or finds that the client has hung up, of whose process nobody knows then what becomes.
async fn begin(
    handle: &Handle,
    exec: mux::Exec,
    inputs: Pin<&mut impl Future<Output = io::Error>>,
) -> Result<(), Refusal> {
    let id = exec.session.clone();
    let asked = tokio::select! {
        biased;
        asked = ask(handle, mux::Body::Exec(exec)) => asked,
        error = inputs => return Err(Refusal::Hangup(error)),
    };
    if asked.is_err() {
        handle.exec_refused(id).await;
    }
    asked.map(drop)
}

// Until the process has ended, or its client has hung up, which may come back.
async fn attend(
    mut attachment: Attachment,
    sender: &mut Sender,
    mut inputs: Pin<&mut impl Future<Output = io::Error>>,
) -> Result<(), Refusal> {
    loop {
        tokio::select! {
            event = attachment.events.recv() => {
                let event = event.ok_or_else(removed)?;
                let is_end = matches!(event, ExecEvent::Exit(_));
                tell(event, &attachment.notes, sender).await?;
                if is_end {
                    return Ok(());
                }
            }
            error = &mut inputs => return Err(Refusal::Hangup(error)),
        }
    }
}

fn removed() -> Refusal {
    Refusal::Told("the container was removed or started again".into())
}

// What the guest would take for something else, or not at all.
fn check(exec: &mux::Exec, own: &str) -> Result<(), Refusal> {
    let id = &exec.session;
    let fits = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    if !fits || id == own {
        let text = format!("\"{id}\" is no exec id: use up to {MAX_ID} letters and digits");
        return Err(Refusal::Told(text));
    }
    let len = prost::Message::encoded_len(exec);
    if len + 64 > wire::message::MAX_MESSAGE {
        let text = format!(
            "command and environment have {len} bytes, {} at most are possible",
            wire::message::MAX_MESSAGE
        );
        return Err(Refusal::Told(text));
    }
    Ok(())
}

fn known(exec: &mux::Exec) -> Known {
    Known {
        session: exec.session.clone(),
        command: exec.args.join(" "),
        tty: exec.tty,
        open_stdin: exec.open_stdin,
        detach: exec.detach,
    }
}

// What is in the client's socket is the client's: it can read it whatever becomes of the daemon.
async fn tell(event: ExecEvent, notes: &Notes, sender: &mut Sender) -> Result<(), Refusal> {
    match event {
        ExecEvent::Started => send(sender, Reply::ExecStarted(request::Hello {})).await,
        ExecEvent::InputFrom(from) => {
            send(sender, Reply::ExecInput(answer::ExecInput { from })).await
        }
        ExecEvent::Output { stream, bytes, next } => {
            send(sender, Reply::ExecOutput(answer::ExecOutput { stream, bytes, next })).await?;
            notes.taken(next).await;
            Ok(())
        }
        ExecEvent::Exit(exit) => {
            send(sender, Reply::Exit(exit_message(&exit))).await?;
            notes.done().await;
            Ok(())
        }
    }
}

// Moves a client's input until it hangs up. Waits with it when the process does not read.
async fn pump(notes: Notes, mut receiver: Receiver) -> io::Error {
    loop {
        let message = match receiver.receive::<crate::api::Input>().await {
            Ok(Some(message)) => message,
            Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
            Err(error) => return error,
        };
        match message.body {
            Some(input::Body::Bytes(bytes)) => notes.input(bytes).await,
            Some(input::Body::End(_)) => notes.end_input().await,
            None => {}
        }
    }
}
