//! Reading the config again while the container runs.
//!
//! A config with faults changes nothing. Of a good one, what a running container can follow is done; the rest is
//! told: in the log, in the report, and to whoever asked. What is told once is not told again by the next
//! reload, which is compared with this one's config.

use std::fmt;

use guestinfo::spec::Changes;
use guestinfo::{LinkMode, LinkSpec, Spec};
use tracing::{info, warn};

use super::Agent;
use crate::config::Config;
use crate::console;
use crate::session::{STOP_GRACE, Session};

/// What became of the changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    done: Vec<String>,
    left: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.done.as_slice(), self.left.as_slice()) {
            ([], []) => f.write_str("nothing has changed"),
            (done, []) => write!(f, "done: {}", done.join("; ")),
            ([], left) => write!(f, "not done: {}", left.join("; ")),
            (done, left) => write!(f, "done: {}; not done: {}", done.join("; "), left.join("; ")),
        }
    }
}

impl Agent {
    /// Reads the config again and follows its changes; why not, if that could not be done. What was done is in
    /// the report.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        info!("the config is read again");
        self.upkeep.before_reload();
        let read = Config::find_again().map_err(|nowhere| nowhere.to_string());
        let read = read.and_then(|config| match config.complaint() {
            None => Ok(config),
            Some(complaint) => Err(format!("nothing was changed: {complaint}")),
        });
        self.n_reloads += 1;
        let (words, result) = match read {
            Ok(config) => (self.follow(config.spec).to_string(), Ok(())),
            Err(why) => (why.clone(), Err(why)),
        };
        match &result {
            Ok(()) => info!("reload {}: {words}", self.n_reloads),
            Err(_) => warn!("reload {}: {words}", self.n_reloads),
        }
        let reporter = self.sessions.reporter();
        reporter.reloaded(format!("{}: {words}", self.n_reloads));
        reporter.publish(&mut self.uplink);
        result
    }

    fn follow(&mut self, mut newer: Spec) -> Outcome {
        let (had, wanted) = (self.spec.link.spool, newer.link.spool);
        let gets_spool = wanted && !had;
        newer.link.spool |= had;
        let changes = newer.changes_from(&self.spec);
        let mut outcome = untouched(&changes);
        if had && !wanted {
            outcome.left.push("link/spool: stays until the next boot".to_owned());
        }
        for session in &changes.ended {
            if self.sessions.has(&session.id) {
                let asked = self.sessions.stop(&session.id, None, STOP_GRACE, &mut self.uplink);
                match asked {
                    Ok(()) => {
                        outcome.done.push(format!("session {} is being stopped", session.id));
                    }
                    Err(error) => outcome.left.push(format!("session {}: {error}", session.id)),
                }
            } else {
                outcome.left.push(format!("session {} is not there to be stopped", session.id));
            }
        }
        for session in &changes.sessions {
            outcome.left.push(format!("session {} is started with the next boot", session.id));
        }
        for session in &changes.execs {
            self.sessions.reporter().configure(&newer);
            self.sessions.configure(Session::configured(&newer, session));
            outcome.done.push(format!("session {} is being started", session.id));
        }
        for session in &changes.released {
            self.sessions.begin(&mut self.uplink);
            outcome.done.push(format!("session {} may start", session.id));
        }
        if changes.diagnostics {
            console::set_debug(newer.diagnostics.debug);
            outcome.done.push(format!("debug level {}", newer.diagnostics.debug));
        }
        self.follow_link(&newer.link, gets_spool, &mut outcome);
        let networks: Vec<_> = changes
            .networks
            .iter()
            .map(|(name, network)| ((*name).to_owned(), (*network).clone()))
            .collect();
        let mounts: Vec<_> = changes
            .mounts
            .iter()
            .map(|(name, mount)| ((*name).to_owned(), (*mount).clone()))
            .collect();
        // What is fixed stays as it is in effect.
        let (id, key) = (self.spec.id.clone(), self.spec.key.clone());
        let protection = self.spec.link.protection;
        self.spec = newer;
        (self.spec.id, self.spec.key, self.spec.link.protection) = (id, key, protection);
        if gets_spool {
            match self.seek_spool() {
                Ok(()) => outcome.done.push("link/spool: its disk is looked for".to_owned()),
                Err(error) => outcome.left.push(format!("link/spool: {error}")),
            }
        }
        for (name, network) in networks {
            match self.change_network(&name, &network) {
                Ok(how) => outcome.done.push(how),
                Err(why) => outcome.left.push(why),
            }
        }
        for (name, mount) in mounts {
            match self.add_volume(&name, &mount) {
                Ok(how) => outcome.done.push(how),
                Err(why) => {
                    // Not there, so that the next reload tries again.
                    self.spec.mounts.remove(&name);
                    outcome.left.push(why);
                }
            }
        }
        outcome
    }

    /// What concerns the link, but for its protection, and the spool's disk.
    fn follow_link(&mut self, newer: &LinkSpec, gets_spool: bool, outcome: &mut Outcome) {
        if newer.linger != self.spec.link.linger {
            self.sessions.first_mut().set_linger(newer.linger);
            outcome.done.push(format!("linger {} s", newer.linger));
        }
        let is_as_before = newer.mode == self.spec.link.mode
            && newer.max_buffer_size == self.spec.link.max_buffer_size
            && !gets_spool;
        if !is_as_before {
            self.sessions.first_mut().set_mode(newer);
            let bytes = newer.max_buffer_size;
            outcome.done.push(match newer.mode {
                LinkMode::Blocking => "link/mode blocking".to_owned(),
                LinkMode::NonBlocking => format!("link/mode non-blocking, {bytes} bytes"),
            });
        }
    }
}

/// What no running container can follow.
fn untouched(changes: &Changes<'_>) -> Outcome {
    let gone = changes.gone.iter().map(|key| format!("{key}: stays until the next boot"));
    let fixed = changes.fixed.iter().map(|key| format!("{key}: fixed while the container runs"));
    Outcome { done: Vec::new(), left: gone.chain(fixed).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hang_up_is_a_request_to_read_the_config_again() {
        let mut signals = super::super::Signals::listen().expect("signals");
        crate::sys::kill(nix::unistd::Pid::this(), libc::SIGHUP).expect("a signal to oneself");
        // Another test's child may end before.
        while !matches!(signals.next().await, super::super::Event::Reload) {}
    }

    #[test]
    fn what_became_of_a_reload_is_one_line() {
        let words = |done: &[&str], left: &[&str]| {
            let [done, left] = [done, left].map(|it| it.iter().map(ToString::to_string).collect());
            Outcome { done, left }.to_string()
        };
        assert_eq!(words(&[], &[]), "nothing has changed");
        assert_eq!(words(&["a", "b"], &[]), "done: a; b");
        assert_eq!(words(&[], &["c"]), "not done: c");
        assert_eq!(words(&["a"], &["c", "d"]), "done: a; not done: c; d");
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let spec = |keys: &[(&str, &str)]| {
            let id = ("guestinfo.vice./common/id", "x");
            Spec::from_pairs(keys.iter().copied().chain([id])).expect("a spec")
        };
        let older = spec(&[("guestinfo.vice./hostname", "a"), ("guestinfo.vice./mounts", "v")]);
        let newer = spec(&[("guestinfo.vice./hostname", "b"), ("guestinfo.vice./networks", "n")]);
        let left = untouched(&newer.changes_from(&older)).left;
        let expected =
            ["mounts|v: stays until the next boot", "hostname: fixed while the container runs"];
        assert_eq!(left, expected);
    }
}
