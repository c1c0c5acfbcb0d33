//! All sessions of the machine: the container's own, and any number of processes beside it.
//!
//! Each has a key and a bell. What concerns one session rings its bell (its streams, the start of its process,
//! its channels, the end of its process, its timer), and a turn looks only at those that have rung. The
//! container's own session is there from the start and stays; the others are forgotten when they are over, but
//! for a short note on how they ended, for a multiplexer that has been replaced meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::task::{Context, Poll, Waker};

use nix::unistd::Pid;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use wire::ChannelId;
use wire::message::guest::{self, Body};

use crate::cgroup::Cgroup;
use crate::clock;
use crate::config::Config;
use crate::process::exec::Inside;
use crate::process::failure::{GENERAL, StartFailure};
use crate::ready::{Bells, Key};
use crate::reap::Exit;
use crate::report::Reporter;
use crate::rootfs::Rootfs;
use crate::session::{Place, RequestError, Session, Teller};
use crate::uplink::{Uplink, UplinkError};
use crate::volumes::Volume;

mod request;

/// The key of the container's own session.
const FIRST: Key = 0;

/// The most processes beside the container's own at once, those included whose output is still to be taken.
/// The link has channels for two each.
pub const MAX_BESIDE: usize = 400;

/// Notes kept on how sessions ended.
const MAX_ENDED: usize = 128;

/// What the container's processes are started in.
#[derive(Debug)]
struct Container {
    rootfs: Rootfs,
    cgroup: Cgroup,
    /// The namespaces, with the process that holds them.
    inside: Option<(Pid, Inside)>,
    is_paused: bool,
}

/// A session, and under what it is found.
#[derive(Debug)]
struct Slot {
    session: Session,
    bell: Waker,
    deadline: Option<Instant>,
    pid: Option<Pid>,
    channels: Vec<ChannelId>,
}

/// How a session ended that is forgotten.
#[derive(Debug)]
struct Ended {
    known: guest::Known,
    how: Body,
}

/// The sessions.
#[derive(Debug)]
pub struct Sessions {
    slots: BTreeMap<Key, Slot>,
    by_id: HashMap<String, Key>,
    by_pid: HashMap<Pid, Key>,
    by_channel: HashMap<ChannelId, Key>,
    deadlines: BTreeSet<(Instant, Key)>,
    last_key: Key,
    bells: Bells,
    ended: VecDeque<Ended>,
    /// Sessions of the config that start once the container's own runs.
    configured: Vec<Session>,
    reporter: Reporter,
    container: Option<Container>,
    /// The container's own session waits until somebody is attached.
    is_blocked: bool,
}

impl Sessions {
    /// Those of the config; nothing is started yet.
    pub fn new(config: &Config) -> Self {
        let beside = config.spec.execs.values().filter(|session| session.active);
        let configured = beside.map(|session| Session::configured(&config.spec, session)).collect();
        let mut all = Self {
            slots: BTreeMap::new(),
            by_id: HashMap::new(),
            by_pid: HashMap::new(),
            by_channel: HashMap::new(),
            deadlines: BTreeSet::new(),
            last_key: FIRST,
            bells: Bells::default(),
            ended: VecDeque::new(),
            configured,
            reporter: Reporter::new(config),
            container: None,
            is_blocked: config.session.run_block,
        };
        all.insert(FIRST, Session::new(config));
        all
    }

    fn insert(&mut self, key: Key, session: Session) {
        self.by_id.insert(session.id().to_owned(), key);
        let bell = self.bells.bell(key);
        let (deadline, pid, channels) = (None, None, Vec::new());
        self.slots.insert(key, Slot { session, bell, deadline, pid, channels });
        self.bells.ring(key);
    }

    /// The container's own session.
    pub fn first(&self) -> &Session {
        // It is never removed.
        &self.slots[&FIRST].session
    }

    /// The container's own session.
    pub fn first_mut(&mut self) -> &mut Session {
        self.bells.ring(FIRST);
        // It is never removed.
        &mut self.slots.get_mut(&FIRST).expect("the first session stays").session
    }

    /// Takes a session of the config, which starts as soon as the container's own runs. One of an id that is
    /// known is left alone.
    pub fn configure(&mut self, session: Session) {
        if self.key(session.id()) == Err(RequestError::NoSession(session.id().to_owned())) {
            self.configured.push(session);
            self.bells.ring(FIRST);
        }
    }

    /// Whether a session of that id is there.
    pub fn has(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Those beside it.
    pub fn beside(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().filter(|(key, _)| **key != FIRST).map(|(_, slot)| &slot.session)
    }

    /// The container's cgroup, once it has one.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.container.as_ref().map(|container| &container.cgroup)
    }

    /// Whether the container's processes are frozen.
    pub fn is_paused(&self) -> bool {
        self.container.as_ref().is_some_and(|container| container.is_paused)
    }

    /// The report on the container.
    pub fn reporter(&mut self) -> &mut Reporter {
        &mut self.reporter
    }

    /// Whether all of them are over.
    pub fn are_over(&self) -> bool {
        self.slots.values().all(|slot| slot.session.is_over())
    }

    /// Waits until there is something to do.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn wait(&self) {
        self.bells.wait().await;
    }

    /// Whether [`wait`](Self::wait) would end at once.
    pub fn are_due(&self) -> bool {
        self.bells.have_rung()
    }

    /// When the next turn is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Gives the container's own session its root, and starts it unless it waits for somebody to attach.
    pub fn place(&mut self, rootfs: Rootfs, cgroup: Cgroup, uplink: &mut Uplink) {
        self.container = Some(Container { rootfs, cgroup, inside: None, is_paused: false });
        if self.is_blocked {
            return info!("session {} waits until somebody is attached", self.first().id());
        }
        self.start_first(uplink);
    }

    /// Mounts a further volume with each start from now on.
    pub fn add_volume(&mut self, volume: Volume) {
        if let Some(container) = &mut self.container {
            container.rootfs.add(volume);
        }
    }

    /// Mounts a volume no more.
    pub fn remove_volume(&mut self, name: &str) {
        if let Some(container) = &mut self.container {
            container.rootfs.remove(name);
        }
    }

    /// Somebody is attached.
    pub fn begin(&mut self, uplink: &mut Uplink) {
        if std::mem::take(&mut self.is_blocked) {
            self.reporter.released();
            self.start_first(uplink);
        }
    }

    fn start_first(&mut self, uplink: &mut Uplink) {
        let Some(container) = &mut self.container else { return };
        let Some(slot) = self.slots.get_mut(&FIRST) else { return };
        if !slot.session.is_waiting() && !slot.session.is_rested() {
            return;
        }
        container.inside = None;
        let Container { rootfs, cgroup, .. } = &*container;
        let reporter = Some(&mut self.reporter);
        let mut teller = Teller { uplink, reporter, cgroup: Some(cgroup) };
        slot.session.start(Place::Fresh(rootfs, cgroup), &mut teller);
        self.bells.ring(FIRST);
    }

    /// Ends the container's own session before it runs.
    pub fn fail(&mut self, failure: &StartFailure, uplink: &mut Uplink) {
        self.report_failure(failure.exit_code().into(), failure.to_string(), uplink);
    }

    /// Ends the container's own session for a reason outside of it.
    pub fn report_failure(&mut self, code: i32, text: String, uplink: &mut Uplink) {
        self.with(FIRST, uplink, |session, teller| session.report_failure(code, text, teller));
    }

    /// Takes note of an ended child.
    pub fn reaped(&mut self, pid: Pid, exit: Exit, uplink: &mut Uplink) {
        // One that has just been started, and has not had a turn since, is not in the list yet.
        let is_its = |slot: &Slot| slot.session.pid() == Some(pid);
        let started = || self.slots.iter().find(|(_, slot)| is_its(slot)).map(|(key, _)| *key);
        let Some(key) = self.by_pid.get(&pid).copied().or_else(started) else {
            return debug!("orphan {pid} ended");
        };
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.session.reaped(pid, exit);
            self.bells.ring(key);
        }
        // What is frozen can be killed all the same, and the next run would be born frozen.
        if key == FIRST
            && self.is_paused()
            && let Err(error) = self.unpause(uplink)
        {
            warn!("the container stays frozen after its end: {error}");
        }
    }

    /// A channel has bytes, or room.
    pub fn channel_ready(&self, channel: ChannelId) {
        if let Some(key) = self.by_channel.get(&channel) {
            self.bells.ring(*key);
        }
    }

    /// The link is up again, over a pipe of another kind perhaps, which holds more.
    pub fn link_ready(&self) {
        self.slots.keys().for_each(|key| self.bells.ring(*key));
    }

    /// An input channel has ended.
    pub fn input_finished(&mut self, channel: ChannelId) {
        self.at(channel, |session| session.input_finished(channel));
    }

    /// A channel is gone at the other end.
    pub fn channel_gone(&mut self, channel: ChannelId) {
        self.at(channel, |session| session.channel_gone(channel));
    }

    /// The multiplexer does not go on with a channel: another takes its place, where that is of use.
    ///
    /// # Errors
    ///
    /// When the link cannot carry another channel.
    pub fn rolled_back(
        &mut self,
        channel: ChannelId,
        uplink: &mut Uplink,
    ) -> Result<(), UplinkError> {
        self.at(channel, |session| session.rolled_back(channel, uplink)).unwrap_or(Ok(()))
    }

    fn at<T>(&mut self, channel: ChannelId, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let key = self.by_channel.get(&channel)?;
        let slot = self.slots.get_mut(key)?;
        self.bells.ring(*key);
        Some(act(&mut slot.session))
    }

    /// Tells a multiplexer that is new what there is besides the container's own session, and lets go of what
    /// only the last one could go on with.
    ///
    /// # Errors
    ///
    /// When the link cannot carry another channel.
    pub fn introduce(&mut self, uplink: &mut Uplink) -> Result<(), UplinkError> {
        for (key, slot) in &mut self.slots {
            slot.session.peer_is_new(uplink)?;
            self.bells.ring(*key);
        }
        if self.is_paused() {
            uplink.say(Body::Paused(guest::Paused { paused: true }));
        }
        for Ended { known, how } in &self.ended {
            uplink.say(Body::Known(known.clone()));
            uplink.say(how.clone());
        }
        self.beside().for_each(|session| session.introduce(uplink));
        Ok(())
    }

    fn with<T>(
        &mut self,
        key: Key,
        uplink: &mut Uplink,
        act: impl FnOnce(&mut Session, &mut Teller<'_>) -> T,
    ) -> Option<T> {
        let slot = self.slots.get_mut(&key)?;
        let reporter = Some(&mut self.reporter);
        let cgroup = self.container.as_ref().map(|container| &container.cgroup);
        let done = act(&mut slot.session, &mut Teller { uplink, reporter, cgroup });
        self.bells.ring(key);
        Some(done)
    }

    /// Does all that can be done now for those who have something to do.
    pub fn turn(&mut self, uplink: &mut Uplink) {
        self.reporter.publish(uplink);
        let now = Instant::now();
        while let Some((_, key)) = self.deadlines.first().filter(|(at, _)| *at <= now).copied() {
            self.set_deadline(key, None);
            self.bells.ring(key);
        }
        for key in self.bells.take() {
            self.turn_one(key, uplink);
        }
        if self.first().is_rested() {
            self.start_first(uplink);
        }
        if self.first().is_running() {
            for session in std::mem::take(&mut self.configured) {
                let id = session.id().to_owned();
                if let Err(error) = self.start_beside(session, uplink) {
                    warn!("session {id} of the config cannot be started: {error}");
                    let why = error.to_string();
                    self.reporter.failed(&id, GENERAL.into(), &why, clock::wall_us());
                }
            }
        }
    }

    fn turn_one(&mut self, key: Key, uplink: &mut Uplink) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let reporter = Some(&mut self.reporter);
        let cgroup = self.container.as_ref().map(|container| &container.cgroup);
        let mut teller = Teller { uplink, reporter, cgroup };
        let mut context = Context::from_waker(&slot.bell);
        let more = slot.session.turn(&mut context, &mut teller);
        if more == Poll::Ready(()) && !slot.session.is_over() {
            self.bells.ring(key);
        }
        if let Some(pid) = slot.pid.take() {
            self.by_pid.remove(&pid);
        }
        for channel in slot.channels.drain(..) {
            self.by_channel.remove(&channel);
        }
        slot.pid = slot.session.pid();
        slot.channels.extend(slot.session.channels());
        slot.pid.and_then(|pid| self.by_pid.insert(pid, key));
        for channel in &slot.channels {
            self.by_channel.insert(*channel, key);
        }
        let deadline = slot.session.deadline();
        self.set_deadline(key, deadline);
        if key != FIRST && self.slots.get(&key).is_some_and(|slot| slot.session.is_over()) {
            self.forget(key);
        }
    }

    fn set_deadline(&mut self, key: Key, deadline: Option<Instant>) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let old = std::mem::replace(&mut slot.deadline, deadline);
        old.map(|at| self.deadlines.remove(&(at, key)));
        deadline.map(|at| self.deadlines.insert((at, key)));
    }

    fn forget(&mut self, key: Key) {
        self.set_deadline(key, None);
        let Some(slot) = self.slots.remove(&key) else { return };
        self.by_id.remove(slot.session.id());
        if let Some(how) = slot.session.last_words() {
            let known = slot.session.known();
            self.ended.push_back(Ended { known, how: how.clone() });
            if self.ended.len() > MAX_ENDED {
                self.ended.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests;
