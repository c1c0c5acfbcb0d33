//! Standard input on its way to the guest: each client's bytes once, also when client or daemon came back.
//!
//! Where the guest wants it packed, a block is the unit that it takes: clients learn that their bytes have
//! arrived when the last of their block has. The ledger counts the bytes as they were.

use crate::store::ledger::{Ledger, Token};
use bytes::{Buf, Bytes};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use tokio::sync::watch;
use wire::message::label;
use wire::pack::{Budget, Packer};
use wire::{ChannelId, Link};

/// Clients whose place is remembered, besides those of whom the guest has not taken everything.
const MAX_CLIENTS: usize = 2048;

/// The most of the input that becomes one block. The guest sees none of it before all of it is there.
const BLOCK: usize = 8 * 1024;
/// Less room than that is none, so that input is not cut into crumbs.
const MIN_ROOM: usize = 512;

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
    /// Present while the open channel takes blocks.
    packing: Option<Packing>,
    /// Who may compress.
    budget: Budget,
    /// What the ledger calls this input: the channel with which it began.
    origin: u32,
    backlog: VecDeque<(Token, u64, Bytes)>,
    /// Written to the channel and not taken yet, each with its end there: for the channel's successor.
    given: VecDeque<(Token, u64, Bytes, u64)>,
    /// For each client, what comes next of its input: what it says twice is passed over.
    next: BTreeMap<Token, u64>,
    ended: bool,
    ledger: Ledger,
    /// The guest has taken everything below.
    released: u64,
    takings: watch::Sender<Takings>,
}

/// What is put into a channel of blocks.
#[derive(Debug)]
struct Packing {
    packer: Packer,
    /// Bytes of the input put into the channel so far, and before it.
    plain: u64,
    /// The end of each block that the guest has not taken: in the channel, and in the input.
    ends: VecDeque<(u64, u64)>,
    block: Vec<u8>,
}

impl Packing {
    fn new(start: u64, budget: &Budget) -> Self {
        let (packer, block) = (Packer::new(budget), Vec::new());
        Self { packer, plain: start, ends: VecDeque::new(), block }
    }

    /// Writes a block, for which there is room.
    fn write(&mut self, bytes: &[u8], channel: ChannelId, link: &mut Link) {
        self.block.clear();
        match link.is_scarce() {
            true => self.packer.push(bytes, &mut self.block),
            false => self.packer.pass(bytes, &mut self.block),
        }
        let taken = link.write(channel, &self.block);
        debug_assert_eq!(taken, self.block.len(), "the room was asked for");
        self.plain += bytes.len() as u64;
        self.ends.push_back((link.offset(channel).unwrap_or(0), self.plain));
    }

    /// How much of the input the guest has taken, which has taken so much of the channel.
    fn taken(&mut self, released: u64) -> Option<u64> {
        let mut taken = None;
        while let Some((_, plain)) = self.ends.pop_front_if(|(end, _)| *end <= released) {
            taken = Some(plain);
        }
        taken
    }
}

impl Inputs {
    /// Those of a container whose files are in `dir`.
    ///
    /// # Errors
    /// As the file system says.
    pub(in crate::daemon) fn open(dir: &Path, budget: &Budget) -> io::Result<Self> {
        let ledger = Ledger::open(&dir.join("inputs"))?;
        let takings = Takings { is_known: ledger.is_empty(), taken: BTreeMap::new() };
        Ok(Self {
            channel: None,
            packing: None,
            budget: budget.clone(),
            origin: 0,
            backlog: VecDeque::new(),
            given: VecDeque::new(),
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
        (self.channel, self.packing) = (None, None);
        self.given.clear();
        self.released = 0;
        // What stays in the file is of another channel, or of the same: the guest will tell.
        if let Err(error) = self.ledger.clear() {
            tracing::warn!(%error, "cannot forget whose input went where");
        }
        let taken = BTreeMap::new();
        self.takings.send_replace(Takings { is_known: true, taken });
    }

    /// The guest has opened the channel and has everything below `next`.
    pub(super) fn opened(&mut self, channel: ChannelId, next: u64, label: &label::Input) {
        if self.channel == Some(channel) {
            return self.tell();
        }
        if label.packed && next > 0 {
            // Somewhere in a block of an earlier daemon's. The guest opens another one.
            return tracing::debug!(?channel, "standard input waits for a fresh channel");
        }
        self.packing = label.packed.then(|| Packing::new(label.start, &self.budget));
        self.origin = if label.origin > 0 { label.origin } else { channel.0 };
        let next = if label.packed { label.start } else { next };
        self.ledger.resume(self.origin, next);
        self.take_back(next);
        self.released = next;
        for (token, taken) in self.ledger.progress(next) {
            self.next.entry(token).or_insert(taken);
        }
        self.channel = Some(channel);
        self.tell();
    }

    /// What an earlier channel did not bring to the guest, which has everything below `next`, goes first.
    fn take_back(&mut self, next: u64) {
        while let Some((token, at, mut bytes, end)) = self.given.pop_back() {
            let left = usize::try_from(end.saturating_sub(next)).unwrap_or(usize::MAX);
            let has = bytes.len().saturating_sub(left);
            bytes.advance(has);
            if !bytes.is_empty() {
                self.backlog.push_front((token, at + has as u64, bytes));
            }
        }
    }

    /// A channel is gone.
    pub(super) fn gone(&mut self, channel: ChannelId) {
        if self.channel == Some(channel) {
            (self.channel, self.packing) = (None, None);
        }
    }

    /// Whether more can be taken from clients now.
    pub(super) fn has_room(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Takes a client's input; what comes behind the end goes nowhere, as nobody reads it.
    pub(super) fn take(&mut self, input: Input) {
        let Input::Bytes { token, at, mut bytes } = input else {
            self.ended = true;
            return;
        };
        if self.ended {
            return;
        }
        self.forget_idle_clients();
        let next = self.next.entry(token).or_insert(at);
        let again = usize::try_from(next.saturating_sub(at)).unwrap_or(usize::MAX);
        if at > *next {
            // The guest has less than it once said it had, and the client nothing any more of what is between.
            tracing::warn!(
                at,
                next,
                "input that a VM had before it was put back to a snapshot is missing"
            );
            *next = at;
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
            let room = link.room(channel);
            let (n, at_guest) = match &self.packing {
                None => (bytes.len().min(room), link.offset(channel).unwrap_or(0)),
                Some(_) if room < MIN_ROOM => break,
                Some(packing) => {
                    (bytes.len().min(room - Packer::OVERHEAD).min(BLOCK), packing.plain)
                }
            };
            if n == 0 {
                break;
            }
            if let Err(error) = self.ledger.place(self.origin, *token, *at, at_guest, n) {
                // Passed on all the same: only a restart right now could bring it twice.
                tracing::warn!(%error, "cannot note whose input goes where");
            }
            let piece = bytes.split_to(n);
            self.given.push_back((*token, *at, piece.clone(), at_guest + n as u64));
            *at += n as u64;
            match &mut self.packing {
                Some(packing) => packing.write(&piece, channel, link),
                None => _ = link.write(channel, &piece),
            }
            if bytes.is_empty() {
                self.backlog.pop_front();
            }
        }
        if self.ended && self.backlog.is_empty() {
            link.finish(channel);
        }
        let released = link.taken_over(channel);
        let taken = match &mut self.packing {
            Some(packing) => released.and_then(|released| packing.taken(released)),
            None => released,
        };
        if let Some(taken) = taken.filter(|it| *it > self.released) {
            self.released = taken;
            while self.given.pop_front_if(|(.., end)| *end <= taken).is_some() {}
            self.ledger.taken(taken);
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
