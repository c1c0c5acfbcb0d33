//! One container: its link, its journal, and what is known of it. One task owns all of that.
//!
//! ```text
//!            ┌─────────┐  Started  ┌─────────┐  Exited, Failed, VM gone  ┌────────┐
//!  register ▶│ created │──────────▶│ running │──────────────────────────▶│ exited │
//!            └─────────┘           └─────────┘                           └────────┘
//!                 ▲ a new boot begins a new run; the journal goes on ────────┘
//! ```
//!
//! Output goes from the link to the journal and is *written* at once, so that readers see it; it is
//! *released* to the guest only after `fdatasync`, which runs on another thread for everything that
//! was written meanwhile. A guest whose output cannot be stored is not told so and waits.

mod control;
mod disk;
mod exec_client;
mod exec_output;
mod execs;
mod farewell;
mod handle;
mod inputs;
mod inspection;
mod line;
mod messages;
mod outputs;
mod streams;

pub(super) use exec_client::{Attachment, ExecEvent, Notes};
pub(super) use handle::{Handle, Status};
pub(super) use inputs::{Input, Inputs, Takings};
pub(super) use streams::{Ends, Incoming};

use super::events::{Event as Told, Events};
use super::idle::Idle;
use super::outbox::Outbox;
use super::peer::{self, Established, Fresh};
use crate::clock;
use crate::store::journal::Journal;
use crate::store::state::{self, Exit, Registration, State};
use control::Control;
use disk::{lacks_output, synced};
use exec_client::Note;
use execs::Execs;
use farewell::Farewells;
use handle::Command;
use inspection::Inspection;
use line::{Line, Moved, exchange};
use outputs::{OutputError, Outputs};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use streams::Streams;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use wire::message::inside::{Happening, OutOfMemory, Signaled, What};
use wire::message::upkeep::{AskTime, Seed, Time};
use wire::message::{Label, label, mux};
use wire::{ChannelId, Event, Instant, Link, LinkConfig, Transport};

/// How long a VM that has told its exit may stay away before its output counts as complete.
const AFTERMATH: wire::Duration = wire::Duration::from_secs(15);
/// Bytes a guest gets for its random generator: the size of the kernel's own key.
const SEED: usize = 32;
/// What clients of execs may have done before the task looks.
const NOTES: usize = 256;

impl Line {
    fn into_fresh(self) -> Fresh {
        let Self { read, write, from, registry, .. } = self;
        Fresh { pipe: read.unsplit(write), from, registry }
    }
}

/// The task's state.
pub(super) struct Container {
    dir: PathBuf,
    id: String,
    name: String,
    state: State,
    journal: Journal,
    status: watch::Sender<Status>,
    commands: mpsc::Receiver<Command>,
    input_queue: mpsc::Receiver<(u64, Input)>,
    inputs: Inputs,
    link: Option<Link>,
    line: Option<Line>,
    idle: Arc<Idle>,
    outputs: Outputs,
    control: Control,
    streams: Streams,
    events: Arc<Events>,
    execs: Execs,
    notes: mpsc::Receiver<Note>,
    sync: Option<JoinHandle<io::Result<()>>>,
    wake_at: Option<Instant>,
    /// The state could not be saved: the guest is not told to forget what made it.
    is_unsaved: bool,
    farewells: Farewells,
    lost_at: Option<Instant>,
    /// An output has gone without its end, and no other has come.
    is_cut: bool,
    /// Nobody is waited for any more who could bring what is missing of the output.
    is_given_up: bool,
    /// When the last VM was about to be started, µs since the Unix epoch; 0 before this daemon's time.
    expected_us: u64,
    /// Somebody has it run again: told once it does.
    restarts: bool,
    /// When this task began, µs since the Unix epoch.
    since_us: u64,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Container {
    /// Starts the task of a container.
    pub(super) fn start(
        dir: PathBuf,
        registration: Registration,
        state: State,
        journal: Journal,
        events: Arc<Events>,
        inputs: Inputs,
    ) -> Handle {
        // Then its VM may be about to come back with it.
        let lacks_output = lacks_output(&state, &journal);
        let status = Status::recovered(&state, journal.len(), lacks_output);
        let (status, watcher) = watch::channel(status);
        let (commands, command_queue) = mpsc::channel(64);
        let (input_sender, input_queue) = mpsc::channel(16);
        let input = (input_sender, inputs.watch());
        let idle = Arc::new(Idle::default());
        let (notes, note_queue) = mpsc::channel(NOTES);
        let container = Self {
            id: registration.id.clone(),
            name: registration.name.clone(),
            state,
            journal,
            status,
            commands: command_queue,
            input_queue,
            inputs,
            link: None,
            line: None,
            idle: Arc::clone(&idle),
            outputs: Outputs::default(),
            control: Control::default(),
            streams: Streams::default(),
            events,
            execs: Execs::new(notes),
            notes: note_queue,
            sync: None,
            wake_at: None,
            is_unsaved: false,
            farewells: Farewells::default(),
            lost_at: lacks_output.then(clock::now),
            is_cut: false,
            is_given_up: false,
            restarts: false,
            expected_us: 0,
            since_us: clock::wall_us(),
            dir: dir.clone(),
        };
        let task = tokio::spawn(container.run());
        Handle::new(registration, dir.join("output.log"), idle, commands, input, watcher, &task)
    }

    async fn run(mut self) {
        loop {
            self.settle();
            let writing = self.fill();
            let deadline = self.deadline();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = self.streams.wait() => {}
                Some(note) = self.notes.recv() => self.noted(note),
                Some((era, input)) = self.input_queue.recv(), if self.inputs.has_room() => {
                    // What was typed to a run that is over is not for the next.
                    if era == self.status.borrow().era {
                        self.inputs.take(input);
                    }
                }
                moved = exchange(&mut self.line, writing) => match moved {
                    Moved::In(read) => self.arrived(read),
                    Moved::Out(Ok(())) => {}
                    Moved::Out(Err(error)) => self.cut(&error.to_string()),
                },
                () = tokio::time::sleep_until(deadline.unwrap_or_else(far_away)),
                    if deadline.is_some() => self.timeout(),
                () = tokio::task::yield_now(), if self.is_behind() => {}
                done = synced(&mut self.sync), if self.sync.is_some() => self.synced(done),
            }
        }
    }

    // ---- the pipe ----

    fn fill(&mut self) -> bool {
        match (&mut self.line, &mut self.link) {
            (Some(line), Some(link)) if line.is_cut.is_none() => {
                line.outbox.fill(link, clock::now())
            }
            _ => false,
        }
    }

    fn deadline(&self) -> Option<tokio::time::Instant> {
        let link = self.link.as_ref().and_then(Link::poll_timeout);
        let aftermath = self.lost_at.map(|at| at + AFTERMATH);
        [link, self.wake_at, aftermath, self.execs.deadline(), self.farewells.deadline()]
            .into_iter()
            .flatten()
            .min()
            .map(clock::deadline)
    }

    fn timeout(&mut self) {
        let now = clock::now();
        self.wake_at = self.wake_at.filter(|at| *at > now);
        if let Some(link) = &mut self.link {
            link.handle_timeout(now);
        }
        if self.lost_at.is_some_and(|at| at + AFTERMATH <= now) {
            self.lost_at = None;
            self.give_up();
        }
    }

    // With a container that has ended, all ends that its VM will not tell of any more.
    fn give_up(&mut self) {
        let Some(exit) = &self.state.exit else { return };
        let news = self.execs.all_ended(exit);
        self.tell_of_execs(news);
        // Who waits for an answer or a stream would wait for ever.
        self.control.reset("the container has ended");
        self.streams.reset();
        self.is_given_up = true;
        self.look_for_the_end();
    }

    fn arrived(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.hang_up("the VM closed the connection"),
            Err(error) => self.hang_up(&error.to_string()),
            Ok(n) => {
                if let (Some(line), Some(link)) = (&self.line, &mut self.link) {
                    link.handle_bytes(clock::now(), line.buffer.get(..n).unwrap_or_default());
                }
            }
        }
    }

    fn cut(&mut self, why: &str) {
        if let Some(line) = &mut self.line {
            line.is_cut.get_or_insert_with(|| why.to_owned());
        }
    }

    fn hang_up(&mut self, reason: &str) {
        let Some(line) = self.line.take() else { return };
        let reason = line.is_cut.as_deref().unwrap_or(reason);
        tracing::info!(container = self.name, from = line.from, reason, "disconnected");
        if let Some(link) = &mut self.link {
            link.handle_disconnected();
        }
        self.lost_at = Some(clock::now());
        self.status.send_modify(|status| status.is_connected = false);
    }

    fn established(&mut self, established: Established) {
        let Established { pipe, from, session, rest, registry } = established;
        let boot = session.peer().id;
        let agent = session.peer().agent.clone();
        let transport = session.peer().transport;
        tracing::info!(container = self.name, from, agent, pipe = transport.word(), "connected");
        let (now, config) = (clock::now(), LinkConfig::mux(transport));
        match &mut self.link {
            Some(link) if self.state.boot == boot => {
                link.tune(config);
                link.install(now, session);
            }
            link => {
                if let Some(mut last) = link.replace(Link::mux(config, session, now)) {
                    self.outputs.read_out(&mut last, &mut self.journal);
                    self.control.reset("the VM restarted");
                    self.streams.reset();
                }
            }
        }
        if self.state.boot != boot {
            self.new_run(boot.to_vec(), agent);
        }
        // A guest may have been restored from what another has been stored as: each session brings its own.
        let mut bytes = vec![0; SEED];
        clock::entropy()(&mut bytes);
        self.control.tell(mux::Body::Seed(Seed { bytes }));
        if let Some(link) = &mut self.link {
            link.handle_bytes(now, &rest);
        }
        let (read, write) = tokio::io::split(pipe);
        let buffer = vec![0; if transport == Transport::Uart { 16 } else { 64 } * 1024];
        let outbox = Outbox::default();
        let is_cut = None;
        self.line = Some(Line { read, write, from, transport, registry, outbox, buffer, is_cut });
        self.lost_at = None;
        self.is_given_up = false;
        self.status.send_modify(|status| status.is_connected = true);
    }

    fn new_run(&mut self, boot: Vec<u8>, agent: String) {
        self.outputs = Outputs::default();
        self.inputs.new_run(true);
        self.execs.clear();
        (self.is_cut, self.is_given_up) = (false, false);
        self.state = State { boot, agent, ..State::default() };
        self.save();
        let start = self.journal.len() + self.journal.waiting() as u64;
        self.status.send_modify(|status| status.new_run(start));
    }

    // A VM is about to be started: what is asked from now on is for the run to come.
    fn expect(&mut self) {
        self.take_leave_now();
        if self.line.is_none() && self.state.exit.is_some() {
            if let Some(mut last) = self.link.take() {
                self.outputs.read_out(&mut last, &mut self.journal);
            }
            self.control.reset("the container is started again");
            self.streams.reset();
            self.inputs.new_run(false);
            self.new_run(Vec::new(), String::new());
            self.status.send_modify(|status| status.era += 1);
        }
    }

    // The guest has lost its session but the pipe is up: someone else makes the next one. What the link tells of
    // that is to be heard before that one comes, or it would be taken for its end.
    fn greet_again(&mut self, link: &mut Link) {
        let Some(line) = self.line.take() else { return };
        link.handle_disconnected();
        self.lost_at = Some(clock::now());
        self.status.send_modify(|status| status.is_connected = false);
        let stay = self.idle.enter(line.from.clone(), line.transport);
        tokio::spawn(peer::again(line.into_fresh(), stay));
    }

    // The guest uses another pipe now, and may come back to this one. Its session goes on there, so the
    // link hears nothing of it.
    fn put_aside(&mut self) {
        let Some(line) = self.line.take() else { return };
        tracing::info!(container = self.name, from = line.from, "the VM uses another pipe now");
        let stay = self.idle.enter(line.from.clone(), line.transport);
        tokio::spawn(peer::keep(line.into_fresh(), stay));
    }

    // ---- the link's events ----

    fn settle(&mut self) {
        if let Some(mut link) = self.link.take() {
            self.attend(&mut link);
            self.link = Some(link);
        }
        self.store();
        if let Some(link) = self.link.as_mut().filter(|_| !self.is_unsaved) {
            self.control.release(link);
        }
        self.take_leave();
    }

    fn attend(&mut self, link: &mut Link) {
        for channel in self.outputs.behind().collect::<Vec<_>>() {
            self.readable(link, channel);
        }
        while let Some(event) = link.poll_event() {
            if matches!(event, Event::Greet | Event::Lost { .. }) {
                self.greet_again(link);
            }
            self.event(link, event);
        }
        self.inputs.feed(link);
        self.streams.turn(link);
        self.execs.settle(link, clock::now());
        self.control.flush(link);
    }

    fn event(&mut self, link: &mut Link, event: Event) {
        match event {
            Event::Opened { channel, direction, base, label, .. } => {
                self.opened(link, channel, direction, base, &label);
            }
            Event::Readable(channel) => self.readable(link, channel),
            Event::Finished(channel) if self.streams.has(channel) => {
                self.streams.finished(link, channel);
            }
            Event::Finished(channel) => {
                if !self.execs.stir(channel, true) {
                    self.outputs.finished(channel, &mut self.journal);
                }
            }
            Event::Writable(channel) => {
                self.execs.stir(channel, false);
            }
            Event::RolledBack(channel) => {
                self.outputs.rolled_back(channel, clock::wall_us(), &mut self.journal);
                self.gone(channel);
            }
            Event::Closed(channel) | Event::Reset(channel) => self.gone(channel),
            Event::Lost { reason } => tracing::info!(container = self.name, reason, "session lost"),
            Event::Established { .. } | Event::Greet => {}
        }
    }

    fn opened(
        &mut self,
        link: &mut Link,
        channel: ChannelId,
        direction: wire::Direction,
        base: u64,
        label: &[u8],
    ) {
        use wire::Direction::{ToGuest, ToMux};
        let label: Label = prost::Message::decode(label).unwrap_or_default();
        match (label.kind, direction) {
            (Some(label::Kind::Control(_)), ToMux) => {
                self.control.opened_up(channel);
                link.accept(channel, base);
            }
            (Some(label::Kind::Control(_)), ToGuest) => {
                link.accept(channel, 0);
                self.control.opened_down(channel);
            }
            (Some(label::Kind::Output(of)), ToMux) if of.session != self.id => {
                self.execs.output_opened(link, &of, channel, base);
            }
            (Some(label::Kind::Input(of)), ToGuest) if of.session != self.id => {
                self.execs.input_opened(link, &of.session, channel);
            }
            (Some(label::Kind::Output(of)), ToMux) => {
                let boot = self.state.boot.as_slice().try_into().unwrap_or_default();
                self.outputs.opened(link, channel, of.packed, boot, &mut self.journal);
                self.is_cut = false;
                self.look_for_the_end();
            }
            (Some(label::Kind::Input(of)), ToGuest) => {
                link.accept(channel, 0);
                self.inputs.opened(channel, base, &of);
            }
            (Some(label::Kind::Stream(stream)), direction) => {
                self.streams.opened(link, channel, direction, stream.request);
            }
            (kind, _) => {
                tracing::info!(container = self.name, ?kind, "channel refused: of no known kind");
                link.refuse(channel);
            }
        }
    }

    fn readable(&mut self, link: &mut Link, channel: ChannelId) {
        // Their turn comes with all others'.
        if self.streams.has(channel) {
            return;
        }
        if self.control.is_up(channel) {
            let (messages, broken) = self.control.read(link, channel);
            let mut tells_more = false;
            for message in messages {
                tells_more |= self.message(message);
            }
            // Once for all that came together: a save waits for the disk.
            if tells_more {
                self.save();
            }
            if broken {
                link.abandon(channel);
            }
            return;
        }
        if self.execs.stir(channel, false) {
            return;
        }
        match self.outputs.read(link, channel, &mut self.journal) {
            Ok(()) => {}
            Err(OutputError::Other) => link.disown(channel),
            Err(error) => {
                tracing::warn!(container = self.name, %error, "output channel given up");
                link.abandon(channel);
                self.gone(channel);
            }
        }
    }

    fn gone(&mut self, channel: ChannelId) {
        self.streams.gone(channel);
        self.inputs.gone(channel);
        self.control.gone(channel);
        self.execs.gone(channel);
        self.is_cut |= self.outputs.gone(channel);
        self.look_for_the_end();
    }

    // ---- what clients want ----

    fn noted(&mut self, note: Note) {
        let mut next = Some(note);
        while let Some(note) = next {
            self.execs.noted(note, self.link.as_mut());
            next = self.notes.try_recv().ok();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Attach { known, from, reply } => {
                let is_known = self.execs.has(&known.session);
                // The asker may have gone, and then the next look finds that.
                drop(reply.send((self.execs.attach(known, from), is_known)));
            }
            Command::Refused(id) => self.execs.refused(&id),
            Command::Established(established) => {
                self.take_leave_now();
                self.put_aside();
                self.established(*established);
            }
            Command::Request { body, reply } => {
                if self.state.exit.is_some() {
                    // The asker may have gone, and then nobody needs the answer.
                    drop(reply.send(Err(format!("container {} is not running", self.name))));
                } else {
                    self.control.ask(body, reply);
                }
            }
            Command::Stream { body, ends, reply } => {
                // Whose process has ended may still have its VM, and so its files.
                if self.state.exit.is_some() && self.line.is_none() {
                    // The asker may have gone, and then nobody needs the answer.
                    drop(reply.send(Err(format!("container {} is not running", self.name))));
                } else if let Some(request) = self.control.ask(body, reply) {
                    self.streams.expect(request, ends);
                }
            }
            Command::Inspect(reply) => {
                let pipe = self.line.as_ref().map(|line| (line.from.clone(), line.transport));
                let (link, execs) = (self.link.as_ref(), self.execs.list());
                let inspection = Inspection::of(&self.state, link, pipe, &self.idle, execs);
                // The asker may have gone, and then nobody needs the answer.
                drop(reply.send(inspection));
            }
            Command::Expect { restarts, done } => {
                self.expect();
                (self.restarts, self.expected_us) = (restarts, clock::wall_us());
                // The asker may have gone, here and below, and then nobody needs the answer.
                done.send(()).ok();
            }
            Command::Gone { text, since_us, reply } => {
                // One who ran the VM before this one may be late.
                let is_last = since_us == 0 || since_us >= self.expected_us;
                if is_last {
                    self.hear_farewell(text, reply);
                } else {
                    reply.send(false).ok();
                }
            }
        }
    }
}

fn far_away() -> tokio::time::Instant {
    tokio::time::Instant::now() + std::time::Duration::from_secs(3600)
}

/// A link that nobody is at the other end of.
#[cfg(test)]
fn test_link() -> Link {
    let (psk, protection) = (wire::Psk::derive(b"a key"), wire::Protection::Plain);
    let identity = wire::GuestIdentity { psk, protection, boot_id: [1; 16], agent: String::new() };
    Link::guest(LinkConfig::uart(), identity, clock::entropy(), clock::now())
}
