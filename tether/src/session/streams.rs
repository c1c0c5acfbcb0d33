//! A session's streams: the process's ends, which go with it, and the channels, which outlive its runs.

use std::task::{Context, Poll};

use tokio::time::Instant;
use wire::message::label;
use wire::pack::Packer;
use wire::{ChannelId, Class, Direction, Link};

use crate::process::Launch;
use crate::relay::{Flow, InputRelay, OutputRelay, WhenFull};
use crate::spool::Spool;
use crate::stdio::{self, Output, Stdio};
use crate::uplink::{Uplink, UplinkError};

/// The streams of a session that was started.
#[derive(Debug)]
pub(super) struct Streams {
    /// Absent between two runs.
    pub(super) stdio: Option<Stdio>,
    /// Absent when nobody wants the output.
    output: Option<OutputRelay>,
    input: InputRelay,
    tty: bool,
    /// Whether these are the container's own, which go packed.
    is_log: bool,
    /// Whether the output of others may.
    unpacks: bool,
    /// The channel with which the input of this run began.
    origin: Option<ChannelId>,
    /// Whether the process has been given input that it has not answered.
    is_asked: bool,
}

/// What is told of an output in the exit record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Length {
    /// Of the channel.
    pub(super) channel: u64,
    /// Of what the process wrote.
    pub(super) bytes: u64,
    /// Whether some of it was dropped.
    pub(super) is_cut: bool,
}

impl Streams {
    /// Opens the channels of a session; `is_log` says that its output is the log, `unpacks` that it may be packed
    /// although it is not.
    pub(super) fn open(
        session: &str,
        launch: &Launch,
        (is_log, unpacks): (bool, bool),
        stdio: Stdio,
        uplink: &mut Uplink,
    ) -> Result<Self, UplinkError> {
        let mut streams = Self {
            stdio: Some(stdio),
            output: None,
            input: InputRelay::new(None, is_log),
            tty: launch.tty,
            is_log,
            unpacks,
            origin: None,
            is_asked: false,
        };
        if !launch.detached {
            let (channel, packer) = streams.output_channel(session, uplink)?;
            streams.output = Some(OutputRelay::new(channel, launch.tty, packer));
        }
        if let Err(error) = streams.open_input(session, launch, uplink) {
            streams.close(uplink.link());
            return Err(error);
        }
        Ok(streams)
    }

    /// Keeps so much output that the link has no room for, or none, from now on.
    pub(super) fn keep(&mut self, backlog: Option<(usize, WhenFull)>) {
        if let Some(output) = &mut self.output {
            output.set_backlog(backlog);
        }
    }

    /// Keeps more of it on a disk from now on.
    pub(super) fn extend(&mut self, spool: Spool) {
        if let Some(output) = &mut self.output {
            output.extend(spool);
        }
    }

    /// Output that is kept because the link has no room for it, how much of it on a disk, and what was dropped; bytes.
    pub(super) fn kept(&self) -> [u64; 3] {
        self.output.as_ref().map_or([0; 3], |it| [it.backlog(), it.spooled(), it.dropped()])
    }

    /// Puts the next run's ends in the place of the last one's.
    pub(super) fn renew(
        &mut self,
        session: &str,
        launch: &Launch,
        stdio: Stdio,
        uplink: &mut Uplink,
    ) -> Result<(), UplinkError> {
        self.stdio = Some(stdio);
        // The last run may have closed its input, or come to the end of it.
        if self.input.channel().is_none() {
            self.open_input(session, launch, uplink)?;
        }
        Ok(())
    }

    fn open_input(
        &mut self,
        session: &str,
        launch: &Launch,
        uplink: &mut Uplink,
    ) -> Result<(), UplinkError> {
        let channel = match launch.open_stdin {
            true => Some(self.input_channel(session, 0, 0, uplink)?),
            false => None,
        };
        self.origin = channel;
        self.input = InputRelay::new(channel, self.is_log);
        Ok(())
    }

    fn output_channel(
        &self,
        session: &str,
        uplink: &mut Uplink,
    ) -> Result<(ChannelId, Option<Packer>), UplinkError> {
        let class = match (self.tty, self.is_log) {
            (true, _) => Class::Terminal,
            (false, true) => Class::Log,
            (false, false) => Class::Exec,
        };
        // Whoever sits at a terminal waits for each key's echo, and sees little at once.
        let is_worth_it = self.unpacks && !self.tty && uplink.link().is_scarce();
        let packed = self.is_log || is_worth_it;
        let (session, tty) = (session.to_owned(), self.tty);
        let kind = label::Kind::Output(label::Output { session, tty, packed });
        let channel = uplink.open(Direction::ToMux, class, kind)?;
        Ok((channel, packed.then(|| Packer::new(uplink.budget(self.is_log)))))
    }

    fn input_channel(
        &self,
        session: &str,
        start: u64,
        origin: u32,
        uplink: &mut Uplink,
    ) -> Result<ChannelId, UplinkError> {
        let class = if self.tty { Class::Terminal } else { Class::Exec };
        let (session, packed) = (session.to_owned(), self.is_log);
        let kind = label::Kind::Input(label::Input { session, packed, start, origin });
        uplink.open(Direction::ToGuest, class, kind)
    }

    /// The multiplexer is another one, which cannot go on where the last one stopped within a block.
    pub(super) fn peer_is_new(
        &mut self,
        session: &str,
        uplink: &mut Uplink,
    ) -> Result<(), UplinkError> {
        let Some((old, start)) = self.input.bound(uplink.link()) else { return Ok(()) };
        uplink.link().abandon(old);
        let origin = self.origin.map_or(0, |origin| origin.0);
        let channel = self.input_channel(session, start, origin, uplink)?;
        self.input.replace(channel);
        Ok(())
    }

    /// Has the next turn look at the outputs themselves.
    pub(super) fn distrust(&mut self) {
        self.stdio.iter_mut().for_each(Stdio::distrust);
    }

    /// The process has ended.
    pub(super) fn process_ended(&mut self) {
        self.stdio.iter_mut().for_each(Stdio::process_ended);
    }

    /// Whether something may still be read that the process wrote before it ended.
    pub(super) fn owes(&self) -> bool {
        self.stdio.as_ref().is_some_and(Stdio::owes)
    }

    /// Whether somebody can still write to an output.
    pub(super) fn are_held(&self) -> bool {
        self.stdio.as_ref().is_some_and(Stdio::is_held)
    }

    /// Reads no more; what was read is passed on all the same.
    pub(super) fn abandon(&mut self) {
        self.stdio.iter_mut().for_each(Stdio::close_outputs);
    }

    /// Moves what can be moved; `last` says that the process has ended, and what it left is waited for.
    pub(super) fn turn(&mut self, uplink: &mut Uplink, last: bool) -> Flow {
        let Some(stdio) = &mut self.stdio else { return Flow::Ended };
        let fed = self.input.turn(stdio, uplink.link());
        let Some(output) = &mut self.output else { return drain(stdio) };
        if fed {
            self.is_asked = true;
            uplink.asked();
        }
        if fed || last {
            output.rouse();
        }
        let flow = output.turn(stdio, uplink.link());
        if self.is_asked && output.answers() {
            self.is_asked = false;
            uplink.answered();
        }
        if last {
            output.rouse();
        }
        flow
    }

    /// When output is to be looked at that nobody will tell of, or a disk has let too much time pass.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let output = self.output.as_ref()?;
        // Who would be told of output is told of room when a terminal's input is full.
        let is_untold = |stdio: &Stdio| stdio.is_unwatched() || self.input.is_blocked();
        let rest = output.rests_until().filter(|_| self.stdio.as_ref().is_some_and(is_untold));
        [rest, output.disk_deadline()].into_iter().flatten().min()
    }

    /// Whether something can be moved at once; else the context's task is woken when it can, unless that
    /// depends on the link, which tells by itself.
    pub(super) fn poll_ready(&mut self, context: &mut Context<'_>, link: &mut Link) -> Poll<()> {
        let mut reads = true;
        let mut disk = Poll::Pending;
        if let Some(output) = &mut self.output {
            if output.lacks_room() {
                output.want_room(link);
            }
            reads = !output.is_stuck() && output.rests_until().is_none();
            disk = output.poll_disk(context);
        }
        let Some(stdio) = &mut self.stdio else { return disk };
        let stdio = stdio.poll_ready(context, reads, self.input.is_blocked());
        if disk.is_ready() { disk } else { stdio }
    }

    /// Whether output waits for room in the link.
    pub(super) fn is_stuck(&self) -> bool {
        self.output.as_ref().is_some_and(OutputRelay::is_stuck)
    }

    /// The channels that are open.
    pub(super) fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.output.as_ref().map(OutputRelay::channel).into_iter().chain(self.input.channel())
    }

    /// How much output there was so far.
    pub(super) fn length(&self, link: &Link) -> Length {
        self.output.as_ref().map_or_else(Length::default, |output| Length {
            channel: link.offset(output.channel()).unwrap_or(0),
            bytes: output.bytes(),
            is_cut: output.is_discarding(),
        })
    }

    /// Ends both channels.
    pub(super) fn close(mut self, link: &mut Link) {
        self.input.stop(link);
        if let Some(output) = &self.output {
            link.finish(output.channel());
        }
    }

    /// The input channel has ended.
    pub(super) fn input_finished(&mut self, channel: ChannelId) {
        if self.input.channel() == Some(channel) {
            self.input.finish();
        }
    }

    /// A channel is gone, as this machine went back in time. The container's own streams go on with others; what
    /// the old ones held may have arrived or not, and is not sent again. Those of a client end: it has seen
    /// what never was.
    pub(super) fn rolled_back(
        &mut self,
        session: &str,
        channel: ChannelId,
        uplink: &mut Uplink,
    ) -> Result<(), UplinkError> {
        let is_output = self.output.as_ref().is_some_and(|output| output.channel() == channel);
        let origin = self.origin.map_or(0, |origin| origin.0);
        if !self.is_log {
            self.channel_gone(channel);
        } else if self.input.channel() == Some(channel) {
            let channel = self.input_channel(session, self.input.came(), origin, uplink)?;
            self.input.replace(channel);
        } else if is_output {
            let (channel, packer) = self.output_channel(session, uplink)?;
            if let Some(output) = &mut self.output {
                output.replace(channel, packer);
            }
        }
        Ok(())
    }

    /// A channel is gone at the other end; says whether it was the output's.
    pub(super) fn channel_gone(&mut self, channel: ChannelId) -> bool {
        if self.input.channel() == Some(channel) {
            self.input.forget();
            return false;
        }
        let output = self.output.as_mut().filter(|output| output.channel() == channel);
        let is_output = output.is_some();
        output.into_iter().for_each(OutputRelay::discard);
        is_output
    }
}

/// Reads what nobody wants, so that the process goes on.
fn drain(stdio: &mut Stdio) -> Flow {
    let mut buffer = [0; 4096];
    match stdio::read_output(stdio.stdout(), &mut buffer) {
        Output::Bytes(_) => Flow::Moved,
        Output::Nothing => Flow::Idle,
        Output::End => Flow::Ended,
    }
}
