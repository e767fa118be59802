//! Large tables as one RESTORE: the value is measured in the spool, then its bytes go from there as they are, so that no more
//! than a piece of them is in memory.

use rdb::Want;

use super::{RESTORE_BYTES_MAX, SnapshotApplier};
use crate::config::Config;
use crate::error::SyncError;
use crate::pipeline::lookahead::Lookahead;
use crate::source::spool_error;
use crate::target::Target;

/// A value that is on its way: which bytes of the feed are still to go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pieces {
    pos: u64,
    end: u64,
}

/// The largest table that may go as one RESTORE. Where others' keys are there somebody may wait for them; in a cluster a node
/// that does not answer is taken for dead.
pub(super) fn bytes_max(config: &Config, target: &Target) -> u64 {
    let is_ours_alone = target.checkpoint.owned && target.cluster.is_none();
    match is_ours_alone && config.function.is_none() {
        true => config.restore_bytes,
        false => 0,
    }
}

impl SnapshotApplier<'_> {
    /// The connection was lost once, perhaps for a command that held the target up or was too large for what lies between.
    pub(crate) fn in_small_commands(&mut self) {
        self.rewriter.without_pieces();
    }

    /// The look ahead that a value needs which may go in pieces.
    pub(super) fn measuring(&self) -> Option<Lookahead> {
        let bytes_max = self.rewriter.pieces_max()?;
        let decoder = self.decoder.lookahead()?;
        Some(Lookahead::measuring(decoder, self.read_pos, bytes_max))
    }

    /// The value ends there, if it may go as one RESTORE at all.
    pub(super) fn measured(&mut self, end: Option<u64>) -> Result<(), SyncError> {
        self.ahead = None;
        let start = self.decoder.offset();
        match end.map(|end| end.saturating_sub(start)) {
            None => self.decoder.want(Want::Elements),
            // It is held whole, as was asked for.
            Some(bytes) if bytes <= RESTORE_BYTES_MAX => {}
            Some(bytes) => {
                let begun = self
                    .rewriter
                    .pieces(bytes, self.lane.body(), &mut self.sent);
                begun.map_err(|error| self.cannot_hold(&error))?;
                self.lane.added(&mut self.sent);
                self.decoder.want(Want::Skip);
                let pos = self.base + start;
                self.pieces = Some(Pieces {
                    pos,
                    end: pos + bytes,
                });
            }
        }
        Ok(())
    }

    /// Gives as much as there is room for of a value that goes in pieces.
    pub(super) fn give_pieces(&mut self) -> Result<(), SyncError> {
        while let Some(Pieces { pos, end }) = self.pieces
            && self.lane.has_room()
        {
            let chunk = self.feed.read(pos).map_err(spool_error)?;
            let Some(mut chunk) = chunk else {
                return Err(self.cut_short());
            };
            let left = usize::try_from(end - pos).unwrap_or(usize::MAX);
            chunk.bytes.truncate(left);
            let given = self
                .rewriter
                .piece(&chunk.bytes, self.lane.body(), &mut self.sent);
            let is_done = given.map_err(|error| self.cannot_hold(&error))?;
            self.lane.added(&mut self.sent);
            self.pieces = (!is_done).then_some(Pieces {
                pos: pos + chunk.bytes.len() as u64,
                end,
            });
            if is_done {
                self.in_key = None;
            }
        }
        Ok(())
    }
}
