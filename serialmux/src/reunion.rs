//! Coming back to a daemon that went away: how long, and how often it is tried.

use crate::api::{Receiver, Sender, request};
use crate::client::{Client, ClientError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How long a daemon may stay away. A restart takes a moment, an upgrade or a reboot of its machine's
/// services some seconds; after that it will not come back by itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between the first two attempts; twice as long each time after that. A daemon that starts tells
/// nobody, so it has to be asked.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(500);

/// Whether an error means that the daemon went away, and not that it said no.
pub fn is_away(error: &ClientError) -> bool {
    matches!(error, ClientError::Absent { .. } | ClientError::Broken(_))
}

/// Sends a request to a daemon as soon as there is one again.
///
/// # Errors
/// The last attempt's, when there is none in time.
pub async fn open(
    client: &Client,
    request: impl Fn() -> request::Body,
) -> Result<(Sender, Receiver), ClientError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST;
    loop {
        let attempt = timeout_at(deadline, client.open(request())).await;
        let Ok(attempt) = attempt else {
            return Err(ClientError::Broken(std::io::ErrorKind::TimedOut.into()));
        };
        match attempt {
            Err(error) if is_away(&error) && Instant::now() + pause < deadline => {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
            done => return done,
        }
    }
}
