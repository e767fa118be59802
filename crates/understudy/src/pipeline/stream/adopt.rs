//! The applier's part where the source is a shard of a cluster: see [`super::super::slots`]. What was read of a slot goes into a unit
//! at once, whose checkpoint says from where on the slot's commands are applied.

use std::collections::BTreeSet;

use bytes::Bytes;
use rewrite::{Slot, slot_of};

use super::{Inflight, StreamApplier};
use crate::checkpoint::Names;
use crate::error::SyncError;
use crate::pipeline::repair;
use crate::pipeline::slots::{Course, Slots, Taken};
use crate::pipeline::sweep::{self, KeySet};
use crate::shard::Shard;

/// Keys in one DEL.
const KEYS_AT_ONCE: usize = 512;

/// Where the slots of one connection to the target stand.
#[derive(Default)]
pub(super) struct Adopt<'a> {
    pub(super) slots: Slots<'a>,
    /// Let go; no unit that says so is on its way yet.
    leaving: Vec<u16>,
    /// In the unit that is collected.
    placed: Vec<u16>,
    /// The shard's slots are to be emptied before this command, which has this length.
    flush: Option<usize>,
    /// There are slots that begin further on in the stream.
    pub(super) is_before: bool,
}

impl<'a> Adopt<'a> {
    pub(super) fn new(slots: Slots<'a>) -> Self {
        Self {
            slots,
            ..Self::default()
        }
    }

    fn is_idle(&self) -> bool {
        let has_none = self.leaving.is_empty() && self.placed.is_empty() && self.flush.is_none();
        has_none && self.slots.is_idle()
    }

    /// Whether the unit is to end here.
    pub(super) fn ends_unit(&self) -> bool {
        !self.placed.is_empty()
    }

    /// Whether a flush waits for everything before it.
    pub(super) fn flushes(&self) -> bool {
        self.flush.is_some()
    }
}

impl StreamApplier<'_> {
    /// Looks at who is to hold which slot, and begins what is to be done about it.
    pub(super) fn tend_slots(&mut self) -> Result<(), SyncError> {
        let Some(shard) = self.adopt.slots.shard.clone() else {
            return Ok(());
        };
        if self.feed.is_held() && shard.is_still() {
            return Ok(());
        }
        shard.set_still(false);
        if self.rewriter.in_transaction() {
            // One that waits for it may be the very one that is open.
            self.adopt.slots.discard_read();
            return Ok(());
        }
        let leaving = self.adopt.slots.follow_plan();
        self.leave(&shard, &leaving);
        let replid = self.feed.with_log(|log| log.replid());
        match self.adopt.slots.take_read(self.config, replid) {
            Ok(all) => {
                for taken in &all {
                    self.place_slot(&shard, taken)?;
                }
                if let Some(first) = all.first() {
                    let keys: usize = all.iter().map(|taken| taken.copies.keys.len()).sum();
                    tracing::info!(
                        slots = all.len(),
                        first = first.slot,
                        keys,
                        "slots have moved to this shard of the source, and are copied whole"
                    );
                }
            }
            Err(what) => self.heal.fail(what),
        }
        let inflight = self.inflight.iter().flat_map(|inflight| &inflight.leaving);
        let leaving: Vec<u16> = self.adopt.leaving.iter().chain(inflight).copied().collect();
        let owner = self.target.checkpoint.owner;
        self.adopt
            .slots
            .begin_work(self.config, leaving, self.tells_time, owner);
        self.status.slots_held.set(shard.len() as u64);
        self.status
            .slots_moving
            .set(self.adopt.slots.waiting() as u64);
        let is_idle = self.adopt.is_idle() && self.inflight.is_none() && self.next.end().is_none();
        shard.set_still(self.feed.is_held() && is_idle);
        Ok(())
    }

    /// From here on these slots are passed over.
    fn leave(&mut self, shard: &Shard, leaving: &[u16]) {
        let (Some(first), Some(last)) = (leaving.first(), leaving.last()) else {
            return;
        };
        tracing::info!(
            slots = leaving.len(),
            first,
            last,
            "slots leave this shard of the source"
        );
        shard.set_still(false);
        for slot in leaving {
            shard.leave(*slot);
        }
        // Their keys are no concern of this link any more.
        let mut gone = Names::default();
        for (db, key) in self.repairs.names().iter().chain(self.heal.held.iter()) {
            if leaving.contains(&slot_of(key).0) {
                gone.insert(db, key.clone());
            }
        }
        self.let_go(&gone);
        self.adopt.placed.retain(|slot| !leaving.contains(slot));
        self.adopt.leaving.extend(leaving);
        self.next
            .set_end(self.input.frame_pos, self.rewriter.db(), self.input.at_ms);
    }

    /// What to do with the next command, whose frame has this length.
    pub(super) fn course_of_slot(&mut self, len: usize) -> Course {
        let frame = self.input.window().get(..len).unwrap_or_default();
        let (table, db) = (self.rewriter.table(), self.rewriter.db());
        let args = self.input.args();
        let course = self
            .adopt
            .slots
            .course(&self.config.filter, table, db, frame, args);
        let at = self.input.frame_pos;
        match course {
            Course::Flush if self.rewriter.in_transaction() => {
                self.heal.fail(format!(
                    "command at offset {at}: a flush within a transaction at one shard of a cluster cannot be done at the target"
                ));
                Course::Wait
            }
            Course::Flush => {
                self.adopt.flush = Some(len);
                Course::Wait
            }
            Course::Fail(what) => {
                self.heal.fail(format!("command at offset {at}: {what}"));
                Course::Wait
            }
            Course::Doubt(slots) => {
                if let Some(shard) = self.adopt.slots.shard.clone() {
                    self.leave(&shard, &slots);
                    self.adopt.slots.again();
                }
                Course::Apply
            }
            course => course,
        }
    }

    /// Everything before a flush is confirmed: the keys of the shard's slots go, and no others.
    pub(super) async fn flush_slots(&mut self) -> Result<(), SyncError> {
        let Some(len) = self.adopt.flush.take() else {
            return Ok(());
        };
        let owner = self.target.checkpoint.owner;
        let removed = sweep::sweep(self.config, &KeySet::default(), false, 0, owner).await?;
        tracing::info!(
            removed,
            "the shard was flushed: its keys are removed, those of other shards stay"
        );
        let frame = self.input.window().get(..len).unwrap_or_default();
        let args = self.input.args();
        let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
        if let Some(command) = self.rewriter.table().find(&name.to_ascii_lowercase()) {
            self.status.commands.hit(usize::from(command.0));
            self.status.rewritten.hit(usize::from(command.0));
        }
        self.advance(len)
    }

    /// Puts what was read of a slot into the unit.
    fn place_slot(&mut self, shard: &Shard, taken: &Taken) -> Result<(), SyncError> {
        let Taken {
            slot,
            there,
            copies,
        } = taken;
        let pos = self.input.frame_pos;
        shard.take(*slot, copies.offset.max(pos));
        // What is said here is for the slot, wherever the stream is.
        shard.applied.insert(Slot(*slot));
        let stream_db = self.rewriter.db();
        self.say(&[b"SELECT", b"0"])?;
        let config = self.config;
        let is_copied = |key: &&Bytes| repair::is_copied(config, 0, key);
        let keys = copies.keys.iter().map(|copied| &copied.key);
        let gone: BTreeSet<&Bytes> = there.iter().chain(keys).filter(is_copied).collect();
        let gone: Vec<&Bytes> = gone.into_iter().collect();
        for keys in gone.chunks(KEYS_AT_ONCE) {
            let mut del: Vec<&[u8]> = vec![b"DEL"];
            del.extend(keys.iter().map(|key| key.as_ref()));
            self.say(&del)?;
        }
        for copied in copies.keys.iter().filter(|copied| is_copied(&&copied.key)) {
            let at_ms = copied.at_ms.to_string();
            if let Some(value) = &copied.value {
                let (key, at_ms) = (&copied.key, at_ms.as_bytes());
                self.say(&[
                    b"RESTORE",
                    key.as_ref(),
                    at_ms,
                    value,
                    b"REPLACE",
                    b"ABSTTL",
                ])?;
                self.late.is_copied(0, key);
            }
        }
        self.say(&[b"SELECT", stream_db.0.to_string().as_bytes()])?;
        shard.go_to(pos);
        self.adopt.placed.push(*slot);
        self.next.set_end(pos, stream_db, crate::clock::unix_ms());
        self.status.slots_taken.add(1);
        tracing::debug!(
            slot,
            keys = copies.keys.len(),
            offset = copies.offset,
            "copied"
        );
        Ok(())
    }

    /// What was collected is thrown away, and the stream goes on at `offset`.
    pub(super) fn slots_again(&mut self, offset: u64) {
        let Some(shard) = self.adopt.slots.shard.clone() else {
            return;
        };
        for slot in std::mem::take(&mut self.adopt.placed) {
            shard.leave(slot);
            self.adopt.slots.again();
        }
        self.adopt.flush = None;
        shard.go_to(offset);
    }

    /// What the unit that is sent now says of slots.
    pub(super) fn seal_slots(&mut self) -> Vec<u16> {
        self.adopt.placed.clear();
        std::mem::take(&mut self.adopt.leaving)
    }

    /// A unit is confirmed.
    pub(super) fn slots_confirmed(&mut self, inflight: &Inflight) {
        if let Some(shard) = &self.adopt.slots.shard {
            shard.confirmed(inflight.end.offset);
        }
        self.adopt.slots.have_left(&inflight.leaving);
    }
}
