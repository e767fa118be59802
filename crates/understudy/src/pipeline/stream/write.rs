//! A unit on its way to the socket, with the words that were left in the feed.

use super::{Hole, Inflight, StreamApplier};
use crate::error::{SyncError, io_word};
use crate::net;
use crate::source::spool_error;

impl StreamApplier<'_> {
    pub(super) async fn write(&mut self, inflight: Inflight) -> Result<(), SyncError> {
        let mut from = 0;
        for gap in &inflight.sealed.gaps {
            let before = inflight.sealed.out.get(from..gap.at);
            self.write_bytes(before.unwrap_or_default()).await?;
            self.write_hole(gap.hole).await?;
            from = gap.end();
        }
        let rest = inflight.sealed.out.get(from..);
        self.write_bytes(rest.unwrap_or_default()).await?;
        self.inflight = Some(inflight);
        Ok(())
    }

    async fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), SyncError> {
        let written = net::send(&mut self.target.pipe.stream, bytes).await;
        written.map_err(|error| self.lost(io_word(&error)))
    }

    /// Writes a word that was left in the feed.
    async fn write_hole(&mut self, hole: Hole) -> Result<(), SyncError> {
        self.write_bytes(format!("${}\r\n", hole.len).as_bytes())
            .await?;
        let (mut at, end) = (hole.at, hole.at + hole.len);
        while at < end {
            let chunk = self.feed.read(at).map_err(spool_error)?;
            let Some(mut chunk) = chunk else {
                let what = format!("the spool no longer has what was read from it at {at}");
                return Err(SyncError::local(what));
            };
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            chunk.bytes.truncate(left);
            at += chunk.bytes.len() as u64;
            self.write_bytes(&chunk.bytes).await?;
        }
        Ok(())
    }
}
