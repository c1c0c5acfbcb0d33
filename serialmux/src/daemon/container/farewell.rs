//! The end of a VM as whoever ran it tells it, which comes after what the VM said last.

use super::*;
use tokio::sync::oneshot;

/// How long what has arrived of a VM may take to be read: its end shows on the pipe at once, unless that is half open.
const LAST_WORDS: wire::Duration = wire::Duration::from_secs(1);

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
    unanswered: Vec<oneshot::Sender<bool>>,
}

impl Farewells {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.said.iter().map(|it| it.until).min()
    }
}

impl Container {
    pub(super) fn hear_farewell(&mut self, text: String, reply: oneshot::Sender<bool>) {
        if let Some(line) = &mut self.line {
            line.is_cut.get_or_insert_with(|| "the VM is gone".to_owned());
        }
        let until = clock::now() + LAST_WORDS;
        self.farewells.said.push(Farewell { text, reply, until });
    }

    /// Once its pipe has been read to the end, or that takes too long.
    pub(super) fn take_leave(&mut self) {
        let now = clock::now();
        let is_time = |until| self.line.is_none() || until <= now;
        if self.farewells.deadline().is_some_and(is_time) {
            self.take_leave_now();
        }
        if !self.is_unsaved {
            for reply in self.farewells.unanswered.drain(..) {
                // The asker may have gone, and then nobody needs the answer.
                reply.send(true).ok();
            }
        }
    }

    /// Another VM is to come.
    pub(super) fn take_leave_now(&mut self) {
        for Farewell { text, reply, .. } in std::mem::take(&mut self.farewells.said) {
            self.vm_gone(&text);
            self.farewells.unanswered.push(reply);
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
