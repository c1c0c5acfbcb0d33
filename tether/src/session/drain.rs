//! From a process's end to that of its output, and what follows from both: the exit record, or another run.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};
use wire::message::guest::{Body, Exited, OutputEnd, Restarting};

use super::{Phase, Session, Streams, Teller};
use crate::cgroup::Cgroup;
use crate::clock;
use crate::reap::Exit;
use crate::relay::Flow;

/// How long an output that nobody writes to is kept open after the end of the container's own process.
pub(super) const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// The same for a process beside it. It begins when all is read that the process wrote itself, and is a courtesy to
/// what it left in the background, which must not keep its client by whatever it writes.
pub(super) const EXEC_DRAIN_PATIENCE: Duration = Duration::from_millis(100);

/// A process that has ended, and its output, which may not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    pub(super) exit: Exit,
    pub(super) started_us: u64,
    pub(super) exited_us: u64,
    pub(super) ran: Duration,
    /// When the outputs are read no more that somebody holds. Moves on while something of the process may be left.
    pub(super) silent_until: Instant,
    /// Whether that was so; what had been read by then is still passed on.
    is_abandoned: bool,
    /// When the wait for room in the link is given up.
    pub(super) stuck_until: Instant,
}

impl Session {
    pub(super) fn ended(&mut self, exit: Exit) {
        let Phase::Running { started_us, since, .. } = self.phase else { return };
        let now = Instant::now();
        self.streams.iter_mut().for_each(Streams::process_ended);
        self.phase = Phase::Draining(Drain {
            exit,
            started_us,
            exited_us: clock::wall_us(),
            ran: now - since,
            silent_until: now + self.patience(),
            is_abandoned: false,
            stuck_until: now + self.linger,
        });
    }

    fn patience(&self) -> Duration {
        if self.is_first { DRAIN_PATIENCE } else { EXEC_DRAIN_PATIENCE }
    }

    /// Moves what can be moved, and ends the run when there is nothing more to come.
    pub(super) fn relay(&mut self, teller: &mut Teller<'_>) {
        let patience = self.patience();
        let Some(streams) = &mut self.streams else { return };
        let (owed, last) = (streams.owes(), matches!(self.phase, Phase::Draining(_)));
        let mut flow = streams.turn(teller.uplink, last);
        let Phase::Draining(drain) = &mut self.phase else { return };
        let is_late = drain.silent_until <= Instant::now();
        if is_late && flow == Flow::Idle {
            // What ended a moment ago may have been noticed before what it wrote, and the silence be the agent's.
            streams.distrust();
            flow = streams.turn(teller.uplink, true);
        }
        let now = Instant::now();
        // Patience is for silence, not for a slow line: that has the linger time. What nobody holds has an end.
        if (owed && flow != Flow::Idle) || (is_late && !streams.are_held()) {
            drain.silent_until = now + patience;
        }
        if flow != Flow::Stuck {
            drain.stuck_until = now + self.linger;
        }
        if is_late && flow != Flow::Ended && drain.silent_until <= now {
            drain.is_abandoned = true;
            streams.abandon();
            flow = streams.turn(teller.uplink, true);
        }
        let end = if drain.is_abandoned { OutputEnd::Abandoned } else { OutputEnd::Drained };
        match flow {
            Flow::Ended => self.finish(end, teller),
            Flow::Stuck if drain.stuck_until <= now => {
                self.gave_up = true;
                self.finish(OutputEnd::Truncated, teller);
            }
            Flow::Moved | Flow::Idle | Flow::Stuck => {}
        }
    }

    /// Sends the exit record, or that there will be another run.
    fn finish(&mut self, end: OutputEnd, teller: &mut Teller<'_>) {
        let Phase::Draining(Drain { exit, ran, .. }) = self.phase else { return };
        let Some(record) = self.record(end, teller) else { return };
        let oom = if record.oom_killed { "out of memory" } else { "" };
        teller.report(|reporter| reporter.ended(&self.id, exit.code, oom, record.exited_us));
        // After output nobody takes, another run would only write more of it.
        let again = if self.gave_up { None } else { self.restarts.again(exit.code, ran) };
        let Some(pause) = again else {
            return self.close(Body::Exited(record), teller.uplink);
        };
        info!("session {} will run again in {pause:?}", self.id);
        if let Some(streams) = &mut self.streams {
            streams.stdio = None;
        }
        teller.uplink.say(Body::Restarting(Restarting {
            exited: Some(record.clone()),
            restarts: self.restarts.count,
            delay_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        }));
        (self.kill_at, self.gone_at) = (None, None);
        self.phase = Phase::Resting { until: Instant::now() + pause, last: record };
    }

    fn record(&self, end: OutputEnd, teller: &mut Teller<'_>) -> Option<Exited> {
        let Phase::Draining(Drain { exit, started_us, exited_us, .. }) = self.phase else {
            return None;
        };
        let length = self.streams.as_ref()?.length(teller.uplink.link());
        // The kernel counts for the whole container; beside the first process, only a killed one can be meant.
        let oom_killed = teller.cgroup.is_some_and(Cgroup::oom_killed)
            && (self.is_first || exit.signal == libc::SIGKILL);
        let end = if length.is_cut { OutputEnd::Truncated } else { end };
        let words = match end {
            OutputEnd::Drained => "drained",
            OutputEnd::Abandoned => "abandoned",
            OutputEnd::Truncated => "truncated",
        };
        let oom = if oom_killed { ", out of memory" } else { "" };
        let (id, code, bytes) = (&self.id, exit.code, length.bytes);
        let text = format!("session {id} exited {code} (output {words}, {bytes} bytes{oom})");
        if self.is_first {
            info!("{text}")
        } else {
            debug!("{text}")
        }
        Some(Exited {
            session: self.id.clone(),
            code,
            signal: exit.signal,
            core_dumped: exit.core_dumped,
            raw_status: exit.raw,
            oom_killed,
            started_us,
            exited_us,
            output_length: length.channel,
            output_end: end.into(),
        })
    }
}
