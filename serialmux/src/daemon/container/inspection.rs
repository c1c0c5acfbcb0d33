//! Everything known of a container, for whoever asks: what was registered, what became of it, its link, its report.

use crate::daemon::idle::Idle;
use crate::moment;
use crate::store::state::{Exit, ProcessEnd, Registration, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use wire::{Class, Depths, Duration, Gauges, Link, LinkStats, Transport};

/// What only the container's task knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inspection {
    link: LinkView,
    report: BTreeMap<String, String>,
    execs: Vec<Value>,
    restarts: u32,
}

/// The link of this run, as far as there is one since the daemon started.
#[derive(Debug, Clone, Default)]
struct LinkView {
    pipe: Option<(String, Transport)>,
    idle: Vec<(String, Transport)>,
    agent: String,
    gauges: Gauges,
    stats: LinkStats,
}

impl Inspection {
    /// A look at the state, and the link with where it comes from, if it is connected.
    pub(super) fn of(
        state: &State,
        link: Option<&Link>,
        pipe: Option<(String, Transport)>,
        idle: &Idle,
        execs: Vec<Value>,
    ) -> Self {
        let view = link.map(|link| LinkView {
            pipe,
            idle: idle.list(),
            agent: state.agent.clone(),
            gauges: link.gauges(),
            stats: link.stats(),
        });
        let recovered = LinkView { agent: state.agent.clone(), ..LinkView::default() };
        Self {
            link: view.unwrap_or(recovered),
            report: state.report.clone(),
            execs,
            restarts: state.restarts,
        }
    }

    /// All of it as one JSON object; the key that was registered is not part of it.
    pub(crate) fn json(
        &self,
        registration: &Registration,
        status: &'static str,
        started_us: Option<u64>,
        exit: Option<&Exit>,
    ) -> Value {
        let Registration {
            id,
            name,
            command,
            plain,
            tty,
            open_stdin,
            created_us,
            key: _,
            image_paths: _,
            options,
        } = registration;
        let exit = exit.map(show_exit);
        json!({
            "id": id,
            "name": name,
            "command": command,
            "options": options,
            "tty": tty,
            "open_stdin": open_stdin,
            "protection": if *plain { "plain" } else { "sealed" },
            "created": moment::show(*created_us),
            "status": status,
            "started": started_us.map(moment::show),
            "exit": exit,
            "restarts": self.restarts,
            "execs": self.execs,
            "link": self.link.json(),
            "report": self.report,
        })
    }
}

/// How a process ended, the container's own or one beside it.
pub(super) fn show_exit(exit: &Exit) -> Value {
    let Exit { code, error, time_us, process, .. } = exit;
    let time = moment::show(*time_us);
    match process {
        None => json!({ "code": code, "error": error, "time": time }),
        Some(ProcessEnd { signal, core_dumped, raw_status, oom_killed, output }) => json!({
            "code": code,
            "error": error,
            "time": time,
            "signal": signal,
            "core_dumped": core_dumped,
            "raw_status": raw_status,
            "oom_killed": oom_killed,
            "output": output,
        }),
    }
}

impl LinkView {
    fn json(&self) -> Value {
        let LinkStats {
            bytes_in,
            bytes_out,
            packets_in,
            packets_out,
            noise_bytes,
            resyncs,
            damaged,
            duplicates,
            strays,
            lost,
            resent_records,
            resent_bytes,
            probes,
            rollbacks,
            sessions,
        } = self.stats;
        let idle = self.idle.iter();
        let idle: Vec<_> = idle
            .map(|(from, transport)| json!({ "from": from, "pipe": transport.word() }))
            .collect();
        json!({
            "connected": self.pipe.is_some(),
            "from": self.pipe.as_ref().map(|(from, _)| from),
            "pipe": self.pipe.as_ref().map(|(_, transport)| transport.word()),
            "idle_pipes": idle,
            "agent": self.agent,
            "rtt_us": self.gauges.rtt.map(micros),
            "rtt_min_us": self.gauges.rtt_min.map(micros),
            "bytes_per_second": self.gauges.rate,
            "in_flight": self.gauges.in_flight,
            "window": self.gauges.window,
            "packet": self.gauges.packet,
            "memory": self.gauges.memory,
            "queues": queues(&self.gauges),
            "statistics": {
                "bytes_in": bytes_in,
                "bytes_out": bytes_out,
                "packets_in": packets_in,
                "packets_out": packets_out,
                "noise_bytes": noise_bytes,
                "resyncs": resyncs,
                "damaged": damaged,
                "duplicates": duplicates,
                "strays": strays,
                "lost": lost,
                "resent_records": resent_records,
                "resent_bytes": resent_bytes,
                "probes": probes,
                "rollbacks": rollbacks,
                "sessions": sessions,
            },
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

// Where bytes wait at the daemon's end, by class of channel.
fn queues(gauges: &Gauges) -> Value {
    let of = |(class, depths): (Class, &Depths)| {
        let Depths { channels, queued, unreleased, unread, ahead } = depths;
        let depths = json!({
            "channels": channels,
            "queued": queued,
            "unreleased": unreleased,
            "unread": unread,
            "ahead": ahead,
        });
        (class.word().to_owned(), depths)
    };
    Value::Object(Class::ALL.into_iter().zip(&gauges.depths).map(of).collect())
}
