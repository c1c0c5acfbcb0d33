//! The session config as this machine finds it: which source has it, why the ones before did not, and what is
//! wrong with it.

use guestinfo::extraconfig::Decoded;
use guestinfo::source::{Answer, NoAnswer, PassedOver, Source, first_answering, in_order};
use guestinfo::{ConfigDisk, LinkSpec, SessionSpec, Spec};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::boot::config_disk;
use crate::boot::hardware::Hardware;
use crate::uevent::UeventSocket;

/// The most that is told of a config's faults, bytes: with room to spare below the longest control message,
/// of which a report is another with the same words.
const MAX_WORDS: usize = 8 * 1024;

/// A config that was found, with its faults.
#[derive(Debug)]
pub struct Config {
    /// The name of the source that has it.
    pub source: String,
    /// What it says, as far as it can be understood.
    pub spec: Spec,
    /// The session to run; if none can be told, an empty one with the container's id.
    pub session: SessionSpec,
    /// What is wrong, each with its key; nothing runs then.
    pub faults: Vec<String>,
}

impl Config {
    /// Asks the sources in their order, and says on the console how it went. Sources of other hypervisors are
    /// told by CPUID and the kernel's tables alone, so that asking for them neither costs nor risks anything.
    /// When none has a config, a config disk is waited for.
    ///
    /// # Errors
    ///
    /// When no source has a config.
    pub async fn find(hardware: &mut Hardware, uevents: &UeventSocket) -> Result<Self, NoAnswer> {
        let begun = Instant::now();
        let answer = match ask(&[]) {
            Ok(answer) => answer,
            Err(nowhere) => config_disk::awaited(hardware, uevents, nowhere).await?,
        };
        Ok(Self::taken(answer, begun))
    }

    /// Asks again, now that everything is there that will be: a config disk too, without waiting for one.
    ///
    /// # Errors
    ///
    /// When no source has a config any more.
    pub fn find_again() -> Result<Self, NoAnswer> {
        let begun = Instant::now();
        Ok(Self::taken(ask(&config_disk::all_present())?, begun))
    }

    fn taken(answer: Answer, begun: Instant) -> Self {
        let others = answer.passed_over.iter().map(PassedOver::to_string).collect::<Vec<_>>();
        for broken in answer.passed_over.iter().filter(|source| source.error.is_some()) {
            warn!("config source {broken}");
        }
        let (source, took) = (&answer.source, begun.elapsed());
        info!(
            "config from {source}, {} values in {took:.1?} ({})",
            answer.pairs.len(),
            before(&others)
        );
        Self::of(answer)
    }

    fn of(Answer { source, pairs, .. }: Answer) -> Self {
        let Decoded { value, errors } = Spec::decode(pairs);
        let mut spec = value.unwrap_or_default();
        // Its stand-in is 0, which would leave no time to tell of the fault.
        if errors.iter().any(|error| error.key.ends_with("/link/linger")) {
            spec.link.linger = LinkSpec::DEFAULT_LINGER;
        }
        let mut faults: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let session = spec.primary().cloned().unwrap_or_else(|error| {
            faults.push(error.to_string());
            SessionSpec { id: spec.id.clone(), ..SessionSpec::default() }
        });
        for fault in &faults {
            error!("config: {fault}");
        }
        Self { source, spec, session, faults }
    }

    /// All faults in one text for people, `None` if there is none.
    pub fn complaint(&self) -> Option<String> {
        let (n, faults) = (self.faults.len(), self.faults.join("\n  "));
        let n_faults = if n == 1 { "a fault".to_owned() } else { format!("{n} faults") };
        let text = format!("the config from {} has {n_faults}:\n  {faults}", self.source);
        (n > 0).then(|| shortened(text))
    }
}

/// Asks the sources that need no waiting for, then these disks.
fn ask(disks: &[ConfigDisk]) -> Result<Answer, NoAnswer> {
    let sources = in_order();
    let sources = sources.iter().map(|source| &**source);
    let disks = disks.iter().map(|disk| disk as &dyn Source);
    first_answering(&sources.chain(disks).collect::<Vec<_>>())
}

#[cfg(test)]
impl Config {
    /// A good config with one session, from a source called "test".
    pub(crate) fn sample(id: &str) -> Self {
        let session = SessionSpec { id: id.to_owned(), ..SessionSpec::default() };
        let spec = Spec { id: "0123456789abcdef".to_owned(), ..Spec::default() };
        Self { source: "test".to_owned(), spec, session, faults: Vec::new() }
    }
}

fn before(others: &[String]) -> String {
    if others.is_empty() {
        "asked first".to_owned()
    } else {
        format!("before it: {}", others.join("; "))
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_WORDS {
        text.truncate(text.floor_char_boundary(MAX_WORDS));
        text.push_str("… (all of it is on the console)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        let pairs = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        Config::of(Answer { source: "test".to_owned(), pairs, passed_over: Vec::new() })
    }

    #[test]
    fn a_good_config_has_no_complaint() {
        let good = config(&[("guestinfo.vice./common/id", "x"), ("guestinfo.vice./sessions", "x")]);
        assert_eq!((good.session.id.as_str(), good.complaint()), ("x", None));
    }

    #[test]
    fn every_fault_is_told_and_the_key_to_tell_them_with_is_there() {
        let bad = config(&[
            ("guestinfo.vice./common/id", "x"),
            ("guestinfo.vice./key", "c2VjcmV0"),
            ("guestinfo.vice./sessions", "a|b"),
            ("guestinfo.vice./sessions|a/tty", "maybe"),
            ("guestinfo.vice./link/linger", "soon"),
        ]);
        assert_eq!(bad.spec.key.0, b"secret");
        assert_eq!(bad.session.id, "x");
        assert_eq!(bad.spec.link.linger, 30, "time to tell");
        let text = bad.complaint().unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "the config from test has 3 faults:");
        assert!(lines[1].contains("sessions|a/tty") && lines[1].contains("maybe"), "{text}");
        assert!(lines[2].contains("link/linger") && lines[2].contains("soon"), "{text}");
        assert!(lines[3].contains("none of the sessions a, b"), "{text}");
    }

    #[test]
    fn faults_without_end_fit_into_a_message() {
        let keys: Vec<String> =
            (0..2000).map(|n| format!("guestinfo.vice./sessions|{n}/tty")).collect();
        let ids: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
        let ids = ids.join("|");
        let mut pairs =
            vec![("guestinfo.vice./common/id", "0"), ("guestinfo.vice./sessions", &ids)];
        pairs.extend(keys.iter().map(|key| (key.as_str(), "maybe")));
        let text = config(&pairs).complaint().unwrap();
        assert!(text.starts_with("the config from test has 1"), "{text:.100}");
        assert!(text.len() < MAX_WORDS + 100 && text.ends_with("is on the console)"));
    }
}
