//! Standard input on its way to the guest: each client's bytes once, also when client or daemon came back.

use crate::store::ledger::{Ledger, Token};
use bytes::{Buf, Bytes};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use tokio::sync::watch;
use wire::{ChannelId, Link};

/// Clients whose place is remembered, besides those of whom the guest has not taken everything.
const MAX_CLIENTS: usize = 2048;

/// What a client puts into a container's standard input.
#[derive(Debug)]
pub(crate) enum Input {
    /// Bytes, by their place in everything that this client has to say.
    Bytes {
        /// Whose.
        token: Token,
        /// The first one's place.
        at: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Its end.
    End,
}

/// How much of each client's input the guest has taken, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Takings {
    /// Whether the guest has said what it has of an earlier daemon's doing, if there was any.
    is_known: bool,
    taken: BTreeMap<Token, u64>,
}

impl Takings {
    /// Where this client is to go on; `None` as long as nobody can say.
    pub(crate) fn of(&self, token: &Token) -> Option<u64> {
        self.is_known.then(|| self.taken.get(token).copied().unwrap_or(0))
    }
}

/// The input of one run.
#[derive(Debug)]
pub(in crate::daemon) struct Inputs {
    channel: Option<ChannelId>,
    backlog: VecDeque<(Token, u64, Bytes)>,
    /// For each client, what comes next of its input: what it says twice is passed over.
    next: BTreeMap<Token, u64>,
    ended: bool,
    ledger: Ledger,
    /// The guest has taken everything below.
    released: u64,
    takings: watch::Sender<Takings>,
}

impl Inputs {
    /// Those of a container whose files are in `dir`.
    ///
    /// # Errors
    /// As the file system says.
    pub(in crate::daemon) fn open(dir: &Path) -> io::Result<Self> {
        let ledger = Ledger::open(&dir.join("inputs"))?;
        let takings = Takings { is_known: ledger.is_empty(), taken: BTreeMap::new() };
        Ok(Self {
            channel: None,
            backlog: VecDeque::new(),
            next: BTreeMap::new(),
            ended: false,
            ledger,
            released: 0,
            takings: watch::channel(takings).0,
        })
    }

    /// A watcher of what was taken.
    pub(super) fn watch(&self) -> watch::Receiver<Takings> {
        self.takings.subscribe()
    }

    /// Another run begins, and with it another standard input.
    pub(super) fn new_run(&mut self, keep_backlog: bool) {
        if !keep_backlog {
            self.backlog.clear();
            self.ended = false;
            self.next.clear();
        }
        self.channel = None;
        self.released = 0;
        // What stays in the file is of another channel, or of the same: the guest will tell.
        if let Err(error) = self.ledger.clear() {
            tracing::warn!(%error, "cannot forget whose input went where");
        }
        let taken = BTreeMap::new();
        self.takings.send_replace(Takings { is_known: true, taken });
    }

    /// The guest has opened the channel and has everything below `next`.
    pub(super) fn opened(&mut self, channel: ChannelId, next: u64) {
        if self.channel != Some(channel) {
            self.ledger.resume(channel.0, next);
            self.released = next;
            for (token, taken) in self.ledger.progress(next) {
                self.next.entry(token).or_insert(taken);
            }
        }
        self.channel = Some(channel);
        self.tell();
    }

    /// A channel is gone.
    pub(super) fn gone(&mut self, channel: ChannelId) {
        self.channel = self.channel.filter(|it| *it != channel);
    }

    /// Whether more can be taken from clients now.
    pub(super) fn has_room(&self) -> bool {
        self.backlog.is_empty() && !self.ended
    }

    /// Takes a client's input.
    pub(super) fn take(&mut self, input: Input) {
        let Input::Bytes { token, at, mut bytes } = input else {
            self.ended = true;
            return;
        };
        self.forget_idle_clients();
        let next = self.next.entry(token).or_insert(at);
        let again = usize::try_from(next.saturating_sub(at)).unwrap_or(usize::MAX);
        if at > *next {
            tracing::warn!(at, next, "a client left out some of its input, which is passed over");
            return;
        }
        bytes.advance(again.min(bytes.len()));
        *next += bytes.len() as u64;
        if !bytes.is_empty() {
            let at = *next - bytes.len() as u64;
            self.backlog.push_back((token, at, bytes));
        }
    }

    /// Passes on what there is room for.
    pub(super) fn feed(&mut self, link: &mut Link) {
        let Some(channel) = self.channel else { return };
        while let Some((token, at, bytes)) = self.backlog.front_mut() {
            let n = bytes.len().min(link.room(channel));
            let Some(at_guest) = link.offset(channel).filter(|_| n > 0) else { break };
            if let Err(error) = self.ledger.place(channel.0, *token, *at, at_guest, n) {
                // Passed on all the same: only a restart right now could bring it twice.
                tracing::warn!(%error, "cannot note whose input goes where");
            }
            let n = link.write(channel, bytes.get(..n).unwrap_or_default());
            *at += n as u64;
            bytes.advance(n);
            if !bytes.is_empty() {
                break;
            }
            self.backlog.pop_front();
        }
        if self.ended && self.backlog.is_empty() {
            link.finish(channel);
        }
        if let Some(released) = link.taken_over(channel).filter(|it| *it > self.released) {
            self.released = released;
            self.ledger.taken(released);
            self.tell();
        }
    }

    fn forget_idle_clients(&mut self) {
        if self.next.len() > MAX_CLIENTS {
            let known = self.ledger.progress(u64::MAX);
            self.next.retain(|token, _| known.contains_key(token));
        }
    }

    fn tell(&self) {
        let taken = self.ledger.progress(self.released);
        self.takings.send_replace(Takings { is_known: true, taken });
    }
}
