//! All byte pipes to the multiplexer: one carries the link, the others rest until they are wanted.
//!
//! Owns the lines, what is on its way into each, and the handshakes on those not in use; the choice between
//! them is [`Ladder`]'s. The serial port is there from the start; others come when their drivers have been
//! loaded ([`Pipes::look`]), and take over by a handshake in the middle of whatever goes on.
//!
//! Bounds: for each pipe one frame on its way, and one partial frame of what came.

use std::io;
use std::task::Poll;

use tracing::{debug, info, warn};
use wire::{Duration, Instant, Link, Standby, Transport};

use crate::ladder::Ladder;
use crate::line::{LONG_WRITE, Line, virtio, vsock};
use crate::uevent::Uevent;
use hush::Hush;

mod hush;

/// The most reads of a pipe in one turn, so that a chattering peer starves nobody.
const READS_PER_TURN: usize = 8;

/// A frame of which so much has come is not a keystroke's.
const LONG: usize = 64;

/// How long the rest of such a frame is gathered. A serial port of 100 KB/s brings 200 bytes meanwhile, in place of
/// 14 for each of the agent's turns, which cost more than the bytes.
const REST: Duration = Duration::from_millis(2);

/// The most that is read at once. A virtio-serial port gives a page at a time, a tty less.
const READ: usize = 16 * 1024;

/// One place for a pipe, whether there is one or not.
#[derive(Debug)]
struct Place {
    transport: Transport,
    line: Option<Line>,
    /// Of the pipe that is in use, the link does the talking.
    standby: Option<Standby>,
    /// The frame on its way, and how much of it the line has taken.
    frame: Vec<u8>,
    sent: usize,
    /// Whether the line must become writable before anything more can go out.
    blocked: bool,
    /// When a line is read again that nobody watches.
    rests_until: Option<Instant>,
}

/// The pipes.
#[derive(Debug)]
pub struct Pipes {
    /// By transport.
    places: [Place; 3],
    ladder: Ladder,
    attempts: vsock::Attempts,
    /// What the last line that was lost said.
    broken: Option<io::Error>,
    buffer: Vec<u8>,
    /// Of the link, while that goes over the serial port.
    hush: Hush,
}

impl Pipes {
    /// With the one pipe that is there from the start. `standby` makes the handshakes of the others.
    pub fn new(line: Line, standby: impl Fn(Transport) -> Standby, now: Instant) -> Self {
        let used = line.transport();
        let mut line = Some(line);
        let places = Transport::ALL.map(|transport| {
            let is_used = transport == used;
            Place {
                transport,
                line: if is_used { line.take() } else { None },
                standby: (!is_used).then(|| standby(transport)),
                frame: Vec::new(),
                sent: 0,
                blocked: false,
                rests_until: None,
            }
        });
        let ladder = Ladder::new(used, now);
        let (attempts, buffer) = (vsock::Attempts::default(), vec![0; READ]);
        Self { places, ladder, attempts, broken: None, buffer, hush: Hush::default() }
    }

    /// The kind of pipe in use.
    pub fn used(&self) -> Transport {
        self.ladder.used()
    }

    /// Puts another pipe in its place, for one that has come.
    pub fn add(&mut self, line: Line) {
        let place = &mut self.places[line.transport() as usize];
        place.line = Some(line);
    }

    /// Looks for pipes that have come: because of an announcement, or, without one, because some were lost.
    pub fn look(&mut self, event: Option<&Uevent>, now: Instant) {
        let concerns = |subsystem: &str| event.is_none_or(|event| event.subsystem == subsystem);
        if concerns("virtio-ports") && self.places[Transport::Virtio as usize].line.is_none() {
            self.places[Transport::Virtio as usize].line = virtio::find();
        }
        // A device of vsock's, or a driver that is now bound to one.
        let may_be_vsock = concerns("misc") || concerns("virtio") || concerns("pci");
        if may_be_vsock && self.places[Transport::Vsock as usize].line.is_none() {
            self.attempts.encourage(now);
        }
    }

    /// A process has been given input, and may answer.
    pub fn asked(&mut self, link: &Link, now: Instant) {
        if self.used() == Transport::Uart && link.is_attentive(now) {
            self.hush.begin(now);
        }
    }

    /// It has.
    pub fn answered(&mut self) {
        self.hush.end();
    }

    /// Whether nothing is said for a moment.
    #[cfg(test)]
    pub(crate) fn are_hushed(&self) -> bool {
        self.hush.is_on()
    }

    /// Takes what has come on all pipes.
    ///
    /// # Errors
    ///
    /// No pipe is left that could ever be used.
    pub fn receive(&mut self, link: &mut Link, now: Instant) -> io::Result<()> {
        self.connect(now);
        for transport in Transport::ALL {
            if let Err(error) = self.receive_on(transport, link, now) {
                self.lost(transport, error, now);
            }
            self.notice(transport, link, now);
        }
        self.is_any_left()
    }

    fn is_any_left(&mut self) -> io::Result<()> {
        let none = self.places.iter().all(|place| place.line.is_none());
        self.broken.take_if(|_| none && self.attempts.next().is_none()).map_or(Ok(()), Err)
    }

    /// Sees to it that the best pipe is used. To be called when the link has seen what came.
    pub fn choose(&mut self, link: &mut Link, now: Instant) {
        if self.ladder.look(link.is_live(), link.unanswered_since(), now) {
            debug!("the multiplexer does not answer");
            link.call();
        }
        self.ladder.forgive(now);
        for Place { transport, standby, .. } in &mut self.places {
            let Some(standby) = standby else { continue };
            match self.ladder.wants(*transport, now) {
                true => standby.want(now),
                false => standby.rest(),
            }
        }
    }

    /// Hands frames to the lines as long as they take them, a serial port one long frame: that can take milliseconds,
    /// after which there may be something to hear, or something more urgent to say. Whether there is more that
    /// could go at once. The next frame of the link is asked for only when its line has room, so that what is
    /// most urgent then goes next.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    pub fn transmit(&mut self, link: &mut Link, now: Instant) -> io::Result<bool> {
        let mut more = false;
        self.hush.expire(now);
        for transport in Transport::ALL {
            let place = &mut self.places[transport as usize];
            match place.transmit(link, &mut self.hush, now) {
                Ok(has_more) => more |= has_more,
                Err(error) => {
                    self.lost(transport, error, now);
                    self.notice(transport, link, now);
                    // Those that want to take its place have something to say now, and wake us for it.
                    self.choose(link, now);
                }
            }
        }
        self.is_any_left().map(|()| more)
    }

    /// Waits for a reason to take another turn: bytes, room, a pipe that opens or closes.
    ///
    /// # Errors
    ///
    /// The runtime's.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken or given.
    pub async fn wait(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            for place in &self.places {
                if let Some(line) = &place.line
                    && let Poll::Ready(ready) = line.poll_changed(cx, place.blocked)
                {
                    return Poll::Ready(ready);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// When the next turn is due even if nothing happens, where `link` is the link's own moment. That does
    /// not count while its line is blocked: all that a timer of it could cause is to send something.
    pub fn deadline(&self, link: Option<Instant>) -> Option<Instant> {
        let used = &self.places[self.used() as usize];
        let link = link.filter(|_| !used.blocked && used.can_talk());
        let standbys = self.places.iter().filter(|place| place.can_talk() && !place.blocked);
        let standbys = standbys.filter_map(|place| place.standby.as_ref()?.poll_timeout());
        let rests = self.places.iter().filter_map(|place| place.rests_until);
        let others = [link, self.ladder.deadline(), self.attempts.next(), self.hush.deadline()];
        standbys.chain(rests).chain(others.into_iter().flatten()).min()
    }

    fn connect(&mut self, now: Instant) {
        if !self.attempts.is_due(now) {
            return;
        }
        if !vsock::is_there() {
            return self.attempts.started();
        }
        match vsock::begin() {
            Ok(line) => {
                self.attempts.started();
                self.add(line);
            }
            Err(error) => {
                debug!("vsock: {error}");
                self.attempts.failed(now);
            }
        }
    }

    fn receive_on(
        &mut self,
        transport: Transport,
        link: &mut Link,
        now: Instant,
    ) -> io::Result<()> {
        let place = &mut self.places[transport as usize];
        let Some(line) = &mut place.line else { return Ok(()) };
        if place.rests_until.is_some_and(|until| until > now) {
            return Ok(());
        }
        line.refresh()?;
        let mut has_come = false;
        for _ in 0..READS_PER_TURN {
            let place = &mut self.places[transport as usize];
            let Some(line) = &mut place.line else { break };
            let Some(len) = line.read(&mut self.buffer)? else { break };
            has_come = true;
            let mut input = self.buffer.get(..len).unwrap_or_default();
            let Some(standby) = &mut place.standby else {
                link.handle_bytes(now, input);
                continue;
            };
            if standby.handle_bytes(now, &mut input) {
                let rest = input.to_vec();
                self.move_to(transport, link, now);
                link.handle_bytes(now, &rest);
            }
        }
        let partial = if has_come { link.partial() } else { 0 };
        if has_come && transport == Transport::Uart && self.used() == transport {
            match (1..LONG).contains(&partial) && link.is_attentive(now) {
                true => self.hush.begin(now),
                false => self.hush.end(),
            }
        }
        self.places[transport as usize].gather((partial >= LONG).then_some(now))
    }

    fn move_to(&mut self, transport: Transport, link: &mut Link, now: Instant) {
        let used = self.used();
        let Some(mut standby) = self.places[transport as usize].standby.take() else { return };
        link.take_pipe(now, &mut standby);
        self.places[used as usize].standby = Some(standby);
        // What is half written there is of the session that has just ended.
        self.places[used as usize].drop_frame();
        self.ladder.moved(transport, now);
        info!("the link goes over {} now, no longer over {}", transport.word(), used.word());
    }

    // Tells everybody when a pipe has opened or closed.
    fn notice(&mut self, transport: Transport, link: &mut Link, now: Instant) {
        let place = &mut self.places[transport as usize];
        let is_open = place.line.as_ref().is_some_and(Line::is_open);
        if is_open == self.ladder.is_open(transport) {
            return;
        }
        debug!("{} is {}", transport.word(), if is_open { "open" } else { "closed" });
        self.ladder.set_open(transport, is_open);
        place.drop_frame();
        if !is_open {
            return;
        }
        match &mut place.standby {
            Some(standby) => standby.reopened(now),
            None => link.handle_reopened(now),
        }
        if transport == Transport::Vsock {
            self.attempts.succeeded();
        }
    }

    fn lost(&mut self, transport: Transport, error: io::Error, now: Instant) {
        let place = &mut self.places[transport as usize];
        let was_open = place.line.take().is_some_and(|line| line.is_open());
        place.drop_frame();
        place.rests_until = None;
        if transport == Transport::Vsock {
            self.attempts.failed(now);
        }
        if was_open || transport != Transport::Vsock {
            warn!("{} is of no more use: {error}", transport.word());
        }
        if transport == Transport::Virtio {
            // Another port may have announced itself while this one seemed to be there. It begins anew.
            self.ladder.set_open(transport, false);
            place.line = virtio::find();
        }
        self.broken = Some(error);
    }
}

impl Place {
    // Leaves a serial port alone for a while, or has it watched.
    fn gather(&mut self, from: Option<Instant>) -> io::Result<()> {
        let Some(line) = &mut self.line else { return Ok(()) };
        let used = self.standby.is_none() && self.transport == Transport::Uart;
        // Room to write is waited for by watching.
        self.rests_until = from.filter(|_| used && !self.blocked).map(|now| now + REST);
        if self.rests_until.is_some() {
            line.rest();
            return Ok(());
        }
        line.rouse()
    }

    fn can_talk(&self) -> bool {
        self.line.as_ref().is_some_and(Line::is_open)
    }

    fn drop_frame(&mut self) {
        self.frame.clear();
        self.sent = 0;
        self.blocked = false;
    }

    // Whether there is more for a line that takes more.
    fn transmit(&mut self, link: &mut Link, hush: &mut Hush, now: Instant) -> io::Result<bool> {
        let Some(line) = self.line.as_mut().filter(|line| line.is_open()) else {
            return Ok(false);
        };
        loop {
            let is_through = self.sent == self.frame.len();
            if is_through {
                let was_long = self.frame.len() >= LONG_WRITE;
                self.frame.clear();
                self.sent = 0;
                if was_long && self.transport == Transport::Uart {
                    return Ok(self.standby.is_none() && link.may_transmit(now));
                }
            }
            let more = match &mut self.standby {
                // It has one thing to say at most.
                Some(standby) if is_through => standby.poll_transmit(now, &mut self.frame),
                None if is_through => link.may_transmit(now),
                Some(_) | None => true,
            };
            if is_through && self.standby.is_none() && hush.is_on() {
                return Ok(false);
            }
            self.blocked = more && !line.has_room()?;
            if !more {
                return Ok(false);
            }
            if self.blocked {
                return self.gather(None).map(|()| false);
            }
            if self.frame.is_empty() && !link.poll_transmit(now, &mut self.frame) {
                return Ok(false);
            }
            match line.write(&self.frame[self.sent..])? {
                Some(len) => {
                    self.sent += len;
                    hush.said();
                }
                None => {
                    self.blocked = true;
                    return self.gather(None).map(|()| false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
