//! A volume on a server on its way to the agent: a child of the agent mounts it, and waits as long as it may.
//!
//! The child is in the agent's mount namespace, so what it mounts stays. The kernel waits for a server that does not
//! answer, some for ever; the agent does not, and kills the child when time is up.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::errand::Errand;
use super::nfs::Export;
use super::{Volume, VolumeError};
use crate::identity;

/// How long a server may take. The kernel itself tries a connection again for some seconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Where this process looks for name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A volume on its way.
#[derive(Debug)]
pub struct Reaching {
    /// Its name.
    pub name: String,
    /// Where it will be.
    pub home: PathBuf,
    /// When it is given up.
    pub until: Instant,
    shown: String,
    errand: Errand,
}

impl Reaching {
    /// Starts to mount a server's directory on `home`. `prepare` is run by the child before: it loads modules.
    ///
    /// # Errors
    ///
    /// When there can be no child.
    pub fn start(
        volume: &Volume,
        export: &Export,
        home: PathBuf,
        name_servers: &[IpAddr],
        prepare: impl FnOnce(),
    ) -> Result<Self, VolumeError> {
        let errand = Errand::start(|_| {
            prepare();
            // Of what cannot be written, a name that is not found will tell.
            let _told_by_the_name = fs::create_dir_all("/etc").and_then(|()| {
                fs::write(RESOLV_CONF, identity::resolv_conf(name_servers).unwrap_or_default())
            });
            export.mount(&home)
        });
        let errand = errand.map_err(|(step, errno)| volume.step(step)(errno))?;
        let (name, shown, until) = (volume.name.clone(), export.shown(), Instant::now() + PATIENCE);
        Ok(Self { name, home, until, shown, errand })
    }

    /// Waits until that is known.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn ready(&self) {
        self.errand.ready().await;
    }

    /// How it went, once that is known or time is up; the context's task is woken by the former.
    pub fn poll_outcome(&self, context: &mut Context<'_>) -> Poll<Result<(), VolumeError>> {
        let failed = |text| VolumeError::Server { name: self.name.clone(), text };
        match self.errand.poll_outcome(context) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map_err(failed)),
            Poll::Pending if self.until <= Instant::now() => {
                self.errand.kill();
                let (shown, seconds) = (&self.shown, PATIENCE.as_secs());
                Poll::Ready(Err(failed(format!(
                    "{shown} could not be mounted in {seconds} s, for the server does not answer; \
                     is it there, and does the network lead to it?"
                ))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
