//! The processes beside a container's own: their output from the VM to whoever asked for it, past the disk.
//!
//! Nothing of them is stored here. The guest keeps their output until a client has it: what was written
//! to a client's socket is released, and nothing else. So a daemon that dies takes nothing along: the
//! guest tells the next one which processes there are and how they ended, and sends again what no client
//! has confirmed; a client that comes back says how far it got. One that stays away for [`ABSENCE`] is
//! given up: input ends, output is dropped, and the process goes on without.
//!
//! ```text
//!  link ──▶ ExecOutput ──▶ events ──▶ client's task ──▶ socket
//!    ◀── release ◀────────── notes ◀──── taken
//! ```

use super::exec_client::{Attachment, ExecClient, ExecEvent, Note, NoteBody};
use super::exec_output::{ExecOutput, ExecOutputError, READ_STEP};
use super::inspection::show_exit;
use crate::moment;
use crate::store::state::Exit;
use bytes::{Buf, Bytes};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use wire::message::guest::{Exited, Failed, Known, Started};
use wire::message::label;
use wire::{ChannelId, Duration, Instant, Link};

/// How long a client may be away before its process goes on without it.
const ABSENCE: Duration = Duration::from_secs(300);
/// Most ended processes remembered, for who asks how they ended.
const MAX_ENDED: usize = 256;
/// Most processes that a guest is believed to have. Of an agent's there are 400 and 128 notes of others.
const MAX_TOLD: usize = 2048;
/// The longest id that a guest is believed to have given one.
const MAX_ID: usize = 256;

/// How a process ended, and how much it wrote.
#[derive(Debug, Clone)]
struct End {
    exit: Exit,
    output_length: u64,
}

/// What is written to it.
#[derive(Debug, Default)]
struct Input {
    channel: Option<ChannelId>,
    backlog: VecDeque<(Bytes, OwnedSemaphorePermit)>,
    ended: bool,
}

#[derive(Debug)]
struct Exec {
    known: Known,
    pid: u32,
    started_us: Option<u64>,
    end: Option<End>,
    output: Option<ExecOutput>,
    input: Input,
    client: Option<ExecClient>,
    /// Since when nobody has been there.
    alone_since: Option<Instant>,
    /// Nobody is waited for any more.
    given_up: bool,
    /// The order in which they are forgotten.
    number: u64,
}

/// Something that has become of one, for who listens to events.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExecNews {
    pub(super) id: String,
    pub(super) command: String,
    /// `exec_create`, `exec_start` or `exec_die`.
    pub(super) action: &'static str,
    pub(super) time_us: u64,
    /// Of the end.
    pub(super) code: Option<i32>,
}

/// All of one guest.
#[derive(Debug)]
pub(super) struct Execs {
    all: BTreeMap<String, Exec>,
    by_channel: BTreeMap<ChannelId, String>,
    /// Those something has happened to.
    stirred: BTreeSet<String>,
    /// When to look whether somebody has been away for too long.
    look_at: Option<Instant>,
    notes: mpsc::Sender<Note>,
    number: u64,
}

impl Execs {
    /// None yet; clients tell what they do through `notes`.
    pub(super) fn new(notes: mpsc::Sender<Note>) -> Self {
        let (all, by_channel, stirred) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { all, by_channel, stirred, look_at: None, notes, number: 0 }
    }

    /// Forgets all: they were of another boot.
    pub(super) fn clear(&mut self) {
        self.by_channel.clear();
        self.all.clear();
        self.stirred.clear();
        self.look_at = None;
    }

    /// One of that id, to which something happens.
    fn entry(&mut self, id: &str) -> &mut Exec {
        self.stirred.insert(id.to_owned());
        self.number += 1;
        let number = self.number;
        self.all.entry(id.to_owned()).or_insert_with(|| Exec {
            known: Known { session: id.to_owned(), ..Known::default() },
            pid: 0,
            started_us: None,
            end: None,
            output: None,
            input: Input::default(),
            client: None,
            alone_since: None,
            given_up: false,
            number,
        })
    }

    /// One of that id that the guest tells of, unless it tells of too many.
    fn told(&mut self, id: &str) -> Option<&mut Exec> {
        let fits = id.len() <= MAX_ID && self.all.len() < MAX_TOLD;
        (fits || self.all.contains_key(id)).then(|| self.entry(id))
    }

    fn of_channel(&mut self, channel: ChannelId) -> Option<&mut Exec> {
        let id = self.by_channel.get(&channel)?;
        self.stirred.insert(id.clone());
        self.all.get_mut(id)
    }

    // ---- clients ----

    /// Whether the guest has told of one of that id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.all.get(id).is_some_and(|exec| exec.started_us.is_some() || exec.end.is_some())
    }

    /// Connects a client, in the place of the one before. It has everything up to `from` already.
    pub(super) fn attach(&mut self, known: Known, from: u64) -> Attachment {
        let (notes, id) = (self.notes.clone(), known.session.clone());
        let exec = self.entry(&id);
        if exec.known.command.is_empty() {
            exec.known = known;
        }
        let (client, attachment) = ExecClient::connect(&id, from, notes);
        exec.client = Some(client);
        attachment
    }

    /// Forgets one that the guest has refused.
    pub(super) fn refused(&mut self, id: &str) {
        if self.all.get(id).is_some_and(|exec| exec.started_us.is_none() && exec.output.is_none()) {
            self.all.remove(id);
        }
    }

    /// What a client has done.
    pub(super) fn noted(&mut self, note: Note, link: Option<&mut Link>) {
        let Some(exec) = self.all.get_mut(&note.exec) else { return };
        if exec.client.as_ref().is_none_or(|client| client.number != note.client) {
            return;
        }
        self.stirred.insert(note.exec);
        match note.body {
            NoteBody::Taken(next) => {
                if let (Some(output), Some(link)) = (&mut exec.output, link) {
                    link.release(output.channel, output.releasable(next));
                }
            }
            NoteBody::Input(bytes, permit) if !exec.given_up => {
                exec.input.backlog.push_back((bytes, permit));
            }
            NoteBody::Input(..) => {}
            NoteBody::InputEnd => exec.input.ended = true,
            NoteBody::Done => {
                exec.client = None;
                exec.given_up = true;
            }
            // That nobody listens any more is seen at the next look.
            NoteBody::Left => {}
        }
    }

    // ---- the guest ----

    /// The guest tells of one.
    pub(super) fn known(&mut self, known: Known) {
        let id = known.session.clone();
        if let Some(exec) = self.told(&id) {
            exec.known = known;
        }
    }

    /// One runs; what is new of it.
    pub(super) fn started(&mut self, started: &Started) -> Vec<ExecNews> {
        let Some(exec) = self.told(&started.session) else { return Vec::new() };
        exec.pid = started.pid;
        let is_new = exec.started_us.replace(started.time_us).is_none() && exec.end.is_none();
        let phases = if is_new { &["exec_create", "exec_start"][..] } else { &[] };
        phases.iter().map(|action| exec.news(action, started.time_us)).collect()
    }

    /// One could not be started; what is new of it.
    pub(super) fn failed(&mut self, failed: Failed) -> Vec<ExecNews> {
        let session = failed.session.clone();
        self.ended(&session, End { exit: failed.into(), output_length: 0 })
    }

    /// One has ended; what is new of it.
    pub(super) fn exited(&mut self, exited: &Exited) -> Vec<ExecNews> {
        let (exit, output_length) = (exited.into(), exited.output_length);
        self.ended(&exited.session, End { exit, output_length })
    }

    fn ended(&mut self, id: &str, end: End) -> Vec<ExecNews> {
        let mut news = Vec::new();
        let Some(exec) = self.told(id) else { return news };
        if exec.end.is_none() {
            if exec.started_us.is_none() {
                news.push(exec.news("exec_create", end.exit.time_us));
            }
            news.push(exec.died(&end.exit));
            exec.end = Some(end);
        }
        self.forget_some();
        news
    }

    fn forget_some(&mut self) {
        let ended = || self.all.iter().filter(|(_, exec)| exec.end.is_some());
        if ended().count() > MAX_ENDED {
            let alone = ended().filter(|(_, exec)| exec.client.is_none() && exec.output.is_none());
            let oldest = alone.min_by_key(|(_, exec)| exec.number).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.all.remove(&id));
        }
    }

    /// The container has ended: who is not there now will not come.
    pub(super) fn give_up_absent(&mut self) {
        let is_absent = |exec: &Exec| exec.client.as_ref().is_none_or(ExecClient::is_gone);
        for (id, exec) in self.all.iter_mut().filter(|(_, exec)| is_absent(exec)) {
            exec.given_up = true;
            self.stirred.insert(id.clone());
        }
    }

    /// The VM is gone: what it has not told, nobody will. What is new of them.
    pub(super) fn all_ended(&mut self, exit: &Exit) -> Vec<ExecNews> {
        let mut news = Vec::new();
        for (id, exec) in &mut self.all {
            exec.output = None;
            if exec.end.is_none() {
                news.push(exec.died(exit));
            }
            let end = exec.end.get_or_insert_with(|| End { exit: exit.clone(), output_length: 0 });
            end.output_length = 0;
            exec.tell();
            self.stirred.insert(id.clone());
        }
        self.by_channel.clear();
        news
    }

    /// A channel of output is there; it is taken from where no client has confirmed anything.
    pub(super) fn output_opened(
        &mut self,
        link: &mut Link,
        of: &label::Output,
        channel: ChannelId,
        base: u64,
    ) {
        let Some(exec) = self.told(&of.session) else { return link.refuse(channel) };
        exec.output = Some(ExecOutput::new(channel, base, of.packed));
        self.by_channel.insert(channel, of.session.clone());
        link.accept(channel, base);
    }

    /// A channel of input is there.
    pub(super) fn input_opened(&mut self, link: &mut Link, id: &str, channel: ChannelId) {
        let Some(exec) = self.told(id) else { return link.refuse(channel) };
        exec.input.channel = Some(channel);
        if let Some(client) = &mut exec.client {
            client.knows_input = false;
        }
        self.by_channel.insert(channel, id.to_owned());
        link.accept(channel, 0);
    }

    /// Something is to be read from a channel, or it has room, or it has ended, if it is of these.
    pub(super) fn stir(&mut self, channel: ChannelId, has_ended: bool) -> bool {
        let Some(exec) = self.of_channel(channel) else { return false };
        if let Some(output) = exec.output.as_mut().filter(|output| output.channel == channel) {
            output.ended |= has_ended;
        }
        true
    }

    /// A channel is gone.
    pub(super) fn gone(&mut self, channel: ChannelId) {
        let Some(exec) = self.of_channel(channel) else { return };
        if exec.input.channel == Some(channel) {
            exec.input.channel = None;
            exec.input.backlog.clear();
        }
        if exec.output.take_if(|output| output.channel == channel).is_some() {
            exec.end.iter_mut().for_each(|end| end.output_length = 0);
        }
        self.by_channel.remove(&channel);
    }

    // ---- in between ----

    /// Moves what can be moved.
    pub(super) fn settle(&mut self, link: &mut Link, now: Instant) {
        if self.look_at.take_if(|at| *at <= now).is_some() {
            self.stirred.extend(self.all.keys().cloned());
        }
        for id in std::mem::take(&mut self.stirred) {
            let Some(exec) = self.all.get_mut(&id) else { continue };
            exec.settle(link, now);
            if exec.given_up && exec.is_unheard_of() {
                self.all.remove(&id);
                continue;
            }
            let alone = exec.alone_since.filter(|_| exec.waits_for_somebody());
            let look_at = alone.map(|since| since + ABSENCE);
            self.look_at = self.look_at.into_iter().chain(look_at).min();
        }
    }

    /// When somebody may have been away for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// All of them, for people.
    pub(super) fn list(&self) -> Vec<Value> {
        let view = |exec: &Exec| {
            let Known { session, command, tty, open_stdin, detach } = &exec.known;
            let exit = exec.end.as_ref().map(|end| show_exit(&end.exit));
            json!({
                "id": session,
                "command": command,
                "tty": tty,
                "open_stdin": open_stdin,
                "detached": detach,
                "pid": exec.pid,
                "running": exec.started_us.is_some() && exec.end.is_none(),
                "started": exec.started_us.map(moment::show),
                "exit": exit,
            })
        };
        self.all.values().map(view).collect()
    }
}

impl Exec {
    fn news(&self, action: &'static str, time_us: u64) -> ExecNews {
        let Known { session, command, .. } = &self.known;
        let (id, command) = (session.clone(), command.clone());
        ExecNews { id, command, action, time_us, code: None }
    }

    fn died(&self, exit: &Exit) -> ExecNews {
        ExecNews { code: Some(exit.code), ..self.news("exec_die", exit.time_us) }
    }

    fn waits_for_somebody(&self) -> bool {
        let is_of_use = self.has_channels() || self.is_unheard_of();
        self.client.is_none() && is_of_use && !self.given_up
    }

    fn has_channels(&self) -> bool {
        self.output.is_some() || self.input.channel.is_some()
    }

    /// Whether the guest has said nothing of it, and perhaps never will.
    fn is_unheard_of(&self) -> bool {
        self.started_us.is_none() && self.end.is_none() && !self.has_channels()
    }

    fn settle(&mut self, link: &mut Link, now: Instant) {
        self.client.take_if(|client| client.is_gone());
        if self.client.is_some() {
            self.alone_since = None;
        } else {
            let since = *self.alone_since.get_or_insert(now);
            self.given_up |= since + ABSENCE <= now;
        }
        if self.given_up {
            self.drop_all(link);
        }
        self.feed(link);
        self.tell_input(link);
        if let Err(error) = self.forward(link)
            && let Some(output) = self.output.take()
        {
            tracing::warn!(exec = self.known.session, %error, "output given up");
            link.abandon(output.channel);
            self.end.iter_mut().for_each(|end| end.output_length = 0);
        }
        self.tell();
    }

    fn feed(&mut self, link: &mut Link) {
        let Some(channel) = self.input.channel else { return };
        while let Some((bytes, _)) = self.input.backlog.front_mut() {
            let n = link.write(channel, bytes);
            bytes.advance(n);
            if !bytes.is_empty() {
                return;
            }
            self.input.backlog.pop_front();
        }
        if self.input.ended {
            link.finish(channel);
        }
    }

    // What was written before by whomever is the link's; a client goes on after it.
    fn tell_input(&mut self, link: &Link) {
        let (Some(channel), Some(client)) = (self.input.channel, &mut self.client) else { return };
        if !client.knows_input && self.input.backlog.is_empty() {
            let offset = link.offset(channel).unwrap_or(0);
            client.knows_input = client.tell(ExecEvent::InputFrom(offset)).is_ok();
        }
    }

    // What nobody wants any more is read, so that the process goes on.
    fn drop_all(&mut self, link: &mut Link) {
        self.input.ended = true;
        self.input.backlog.clear();
        let Some(ExecOutput { channel, ended, .. }) = self.output else { return };
        while !link.read(channel, READ_STEP).is_empty() {}
        link.release(channel, link.offset(channel).unwrap_or(0));
        if ended {
            link.close(channel);
            self.output = None;
            self.end.iter_mut().for_each(|end| end.output_length = 0);
        }
    }

    fn forward(&mut self, link: &mut Link) -> Result<(), ExecOutputError> {
        let (Some(output), Some(client)) = (&mut self.output, &mut self.client) else {
            return Ok(());
        };
        loop {
            let event = match output.held.take() {
                Some(event) => event,
                None => match output.next_event(link)? {
                    Some(event) => event,
                    None => return Ok(()),
                },
            };
            if let ExecEvent::Output { next, .. } = event
                && next <= client.from
            {
                // It came before the client went away and came back.
                link.release(output.channel, output.releasable(next));
                continue;
            }
            if let Err(event) = client.tell(event) {
                output.held = Some(event);
                return Ok(());
            }
        }
    }

    // Tells the start, and the end once all output before it was told.
    fn tell(&mut self) {
        let is_whole = self.is_whole();
        let Some(client) = &mut self.client else { return };
        if self.started_us.is_some() && !client.knows_start {
            client.knows_start = client.tell(ExecEvent::Started).is_ok();
        }
        if let Some(end) = self.end.as_ref().filter(|_| is_whole && !client.knows_end) {
            client.knows_end = client.tell(ExecEvent::Exit(end.exit.clone())).is_ok();
        }
    }

    // Whether all of its output was told. Its end may be known before its output has begun to come.
    fn is_whole(&self) -> bool {
        let length = self.end.as_ref().map_or(u64::MAX, |end| end.output_length);
        match &self.output {
            Some(output) => output.held.is_none() && (output.ended || output.next >= length),
            None => length == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::container::test_link;

    fn known(id: &str) -> Known {
        Known { session: id.to_owned(), ..Known::default() }
    }

    async fn hang_up(attachment: Attachment) {
        let told = attachment.notes.clone();
        drop(attachment);
        told.left().await;
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_is_missed_at_once_although_nothing_else_happens() {
        let (sender, mut notes) = mpsc::channel(4);
        let (mut execs, mut link) = (Execs::new(sender), test_link());
        let attachment = execs.attach(known("e"), 0);
        let of = label::Output { session: "e".to_owned(), ..label::Output::default() };
        execs.output_opened(&mut link, &of, ChannelId(8), 0);
        let now = Instant::default();
        execs.settle(&mut link, now);
        assert_eq!(execs.deadline(), None);
        hang_up(attachment).await;
        execs.noted(notes.recv().await.unwrap(), Some(&mut link));
        execs.settle(&mut link, now);
        assert_eq!(execs.deadline(), Some(now + ABSENCE));
        // With its container it is given up, as is one whose note is still to come.
        execs.give_up_absent();
        assert!(execs.all["e"].given_up);
        drop(execs.attach(known("f"), 0).events);
        execs.give_up_absent();
        assert!(execs.all["f"].given_up);
    }

    #[tokio::test]
    async fn one_that_the_guest_has_not_heard_of_is_forgotten_some_time_after_its_client_left() {
        let (sender, mut notes) = mpsc::channel(4);
        let (mut execs, mut link) = (Execs::new(sender), test_link());
        let now = Instant::default();
        for comes_to_an_end in [true, false] {
            hang_up(execs.attach(known("e"), 0)).await;
            execs.noted(notes.recv().await.unwrap(), Some(&mut link));
            execs.settle(&mut link, now);
            assert_eq!(execs.deadline(), Some(now + ABSENCE));
            if comes_to_an_end {
                execs.settle(&mut link, now + ABSENCE);
                assert!(execs.all.is_empty());
            } else {
                execs.clear();
            }
            assert_eq!(execs.deadline(), None);
        }
    }

    #[test]
    fn a_guest_is_not_believed_to_have_more_processes_than_an_agent_has() {
        let (sender, _notes) = mpsc::channel(1);
        let (mut execs, mut link) = (Execs::new(sender), test_link());
        (0..10_000).for_each(|n| execs.known(known(&n.to_string())));
        let started = |session| Started { session, ..Started::default() };
        (0..10_000).for_each(|n| drop(execs.started(&started(format!("s{n}")))));
        assert_eq!(execs.all.len(), MAX_TOLD);
        execs.known(known(&"x".repeat(MAX_ID + 1)));
        execs.input_opened(&mut link, "one more", ChannelId(9));
        assert_eq!((execs.all.len(), execs.by_channel.len()), (MAX_TOLD, 0));
        assert_eq!(execs.started(&started("1".to_owned())).len(), 2, "it is known");
        // A client's own is another matter.
        drop(execs.attach(known("mine"), 0));
        assert!(execs.all.contains_key("mine"));
    }
}
