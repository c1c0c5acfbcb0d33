//! Bytes of requests: channels that belong to one request each, between a guest and the client that asked.
//!
//! Nothing of it is kept: what a client has taken is released to the guest, and a client that goes away takes
//! the channel with it. A client that does not read stops its own channel only. A guest opens a stream when it
//! takes the request on; one that nobody here has asked for (any more) is refused.

use bytes::Bytes;
use futures_util::task::noop_waker_ref;
use std::collections::BTreeMap;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use wire::{ChannelId, Direction, Link};

/// The most that goes to a client in one piece.
const PIECE: usize = 64 * 1024;

/// Streams asked for and not yet opened. A guest that answers and never opens one leaves it behind.
const MAX_EXPECTED: usize = 256;

/// What comes of a stream: to the guest or from it. One that is cut short has no end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Bytes.
    Bytes(Bytes),
    /// Its end.
    End,
}

/// The client's side of a stream.
#[derive(Debug)]
pub(crate) enum Ends {
    /// What the guest sends goes here. Without its end, it is not whole.
    Up(mpsc::Sender<Incoming>),
    /// What comes from here goes to the guest. Without its end, the guest is told that it is not whole.
    Down(mpsc::Receiver<Incoming>),
}

#[derive(Debug)]
enum Stream {
    Up { client: PollSender<Incoming>, reserved: bool, taken: u64 },
    Down { client: mpsc::Receiver<Incoming>, pending: Bytes, ended: bool, told: bool },
}

/// The streams of one guest.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Asked for, not yet opened.
    expected: BTreeMap<u64, Ends>,
    open: BTreeMap<ChannelId, Stream>,
    /// Clients that have got all of a stream but its end, for which they had no room. It needs no guest any more.
    ending: Vec<PollSender<Incoming>>,
}

impl Streams {
    /// A request was sent that will have a stream.
    pub(super) fn expect(&mut self, request: u64, ends: Ends) {
        while self.expected.len() >= MAX_EXPECTED {
            self.expected.pop_first();
        }
        self.expected.insert(request, ends);
    }

    /// A request was answered. A good answer may overtake the stream that it is about; with a bad one the
    /// stream is of no use, if there will be one at all.
    pub(super) fn answered(&mut self, request: u64, is_good: bool) {
        if !is_good || matches!(self.expected.get(&request), Some(Ends::Down(_))) {
            self.expected.remove(&request);
        }
    }

    /// The guest has opened a stream.
    pub(super) fn opened(
        &mut self,
        link: &mut Link,
        channel: ChannelId,
        direction: Direction,
        request: u64,
    ) {
        let stream = match (self.expected.remove(&request), direction) {
            (Some(Ends::Up(client)), Direction::ToMux) => {
                Stream::Up { client: PollSender::new(client), reserved: false, taken: 0 }
            }
            (Some(Ends::Down(client)), Direction::ToGuest) => {
                Stream::Down { client, pending: Bytes::new(), ended: false, told: false }
            }
            _ => return link.refuse(channel),
        };
        link.accept(channel, 0);
        self.open.insert(channel, stream);
    }

    /// Whether the channel is a stream's.
    pub(super) fn has(&self, channel: ChannelId) -> bool {
        self.open.contains_key(&channel)
    }

    /// A stream came to its end and was read.
    pub(super) fn finished(&mut self, link: &mut Link, channel: ChannelId) {
        match self.open.remove(&channel) {
            Some(Stream::Up { client, .. }) => {
                self.ending.push(client);
                link.close(channel);
            }
            Some(down) => drop(self.open.insert(channel, down)),
            None => {}
        }
    }

    /// A channel is gone, and a client that has got no end knows that something is missing.
    pub(super) fn gone(&mut self, channel: ChannelId) {
        self.open.remove(&channel);
    }

    /// The guest is another one: it knows nothing of what was asked.
    pub(super) fn reset(&mut self) {
        self.expected.clear();
        self.open.clear();
    }

    /// Moves what can be moved.
    pub(super) fn turn(&mut self, link: &mut Link) {
        self.open.retain(|channel, stream| {
            let wanted = stream.turn(link, *channel);
            if !wanted {
                link.abandon(*channel);
            }
            wanted
        });
    }

    /// Waits until a client has room, or bytes, or has gone. Tells clients that their stream is at its end.
    ///
    /// # Cancel safety
    /// Safe: what was taken from a client stays in the stream.
    pub(super) async fn wait(&mut self) {
        std::future::poll_fn(|context| {
            self.ending.retain_mut(|client| poll_end(client, context).is_pending());
            let ready = self.open.values_mut().fold(false, |ready, it| it.poll(context) | ready);
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Tells a client the end as soon as it has room; one that has gone needs none.
fn poll_end(client: &mut PollSender<Incoming>, context: &mut Context<'_>) -> Poll<()> {
    client.poll_reserve(context).map(|room| {
        if room.is_ok() {
            client.send_item(Incoming::End).ok();
        }
    })
}

impl Stream {
    /// Moves what can be moved; says whether the client is still there.
    fn turn(&mut self, link: &mut Link, channel: ChannelId) -> bool {
        // Whoever waits is woken by `poll`, which is called with a real waker.
        let mut context = Context::from_waker(noop_waker_ref());
        match self {
            Self::Up { client, reserved, taken } => loop {
                if !*reserved {
                    match client.poll_reserve(&mut context) {
                        Poll::Pending => return true,
                        Poll::Ready(Err(_gone)) => return false,
                        Poll::Ready(Ok(())) => *reserved = true,
                    }
                }
                let bytes = link.read(channel, PIECE);
                if bytes.is_empty() {
                    return true;
                }
                *taken += bytes.len() as u64;
                *reserved = false;
                if client.send_item(Incoming::Bytes(bytes)).is_err() {
                    return false;
                }
                link.release(channel, *taken);
            },
            Self::Down { client, pending, ended, told } => loop {
                if pending.is_empty() && !*ended {
                    match client.poll_recv(&mut context) {
                        Poll::Pending => return true,
                        Poll::Ready(None) => return false,
                        Poll::Ready(Some(Incoming::End)) => *ended = true,
                        Poll::Ready(Some(Incoming::Bytes(bytes))) => *pending = bytes,
                    }
                }
                let n = link.write(channel, pending);
                bytes::Buf::advance(pending, n);
                if *ended && pending.is_empty() && !*told {
                    *told = true;
                    link.finish(channel);
                }
                if !pending.is_empty() || *ended {
                    return true;
                }
            },
        }
    }

    /// Whether a turn may move something. A stream that the link holds up waits for the link.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            // Nothing to wait for but that the guest sends; a client that goes is found out then.
            Self::Up { reserved: true, .. } => false,
            Self::Up { client, reserved, .. } => match client.poll_reserve(context) {
                Poll::Pending => false,
                Poll::Ready(result) => {
                    *reserved = result.is_ok();
                    true
                }
            },
            Self::Down { client, pending, ended, .. } if pending.is_empty() && !*ended => {
                match client.poll_recv(context) {
                    Poll::Pending => false,
                    Poll::Ready(Some(Incoming::Bytes(bytes))) => {
                        *pending = bytes;
                        true
                    }
                    Poll::Ready(Some(Incoming::End)) => {
                        *ended = true;
                        true
                    }
                    // Found again by the turn, as a channel that is closed stays so.
                    Poll::Ready(None) => true,
                }
            }
            Self::Down { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use mpsc::error::TryRecvError;

    const CHANNEL: ChannelId = ChannelId(1);
    const REQUEST: u64 = 7;

    /// A stream that the guest has opened and whose request it has answered well, and its client.
    fn answered(link: &mut Link) -> (Streams, mpsc::Receiver<Incoming>) {
        let mut streams = Streams::default();
        let (sender, client) = mpsc::channel(1);
        streams.expect(REQUEST, Ends::Up(sender));
        streams.opened(link, CHANNEL, Direction::ToMux, REQUEST);
        streams.answered(REQUEST, true);
        (streams, client)
    }

    #[test]
    fn what_is_cut_short_after_a_good_answer_has_no_end() {
        let mut link = super::super::test_link();
        let (mut streams, mut client) = answered(&mut link);
        assert_eq!(client.try_recv(), Err(TryRecvError::Empty));
        streams.gone(CHANNEL);
        assert_eq!(client.try_recv(), Err(TryRecvError::Disconnected));
        let (mut streams, mut client) = answered(&mut link);
        streams.reset();
        assert!(streams.wait().now_or_never().is_none());
        assert_eq!(client.try_recv(), Err(TryRecvError::Disconnected));
    }

    #[test]
    fn what_is_whole_has_its_end_whatever_becomes_of_the_guest() {
        let mut link = super::super::test_link();
        let (mut streams, mut client) = answered(&mut link);
        let Some(Stream::Up { client: sender, .. }) = streams.open.get_mut(&CHANNEL) else {
            panic!("no stream")
        };
        let last = Incoming::Bytes(Bytes::from_static(b"last"));
        sender.get_ref().unwrap().try_send(last).unwrap();
        streams.finished(&mut link, CHANNEL);
        // There is no room for it yet.
        assert!(streams.wait().now_or_never().is_none());
        streams.gone(CHANNEL);
        streams.reset();
        assert_eq!(client.try_recv(), Ok(Incoming::Bytes(Bytes::from_static(b"last"))));
        assert!(streams.wait().now_or_never().is_none());
        assert_eq!(client.try_recv(), Ok(Incoming::End));
        assert_eq!(client.try_recv(), Err(TryRecvError::Disconnected));
        assert!(streams.ending.is_empty());
    }
}
