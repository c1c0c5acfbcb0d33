//! One of the two ways to the program in the VM, with what is measured over it.

use super::Took;
use crate::deadline::deadline;
use anyhow::{Context as _, Result, ensure};
use gauge::{Kind, Sum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

/// A pipe to the program.
#[derive(Debug)]
pub(super) struct Pipe {
    name: &'static str,
    to: File,
    from: File,
    /// Read and not yet looked at.
    ahead: Vec<u8>,
}

impl Pipe {
    /// Of its two ends.
    pub(super) fn new(
        name: &'static str,
        to: impl Into<OwnedFd>,
        from: impl Into<OwnedFd>,
    ) -> Self {
        Self { name, to: File::from(to.into()), from: File::from(from.into()), ahead: Vec::new() }
    }

    /// Of a child's standard input and output, which are pipes.
    pub(super) fn of_child(name: &'static str, child: &mut Child) -> Result<Self> {
        let (to, from) = (child.stdin.take(), child.stdout.take());
        Ok(Self::new(name, to.context("no standard input")?, from.context("no standard output")?))
    }

    /// What it is called.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Gives a command.
    pub(super) fn say(&mut self, command: &str) -> Result<()> {
        self.put(format!("{command}\n").as_bytes())
    }

    /// Gives a command that is answered by `ready`, and by how the processor is doing.
    pub(super) fn ask(&mut self, command: &str) -> Result<Cpu> {
        self.say(command)?;
        let answer = self.line()?;
        let cpu = answer.strip_prefix("ready ").and_then(Cpu::parse);
        cpu.with_context(|| format!("{}: {command:?} was answered by {answer:?}", self.name))
    }

    /// Writes all of it.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).with_context(|| format!("{}: nobody reads", self.name))
    }

    /// Reads what comes next, waiting for at least one byte.
    pub(super) fn some(&mut self) -> Result<Vec<u8>> {
        if !self.ahead.is_empty() {
            return Ok(std::mem::take(&mut self.ahead));
        }
        let limit = Timespec::try_from(deadline()).ok();
        let n = poll(&mut [PollFd::new(&self.from, PollFlags::IN)], limit.as_ref())?;
        ensure!(n > 0, "{}: nothing came in {} s", self.name, deadline().as_secs());
        let mut buffer = vec![0; 64 * 1024];
        let n = self.from.read(&mut buffer)?;
        ensure!(n > 0, "{}: the VM is gone", self.name);
        buffer.truncate(n);
        Ok(buffer)
    }

    /// Reads until nothing has come for so long.
    pub(super) fn drain(&mut self, quiet: Duration) -> Result<()> {
        let quiet = Timespec::try_from(quiet).ok();
        while poll(&mut [PollFd::new(&self.from, PollFlags::IN)], quiet.as_ref())? > 0 {
            self.some()?;
        }
        self.ahead.clear();
        Ok(())
    }

    /// Ends the connection, if it is one.
    pub(super) fn hang_up(&self) -> Result<()> {
        Ok(rustix::net::shutdown(&self.to, rustix::net::Shutdown::Both)?)
    }

    /// Stops what `pulse` has started, and passes over what came of it.
    pub(super) fn end_pulse(&mut self) -> Result<()> {
        self.put(b"!")?;
        while self.line()? != "over" {}
        Ok(())
    }

    /// Reads `n` bytes.
    pub(super) fn exactly(&mut self, n: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(n + 64 * 1024);
        while bytes.len() < n {
            bytes.extend(self.some()?);
        }
        self.ahead = bytes.split_off(n);
        Ok(bytes)
    }

    /// Reads a line.
    pub(super) fn line(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        loop {
            bytes.extend(self.some()?);
            if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                self.ahead = bytes.split_off(end + 1);
                return Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned());
            }
        }
    }

    /// Has bytes sent from the guest, which must be `expected`.
    pub(super) fn takes_out(&mut self, kind: Kind, expected: &[u8]) -> Result<Took> {
        let before = self.ask(&format!("out {} {}", kind.word(), expected.len()))?;
        self.gets(expected, before)
    }

    /// Has the lines "1" to "n" sent one by one.
    pub(super) fn takes_lines(&mut self, command: &str, n: usize, expected: &[u8]) -> Result<Took> {
        let before = self.ask(&format!("{command} {n}"))?;
        self.gets(expected, before)
    }

    fn gets(&mut self, expected: &[u8], before: Cpu) -> Result<Took> {
        let start = Instant::now();
        self.put(b"!")?;
        let bytes = self.exactly(expected.len())?;
        let took = start.elapsed();
        ensure!(bytes == expected, "{}: what came is not what was sent", self.name);
        self.took(expected.len(), took, before)
    }

    /// Sends bytes to the guest, which must take them as they are.
    pub(super) fn puts_in(&mut self, bytes: &[u8]) -> Result<Took> {
        let before = self.ask(&format!("in {}", bytes.len()))?;
        let start = Instant::now();
        self.put(bytes)?;
        let sum = self.line()?;
        let took = start.elapsed();
        ensure!(sum == Sum::of(bytes).word(), "{}: the guest got something else", self.name);
        self.took(bytes.len(), took, before)
    }

    fn took(&mut self, n: usize, took: Duration, before: Cpu) -> Result<Took> {
        self.say("cpu")?;
        let line = self.line()?;
        let after = Cpu::parse(&line)
            .with_context(|| format!("{}: `cpu` was answered by {line:?}", self.name))?;
        let busy = (after.now - before.now) - (after.idle - before.idle);
        Ok(Took { rate: n as f64 / took.as_secs_f64(), cpu: busy / (n as f64 / 1e6) })
    }

    /// Times from sending a byte to having it back.
    pub(super) fn echoes(&mut self, n: usize) -> Result<Vec<Duration>> {
        self.answers("echo", n)
    }

    /// The same where a second process in the VM writes it back, which is the least that any agent does.
    pub(super) fn relayed(&mut self, n: usize) -> Result<Vec<Duration>> {
        self.answers("relay", n)
    }

    fn answers(&mut self, command: &str, n: usize) -> Result<Vec<Duration>> {
        self.ask(&format!("{command} {n}"))?;
        let mut times = Vec::with_capacity(n);
        for i in 0..n {
            let byte = [b'a' + (i % 26) as u8];
            let start = Instant::now();
            self.put(&byte)?;
            ensure!(self.exactly(1)? == byte, "{}: another byte came back", self.name);
            times.push(start.elapsed());
        }
        Ok(times)
    }
}

/// The guest's processor, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    idle: f64,
    now: f64,
}

impl Cpu {
    fn parse(text: &str) -> Option<Self> {
        let (idle, now) = text.split_once(' ')?;
        Some(Self { idle: idle.parse().ok()?, now: now.parse().ok()? })
    }
}
