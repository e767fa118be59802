//! When to send `REPLCONF ACK`, and with which offset.
//!
//! An ACK due is a flag, not a queued command: the offset is read when the bytes are taken, and a
//! socket that takes nothing for an hour does not gather an hour of ACKs.

use std::collections::VecDeque;

use crate::{AckMode, ReplOffset};

/// Redis's replicas send one ACK a second (`replicationCron`).
const INTERVAL_MS: u64 = 1000;
/// GETACKs waiting for the target. A WAIT at the source sends one each, so this many clients
/// get an answer the moment it is true; further ones get it with the last of these.
const WAITING_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Acks {
    mode: AckMode,
    applied: Option<ReplOffset>,
    due: bool,
    /// The time of the last regular ACK; None until the first byte of a snapshot or a stream.
    regular_ms: Option<u64>,
    /// The ends of the GETACKs that `applied` has not reached, ascending.
    waiting: VecDeque<ReplOffset>,
    /// Nothing is sent: the source would take us for a replica that has the snapshot.
    held: bool,
}

impl Acks {
    pub(crate) fn new(mode: AckMode) -> Self {
        Self {
            mode,
            applied: None,
            due: false,
            regular_ms: None,
            waiting: VecDeque::new(),
            held: false,
        }
    }

    /// From now on one ACK a second.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        self.regular_ms = Some(now_ms);
    }

    /// A new history: what was applied of the former one means nothing in it.
    pub(crate) fn forget_applied(&mut self) {
        self.applied = None;
        self.waiting.clear();
    }

    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    pub(crate) fn let_go(&mut self) {
        self.held = false;
    }

    pub(crate) fn tick(&mut self, now_ms: u64) {
        if let Some(last_ms) = self.regular_ms
            && now_ms.saturating_sub(last_ms) >= INTERVAL_MS
        {
            self.regular_ms = Some(now_ms);
            self.due = true;
        }
    }

    pub(crate) fn send_now(&mut self) {
        self.due = true;
    }

    /// The source asked, by a command that ends at `end`: it gets what is applied now, and an
    /// answer again once the target has come as far.
    pub(crate) fn asked(&mut self, end: ReplOffset) {
        self.due = true;
        match self.mode {
            AckMode::Zero => {}
            AckMode::Applied => {
                if self.waiting.len() >= WAITING_MAX {
                    self.waiting.pop_back();
                }
                self.waiting.push_back(end);
            }
        }
    }

    pub(crate) fn applied(&mut self, offset: ReplOffset) {
        self.applied = Some(offset);
        while self.waiting.front().is_some_and(|end| *end <= offset) {
            self.waiting.pop_front();
            self.due = true;
        }
    }

    /// The offset to send, when an ACK is due.
    pub(crate) fn take(&mut self) -> Option<ReplOffset> {
        if self.held || !std::mem::take(&mut self.due) {
            return None;
        }
        let applied = self.applied.map_or(0, |offset| offset.0);
        Some(ReplOffset(match self.mode {
            AckMode::Applied => applied.saturating_sub(1),
            AckMode::Zero => 0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_getacks_are_bounded_and_the_furthest_is_kept() {
        let mut acks = Acks::new(AckMode::Applied);
        for end in 1..=5000 {
            acks.asked(ReplOffset(end));
        }
        assert_eq!(acks.waiting.len(), WAITING_MAX);
        acks.take();
        acks.applied(ReplOffset(4999));
        assert_eq!(acks.take(), Some(ReplOffset(4998)));
        acks.applied(ReplOffset(5000));
        assert_eq!(acks.take(), Some(ReplOffset(4999)));
        acks.applied(ReplOffset(5001));
        assert_eq!(acks.take(), None);
    }
}
