//! The snapshot, applied while it still arrives: decoded, rewritten, and sent in the units of a [`Lane`].
//!
//! Every write here can be repeated. The checkpoint says which byte of the RDB is confirmed: whoever goes on from there
//! passes over the keys before it. Nothing of the stream is applied before the last reply of the snapshot is in.

mod called;
pub(super) mod in_cluster;
mod pieces;
mod records;

use std::collections::BTreeMap;

use bytes::Bytes;
use rdb::{Decoder, Event, KeyHead, Poll};
use resp::ReplyKind;
use rewrite::{Db, Method, Sent, SnapshotRewriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::called::Scripted;
use self::pieces::Pieces;
use super::Common;
use super::answers;
use super::lane::{Lane, Reply};
use super::lease::{Leases, fields};
use super::lookahead::{Failed, Lookahead, Looked};
use super::merged::Merged;
use super::stream::{NOT_OURS, show};
use super::sweep::KeySet;
use super::unit::guard;
use crate::checkpoint::{self, Checkpoint, KEY_PREFIX, Phase, Progress};
use crate::clock::unix_ms;
use crate::config::{Config, ExistingKeys};
use crate::error::{Class, Side, SyncError, io_word};
use crate::source::spool_error;
use crate::spool::Feed;
use crate::status::Status;
use crate::target::{Databases, Target};

/// The largest value that is sent as one RESTORE in any case: a larger one would hold up the target's other
/// clients while it is rebuilt, and double its memory for that moment. See [`pieces`].
const RESTORE_BYTES_MAX: u64 = 1 << 20;

/// What may stand in the feed behind an RDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Nothing.
    Nothing,
    /// Another one.
    Rdbs,
    /// The commands of an append-only file.
    Commands,
}

/// What a snapshot said beside its keys.
#[derive(Debug)]
pub(crate) struct Applied {
    /// Where it ends in the feed.
    pub(crate) end: u64,
    /// Database selected in the stream that follows.
    pub(crate) stream_db: u32,
    /// Its keys, where they were asked for.
    pub(crate) keys: Option<KeySet>,
}

/// Applies one snapshot over one connection.
pub(crate) struct SnapshotApplier<'a> {
    config: &'a Config,
    status: &'a Status,
    feed: &'a Feed,
    decoder: Decoder,
    /// Where in the feed the decoder's RDB begins.
    base: u64,
    behind: Behind,
    rewriter: SnapshotRewriter,
    /// A stream that is looked at ahead, or may have to be.
    ahead: Option<Lookahead>,
    /// Looking ahead has paused for others to have their turn.
    has_more_to_look_at: bool,
    /// What is to come of a large value that goes as it is.
    pieces: Option<Pieces>,
    read_pos: u64,
    lane: Lane,
    sent: Vec<Sent>,
    checkpoint: Checkpoint,
    progress: Progress,
    /// The key whose value is being written: where it begins.
    in_key: Option<u64>,
    done: bool,
    existing: ExistingKeys,
    counts: BTreeMap<(&'static str, &'static str), u64>,
    /// Values of modules that the target has refused, which was allowed.
    modules_refused: u64,
    applied: Applied,
    leases: Option<&'a Leases>,
    databases: &'a Databases,
    /// A database that was selected and is to be looked at before any of its keys.
    unchecked: Option<Db>,
    merged: Merged,
    /// Keys or databases have other names at the target.
    is_mapped: bool,
    /// Where a script says what goes to the target.
    scripted: Option<Scripted>,
}

impl<'a> SnapshotApplier<'a> {
    /// An applier that goes on at `progress`. `existing` is what is to be done with keys that are there; `collect` asks
    /// for the set of keys; `flush_functions` for the target's libraries to go before the first one comes. With a script:
    /// whether the target `is_empty`, so that nothing need be deleted first.
    #[expect(
        clippy::too_many_arguments,
        reason = "each says another thing about the start"
    )]
    pub(crate) fn new(
        common: Common<'a>,
        feed: &'a Feed,
        target: &Target,
        progress: Progress,
        existing: ExistingKeys,
        collect: bool,
        flush_functions: bool,
        is_empty: bool,
    ) -> Result<Self, SyncError> {
        let Common {
            config,
            status,
            leases,
            databases,
            ..
        } = common;
        // Without a stream to follow there is nothing that an expiry could come too early for.
        let leases = config.source.sync_aof.then_some(leases);
        let scripted = Scripted::new(config, target, progress.rdb_bytes)?;
        let options = rewrite::SnapshotOptions {
            filter: config.filter.clone(),
            own_key_mark: Bytes::from_static(KEY_PREFIX.as_bytes()),
            existing: match existing {
                ExistingKeys::Fail => rewrite::Existing::Fail,
                ExistingKeys::Replace => rewrite::Existing::Replace,
                ExistingKeys::Skip => rewrite::Existing::Skip,
            },
            restore_bytes_max: match scripted {
                Some(_) => 0,
                None => RESTORE_BYTES_MAX,
            },
            restore_pieces_bytes_max: pieces::bytes_max(config, target),
            deletes: scripted.is_none() || !is_empty,
            losses: config.target.losses,
            field_lease: leases.and_then(|_| fields::rule(config)),
            flush_functions,
            db_map: config.target.db_map.clone(),
            ..rewrite::SnapshotOptions::new(target.abilities.clone(), unix_ms())
        };
        Ok(Self {
            config,
            status,
            feed,
            decoder: Decoder::new(rdb_limits(config)),
            base: 0,
            behind: Behind::Nothing,
            rewriter: SnapshotRewriter::new(options),
            ahead: None,
            has_more_to_look_at: false,
            pieces: None,
            read_pos: 0,
            lane: match target.cluster {
                None => Lane::new(
                    checkpoint::key(&config.link_name).into_bytes(),
                    target.round_trip,
                    config.target.inflight_bytes,
                ),
                Some(_) => Lane::for_cluster(config.target.inflight_bytes),
            },
            sent: Vec::new(),
            checkpoint: target.checkpoint.clone(),
            progress,
            in_key: None,
            done: false,
            counts: BTreeMap::new(),
            modules_refused: 0,
            existing,
            applied: Applied {
                end: 0,
                stream_db: 0,
                keys: collect.then(KeySet::default),
            },
            leases,
            databases,
            unchecked: None,
            merged: Merged::default(),
            is_mapped: config.target.db_map.is_some(),
            scripted,
        })
    }

    /// Something may follow the RDB in the feed.
    pub(crate) fn followed_by(self, behind: Behind) -> Self {
        Self { behind, ..self }
    }

    /// Applies everything and waits for the last reply. The connection is left in database 0, and its checkpoint in
    /// `target`.
    pub(crate) async fn run(mut self, target: &mut Target) -> Result<Applied, SyncError> {
        if target.cluster.is_some() {
            return Box::pin(self.run_in_cluster(target)).await;
        }
        self.status.snapshot_applied.set(self.progress.rdb_bytes);
        let endpoint = &self.config.target.endpoint;
        while !self.until_pause(target).await? {
            let key = checkpoint::key(&self.config.link_name);
            let guard = guard(self.checkpoint.to_string().as_bytes());
            target.pipe.renew(endpoint, &key, &guard).await?;
        }
        self.count_left_out();
        self.flush_counts();
        target.checkpoint = self.checkpoint;
        Ok(self.applied)
    }

    /// As [`Self::run_until`]; notes at the target what a script's command has come to there.
    async fn until_pause(&mut self, target: &mut Target) -> Result<bool, SyncError> {
        let ended = self.run_until(target).await;
        match ended {
            Err(error) if self.has_failed() => Err(self.failed_for_good(error).await),
            ended => ended,
        }
    }

    /// True at the end; false, with nothing on its way, when the connection has to say again who we are.
    async fn run_until(&mut self, target: &mut Target) -> Result<bool, SyncError> {
        let renewal = &target.pipe.renewal;
        let (mut reader, mut writer) = tokio::io::split(&mut target.pipe.stream);
        let replies = &mut target.pipe.replies;
        let limits = self.config.limits.clone();
        loop {
            self.rewriter.tick(unix_ms());
            let pauses = renewal.is_due() && !self.rewriter.is_in_command();
            if pauses && self.lane.is_idle() {
                return Ok(false);
            }
            let starved = pauses || self.produce()?;
            if let Some(db) = self.unchecked.take() {
                self.databases.check(&self.config.target, db).await?;
                continue;
            }
            if std::mem::take(&mut self.has_more_to_look_at) {
                tokio::task::yield_now().await;
                continue;
            }
            self.seal(starved);
            if self.done && self.lane.is_idle() {
                return Ok(true);
            }
            let to_write = self.lane.to_write();
            tokio::select! {
                biased;
                read = reader.read_buf(replies) => match read {
                    Ok(0) => return Err(self.lost("the server closed the connection")),
                    Ok(_) => self.replies(replies)?,
                    Err(error) => return Err(self.lost(io_word(&error))),
                },
                wrote = writer.write(to_write), if !to_write.is_empty() && limits.is_open() => {
                    let wrote = wrote.map_err(|error| self.lost(io_word(&error)))?;
                    limits.target_bytes.took(wrote as u64);
                    self.lane.wrote(wrote);
                    if self.lane.to_write().is_empty() {
                        writer.flush().await.map_err(|error| self.lost(io_word(&error)))?;
                    }
                }
                () = self.feed.changed(), if starved && !pauses => {}
                () = limits.open(), if !limits.is_open() => {}
                () = renewal.due(), if !renewal.is_due() => {}
            }
        }
    }

    /// Decodes and rewrites as much as the buffers allow; true when the feed has no more.
    fn produce(&mut self) -> Result<bool, SyncError> {
        self.take_waiting();
        while !self.done && self.unchecked.is_none() && self.lane.has_room() {
            if self.pieces.is_some() {
                self.give_pieces()?;
                continue;
            }
            if self.looks_ahead() {
                match self.look_ahead()? {
                    Looked::Done(first) => self.rewrite(first)?,
                    Looked::Measured(end) => {
                        self.measured(end)?;
                        continue;
                    }
                    Looked::Busy => {
                        self.has_more_to_look_at = true;
                        return Ok(false);
                    }
                    Looked::Starved => return Ok(true),
                }
            }
            self.records()?;
            match self.decoder.poll() {
                Ok(Poll::Event(event)) => {
                    self.event(event)?;
                    let may_end = !self.rewriter.is_in_command() && !self.is_within_a_key();
                    if self.lane.is_full() && may_end {
                        return Ok(false);
                    }
                }
                Ok(Poll::End) => self.end()?,
                Ok(Poll::NeedMore) => match self.feed.read(self.read_pos).map_err(spool_error)? {
                    Some(chunk) => {
                        self.read_pos += chunk.bytes.len() as u64;
                        self.decoder.feed(chunk.bytes);
                        // Memory goes at once; the disk keeps all of it until the end.
                        self.feed
                            .with_log(|log| log.release(self.read_pos, self.read_pos))
                            .map_err(spool_error)?;
                    }
                    // Behind the last RDB of several.
                    None if self.feed.is_complete() && self.is_behind_an_rdb() => self.done = true,
                    None if self.feed.is_complete() => return Err(self.cut_short()),
                    None => return Ok(true),
                },
                Err(error) => return Err(self.corrupt(&error)),
            }
        }
        Ok(false)
    }

    /// Sends the open unit on its way, if none is there and it is long enough, or nothing comes to make it longer.
    fn seal(&mut self, starved: bool) {
        let is_due = self.lane.is_full() || starved || self.done;
        if !is_due
            || self.lane.is_in_flight()
            || self.lane.is_empty()
            || self.rewriter.is_in_command()
            || self.is_within_a_key()
        {
            return;
        }
        let reached = self
            .in_key
            .unwrap_or_else(|| self.base + self.decoder.offset());
        self.checkpoint.phase = Phase::Snapshot(match self.scripted {
            None => self.progress,
            Some(_) => Progress {
                rdb_bytes: reached,
                ..self.progress
            },
        });
        self.lane.seal(&self.checkpoint.to_string(), reached);
    }

    fn event(&mut self, event: Event) -> Result<(), SyncError> {
        if let Event::Key(head) = &event {
            return self.key(head);
        }
        if let Event::SelectDb(db) = &event {
            // Keys of a database that the target lacks would land in another one.
            let passes = self.config.filter.db(*db) && self.scripted.is_none();
            self.unchecked = passes.then_some(self.config.target.db_of(*db));
        }
        if let Event::Aux { name, value } = &event {
            self.aux(name, value);
        }
        if !self.config.source.sync_rdb {
            return Ok(());
        }
        match (&event, &mut self.applied.keys) {
            (Event::Function { code, .. }, Some(keys)) => keys.insert_library(code),
            (Event::FunctionPreGa { name, .. }, Some(keys)) => keys.insert_library_name(name),
            _ => {}
        }
        if let (
            Event::ValueStart {
                kind: rdb::Kind::Stream,
                ..
            },
            Some(ahead),
        ) = (&event, &mut self.ahead)
        {
            ahead.begin(event);
            return Ok(());
        }
        self.rewrite(event)
    }

    fn looks_ahead(&self) -> bool {
        self.ahead.as_ref().is_some_and(Lookahead::has_begun)
    }

    /// Looks at more of a stream whose first event waits.
    fn look_ahead(&mut self) -> Result<Looked, SyncError> {
        let Some(ahead) = &mut self.ahead else {
            return Ok(Looked::Busy);
        };
        match ahead.look(self.feed, &mut self.rewriter) {
            Ok(Looked::Starved) if self.feed.is_complete() => Err(self.cut_short()),
            Ok(looked) => Ok(looked),
            Err(Failed::Spool(error)) => Err(spool_error(error)),
            Err(Failed::Damaged(error)) => Err(self.corrupt(&error)),
            Err(Failed::Refused(error)) => Err(self.cannot_hold(&error)),
        }
    }

    fn rewrite(&mut self, event: Event) -> Result<(), SyncError> {
        if matches!(event, Event::String(_) | Event::Raw(_) | Event::ValueEnd) {
            self.in_key = None;
        }
        if self.scripted.is_some() {
            return self.rewrite_by_script(event);
        }
        let rewritten = self.rewriter.event(event, self.lane.body(), &mut self.sent);
        rewritten.map_err(|error| self.cannot_hold(&error))?;
        self.lane.added(&mut self.sent);
        Ok(())
    }

    fn key(&mut self, head: &KeyHead) -> Result<(), SyncError> {
        if !self.config.source.sync_rdb {
            self.decoder.want(rdb::Want::Skip);
            return Ok(());
        }
        // What the target calls it.
        let (db, name) = self.config.target.name_of(head.db.0, &head.key);
        self.merged.meets(self.config, head, db)?;
        if let Some(keys) = &mut self.applied.keys
            && self.scripted.is_none()
        {
            keys.insert(db, &name);
        }
        let own_leases = self.leases.filter(|_| self.scripted.is_none());
        let lease = match (own_leases, head.expire_at_ms) {
            (Some(leases), Some(at_ms)) => Some(leases.grant(db, &name, at_ms)),
            _ => None,
        };
        let at = self.base + head.at;
        let is_behind = at < self.progress.rdb_bytes;
        let is_asked = self.is_asked_for_names(is_behind);
        if is_behind && !is_asked {
            // Written and confirmed by an earlier connection, or an earlier run.
            self.decoder.want(rdb::Want::Skip);
            return Ok(());
        }
        let lost = self.rewriter.counts().lost();
        let want = match lease.filter(|lease| Some(*lease) != head.expire_at_ms) {
            None => self.rewriter.key(head),
            Some(lease) => self.rewriter.key(&KeyHead {
                expire_at_ms: Some(lease),
                ..head.clone()
            }),
        };
        let want = want.map_err(|error| self.cannot_hold(&error))?;
        if self.rewriter.counts().lost() > lost
            && let Some(keys) = &mut self.applied.keys
        {
            // What an older copy has under this name is not the source's: it is swept away.
            keys.remove(db, &name);
        }
        self.in_key = (want != rdb::Want::Skip).then_some(at);
        self.ahead = (head.kind == rdb::Kind::Stream && want != rdb::Want::Skip)
            .then(|| self.decoder.lookahead())
            .flatten()
            .map(|decoder| Lookahead::new(decoder, self.read_pos))
            .or_else(|| self.measuring().filter(|_| want != rdb::Want::Skip));
        self.decoder.want(want);
        Ok(())
    }

    fn aux(&mut self, name: &Bytes, value: &Bytes) {
        let text = || String::from_utf8_lossy(value).into_owned();
        match name.as_ref() {
            b"redis-ver" | b"valkey-ver" => tracing::info!(version = text(), "snapshot written by"),
            b"repl-stream-db" => self.applied.stream_db = text().parse().unwrap_or(0),
            _ => {}
        }
    }

    fn end(&mut self) -> Result<(), SyncError> {
        let end = self.base + self.decoder.offset();
        self.applied.end = end;
        if let Some(leases) = self.leases.filter(|_| self.rewriter.take_leased_fields()) {
            leases.note_fields();
        }
        match self.behind {
            Behind::Nothing if !self.decoder.leftover().is_empty() => {
                return Err(self.corrupt_word("bytes follow the end of the RDB"));
            }
            Behind::Nothing | Behind::Commands => self.done = true,
            Behind::Rdbs => {
                self.decoder = Decoder::new(rdb_limits(self.config));
                self.base = end;
                self.read_pos = end;
            }
        }
        Ok(())
    }

    /// Whether nothing of the next RDB has come.
    fn is_behind_an_rdb(&self) -> bool {
        self.behind == Behind::Rdbs && self.base > 0 && self.read_pos == self.base
    }

    fn cut_short(&self) -> SyncError {
        cut_short(self.config, self.feed, self.read_pos)
    }

    fn corrupt(&self, error: &rdb::Error) -> SyncError {
        corrupt(self.config, self.feed, self.base, error)
    }

    fn corrupt_word(&self, what: &str) -> SyncError {
        corrupt_word(self.config, self.feed, what)
    }

    fn replies(&mut self, replies: &mut bytes::BytesMut) -> Result<(), SyncError> {
        while let Some(reply) = self.lane.reply(replies) {
            match reply {
                Reply::Command { sent, keys, kind } => {
                    self.config.limits.target_commands.took(keys.into());
                    self.reply(&sent, keys, &kind)?;
                }
                Reply::Done { rdb_bytes } => {
                    self.progress.rdb_bytes = rdb_bytes.max(self.progress.rdb_bytes);
                    self.status.snapshot_applied.set(self.progress.rdb_bytes);
                }
                Reply::Aborted { sent, error } => {
                    // Nothing of the unit was applied; the connection is no longer watched.
                    return Err(self.refusal(sent.as_ref(), &error));
                }
                Reply::Fenced => return Err(self.lost(NOT_OURS)),
                Reply::Nonsense(what) => return Err(self.refused(what)),
            }
        }
        let (commands, bytes) = self.lane.inflight();
        self.status.inflight_bytes.set(bytes as u64);
        self.status.inflight_commands.set(commands as u64);
        Ok(())
    }

    fn reply(&mut self, sent: &Sent, keys: u32, kind: &ReplyKind) -> Result<(), SyncError> {
        if let ReplyKind::Error(error) = kind
            && is_unknown_module(sent, error)
            && self.config.target.losses == rewrite::Losses::Allow
        {
            self.modules_refused += 1;
            return Ok(());
        }
        if sent.last_of_key {
            *self
                .counts
                .entry((kind_name(sent.kind), method_name(sent.method)))
                .or_default() += u64::from(keys);
            self.status.snapshot_keys_total.add(u64::from(keys));
        }
        let exists = answers::exists(sent.expect, kind);
        match kind {
            _ if exists => self.exists(sent),
            ReplyKind::Error(error) => {
                self.note_failed();
                Err(self.refusal(Some(sent), error))
            }
            _ => Ok(()),
        }
    }

    /// The target has the key already.
    fn exists(&self, sent: &Sent) -> Result<(), SyncError> {
        if self.existing == ExistingKeys::Skip {
            self.status.dropped.add("existing_key", 1);
            return Ok(());
        }
        Err(self.refused(format!(
            "key \"{}\" (db {}) is there already; set rdb_restore_command_behavior to \"rewrite\" (replace) or \"skip\" (leave)",
            show(&sent.key),
            sent.db.0
        )))
    }

    /// An error reply, to a command or to a unit as a whole.
    fn refusal(&self, sent: Option<&Sent>, error: &resp::ErrorReply) -> SyncError {
        self.status.target_errors.add(error.code.word(), 1);
        let what = answers::refusal(sent, error);
        match self.config.target.endpoint.auth.class_of(error.code) {
            Class::Stop => self.refused(what),
            Class::Reconnect | Class::Resync => self.lost(what),
        }
    }

    /// Says what of the snapshot has no place at the target.
    fn count_left_out(&self) {
        count_left_out(self.rewriter.counts(), self.modules_refused, self.status);
    }

    fn flush_counts(&mut self) {
        for ((kind, method), count) in std::mem::take(&mut self.counts) {
            self.status
                .snapshot_keys
                .add(&format!("{kind}|{method}"), count);
        }
    }

    fn lost(&self, what: impl std::fmt::Display) -> SyncError {
        SyncError::reconnect(Side::Target, &self.config.target.endpoint.address, what)
    }

    fn cannot_hold(&self, error: &rewrite::SnapshotError) -> SyncError {
        self.refused(answers::cannot_hold(error))
    }

    fn refused(&self, what: String) -> SyncError {
        SyncError::stop(Side::Target, &self.config.target.endpoint.address, what)
    }
}

/// The feed ends there, in the middle of an item.
pub(super) fn cut_short(config: &Config, feed: &Feed, pos: u64) -> SyncError {
    let what = match feed.place(pos) {
        Some(place) => format!("{place}: the file ends in the middle of an item"),
        None => format!("the RDB ends after {pos} bytes in the middle of an item"),
    };
    corrupt_word(config, feed, &what)
}

/// An error of the decoder whose RDB begins at `base` of the feed.
pub(super) fn corrupt(config: &Config, feed: &Feed, base: u64, error: &rdb::Error) -> SyncError {
    if let rdb::ErrorKind::Limit { got, max, .. } = error.kind
        && max == config.transaction_bytes_max() as u64
    {
        return SyncError::local(format!(
            "the snapshot holds something that does not fit into memory: {error}; a quarter of limits.memory ({} bytes) is for one element; set limits.memory to {} bytes at least and start again",
            config.memory_bytes,
            got.saturating_mul(4)
        ));
    }
    let what = match feed.place(base + error.at) {
        Some(place) => format!("{place}: {}", error.kind),
        None => error.to_string(),
    };
    corrupt_word(config, feed, &what)
}

pub(super) fn corrupt_word(config: &Config, feed: &Feed, what: &str) -> SyncError {
    let mend = match feed.place(0) {
        Some(_) => "`understudy rdb verify` says more of the file",
        None => "check the source with redis-check-rdb and try again",
    };
    let what =
        format!("the snapshot is damaged: {what}; nothing after this place was applied; {mend}");
    SyncError::stop(Side::Source, &config.source.endpoint.address, what)
}

/// Says what of a snapshot has no place where it is written.
pub(super) fn count_left_out(
    counts: &rewrite::SnapshotCounts,
    modules_refused: u64,
    status: &Status,
) {
    let reasons = left_out(counts, modules_refused).into_iter();
    for (reason, count) in reasons.filter(|(_, count)| *count > 0) {
        status.dropped.add(reason, count);
        say_left_out(reason, count);
    }
}

/// Filters and expiries are meant; the rest is what the target cannot hold.
pub(crate) fn say_left_out(reason: &str, count: u64) {
    if reason.starts_with("snapshot_filter_") || reason.starts_with("snapshot_expired_") {
        tracing::info!(left_out = reason, count, "not in the copy");
    } else {
        tracing::warn!(left_out = reason, count, "not in the copy");
    }
}

/// What was left out, by its name in `understudy_commands_dropped_total`. `modules_refused`: values that the target itself refused.
pub(crate) fn left_out(
    counts: &rewrite::SnapshotCounts,
    modules_refused: u64,
) -> [(&'static str, u64); 19] {
    [
        ("snapshot_own_key", counts.own_keys),
        ("snapshot_filter_db", counts.filtered_dbs),
        ("snapshot_filter_key", counts.filtered_keys),
        ("snapshot_filter_kind", counts.filtered_kinds),
        ("snapshot_expired_key", counts.expired_keys),
        ("snapshot_expired_field", counts.expired_fields),
        ("snapshot_key_lost", counts.keys_lost),
        (
            "snapshot_module_lost",
            counts.modules_lost + modules_refused,
        ),
        ("snapshot_field_ttl_lost", counts.field_ttls_lost),
        ("snapshot_metadata_lost", counts.metadata_lost),
        ("snapshot_usage_hint_lost", counts.usage_hints_lost),
        ("snapshot_stream_counters_lost", counts.stream_counters_lost),
        ("snapshot_consumer_times_lost", counts.consumer_times_lost),
        ("snapshot_stream_pending_lost", counts.stream_pending_lost),
        ("snapshot_stream_returned_lost", counts.stream_returned_lost),
        (
            "snapshot_stream_idempotence_lost",
            counts.stream_idempotence_lost,
        ),
        (
            "snapshot_stream_idempotence_counts_lost",
            counts.stream_idempotence_counts_lost,
        ),
        ("snapshot_function", counts.functions_dropped),
        ("snapshot_module_data", counts.module_data_dropped),
    ]
}

/// What a server says of a module's value if it does not have the module, or one that does not read the value.
pub(crate) fn is_unknown_module(sent: &Sent, error: &resp::ErrorReply) -> bool {
    sent.kind == rdb::Kind::Module
        && sent.method == Method::Restore
        && error.text.ends_with(b"Bad data format")
}

/// What is held whole of a snapshot (an element, a packed or an undecoded value) has to fit into memory.
pub(crate) fn rdb_limits(config: &Config) -> rdb::Limits {
    let (limits, max) = (
        rdb::Limits::default(),
        config.transaction_bytes_max() as u64,
    );
    rdb::Limits {
        item_bytes_max: limits.item_bytes_max.min(max),
        raw_bytes_max: limits.raw_bytes_max.min(max),
        ..limits
    }
}

/// The label of a type in metrics.
pub(crate) fn kind_name(kind: rdb::Kind) -> &'static str {
    match kind {
        rdb::Kind::String => "string",
        rdb::Kind::List => "list",
        rdb::Kind::Set => "set",
        rdb::Kind::Zset => "zset",
        rdb::Kind::Hash => "hash",
        rdb::Kind::Stream => "stream",
        rdb::Kind::Module => "module",
        rdb::Kind::Array => "array",
        rdb::Kind::RateLimiter => "rate_limiter",
    }
}

/// The label of a way of writing in metrics.
pub(crate) fn method_name(method: Method) -> &'static str {
    match method {
        Method::Set => "set",
        Method::Restore => "restore",
        Method::Commands => "rewrite",
        Method::Select => "select",
        Method::Function => "function",
        Method::Script => "script",
    }
}
