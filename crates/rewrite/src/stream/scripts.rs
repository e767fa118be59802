//! Scripts, functions and messages.

use super::{Done, Publish, Work};
use crate::outcome::{DropReason, ErrorKind};

impl Work<'_> {
    /// `PUBLISH channel message`, `SPUBLISH channel message`.
    pub(super) fn publish(self) -> Done {
        if self.words.at(1) == b"__sentinel__:hello" {
            return Done::Dropped(DropReason::SentinelHello);
        }
        match self.options.publish {
            Publish::Drop => Done::Dropped(DropReason::Publish),
            Publish::Forward => Done::Forward,
        }
    }

    /// `SCRIPT LOAD code` (sources up to 6.2 send it, so that a later `EVALSHA` finds it), `SCRIPT FLUSH`.
    pub(super) fn script(self) -> Done {
        if self.words.is(1, b"LOAD") {
            Done::Forward
        } else if self.words.is(1, b"FLUSH") {
            Done::Dropped(DropReason::ScriptFlush)
        } else {
            Done::Dropped(DropReason::Control)
        }
    }

    /// `FUNCTION LOAD [REPLACE] code`, `FUNCTION RESTORE payload [FLUSH | APPEND | REPLACE]`, `DELETE`, `FLUSH`.
    pub(super) fn function(mut self) -> Result<Done, ErrorKind> {
        let words = self.words;
        let changes: [&[u8]; 4] = [b"LOAD", b"RESTORE", b"DELETE", b"FLUSH"];
        if !changes.iter().any(|word| words.is(1, word)) {
            return Ok(Done::Dropped(DropReason::Control));
        }
        if !self.options.target.functions {
            return self.lacks("functions (Redis 7.0)");
        }
        if words.is(1, b"LOAD") && words.len() == 3 {
            self.emit(&[b"FUNCTION", b"LOAD", b"REPLACE", words.at(2)]);
            return Ok(Done::Rewritten(1));
        }
        if words.is(1, b"RESTORE") {
            return Ok(self.function_restore());
        }
        Ok(Done::Forward)
    }
}
