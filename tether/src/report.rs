//! The report: what has become of the session, told to the multiplexer and to the hypervisor as it changes.
//!
//! Both get VIC's keys. The multiplexer gets all of them with each change, so that it needs to remember one
//! message; the hypervisor, whose requests take a pair each, gets those that differ. What differs is found when
//! [`Reporter::publish`] is called: changes made between two calls go out together.

use std::collections::BTreeMap;
use std::fmt;

use guestinfo::sink::{self, Sink};
use guestinfo::{
    EncodeError, EndpointReport, ExitLog, Header, MountReport, Report, SessionReport, SessionSpec,
    Spec, Started, Timestamp,
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
    /// The id of the container's own session, and its name in the config's map.
    session: (String, String),
    /// The ids of those beside it, with their names there.
    execs: BTreeMap<String, String>,
    /// What has become of the networks' settings.
    configured: BTreeMap<String, Started>,
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
        let sink = sink::beside(source);
        let named = spec.sessions.iter().find(|(_, of)| of.id == session.id);
        let name = named.map_or(&session.id, |(name, _)| name);
        let about = untouched(session);
        let report = Report {
            sessions: [(name.clone(), about)].into(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            source: source.clone(),
            ..Report::default()
        };
        let mut reporter = Self {
            header: spec.header,
            session: (session.id.clone(), name.clone()),
            execs: BTreeMap::new(),
            configured: BTreeMap::new(),
            report,
            told: None,
            written: Report::default(),
            sink,
        };
        reporter.configure(spec);
        reporter
    }

    /// Takes note of the processes that a config wants beside the container's own: what becomes of those is
    /// reported. What a client runs is not, as there is no key for it.
    pub fn configure(&mut self, spec: &Spec) {
        for (name, exec) in spec.execs.iter().filter(|(_, exec)| exec.active) {
            self.execs.insert(exec.id.clone(), name.clone());
            self.report.execs.entry(name.clone()).or_insert_with(|| untouched(exec));
        }
    }

    /// What is said of the session with that id; `None` if it is not the config's.
    fn change(&mut self, id: &str) -> Option<&mut SessionReport> {
        if self.session.0 == id {
            return self.report.sessions.get_mut(&self.session.1);
        }
        self.report.execs.get_mut(self.execs.get(id)?)
    }

    /// What the config's networks have got.
    pub fn endpoints(&mut self, mut networks: BTreeMap<String, EndpointReport>) {
        // Of a network that has got nothing there is nothing to say.
        networks.retain(|_, endpoint| *endpoint != EndpointReport::default());
        for (name, configured) in &self.configured {
            networks.entry(name.clone()).or_default().configured = configured.clone();
        }
        self.report.networks = networks;
    }

    /// Whether a network has been given what the config says.
    pub fn network(&mut self, name: &str, configured: Started) {
        self.report.networks.entry(name.to_owned()).or_default().configured = configured.clone();
        self.configured.insert(name.to_owned(), configured);
    }

    /// Whether a volume is in the container.
    pub fn volume(&mut self, name: &str, mounted: Started) {
        self.report.mounts.insert(name.to_owned(), MountReport { mounted });
    }

    /// What became of the config when it was read again.
    pub fn reloaded(&mut self, words: String) {
        self.report.reload = Some(shortened(words));
    }

    /// The session's process runs, since `time_us` (microseconds since 1970), again for the so manieth time.
    pub fn started(&mut self, id: &str, time_us: u64, n_restarts: i64) {
        let Some(session) = self.change(id) else { return };
        session.started = Started::Yes;
        session.start_time = Some(seconds(time_us));
        session.stop_time = Some(0);
        session.resurrections = n_restarts;
    }

    /// The session's process could not be started.
    pub fn failed(&mut self, id: &str, code: i32, why: &str, time_us: u64) {
        let Some(session) = self.change(id) else { return };
        session.started = Started::Failed(why.to_owned());
        session.status = Some(code);
        session.stop_time = Some(seconds(time_us));
    }

    /// The session's process has ended.
    pub fn ended(&mut self, id: &str, code: i32, message: &str, time_us: u64) {
        let Some(session) = self.change(id) else { return };
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

    /// Nobody is waited for any more before the container's own process is started.
    pub fn released(&mut self) {
        if let Some(session) = self.report.sessions.get_mut(&self.session.1) {
            session.run_block = Some(false);
        }
    }

    /// Tells what has changed, if anything has. Before a message that others wait for, so that they find the
    /// report up to date. While much waits to be told, only the hypervisor is told; the newest report follows.
    pub fn publish(&mut self, uplink: &mut Uplink) {
        if self.told.as_ref() == Some(&self.report) {
            return;
        }
        if uplink.is_congested() {
            return self.write();
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
        let Some(sink) = self.sink.as_mut().filter(|_| self.written != self.report) else { return };
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

/// What is said of a session that nothing has happened to.
fn untouched(session: &SessionSpec) -> SessionReport {
    SessionReport {
        create_time: Some(session.create_time).filter(|seconds| *seconds != 0),
        ..SessionReport::default()
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
    use wire::message::inside::{Thaw, What};

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
    async fn a_multiplexer_that_stays_away_is_told_only_the_last_of_many_changes() {
        let (mut uplink, mut peer) = connected();
        let (mut reporter, kept) = reporter(false);
        for n in 0..10_000 {
            reporter.started("s", 1_500_000_000_000_000, n);
            reporter.publish(&mut uplink);
            uplink.happened(What::Thawed(Thaw {}));
        }
        assert!(uplink.n_queued() < 80_000, "{}", uplink.n_queued());
        let key = format!("{PREFIX}.diagnostics.resurrections");
        let written = kept.borrow().iter().filter(|(name, _)| *name == key).count();
        assert_eq!(written, 10_000, "the hypervisor is there");
        let step = |uplink: &mut Uplink, _: &mut Peer| {
            uplink.turn(|_| {}).unwrap();
            reporter.publish(uplink);
        };
        until(&mut uplink, &mut peer, step, |uplink, _| uplink.is_drained()).await;
        let last = peer.heard().pop();
        let Some(guest::Body::Report(report)) = last else { panic!("{last:?}") };
        assert_eq!(report.pairs[&key], "9999");
    }

    #[tokio::test]
    async fn the_multiplexer_is_told_each_change_once_and_whole() {
        let (mut uplink, mut peer) = connected();
        let (mut reporter, _) = reporter(false);
        reporter.publish(&mut uplink);
        reporter.publish(&mut uplink);
        reporter.started("s", 1_500_000_000_999_999, 0);
        reporter.publish(&mut uplink);
        reporter.ended("s", 137, "out of memory", 1_500_000_002_500_000);
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
        reporter.started("s", 5_000_000, 0);
        reporter.publish(&mut uplink);
        kept.borrow_mut().clear();
        reporter.failed("s", 127, "/bin/nosuch: no such file", 6_000_000);
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
        reporter.started("s", 5_000_000, 0);
        reporter.publish(&mut uplink);
        assert_eq!(reports(&mut uplink, &mut peer).await.len(), 1);
        assert!(kept.borrow().is_empty());
    }

    #[tokio::test]
    async fn the_last_ends_of_a_process_that_runs_again_and_again_are_told() {
        let (mut uplink, mut peer) = connected();
        let (mut reporter, _) = reporter(false);
        for n in 0..20 {
            reporter.started("s", 1_000_000, n);
            reporter.ended("s", i32::try_from(n).unwrap(), "", 2_000_000);
        }
        reporter.publish(&mut uplink);
        let told = reports(&mut uplink, &mut peer).await.pop().unwrap().pairs;
        assert_eq!(told[&format!("{PREFIX}.diagnostics.resurrections")], "19");
        assert_eq!(told[&format!("{PREFIX}.diagnostics.exitlogs")], "7", "the last one's number");
        assert_eq!(told[&format!("{PREFIX}.diagnostics.exitlogs|0.ExitStatus")], "12");
        assert_eq!(told[&format!("{PREFIX}.diagnostics.exitlogs|7.ExitStatus")], "19");
    }

    #[tokio::test]
    async fn processes_beside_the_containers_own_are_told_of_if_the_config_has_them() {
        let (mut uplink, mut peer) = connected();
        let mut config = Config::sample("s");
        let exec = SessionSpec { id: "e".to_owned(), create_time: 5, ..SessionSpec::default() };
        config.spec.execs.insert("E1".to_owned(), exec);
        let mut reporter = Reporter::new(&config);
        reporter.started("e", 7_000_000, 0);
        reporter.ended("e", 3, "", 8_000_000);
        reporter.started("of a client", 9_000_000, 0);
        reporter.failed("of a client", 127, "no such file", 9_000_000);
        reporter.publish(&mut uplink);
        let told = reports(&mut uplink, &mut peer).await.pop().unwrap().pairs;
        let value =
            |key: &str| told[&format!("guestinfo.vice..execs|E1.{key}@non-persistent")].as_str();
        assert_eq!((value("started"), value("status")), ("true", "3"));
        assert_eq!((value("detail.createtime"), value("detail.starttime")), ("5", "7"));
        assert_eq!(told[&format!("{PREFIX}.started")], "<nil>", "that one did not start");
    }

    #[tokio::test]
    async fn networks_and_reloads_are_told_with_the_rest() {
        let (mut uplink, mut peer) = connected();
        let (mut reporter, kept) = reporter(false);
        let net = guestinfo::IpNet { addr: [172, 16, 0, 2].into(), prefix_len: 16 };
        let endpoint = EndpointReport { assigned: Some(net), ..EndpointReport::default() };
        let nothing = EndpointReport::default();
        reporter.endpoints([("bridge".to_owned(), endpoint), ("other".to_owned(), nothing)].into());
        assert_eq!(reporter.report.networks.len(), 1);
        reporter.reloaded(format!("1: {}", "é".repeat(MAX_RELOAD_WORDS)));
        reporter.released();
        reporter.publish(&mut uplink);
        let told = reports(&mut uplink, &mut peer).await.pop().unwrap().pairs;
        assert_eq!(told["guestinfo.vice..networks|bridge.assigned.Mask"], "//8AAA==");
        assert_eq!(told["guestinfo.vice..link.reload"].len(), MAX_RELOAD_WORDS - 1);
        assert_eq!(told[&format!("{PREFIX}.runblock")], "false");
        assert!(kept.borrow().iter().any(|(key, _)| key.ends_with("assigned.IP")), "{kept:?}");
    }
}
