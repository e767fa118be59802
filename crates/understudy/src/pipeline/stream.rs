//! The command stream, applied in units: one in flight, the next one being collected meanwhile.

mod heal;
mod input;
mod known;
mod late;
mod recall;

use bytes::Bytes;
use replica::ReplOffset;
use resp::{ErrorReply, Limits, ReplyKind, ReplyScanner, Summary};
use rewrite::{CommandId, Db, DropReason, Outcome, StreamRewriter};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use self::heal::{Course, Heal};
#[cfg(test)]
pub(super) use self::input::token;
pub(super) use self::input::{Hole, TOKEN_MARK, Token};
use self::input::{Input, InputError};
use self::late::Late;
use super::lease::Leases;
use super::repair::Repairs;
use super::unit::{End, Sealed, Unit};
use super::{ALLOW_LOSS, Common};
use crate::checkpoint::{self, Checkpoint, Names, Phase, Position, Unseen};
use crate::client::{class_of, mend};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::error::{Class, Side, SyncError, io_word};
use crate::net;
use crate::source::spool_error;
use crate::spool::{Feed, Log};
use crate::status::Status;
use crate::target::{Databases, Target};

/// A target this far behind is behind.
const BEHIND_MS: u64 = 200;

/// The first version with PEXPIRETIME.
const TELLS_TIME: rewrite::Version = rewrite::Version::new(7, 0, 0);

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
    /// The snapshot in the spool, until a position in the stream is confirmed.
    snapshot: Option<&'a Feed>,
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
}

/// Why a unit was not taken, or the next one may not go.
pub(super) const NOT_OURS: &str = "the checkpoint was changed by somebody else, or is not watched";

impl<'a> StreamApplier<'a> {
    /// An applier that goes on at `position`, which is the target's checkpoint.
    pub(crate) fn new(
        common: Common<'a>,
        feed: &'a Feed,
        target: Target,
        position: Position,
        source_version: Option<rewrite::Version>,
    ) -> Self {
        let Common {
            config,
            status,
            leases,
            repairs,
            databases,
            tide,
        } = common;
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
        let rewriter = rewriter(config, &target, &key, source_version, Db(position.db));
        let applier = Self {
            config,
            status,
            feed,
            target,
            key,
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
            late: Late::new(config, &table, tide, feed.end()),
            seen: (position.offset.0, Db(position.db)),
            unlisted: Names::default(),
            recalled_from: None,
            tells_unseen: false,
            source_version,
            tells_time: source_version.is_some_and(|version| version >= TELLS_TIME),
            carriers,
            snapshot: None,
        };
        applier.show_repairs();
        applier
    }

    fn rewriter_at(&self, db: Db) -> StreamRewriter {
        rewriter(
            self.config,
            &self.target,
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
            let starved = self.fill()?;
            self.begin_reading();
            if self.inflight.is_none() {
                if let Some(error) = self.give_up().await {
                    return Err(error);
                }
                if self.next.end().is_some() {
                    self.send().await?;
                    continue;
                }
            }
            self.show_lag();
            if starved
                && self.feed.is_complete()
                && self.inflight.is_none()
                && !self.waits_for_repairs()
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
                () = self.feed.changed(), if starved => {}
            }
        }
    }

    /// Collects commands into the next unit; true when the feed has no more.
    fn fill(&mut self) -> Result<bool, SyncError> {
        let target = &self.config.target;
        self.late.tick();
        loop {
            if self.heal.is_active() {
                self.place()?;
            }
            if self.heal.has_failed() {
                return Ok(false);
            }
            if !self.rewriter.in_transaction() && self.late.has_come_again(self.input.frame_pos) {
                return Ok(false);
            }
            let full = self.next.commands() as usize >= target.batch_commands
                || self.next.bytes() >= target.batch_bytes;
            if full && !self.rewriter.in_transaction() {
                return Ok(false);
            }
            if let Some(error) = self.too_large_a_transaction() {
                return Err(error);
            }
            match self.input.poll() {
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

    /// Throws away what was collected, and goes on collecting where a unit has ended.
    fn collect_again(&mut self, from: End) {
        let mut input = input_at(self.config, from.offset);
        input.ends = self.input.ends;
        input.at_ms = from.received_ms;
        self.input = input;
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
        self.rewriter
            .set_lease(Some(Leases::rule(is_behind, self.late.tide())));
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
                self.leases
                    .note(granted.db.0, granted.key, granted.at_ms, end);
            }
            match outcome.map_err(|error| self.bad_command(&error))? {
                Outcome::Forward { command } => {
                    self.watch_carrier(command, end);
                    let table = self.rewriter.table();
                    let is_one = self.late.collect(table, command, db.0, frame, args, end);
                    self.status.commands.hit(usize::from(command.0));
                    let holes = self.input.holes();
                    if holes.is_empty() {
                        self.next.forward(db, frame);
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
                    self.status.rewritten.add(1);
                    let holes = self.input.holes();
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
                Outcome::Dropped(reason) => self.status.dropped.add(reason.label(), 1),
                Outcome::Select(_) => {}
                Outcome::Multi => self.next.begin_transaction(),
                Outcome::Exec => self.next.end_transaction(),
                Outcome::Discard => self.next.discard_transaction(),
            }
        }
        self.input.advance(len);
        self.next
            .set_end(self.input.frame_pos, self.rewriter.db(), self.input.at_ms);
        Ok(())
    }

    /// A lease may have come to another name by a command that ends there: it is looked for. Nothing to do as long as none
    /// is open.
    fn watch_carrier(&self, command: CommandId, end: u64) {
        if self.leases.any() && self.carriers.contains(&command) {
            self.leases.suspect(end);
        }
    }

    fn bad_command(&self, error: &rewrite::Error) -> SyncError {
        let mend = match error.kind {
            rewrite::ErrorKind::TargetLacks { .. }
            | rewrite::ErrorKind::CommandUnknown
            | rewrite::ErrorKind::TypeUnknown { .. }
            | rewrite::ErrorKind::ModuleUnknown { .. } => ALLOW_LOSS,
            _ => "",
        };
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
        // A SELECT that fails inside MULTI would let what follows run in the wrong database.
        for db in self.next.databases() {
            self.databases.check(&self.config.target, *db).await?;
        }
        let checkpoint = self.checkpoint_at(end, Phase::Stream);
        let mut next = Unit::new(std::mem::take(&mut self.spare));
        let unit = std::mem::take(&mut self.next);
        let sealed = unit.close(
            self.key.as_bytes(),
            checkpoint.to_string().as_bytes(),
            &mut next,
        );
        self.next = next;
        self.tells_unseen = checkpoint.unseen.is_some();
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
        };
        self.status.inflight_bytes.set(inflight.sealed.bytes());
        self.status
            .inflight_commands
            .set(u64::from(inflight.sealed.commands));
        self.write(inflight).await
    }

    async fn write(&mut self, inflight: Inflight) -> Result<(), SyncError> {
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
        let Some(inflight) = self.inflight.take() else {
            return Ok(());
        };
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
        self.status.inflight_bytes.set(0);
        self.status.inflight_commands.set(0);
        self.target.checkpoint = self.checkpoint_at(inflight.end, Phase::Stream);
        self.late
            .took(inflight.sent.elapsed(), inflight.sealed.bytes());
        let age_ms = unix_ms().saturating_sub(inflight.end.received_ms);
        #[expect(clippy::cast_precision_loss, reason = "a latency for a histogram")]
        let age = age_ms as f64 / 1e3;
        let took = inflight.sent.elapsed().as_secs_f64();
        self.status.batch_seconds.record(took, 1);
        self.status.apply_latency_seconds.record(
            age.max(took),
            u64::from(inflight.sealed.commands + inflight.sealed.merged),
        );
        self.spare = inflight.sealed.out;
        Ok(())
    }

    /// Nothing of the unit was applied. What waiting may mend is tried again over a new connection, which looks at the
    /// checkpoint first: this one is no longer watched.
    fn aborted(&self, inflight: &Inflight, index: Option<usize>, error: &ErrorReply) -> SyncError {
        self.status.target_errors.add(error.code.word(), 1);
        let what = describe(&inflight.sealed, index, error);
        match class_of(error.code) {
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

/// The stream from `pos` on.
fn input_at(config: &Config, pos: u64) -> Input {
    Input::at(pos, config.command_bytes_max())
}

/// What turns the source's commands into the target's, from a place where `db` is selected.
fn rewriter(
    config: &Config,
    target: &Target,
    checkpoint_key: &str,
    source_version: Option<rewrite::Version>,
    db: Db,
) -> StreamRewriter {
    StreamRewriter::new(rewrite::StreamOptions {
        filter: config.filter.clone(),
        source_version,
        own_key_mark: Bytes::from_static(checkpoint::KEY_PREFIX.as_bytes()),
        checkpoint_key: Bytes::from(checkpoint_key.to_owned()),
        start_db: db,
        losses: config.target.losses,
        ..rewrite::StreamOptions::new(target.abilities.clone())
    })
}

/// Names the command that was refused, its key, and what can be done.
fn describe(sealed: &Sealed, index: Option<usize>, error: &ErrorReply) -> String {
    let text = String::from_utf8_lossy(&error.text);
    let mend = mend(error.code, Side::Target)
        .map(|mend| format!("; {mend}"))
        .unwrap_or_default();
    match index.and_then(|index| sealed.command(index)) {
        Some(argv) => {
            let words: Vec<String> = argv.iter().take(2).map(|word| show(word)).collect();
            format!("{} was refused: {text}{mend}", words.join(" "))
        }
        None => format!("a unit was refused: {text}{mend}"),
    }
}

/// A source may have a larger proto-max-bulk-len than the default: what it has taken, we take.
pub(crate) fn stream_limits() -> Limits {
    Limits {
        bulk_bytes_max: 2 << 30,
        ..Limits::default()
    }
}

/// A word for people: escaped, and cut at 64 bytes.
pub(super) fn show(word: &[u8]) -> String {
    let cut = word.get(..64).unwrap_or(word);
    let dots = if cut.len() < word.len() { "..." } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}
