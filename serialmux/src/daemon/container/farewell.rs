//! The end of a VM as whoever ran it tells it, which comes after what the VM said last.

use super::*;
use tokio::sync::oneshot;

/// How long what has arrived of a VM may take to be read: its end shows on the pipe at once, unless that is half open.
const LAST_WORDS: wire::Duration = wire::Duration::from_secs(1);
/// How long who says that a VM is gone waits for that to be on the disk. It has more to do, which may make room there.
const PATIENCE: wire::Duration = wire::Duration::from_secs(10);

/// Somebody says that the VM is gone.
#[derive(Debug)]
struct Farewell {
    text: String,
    reply: oneshot::Sender<bool>,
    until: Instant,
}

/// Those who say so, and those whose word is not on the disk yet.
#[derive(Debug, Default)]
pub(super) struct Farewells {
    said: Vec<Farewell>,
    /// And until when that is waited for.
    unanswered: Vec<(Instant, oneshot::Sender<bool>)>,
}

impl Farewells {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let said = self.said.iter().map(|it| it.until);
        said.chain(self.unanswered.iter().map(|(until, _)| *until)).min()
    }
}

impl Container {
    pub(super) fn hear_farewell(&mut self, text: String, reply: oneshot::Sender<bool>) {
        self.cut("the VM is gone");
        let until = clock::now() + LAST_WORDS;
        self.farewells.said.push(Farewell { text, reply, until });
    }

    /// Once its pipe has been read to the end, or that takes too long.
    pub(super) fn take_leave(&mut self) {
        let now = clock::now();
        let is_time = |it: &Farewell| self.line.is_none() || it.until <= now;
        if self.farewells.said.first().is_some_and(is_time) {
            self.take_leave_now();
        }
        let is_saved = !self.is_unsaved;
        for (_, reply) in self.farewells.unanswered.extract_if(.., |it| is_saved || it.0 <= now) {
            // The asker may have gone, and then nobody needs the answer.
            reply.send(true).ok();
        }
    }

    /// Another VM is to come.
    pub(super) fn take_leave_now(&mut self) {
        for Farewell { text, reply, .. } in std::mem::take(&mut self.farewells.said) {
            self.vm_gone(&text);
            self.farewells.unanswered.push((clock::now() + PATIENCE, reply));
        }
    }

    fn vm_gone(&mut self, text: &str) {
        self.hang_up("the VM is gone");
        if self.state.exit.is_none() {
            let error = format!(
                "the VM ended without an exit status{}{text}",
                if text.is_empty() { "" } else { ": " }
            );
            self.exited(Exit::without_process(137, error, clock::wall_us()));
            self.save();
        }
        self.give_up();
    }
}
