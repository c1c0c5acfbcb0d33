//! Whether a session's process is run again when it has ended, as its keys say.

use thiserror::Error;

use super::SessionSpec;

/// When to run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    No,
    /// When the exit code is not 0, at most so often.
    OnFailure(Option<u32>),
    /// Always. Docker's `unless-stopped` differs from `always` only when the daemon starts, which here is the
    /// hypervisor's part.
    Always,
}

/// A text that names no policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "restart policy {0:?} is none: give no, on-failure, on-failure:N, always or unless-stopped"
)]
pub struct PolicyError(String);

impl RestartPolicy {
    /// The policy of a config's session. VIC's own key only knows yes and no.
    ///
    /// # Errors
    ///
    /// [`PolicyError`].
    pub fn of(session: &SessionSpec) -> Result<Self, PolicyError> {
        let text = session.restart_policy.trim();
        let (name, times) = text.split_once(':').map_or((text, None), |(n, t)| (n, Some(t)));
        match (name, times) {
            ("", None) if session.restart => Ok(Self::Always),
            ("" | "no", None) => Ok(Self::No),
            ("always" | "unless-stopped", None) => Ok(Self::Always),
            ("on-failure", None | Some("0")) => Ok(Self::OnFailure(None)),
            ("on-failure", Some(times)) => {
                let times = times.parse().map_err(|_| PolicyError(text.to_owned()))?;
                Ok(Self::OnFailure(Some(times)))
            }
            _ => Err(PolicyError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str, restart: bool) -> Result<RestartPolicy, PolicyError> {
        let spec =
            SessionSpec { restart, restart_policy: text.to_owned(), ..SessionSpec::default() };
        RestartPolicy::of(&spec)
    }

    #[test]
    fn policies_are_read_as_docker_reads_them() {
        use RestartPolicy::{Always, No, OnFailure};
        for (text, restart, expected) in [
            ("", false, No),
            ("", true, Always),
            ("no", true, No),
            ("always", false, Always),
            ("unless-stopped", false, Always),
            ("on-failure", false, OnFailure(None)),
            ("on-failure:0", false, OnFailure(None)),
            ("on-failure:7", false, OnFailure(Some(7))),
        ] {
            assert_eq!(policy(text, restart), Ok(expected), "{text}");
        }
        for text in ["sometimes", "always:3", "no:1", "on-failure:x", "on-failure:-1", ":"] {
            assert!(policy(text, false).unwrap_err().to_string().contains(text));
        }
    }
}
