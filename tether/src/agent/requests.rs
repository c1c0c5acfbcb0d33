//! What the multiplexer asks of the agent, and who in here answers it.

use std::time::Duration;

use tracing::debug;
use wire::message::{MuxMessage, guest, mux};

use super::{Agent, AgentError};
use crate::session::{RequestError, STOP_GRACE};

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
        debug!("request {message:?}");
        let answer = match message.body {
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
                sessions.begin(uplink)?;
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
