//! The few switches that must be known before any config is read, from the kernel command line.
//!
//! `tether.disk_timeout=SECONDS` (default 30): how long to wait for the disk labeled `containerfs`.
//! `tether.panic=reload`: has the agent fail on purpose when it is to read its config again, to see what comes of it.
//! `tether.log=error|warn|info|debug|trace` (default info): how much the log says.

use std::time::Duration;

use tracing::Level;

/// The switches, each at its default when absent or not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switches {
    /// How long to wait for the container's disk.
    pub disk_timeout: Duration,
    /// Whether to fail on purpose instead of reading the config again.
    pub panics_at_reload: bool,
    /// The most detailed level that is logged.
    pub log: Level,
    /// Switches named `tether.*` that were not understood, to be warned about.
    pub unknown: Vec<String>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            disk_timeout: Duration::from_secs(30),
            panics_at_reload: false,
            log: Level::INFO,
            unknown: Vec::new(),
        }
    }
}

impl Switches {
    /// Picks the `tether.*` words out of a kernel command line.
    pub fn parse(cmdline: &str) -> Self {
        let mut switches = Self::default();
        for word in cmdline.split_ascii_whitespace() {
            if let Some(switch) = word.strip_prefix("tether.")
                && switches.take(switch).is_none()
            {
                switches.unknown.push(word.to_owned());
            }
        }
        switches
    }

    fn take(&mut self, switch: &str) -> Option<()> {
        match switch.split_once('=')? {
            ("disk_timeout", value) => {
                // An hour at most: the deadline arithmetic then never overflows.
                let seconds: u64 = value.parse().ok()?;
                self.disk_timeout = Duration::from_secs(seconds.min(3600));
            }
            ("panic", "reload") => self.panics_at_reload = true,
            ("log", value) => self.log = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_found_between_other_words() {
        let switches = Switches::parse(
            "console=ttyS1 tether.disk_timeout=3 quiet tether.log=trace tether.panic=reload panic=-1\n",
        );
        assert_eq!(switches.disk_timeout, Duration::from_secs(3));
        assert_eq!(switches.log, Level::TRACE);
        assert!(switches.panics_at_reload);
        assert!(switches.unknown.is_empty());
    }

    #[test]
    fn what_is_not_understood_keeps_its_default_and_is_named() {
        let switches = Switches::parse("tether.disk_timeout=soon tether.log tether.panic=5");
        assert_eq!(switches.disk_timeout, Duration::from_secs(30));
        assert!(!switches.panics_at_reload);
        assert_eq!(switches.unknown, ["tether.disk_timeout=soon", "tether.log", "tether.panic=5"]);
    }
}
