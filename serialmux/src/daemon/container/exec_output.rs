//! What a process beside a container's own writes, on its way from the link to a client: unpacked, entry by entry.
//!
//! A client goes on behind any entry that it has, and tells so by the offset in the channel. Where that is packed,
//! each block is one entry; but to read on in there one has to know the segment it belongs to. So what is
//! released to the guest ends where a segment begins: there a daemon that knows nothing can start, and passes over
//! what the client has already.

use super::exec_client::ExecEvent;
use std::collections::VecDeque;
use wire::chunk::{self, ChunkError};
use wire::pack::{PackError, Unpacker};
use wire::{ChannelId, Link};

/// Most bytes taken from the link at once.
pub(super) const READ_STEP: usize = 64 * 1024;

/// Output that is not what an agent sends. Class: give the channel up.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecOutputError {
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// Nobody could say how much of it a client has.
    #[error("a block of output that is not one entry")]
    Block,
}

/// The output of one.
#[derive(Debug)]
pub(super) struct ExecOutput {
    pub(super) channel: ChannelId,
    reader: chunk::Reader,
    packed: Option<Packed>,
    /// Offset after the last entry that was taken out of the reader.
    pub(super) next: u64,
    pub(super) ended: bool,
    /// An entry that the client had no room for.
    pub(super) held: Option<ExecEvent>,
}

#[derive(Debug)]
struct Packed {
    unpacker: Unpacker,
    /// Where segments begin that are not released, and the one up to which everything is.
    segments: VecDeque<u64>,
}

impl ExecOutput {
    /// That of a channel from `base` on, where a segment begins if it is packed.
    pub(super) fn new(channel: ChannelId, base: u64, packed: bool) -> Self {
        let packed = packed.then(|| {
            let (unpacker, segments) = (Unpacker::default(), VecDeque::from([base]));
            Packed { unpacker, segments }
        });
        let reader = chunk::Reader::resume(0);
        Self { channel, reader, packed, next: base, ended: false, held: None }
    }

    /// What can be released when a client has everything up to `taken`.
    pub(super) fn releasable(&mut self, taken: u64) -> u64 {
        let Some(Packed { segments, .. }) = &mut self.packed else { return taken };
        while segments.get(1).is_some_and(|next| *next <= taken) {
            segments.pop_front();
        }
        segments.front().map_or(0, |start| taken.min(*start))
    }

    /// The next piece, if it has come.
    pub(super) fn next_event(
        &mut self,
        link: &mut Link,
    ) -> Result<Option<ExecEvent>, ExecOutputError> {
        loop {
            if let Some(event) = self.read()? {
                return Ok(Some(event));
            }
            let bytes = link.read(self.channel, READ_STEP);
            if bytes.is_empty() {
                return Ok(None);
            }
            self.push(&bytes);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        match &mut self.packed {
            Some(packed) => packed.unpacker.push(bytes),
            None => self.reader.push(bytes),
        }
    }

    fn read(&mut self) -> Result<Option<ExecEvent>, ExecOutputError> {
        loop {
            let taken = match &mut self.packed {
                None => None,
                Some(Packed { unpacker, segments }) => {
                    let Some(block) = unpacker.next_block()? else { return Ok(None) };
                    if block.fresh && segments.back() != Some(&self.next) {
                        segments.push_back(self.next);
                    }
                    self.reader.push(&block.plain);
                    Some(block.taken)
                }
            };
            let entry = self.reader.next_entry()?;
            if taken.is_some() && (entry.is_none() || !self.reader.is_between()) {
                return Err(ExecOutputError::Block);
            }
            let Some((entry, n)) = entry else { return Ok(None) };
            self.next += taken.unwrap_or(n) as u64;
            // Output of such a process is never dropped: the process waits.
            let chunk::Entry::Output(chunk) = entry else { continue };
            let (stream, bytes, next) = (chunk.stream as u32, chunk.bytes, self.next);
            return Ok(Some(ExecEvent::Output { stream, bytes, next }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::chunk::{Stream, Writer};
    use wire::pack::{Budget, Packer};

    /// Lines of text, some to an entry, as an agent packs them.
    fn packed(n: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut writer, mut packer) = (Writer::default(), Packer::new(&Budget::new(1)));
        let (mut line, mut plain) = (Vec::new(), Vec::new());
        for i in 0..n {
            let line_of =
                |n| format!("the {i}.{n}th line of a text that is much like all the others\n");
            let text: String = (0..8).map(line_of).collect();
            let mut entry = Vec::new();
            writer.push(Stream::Stdout, i as u64, text.as_bytes(), &mut entry);
            packer.push(&entry, &mut line);
            plain.extend_from_slice(text.as_bytes());
        }
        (line, plain)
    }

    fn output(base: u64) -> ExecOutput {
        ExecOutput::new(ChannelId(7), base, true)
    }

    fn pieces(output: &mut ExecOutput) -> Vec<(Vec<u8>, u64)> {
        let mut found = Vec::new();
        while let Some(event) = output.read().expect("what an agent sends") {
            let ExecEvent::Output { bytes, next, .. } = event else { panic!("{event:?}") };
            found.push((bytes.to_vec(), next));
        }
        found
    }

    #[test]
    fn a_daemon_that_knows_nothing_goes_on_for_a_client_that_has_any_part_of_it() {
        let (line, plain) = packed(1000);
        assert!(line.len() * 3 < plain.len(), "{} of {}", line.len(), plain.len());
        let mut first = output(0);
        first.push(&line);
        let all = pieces(&mut first);
        assert_eq!(all.len(), 1000);
        assert_eq!(first.next, line.len() as u64);
        let mut released = 0;
        for (n, (_, from)) in all.iter().enumerate() {
            let before = std::mem::replace(&mut released, first.releasable(*from));
            assert!(before <= released && released <= *from);
            if n % 40 > 2 {
                continue;
            }
            // The guest sends again what was not released, and the client is past some of it.
            let mut second = output(released);
            second.push(&line[usize::try_from(released).unwrap()..]);
            let rest: Vec<_> =
                pieces(&mut second).into_iter().filter(|(_, next)| next > from).collect();
            assert!(rest == all[n + 1..], "behind the {n}th");
        }
        assert!(line.len() as u64 - released < 65_536 && released > 0, "{released}");
    }

    #[test]
    fn what_is_not_packed_is_released_as_it_is_taken() {
        let mut output = ExecOutput::new(ChannelId(7), 100, false);
        let (mut writer, mut line) = (Writer::default(), Vec::new());
        writer.push(Stream::Stderr, 5, b"words", &mut line);
        output.push(&line[..4]);
        assert!(pieces(&mut output).is_empty());
        output.push(&line[4..]);
        let next = 100 + line.len() as u64;
        assert_eq!(pieces(&mut output), [(b"words".to_vec(), next)]);
        assert_eq!(output.releasable(next), next);
    }

    #[test]
    fn a_block_that_is_not_one_entry_is_refused() {
        let (mut writer, mut entries) = (Writer::default(), Vec::new());
        writer.push(Stream::Stdout, 1, b"one", &mut entries);
        let half = entries[..entries.len() - 1].to_vec();
        writer.push(Stream::Stdout, 2, b"two", &mut entries);
        for plain in [entries, half] {
            let (mut packer, mut line) = (Packer::new(&Budget::new(1)), Vec::new());
            packer.pass(&plain, &mut line);
            let mut output = output(0);
            output.push(&line);
            assert!(matches!(output.read(), Err(ExecOutputError::Block)), "{plain:?}");
        }
    }
}
