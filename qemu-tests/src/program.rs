//! A program under test, running: what it says is waited for, and its end.

use crate::deadline::{deadline, grace};
use crate::family;
use crate::finished::Finished;
use crate::output::{Look, Output};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a wait looks whether the VM it depends on still runs. The wait itself ends at once with
/// what it waits for.
const LOOK: Duration = Duration::from_secs(1);

/// How often something is looked at that tells nobody when it changes.
const AGAIN: Duration = Duration::from_millis(20);

/// A running program.
#[derive(Debug)]
pub struct Program {
    pub(crate) text: String,
    pub(crate) child: Child,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    pub(crate) watch: Watch,
    stdin: Option<ChildStdin>,
}

impl Program {
    /// Starts `command` with pipes for its streams, in a process group of its own.
    #[track_caller]
    pub(crate) fn start(mut command: Command, text: String, watch: Watch) -> Self {
        command.process_group(0).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {text}: {error}"),
        };
        let stdin = child.stdin.take();
        let stdout = Output::collect(child.stdout.take().expect("a pipe"));
        let stderr = Output::collect(child.stderr.take().expect("a pipe"));
        Self { text, child, stdout, stderr, watch, stdin }
    }

    /// A program that somebody else has started, with its streams.
    pub(crate) fn of_parts(
        child: Child,
        text: String,
        stdout: Output,
        stderr: Output,
        watch: Watch,
    ) -> Self {
        Self { text, child, stdout, stderr, watch, stdin: None }
    }

    /// Waits until standard output shows `text`, behind what was waited for before.
    #[track_caller]
    pub fn expect(&self, text: &str) -> &Self {
        self.await_on(&self.stdout, &format!("{text:?}"), |output, limit| {
            output.look(text.as_bytes(), limit)
        });
        self
    }

    /// Waits until standard error shows `text`, behind what was waited for before.
    #[track_caller]
    pub fn expect_error(&self, text: &str) -> &Self {
        self.await_on(&self.stderr, &format!("{text:?} on standard error"), |output, limit| {
            output.look(text.as_bytes(), limit)
        });
        self
    }

    /// Waits until standard output has `n` bytes in all.
    #[track_caller]
    pub fn expect_bytes(&self, n: usize) -> &Self {
        self.await_on(&self.stdout, &format!("{n} bytes"), |output, limit| {
            output.look_for_length(n, limit)
        });
        self
    }

    /// Everything on standard output so far.
    #[must_use]
    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes()).into_owned()
    }

    /// Writes to its standard input, and leaves that open.
    #[track_caller]
    pub fn write(&mut self, text: &str) -> &mut Self {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(text.as_bytes()).expect("it reads its standard input");
        self
    }

    /// Writes all of `bytes` to its standard input and closes that, meanwhile.
    #[must_use]
    pub fn feed(mut self, bytes: Vec<u8>) -> Self {
        let mut stdin = self.stdin.take().expect("standard input is open");
        // Its reader may end before all is written; what comes of that is for the test to see.
        std::thread::spawn(move || stdin.write_all(&bytes).ok());
        self
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, signal).ok();
        }
    }

    /// Sends a signal to it and to those it has started and not put elsewhere, as a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process_group(pid, signal).ok();
        }
    }

    /// Closes its standard input and waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        self.end()
    }

    /// Waits for its end, its standard input left open.
    #[track_caller]
    pub fn end(mut self) -> Finished {
        let end = |output: &Output, limit| match output.look_for_end(limit) {
            Look::Ended => Look::Found,
            other => other,
        };
        self.await_on(&self.stdout, "its end", end);
        self.await_on(&self.stderr, "its end", end);
        let status = self.child.wait().expect("a child can be waited for");
        let (stdout, stderr) = (self.stdout.bytes(), self.stderr.bytes());
        Finished { command: self.text.clone(), status, stdout, stderr }
    }

    /// Waits until `it_is_so`, for what nothing tells: it is looked at again and again.
    #[track_caller]
    pub fn await_that(&self, what: &str, it_is_so: impl Fn() -> bool) {
        self.await_on(&self.stderr, what, |output, _| match it_is_so() {
            true => Look::Found,
            false => output.look_for_end(AGAIN),
        });
    }

    #[track_caller]
    pub(crate) fn await_on(
        &self,
        output: &Output,
        what: &str,
        look: impl Fn(&Output, Duration) -> Look,
    ) {
        let start = Instant::now();
        let mut gone = None;
        let why = loop {
            match look(output, LOOK) {
                Look::Found => return,
                Look::Ended => break "the program ended",
                Look::NotYet if start.elapsed() > deadline() => break "nothing in time",
                Look::NotYet => {}
            }
            match (self.watch.has_ended(), gone) {
                (false, _) => gone = None,
                (true, None) => gone = Some(Instant::now()),
                (true, Some(since)) if since.elapsed() > grace() => break "its QEMU had ended",
                (true, Some(_)) => {}
            }
        };
        panic!(
            "waited for {what}: {why} ({:.1} s)\n$ {}\n--- its output\n{}\n--- its errors\n{}\n---",
            start.elapsed().as_secs_f32(),
            self.text,
            self.stdout.tail(),
            self.stderr.tail()
        );
    }
}

/// The VM that a program depends on, if any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    home: PathBuf,
    name: Option<String>,
}

impl Watch {
    /// The VM called `name` in the lab with this home.
    pub(crate) fn vm(home: &Path, name: Option<String>) -> Self {
        Self { home: home.to_owned(), name }
    }

    // Whether it has been started and its QEMU does not run any more.
    fn has_ended(&self) -> bool {
        let Some(name) = &self.name else { return false };
        let Some(dir) = vm_dir(&self.home, name) else { return false };
        let is_qemu = |relative: &family::Relative| {
            relative.is("qemu-system-x86_64")
                && relative.arguments.iter().any(|it| it.contains(&*dir.to_string_lossy()))
        };
        dir.join("qemu.pid").exists() && !family::relatives(&self.home).iter().any(is_qemu)
    }
}

/// The directory of the VM of that name.
pub(crate) fn vm_dir(home: &Path, name: &str) -> Option<PathBuf> {
    let vms = std::fs::read_dir(home.join("data/vms")).ok()?;
    vms.flatten().map(|entry| entry.path()).find(|dir| {
        let record = std::fs::read(dir.join("vm.json")).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
        record["name"] == name
    })
}
