//! A client that reads the log: a range of it, its tail, and what follows.

use super::attach::{come_back, description, follow, output};
use super::{Handle, Refusal, Reply, hangup, send};
use crate::api::{Receiver, Request, Sender, answer, request};
use std::collections::VecDeque;
use std::io;

pub(super) async fn replay(
    handle: &Handle,
    logs: &request::Logs,
    sender: &mut Sender,
    mut receiver: Receiver,
) -> Result<(), Refusal> {
    let run = handle.status().run;
    let mut cursor = handle.cursor()?;
    if let Some(position) = logs.position {
        come_back(handle, &mut cursor, position)?;
    }
    if logs.resumable {
        send(sender, Reply::Attached(description(handle, &cursor))).await?;
    }
    let end = handle.status().written;
    let until = if logs.until_us == 0 { u64::MAX } else { logs.until_us };
    let wanted = |output: &answer::Output| (logs.since_us..until).contains(&output.time_us);
    // Of a tail, the first connection has brought the beginning.
    let mut tail = Tail::new(logs.tail.filter(|_| logs.position.is_none()));
    loop {
        let records = tokio::task::block_in_place(|| cursor.read_placed(end))?;
        if records.is_empty() {
            break;
        }
        for output in records.into_iter().filter_map(output).filter(wanted) {
            if let Some(output) = tail.push(output) {
                send(sender, Reply::Output(output)).await?;
            }
        }
    }
    for output in tail.finish() {
        send(sender, Reply::Output(output)).await?;
    }
    if logs.follow && logs.until_us == 0 {
        tokio::select! {
            exit = follow(handle, run, &mut cursor, sender, None) => exit?,
            gone = receiver.receive::<Request>() => {
                return Err(hangup(gone.err().unwrap_or(io::ErrorKind::UnexpectedEof.into())));
            }
        };
    }
    send(sender, Reply::Done(request::Hello {})).await
}

/// The last so many lines of output; holds no more than those.
struct Tail {
    lines: Option<u64>,
    held: VecDeque<(answer::Output, u64)>,
    n_held: u64,
}

impl Tail {
    fn new(lines: Option<u64>) -> Self {
        Self { lines, held: VecDeque::new(), n_held: 0 }
    }

    /// Output that can go out at once.
    fn push(&mut self, output: answer::Output) -> Option<answer::Output> {
        let Some(lines) = self.lines else { return Some(output) };
        let n = newlines(&output.bytes);
        self.held.push_back((output, n));
        self.n_held += n;
        while let Some((_, n)) = self.held.front()
            && self.n_held - n > lines
        {
            self.n_held -= n;
            self.held.pop_front();
        }
        None
    }

    fn finish(self) -> VecDeque<answer::Output> {
        let Some(lines) = self.lines else { return VecDeque::new() };
        // A last line without its newline counts as one.
        let open = self.held.back().is_some_and(|(o, _)| !o.bytes.ends_with(b"\n"));
        let mut surplus = (self.n_held + u64::from(open)).saturating_sub(lines);
        let mut kept = VecDeque::new();
        for (mut output, n) in self.held {
            if surplus > n {
                surplus -= n;
                continue;
            }
            if surplus > 0 {
                output.bytes = output.bytes.slice(after_newline(&output.bytes, surplus)..);
                surplus = 0;
            }
            kept.push_back(output);
        }
        kept
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

// Index after the nth newline, counted from 1; the end if there are fewer.
fn after_newline(bytes: &[u8], n: u64) -> usize {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(i, _)| i + 1);
    ends.nth(usize::try_from(n - 1).unwrap_or(usize::MAX)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunks: &[&'static str], lines: u64, expected: &str) {
        let mut tail = Tail::new(Some(lines));
        for chunk in chunks {
            let bytes = chunk.as_bytes().into();
            let output = answer::Output { stream: 1, time_us: 0, bytes, position: 0 };
            assert!(tail.push(output).is_none());
        }
        let found: Vec<u8> = tail.finish().into_iter().flat_map(|o| o.bytes.to_vec()).collect();
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }

    #[test]
    fn the_tail_is_the_last_lines_however_they_were_cut() {
        check(&["a\nb\nc\n"], 2, "b\nc\n");
        check(&["a\nb\nc"], 2, "b\nc");
        check(&["a\n", "b\n", "c\n"], 2, "b\nc\n");
        check(&["a", "b\nc", "\nd\n", "e"], 2, "d\ne");
        check(&["a\nb", "c\n"], 1, "bc\n");
        check(&["a\nb\n"], 0, "");
        check(&["a\nb\n"], 9, "a\nb\n");
        check(&["a\nb\nc\nd\n", "", "e\n"], 3, "c\nd\ne\n");
    }
}
