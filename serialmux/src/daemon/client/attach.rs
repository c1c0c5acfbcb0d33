//! An attached client: output as it comes, input as the process takes it.

use super::{Handle, Refusal, Reply, exit_message, send};
use crate::api::{Receiver, Sender, answer, input, request};
use crate::daemon::container::Input;
use crate::store::journal::Cursor;
use crate::store::record::Record;
use crate::store::state::Registration;
use std::io;
use std::sync::Arc;

pub(super) async fn attached(
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
pub(super) async fn follow(
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

pub(super) fn output(record: Record) -> Option<answer::Output> {
    match record {
        Record::Output { stream, time_us, bytes, .. } => {
            Some(answer::Output { stream: stream as u32, time_us, bytes })
        }
        Record::Begin { .. } | Record::End { .. } => None,
    }
}
