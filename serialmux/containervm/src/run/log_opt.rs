//! `--log-opt`: what becomes of output that nobody takes, in Docker's words for its log drivers.

use std::str::FromStr;

use guestinfo::{LinkMode, LinkSpec};

use super::quantity;

/// Less is not worth a disk.
const LEAST_SPOOL: u64 = 1 << 20;

/// One `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOpt {
    /// `mode`.
    Mode(LinkMode),
    /// `max-buffer-size`, bytes.
    MaxBufferSize(u64),
    /// `spool`, bytes of its disk. Ours.
    Spool(u64),
}

/// What is no such option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no option of the log: give mode=blocking, mode=non-blocking, max-buffer-size=SIZE (such as 4m), or spool=SIZE (1m at least)"
)]
pub struct LogOptError(String);

impl LogOpt {
    /// Writes it where the agent finds it.
    pub fn apply(&self, link: &mut LinkSpec) {
        match self {
            Self::Mode(mode) => link.mode = *mode,
            Self::MaxBufferSize(bytes) => link.max_buffer_size = *bytes,
            Self::Spool(_) => link.spool = true,
        }
    }
}

impl FromStr for LogOpt {
    type Err = LogOptError;

    fn from_str(text: &str) -> Result<Self, LogOptError> {
        let fault = || LogOptError(text.to_owned());
        match text.split_once('=').ok_or_else(fault)? {
            ("mode", "blocking") => Ok(Self::Mode(LinkMode::Blocking)),
            ("mode", "non-blocking") => Ok(Self::Mode(LinkMode::NonBlocking)),
            ("max-buffer-size", size) => {
                quantity::bytes(size).map(Self::MaxBufferSize).map_err(|_| fault())
            }
            ("spool", size) => match quantity::bytes(size) {
                Ok(bytes @ LEAST_SPOOL..) => Ok(Self::Spool(bytes)),
                Ok(_) | Err(_) => Err(fault()),
            },
            _ => Err(fault()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_options_are_taken_and_others_refused_with_what_is_possible() {
        let mut link = LinkSpec::default();
        for text in ["mode=non-blocking", "max-buffer-size=4m", "spool=64m"] {
            text.parse::<LogOpt>().unwrap().apply(&mut link);
        }
        assert_eq!((link.mode, link.max_buffer_size), (LinkMode::NonBlocking, 4 << 20));
        assert!(link.spool);
        assert_eq!("spool=1.5m".parse(), Ok(LogOpt::Spool(3 << 19)));
        for text in ["mode", "mode=fast", "max-size=1m", "max-buffer-size=much", "spool=9k"] {
            let error = text.parse::<LogOpt>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("mode=blocking"), "{error}");
        }
    }
}
