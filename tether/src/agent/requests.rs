//! What the multiplexer asks of the agent, and who in here answers it.

use std::time::Duration;

use prost::Message as _;
use tracing::debug;
use wire::message::inside::{Diagnosis, Fact};
use wire::message::{MuxMessage, guest, mux};

use super::{Agent, AgentError};
use crate::inside::{Inside, diagnosis};
use crate::session::{RequestError, STOP_GRACE};

/// Sessions that a diagnosis tells of.
const MAX_SHOWN: usize = 100;

/// What comes of a request at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is done, and this is what was asked for; mostly nothing.
    Done(Vec<u8>),
    /// It is not done, and why, for people.
    Refused(String),
}

impl Answer {
    fn unknown() -> Self {
        Self::Refused("this agent does not know the request; a newer one may".to_owned())
    }
}

impl From<Result<(), RequestError>> for Answer {
    fn from(result: Result<(), RequestError>) -> Self {
        match result {
            Ok(()) => Self::Done(Vec::new()),
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}

impl Agent {
    /// Does what is asked and answers.
    ///
    /// # Errors
    ///
    /// What a start that was waited for cannot do without.
    pub(super) fn request(&mut self, message: MuxMessage) -> Result<(), AgentError> {
        // Before anything is logged: a seed is a secret.
        if message.body.as_ref().is_some_and(|body| self.upkeep.take(body)) {
            return Ok(());
        }
        debug!("request {message:?}");
        let answer = match message.body {
            Some(mux::Body::Diagnose(_)) => Answer::Done(self.diagnosis().encode_to_vec()),
            Some(body) if Inside::takes(&body) => {
                self.look_inside(message.request, &body);
                return Ok(());
            }
            Some(body) => self.perform(body)?,
            None => {
                Answer::Refused("this agent does not know the request; a newer one may".to_owned())
            }
        };
        self.answer(message.request, answer);
        Ok(())
    }

    /// Answers a request, at once or later.
    pub(super) fn answer(&mut self, request: u64, answer: Answer) {
        let (error, body) = match answer {
            Answer::Done(body) => (String::new(), body),
            Answer::Refused(error) => (error, Vec::new()),
        };
        self.uplink.say(guest::Body::Reply(guest::Reply { request, error, body }));
    }

    /// What is answered by, or through, [`crate::inside`].
    fn look_inside(&mut self, request: u64, body: &mux::Body) {
        let first = self.sessions.first();
        let process = first.pid().filter(|_| first.is_running());
        if let Some(reply) = self.inside.request(request, body, process, &mut self.uplink) {
            self.uplink.say(guest::Body::Reply(reply));
        }
    }

    fn diagnosis(&mut self) -> Diagnosis {
        let first = self.sessions.first();
        let each = std::iter::once(first).chain(self.sessions.beside());
        // Hundreds are possible, and a message has an end.
        let sessions = each.take(MAX_SHOWN).map(|session| {
            let pid = session.pid().map_or(String::new(), |pid| format!(", process {pid}"));
            (session.id().to_owned(), format!("{}{pid}", session.word()))
        });
        let paused = [("paused".to_owned(), self.sessions.is_paused().to_string())];
        let [kept, spooled, dropped] = first.kept();
        let output = [
            ("output kept, bytes".to_owned(), kept.to_string()),
            ("of it on a disk".to_owned(), spooled.to_string()),
            ("output dropped".to_owned(), dropped.to_string()),
        ];
        let facts = paused.into_iter().chain(output).chain(sessions);
        let sessions = diagnosis::section("sessions", facts);
        let transport = self.uplink.transport();
        let queued = self.uplink.n_queued();
        let link = self.uplink.link();
        let mut link = diagnosis::link_section(link.stats(), link.rtt(), queued);
        link.facts.push(Fact { name: "pipe".to_owned(), value: format!("{transport:?}") });
        let stopping = [
            ("stopping".to_owned(), self.stopping.to_string()),
            ("reloads".to_owned(), self.n_reloads.to_string()),
        ];
        let agent = diagnosis::section("state", stopping);
        diagnosis::diagnose(vec![agent, sessions, link], &self.inside)
    }

    fn perform(&mut self, body: mux::Body) -> Result<Answer, AgentError> {
        let Self { sessions, uplink, .. } = self;
        let done = match body {
            mux::Body::Signal(it) => sessions.signal(&it.session, it.signal, uplink),
            mux::Body::Resize(it) => sessions.resize(&it.session, it.rows, it.columns),
            mux::Body::Exec(exec) => sessions.exec(&exec, uplink),
            mux::Body::Stop(it) => {
                let number = Some(it.signal).filter(|number| *number != 0);
                let grace = it.grace.map_or(STOP_GRACE, Duration::from_secs);
                sessions.stop(&it.session, number, grace, uplink)
            }
            mux::Body::Pause(_) => sessions.pause(uplink),
            mux::Body::Unpause(_) => sessions.unpause(uplink),
            mux::Body::Begin(_) => {
                sessions.begin(uplink);
                Ok(())
            }
            mux::Body::Shutdown(_) => {
                self.stop();
                Ok(())
            }
            mux::Body::Reload(_) => {
                return Ok(match self.reload() {
                    Ok(()) => Answer::Done(Vec::new()),
                    Err(why) => Answer::Refused(why),
                });
            }
            _ => return Ok(Answer::unknown()),
        };
        Ok(done.into())
    }
}
