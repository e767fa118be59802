//! The command stream, applied in units: one in flight, the next one being collected meanwhile.

mod adopt;
mod call;
pub(super) mod heal;
pub(in crate::pipeline) mod input;
mod known;
pub(super) mod late;
pub(super) mod recall;
mod runs;
mod size;
mod words;
mod write;

use bytes::Bytes;
use replica::ReplOffset;
use resp::{ErrorReply, Limits, ReplyKind, ReplyScanner, Summary};
use rewrite::{CommandId, Db, DropReason, MapError, Outcome, StreamRewriter};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use self::adopt::Adopt;
pub(super) use self::call::{UNHEARD, failed_at, input_at};
use self::heal::{Course, Heal};
pub(crate) use self::input::Hole;
#[cfg(test)]
pub(super) use self::input::token;
use self::input::{Input, InputError};
pub(super) use self::input::{TOKEN_MARK, Token};
use self::late::Late;
use self::runs::Runs;
use self::size::Size;
use self::words::describe;
pub(super) use self::words::mend_of;
pub(crate) use self::words::show;
use super::Common;
use super::called::Called;
use super::claims;
use super::lease::{Leases, fields};
use super::mapper::Mapper;
use super::merged::Asks;
use super::repair::Repairs;
use super::slots::{self, Slots};
use super::throttle::Throttle;
use super::unit::{End, Sealed, Unit, guard};
use crate::checkpoint::{self, Checkpoint, Names, Phase, Position, Unseen};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::error::{Class, Side, SyncError, io_word};
use crate::source::spool_error;
use crate::spool::{Feed, Log};
use crate::status::Status;
use crate::target::{Databases, Target};

/// A target this far behind is behind.
const BEHIND_MS: u64 = 200;

/// The first version with PEXPIRETIME.
pub(super) const TELLS_TIME: rewrite::Version = rewrite::Version::new(7, 0, 0);

/// How a run of the applier ended well.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// The feed was closed and everything in it is applied.
    Drained,
}

/// Applies one history's stream to one target connection.
pub(crate) struct StreamApplier<'a> {
    config: &'a Config,
    status: &'a Status,
    feed: &'a Feed,
    target: Target,
    key: String,
    input: Input,
    rewriter: StreamRewriter,
    scratch: Vec<u8>,
    next: Unit,
    inflight: Option<Inflight>,
    scanner: ReplyScanner,
    /// A buffer to use again.
    spare: Vec<u8>,
    leases: &'a Leases,
    databases: &'a Databases,
    repairs: &'a Repairs,
    heal: Heal<'a>,
    adopt: Adopt<'a>,
    late: Late<'a>,
    /// Up to here the replies were looked at, and the database selected there.
    seen: (u64, Db),
    /// Keys under repair that are too many for the checkpoint: it goes on telling of the part that is unseen, which
    /// begins here.
    unlisted: Names,
    recalled_from: Option<(u64, Db)>,
    /// The checkpoint at the target tells of an unseen part.
    tells_unseen: bool,
    source_version: Option<rewrite::Version>,
    /// The source has PEXPIRETIME.
    tells_time: bool,
    /// Commands that carry a key's expiry to another name or database.
    carriers: Vec<CommandId>,
    runs: Runs,
    /// The snapshot in the spool, until a position in the stream is confirmed.
    snapshot: Option<&'a Feed>,
    size: Size,
    /// What a GET of the checkpoint answers.
    guard: Vec<u8>,
    /// Where databases have other numbers at the target.
    mapper: Option<Mapper>,
    /// Where a script says what goes to the target.
    called: Option<Called>,
    merged: Asks,
    throttle: Throttle,
}

struct Inflight {
    sealed: Sealed,
    end: End,
    sent: Instant,
    /// Replies seen so far.
    seen: u32,
    /// The first command that was not queued.
    refused: Option<(usize, ErrorReply)>,
    exec: Option<Summary>,
    /// The places of commands that have saved a key at the source, and found none here.
    ended: Vec<usize>,
    /// Watched, and as this unit wrote it.
    is_ours: bool,
    /// Keys whose values from the source it holds.
    placed: Names,
    /// Slots that it lets go.
    leaving: Vec<u16>,
}

/// Why a unit was not taken, or the next one may not go.
pub(crate) const NOT_OURS: &str = "the checkpoint was changed by somebody else, or is not watched";

impl<'a> StreamApplier<'a> {
    /// An applier that goes on at `position`, which is the target's checkpoint.
    pub(crate) fn new(
        common: Common<'a>,
        feed: &'a Feed,
        target: Target,
        position: Position,
        source_version: Option<rewrite::Version>,
    ) -> Result<Self, SyncError> {
        let Common {
            config,
            status,
            leases,
            repairs,
            databases,
            tide,
        } = common;
        let called = Called::new(config, &target)?;
        let key = checkpoint::key(&config.link_name);
        let table = rewrite::Table::new();
        let carriers = ["rename", "renamenx", "copy", "move", "swapdb"];
        let carriers = carriers
            .iter()
            .filter_map(|name| table.find(name.as_bytes()))
            .collect();
        // Those that are not named there, this run knows.
        if !target.checkpoint.repairs.are_unnamed() {
            repairs.add(&target.checkpoint.repairs.keys());
        }
        let rewriter = rewriter(
            config,
            &target.abilities,
            &key,
            source_version,
            Db(position.db),
        );
        let runs = Runs::new(config, &table, &target.abilities);
        let size = Size::new(config.target.batch_commands, target.round_trip);
        let guard = guard(target.checkpoint.to_string().as_bytes());
        let late = Late::new(config, &table, tide, feed.end());
        let late = late.between(&table, source_version, &target.abilities);
        let applier = Self {
            config,
            status,
            feed,
            target,
            input: input_at(config, position.offset.0),
            rewriter,
            scratch: Vec::new(),
            next: Unit::default(),
            inflight: None,
            scanner: ReplyScanner::new(Limits::default()),
            spare: Vec::new(),
            leases,
            databases,
            repairs,
            heal: Heal::new(repairs.names()),
            adopt: Adopt::new(Slots::new(config.shard.clone())),
            late,
            seen: (position.offset.0, Db(position.db)),
            unlisted: Names::default(),
            recalled_from: None,
            tells_unseen: false,
            source_version,
            tells_time: source_version.is_some_and(|version| version >= TELLS_TIME),
            carriers,
            runs,
            snapshot: None,
            size,
            guard,
            mapper: Mapper::new(config, &key),
            called,
            merged: Asks::default(),
            throttle: Throttle::new(),
            key,
        };
        applier.show_repairs();
        Ok(applier)
    }

    fn rewriter_at(&self, db: Db) -> StreamRewriter {
        rewriter(
            self.config,
            &self.target.abilities,
            &self.key,
            self.source_version,
            db,
        )
    }

    /// Makes the target's checkpoint say `position`, before anything of the stream is applied.
    pub(crate) fn announce(&mut self, position: Position) {
        self.next
            .set_end(position.offset.0, Db(position.db), unix_ms());
    }

    /// Once the first unit is confirmed, the snapshot is of no use any more.
    pub(crate) fn after_snapshot(&mut self, snapshot: &'a Feed) {
        self.snapshot = Some(snapshot);
    }

    /// Applies nothing of the feed: the position it began at is where it ends.
    pub(crate) fn end_here(&mut self) {
        self.input.ends = true;
    }

    /// Runs until the feed is closed and drained, or an error.
    pub(crate) async fn run(mut self) -> Result<StreamEnd, SyncError> {
        self.recall().await?;
        loop {
            self.tend_slots()?;
            let starved = self.fill()?;
            self.begin_reading();
            // Before anything is asked of the target: it may never answer.
            self.show_lag();
            if self.inflight.is_none() {
                if let Some(error) = self.give_up().await {
                    return Err(error);
                }
                if self.target.pipe.renewal.is_due() {
                    self.renew().await?;
                }
                if self.next.end().is_some() {
                    self.send().await?;
                    continue;
                }
                if self.adopt.flushes() {
                    self.flush_slots().await?;
                    continue;
                }
            }
            if starved
                && self.feed.is_complete()
                && self.inflight.is_none()
                && !self.heal.is_worth_waiting()
            {
                if self.tell_seen() {
                    continue;
                }
                return Ok(StreamEnd::Drained);
            }
            tokio::select! {
                biased;
                read = self.target.pipe.stream.read_buf(&mut self.target.pipe.replies) => match read {
                    Ok(0) => return Err(self.lost("the server closed the connection")),
                    Ok(_) => self.replies().await?,
                    Err(error) => return Err(self.lost(io_word(&error))),
                },
                read = self.heal.progress() => if let Some(read) = read {
                    self.has_read(read);
                },
                () = self.adopt.slots.progress() => {}
                () = self.feed.changed(), if starved => {}
                () = self.target.pipe.renewal.due(), if self.inflight.is_none() => {}
            }
        }
    }

    /// Says again who we are; nothing is on its way.
    async fn renew(&mut self) -> Result<(), SyncError> {
        let (pipe, endpoint) = (&mut self.target.pipe, &self.config.target.endpoint);
        pipe.renew(endpoint, &self.key, &self.guard).await?;
        // Those beside it are as old, and are opened anew when they are needed.
        self.late.hang_up();
        self.merged.hang_up();
        Ok(())
    }

    /// Collects commands into the next unit; true when the feed has no more.
    fn fill(&mut self) -> Result<bool, SyncError> {
        self.late.tick();
        let waiting = self.feed.end().saturating_sub(self.input.frame_pos);
        self.size.waiting(waiting);
        loop {
            if self.heal.is_active() {
                self.place()?;
            }
            if self.heal.has_failed() || self.adopt.flushes() {
                return Ok(false);
            }
            if let Some(shard) = &self.config.shard {
                self.adopt.is_before = shard.go_to(self.input.frame_pos);
            }
            if !self.rewriter.in_transaction() && self.late.has_come_again(self.input.frame_pos) {
                return Ok(false);
            }
            if self.is_full() {
                return Ok(false);
            }
            if let Some(error) = self.too_large_a_transaction() {
                return Err(error);
            }
            if self.plain_sets() || self.more_of_the_same() {
                continue;
            }
            match self.input.poll() {
                Ok(Some(frame)) if self.adopt.slots.is_on() => {
                    match self.course_of_slot(frame.len) {
                        slots::Course::Apply => {}
                        slots::Course::PassOver => {
                            self.status.dropped.add("other_shard", 1);
                            self.advance(frame.len)?;
                            continue;
                        }
                        _ => return Ok(false),
                    }
                    match self.heal.is_active().then(|| self.course(frame.len)) {
                        None | Some(Course::Apply) => self.command(frame.len)?,
                        Some(Course::PassOver) => self.pass_over(frame.len),
                        Some(Course::Wait) => return Ok(false),
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
                Err(error) => return Err(self.not_a_command(&self.input, &error)),
            }
        }
    }

    /// Whether no more is to go into the unit.
    fn is_full(&self) -> bool {
        let is_full = self.next.commands() as usize >= self.size.commands()
            || self.next.bytes() >= self.config.target.batch_bytes
            || self.adopt.ends_unit();
        is_full && !self.rewriter.in_transaction()
    }

    /// Throws away what was collected, and goes on collecting where a unit has ended.
    fn collect_again(&mut self, from: End) {
        let mut input = input_at(self.config, from.offset);
        input.ends = self.input.ends;
        input.at_ms = from.received_ms;
        self.input = input;
        self.slots_again(from.offset);
        self.rewriter = self.rewriter_at(from.db);
        self.late.forget();
        self.choose_lease();
        self.next = Unit::default();
        self.next.set_end(from.offset, from.db, from.received_ms);
    }

    /// Expiries that come soon are moved, sooner or later ones the further we are behind: see
    /// [`super::lease`].
    fn choose_lease(&mut self) {
        let units = [
            self.inflight.as_ref().map(|inflight| inflight.end),
            self.next.end(),
        ];
        let oldest_ms = units
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

    fn not_a_command(&self, input: &Input, error: &InputError) -> SyncError {
        match error {
            InputError::Resp(error) => {
                let start = input.window().get(..40).unwrap_or(input.window());
                let what = format!(
                    "the stream is not RESP at offset {}: {error}: \"{}\"",
                    input.frame_pos,
                    start.escape_ascii()
                );
                SyncError::stop(Side::Source, &self.config.source.endpoint.address, what)
            }
            InputError::TooLarge(bytes) => SyncError::local(format!(
                "the command at offset {} ({}) does not fit into memory: it has {bytes} bytes or more, and an eighth of limits.memory ({} bytes) is for one command; set limits.memory to {} bytes at least and start again, nothing is lost",
                input.frame_pos,
                input.name(),
                self.config.memory_bytes,
                bytes.saturating_mul(8)
            )),
        }
    }

    /// A transaction is held whole, but for its large values.
    fn too_large_a_transaction(&self) -> Option<SyncError> {
        let held = self.next.held_bytes();
        (held > self.config.transaction_bytes_max()).then(|| {
            SyncError::local(format!(
                "the transaction before offset {} does not fit into memory: it has {held} bytes so far, and a quarter of limits.memory ({} bytes) is for one; raise limits.memory and start again, nothing is lost",
                self.input.frame_pos, self.config.memory_bytes
            ))
        })
    }

    /// Puts the command at the window's start into the unit.
    fn command(&mut self, len: usize) -> Result<(), SyncError> {
        let frame = self.input.window().get(..len).unwrap_or_default();
        let args = self.input.args();
        let db = self.rewriter.db();
        if !args.is_empty() {
            self.scratch.clear();
            let outcome = self
                .rewriter
                .command(frame, args, self.input.at_ms, &mut self.scratch);
            let left_out = self.rewriter.take_left_out();
            if left_out > 0 {
                let label = DropReason::TargetLacksWords.label();
                self.status.dropped.add(label, left_out);
            }
            let end = self.input.frame_pos + len as u64;
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
                let is_rewritten = matches!(outcome, Outcome::Rewritten { .. });
                self.call(len, is_rewritten)?;
                return self.advance(len);
            }
            match outcome {
                Outcome::Forward { command } => {
                    self.watch_carrier(command, end);
                    let table = self.rewriter.table();
                    let is_one = self.late.collect(table, command, db.0, frame, args, end);
                    self.status.commands.hit(usize::from(command.0));
                    let holes = self.input.holes();
                    if let Some(mapper) = &mut self.mapper {
                        let put = mapper.put(&mut self.next, table, db, frame, holes);
                        self.merged.note(self.config, table, db, frame, args);
                        if self.is_put(put) && is_one {
                            self.next.expect_one();
                        }
                        return self.advance(len);
                    }
                    if holes.is_empty() {
                        let grows = !is_one && self.runs.grow(command, args);
                        let behind = self.input.window().get(len..).unwrap_or_default();
                        if !grows || !self.next.begin_growing(db, frame, args, behind) {
                            self.next.forward(db, frame);
                        }
                    } else {
                        self.next.with_holes(db, frame, 1, holes);
                    }
                    if is_one {
                        self.next.expect_one();
                    }
                }
                Outcome::Rewritten { command, commands } => {
                    self.watch_carrier(command, end);
                    let table = self.rewriter.table();
                    let is_one = self.late.collect(table, command, db.0, frame, args, end);
                    self.status.commands.hit(usize::from(command.0));
                    self.status.rewritten.hit(usize::from(command.0));
                    let holes = self.input.holes();
                    if let Some(mapper) = &mut self.mapper {
                        let put = mapper.put(&mut self.next, table, db, &self.scratch, holes);
                        self.merged.note(self.config, table, db, frame, args);
                        if self.is_put(put) && is_one && commands == 1 {
                            self.next.expect_one();
                        }
                        return self.advance(len);
                    }
                    if holes.is_empty() {
                        self.next.body(db).extend_from_slice(&self.scratch);
                        self.next.added(commands, db);
                    } else {
                        self.next.with_holes(db, &self.scratch, commands, holes);
                    }
                    if is_one && commands == 1 {
                        self.next.expect_one();
                    }
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
                Outcome::Multi => self.next.begin_transaction(),
                Outcome::Exec => self.next.end_transaction(),
                Outcome::Discard => self.next.discard_transaction(),
            }
        }
        self.advance(len)
    }

    /// The command at the window's start is in the unit, or is not to be.
    fn advance(&mut self, len: usize) -> Result<(), SyncError> {
        self.input.advance(len);
        self.next
            .set_end(self.input.frame_pos, self.rewriter.db(), self.input.at_ms);
        Ok(())
    }

    /// Whether a command was put into the unit for the target's databases. What cannot be said there ends the link: only a
    /// new snapshot brings it about.
    fn is_put(&mut self, put: Result<u32, MapError>) -> bool {
        match put {
            Ok(0) => {
                let label = DropReason::NoEffect.label();
                self.status.dropped.add(label, 1);
                false
            }
            Ok(commands) => commands == 1,
            Err(error) => {
                let at = self.input.frame_pos;
                self.heal.fail(format!("command at offset {at}: {error}"));
                false
            }
        }
    }

    /// A lease may have come to another name by a command that ends there: it is looked for. Nothing to do as long as none
    /// is open.
    fn watch_carrier(&self, command: CommandId, end: u64) {
        if self.leases.any_key() && self.carriers.contains(&command) {
            self.leases.suspect(end);
        }
    }

    fn bad_command(&self, error: &rewrite::Error) -> SyncError {
        let mend = mend_of(error);
        let what = format!("command at offset {}: {error}{mend}", self.input.frame_pos);
        SyncError::stop(Side::Source, &self.config.source.endpoint.address, what)
    }

    /// Seals the collected unit and writes it.
    async fn send(&mut self) -> Result<(), SyncError> {
        let Some(end) = self.next.end() else {
            return Ok(());
        };
        if self.doubts(end).await? {
            return Ok(());
        }
        if let Some(what) = self.merged.ask(self.config, None).await? {
            self.heal.fail(what);
            return Ok(());
        }
        // A SELECT that fails inside MULTI would let what follows run in the wrong database.
        for db in self.next.databases() {
            self.databases.check(&self.config.target, *db).await?;
        }
        let checkpoint = self.checkpoint_at(end, Phase::Stream);
        let leaving = self.seal_slots();
        let mut next = Unit::new(std::mem::take(&mut self.spare));
        let unit = std::mem::take(&mut self.next);
        let sealed = unit.close(
            self.key.as_bytes(),
            checkpoint.to_string().as_bytes(),
            &mut next,
        );
        self.next = next;
        self.tells_unseen = checkpoint.unseen.is_some();
        if let Some(pause) = self.throttle.pause() {
            tokio::time::sleep(pause).await;
        }
        self.config.limits.open().await;
        self.config.limits.target_bytes.took(sealed.bytes());
        let commands = sealed.commands + sealed.merged;
        self.config.limits.target_commands.took(commands.into());
        let inflight = Inflight {
            sealed,
            end,
            sent: Instant::now(),
            seen: 0,
            refused: None,
            exec: None,
            ended: Vec::new(),
            is_ours: false,
            placed: std::mem::take(&mut self.heal.placed),
            leaving,
        };
        self.status.inflight_bytes.set(inflight.sealed.bytes());
        self.status
            .inflight_commands
            .set(u64::from(inflight.sealed.commands));
        self.write(inflight).await
    }

    fn checkpoint_at(&self, end: End, phase: impl FnOnce(Position) -> Phase) -> Checkpoint {
        let replid = self.feed.with_log(|log| log.replid());
        let position = Position {
            replid,
            offset: ReplOffset(end.offset),
            db: end.db.0,
        };
        let (seen, db) = self.recalled_from.unwrap_or(self.seen);
        let unseen = (seen < end.offset).then(|| Unseen {
            bytes: end.offset - seen,
            db: db.0,
        });
        // Those whose values are on their way too: they may be refused, as any command.
        let mut repairs = self.repairs.for_checkpoint();
        if self.recalled_from.is_some() {
            repairs.set_unread();
        }
        Checkpoint {
            phase: phase(position),
            leased: self.leases.any(),
            repairs,
            unseen,
            slots: self.config.shard.as_ref().map(|shard| shard.held()),
            ..self.target.checkpoint.clone()
        }
    }

    /// At the end: the checkpoint is to say that nothing is unseen. Whether there is anything to send for that.
    fn tell_seen(&mut self) -> bool {
        if self.recalled_from.is_none() && std::mem::take(&mut self.tells_unseen) {
            let (offset, db) = self.seen;
            self.next.set_end(offset, db, unix_ms());
        }
        self.next.end().is_some()
    }

    /// Works off the replies that have come.
    async fn replies(&mut self) -> Result<(), SyncError> {
        loop {
            let summary = match self.scanner.poll(&self.target.pipe.replies) {
                Ok(Some(summary)) => summary,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.refused(format!("its answer is not RESP: {error}"))),
            };
            let reply = self.target.pipe.replies.split_to(summary.len);
            let Some(inflight) = &mut self.inflight else {
                return Err(self.lost("an answer came that nobody asked for"));
            };
            let at = inflight.seen;
            inflight.seen += 1;
            let exec = inflight.sealed.commands;
            let is_ok = summary.kind == ReplyKind::Simple;
            match (at, summary.kind.clone()) {
                (at, ReplyKind::Error(error)) if at < exec => {
                    inflight.refused.get_or_insert((at as usize, error));
                }
                (at, _) if at < exec => {}
                (at, _) if at == exec => {
                    if !inflight.sealed.ones.is_empty() {
                        inflight.ended = inflight.sealed.zeros(&reply);
                    }
                    inflight.exec = Some(summary);
                }
                // WATCH, GET, MULTI: all that lets the next unit go.
                (at, _) if at == exec + 1 => inflight.is_ours = is_ok,
                (at, _) if at == exec + 2 => inflight.is_ours &= reply == inflight.sealed.guard,
                _ => {
                    inflight.is_ours &= is_ok;
                    self.unit_done().await?;
                }
            }
        }
    }

    /// All replies of the unit in flight are in.
    async fn unit_done(&mut self) -> Result<(), SyncError> {
        let Some(mut inflight) = self.inflight.take() else {
            return Ok(());
        };
        claims::count(self.status, &mut inflight.ended, |each| {
            inflight.sealed.each(each);
        });
        let Some(exec) = &inflight.exec else {
            return Err(self.refused("no answer to EXEC".to_owned()));
        };
        match &exec.kind {
            ReplyKind::Array(count) if *count == inflight.sealed.commands as usize => {
                match exec.errors.first() {
                    None if !inflight.is_ours => Err(self.lost(NOT_OURS)),
                    None if inflight.ended.is_empty() => self.confirmed(inflight),
                    _ => self.differs(inflight).await,
                }
            }
            ReplyKind::Null => Err(self.lost(NOT_OURS)),
            ReplyKind::Error(error) => {
                let (index, error) = inflight
                    .refused
                    .clone()
                    .map_or((None, error.clone()), |(at, error)| (Some(at), error));
                Err(self.aborted(&inflight, index, &error))
            }
            other => Err(self.refused(format!("EXEC answered {other:?}"))),
        }
    }

    fn confirmed(&mut self, inflight: Inflight) -> Result<(), SyncError> {
        if let Some(snapshot) = self.snapshot.take() {
            snapshot.with_log(Log::clear).map_err(spool_error)?;
        }
        self.bound_unseen();
        // The next run does not know that these replies were looked at, and reads the unit once more.
        let (began, _) = self.recalled_from.unwrap_or(self.seen);
        self.feed
            .set_applied(inflight.end.offset, began)
            .map_err(spool_error)?;
        self.status.applied_offset.set(inflight.end.offset);
        self.seen = (inflight.end.offset, inflight.end.db);
        if self.recalled_from.is_none() {
            self.repairs.set_seen(inflight.end.offset);
        }
        self.placed(&inflight.placed, inflight.end.offset);
        self.slots_confirmed(&inflight);
        self.status.inflight_bytes.set(0);
        self.status.inflight_commands.set(0);
        self.target.checkpoint = self.checkpoint_at(inflight.end, Phase::Stream);
        let took = inflight.sent.elapsed();
        self.late.took(took, inflight.sealed.bytes());
        self.size.took(took);
        if let Some(change) = self.throttle.took(took, inflight.sealed.bytes()) {
            change.tell(self.status);
        }
        let age_ms = unix_ms().saturating_sub(inflight.end.received_ms);
        #[expect(clippy::cast_precision_loss, reason = "a latency for a histogram")]
        let age = age_ms as f64 / 1e3;
        let took = took.as_secs_f64();
        self.status.batch_seconds.record(took, 1);
        self.status.apply_latency_seconds.record(
            age.max(took),
            u64::from(inflight.sealed.commands + inflight.sealed.merged),
        );
        self.guard = inflight.sealed.guard;
        self.spare = inflight.sealed.out;
        Ok(())
    }

    /// Nothing of the unit was applied. What waiting may mend is tried again over a new connection, which looks at the
    /// checkpoint first: this one is no longer watched.
    fn aborted(&self, inflight: &Inflight, index: Option<usize>, error: &ErrorReply) -> SyncError {
        self.status.target_errors.add(error.code.word(), 1);
        let what = describe(&inflight.sealed, index, error);
        match self.config.target.endpoint.auth.class_of(error.code) {
            Class::Stop => self.refused(what),
            Class::Reconnect | Class::Resync => {
                self.lost(format!("the target is not taking writes: {what}"))
            }
        }
    }

    fn show_lag(&self) {
        let oldest = self
            .inflight
            .as_ref()
            .map(|inflight| inflight.end)
            .or(self.next.end());
        self.status
            .oldest_unapplied_ms
            .set(oldest.map_or(0, |end| end.received_ms));
    }

    fn lost(&self, what: impl std::fmt::Display) -> SyncError {
        SyncError::reconnect(Side::Target, &self.config.target.endpoint.address, what)
    }

    fn refused(&self, what: String) -> SyncError {
        SyncError::stop(Side::Target, &self.config.target.endpoint.address, what)
    }
}

/// What turns the source's commands into the target's, from a place where `db` is selected.
pub(super) fn rewriter(
    config: &Config,
    abilities: &rewrite::Abilities,
    checkpoint_key: &str,
    source_version: Option<rewrite::Version>,
    db: Db,
) -> StreamRewriter {
    StreamRewriter::new(rewrite::StreamOptions {
        filter: config.filter.clone(),
        source_version,
        own_key_mark: Bytes::from_static(checkpoint::KEY_PREFIX.as_bytes()),
        // Where databases change their numbers, the mapper sees to it that SWAPDB does not carry it away; where there is a
        // script, what rewrites its calls does.
        checkpoint_key: match (&config.target.db_map, &config.function) {
            (None, None) => Bytes::from(checkpoint_key.to_owned()),
            _ => Bytes::new(),
        },
        start_db: db,
        databases: super::mapper::databases(config, abilities),
        losses: config.target.losses,
        field_lease: fields::rule(config),
        ..rewrite::StreamOptions::new(abilities.clone())
    })
}

/// An expiry was moved, of a key that the target may have under another name.
pub(super) fn note_lease(config: &Config, leases: &Leases, granted: rewrite::Granted, from: u64) {
    if config.target.db_map.is_none() {
        return leases.note(granted.db.0, granted.key, granted.at_ms, from);
    }
    let (db, key) = config.target.name_of(granted.db.0, &granted.key);
    leases.note(db, Bytes::copy_from_slice(&key), granted.at_ms, from);
}

/// A source may have a larger proto-max-bulk-len than the default: what it has taken, we take.
pub(crate) fn stream_limits() -> Limits {
    Limits {
        bulk_bytes_max: 2 << 30,
        ..Limits::default()
    }
}
