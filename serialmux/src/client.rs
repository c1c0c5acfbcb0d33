//! Talking to a daemon: one connection per request.

use crate::api::{Answer, Receiver, Request, Sender, answer, messages, request};
use crate::place::Place;
use crate::reunion;
use std::io;
use std::path::PathBuf;
use thiserror::Error;
use tokio::net::UnixStream;

/// Why a request was not carried out.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody there.
    #[error("no serialmux answers on {socket} ({source}); start one with `serialmux serve`")]
    Absent {
        /// The socket tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error(
        "the connection to serialmux broke: {0}; see its log, and whether `serialmux ps` works"
    )]
    Broken(#[from] io::Error),
    /// Refused, in the daemon's words.
    #[error("{0}")]
    Refused(String),
    /// An answer that does not fit.
    #[error("serialmux answered something else than asked; are client and daemon of one version?")]
    Odd,
}

impl ClientError {
    /// Whether no daemon runs.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}

/// A daemon's clients' door.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon of this place.
    pub fn new(place: &Place) -> Self {
        Self { socket: place.socket() }
    }

    /// Sends a request; the answers are the caller's to read.
    ///
    /// # Errors
    /// [`ClientError::Absent`] or [`ClientError::Broken`].
    pub async fn open(&self, body: request::Body) -> Result<(Sender, Receiver), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Absent { socket: self.socket.clone(), source })?;
        let (mut sender, receiver) = messages(stream);
        sender.send(&Request { body: Some(body) }).await?;
        Ok((sender, receiver))
    }

    async fn ask(&self, body: request::Body) -> Result<answer::Body, ClientError> {
        let (_sender, mut receiver) = self.open(body).await?;
        next(&mut receiver).await
    }

    async fn tell(&self, body: request::Body) -> Result<(), ClientError> {
        match self.ask(body).await? {
            answer::Body::Done(_) => Ok(()),
            _ => Err(ClientError::Odd),
        }
    }

    /// Who the daemon is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn hello(&self) -> Result<answer::Hello, ClientError> {
        match self.ask(request::Body::Hello(request::Hello {})).await? {
            answer::Body::Hello(hello) => Ok(hello),
            _ => Err(ClientError::Odd),
        }
    }

    /// All containers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self) -> Result<Vec<answer::Summary>, ClientError> {
        match self.ask(request::Body::List(request::Hello {})).await? {
            answer::Body::List(list) => Ok(list.containers),
            _ => Err(ClientError::Odd),
        }
    }

    /// Everything known of a container, as one JSON object.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn inspect(&self, container: String) -> Result<String, ClientError> {
        match self.ask(request::Body::Inspect(request::Container { container })).await? {
            answer::Body::Inspection(inspection) => Ok(inspection.json),
            _ => Err(ClientError::Odd),
        }
    }

    // Asks for what may be asked again: a daemon that goes away before it answers is waited for.
    async fn insist(
        &self,
        body: request::Body,
        (mut sender, mut receiver): (Sender, Receiver),
    ) -> Result<answer::Body, ClientError> {
        loop {
            match next(&mut receiver).await {
                Err(error) if reunion::is_away(&error) => {
                    drop(sender);
                    (sender, receiver) = reunion::open(self, || body.clone()).await?;
                }
                answer => return answer,
            }
        }
    }

    /// Waits until a container has ended, whatever becomes of the daemon meanwhile.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn wait(&self, container: String) -> Result<answer::Exit, ClientError> {
        let body = request::Body::Wait(request::Container { container });
        let open = self.open(body.clone()).await?;
        match self.insist(body, open).await? {
            answer::Body::Exit(exit) => Ok(exit),
            _ => Err(ClientError::Odd),
        }
    }

    /// Registers a container.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn register(&self, register: request::Register) -> Result<(), ClientError> {
        self.tell(request::Body::Register(register)).await
    }

    /// Forgets a container.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove(&self, container: String) -> Result<(), ClientError> {
        self.tell(request::Body::Remove(request::Container { container })).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill(&self, container: String, signal: i32) -> Result<(), ClientError> {
        self.kill_exec(container, String::new(), signal).await
    }

    /// Sends a signal to the process of an exec; that of the container if its id is empty.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill_exec(
        &self,
        container: String,
        exec: String,
        signal: i32,
    ) -> Result<(), ClientError> {
        self.tell(request::Body::Kill(request::Kill { container, signal, exec })).await
    }

    /// Sets a terminal's size.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn resize(
        &self,
        container: String,
        rows: u32,
        columns: u32,
    ) -> Result<(), ClientError> {
        self.resize_exec(container, String::new(), (rows, columns)).await
    }

    /// Sets the size of an exec's terminal; of the container's if its id is empty.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn resize_exec(
        &self,
        container: String,
        exec: String,
        (rows, columns): (u32, u32),
    ) -> Result<(), ClientError> {
        let resize = request::Resize { container, rows, columns, exec };
        self.tell(request::Body::Resize(resize)).await
    }

    /// Asks a container to end, and waits until it has.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stop(&self, stop: request::Stop) -> Result<(), ClientError> {
        self.tell(request::Body::Stop(stop)).await
    }

    /// Freezes a container's processes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pause(&self, container: String) -> Result<(), ClientError> {
        self.tell(request::Body::Pause(request::Container { container })).await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unpause(&self, container: String) -> Result<(), ClientError> {
        self.tell(request::Body::Unpause(request::Container { container })).await
    }

    /// Has a container's agent read its config again; what it did about it, in its words.
    ///
    /// # Errors
    /// [`ClientError`]; a config with faults is refused.
    pub async fn reload(&self, container: String) -> Result<String, ClientError> {
        self.tell(request::Body::Reload(request::Container { container: container.clone() }))
            .await?;
        let known: serde_json::Value =
            serde_json::from_str(&self.inspect(container).await?).map_err(|_| ClientError::Odd)?;
        // Of either generation of keys.
        let report = known["report"].as_object();
        let told = report.and_then(|it| it.iter().find(|(key, _)| key.ends_with(".link.reload")));
        let words = told.and_then(|(_, words)| words.as_str()).ok_or(ClientError::Odd)?;
        Ok(words.split_once(": ").map_or(words, |(_count, words)| words).to_owned())
    }

    /// Holds all writes to a container's disk for at most so many seconds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn freeze(&self, container: String, seconds: u32) -> Result<(), ClientError> {
        let freeze = crate::api::inside::Freeze { container, seconds };
        self.tell(request::Body::Freeze(freeze)).await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn thaw(&self, container: String) -> Result<(), ClientError> {
        self.tell(request::Body::Thaw(request::Container { container })).await
    }

    /// Reports a container's VM as gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn gone(&self, container: String, text: String) -> Result<(), ClientError> {
        self.tell(request::Body::Gone(request::Gone { container, text, since_us: 0 })).await
    }

    /// The same of a VM that was started at `since_us`, to the next daemon if there is none now.
    ///
    /// # Errors
    /// [`ClientError`], also when another has been started meanwhile.
    pub async fn gone_at_last(
        &self,
        container: String,
        text: String,
        since_us: u64,
    ) -> Result<(), ClientError> {
        let body = request::Body::Gone(request::Gone { container, text, since_us });
        let open = reunion::open(self, || body.clone()).await?;
        match self.insist(body, open).await? {
            answer::Body::Done(_) => Ok(()),
            _ => Err(ClientError::Odd),
        }
    }
}

/// The next answer of an open request.
///
/// # Errors
/// [`ClientError::Refused`] for a refusal, [`ClientError::Broken`] when there is none.
pub async fn next(receiver: &mut Receiver) -> Result<answer::Body, ClientError> {
    let eof = || io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
    let answer: Answer = receiver.receive().await?.ok_or_else(eof)?;
    match answer.body.ok_or(ClientError::Odd)? {
        answer::Body::Error(answer::Error { text }) => Err(ClientError::Refused(text)),
        body => Ok(body),
    }
}
