//! The worker: takes keys out of the dirty set, reads them at the source, puts them at the target. There is one, and it
//! does one lot after the other, so that no older value can come over a newer one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rdb::{Event, Kind, Want};
use tokio::time::Instant;

use super::dirty::{Marked, Work};
use super::origin::process;
use super::pages::{Pages, head, kind_of};
use super::put::Put;
use super::reads::{self, Found, Read, Way};
use super::shared::Shared;
use super::words::bytes;
use crate::backoff::Patience;
use crate::compare::{End, Name};
use crate::config::ExistingKeys;
use crate::error::{Class, Side, SyncError};
use crate::rdb::names::printable;
use crate::stop::Stop;
use crate::supervise;
use crate::target::Databases;

/// How long it may take until the checkpoint tells how far a sweep is, and until a target notices that we are there.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// A large key rests for so many times as long as it took to read.
const REST: u32 = 2;
/// Rests that are shorter are none.
const REST_MIN: Duration = Duration::from_millis(20);

/// So often in a row the source is asked again until all begins anew.
const SOURCE_ATTEMPTS: u32 = 3;
/// So often a value is read that was written meanwhile, where one pass is all.
const TORN_ATTEMPTS: u32 = 8;

/// Reads and puts.
pub(super) struct Worker<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) databases: &'a Databases,
    pub(super) end: End,
    pub(super) way: Way,
    pub(super) put: Put<'a>,
    pub(super) existing: ExistingKeys,
    /// Taken, and not yet part of what is open at the target.
    pub(super) pending: VecDeque<Work>,
    pub(super) told: BTreeSet<String>,
    /// Lots that were put.
    pub(super) lots_done: u64,
    /// So many connections to the source were made when it was seen last that it is the process that it was.
    pub(super) verified: u64,
    /// How often these large values were not read whole, where one pass is all.
    pub(super) torn: BTreeMap<Name, u32>,
    pub(super) checkpointed: Instant,
}

impl Worker<'_> {
    /// Works until it is asked to stop, or there is no more to do.
    ///
    /// # Errors
    /// Stop for what waiting does not mend.
    pub(super) async fn run(&mut self, stop: &Stop, done: &Stop) -> Result<(), SyncError> {
        let mut patience = Patience::new(SOURCE_ATTEMPTS);
        loop {
            match self.lots(stop, done).await {
                Ok(()) => return Ok(()),
                Err(error) if error.class == Class::Reconnect => {
                    self.give_back();
                    match error.side {
                        Side::Target => self.retake(&error).await?,
                        // Another one may have to be read: a replica that is there, or the source itself.
                        Side::Source | Side::Local => {
                            let Some(pause) = patience.failed(self.lots_done) else {
                                return Err(error);
                            };
                            tracing::warn!(%error, "cannot read the source");
                            self.shared.status.reconnects.add("source", 1);
                            self.shared.raise("source_lost");
                            tokio::select! {
                                () = tokio::time::sleep(pause) => {}
                                () = stop.requested() => return Ok(()),
                            }
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Nothing of what was taken is lost.
    fn give_back(&mut self) {
        let mut works = self.put.take_works();
        works.extend(self.pending.drain(..));
        self.shared.dirty.borrow_mut().put_back(works);
        self.shared.show_dirty();
    }

    async fn retake(&mut self, error: &SyncError) -> Result<(), SyncError> {
        let ours = self.put.checkpoint().clone();
        let config = self.shared.config;
        let mut target = supervise::retake(config, self.shared.status, error, &ours).await?;
        // It may have lost what it had confirmed.
        self.shared.raise("target_lost");
        target.checkpoint.phase = ours.phase;
        if let Some(cluster) = &mut target.cluster {
            cluster.report_to(self.shared.status.nodes.clone());
        }
        self.put = Put::new(self.shared, self.databases, target, self.existing);
        tracing::info!("the target is back; a sweep will look at every key");
        Ok(())
    }

    async fn lots(&mut self, stop: &Stop, done: &Stop) -> Result<(), SyncError> {
        loop {
            self.libraries()?;
            if stop.is_requested() || done.is_requested() {
                return self.put.write_checkpoint().await;
            }
            if self.shared.hold.wants_rest() {
                self.rest(stop).await?;
                continue;
            }
            let most = self.shared.pace.lot();
            let works = self.shared.dirty.borrow_mut().take(most, Instant::now());
            if works.is_empty() {
                self.idle(stop, done).await?;
                continue;
            }
            self.pending = works.into();
            // As much of it at once as memory allows.
            while !self.pending.is_empty() {
                self.lot().await?;
                self.lots_done += 1;
                self.keep_checkpoint().await?;
            }
        }
    }

    /// For a switch-over: the checkpoint is written, and then nothing until the hold has ended.
    async fn rest(&mut self, stop: &Stop) -> Result<(), SyncError> {
        if let Some(at) = self.shared.confirmed_position() {
            self.put.set_position(at);
        }
        self.put.raise_epoch();
        self.put.write_checkpoint().await?;
        tokio::select! {
            () = self.shared.hold.rest() => {}
            () = stop.requested() => {}
        }
        // What is put from here on was not proved: the checkpoint that was must not stand any more.
        self.put.raise_epoch();
        Ok(())
    }

    /// Nothing waits: what is open goes out, and then something may come.
    async fn idle(&mut self, stop: &Stop, done: &Stop) -> Result<(), SyncError> {
        self.put.flush().await?;
        self.keep_checkpoint().await?;
        self.shared.show_dirty();
        let rested_at = self.shared.dirty.borrow().rested_at();
        let tick = Instant::now() + CHECKPOINT_EVERY;
        let until = rested_at.map_or(tick, |at| at.clamp(Instant::now() + REST_MIN, tick));
        tokio::select! {
            biased;
            () = stop.requested() => {}
            () = done.requested() => {}
            () = self.shared.marked.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        Ok(())
    }

    /// The checkpoint tells how far the sweep is, as far as its keys are confirmed.
    async fn keep_checkpoint(&mut self) -> Result<(), SyncError> {
        if let Some(at) = self.shared.confirmed_position() {
            self.put.set_position(at);
        }
        if self.put.has_moved() && self.checkpointed.elapsed() >= CHECKPOINT_EVERY {
            self.put.write_checkpoint().await?;
            self.checkpointed = Instant::now();
        }
        Ok(())
    }

    fn libraries(&mut self) -> Result<(), SyncError> {
        let libraries = std::mem::take(&mut *self.shared.libraries.borrow_mut());
        for library in &libraries {
            self.put.library(library)?;
        }
        Ok(())
    }

    /// Reads what is pending, while what was open before goes out; then makes commands of it.
    async fn lot(&mut self) -> Result<(), SyncError> {
        self.pending
            .make_contiguous()
            .sort_by_key(|work| work.name.0);
        let names: Vec<Name> = self.pending.iter().map(|work| work.name.clone()).collect();
        let limits = &self.shared.config.limits;
        if !limits.may_read() {
            limits.reading().await;
        }
        let from = Instant::now();
        let (end, way) = (&mut self.end, self.way);
        let bytes_max = self.shared.config.repair_bytes_max();
        let reading = async {
            let read = reads::keys(end, way, &names, bytes_max).await;
            (read, from.elapsed())
        };
        let ((read, took), flushed) = tokio::join!(reading, self.put.flush());
        flushed?;
        let read = read?;
        limits.source_bytes.took(read.iter().map(Read::bytes).sum());
        for read in read {
            let Some(work) = self.pending.front().cloned() else {
                break;
            };
            self.one(&work, read).await?;
            self.pending.pop_front();
            self.put.completed(work);
            self.put.flush_if_full().await?;
        }
        self.shared.show_dirty();
        let pause = self.shared.pace.pause(took);
        self.shared.show_pace();
        if !pause.is_zero() && self.shared.hold.ticket().is_none() {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    async fn one(&mut self, work: &Work, read: Read) -> Result<(), SyncError> {
        let name = &work.name;
        self.put.check_db(name.0).await?;
        match read.found {
            Found::Nothing => {
                self.may_remove().await?;
                self.put.remove(name);
                self.shared.streams.borrow_mut().remove(name);
                self.was_whole(name);
            }
            Found::Payload(payload) => {
                let kind = self.put.payload(name, &payload, read.at_ms)?;
                self.note_kind(name, kind);
                self.was_whole(name);
            }
            Found::Events(kind, events) => {
                let head = head(&self.end, name, kind, read.at_ms);
                if self.put.begin(&head)? != Want::Skip {
                    for event in events {
                        self.put.event(event)?;
                    }
                }
                self.was_whole(name);
            }
            Found::Large => self.large(name, read.at_ms).await?,
            Found::Unreadable(kind) => self.unreadable(&kind),
        }
        Ok(())
    }

    /// A source that comes back without its data does not hold any key: nothing is removed before it is known that it is the
    /// process that it was, or that the sweeper has accepted another one.
    async fn may_remove(&mut self) -> Result<(), SyncError> {
        if self.end.opened() == self.verified {
            return Ok(());
        }
        let now = process(&mut self.end).await?;
        if now.is_some() && now != self.shared.process.get() {
            let what = "it was started anew, or is another server now: what it no longer holds is not removed before it was looked at";
            let address = &self.end.endpoint.address;
            return Err(SyncError::reconnect(Side::Source, address, what));
        }
        self.verified = self.end.opened();
        Ok(())
    }

    /// Streams change without events.
    fn note_kind(&self, name: &Name, kind: Kind) {
        if kind == Kind::Stream {
            self.shared.note_stream(name);
        }
    }

    fn unreadable(&mut self, kind: &str) {
        self.shared.status.dropped.add("scan_unreadable", 1);
        if self.told.insert(kind.to_owned()) {
            tracing::warn!(
                kind,
                "keys of this type can only be read by DUMP, which the source does not allow: they are not in the copy"
            );
        }
    }

    /// A value that is read in pieces.
    async fn large(&mut self, name: &Name, at_ms: Option<i64>) -> Result<(), SyncError> {
        let from = Instant::now();
        let word = self.end.one(name.0, &[b"TYPE", &name.1]).await?;
        let word = bytes(&word);
        let Some(kind) = kind_of(&word) else {
            if word.as_ref() == b"none" {
                self.may_remove().await?;
                self.put.remove(name);
                return Ok(());
            }
            return self.only_dumped(name, at_ms, &word).await;
        };
        self.note_kind(name, kind);
        let head = head(&self.end, name, kind, at_ms);
        if self.put.begin(&head)? == Want::Skip {
            return Ok(());
        }
        let mut pages = Pages::new(&mut self.end, name, kind);
        let beside = pages.beside().await?;
        if !beside.is_empty() {
            self.put.ahead(&Event::ValueStart { kind, len: None })?;
            for event in beside {
                self.put.ahead(event)?;
            }
            self.put.ahead(&Event::ValueEnd)?;
        }
        while let Some(events) = pages.next().await? {
            for event in events {
                self.put.event(event)?;
            }
            self.put.flush_if_full().await?;
            tokio::time::sleep(self.shared.pace.pause(Duration::from_millis(1))).await;
        }
        let (is_nothing, first) = (pages.is_nothing(), pages.print());
        let is_torn = match is_nothing {
            // It went while it was looked at, or is an empty string.
            true => {
                self.may_remove().await?;
                self.put.remove(name);
                false
            }
            false => pages.is_torn().await?,
        };
        // Where events tell of writes, sizes are enough to go by; where nothing does, it is read twice.
        let is_torn = is_torn
            || (first.is_some()
                && self.is_once()
                && self.reads_otherwise(name, kind, first).await?);
        let rest = from.elapsed() * REST;
        let mut dirty = self.shared.dirty.borrow_mut();
        if rest >= REST_MIN {
            dirty.rest(name, rest, Instant::now());
        }
        if !is_torn {
            drop(dirty);
            self.was_whole(name);
            return Ok(());
        }
        if self.is_once() {
            drop(dirty);
            self.once_torn(name);
        } else if dirty.mark(name.0, &name.1, Instant::now()) == Marked::Full {
            drop(dirty);
            self.shared.overflowed();
        }
        Ok(())
    }

    /// Nothing tells of writes: it is all over after one pass.
    fn is_once(&self) -> bool {
        !self.shared.wants_events
    }

    /// Whether a second reading of a value gives something else than the first one: two that are alike have nothing
    /// written between them, and so give what the value was then.
    async fn reads_otherwise(
        &mut self,
        name: &Name,
        kind: Kind,
        first: Option<(u64, u64)>,
    ) -> Result<bool, SyncError> {
        let mut again = Pages::new(&mut self.end, name, kind);
        while again.next().await?.is_some() {
            tokio::time::sleep(self.shared.pace.pause(Duration::from_millis(1))).await;
        }
        Ok(again.print() != first)
    }

    /// This key stands at the target as it was at the source.
    fn was_whole(&mut self, name: &Name) {
        if !self.torn.is_empty() {
            self.torn.remove(name);
            self.shared.torn.borrow_mut().retain(|torn| torn != name);
        }
    }

    /// A value was written while it was read: it is read again, and again, as the pass waits for what a sweep marks.
    fn once_torn(&mut self, name: &Name) {
        let count = self.torn.entry(name.clone()).or_default();
        *count += 1;
        // What is there is not put again where keys are skipped, and it may be ours.
        if *count < TORN_ATTEMPTS && self.existing != ExistingKeys::Skip {
            let (attempts, key) = (*count, printable(&name.1));
            tracing::info!(
                db = name.0,
                key,
                attempts,
                "a large value was written while it was read, and is read again"
            );
            self.shared
                .dirty
                .borrow_mut()
                .mark_swept(name, Instant::now());
            return;
        }
        let mut torn = self.shared.torn.borrow_mut();
        if !torn.contains(name) {
            torn.push(name.clone());
        }
    }

    /// A large value of a kind that has no commands to read it in pieces.
    async fn only_dumped(
        &mut self,
        name: &Name,
        at_ms: Option<i64>,
        kind: &[u8],
    ) -> Result<(), SyncError> {
        match self.end.one(name.0, &[b"DUMP", &name.1]).await? {
            resp::Value::Bulk(payload) => {
                self.put.payload(name, &payload, at_ms)?;
            }
            resp::Value::Null => {
                self.may_remove().await?;
                self.put.remove(name);
            }
            _ => self.unreadable(&String::from_utf8_lossy(kind)),
        }
        Ok(())
    }
}
