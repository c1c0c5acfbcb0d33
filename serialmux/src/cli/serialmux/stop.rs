//! `serialmux stop`, and the part of `containervm stop` that the container notices.

use super::change::signal_number;
use crate::api::request;
use crate::client::Client;
use clap::Args;
use std::process::ExitCode;

/// Which containers to stop, and how.
#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds until they are killed
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u64>,
    /// The signal that asks, instead of the container's own
    #[arg(short, long)]
    signal: Option<String>,
    /// Names, ids or unique starts of ids
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

impl Stop {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<ExitCode> {
        let names = self.containers.clone();
        crate::cli::each("serialmux", names, |name| {
            let stop = &self;
            async move {
                stop.one(client, name.clone()).await?;
                println!("{name}");
                Ok(())
            }
        })
        .await
    }

    /// Stops one, and waits until it has ended.
    ///
    /// # Errors
    /// When it does not exist, or cannot be asked.
    pub(crate) async fn one(&self, client: &Client, container: String) -> anyhow::Result<()> {
        let signal = self.signal.as_deref().map_or(Ok(0), signal_number)?;
        client.stop(request::Stop { container, grace: self.time, signal }).await?;
        Ok(())
    }

    /// How long it may take.
    pub(crate) fn grace(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.time.unwrap_or(10))
    }
}
