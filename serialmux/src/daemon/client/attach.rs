//! An attached client: output as it comes, input as the process takes it.

use super::{Handle, Refusal, Reply, exit_message, over, send};
use crate::api::{Receiver, Sender, answer, input, request};
use crate::clock;
use crate::daemon::container::{Input, Status, Takings};
use crate::moment;
use crate::store::journal::Cursor;
use crate::store::ledger::Token;
use crate::store::record::Record;
use crate::store::state::Registration;
use std::io;
use std::sync::Arc;
use tokio::sync::watch;
use wire::chunk::{Gap, Stream};
use wire::message::mux;

/// Docker's words for an attempt to attach to what has ended.
const STOPPED: &str = "You cannot attach to a stopped container, start it first";

pub(super) async fn attached(
    handle: &Arc<Handle>,
    attach: &request::Attach,
    sender: &mut Sender,
    receiver: Receiver,
) -> Result<(), Refusal> {
    let Registration { open_stdin, .. } = handle.registered();
    let is_new = attach.position.is_none() && !attach.from_start;
    if is_new && handle.status().word() == "exited" {
        return Err(Refusal::Told(STOPPED.into()));
    }
    let Status { run, era, .. } = handle.status();
    let mut cursor = handle.cursor()?;
    match attach.position {
        Some(position) => come_back(handle, &mut cursor, position)?,
        None if attach.from_start => {}
        None => cursor.seek(handle.status().written),
    }
    send(sender, Reply::Attached(description(handle, &cursor))).await?;
    if handle.status().started_us.is_none() {
        begin(Arc::clone(handle));
    }
    let stdin = attach.stdin && open_stdin;
    let token = attach.token.as_slice().try_into().ok();
    let inputs = pump(Arc::clone(handle), era, receiver, stdin, token);
    let acks = token.filter(|_| stdin).map(|token| Acks::new(handle, token));
    let outputs = follow(handle, run, &mut cursor, sender, acks);
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

/// What a client that can come back is told of its input.
pub(super) struct Acks {
    token: Token,
    takings: watch::Receiver<Takings>,
    told: Option<u64>,
}

impl Acks {
    fn new(handle: &Handle, token: Token) -> Self {
        Self { token, takings: handle.takings(), told: None }
    }

    async fn tell(&mut self, sender: &mut Sender) -> Result<(), Refusal> {
        let taken = self.takings.borrow_and_update().of(&self.token);
        match taken.filter(|taken| self.told != Some(*taken)) {
            Some(bytes) => {
                self.told = Some(bytes);
                send(sender, Reply::Taken(answer::Taken { bytes })).await
            }
            None => Ok(()),
        }
    }
}

async fn more_was_taken(acks: &mut Option<Acks>) {
    if let Some(acks) = acks
        && acks.takings.changed().await.is_ok()
    {
        return;
    }
    // Nobody wants to know, or the container is gone, which shows elsewhere.
    std::future::pending().await
}

pub(super) fn description(handle: &Handle, cursor: &Cursor) -> answer::Attached {
    let Registration { id, tty, open_stdin, .. } = handle.registered();
    answer::Attached { tty, open_stdin, id, position: cursor.position() }
}

/// Goes on where an earlier connection ended, which an earlier daemon may have served.
pub(super) fn come_back(
    handle: &Handle,
    cursor: &mut Cursor,
    position: u64,
) -> Result<(), Refusal> {
    let written = handle.status().written;
    if position < cursor.position() || position > written {
        return Err(Refusal::Told(format!(
            "cannot go on at {position} of a journal of {written} bytes: it is not the one that was \
             read; follow it anew with `serialmux logs -f`"
        )));
    }
    cursor.seek(position);
    Ok(())
}

// One that waits for somebody to attach may start. Nobody waits for the answer: the VM may not be up
// yet, and most do not wait at all.
fn begin(handle: Arc<Handle>) {
    let session = handle.id.clone();
    tokio::spawn(async move { handle.request(mux::Body::Begin(mux::Begin { session })).await });
}

// Moves a client's input until it hangs up. Waits with it when the process does not read.
async fn pump(
    handle: Arc<Handle>,
    era: u64,
    mut receiver: Receiver,
    stdin: bool,
    token: Option<Token>,
) -> io::Error {
    let inputs = handle.inputs();
    let mut said = 0;
    let whose = token.unwrap_or_else(made_up);
    loop {
        let message = match receiver.receive::<crate::api::Input>().await {
            Ok(Some(message)) => message,
            Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
            Err(error) => return error,
        };
        let input = match message.body {
            Some(input::Body::Bytes(bytes)) => {
                let at = if token.is_some() { message.at } else { said };
                said += bytes.len() as u64;
                Input::Bytes { token: whose, at, bytes }
            }
            Some(input::Body::End(_)) => Input::End,
            None => continue,
        };
        if stdin && inputs.send((era, input)).await.is_err() {
            return io::ErrorKind::BrokenPipe.into();
        }
    }
}

fn made_up() -> Token {
    let mut token = Token::default();
    clock::entropy()(&mut token);
    token
}

// Sends output as it comes until that run has ended and all of it was sent.
pub(super) async fn follow(
    handle: &Handle,
    run: u64,
    cursor: &mut Cursor,
    sender: &mut Sender,
    mut acks: Option<Acks>,
) -> Result<answer::Exit, Refusal> {
    let mut watch = handle.watch();
    loop {
        let status = watch.borrow_and_update().clone();
        let (written, exit) = status.since(run);
        if let Some(acks) = &mut acks {
            acks.tell(sender).await?;
        }
        send_until(cursor, written, sender).await?;
        if let Some(exit) = exit {
            return Ok(exit_message(exit));
        }
        tokio::select! {
            changed = watch.changed() => {
                changed.map_err(|_| over(handle))?;
            }
            () = more_was_taken(&mut acks) => {}
        }
    }
}

async fn send_until(cursor: &mut Cursor, end: u64, sender: &mut Sender) -> Result<(), Refusal> {
    loop {
        let records = tokio::task::block_in_place(|| cursor.read_placed(end))?;
        if records.is_empty() {
            return Ok(());
        }
        for output in records.into_iter().filter_map(output) {
            send(sender, Reply::Output(output)).await?;
        }
    }
}

pub(super) fn output((position, record): (u64, Record)) -> Option<answer::Output> {
    match record {
        Record::Output { stream, time_us, bytes, .. } => {
            Some(answer::Output { stream: stream as u32, time_us, bytes, position })
        }
        Record::Gap { gap, .. } => Some(told(&gap, position)),
        Record::Rollback { time_us, .. } => Some(note(time_us, position, "serialmux: the VM was put back \
             to a snapshot: what follows comes from there, and what it had not sent by then is missing\n".into())),
        Record::Begin { .. } | Record::End { .. } => None,
    }
}

/// A line on standard error in the place of output that is missing.
fn told(gap: &Gap, position: u64) -> answer::Output {
    let Gap { bytes, lines, first_us, last_us } = gap;
    let (first, last) = (moment::show(*first_us), moment::show(*last_us));
    let text = format!(
        "serialmux: {bytes} bytes ({lines} lines) of output from {first} to {last} were dropped in the VM: \
         nobody took them in time\n"
    );
    note(*first_us, position, text)
}

fn note(time_us: u64, position: u64, text: String) -> answer::Output {
    answer::Output { stream: Stream::Stderr as u32, time_us, bytes: text.into(), position }
}
