//! The cluster's part in repairs: what is passed over, where values are put, what becomes of commands that failed. See
//! [`crate::pipeline::repair`].
//!
//! A key under repair is named in the checkpoint of its slot: written before anything else goes out, and so before the link's
//! position can move past what was found. The values go to their slots as the last of what is made of the source's commands up to
//! there, and a checkpoint names them until that is confirmed. Whoever begins again at the link's position passes over what slots
//! have, and over all that touches a key that is named.

use rewrite::{Db, Outcome};

use super::Damage;
use super::collect::Work;
use super::sink::selected;
use super::stream::ClusterStream;
use crate::checkpoint::Names;
use crate::clock::unix_ms;
use crate::error::{Side, SyncError};
use crate::pipeline::repair::{self, Copies, Touched, Whole};
use crate::pipeline::stream::heal::{Course, Heal, TOO_MANY};
use crate::pipeline::stream::late::Doubts;
use crate::pipeline::stream::note_lease;
use crate::pipeline::unit::End;
use crate::pipeline::{each_command, show, stream_limits};
use crate::target::cluster::{Group, Mark};

/// Behind all that can be made of one command.
pub(super) const LAST_PART: u32 = u32::MAX;

impl ClusterStream<'_> {
    /// Begins to read the values of the keys under repair, if it is time.
    pub(super) fn begin_reading(&mut self) {
        let behind = self.feed.end().saturating_sub(self.input.frame_pos);
        self.heal.begin(self.config, self.tells_time, behind);
    }

    /// The values are read, or cannot be.
    pub(super) fn has_read(&mut self, read: Result<Copies, SyncError>) {
        let replid = self.feed.with_log(|log| log.replid());
        self.heal.has_read(read, replid, self.feed.is_complete());
    }

    /// What to do with the next command, whose frame has this length.
    pub(super) fn course(&mut self, len: usize) -> Course {
        let frame = self.input.window().get(..len).unwrap_or_default();
        let args = self.input.args();
        let db = self.rewriter.db().0;
        let touched = Touched::by(self.rewriter.table(), db, frame, args);
        if !touched.hits(&self.heal.held) {
            return Course::Apply;
        }
        let end = self.input.frame_end(len);
        let is_whole = touched.whole != Whole::Nothing;
        // Who was here before us has done it, or passed over it and named what hangs on it.
        let mark = Mark {
            offset: end,
            part: LAST_PART,
        };
        let target = &self.config.target;
        let has =
            |(db, key): (u32, &bytes::Bytes)| self.collector.has(target.slot_of(db, key), mark);
        if !is_whole && touched.names.iter().all(has) {
            return Course::PassOver;
        }
        if self.heal.waits(&touched, end) {
            return Course::Wait;
        }
        if is_whole {
            return Course::Apply;
        }
        let more = self.copied(&touched.spread(&self.heal.held));
        if self.heal.held.extend(&more) {
            self.heal.again();
            if !self.repairs.add_doubtful(&more) {
                self.heal.fail(TOO_MANY.to_owned());
            }
            self.is_told = false;
            self.show_repairs();
        }
        Course::PassOver
    }

    /// The command at the window's start, whose frame has this length, is one that the filter would have to cut in two.
    pub(super) fn torn(&mut self, len: usize) {
        let frame = self.input.window().get(..len).unwrap_or_default();
        let (args, db) = (self.input.args(), self.rewriter.db().0);
        let (ours, table) = ((self.config, self.status), self.rewriter.table());
        let Some(names) = self.heal.tear(ours, table, db, frame, args) else {
            return;
        };
        if !self.repairs.add_doubtful(&names) {
            self.heal.fail(TOO_MANY.to_owned());
        }
        self.is_told = false;
        self.show_repairs();
    }

    /// The next command is not for the target: what it does is in a value that is read at the source.
    pub(super) fn pass_over(&mut self, len: usize) {
        self.status.dropped.add("under_repair", 1);
        self.input.advance(len);
        self.collector.set_end(End {
            offset: self.input.frame_pos,
            db: self.rewriter.db(),
            received_ms: self.input.at_ms,
        });
    }

    /// Puts the values on their way, if the stream has come to the moment at which they were read.
    pub(super) fn place(&mut self) -> Result<(), SyncError> {
        if self.collector.is_in_transaction() || self.rewriter.in_transaction() {
            return Ok(());
        }
        let replid = self.feed.with_log(|log| log.replid());
        let Some(copies) = self.heal.arrived(self.input.frame_pos, replid) else {
            return Ok(());
        };
        let mark = Mark {
            offset: self.input.frame_pos,
            part: LAST_PART,
        };
        let mut groups: Vec<Group> = Vec::new();
        let mut names = Names::default();
        let stream_db = self.rewriter.db();
        for copied in copies.keys {
            self.go_to_db(copied.db)?;
            let slot = self.config.target.slot_of(copied.db, &copied.key);
            let known = groups.iter().position(|group| group.slot == slot);
            let mut group = match known {
                Some(at) => groups.swap_remove(at),
                None => Group::new(slot, Some(mark)),
            };
            self.say(&mut group, &[b"DEL", &copied.key])?;
            if let Some(value) = &copied.value {
                let at_ms = copied.at_ms.to_string();
                let (key, at_ms) = (&copied.key, at_ms.as_bytes());
                let restore: [&[u8]; 6] = [b"RESTORE", key, at_ms, value, b"REPLACE", b"ABSTTL"];
                self.say(&mut group, &restore)?;
            }
            groups.push(group);
            self.late.is_copied(copied.db, &copied.key);
            names.insert(copied.db, copied.key);
        }
        self.go_to_db(stream_db.0)?;
        let end = End {
            offset: self.input.frame_pos,
            db: stream_db,
            received_ms: unix_ms(),
        };
        self.collector.place(groups, names.clone(), end);
        self.heal.has_placed(&names);
        self.heal.placed = Names::default();
        Ok(())
    }

    /// What follows is said in this database of the source.
    pub(super) fn go_to_db(&mut self, db: u32) -> Result<(), SyncError> {
        if self.rewriter.db() == Db(db) {
            return Ok(());
        }
        let number = db.to_string();
        self.as_in_stream(&[b"SELECT", number.as_bytes()]).map(drop)
    }

    /// Puts a command of our own into a group, as if it had come in the stream.
    pub(super) fn say(&mut self, group: &mut Group, argv: &[&[u8]]) -> Result<(), SyncError> {
        let (frame, outcome) = self.as_in_stream(argv)?;
        let bytes = match outcome {
            Ok(Outcome::Forward { .. }) => frame.as_slice(),
            Ok(Outcome::Rewritten { .. }) => self.scratch.as_slice(),
            Ok(Outcome::Dropped(reason)) => {
                let name = show(argv.first().copied().unwrap_or_default());
                let why = reason.label();
                let what = format!("it cannot be repaired: {name} is left out ({why})");
                self.heal.fail(what);
                return Ok(());
            }
            Ok(_) => return Ok(()),
            Err(error) => {
                self.heal.fail(format!("it cannot be repaired: {error}"));
                return Ok(());
            }
        };
        let (table, db) = (self.rewriter.table(), self.rewriter.db());
        let mapped = match &mut self.mapper {
            None => Ok((db, bytes)),
            Some(mapper) => mapper
                .map(table, db, bytes)
                .map(|(_, target, bytes)| (target, bytes)),
        };
        let (mut db, bytes) = match mapped {
            Ok(mapped) => mapped,
            Err(error) => {
                self.heal.fail(format!("it cannot be repaired: {error}"));
                return Ok(());
            }
        };
        each_command(bytes, |_, frame, args| match selected(frame, args) {
            Some(selected) => db = selected,
            None => {
                group.select(db.0);
                group.push(frame, args.len(), &[], false);
            }
        });
        self.dbs.insert(db.0);
        Ok(())
    }

    /// A command of our own, rewritten as if it had come in the stream: its frame, and what it has come to.
    fn as_in_stream(
        &mut self,
        argv: &[&[u8]],
    ) -> Result<(Vec<u8>, Result<Outcome, rewrite::Error>), SyncError> {
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, argv);
        let mut decoder = resp::CommandDecoder::new(stream_limits());
        let name = show(argv.first().copied().unwrap_or_default());
        decoder.poll(&frame).map_err(|error| {
            let what = format!("a key cannot be repaired by {name}: {error}");
            SyncError::stop(Side::Target, &self.config.target.endpoint.address, what)
        })?;
        self.scratch.clear();
        let (args, now_ms) = (decoder.args(), unix_ms());
        let outcome = self
            .rewriter
            .command(&frame, args, now_ms, &mut self.scratch);
        // The unit may end where the one before has ended: only what comes behind it shows that it is applied.
        let from = self.input.frame_pos + 1;
        for granted in self.rewriter.granted() {
            note_lease(self.config, self.leases, granted, from);
        }
        Ok((frame, outcome))
    }

    /// Commands failed in what was carried out: from here on their keys are under repair, or the link stops.
    pub(super) async fn differs(
        &mut self,
        damage: Damage,
        end: Option<End>,
        placed: Names,
    ) -> Result<(), SyncError> {
        for code in &damage.codes {
            self.status.target_errors.add(code, 1);
            self.status.divergences.add(code, 1);
        }
        let what = damage
            .what
            .unwrap_or_else(|| "the target has ended a key that the source has saved".to_owned());
        if !self.config.repair {
            return Err(self.diverged(&what).await?);
        }
        let (found, ended) = (
            repair::at_source(self.config, &damage.names),
            repair::at_source(self.config, &damage.ended),
        );
        let is_nameless = damage.is_keyless || found.is_none();
        let names = self.copied(&found.unwrap_or_default());
        let mut doubts = self.copied(&ended.unwrap_or_default());
        let has_doubts = self.judge().hold(&mut doubts).await;
        if damage.codes.is_empty() && !has_doubts {
            self.confirm(end)?;
            self.placed(&placed);
            return Ok(());
        }
        let is_again = placed.iter().any(|(db, key)| names.contains(db, key));
        let fits = self.repairs.add(&names);
        if damage.is_whole {
            self.confirm(end)?;
            let mut done = placed;
            done.remove(&names);
            done.remove(&doubts);
            self.placed(&done);
        }
        let why = match (is_nameless, is_again, fits) {
            (true, ..) => {
                "a command without keys, or in a database that is several of the source's, cannot be repaired"
            }
            (_, true, _) => "the value from the source was refused",
            (.., false) => "too many keys hang on it",
            _ => "",
        };
        // What was collected meanwhile was meant for a target without a flaw.
        self.begin_healing();
        if !why.is_empty() {
            self.heal.fail(format!("{what}; {why}"));
        }
        Ok(())
    }

    /// All keys under repair are passed over from the confirmed position on, and their values are read.
    pub(super) fn begin_healing(&mut self) {
        self.is_told = false;
        self.collect_again();
        self.heal = Heal::new(self.repairs.names());
        self.show_repairs();
    }

    /// What is to be asked of the target before work: whether keys that it counts on are in doubt. Then they are under repair from
    /// here on, and what was collected is collected anew.
    pub(super) async fn doubts(&mut self, work: &Work) -> Result<bool, SyncError> {
        let Some(until) = work.last_offset() else {
            return Ok(false);
        };
        let asks = self.late.take(self.confirmed.offset, until);
        let Some(cluster) = self.cluster.as_mut().filter(|_| !asks.is_empty()) else {
            return Ok(false);
        };
        let (_, bytes) = work.size();
        let margin = self.late.margin(bytes as u64);
        let unchecked = &self.status.unchecked;
        let asked = self
            .late
            .ask_cluster(self.config, cluster, &asks, margin, unchecked);
        let mut names = asked.await?;
        names = self.copied(&names);
        if !self.judge().hold(&mut names).await {
            return Ok(false);
        }
        self.begin_healing();
        self.late.come_again(until);
        Ok(true)
    }

    /// What puts keys in doubt under repair.
    fn judge(&self) -> Doubts<'_> {
        Doubts {
            config: self.config,
            status: self.status,
            repairs: self.repairs,
            tide: self.late.tide(),
            tells_time: self.tells_time,
        }
    }

    /// Those of these keys that are copied at all.
    pub(super) fn copied(&self, names: &Names) -> Names {
        let mut copied = Names::default();
        for (db, key) in names.iter() {
            if repair::is_copied(self.config, db, key) {
                copied.insert(db, key.clone());
            }
        }
        copied
    }

    /// Values are confirmed.
    pub(super) fn placed(&mut self, names: &Names) {
        if names.is_empty() {
            return;
        }
        // What was put in place may have come to differ again since.
        let mut done = names.clone();
        done.remove(&self.heal.held);
        self.repairs.remove(&done);
        self.is_told = false;
        self.status.repairs.add(names.len() as u64);
        tracing::info!(keys = names.len(), "repaired: as at the source again");
        self.show_repairs();
    }

    /// Makes the slots' checkpoints name the keys that are under repair; nothing is on its way.
    pub(super) async fn tell_repairs(&mut self) -> Result<(), SyncError> {
        if self.is_told {
            return Ok(());
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.set_repairs(&self.config.target, &self.repairs.names());
            cluster.set_seen(self.confirmed.offset);
            cluster.tell_repairs(&self.config.target).await?;
        }
        self.is_told = true;
        Ok(())
    }

    pub(super) fn show_repairs(&self) {
        self.status.repairs_open.set(self.repairs.len() as u64);
    }

    /// Ends the link, if it cannot go on.
    pub(super) async fn give_up(&mut self) -> Result<(), SyncError> {
        match self.heal.take_failure() {
            Some(what) => Err(self.diverged(&what).await?),
            None => Ok(()),
        }
    }

    /// Writes to the checkpoint that only a new snapshot mends the target; gives the word for it.
    async fn diverged(&mut self, what: &str) -> Result<SyncError, SyncError> {
        self.write_diverged().await?;
        let then = match self.config.function {
            Some(_) => {
                "what filter.function makes cannot be mended one key at a time: empty the target, its checkpoint too, and start again"
            }
            None => "start again: a new snapshot mends the target",
        };
        let what = format!("{what}; the target differs from the source from here on; {then}");
        let address = &self.config.target.endpoint.address;
        Ok(SyncError::stop(Side::Target, address, what))
    }
}
