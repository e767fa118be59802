//! The command stream, applied to a cluster: one window or step at a time, the next ones being collected meanwhile.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use rewrite::{CommandId, Db, DropReason, Outcome, StreamRewriter};
use tokio::time::Instant;

use super::Failed;
use super::adopt::Adopt;
use super::collect::{Collector, Incoming, Sizes, Work};
use super::gather::{Hands, beginning, generation};
use super::heal::LAST_PART;
use super::low_water::{Memory, position};
use super::recall::{Zone, zones};
use super::sink::{Sink, is_done};
use crate::checkpoint::{self, Checkpoint, Names, Phase, Position};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::pipeline::called::Called;
use crate::pipeline::lease::Leases;
use crate::pipeline::mapper::Mapper;
use crate::pipeline::merged::Asks;
use crate::pipeline::repair::Repairs;
use crate::pipeline::slots::{self, Slots};
use crate::pipeline::stream::heal::{Course, Heal};
use crate::pipeline::stream::input::{Input, InputError};
use crate::pipeline::stream::late::Late;
use crate::pipeline::stream::{TELLS_TIME, failed_at, input_at, mend_of, note_lease, rewriter};
use crate::pipeline::throttle::Throttle;
use crate::pipeline::unit::End;
use crate::pipeline::{Common, show};
use crate::source::spool_error;
use crate::spool::Feed;
use crate::status::Status;
use crate::target::Target;
use crate::target::cluster::{Cluster, Mark};

/// A window is so many times a unit of a single server: its slots' checkpoints and transactions cost the less the more commands
/// each slot has in it.
const UNITS: usize = 16;
/// A target this far behind is behind.
const BEHIND_MS: u64 = 200;

/// Work on its way, and the cluster that comes back with its end.
type Running<'a> = Pin<Box<dyn Future<Output = (Box<Cluster>, Result<(), Failed>)> + 'a>>;

/// What is known of the work on its way.
#[derive(Debug, Clone)]
struct Flight {
    end: Option<End>,
    placed: Names,
    began: Instant,
    commands: u64,
    bytes: u64,
}

/// Applies one history's stream to a cluster.
pub(crate) struct ClusterStream<'a> {
    pub(super) config: &'a Config,
    pub(super) status: &'a Status,
    pub(super) feed: &'a Feed,
    pub(super) leases: &'a Leases,
    pub(super) memory: &'a mut Memory,
    /// Here while nothing is on its way.
    pub(super) cluster: Option<Box<Cluster>>,
    running: Option<(Running<'a>, Flight)>,
    /// The link's checkpoint as it was written last.
    pub(super) checkpoint: Checkpoint,
    hands: Hands<'a>,
    pub(super) input: Input,
    pub(super) rewriter: StreamRewriter,
    /// For another one, from any place.
    pub(super) rewriter_at: Box<dyn Fn(Db) -> StreamRewriter + 'a>,
    pub(super) collector: Collector,
    pub(super) scratch: Vec<u8>,
    /// Where a script says what goes to the target.
    called: Option<Called>,
    /// Where databases have other numbers at the target.
    pub(super) mapper: Option<Mapper>,
    merged: Asks,
    /// The target's databases that commands were collected for.
    pub(super) dbs: BTreeSet<u32>,
    /// Everything up to here is confirmed.
    pub(super) confirmed: End,
    carriers: Vec<rewrite::CommandId>,
    pub(super) repairs: &'a Repairs,
    pub(super) heal: Heal<'a>,
    pub(super) late: Late<'a>,
    /// The slots' checkpoints name the keys that are under repair.
    pub(super) is_told: bool,
    /// Where nobody has looked at the answers to what slots have.
    pub(super) zones: Vec<(u16, Zone)>,
    /// The source has PEXPIRETIME.
    pub(super) tells_time: bool,
    throttle: Throttle,
    pub(super) adopt: Adopt<'a>,
}

impl<'a> ClusterStream<'a> {
    /// An applier that goes on at `from`; what slots have beyond it is passed over.
    pub(crate) fn new(
        common: Common<'a>,
        feed: &'a Feed,
        target: &mut Target,
        from: End,
        source_version: Option<rewrite::Version>,
        memory: &'a mut Memory,
    ) -> Result<Self, SyncError> {
        let Common {
            config,
            status,
            leases,
            tide,
            repairs,
            ..
        } = common;
        let key = checkpoint::key(&config.link_name);
        let called = Called::new(config, target)?;
        let Some(cluster) = target.cluster.take() else {
            return Err(SyncError::local("the target is not a cluster"));
        };
        let abilities = target.abilities.clone();
        let rewriter_at = move |db| rewriter(config, &abilities, &key, source_version, db);
        let zones = zones(&cluster, memory, from.offset);
        let is_told = cluster.notes().iter().all(|note| note.repairs.is_none());
        // What is another link's by now is not this one's to repair.
        repairs.remove(&slots::of_others(config, &repairs.names()));
        for note in cluster.notes() {
            if let Some(names) = &note.repairs {
                repairs.add_doubtful(&names.keys());
            }
        }
        let sizes = Sizes {
            commands: (config.target.batch_commands * UNITS) as u64,
            bytes: config.target.batch_bytes * UNITS / 4,
        };
        memory.note_marks(cluster.state.generation, cluster.marks());
        memory.begin(from.offset);
        let table = rewrite::Table::new();
        let carriers = ["rename", "renamenx", "copy", "move"];
        let carriers = carriers
            .iter()
            .filter_map(|name| table.find(name.as_bytes()));
        Ok(Self {
            config,
            status,
            feed,
            leases,
            memory,
            running: None,
            checkpoint: target.checkpoint.clone(),
            hands: Hands {
                config,
                status,
                feed,
                cannot_restore: !target.abilities.restore,
            },
            input: input_at(config, from.offset),
            rewriter: rewriter_at(from.db),
            rewriter_at: Box::new(rewriter_at),
            collector: Collector::new(
                cluster.marks().to_vec(),
                sizes,
                cluster.is_lua(),
                config.rival.clone(),
            ),
            cluster: Some(Box::new(cluster)),
            scratch: Vec::new(),
            called,
            mapper: Mapper::new(config, &checkpoint::key(&config.link_name)),
            merged: Asks::default(),
            dbs: BTreeSet::new(),
            confirmed: from,
            carriers: carriers.collect(),
            repairs,
            heal: Heal::new(repairs.names()),
            late: Late::new(config, &table, tide, feed.end()).between(
                &table,
                source_version,
                &target.abilities,
            ),
            is_told: is_told && repairs.len() == 0,
            zones,
            tells_time: source_version.is_some_and(|version| version >= TELLS_TIME),
            throttle: Throttle::new(),
            adopt: Adopt::new(Slots::new(config.shard.clone())),
        })
    }

    /// Behind a snapshot that is applied to its end: every slot begins here, and the link's position is in the stream.
    pub(crate) async fn announce(&mut self, position: Position) -> Result<(), SyncError> {
        let mark = beginning(position.offset.0);
        let Some(cluster) = &mut self.cluster else {
            return Ok(());
        };
        cluster.begin(generation(), mark).await?;
        let marks = cluster.marks().to_vec();
        self.collector.set_applied(marks);
        self.memory
            .note_marks(cluster.state.generation, cluster.marks());
        self.checkpoint.phase = Phase::Stream(position);
        self.checkpoint.leased = self.leases.any();
        // From here on the slots themselves say it.
        self.checkpoint.slots = None;
        self.write_checkpoint().await
    }

    /// Applies nothing of the feed: the position it began at is where it ends.
    pub(crate) fn end_here(&mut self) {
        self.input.ends = true;
    }

    /// Runs until the feed is closed and drained, or an error. What is known of the slots is in `memory` afterwards.
    pub(crate) async fn run(mut self) -> Result<(), SyncError> {
        self.memory.wrote(self.checkpoint_offset());
        self.show_repairs();
        let result = self.go_on().await;
        if let Some(cluster) = &self.cluster {
            self.memory
                .note_marks(cluster.state.generation, cluster.marks());
        }
        result
    }

    async fn go_on(&mut self) -> Result<(), SyncError> {
        self.recall().await?;
        loop {
            self.tend_slots()?;
            let starved = self.fill()?;
            self.begin_reading();
            // Before anything is asked of the target: it may never answer.
            self.show_lag();
            if self.running.is_none() {
                self.give_up().await?;
                self.renew().await?;
                self.tell_repairs().await?;
                self.tend().await?;
                self.free_slots().await?;
                if let Some(work) = self.collector.take() {
                    if !self.doubts(&work).await? {
                        self.start(work).await?;
                    }
                    continue;
                }
                if self.adopt.flushes() {
                    self.flush_slots().await?;
                    continue;
                }
            }
            if starved
                && self.feed.is_complete()
                && self.running.is_none()
                && self.collector.is_empty()
                && !self.heal.is_worth_waiting()
            {
                return self.tell_seen().await;
            }
            let pause = self.memory.pause();
            tokio::select! {
                biased;
                done = progress(&mut self.running) => self.done(done).await?,
                read = self.heal.progress() => if let Some(read) = read {
                    self.has_read(read);
                },
                () = self.adopt.slots.progress() => {}
                () = self.feed.changed(), if starved => {}
                () = renewal_due(self.cluster.as_deref()) => {}
                () = tokio::time::sleep(pause), if starved => {}
            }
        }
    }

    /// Whether anything is on its way.
    pub(super) fn is_working(&self) -> bool {
        self.running.is_some()
    }

    /// Says again who we are, if it is time; nothing is on its way.
    async fn renew(&mut self) -> Result<(), SyncError> {
        match &mut self.cluster {
            Some(cluster) if cluster.renewal_is_due() => {
                cluster.renew().await?;
                // That to the source, beside it, is as old, and is opened anew when it is needed.
                self.merged.hang_up();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Collects commands; true when the feed has no more.
    fn fill(&mut self) -> Result<bool, SyncError> {
        self.late.tick();
        loop {
            if self.heal.is_active() {
                self.place()?;
            }
            if self.heal.has_failed() || self.adopt.flushes() {
                return Ok(false);
            }
            let is_between = !self.collector.is_in_transaction();
            if is_between
                && self.late.has_come_again(self.input.frame_pos)
                && !self.collector.is_empty()
            {
                return Ok(false);
            }
            if self.collector.is_full() {
                return Ok(false);
            }
            if self.collector.held_bytes() > self.config.transaction_bytes_max() {
                return Err(self.too_large_a_transaction());
            }
            match self.input.poll() {
                Ok(Some(frame)) if self.adopt.slots.is_on() => {
                    if !self.command_of_shard(frame.len)? {
                        return Ok(false);
                    }
                }
                Ok(Some(frame)) if self.heal.is_active() => match self.course(frame.len) {
                    Course::Apply => self.command(frame.len)?,
                    Course::PassOver => self.pass_over(frame.len),
                    Course::Wait => return Ok(false),
                },
                Ok(Some(frame)) => self.command(frame.len)?,
                Ok(None) => {
                    if !self.input.more(self.feed).map_err(spool_error)? {
                        return Ok(true);
                    }
                    self.choose_lease();
                }
                Err(error) => return Err(self.not_a_command(&error)),
            }
        }
    }

    /// Throws away what was collected, and goes on collecting behind what is confirmed.
    pub(super) fn collect_again(&mut self) {
        let from = self.confirmed;
        let mut input = input_at(self.config, from.offset);
        input.ends = self.input.ends;
        input.at_ms = from.received_ms;
        self.input = input;
        self.rewriter = (self.rewriter_at)(from.db);
        self.late.forget();
        self.choose_lease();
        self.slots_again();
        if let Some(cluster) = &self.cluster {
            self.collector.begin_again(cluster.marks().to_vec());
        }
    }

    /// Puts the command at the window's start on its way.
    pub(super) fn command(&mut self, len: usize) -> Result<(), SyncError> {
        let frame = self.input.window().get(..len).unwrap_or_default();
        let args = self.input.args();
        let db = self.rewriter.db();
        let end = self.input.frame_end(len);
        if !args.is_empty() {
            self.scratch.clear();
            let outcome = self
                .rewriter
                .command(frame, args, self.input.at_ms, &mut self.scratch);
            let left_out = self.rewriter.take_left_out();
            if left_out > 0 {
                let label = rewrite::DropReason::TargetLacksWords.label();
                self.status.dropped.add(label, left_out);
            }
            for granted in self.rewriter.granted() {
                note_lease(self.config, self.leases, granted, end);
            }
            if self.rewriter.take_leased_fields() {
                self.leases.note_fields();
            }
            let outcome = outcome.map_err(|error| self.bad_command(&error))?;
            if self.called.is_some()
                && let Outcome::Forward { command } | Outcome::Rewritten { command, .. } = outcome
            {
                self.status.commands.hit(usize::from(command.0));
                if matches!(outcome, Outcome::Forward { .. }) {
                    self.scratch.extend_from_slice(frame);
                }
                self.call(db, end)?;
                return self.advance(len);
            }
            match outcome {
                Outcome::Forward { command } => self.goes(command, db, len, None),
                Outcome::Rewritten { command, commands } => {
                    self.status.rewritten.hit(usize::from(command.0));
                    self.goes(command, db, len, Some(commands));
                }
                Outcome::Dropped(DropReason::FilterMixed) => self.torn(len),
                Outcome::Dropped(reason) => {
                    if reason == DropReason::TargetLacks {
                        let name = args.first().map_or(&[][..], |name| name.of(frame));
                        self.status.lacking.add(&show(name).to_lowercase(), 1);
                    }
                    self.status.dropped.add(reason.label(), 1);
                }
                Outcome::Select(_) => {}
                Outcome::Multi => self.collector.begin_transaction(),
                Outcome::Exec => self.collector.end_transaction(self.status),
                Outcome::Discard => self.collector.discard_transaction(),
            }
        }
        self.advance(len)
    }

    /// The command at the window's start goes to the target, or what is in the scratch in its place: `rewritten` commands.
    fn goes(&mut self, id: CommandId, db: Db, len: usize, rewritten: Option<u32>) {
        let end = self.input.frame_end(len);
        if self.leases.any_key() && self.carriers.contains(&id) {
            self.leases.suspect(end);
        }
        self.status.commands.hit(usize::from(id.0));
        let frame = self.input.window().get(..len).unwrap_or_default();
        let (args, table) = (self.input.args(), self.rewriter.table());
        let bytes = match rewritten {
            Some(_) => self.scratch.as_slice(),
            None => frame,
        };
        let is_mapped = self.mapper.is_some();
        let (bytes, target) = match &mut self.mapper {
            None => (bytes, db),
            Some(mapper) => {
                self.merged.note(self.config, table, db, frame, args);
                match mapper.map(table, db, bytes) {
                    Ok((mapped, target, bytes)) if mapped.commands > 0 => (bytes, target),
                    Ok(_) => {
                        let label = DropReason::NoEffect.label();
                        return self.status.dropped.add(label, 1);
                    }
                    Err(error) => {
                        let at = self.input.frame_pos;
                        return self.heal.fail(format!("command at offset {at}: {error}"));
                    }
                }
            }
        };
        let is_done = is_done(&self.collector, table, bytes, end);
        let is_one = !is_done && self.late.collect(table, id, db.0, frame, args, end);
        let sink = Sink {
            status: self.status,
            table,
            collector: &mut self.collector,
            dbs: &mut self.dbs,
        };
        let holes = self.input.holes();
        let put = match (rewritten, is_mapped) {
            // It is taken apart already.
            (None, false) => {
                let of = Incoming {
                    db: target.0,
                    frame,
                    args,
                    mark: Mark {
                        offset: end,
                        part: 1,
                    },
                    holes,
                    is_one,
                };
                sink.one(table.command(id), of)
            }
            (commands, _) => {
                let is_one = is_one && commands.is_none_or(|commands| commands == 1);
                sink.all(bytes, target, end, holes, is_one)
            }
        };
        if let Err(what) = put {
            let at = self.input.frame_pos;
            self.heal.fail(format!("command at offset {at}: {what}"));
        }
    }

    /// What the script makes of what is in the scratch.
    fn call(&mut self, db: Db, end: u64) -> Result<(), SyncError> {
        let Some(called) = &mut self.called else {
            return Ok(());
        };
        called
            .run(db, &self.scratch, self.input.at_ms)
            .map_err(|what| failed_at(self.input.frame_pos, &what))?;
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
        self.scratch.clear();
        for (made, bytes) in called.made() {
            let number = made.db.0.to_string();
            resp::encode::command(&mut self.scratch, &[b"SELECT", number.as_bytes()]);
            self.scratch.extend_from_slice(bytes);
        }
        if self.scratch.is_empty() {
            self.status.dropped.add("function", 1);
        }
        let sink = Sink {
            status: self.status,
            table: self.rewriter.table(),
            collector: &mut self.collector,
            dbs: &mut self.dbs,
        };
        let put = sink.all(&self.scratch, db, end, self.input.holes(), false);
        put.map_err(|what| failed_at(self.input.frame_pos, &what))
    }

    /// The command at the window's start is on its way, or is not to be.
    pub(super) fn advance(&mut self, len: usize) -> Result<(), SyncError> {
        self.input.advance(len);
        self.collector.set_end(End {
            offset: self.input.frame_pos,
            db: self.rewriter.db(),
            received_ms: self.input.at_ms,
        });
        Ok(())
    }

    pub(super) fn choose_lease(&mut self) {
        let oldest_ms = [
            self.running.as_ref().and_then(|(_, flight)| flight.end),
            self.collector.oldest(),
        ]
        .into_iter()
        .flatten()
        .map(|end| end.received_ms)
        .fold(self.input.at_ms, u64::min);
        let is_late = self.late.begin(self.input.frame_pos);
        let is_behind = is_late || unix_ms().saturating_sub(oldest_ms) > BEHIND_MS;
        let rule = Some(Leases::rule(is_behind, self.late.tide()));
        match &mut self.called {
            Some(called) => called.set_lease(rule),
            None => self.rewriter.set_lease(rule),
        }
    }

    /// Starts the next work.
    async fn start(&mut self, work: Work) -> Result<(), SyncError> {
        let asked = self.merged.ask(self.config, self.cluster.as_deref_mut());
        if let Some(what) = asked.await? {
            self.heal.fail(what);
            return Ok(());
        }
        if let Some(cluster) = &mut self.cluster {
            for db in &self.dbs {
                cluster.have_db(*db).await?;
            }
        }
        // Whoever goes on from here has to know of leases before there are any.
        if self.leases.any() && !self.checkpoint.leased {
            self.checkpoint.leased = true;
            self.write_checkpoint().await?;
        }
        let (commands, bytes) = work.size();
        let flight = Flight {
            end: work.end,
            placed: work.placed.clone(),
            began: Instant::now(),
            commands,
            bytes: bytes as u64,
        };
        if let Some(pause) = self.throttle.pause() {
            tokio::time::sleep(pause).await;
        }
        let limits = &self.config.limits;
        if let Some(cluster) = &mut self.cluster {
            cluster.until_open(limits).await?;
        }
        limits.target_bytes.took(flight.bytes);
        limits.target_commands.took(commands);
        let Some(mut cluster) = self.cluster.take() else {
            return Ok(());
        };
        cluster.set_seen(self.confirmed.offset);
        self.status.inflight_commands.set(commands);
        self.status.inflight_bytes.set(flight.bytes);
        let before = Checkpoint {
            phase: Phase::Stream(self.position(self.confirmed)),
            ..self.checkpoint.clone()
        };
        let hands = self.hands;
        let running: Running<'a> = Box::pin(async move {
            let result = hands.work(&mut cluster, work, &before).await;
            (cluster, result)
        });
        self.running = Some((running, flight));
        Ok(())
    }

    /// Work has come to its end.
    async fn done(&mut self, done: Done) -> Result<(), SyncError> {
        let Done {
            cluster,
            result,
            flight,
        } = done;
        self.cluster = Some(cluster);
        self.slots_placed();
        self.status.inflight_commands.set(0);
        self.status.inflight_bytes.set(0);
        let took = flight.began.elapsed();
        self.late.took(took, flight.bytes);
        if let Some(change) = self.throttle.took(took, flight.bytes) {
            change.tell(self.status);
        }
        match result {
            Ok(()) => {
                self.confirm(flight.end)?;
                self.placed(&flight.placed);
            }
            Err(Failed::Sync(error)) => return Err(error),
            Err(Failed::Damaged(damage)) => {
                self.differs(*damage, flight.end, flight.placed).await?;
            }
            Err(Failed::Gone(what)) => {
                self.write_diverged().await?;
                return Err(SyncError::resync(
                    Side::Target,
                    &self.config.target.endpoint.address,
                    what,
                ));
            }
        }
        let Some(end) = flight.end else {
            return Ok(());
        };
        let took = took.as_secs_f64();
        let age_ms = unix_ms().saturating_sub(end.received_ms);
        #[expect(clippy::cast_precision_loss, reason = "a latency for a histogram")]
        let age = age_ms as f64 / 1e3;
        self.status.batch_seconds.record(took, 1);
        self.status
            .apply_latency_seconds
            .record(age.max(took), flight.commands.max(1));
        Ok(())
    }

    /// Everything up to there is confirmed, and all answers were looked at.
    pub(super) fn confirm(&mut self, end: Option<End>) -> Result<(), SyncError> {
        let Some(end) = end else {
            return Ok(());
        };
        self.confirmed = end;
        self.memory.confirm(end);
        let kept = self.memory.written().min(end.offset);
        self.feed
            .set_applied(end.offset, kept)
            .map_err(spool_error)?;
        self.status.applied_offset.set(end.offset);
        Ok(())
    }

    /// Moves the link's position on, from time to time. A slot of its own that is on its way is no reason to stop.
    async fn tend(&mut self) -> Result<(), SyncError> {
        let Some(end) = self.memory.due(self.confirmed) else {
            return Ok(());
        };
        let before = self.checkpoint.clone();
        if let Some(cluster) = &mut self.cluster {
            cluster.set_seen(self.confirmed.offset);
            let mark = Mark {
                offset: self.confirmed.offset,
                part: LAST_PART,
            };
            cluster
                .bear_witness(&self.config.target, end.offset, mark, false)
                .await?;
        }
        self.checkpoint.phase = Phase::Stream(self.position(end));
        self.checkpoint.leased = self.leases.any();
        if let Some(cluster) = &self.cluster {
            self.memory
                .note_marks(cluster.state.generation, cluster.marks());
        }
        let written = self.write_checkpoint().await;
        match written {
            Ok(()) => self.slots_confirmed(),
            Err(_) => self.checkpoint = before,
        }
        written
    }

    /// In good order: the slots' checkpoints say that nothing is unseen.
    async fn tell_seen(&mut self) -> Result<(), SyncError> {
        let (seen, from) = (self.confirmed.offset, self.memory.written());
        if let Some(cluster) = &mut self.cluster {
            cluster.set_seen(seen);
            cluster.tell_seen(&self.config.target, from).await?;
        }
        Ok(())
    }

    pub(super) async fn write_checkpoint(&mut self) -> Result<(), SyncError> {
        self.checkpoint.repairs = Names::default();
        self.checkpoint.unseen = None;
        let Some(cluster) = &mut self.cluster else {
            return Ok(());
        };
        cluster.write_checkpoint(&self.checkpoint).await?;
        self.memory.wrote(self.checkpoint_offset());
        Ok(())
    }

    pub(super) async fn write_diverged(&mut self) -> Result<(), SyncError> {
        self.checkpoint.phase = Phase::Diverged(self.position(self.confirmed));
        self.write_checkpoint().await
    }

    pub(super) fn checkpoint_offset(&self) -> u64 {
        match self.checkpoint.phase {
            Phase::Stream(at) | Phase::Diverged(at) => at.offset.0,
            Phase::Snapshot(at) => at.offset.0,
            Phase::Scan(_) => 0,
        }
    }

    fn position(&self, end: End) -> Position {
        position(self.feed.with_log(|log| log.replid()), end)
    }

    fn show_lag(&self) {
        let running = self.running.as_ref().and_then(|(_, flight)| flight.end);
        let oldest = running.or(self.collector.oldest());
        self.status
            .oldest_unapplied_ms
            .set(oldest.map_or(0, |end| end.received_ms));
    }

    fn too_large_a_transaction(&self) -> SyncError {
        SyncError::local(format!(
            "the transaction before offset {} does not fit into memory: it has {} bytes so far, and a quarter of limits.memory ({} bytes) is for one; raise limits.memory and start again, nothing is lost",
            self.input.frame_pos,
            self.collector.held_bytes(),
            self.config.memory_bytes
        ))
    }

    pub(super) fn not_a_command(&self, error: &InputError) -> SyncError {
        match error {
            InputError::Resp(error) => {
                let what = format!(
                    "the stream is not RESP at offset {}: {error}",
                    self.input.frame_pos
                );
                SyncError::stop(Side::Source, &self.config.source.endpoint.address, what)
            }
            InputError::TooLarge(bytes) => SyncError::local(format!(
                "the command at offset {} ({}) does not fit into memory: it has {bytes} bytes or more, and an eighth of limits.memory ({} bytes) is for one command; set limits.memory to {} bytes at least and start again, nothing is lost",
                self.input.frame_pos,
                self.input.name(),
                self.config.memory_bytes,
                bytes.saturating_mul(8)
            )),
        }
    }

    fn bad_command(&self, error: &rewrite::Error) -> SyncError {
        let mend = mend_of(error);
        let what = format!(
            "command {} at offset {}: {error}{mend}",
            show(
                self.input
                    .args()
                    .first()
                    .map(|arg| arg.of(self.input.window()))
                    .unwrap_or_default()
            ),
            self.input.frame_pos
        );
        SyncError::stop(Side::Source, &self.config.source.endpoint.address, what)
    }
}

/// Work that has come to its end.
struct Done {
    cluster: Box<Cluster>,
    result: Result<(), Failed>,
    flight: Flight,
}

/// Waits until connections over which nothing is on its way have to say who we are again.
async fn renewal_due(cluster: Option<&Cluster>) {
    match cluster {
        Some(cluster) => cluster.renewal_due().await,
        None => std::future::pending().await,
    }
}

/// Waits for what is on its way.
async fn progress(running: &mut Option<(Running<'_>, Flight)>) -> Done {
    let Some((work, _)) = running else {
        return std::future::pending().await;
    };
    let (cluster, result) = work.await;
    let Some((_, flight)) = running.take() else {
        return std::future::pending().await;
    };
    Done {
        cluster,
        result,
        flight,
    }
}
