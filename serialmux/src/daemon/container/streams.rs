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

/// What a client gives a stream.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Bytes.
    Bytes(Bytes),
    /// Its end.
    End,
}

/// The client's side of a stream.
#[derive(Debug)]
pub(crate) enum Ends {
    /// What the guest sends goes here.
    Up(mpsc::Sender<Bytes>),
    /// What comes from here goes to the guest. Without its end, the guest is told that it is not whole.
    Down(mpsc::Receiver<Incoming>),
}

#[derive(Debug)]
enum Stream {
    Up { client: PollSender<Bytes>, reserved: bool, taken: u64 },
    Down { client: mpsc::Receiver<Incoming>, pending: Bytes, ended: bool, told: bool },
}

/// The streams of one guest.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Asked for, not yet opened.
    expected: BTreeMap<u64, Ends>,
    open: BTreeMap<ChannelId, Stream>,
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
        // The client sees the end when the sender is gone.
        if let Some(Stream::Up { .. }) = self.open.get(&channel) {
            self.open.remove(&channel);
            link.close(channel);
        }
    }

    /// A channel is gone.
    pub(super) fn gone(&mut self, channel: ChannelId) {
        self.open.remove(&channel);
    }

    /// The guest is another one: it knows nothing of what was asked.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
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

    /// Waits until a client has room, or bytes, or has gone.
    ///
    /// # Cancel safety
    /// Safe: what was taken from a client stays in the stream.
    pub(super) async fn wait(&mut self) {
        std::future::poll_fn(|context| {
            let ready = self.open.values_mut().fold(false, |ready, it| it.poll(context) | ready);
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
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
                if client.send_item(bytes).is_err() {
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
