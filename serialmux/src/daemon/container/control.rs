//! The control channels of one guest: its messages, and requests with their answers.

use super::handle::Reply;
use crate::clock;
use std::collections::{BTreeMap, VecDeque};
use wire::message::{self, GuestMessage, MuxMessage, guest, mux};
use wire::{ChannelId, Link};

/// Most requests that wait for a guest at once: more than processes may run in it, so that a crowd of them is let in.
const MAX_REQUESTS: usize = 1024;

/// The control channels, as far as they are open.
#[derive(Debug, Default)]
pub(super) struct Control {
    up: Option<ChannelId>,
    down: Option<ChannelId>,
    reader: message::Reader,
    taken: u64,
    queue: VecDeque<MuxMessage>,
    waiting: BTreeMap<u64, Reply>,
    last_request: u64,
}

impl Control {
    pub(super) fn opened_up(&mut self, channel: ChannelId) {
        self.up = Some(channel);
        self.reader = message::Reader::default();
        self.taken = u64::MAX;
    }

    pub(super) fn opened_down(&mut self, channel: ChannelId) {
        self.down = Some(channel);
    }

    pub(super) fn is_up(&self, channel: ChannelId) -> bool {
        self.up == Some(channel)
    }

    pub(super) fn gone(&mut self, channel: ChannelId) {
        self.up = self.up.filter(|up| *up != channel);
        self.down = self.down.filter(|down| *down != channel);
    }

    /// Reads messages; the second is whether the guest broke the protocol.
    ///
    /// They are to be [released](Self::release) when their effect is saved.
    pub(super) fn read(
        &mut self,
        link: &mut Link,
        channel: ChannelId,
    ) -> (Vec<GuestMessage>, bool) {
        let mut messages = Vec::new();
        loop {
            let bytes = link.read(channel, message::MAX_MESSAGE);
            if bytes.is_empty() {
                return (messages, false);
            }
            if self.taken == u64::MAX {
                let end = link.offset(channel).unwrap_or(0);
                self.taken = end - bytes.len() as u64;
            }
            self.reader.push(&bytes);
            loop {
                match self.reader.next_message() {
                    Ok(Some((message, n))) => {
                        self.taken += n as u64;
                        messages.push(message);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "control channel given up");
                        return (messages, true);
                    }
                }
            }
        }
    }

    /// The guest may forget what it has said.
    pub(super) fn release(&mut self, link: &mut Link) {
        if let Some(up) = self.up.filter(|_| self.taken != u64::MAX) {
            link.release(up, self.taken);
        }
    }

    /// Queues a request; says by which id the guest will know it.
    pub(super) fn ask(&mut self, body: mux::Body, reply: Reply) -> Option<u64> {
        if self.waiting.len() >= MAX_REQUESTS {
            self.forget_who_left();
        }
        if self.waiting.len() >= MAX_REQUESTS {
            // The asker may have gone, and then nobody needs the answer.
            drop(reply.send(Err("too many requests wait for this VM already".into())));
            return None;
        }
        // A guest may still have streams and replies for requests of an earlier daemon, whose ids are below.
        self.last_request = self.last_request.max(clock::wall_us()) + 1;
        let request = self.last_request;
        self.waiting.insert(request, reply);
        self.queue.push_back(MuxMessage { request, body: Some(body) });
        Some(request)
    }

    /// Of those who have left, what the guest has not been asked yet it is asked no more.
    fn forget_who_left(&mut self) {
        self.waiting.retain(|_, asker| !asker.is_closed());
        let waiting = &self.waiting;
        self.queue.retain(|it| it.request == 0 || waiting.contains_key(&it.request));
    }

    /// Queues something that nobody waits to be answered. What a guest that does not listen has let pile up
    /// is not added to: all of this becomes stale anyway.
    pub(super) fn tell(&mut self, body: mux::Body) {
        if self.queue.len() < MAX_REQUESTS {
            self.queue.push_back(MuxMessage { request: 0, body: Some(body) });
        }
    }

    /// Sends what is queued, as soon as the guest has opened its end.
    pub(super) fn flush(&mut self, link: &mut Link) {
        let Some(down) = self.down else { return };
        while let Some(message) = self.queue.front() {
            let mut bytes = Vec::new();
            message::put(message, &mut bytes);
            if link.room(down) < bytes.len() {
                return;
            }
            link.write(down, &bytes);
            self.queue.pop_front();
        }
    }

    pub(super) fn replied(&mut self, reply: guest::Reply) {
        if let Some(asker) = self.waiting.remove(&reply.request) {
            let answer = if reply.error.is_empty() { Ok(reply.body) } else { Err(reply.error) };
            drop(asker.send(answer));
        }
    }

    /// Nobody will answer what was asked so far.
    pub(super) fn reset(&mut self, why: &str) {
        self.queue.clear();
        for (_, asker) in std::mem::take(&mut self.waiting) {
            drop(asker.send(Err(why.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[test]
    fn who_has_left_is_in_nobodys_way() {
        let mut control = Control::default();
        let ask = |control: &mut Control| {
            let (reply, answer) = oneshot::channel();
            let begin = mux::Begin { session: "web".to_owned() };
            control.ask(mux::Body::Begin(begin), reply).map(|request| (request, answer))
        };
        let mut asked: Vec<_> = (0..MAX_REQUESTS).map(|_| ask(&mut control).unwrap()).collect();
        assert!(ask(&mut control).is_none(), "all of them wait");
        let (stays, _) = asked.split_off(10)[0];
        drop(asked);
        let (last, _answer) = ask(&mut control).unwrap();
        let queued: Vec<_> = control.queue.iter().map(|it| it.request).collect();
        assert!(queued.contains(&last) && !queued.contains(&stays), "{queued:?}");
        assert_eq!(control.waiting.len(), queued.len());
    }
}
