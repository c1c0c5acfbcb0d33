//! The report: what has become of the session, told to the multiplexer and to the hypervisor as it changes.
//!
//! Both get VIC's keys. The multiplexer gets all of them with each change, so that it needs to remember one
//! message; the hypervisor, whose requests take a pair each, gets those that differ. What differs is found when
//! [`Reporter::publish`] is called: changes made between two calls go out together.

use std::collections::BTreeMap;
use std::fmt;

use guestinfo::rpci::{RpciSink, RpciSource};
use guestinfo::sink::Sink;
use guestinfo::source::Source as _;
use guestinfo::{
    EncodeError, EndpointReport, ExitLog, Header, Report, SessionReport, Started, Timestamp,
};
use prost::Message as _;
use tracing::{debug, error, info};
use wire::message::{MAX_MESSAGE, guest};

use crate::config::Config;
use crate::uplink::Uplink;

/// Room in a message for what is around the report.
const ENVELOPE: usize = 64;

/// The last ends of a process that are told of, each with its time, status and reason.
const MAX_EXIT_LOGS: usize = 8;

/// The longest text about a reload, bytes.
const MAX_RELOAD_WORDS: usize = 8 * 1024;

/// Keeps the report and those who read it together.
pub struct Reporter {
    header: Header,
    /// The session's name in the config's map.
    session: String,
    report: Report,
    /// As the multiplexer was told last.
    told: Option<Report>,
    /// As the hypervisor has it.
    written: Report,
    sink: Option<Box<dyn Sink>>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Reporter {
    /// A report on a session that has not been started. It also goes to the hypervisor if the config is from
    /// there.
    pub fn new(config: &Config) -> Self {
        let Config { spec, session, source, .. } = config;
        let sink = if *source == RpciSource::detect().name() { RpciSink::detect() } else { None };
        let sink = sink.map(|sink| Box::new(sink) as Box<dyn Sink>);
        let named = spec.sessions.iter().find(|(_, of)| of.id == session.id);
        let name = named.map_or(&session.id, |(name, _)| name);
        let about = SessionReport {
            create_time: Some(session.create_time).filter(|seconds| *seconds != 0),
            ..SessionReport::default()
        };
        let report = Report {
            sessions: [(name.clone(), about)].into(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            source: source.clone(),
            ..Report::default()
        };
        Self {
            header: spec.header,
            session: name.clone(),
            report,
            told: None,
            written: Report::default(),
            sink,
        }
    }

    fn change(&mut self) -> &mut SessionReport {
        self.report.sessions.entry(self.session.clone()).or_default()
    }

    /// What the config's networks have got.
    pub fn endpoints(&mut self, networks: BTreeMap<String, EndpointReport>) {
        self.report.networks = networks;
    }

    /// What became of the config when it was read again.
    pub fn reloaded(&mut self, words: String) {
        self.report.reload = Some(shortened(words));
    }

    /// The process runs, since `time_us` (microseconds since 1970).
    pub fn started(&mut self, time_us: u64) {
        let session = self.change();
        session.started = Started::Yes;
        session.start_time = Some(seconds(time_us));
        session.stop_time = Some(0);
    }

    /// The process could not be started.
    pub fn failed(&mut self, code: i32, why: &str, time_us: u64) {
        let session = self.change();
        session.started = Started::Failed(why.to_owned());
        session.status = Some(code);
        session.stop_time = Some(seconds(time_us));
    }

    /// The process has ended.
    pub fn ended(&mut self, code: i32, message: &str, time_us: u64) {
        let session = self.change();
        session.status = Some(code);
        session.stop_time = Some(seconds(time_us));
        let nanoseconds = u32::try_from(time_us % 1_000_000 * 1000).unwrap_or(0);
        if let Some(time) = Timestamp::from_unix(seconds(time_us), nanoseconds) {
            let (exit_status, message) = (code, message.to_owned());
            session.exit_logs.push(ExitLog { time, exit_status, message });
            // One that is restarted for ever must not make the report longer and longer.
            let n_surplus = session.exit_logs.len().saturating_sub(MAX_EXIT_LOGS);
            session.exit_logs.drain(..n_surplus);
        }
    }

    /// The process is started again after its end.
    pub fn restarted(&mut self) {
        self.change().resurrections += 1;
    }

    /// Nobody is waited for any more before the process is started.
    pub fn released(&mut self) {
        self.change().run_block = Some(false);
    }

    /// Tells what has changed, if anything has. Before a message that others wait for, so that they find the
    /// report up to date.
    pub fn publish(&mut self, uplink: &mut Uplink) {
        if self.told.as_ref() == Some(&self.report) {
            return;
        }
        match self.report.to_pairs(self.header) {
            Ok(pairs) => tell(pairs, uplink),
            Err(error) => unsayable(&error),
        }
        self.write();
        self.told = Some(self.report.clone());
    }

    // What is refused now is not offered again until it changes: the reason will be the same.
    fn write(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        match self.report.changes(&self.written, self.header) {
            Ok(pairs) => match sink.write(&pairs) {
                Ok(()) => debug!("{} values of the report written to {}", pairs.len(), sink.name()),
                Err(refused) => error!("{refused}"),
            },
            Err(error) => unsayable(&error),
        }
        self.written = self.report.clone();
    }
}

fn tell(pairs: Vec<(String, String)>, uplink: &mut Uplink) {
    let report = guest::Report { pairs: pairs.into_iter().collect() };
    let len = report.encoded_len();
    if len + ENVELOPE > MAX_MESSAGE {
        return error!(
            "the report has {len} bytes and stays here; a message has {MAX_MESSAGE} at most"
        );
    }
    uplink.say(guest::Body::Report(report));
}

fn shortened(mut words: String) -> String {
    words.truncate(words.floor_char_boundary(MAX_RELOAD_WORDS));
    words
}

fn unsayable(error: &EncodeError) {
    info!("no report: {error}");
}

fn seconds(time_us: u64) -> i64 {
    i64::try_from(time_us / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use guestinfo::sink::SinkError;

    use crate::peer::{Peer, connected, until};

    const PREFIX: &str = "guestinfo.vice..sessions|s";

    type Kept = Rc<RefCell<Vec<(String, String)>>>;

    /// A hypervisor that keeps what it is given, or refuses it all.
    struct Keeper {
        kept: Kept,
        refused: bool,
    }

    impl Sink for Keeper {
        fn name(&self) -> &str {
            "a test"
        }

        fn write(&mut self, pairs: &[(String, String)]) -> Result<(), SinkError> {
            if self.refused {
                return Err(SinkError { sink: "a test".into(), reasons: vec!["no".into()] });
            }
            self.kept.borrow_mut().extend_from_slice(pairs);
            Ok(())
        }
    }

    fn reporter(refused: bool) -> (Reporter, Kept) {
        let kept = Kept::default();
        let sink = Keeper { kept: Rc::clone(&kept), refused };
        let mut reporter = Reporter::new(&Config::sample("s"));
        reporter.sink = Some(Box::new(sink));
        (reporter, kept)
    }

    async fn reports(uplink: &mut Uplink, peer: &mut Peer) -> Vec<guest::Report> {
        let step = |uplink: &mut Uplink, _: &mut Peer| uplink.turn(|_| {}).unwrap();
        until(uplink, peer, step, |uplink, _| uplink.is_drained()).await;
        let report = |body| match body {
            guest::Body::Report(report) => report,
            other => panic!("{other:?}"),
        };
        peer.heard().into_iter().map(report).collect()
    }

    #[tokio::test]
    async fn the_multiplexer_is_told_each_change_once_and_whole() {
        let (mut uplink, mut peer) = connected();
        let (mut reporter, _) = reporter(false);
        reporter.publish(&mut uplink);
        reporter.publish(&mut uplink);
        reporter.started(1_500_000_000_999_999);
        reporter.publish(&mut uplink);
        reporter.ended(137, "out of memory", 1_500_000_002_500_000);
        reporter.publish(&mut uplink);
        reporter.publish(&mut uplink);
        let told = reports(&mut uplink, &mut peer).await;
        let [first, second, third] = &told[..] else { panic!("{told:?}") };
        let value = |report: &guest::Report, key: &str| report.pairs.get(key).cloned();
        assert_eq!(value(first, "guestinfo.vice..link.source").as_deref(), Some("test"));
        assert_eq!(value(second, &format!("{PREFIX}.started")).as_deref(), Some("true"));
        assert_eq!(
            value(second, &format!("{PREFIX}.detail.starttime")).as_deref(),
            Some("1500000000")
        );
        assert_eq!(value(second, &format!("{PREFIX}.status")), None);
        for (key, expected) in [
            ("started", "true"),
            ("status", "137"),
            ("detail.starttime", "1500000000"),
            ("detail.stoptime", "1500000002"),
            ("diagnostics.exitlogs|0.ExitStatus", "137"),
            ("diagnostics.exitlogs|0.Message", "out of memory"),
            ("diagnostics.exitlogs|0.Time", "2017-07-14 02:40:02.5 +0000 UTC"),
        ] {
            assert_eq!(
                value(third, &format!("{PREFIX}.{key}")).as_deref(),
                Some(expected),
                "{key}"
            );
        }
    }

    #[tokio::test]
    async fn the_hypervisor_gets_what_differs() {
        let (mut uplink, _peer) = connected();
        let (mut reporter, kept) = reporter(false);
        reporter.started(5_000_000);
        reporter.publish(&mut uplink);
        kept.borrow_mut().clear();
        reporter.failed(127, "/bin/nosuch: no such file", 6_000_000);
        reporter.publish(&mut uplink);
        reporter.publish(&mut uplink);
        let kept = kept.borrow();
        let kept: Vec<_> = kept.iter().map(|(k, v)| (&k[PREFIX.len()..], v.as_str())).collect();
        let expected = [
            (".started", "/bin/nosuch: no such file"),
            (".status", "127"),
            (".detail.stoptime", "6"),
        ];
        assert_eq!(kept, expected);
    }

    #[tokio::test]
    async fn a_refusal_of_the_hypervisor_keeps_nothing_from_the_multiplexer() {
        let (mut uplink, mut peer) = connected();
        let (mut reporter, kept) = reporter(true);
        reporter.started(5_000_000);
        reporter.publish(&mut uplink);
        assert_eq!(reports(&mut uplink, &mut peer).await.len(), 1);
        assert!(kept.borrow().is_empty());
    }
}
