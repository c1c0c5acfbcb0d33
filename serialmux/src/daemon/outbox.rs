//! Bytes on their way into a pipe: at most one frame, so that the next is chosen late.

use tokio::io::{AsyncWrite, AsyncWriteExt};
use wire::{Instant, Link};

/// One frame, partly written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frame: Vec<u8>,
    written: usize,
}

impl Outbox {
    /// Fetches the next frame if the last is through; false if there is nothing to write.
    pub(super) fn fill(&mut self, link: &mut Link, now: Instant) -> bool {
        if self.written == self.frame.len() {
            self.clear();
            link.poll_transmit(now, &mut self.frame);
        }
        self.written < self.frame.len()
    }

    /// Writes some of it.
    ///
    /// # Errors
    /// As the pipe says.
    ///
    /// # Cancel safety
    /// Safe: what was written is counted.
    pub(super) async fn write(
        &mut self,
        pipe: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let rest = self.frame.get(self.written..).unwrap_or_default();
        self.written += pipe.write(rest).await?;
        Ok(())
    }

    /// Forgets the frame: its pipe is gone.
    pub(super) fn clear(&mut self) {
        self.frame.clear();
        self.written = 0;
    }
}
