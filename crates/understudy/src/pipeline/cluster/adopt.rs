//! The cluster's part where the source is a shard of a cluster as well: see [`crate::pipeline::slots`], and
//! `target::cluster::holders` for what a slot says of who holds it.
//!
//! A slot that is let go is passed over from some place of the stream on. When everything before that is confirmed, its checkpoint
//! goes; then the claim. One that is taken is put in place by a group like any other: its checkpoint says from where on the slot's
//! commands are applied, so that whoever begins again passes over what the copy has.

use std::collections::BTreeSet;

use bytes::Bytes;
use rewrite::{Slot, slot_of};

use super::heal::LAST_PART;
use super::stream::ClusterStream;
use crate::checkpoint::Names;
use crate::clock::unix_ms;
use crate::error::SyncError;
use crate::pipeline::repair;
use crate::pipeline::slots::{Course, Slots, Taken};
use crate::pipeline::stream::heal;
use crate::pipeline::unit::End;
use crate::shard::Shard;
use crate::target::cluster::{Group, Mark};

/// Keys in one DEL.
const KEYS_AT_ONCE: usize = 512;

/// Where the slots of one connection to the target stand.
pub(super) struct Adopt<'a> {
    pub(super) slots: Slots<'a>,
    /// Passed over from `leave_at` on; their own checkpoints still name this link.
    leaving: Vec<u16>,
    leave_at: u64,
    /// On their way to the target.
    placing: Vec<u16>,
    /// The shard's slots are to be emptied before this command, which has this length.
    flush: Option<usize>,
}

impl<'a> Adopt<'a> {
    pub(super) fn new(slots: Slots<'a>) -> Self {
        Self {
            slots,
            leaving: Vec::new(),
            leave_at: 0,
            placing: Vec::new(),
            flush: None,
        }
    }

    fn is_idle(&self) -> bool {
        let has_none = self.leaving.is_empty() && self.placing.is_empty() && self.flush.is_none();
        has_none && self.slots.is_idle()
    }

    /// Whether a flush waits for everything before it.
    pub(super) fn flushes(&self) -> bool {
        self.flush.is_some()
    }
}

impl ClusterStream<'_> {
    /// Looks at who is to hold which slot, and begins what is to be done about it.
    pub(super) fn tend_slots(&mut self) -> Result<(), SyncError> {
        let Some(shard) = self.adopt.slots.shard.clone() else {
            return Ok(());
        };
        if self.feed.is_held() && shard.is_still() {
            return Ok(());
        }
        shard.set_still(false);
        if self.rewriter.in_transaction() || self.collector.is_in_transaction() {
            // One that waits for it may be the very one that is open.
            self.adopt.slots.discard_read();
            return Ok(());
        }
        // One that comes back is taken when it has been let go.
        if self.adopt.leaving.is_empty() {
            let leaving = self.adopt.slots.follow_plan();
            self.leave(&shard, leaving);
        }
        let replid = self.feed.with_log(|log| log.replid());
        match self.adopt.slots.take_read(self.config, replid) {
            Ok(all) => self.place_slots(&shard, &all)?,
            Err(what) => self.heal.fail(what),
        }
        let leaving = self.adopt.leaving.clone();
        let owner = self.checkpoint.owner;
        self.adopt
            .slots
            .begin_work(self.config, leaving, self.tells_time, owner);
        self.status.slots_held.set(shard.len() as u64);
        self.status
            .slots_moving
            .set(self.adopt.slots.waiting() as u64);
        let is_idle = self.adopt.is_idle() && !self.is_working() && self.collector.is_empty();
        shard.set_still(self.feed.is_held() && is_idle);
        Ok(())
    }

    /// From here on these slots are passed over.
    fn leave(&mut self, shard: &Shard, leaving: Vec<u16>) {
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
        for slot in &leaving {
            shard.leave(*slot);
        }
        // Their keys are no concern of this link any more.
        let mut gone = Names::default();
        for (db, key) in self.repairs.names().iter().chain(self.heal.held.iter()) {
            if leaving.contains(&slot_of(key).0) {
                gone.insert(db, key.clone());
            }
        }
        if !gone.is_empty() {
            self.heal.again();
            self.heal.held.remove(&gone);
            self.repairs.remove(&gone);
            self.is_told = false;
            self.show_repairs();
        }
        // Those on their way say that the link holds them when they are there.
        self.adopt.leaving.extend(leaving);
        self.adopt.leave_at = self.input.frame_pos;
    }

    /// Lets slots go at the target, when everything of them is confirmed. Nothing is on its way.
    pub(super) async fn free_slots(&mut self) -> Result<(), SyncError> {
        let Some(shard) = self.adopt.slots.shard.clone() else {
            return Ok(());
        };
        if self.feed.is_held() && shard.is_still() {
            return Ok(());
        }
        let asked = shard.group.take_asked(shard.index).into_iter();
        let asked: Vec<Slot> = asked
            .filter(|slot| !shard.holds(Slot(*slot)) && !self.adopt.leaving.contains(slot))
            .map(Slot)
            .collect();
        if !asked.is_empty()
            && let Some(cluster) = &mut self.cluster
        {
            cluster.free_again(&self.config.target, &asked).await?;
        }
        // What was collected before they were let go is confirmed first.
        if self.adopt.leaving.is_empty()
            || self.confirmed.offset < self.adopt.leave_at
            || !self.adopt.placing.is_empty()
        {
            return Ok(());
        }
        let leaving: Vec<Slot> = self.adopt.leaving.iter().copied().map(Slot).collect();
        let written = self.checkpoint_offset();
        let mark = self.last_mark(self.confirmed.offset);
        let Some(cluster) = &mut self.cluster else {
            return Ok(());
        };
        let target = &self.config.target;
        if cluster.is_witness(&leaving) {
            // Others tell of a loss from here on.
            cluster.bear_witness(target, written, mark, false).await?;
            self.write_checkpoint().await?;
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.free(target, &leaving).await?;
            self.memory
                .note_marks(cluster.state.generation, cluster.marks());
        }
        self.adopt.slots.have_left(&self.adopt.leaving);
        self.adopt.leaving.clear();
        self.adopt.slots.again();
        Ok(())
    }

    fn last_mark(&self, offset: u64) -> Mark {
        Mark {
            offset,
            part: LAST_PART,
        }
    }

    /// What to do with the next command, whose frame has this length; false: it waits.
    pub(super) fn command_of_shard(&mut self, len: usize) -> Result<bool, SyncError> {
        match self.course_of_slot(len) {
            Course::Apply => {}
            Course::PassOver => {
                self.status.dropped.add("other_shard", 1);
                self.advance(len)?;
                return Ok(true);
            }
            _ => return Ok(false),
        }
        match self.heal.is_active().then(|| self.course(len)) {
            None | Some(heal::Course::Apply) => self.command(len)?,
            Some(heal::Course::PassOver) => self.pass_over(len),
            Some(heal::Course::Wait) => return Ok(false),
        }
        Ok(true)
    }

    fn course_of_slot(&mut self, len: usize) -> Course {
        let frame = self.input.window().get(..len).unwrap_or_default();
        let (table, db) = (self.rewriter.table(), self.rewriter.db());
        let args = self.input.args();
        let slots = &self.adopt.slots;
        let course = slots.course(&self.config.filter, table, db, frame, args);
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
                    self.leave(&shard, slots);
                    self.adopt.slots.again();
                }
                Course::Apply
            }
            course => course,
        }
    }

    /// Everything before a flush is confirmed: the keys of the shard's slots go, and no others. A slot says that it was emptied;
    /// whoever comes upon the flush again leaves that one alone.
    pub(super) async fn flush_slots(&mut self) -> Result<(), SyncError> {
        let (Some(len), Some(shard)) = (self.adopt.flush.take(), self.adopt.slots.shard.clone())
        else {
            return Ok(());
        };
        let mark = self.last_mark(self.input.frame_end(len));
        let Some(cluster) = &mut self.cluster else {
            return Ok(());
        };
        let is_before = |slot: &Slot| cluster.mark(*slot) < Some(mark);
        let slots: Vec<Slot> = shard.slots().into_iter().map(Slot).collect();
        let slots: Vec<Slot> = slots.into_iter().filter(is_before).collect();
        let removed = cluster.empty_slots(self.config, &slots, mark).await?;
        for slot in &slots {
            self.collector.took(*slot, mark);
        }
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

    /// Puts what was read of slots on its way.
    fn place_slots(&mut self, shard: &Shard, all: &[Taken]) -> Result<(), SyncError> {
        let Some(first) = all.first() else {
            return Ok(());
        };
        let (pos, stream_db, config) = (self.input.frame_pos, self.rewriter.db(), self.config);
        let is_copied = |key: &&Bytes| repair::is_copied(config, 0, key);
        let (mut groups, mut keys) = (Vec::new(), 0);
        self.go_to_db(0)?;
        for taken in all {
            let Taken {
                slot,
                there,
                copies,
            } = taken;
            let mark = self.last_mark(copies.offset.max(pos));
            shard.hold(*slot, mark.offset);
            let mut group = Group::new(Slot(*slot), Some(mark));
            let names = copies.keys.iter().map(|copied| &copied.key);
            let gone: BTreeSet<&Bytes> = there.iter().chain(names).filter(is_copied).collect();
            let gone: Vec<&Bytes> = gone.into_iter().collect();
            for keys in gone.chunks(KEYS_AT_ONCE) {
                let mut del: Vec<&[u8]> = vec![b"DEL"];
                del.extend(keys.iter().map(|key| key.as_ref()));
                self.say(&mut group, &del)?;
            }
            let copied = copies.keys.iter();
            for copied in copied.filter(|copied| is_copied(&&copied.key)) {
                let Some(value) = &copied.value else { continue };
                let at_ms = copied.at_ms.to_string();
                let (key, at_ms) = (&copied.key, at_ms.as_bytes());
                let restore: [&[u8]; 6] = [b"RESTORE", key, at_ms, value, b"REPLACE", b"ABSTTL"];
                self.say(&mut group, &restore)?;
                self.late.is_copied(0, key);
                keys += 1;
            }
            groups.push(group);
            self.collector.took(Slot(*slot), mark);
            self.adopt.placing.push(*slot);
            self.status.slots_taken.add(1);
            tracing::debug!(slot, offset = copies.offset, "copied");
        }
        self.go_to_db(stream_db.0)?;
        let end = End {
            offset: pos,
            db: stream_db,
            received_ms: unix_ms(),
        };
        self.collector.place(groups, Names::default(), end);
        tracing::info!(
            slots = all.len(),
            first = first.slot,
            keys,
            "slots have moved to this shard of the source, and are copied whole"
        );
        Ok(())
    }

    /// Work has come to its end: slots that were put in place by it say so.
    pub(super) fn slots_placed(&mut self) {
        if let Some(cluster) = &self.cluster {
            let is_open = |slot: &u16| cluster.mark(Slot(*slot)).is_none();
            self.adopt.placing.retain(is_open);
        }
    }

    /// What was collected is thrown away.
    pub(super) fn slots_again(&mut self) {
        self.slots_placed();
        let Some(shard) = self.adopt.slots.shard.clone() else {
            return;
        };
        for slot in std::mem::take(&mut self.adopt.placing) {
            shard.leave(slot);
            self.adopt.slots.again();
        }
        self.adopt.flush = None;
    }

    /// The link's position has moved on.
    pub(super) fn slots_confirmed(&self) {
        if let Some(shard) = &self.adopt.slots.shard {
            shard.confirmed(self.checkpoint_offset());
        }
    }
}
