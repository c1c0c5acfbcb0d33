//! What is asked of the sessions, and of the container as a whole.

use std::time::Duration;

use tracing::warn;
use wire::message::guest::{self, Body};
use wire::message::mux;

use super::{FIRST, MAX_BESIDE, Sessions};
use crate::process::exec::Inside;
use crate::process::failure::StartFailure;
use crate::ready::Key;
use crate::session::{Place, RequestError, Session, Teller};
use crate::uplink::Uplink;

impl Sessions {
    /// Runs another process beside the container's own. Asking again for an id that is known does nothing.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; what goes wrong later is told as the session's failure.
    pub fn exec(&mut self, request: &mux::Exec, uplink: &mut Uplink) -> Result<(), RequestError> {
        let id = &request.session;
        if self.by_id.contains_key(id) || self.ended.iter().any(|it| it.known.session == *id) {
            return Ok(());
        }
        if request.args.first().is_none_or(String::is_empty) {
            return Err(RequestError::NoCommand);
        }
        let session = Session::requested(self.first(), request);
        self.start_beside(session, uplink)
    }

    pub(super) fn start_beside(
        &mut self,
        session: Session,
        uplink: &mut Uplink,
    ) -> Result<(), RequestError> {
        if self.slots.len() > MAX_BESIDE {
            return Err(RequestError::TooMany(MAX_BESIDE));
        }
        let first = self.first();
        let pid = first.pid().filter(|_| first.is_running()).ok_or(RequestError::NotRunning)?;
        let container = self.container.as_mut().ok_or(RequestError::NotRunning)?;
        if container.is_paused {
            return Err(RequestError::Paused);
        }
        let start = |failure: StartFailure| RequestError::Start(failure.to_string());
        let inside = match container.inside.take().filter(|(of, _)| *of == pid) {
            Some((_, inside)) => inside,
            None => Inside::of(pid).map_err(start)?,
        };
        let (_, inside) = &*container.inside.insert((pid, inside));
        let mut session = session;
        uplink.say(Body::Known(session.known()));
        let cgroup = &container.cgroup;
        let reporter = Some(&mut self.reporter);
        let mut teller = Teller { uplink, reporter, cgroup: Some(cgroup) };
        session.start(Place::Beside(inside, cgroup), &mut teller);
        self.last_key += 1;
        self.insert(self.last_key, session);
        Ok(())
    }

    /// Freezes the container's processes.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn pause(&mut self, uplink: &mut Uplink) -> Result<(), RequestError> {
        if !self.first().is_running() {
            return Err(RequestError::NotRunning);
        }
        let container = self.container.as_mut().ok_or(RequestError::NotRunning)?;
        if container.is_paused {
            return Err(RequestError::Paused);
        }
        container.cgroup.freeze(true).map_err(|e| RequestError::Freezer(e.to_string()))?;
        container.is_paused = true;
        uplink.say(Body::Paused(guest::Paused { paused: true }));
        Ok(())
    }

    /// Lets them go on.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn unpause(&mut self, uplink: &mut Uplink) -> Result<(), RequestError> {
        let container = self.container.as_mut().ok_or(RequestError::NotRunning)?;
        if !container.is_paused {
            return Err(RequestError::NotPaused);
        }
        container.cgroup.freeze(false).map_err(|e| RequestError::Freezer(e.to_string()))?;
        container.is_paused = false;
        uplink.say(Body::Paused(guest::Paused { paused: false }));
        Ok(())
    }

    /// Sends a signal to a session's process.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn signal(
        &mut self,
        id: &str,
        number: i32,
        uplink: &mut Uplink,
    ) -> Result<(), RequestError> {
        let key = self.key(id)?;
        let sent = self.with(key, uplink, |session, teller| session.signal(number, teller));
        sent.ok_or(RequestError::Ended)??;
        self.let_die(number, uplink)
    }

    /// Sends a signal to the container's own process, or to all in its group.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn signal_first(
        &mut self,
        number: i32,
        group: bool,
        uplink: &mut Uplink,
    ) -> Result<(), RequestError> {
        if !group {
            let id = self.first().id().to_owned();
            return self.signal(&id, number, uplink);
        }
        let act =
            |session: &mut Session, teller: &mut Teller<'_>| session.signal_group(number, teller);
        self.with(FIRST, uplink, act).ok_or(RequestError::Ended)??;
        self.let_die(number, uplink)
    }

    /// Unpauses a container that was sent `number` if that kills: a frozen process ends only when it is let go, and
    /// who kills means it.
    fn let_die(&mut self, number: i32, uplink: &mut Uplink) -> Result<(), RequestError> {
        if number == libc::SIGKILL && self.is_paused() {
            return self.unpause(uplink);
        }
        Ok(())
    }

    /// Sets the size of a session's terminal.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn resize(&mut self, id: &str, rows: u32, columns: u32) -> Result<(), RequestError> {
        let key = self.key(id)?;
        let slot = self.slots.get_mut(&key).ok_or(RequestError::Ended)?;
        slot.session.resize(rows, columns)
    }

    /// Asks a session's process to end, and kills it later.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn stop(
        &mut self,
        id: &str,
        number: Option<i32>,
        grace: Duration,
        uplink: &mut Uplink,
    ) -> Result<(), RequestError> {
        let key = self.key(id)?;
        let asked = self.with(key, uplink, |session, teller| session.stop(number, grace, teller));
        asked.ok_or(RequestError::Ended)??;
        // As Docker does: the signal first, so that it is what a frozen process wakes up to.
        if self.is_paused() {
            return self.unpause(uplink);
        }
        Ok(())
    }

    /// Asks the container to end.
    pub fn stop_all(&mut self, grace: Duration, uplink: &mut Uplink) {
        let id = self.first().id().to_owned();
        if let Err(error) = self.stop(&id, None, grace, uplink) {
            warn!("session {id} cannot be stopped: {error}");
        }
    }

    /// Ends the container's own session without its process, if that is still there after a stop. One that has
    /// ended is left alone: its output still drains, which has bounds of its own.
    pub fn leave_first(&mut self, code: i32, text: &str, uplink: &mut Uplink) {
        if self.first().pid().is_some() {
            self.report_failure(code, text.to_owned(), uplink);
        }
    }

    pub(super) fn key(&self, id: &str) -> Result<Key, RequestError> {
        let ended = || self.ended.iter().any(|it| it.known.session == id);
        self.by_id.get(id).copied().ok_or_else(|| {
            if ended() { RequestError::Ended } else { RequestError::NoSession(id.to_owned()) }
        })
    }
}
