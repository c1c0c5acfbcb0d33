//! The agent's end of the conversation with the multiplexer: the link over its pipes, and the control channels.
//!
//! Two control channels are open at all times, one each way. The one towards the guest is replaced when the
//! multiplexer at the other end is a new one, which cannot know how far into a message its predecessor was.
//!
//! Bounds: those of the pipes; replies not yet taken by the link up to `MAX_OUTBOX`, beyond
//! which no further requests are read, so that a peer which asks without listening only stops itself.

use std::io;

use prost::Message as _;
use thiserror::Error;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use wire::message::inside::{Happening, What};
use wire::message::{self, GuestMessage, Label, MuxMessage, guest, label};
use wire::pack::Budget;
use wire::{ChannelId, Class, Direction, Event, Link, LinkError, Open};

use crate::clock::{self, Clock};
use crate::pipes::Pipes;
use crate::uevent::Uevent;

/// Bytes of messages to the multiplexer that wait for room in the link.
const MAX_OUTBOX: usize = 64 * 1024;

/// Outputs that are compressed at once, at some 400 KB each: the log, and of processes beside the container's own
/// so many; the others go as they are.
const MAX_PACKERS: usize = 3;

/// The most that is taken of the control channel in one turn.
const READ: usize = 4096;

/// Why the conversation cannot go on.
#[derive(Debug, Error)]
pub enum UplinkError {
    /// Every pipe is broken for good.
    #[error(
        "no pipe to the multiplexer is left, the last one ended with: {0}; the machine cannot be reached any more"
    )]
    Line(#[from] io::Error),
    /// The link refuses a channel.
    #[error("the link cannot carry another channel: {0}")]
    Link(#[from] LinkError),
}

/// What the conversation brought.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The multiplexer asks for something.
    Request(MuxMessage),
    /// A channel towards the guest has bytes.
    Readable(ChannelId),
    /// A channel towards the multiplexer that was full has room.
    Writable(ChannelId),
    /// A channel towards the guest has ended and was read.
    Finished(ChannelId),
    /// A channel is gone at the other end, with whatever it still held.
    Gone(ChannelId),
    /// The multiplexer does not go on with a channel, as this machine was put back to a snapshot.
    RolledBack(ChannelId),
    /// The link is up.
    Up {
        /// The multiplexer is another one than before, and knows nothing that is not on its disk.
        peer_is_new: bool,
    },
}

/// The conversation.
#[derive(Debug)]
pub struct Uplink {
    link: Link,
    pipes: Pipes,
    clock: Clock,
    to_mux: ChannelId,
    to_guest: ChannelId,
    requests: message::Reader,
    /// Bytes read of `to_guest`.
    heard: u64,
    outbox: Vec<u8>,
    sessions: u64,
    /// Who may compress what is written to channels: the log, and the others.
    budgets: [Budget; 2],
}

impl Uplink {
    /// Opens the control channels on a fresh link.
    ///
    /// # Errors
    ///
    /// When the link refuses them.
    pub fn new(mut link: Link, pipes: Pipes, clock: Clock) -> Result<Self, UplinkError> {
        let to_mux = link.open_channel(control(Direction::ToMux))?;
        let to_guest = link.open_channel(control(Direction::ToGuest))?;
        Ok(Self {
            link,
            pipes,
            clock,
            to_mux,
            to_guest,
            requests: message::Reader::default(),
            heard: 0,
            outbox: Vec::new(),
            sessions: 0,
            budgets: [Budget::new(1), Budget::new(MAX_PACKERS)],
        })
    }

    /// The link, for reading and writing channels. Whoever changes it lets [`Self::speak`] follow.
    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Who may compress the log, or else what is written to the channels of others.
    pub fn budget(&self, is_log: bool) -> &Budget {
        let [log, others] = &self.budgets;
        if is_log { log } else { others }
    }

    /// Opens a channel of a session.
    ///
    /// # Errors
    ///
    /// When the link refuses it.
    pub fn open(
        &mut self,
        direction: Direction,
        class: Class,
        kind: label::Kind,
    ) -> Result<ChannelId, UplinkError> {
        let label = Label { kind: Some(kind) }.encode_to_vec();
        Ok(self.link.open_channel(Open { direction, class, label })?)
    }

    /// Says something to the multiplexer; it goes out in the turns to come.
    pub fn say(&mut self, body: guest::Body) {
        message::put(&GuestMessage { body: Some(body) }, &mut self.outbox);
    }

    /// Says that something has happened, unless too much waits to be said.
    pub fn happened(&mut self, what: What) {
        if self.is_congested() {
            return debug!("nobody hears of {what:?}");
        }
        let happening = Happening { time_us: clock::wall_us(), what: Some(what) };
        self.say(guest::Body::Happening(happening));
    }

    /// How many sessions there have been with the multiplexer.
    pub fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Whether everything said and written has been taken over, durably, by the multiplexer.
    pub fn is_drained(&self) -> bool {
        self.outbox.is_empty() && self.link.is_drained()
    }

    /// Bytes of messages that wait for room in the link.
    pub fn n_queued(&self) -> usize {
        self.outbox.len()
    }

    /// Whether so much waits that what can be said later, or left out, is not to be said now: a multiplexer may
    /// stay away for days.
    pub fn is_congested(&self) -> bool {
        self.outbox.len() >= MAX_OUTBOX
    }

    /// Takes everything that has come, and hands news to `tell`. What these lead to goes out by
    /// [`speak`](Self::speak), together with the acknowledgement.
    ///
    /// # Errors
    ///
    /// [`UplinkError`].
    pub fn hear(&mut self, mut tell: impl FnMut(News)) -> Result<(), UplinkError> {
        self.pipes.receive(&mut self.link, self.clock.now())?;
        let now = self.clock.now();
        if self.link.poll_timeout().is_some_and(|due| due <= now) {
            self.link.handle_timeout(now);
        }
        while let Some(event) = self.link.poll_event() {
            self.take(event, &mut tell)?;
        }
        self.read_requests(&mut tell);
        Ok(())
    }

    /// Sends what can be sent without waiting, and hands news to `tell`: what has gone out has made room. Whether
    /// there is more to send at once, before which it is worth while to [`hear`](Self::hear).
    ///
    /// # Errors
    ///
    /// [`UplinkError`].
    pub fn speak(&mut self, mut tell: impl FnMut(News)) -> Result<bool, UplinkError> {
        self.flush();
        self.pipes.choose(&mut self.link, self.clock.now());
        let more = self.pipes.transmit(&mut self.link, self.clock.now())?;
        // What has gone out makes room, and nobody else may ever tell those who wait for it.
        while let Some(event) = self.link.poll_event() {
            self.take(event, &mut tell)?;
        }
        Ok(more)
    }

    /// Both.
    #[cfg(test)]
    pub(crate) fn turn(&mut self, mut tell: impl FnMut(News)) -> Result<(), UplinkError> {
        self.hear(&mut tell)?;
        while self.speak(&mut tell)? {}
        Ok(())
    }

    /// A process has been given input: its answer is waited for a moment.
    pub fn asked(&mut self) {
        self.pipes.asked(&self.link, self.clock.now());
    }

    /// It has answered.
    pub fn answered(&mut self) {
        self.pipes.answered();
    }

    /// Waits for a reason to take another turn: bytes, room on the line, or a timer of the link.
    ///
    /// # Errors
    ///
    /// The line's.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken or given.
    pub async fn wait(&self) -> io::Result<()> {
        self.pipes.wait().await
    }

    /// When the next turn is due even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let moment = self.pipes.deadline(self.link.poll_timeout());
        moment.map(|moment| self.clock.to_runtime(moment))
    }

    /// A device has been announced, or announcements were lost: it may be another pipe.
    pub fn look(&mut self, event: Option<&Uevent>) {
        self.pipes.look(event, self.clock.now());
    }

    /// The pipes, for a test to add to.
    #[cfg(test)]
    pub(crate) fn pipes(&mut self) -> &mut Pipes {
        &mut self.pipes
    }

    /// The kind of pipe in use.
    pub fn transport(&self) -> wire::Transport {
        self.pipes.used()
    }

    fn take(&mut self, event: Event, tell: &mut impl FnMut(News)) -> Result<(), UplinkError> {
        match event {
            Event::Established { peer, peer_is_new } => {
                info!("link is up, protocol {}", peer.proto);
                self.sessions += 1;
                if peer_is_new {
                    self.renew_requests()?;
                }
                tell(News::Up { peer_is_new });
            }
            Event::Lost { reason } => info!("link is down: {reason}"),
            Event::Readable(id) if id != self.to_guest => tell(News::Readable(id)),
            Event::Writable(id) if id != self.to_mux => tell(News::Writable(id)),
            Event::Finished(id) if id != self.to_guest => tell(News::Finished(id)),
            Event::Reset(id) | Event::RolledBack(id) if id == self.to_mux => {
                warn!("the multiplexer has given up the control channel");
                self.to_mux = self.link.open_channel(control(Direction::ToMux))?;
            }
            Event::Finished(id) | Event::Reset(id) | Event::RolledBack(id)
                if id == self.to_guest =>
            {
                self.replace_requests()?;
            }
            Event::Reset(id) => tell(News::Gone(id)),
            Event::RolledBack(id) => tell(News::RolledBack(id)),
            // Closed is visible in `is_drained`; the others concern a multiplexer.
            other => debug!("{other:?}"),
        }
        Ok(())
    }

    /// A new multiplexer starts its requests from scratch, unless nobody has ever used the channel.
    fn renew_requests(&mut self) -> Result<(), UplinkError> {
        if self.link.offset(self.to_guest) == Some(0) {
            return Ok(());
        }
        self.link.abandon(self.to_guest);
        self.replace_requests()
    }

    fn replace_requests(&mut self) -> Result<(), UplinkError> {
        self.to_guest = self.link.open_channel(control(Direction::ToGuest))?;
        self.requests = message::Reader::default();
        self.heard = 0;
        Ok(())
    }

    fn read_requests(&mut self, tell: &mut impl FnMut(News)) {
        while !self.is_congested() {
            match self.requests.next_message::<MuxMessage>() {
                Ok(Some((request, _))) => tell(News::Request(request)),
                Ok(None) => {
                    let bytes = self.link.read(self.to_guest, READ);
                    if bytes.is_empty() {
                        break;
                    }
                    self.requests.push(&bytes);
                    self.heard += bytes.len() as u64;
                    self.link.release(self.to_guest, self.heard);
                }
                Err(error) => {
                    warn!("{error}; asking for a fresh control channel");
                    self.link.abandon(self.to_guest);
                    if let Err(error) = self.replace_requests() {
                        warn!("{error}");
                    }
                    break;
                }
            }
        }
    }

    fn flush(&mut self) {
        if !self.outbox.is_empty() {
            let taken = self.link.write(self.to_mux, &self.outbox);
            self.outbox.drain(..taken);
        }
    }
}

fn control(direction: Direction) -> Open {
    let label = Label { kind: Some(label::Kind::Control(label::Control {})) };
    Open { direction, class: Class::Control, label: label.encode_to_vec() }
}

#[cfg(test)]
mod tests;
