//! The applier's part in `filter.function`: see [`super::super::called`].

use super::{Input, StreamApplier};
use crate::config::Config;
use crate::error::SyncError;

/// Said of a part of the stream of which the answers were not seen.
pub(in crate::pipeline) const UNHEARD: &str = "whether a command of the last unit failed at the target is not known: filter.function says which keys it was about, and they cannot be copied from the source";

impl StreamApplier<'_> {
    /// What the script makes of the command at the window's start, or of what it was rewritten to, goes into the unit.
    pub(super) fn call(&mut self, len: usize, is_rewritten: bool) -> Result<(), SyncError> {
        let Some(called) = &mut self.called else {
            return Ok(());
        };
        let at = self.input.frame_pos;
        let bytes = match is_rewritten {
            true => &self.scratch,
            false => self.input.window().get(..len).unwrap_or_default(),
        };
        called
            .run(self.rewriter.db(), bytes, self.input.at_ms)
            .map_err(|what| failed_at(at, &what))?;
        let end = at + len as u64;
        for granted in called.granted() {
            let (db, key) = (granted.db.0, granted.key);
            self.leases.note(db, key, granted.at_ms, end);
        }
        if called.take_carried() && self.leases.any() {
            self.leases.suspect(end);
        }
        for reason in called.dropped() {
            self.status.dropped.add(reason.label(), 1);
        }
        if called.put(&mut self.next) == 0 {
            self.status.dropped.add("function", 1);
        }
        Ok(())
    }
}

/// A script has failed on the command at this offset.
pub(in crate::pipeline) fn failed_at(offset: u64, what: &str) -> SyncError {
    SyncError::local(format!(
        "the command at offset {offset} of the stream: {what}; nothing of it was applied: mend the script and start again"
    ))
}

/// The stream from `pos` on.
pub(in crate::pipeline) fn input_at(config: &Config, pos: u64) -> Input {
    let input = Input::at(pos, config.command_bytes_max());
    match config.function {
        // A script sees all of a command.
        Some(_) => input.whole(),
        None => input,
    }
}
