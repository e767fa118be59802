//! Putting keys at the target: what was read of a key becomes commands, and the commands of a lot one unit, in which the
//! checkpoint is written too.
//!
//! A key is replaced as a whole, or removed. All of that can be repeated, so a unit that nobody answered is done again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rdb::{Dialect, Event, KeyHead, Kind, Poll, RdbVersion, Want, dump};
use resp::ReplyKind;
use rewrite::{Db, Losses, Sent, SnapshotCounts, SnapshotError, SnapshotRewriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dirty::Work;
use super::shared::Shared;
use crate::checkpoint::{self, Checkpoint, KEY_PREFIX, Phase, ScanAt};
use crate::compare::{Library, Name};
use crate::config::ExistingKeys;
use crate::error::{Class, Side, SyncError, io_word};
use crate::pipeline::{
    Lane, NOT_OURS, Reply, answers, cluster, guard, is_unknown_module, kind_name, left_out,
    method_name, rdb_limits, say_left_out, show,
};
use crate::target::{Databases, Target};

/// What is past by the source's time was told apart when it was read; our own clock is not asked.
const NO_TIME: u64 = 0;

/// The largest value that is sent as one RESTORE.
const RESTORE_BYTES_MAX: u64 = 1 << 20;

/// Puts keys at a target.
pub(super) struct Put<'a> {
    shared: &'a Shared<'a>,
    databases: &'a Databases,
    target: Target,
    rewriter: SnapshotRewriter,
    lane: Lane,
    sent: Vec<Sent>,
    /// The keys that are complete in what is open or on its way.
    works: Vec<Work>,
    written: Option<Checkpoint>,
    checked: BTreeSet<Db>,
    existing: ExistingKeys,
    counts: BTreeMap<(&'static str, &'static str), u64>,
    /// What was left out, as it was told last.
    left_out: SnapshotCounts,
}

impl<'a> Put<'a> {
    /// For a target that is ours. `existing`: what becomes of keys that are there.
    pub(super) fn new(
        shared: &'a Shared<'a>,
        databases: &'a Databases,
        target: Target,
        existing: ExistingKeys,
    ) -> Self {
        let config = shared.config;
        let options = rewrite::SnapshotOptions {
            filter: config.filter.clone(),
            own_key_mark: Bytes::from_static(KEY_PREFIX.as_bytes()),
            existing: match existing {
                ExistingKeys::Fail | ExistingKeys::Replace => rewrite::Existing::Replace,
                ExistingKeys::Skip => rewrite::Existing::Skip,
            },
            restore_bytes_max: RESTORE_BYTES_MAX,
            losses: config.target.losses,
            db_map: config.target.db_map.clone(),
            ..rewrite::SnapshotOptions::new(target.abilities.clone(), NO_TIME)
        };
        let bytes_max = config.target.inflight_bytes;
        let lane = match target.cluster {
            None => {
                let key = checkpoint::key(&config.link_name).into_bytes();
                Lane::new(key, target.round_trip, bytes_max)
            }
            Some(_) => Lane::for_cluster(bytes_max),
        };
        Self {
            shared,
            databases,
            rewriter: SnapshotRewriter::new(options),
            lane,
            sent: Vec::new(),
            works: Vec::new(),
            written: None,
            checked: BTreeSet::new(),
            existing,
            counts: BTreeMap::new(),
            left_out: SnapshotCounts::default(),
            target,
        }
    }

    /// The checkpoint as it is written next.
    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.target.checkpoint
    }

    /// How far the sweep is that is under way.
    pub(super) fn set_position(&mut self, at: ScanAt) {
        self.target.checkpoint.phase = Phase::Scan(at);
    }

    /// The next checkpoint is one that was never written before: a target that has it has lost nothing that came before.
    pub(super) fn raise_epoch(&mut self) {
        self.target.checkpoint.epoch += 1;
    }

    /// Whether the checkpoint has changed since it was written.
    pub(super) fn has_moved(&self) -> bool {
        self.written.as_ref() != Some(&self.target.checkpoint)
    }

    /// What was not confirmed.
    pub(super) fn take_works(&mut self) -> Vec<Work> {
        std::mem::take(&mut self.works)
    }

    /// This key is complete.
    pub(super) fn completed(&mut self, work: Work) {
        self.works.push(work);
    }

    /// Makes sure of a key's database, before anything is put into it.
    ///
    /// # Errors
    /// Stop where the target does not have it.
    pub(super) async fn check_db(&mut self, db: u32) -> Result<(), SyncError> {
        let db = self.shared.config.target.db_of(Db(db));
        if self.checked.contains(&db) {
            return Ok(());
        }
        self.databases.check(&self.shared.config.target, db).await?;
        self.checked.insert(db);
        Ok(())
    }

    /// The source does not have this key.
    pub(super) fn remove(&mut self, (db, key): &Name) {
        if self.existing == ExistingKeys::Skip {
            // What is there may be the target's own.
            return;
        }
        let body = self.lane.body();
        self.rewriter.remove(Db(*db), key, body, &mut self.sent);
        self.lane.added(&mut self.sent);
    }

    /// A key whose value was dumped.
    ///
    /// # Errors
    /// Stop for a value that cannot be read, or that the target cannot hold.
    pub(super) fn payload(
        &mut self,
        (db, key): &Name,
        payload: &Bytes,
        at_ms: Option<i64>,
    ) -> Result<Kind, SyncError> {
        let unreadable = |error: rdb::Error| {
            let what = format!(
                "the payload of \"{}\" (db {db}) cannot be read: {error}",
                show(key)
            );
            let address = &self.shared.config.source.endpoint.address;
            SyncError::stop(Side::Source, address, what)
        };
        let limits = rdb_limits(self.shared.config);
        let mut decoder = dump::decoder(payload, limits).map_err(unreadable)?;
        let Poll::Event(Event::Key(head)) = decoder.poll().map_err(unreadable)? else {
            return Ok(Kind::String);
        };
        let head = KeyHead {
            db: Db(*db),
            key: key.clone(),
            expire_at_ms: at_ms,
            ..head
        };
        let version = RdbVersion(version_of(payload));
        let dialect = Dialect::of_payload(version);
        self.event(Event::Start { dialect, version })?;
        let want = self.begin(&head)?;
        let mut ahead = match head.kind {
            Kind::Stream => decoder.lookahead(),
            _ => None,
        };
        decoder.want(want);
        if want == Want::Skip {
            return Ok(head.kind);
        }
        loop {
            let event = match decoder.poll() {
                Ok(Poll::Event(event)) => event,
                Ok(Poll::End) => return Ok(head.kind),
                Ok(Poll::NeedMore) => {
                    decoder
                        .finish()
                        .map_err(|error| self.damaged(&head, &error))?;
                    continue;
                }
                Err(error) => return Err(self.damaged(&head, &error)),
            };
            if let Event::ValueStart {
                kind: Kind::Stream, ..
            } = event
                && let Some(mut decoder) = ahead.take()
            {
                decoder.want(Want::Groups);
                self.look_ahead(&head, &mut decoder)?;
            }
            self.event(event)?;
        }
    }

    fn damaged(&self, head: &KeyHead, error: &rdb::Error) -> SyncError {
        let what = format!(
            "the payload of \"{}\" (db {}) cannot be read: {error}",
            show(&head.key),
            head.db.0
        );
        SyncError::stop(
            Side::Source,
            &self.shared.config.source.endpoint.address,
            what,
        )
    }

    fn look_ahead(&mut self, head: &KeyHead, decoder: &mut rdb::Decoder) -> Result<(), SyncError> {
        loop {
            match decoder.poll() {
                Ok(Poll::Event(event)) => self.ahead(&event)?,
                Ok(Poll::End) => return Ok(()),
                Ok(Poll::NeedMore) => {
                    decoder
                        .finish()
                        .map_err(|error| self.damaged(head, &error))?;
                }
                Err(error) => return Err(self.damaged(head, &error)),
            }
        }
    }

    /// What stands behind a stream's messages, before they come.
    ///
    /// # Errors
    /// As [`Self::event`].
    pub(super) fn ahead(&mut self, event: &Event) -> Result<(), SyncError> {
        let told = self.rewriter.ahead(event);
        told.map_err(|error| self.cannot_hold(&error))
    }

    /// A key whose value follows in events.
    ///
    /// # Errors
    /// Stop for a value that the target cannot hold.
    pub(super) fn begin(&mut self, head: &KeyHead) -> Result<Want, SyncError> {
        let want = self.rewriter.key(head);
        want.map_err(|error| self.cannot_hold(&error))
    }

    /// The next event of a value.
    ///
    /// # Errors
    /// Stop for a value that the target cannot hold.
    pub(super) fn event(&mut self, event: Event) -> Result<(), SyncError> {
        let rewritten = self.rewriter.event(event, self.lane.body(), &mut self.sent);
        rewritten.map_err(|error| self.cannot_hold(&error))?;
        self.lane.added(&mut self.sent);
        Ok(())
    }

    /// A library of functions, as the source has it, or none.
    ///
    /// # Errors
    /// As [`Self::event`].
    pub(super) fn library(&mut self, library: &Library) -> Result<(), SyncError> {
        match &library.code {
            Some(code) => self.event(Event::Function { code: code.clone() }),
            None => {
                let body = self.lane.body();
                self.rewriter
                    .remove_library(&library.name, body, &mut self.sent);
                self.lane.added(&mut self.sent);
                Ok(())
            }
        }
    }

    /// Sends what is open, if that is enough by now; a large value takes several units.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub(super) async fn flush_if_full(&mut self) -> Result<(), SyncError> {
        match self.lane.is_full() && !self.rewriter.is_in_command() {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Sends what is open, and waits for the last answer.
    ///
    /// # Errors
    /// Reconnect when the target is lost, or the link is no longer ours; stop for what it refuses.
    pub(super) async fn flush(&mut self) -> Result<(), SyncError> {
        if let Some(cluster) = &mut self.target.cluster {
            if cluster.renewal_is_due() {
                cluster.renew().await?;
            }
        } else if self.target.pipe.renewal.is_due() {
            self.renew().await?;
        }
        if !self.lane.is_empty() {
            match self.target.cluster {
                None => self.unit().await?,
                Some(_) => self.window().await?,
            }
        }
        self.confirm();
        Ok(())
    }

    /// Writes the checkpoint, with what is open.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub(super) async fn write_checkpoint(&mut self) -> Result<(), SyncError> {
        match &mut self.target.cluster {
            None => self.unit().await?,
            Some(_) => {
                self.flush().await?;
                if let Some(cluster) = &mut self.target.cluster {
                    cluster.write_checkpoint(&self.target.checkpoint).await?;
                }
                self.written = Some(self.target.checkpoint.clone());
            }
        }
        self.confirm();
        Ok(())
    }

    /// Everything that was open is confirmed.
    fn confirm(&mut self) {
        let works = std::mem::take(&mut self.works);
        if !works.is_empty() {
            self.shared.dirty.borrow_mut().done(&works);
            self.shared.status.scan.keys.add(works.len() as u64);
            self.shared.confirmed.notify_waiters();
        }
        for ((kind, method), count) in std::mem::take(&mut self.counts) {
            let label = format!("{kind}|{method}");
            self.shared.status.snapshot_keys.add(&label, count);
        }
        self.count_left_out();
        self.shared.status.inflight_bytes.set(0);
        self.shared.status.inflight_commands.set(0);
    }

    /// What of the keys that were put has no place at the target, each time that they are put.
    fn count_left_out(&mut self) {
        let now = self.rewriter.counts();
        if *now == self.left_out {
            return;
        }
        let (before, counts) = (left_out(&self.left_out, 0), left_out(now, 0));
        for ((reason, before), (_, count)) in before.into_iter().zip(counts) {
            if count == before {
                continue;
            }
            self.shared.status.dropped.add(reason, count - before);
            if before == 0 {
                say_left_out(reason, count);
            }
        }
        self.left_out = now.clone();
    }

    async fn renew(&mut self) -> Result<(), SyncError> {
        let config = self.shared.config;
        let guard = guard(self.written_text().as_bytes());
        let key = checkpoint::key(&config.link_name);
        let endpoint = &config.target.endpoint;
        self.target.pipe.renew(endpoint, &key, &guard).await
    }

    fn written_text(&self) -> String {
        let written = self.written.as_ref();
        written.unwrap_or(&self.target.checkpoint).to_string()
    }

    /// One unit to a single server.
    async fn unit(&mut self) -> Result<(), SyncError> {
        let from = tokio::time::Instant::now();
        self.lane.seal(&self.target.checkpoint.to_string(), 0);
        let (commands, bytes) = self.lane.inflight();
        self.shared.status.inflight_bytes.set(bytes as u64);
        self.shared.status.inflight_commands.set(commands as u64);
        let limits = self.shared.config.limits.clone();
        while self.lane.is_in_flight() {
            let moved = {
                let (mut reader, mut writer) = tokio::io::split(&mut self.target.pipe.stream);
                let to_write = self.lane.to_write();
                tokio::select! {
                    biased;
                    read = reader.read_buf(&mut self.target.pipe.replies) => Moved::Read(read),
                    wrote = writer.write(to_write), if !to_write.is_empty() && limits.is_open() => Moved::Wrote(wrote),
                    () = limits.open(), if !limits.is_open() => continue,
                }
            };
            match moved {
                Moved::Read(Ok(0)) => return Err(self.lost("the server closed the connection")),
                Moved::Read(Ok(_)) => self.replies()?,
                Moved::Wrote(Ok(wrote)) => {
                    limits.target_bytes.took(wrote as u64);
                    self.lane.wrote(wrote);
                    if self.lane.to_write().is_empty() {
                        let flushed = self.target.pipe.stream.flush().await;
                        flushed.map_err(|error| self.lost(io_word(&error)))?;
                    }
                }
                Moved::Read(Err(error)) | Moved::Wrote(Err(error)) => {
                    return Err(self.lost(io_word(&error)));
                }
            }
        }
        self.written = Some(self.target.checkpoint.clone());
        let seconds = from.elapsed().as_secs_f64();
        self.shared.status.batch_seconds.record(seconds, 1);
        Ok(())
    }

    fn replies(&mut self) -> Result<(), SyncError> {
        while let Some(reply) = self.lane.reply(&mut self.target.pipe.replies) {
            match reply {
                Reply::Command { sent, keys, kind } => {
                    self.shared.config.limits.target_commands.took(keys.into());
                    self.reply(&sent, keys, &kind)?;
                }
                Reply::Done { .. } => {}
                Reply::Aborted { sent, error } => {
                    return Err(self.refusal(sent.as_ref(), &error));
                }
                Reply::Fenced => return Err(self.lost(NOT_OURS)),
                Reply::Nonsense(what) => return Err(self.refused(what)),
            }
        }
        Ok(())
    }

    /// What is open, to a cluster: a transaction for each slot.
    async fn window(&mut self) -> Result<(), SyncError> {
        let limits = self.shared.config.limits.clone();
        limits.open().await;
        let (bytes, sent) = self.lane.take_open();
        limits.target_bytes.took(bytes.len() as u64);
        let Some(nodes) = &mut self.target.cluster else {
            return Ok(());
        };
        let target = &self.shared.config.target;
        let window = cluster::window(&bytes, sent, nodes.is_lua());
        let answers = cluster::carry_out(target, nodes, window).await?;
        for (sent, keys, kind) in answers {
            limits.target_commands.took(keys.into());
            self.reply(&sent, keys, &kind)?;
        }
        Ok(())
    }

    fn reply(&mut self, sent: &Sent, keys: u32, kind: &ReplyKind) -> Result<(), SyncError> {
        let exists = answers::exists(sent.expect, kind);
        if let ReplyKind::Error(error) = kind {
            let is_lost = is_unknown_module(sent, error);
            if is_lost && self.shared.config.target.losses == Losses::Allow {
                self.shared.status.dropped.add("snapshot_module_lost", 1);
                return Ok(());
            }
            if !exists || self.existing != ExistingKeys::Skip {
                return Err(self.refusal(Some(sent), error));
            }
        }
        if exists {
            self.shared.status.dropped.add("existing_key", 1);
        } else if sent.last_of_key {
            let label = (kind_name(sent.kind), method_name(sent.method));
            *self.counts.entry(label).or_default() += u64::from(keys);
            self.shared.status.snapshot_keys_total.add(u64::from(keys));
        }
        Ok(())
    }

    /// An error reply.
    fn refusal(&self, sent: Option<&Sent>, error: &resp::ErrorReply) -> SyncError {
        self.shared.status.target_errors.add(error.code.word(), 1);
        let what = answers::refusal(sent, error);
        let auth = &self.shared.config.target.endpoint.auth;
        match auth.class_of(error.code) {
            Class::Stop => self.refused(what),
            Class::Reconnect | Class::Resync => self.lost(what),
        }
    }

    fn cannot_hold(&self, error: &SnapshotError) -> SyncError {
        self.refused(answers::cannot_hold(error))
    }

    fn lost(&self, what: impl std::fmt::Display) -> SyncError {
        let address = &self.shared.config.target.endpoint.address;
        SyncError::reconnect(Side::Target, address, what)
    }

    fn refused(&self, what: String) -> SyncError {
        let address = &self.shared.config.target.endpoint.address;
        SyncError::stop(Side::Target, address, what)
    }
}

/// What has happened on a connection.
enum Moved {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
}

/// The version in a payload's footer.
fn version_of(payload: &[u8]) -> u16 {
    let footer = payload
        .len()
        .checked_sub(10)
        .and_then(|at| payload.get(at..at + 2));
    match footer {
        Some([low, high]) => u16::from_le_bytes([*low, *high]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_where_they_stand() {
        let mut payload = Vec::new();
        dump::payload(&mut payload, None, 0, b"\x01a", 80);
        assert_eq!(version_of(&payload), 80);
        assert_eq!(version_of(b"short"), 0);
    }
}
