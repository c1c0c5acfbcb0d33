//! `containervm restart`: the end of a container and its VM, and another run with the same disk.

use super::interrupt::Interrupts;
use super::start::{How, start};
use super::{Surroundings, end, mux};
use clap::Args;
use containervm::store::State;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct Restart {
    #[command(flatten)]
    stop: mux::Stop,
    #[command(flatten)]
    how: How,
}

impl Restart {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let surroundings = &Surroundings::here()?;
        let Self { stop, mut how } = self;
        how.restarts = true;
        let (stop, how) = (&stop, &how);
        crate::cli::each("containervm", stop.containers.clone(), |name| async move {
            let vm = surroundings.store.find(&name)?;
            // As with Docker, one that does not run is started.
            if matches!(surroundings.store.state(&vm)?, State::Running) {
                end(surroundings, &vm, stop).await?;
            }
            start(surroundings, &vm, how, None, Interrupts::default()).await.map(drop)
        })
        .await
    }
}
