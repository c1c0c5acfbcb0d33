//! What a guest says on its control channel, and what that changes of its container.

use super::execs::ExecNews;
use super::*;

/// How far a guest's clock may be behind when it is set anew, µs.
const CLOCKS_US: u64 = 1_000_000;

impl Container {
    // Says whether it changes what is kept on the disk.
    pub(super) fn message(&mut self, message: wire::message::GuestMessage) -> bool {
        use wire::message::guest::{Body, Exited, Paused, Restarting, Started};
        match message.body {
            Some(Body::Started(started)) if started.session != self.id => {
                let news = self.execs.started(&started);
                return self.tell_of_execs(news);
            }
            Some(Body::Failed(failed)) if failed.session != self.id => {
                let news = self.execs.failed(failed);
                return self.tell_of_execs(news);
            }
            Some(Body::Exited(exited)) if exited.session != self.id => {
                let news = self.execs.exited(&exited);
                return self.tell_of_execs(news);
            }
            Some(Body::Known(known)) => {
                self.execs.known(known);
                return false;
            }
            Some(Body::Started(Started { time_us, .. })) => {
                self.state.started_us = Some(time_us);
                self.state.restarting = false;
                self.tell(self.news("start").at(time_us));
                if std::mem::take(&mut self.restarts) {
                    self.tell(self.news("restart").at(time_us));
                }
            }
            Some(Body::Failed(failed)) => self.exited(failed.into()),
            Some(Body::Exited(exited)) => self.exited((&exited).into()),
            Some(Body::Restarting(Restarting { restarts, exited, .. })) => {
                (self.state.restarts, self.state.restarting) = (restarts, true);
                // As with Docker, each run dies by itself; the start tells the next.
                if let Some(Exited { code, exited_us, .. }) = exited {
                    self.tell(self.news("die").at(exited_us).with("exitCode", code));
                }
            }
            Some(Body::Paused(Paused { paused })) => self.state.paused = paused,
            Some(Body::Reply(reply)) => {
                self.streams.answered(reply.request, reply.error.is_empty());
                self.control.replied(reply);
                return false;
            }
            // As long as a message may be, so it needs no other bound.
            Some(Body::Report(report)) => self.state.report = report.pairs,
            Some(Body::Happening(happening)) => self.happened(&happening),
            Some(Body::AskTime(AskTime { stamp })) => {
                let wall_us = clock::wall_us();
                self.control.tell(mux::Body::Time(Time { stamp, wall_us }));
                return false;
            }
            None => tracing::info!(container = self.name, "message of a newer agent passed over"),
        }
        let State { started_us, paused, restarting, .. } = self.state;
        self.status.send_if_modified(|status| {
            let old = (status.started_us, status.paused, status.restarting);
            let new = (started_us, paused, restarting);
            (status.started_us, status.paused, status.restarting) = new;
            old != new
        });
        true
    }

    pub(super) fn news(&self, action: &'static str) -> Told {
        Told::now(&self.id, &self.name, action)
    }

    pub(super) fn tell(&self, event: Told) {
        self.events.tell(event);
    }

    /// What a guest tells a daemon that has just come is no news: the one before has told it. It changes nothing
    /// that is kept.
    pub(super) fn tell_of_execs(&self, news: Vec<ExecNews>) -> bool {
        for ExecNews { id, command, action, time_us, code } in news {
            if time_us + CLOCKS_US < self.since_us {
                continue;
            }
            let event = self.news(action).at(time_us).with("execID", id).with("command", command);
            self.tell(match code {
                Some(code) => event.with("exitCode", code),
                None => event,
            });
        }
        false
    }

    fn happened(&self, happening: &Happening) {
        match happening.what {
            Some(What::OutOfMemory(OutOfMemory { ooms, kills })) => {
                let event = self.news("oom").with("ooms", ooms).with("kills", kills);
                self.tell(event.at(happening.time_us));
            }
            Some(What::Thawed(_)) => {
                self.tell(self.news("thaw").at(happening.time_us).with("cause", "deadline"));
            }
            Some(What::Signaled(Signaled { signal })) => {
                self.tell(self.news("kill").at(happening.time_us).with("signal", signal));
            }
            None => {}
        }
    }

    pub(super) fn exited(&mut self, exit: Exit) {
        tracing::info!(container = self.name, code = exit.code, error = exit.error, "exited");
        self.state.exit = Some(exit.clone());
        (self.state.paused, self.state.restarting) = (false, false);
        self.tell(self.news("die").at(exit.time_us).with("exitCode", exit.code));
        self.execs.give_up_absent();
        let open = self.is_output_open();
        self.status.send_modify(|status| {
            status.exit = Some(exit);
            status.output_open = open;
        });
    }
}
