//! RPCI: the requests that a guest makes of VMware's hypervisor, one channel each.
//!
//! A request is a line of text, its reply `1 ` and a payload, or `0 ` and a reason. A channel that
//! a suspend or a vMotion has taken away is opened anew, once: every request made here may be made
//! twice.

use std::str;

use crate::backdoor::{BackdoorError, Channel, Port, Protocol, Step};

mod packet;
mod values;
mod vsock;

pub use packet::{PacketError, Packets};
pub use values::{RpciSink, RpciSource};
pub use vsock::{VsockSink, VsockSource};

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpciError {
    /// It did not reach the hypervisor, or no reply came back.
    #[error("{request}: {source}")]
    Backdoor {
        /// The request's start.
        request: String,
        /// What went wrong.
        source: BackdoorError,
    },
    /// The same, of a socket to the hypervisor.
    #[error("{request}: {source}")]
    Packet {
        /// The request's start.
        request: String,
        /// What went wrong.
        source: PacketError,
    },
    /// The hypervisor had nothing to say.
    #[error("{request}: the hypervisor took it but has no reply; expected `1 …` or `0 …`")]
    NoReply {
        /// The request's start.
        request: String,
    },
    /// The reply is not one.
    #[error("{request}: the hypervisor replied {reply}; expected `1 …` or `0 …`")]
    Garbage {
        /// The request's start.
        request: String,
        /// The reply's start, quoted.
        reply: String,
    },
    /// The hypervisor will not do it.
    #[error("{request}: the hypervisor refused: {reason}")]
    Refused {
        /// The request's start.
        request: String,
        /// Its words.
        reason: String,
    },
    /// A name that the request has no room for.
    #[error(
        "{key:?} cannot be asked for: a request ends its key at the first blank or NUL; expected a key without"
    )]
    Key {
        /// The name.
        key: String,
    },
}

/// A way for requests to reach the hypervisor: every [`Port`], and [`Packets`] over a socket.
pub trait Requests {
    /// Makes one request and gives the payload of its reply.
    ///
    /// # Errors
    /// The hypervisor was not reached, refused, or replied something that makes no sense.
    fn request(&mut self, request: &[u8]) -> Result<Vec<u8>, RpciError>;
}

impl<P: Port + ?Sized> Requests for P {
    fn request(&mut self, request: &[u8]) -> Result<Vec<u8>, RpciError> {
        let exchanged = exchange(self, request).or_else(|error| match error {
            // The channel is gone, as after a vMotion; the hypervisor is not.
            BackdoorError::Refused { step, .. } if step != Step::Open => exchange(self, request),
            error => Err(error),
        });
        let reply = exchanged
            .map_err(|source| RpciError::Backdoor { request: name_of(request), source })?
            .ok_or_else(|| RpciError::NoReply { request: name_of(request) })?;
        payload(request, &reply)
    }
}

fn exchange<P: Port + ?Sized>(
    port: &mut P,
    request: &[u8],
) -> Result<Option<Vec<u8>>, BackdoorError> {
    let mut channel = Channel::open(port, Protocol::Rpci)?;
    channel.send(request)?;
    channel.receive()
}

/// What a reply says.
fn payload(request: &[u8], reply: &[u8]) -> Result<Vec<u8>, RpciError> {
    let refused = |reason: &[u8]| {
        let reason = String::from_utf8_lossy(reason).trim_end_matches('\0').to_owned();
        Err(RpciError::Refused { request: name_of(request), reason })
    };
    match reply {
        [b'1'] => Ok(Vec::new()),
        [b'1', b' ', payload @ ..] => Ok(payload.to_vec()),
        [b'0'] => refused(b"no reason given"),
        [b'0', b' ', reason @ ..] => refused(reason),
        reply => {
            const SHOWN: usize = 80;
            let reply = format!("{:?}", start_of(reply, SHOWN));
            Err(RpciError::Garbage { request: name_of(request), reply })
        }
    }
}

/// The value of a guestinfo key, raw; `None` if it has none.
///
/// # Errors
/// As [`Requests::request`]; that there is no value is not an error.
pub fn info_get<R: Requests + ?Sized>(
    host: &mut R,
    key: &str,
) -> Result<Option<Vec<u8>>, RpciError> {
    let line = format!("info-get {}", checked(key)?);
    match host.request(line.as_bytes()) {
        Ok(value) => Ok(Some(value)),
        Err(RpciError::Refused { reason, .. }) if reason == "No value found" => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives a guestinfo key a value. What can be kept is for the hypervisor to say; commonly 64 KiB.
///
/// # Errors
/// As [`Requests::request`]; that the hypervisor refuses is one.
pub fn info_set<R: Requests + ?Sized>(
    host: &mut R,
    key: &str,
    value: &[u8],
) -> Result<(), RpciError> {
    let mut line = format!("info-set {} ", checked(key)?).into_bytes();
    line.extend_from_slice(value);
    host.request(&line).map(drop)
}

fn checked(key: &str) -> Result<&str, RpciError> {
    if key.is_empty() || key.contains([' ', '\0']) {
        return Err(RpciError::Key { key: key.to_owned() });
    }
    Ok(key)
}

/// A request without its payload, which may be long and nobody's business. Its key is all there: with an id of
/// VIC's, of 64 digits, and names of a network, a volume, an environment below it.
fn name_of(request: &[u8]) -> String {
    const SHOWN: usize = 512;
    let words: Vec<&[u8]> = request.splitn(3, |byte| *byte == b' ').take(2).collect();
    start_of(&words.join(&b' '), SHOWN)
}

/// Enough of a message to know it by.
fn start_of(message: &[u8], most: usize) -> String {
    match message.get(..most) {
        Some(start) => format!("{}…", String::from_utf8_lossy(start)),
        None => String::from_utf8_lossy(message).into_owned(),
    }
}
