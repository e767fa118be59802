//! Sweeps: every key of the source is compared with the target's, and every key of the target is looked for at the
//! source. What differs is marked; the worker does the rest. The first sweep into an empty target marks everything.
//!
//! A key that differs while an event of it is on its way is no difference. To know that, a sweep waits behind each look
//! until every event that was published before has arrived ([`super::shared::Listeners::barrier`]).

use std::collections::BTreeSet;
use std::time::Duration;

use resp::Value;
use rewrite::Losses;
use tokio::time::Instant;

use super::origin::process;
use super::pages::head;
use super::reads::{self, Found, Way};
use super::shared::Shared;
use super::words::{bytes, field};
use crate::backoff::Backoff;
use crate::check::provider;
use crate::checkpoint::ScanAt;
use crate::client::Info;
use crate::compare::{Comparer, Held, Libraries, Name, Verdict, Walk, absent, differing_libraries};
use crate::error::{Class, Side, SyncError};
use crate::pipeline::ALLOW_LOSS;
use crate::rdb::names::printable;

/// Keys that are compared at once.
const LOT: usize = 128;
/// Between two sweeps that follow one another because something differs.
const AGAIN: Duration = Duration::from_secs(1);
/// Keys that could not be compared and are named in a sweep.
const TOLD_MAX: u64 = 10;
/// Databases that are tried where the source does not tell which it has.
const DATABASES_TRIED: u32 = 16;
/// Passes over a source that is read once; a pass during which something went wrong is made again.
const PASSES_MAX: u32 = 10;
/// How long it takes until what waits is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What is known before the first sweep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    /// The target holds no key: there is nothing to compare with.
    pub(super) is_empty: bool,
    /// Where an earlier run's sweep was broken off, at this very server.
    pub(super) at: Option<(u32, u64)>,
}

/// Sweeps.
pub(super) struct Sweeper<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) comparer: Comparer,
    pub(super) way: Way,
    pub(super) beginning: Beginning,
    /// Keys of the target that the source does not have are removed.
    pub(super) owns: bool,
    /// The name of the source's process, which its cursors belong to.
    pub(super) run_id: replica::ReplId,
    /// The process that was read last, before this one.
    pub(super) before: replica::ReplId,
    pub(super) is_once: bool,
    /// What the target holds is ours, and one server holds it.
    pub(super) may_compare: bool,
    /// How often something was in doubt when once was enough.
    pub(super) calm_at: u64,
    pub(super) has_told_events: bool,
    /// The hold of a switch-over that the pass under way is for.
    pub(super) hold: Option<u64>,
    pub(super) has_told_libraries: bool,
    /// So many keys of the target are our own.
    pub(super) own_keys: u64,
    /// Libraries of functions that have no place at the target, and were told.
    pub(super) lost_libraries: BTreeSet<String>,
}

impl Sweeper<'_> {
    /// Sweeps until nothing differs, and then now and again. `Ok` when one sweep was all that was wanted, and everything
    /// that it has marked is at the target.
    ///
    /// # Errors
    /// Stop for what waiting does not mend.
    pub(super) async fn run(&mut self) -> Result<(), SyncError> {
        if !self.shared.config.scan.scan {
            return self.only_events().await;
        }
        // What changes from here on is told.
        self.shared.listeners.settled().await;
        let (mut backoff, mut passes) = (Backoff::default(), 0);
        loop {
            let doubt = self.shared.doubt.count();
            let from = Instant::now();
            let is_partial = self.beginning.at.is_some();
            self.hold = self.shared.hold.wants_pass();
            let unchecked = self.shared.status.scan.unchecked.get();
            let differences = match self.same_process_sweep().await {
                Ok(differences) => differences,
                Err(error) if error.class == Class::Reconnect => {
                    tracing::warn!(%error, "the sweep was broken off; it begins again");
                    self.shared.status.scan.is_clean.set(0);
                    tokio::time::sleep(backoff.pause()).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            backoff = Backoff::default();
            if self.is_overtaken() && !is_partial {
                continue;
            }
            let was_first = std::mem::take(&mut self.beginning.is_empty);
            self.beginning.at = None;
            self.drained().await;
            let is_calm = self.shared.doubt.count() == doubt && !is_partial;
            self.tell(differences, was_first, is_calm, from.elapsed());
            if let Some(hold) = self.hold {
                let unchecked = self.shared.status.scan.unchecked.get() - unchecked;
                let is_clean = differences == 0 && is_calm && !was_first;
                self.shared.hold.passed(hold, is_clean.then_some(unchecked));
                if !is_clean && self.shared.hold.wants_pass() == Some(hold) {
                    // Writers wait.
                    continue;
                }
            }
            if self.is_once {
                if is_calm {
                    self.calm_at = doubt;
                    return Ok(());
                }
                passes += 1;
                self.once_more(passes)?;
                // Where nothing can be compared, everything is put again.
                self.beginning.is_empty = was_first && !self.may_compare;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            self.watch_events(differences, was_first).await;
            self.pause(
                doubt,
                differences == 0 && is_calm && !was_first,
                from.elapsed(),
            )
            .await;
        }
    }

    /// Writers wait for a pass that begins now.
    fn is_overtaken(&self) -> bool {
        let wanted = self.shared.hold.wants_pass();
        wanted.is_some() && wanted != self.hold
    }

    /// A pass was not enough.
    fn once_more(&self, passes: u32) -> Result<(), SyncError> {
        if passes < PASSES_MAX {
            tracing::warn!(
                passes,
                "something went wrong during the pass (a lost connection, a server that started anew, FLUSHALL, SWAPDB): every key is looked at again"
            );
            return Ok(());
        }
        let what = format!(
            "something went wrong during each of {passes} passes (the warnings above say what), so that nobody knows whether all was copied; mend that, or follow the source (scan_reader.ksn = true), and start again"
        );
        let address = &self.shared.config.source.endpoint.address;
        Err(SyncError::stop(Side::Source, address, what))
    }

    /// A sweep. A cursor of SCAN means nothing to a process that was started since, which may so leave out any key.
    async fn same_process_sweep(&mut self) -> Result<u64, SyncError> {
        let before = process(&mut self.comparer.source).await?;
        let differences = self.sweep().await?;
        if process(&mut self.comparer.source).await? != before {
            tracing::warn!(
                "the source was started anew during the sweep, or is another server now"
            );
            self.shared.raise("source_restarted");
        }
        Ok(differences)
    }

    /// Without sweeps there is nothing that heals what events do not tell.
    async fn only_events(&mut self) -> Result<(), SyncError> {
        self.shared.listeners.settled().await;
        if let Some(text) = self.shared.listeners.refusal() {
            let what = format!(
                "scan_reader.scan is false, and the source refuses PSUBSCRIBE ({text}): nothing would ever be copied"
            );
            let address = &self.shared.config.source.endpoint.address;
            return Err(SyncError::stop(Side::Source, address, what));
        }
        if !self.shared.wants_events {
            tracing::info!("neither keys nor events are to be read: done");
            return Ok(());
        }
        // What was changed before that is not looked for.
        self.shared.listeners.stand().await;
        self.shared.status.scan.is_clean.set(1);
        let mut doubt = self.shared.doubt.count();
        loop {
            self.watch_events(0, true).await;
            self.shared.doubt.beyond(doubt).await;
            doubt = self.shared.doubt.count();
            self.shared.status.scan.is_clean.set(0);
            tracing::warn!(
                "changes may have been missed, and scan_reader.scan is false: only a sweep could find them"
            );
        }
    }

    /// Waits until what was marked is at the target.
    async fn drained(&self) {
        while self.shared.dirty.borrow().swept_done() < self.shared.dirty.borrow().swept_marked() {
            tokio::select! {
                () = self.shared.confirmed.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    fn tell(&self, differences: u64, was_first: bool, is_calm: bool, took: Duration) {
        let scan = &self.shared.status.scan;
        scan.sweeps.add(1);
        scan.differences.set(differences);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        scan.sweep_ms.set(ms);
        let is_clean = differences == 0 && is_calm && !was_first;
        let was_clean = scan.is_clean.get() == 1;
        scan.is_clean.set(u64::from(is_clean));
        let (keys, seconds) = (scan.keys.get(), took.as_secs_f64());
        if was_first && self.is_once {
            tracing::info!(keys, seconds, "every key is copied");
        } else if was_first {
            tracing::info!(
                keys,
                seconds,
                "every key is copied; from here on sweeps compare"
            );
        } else if is_clean != was_clean || differences > 0 {
            tracing::info!(differences, seconds, clean = is_clean, "sweep done");
        } else {
            tracing::debug!(seconds, "sweep done, nothing differs");
        }
    }

    async fn pause(&self, doubt: u64, is_clean: bool, took: Duration) {
        let interval = self.shared.config.scan.repair_interval;
        if is_clean {
            let again = self.shared.doubt.beyond(doubt);
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = again => tokio::time::sleep(AGAIN.min(interval)).await,
                () = self.shared.hold.asks_for_pass(self.hold) => {}
            }
            return;
        }
        // The source has other things to do, too.
        tokio::select! {
            () = tokio::time::sleep(AGAIN.max(took / 10).min(interval)) => {}
            () = self.shared.hold.asks_for_pass(self.hold) => {}
        }
    }

    /// Once through all keys of both ends; how many differ.
    async fn sweep(&mut self) -> Result<u64, SyncError> {
        let config = self.shared.config;
        let mut differences = self.libraries().await?;
        let mut walk = self.walk(Side::Source).await?;
        walk.set_count(config.scan.count);
        if let Some((db, cursor)) = self.beginning.at {
            walk.go_to(db, cursor);
        }
        self.shared.status.scan.sweep_keys.set(walk.keys);
        self.shared.status.scan.swept_keys.set(0);
        while let Some(found) = walk
            .next(&mut self.comparer.source, &self.shared.choice)
            .await?
        {
            if self.is_overtaken() {
                return Ok(differences);
            }
            // Before the checkpoint says that this source was swept.
            if self.owns && !self.beginning.is_empty && self.before != self.run_id {
                self.refuse_shrunk().await?;
            }
            if self.owns && self.shared.doubt.take_flushed() {
                differences += self.target_keys().await?;
            }
            self.shared.status.scan.swept_keys.add(found.len() as u64);
            for lot in found.chunks(LOT) {
                differences += self.look(lot).await?;
            }
            let place = walk.place();
            self.shared
                .status
                .scan
                .db
                .set(place.map_or(0, |(db, _)| db.into()));
            self.shared
                .status
                .scan
                .cursor
                .set(place.map_or(0, |(_, cursor)| cursor));
            if let Some((db, cursor)) = place {
                let run_id = self.run_id;
                self.shared.swept_to(ScanAt { run_id, db, cursor });
            }
        }
        if walk.is_unsure() {
            self.shared.raise("slots_moved");
        }
        if self.owns && !self.beginning.is_empty {
            self.shared.doubt.take_flushed();
            differences += self.target_keys().await?;
        }
        let run_id = self.run_id;
        self.shared.swept_to(ScanAt {
            run_id,
            db: 0,
            cursor: 0,
        });
        Ok(differences)
    }

    /// Waits until the worker has come along.
    async fn room(&self) {
        while !self.shared.dirty.borrow().has_room_for_sweep() {
            tokio::select! {
                () = self.shared.confirmed.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Compares keys, and marks those that differ; how many that are.
    async fn look(&mut self, lot: &[Name]) -> Result<u64, SyncError> {
        self.room().await;
        if self.beginning.is_empty {
            let (mut dirty, now) = (self.shared.dirty.borrow_mut(), Instant::now());
            lot.iter().for_each(|name| dirty.mark_swept(name, now));
            self.shared.marked.notify_one();
            return Ok(0);
        }
        let from = Instant::now();
        self.shared.dirty.borrow_mut().watch();
        let verdicts = self.compare(lot).await;
        let took = from.elapsed();
        let streams = self.comparer.streams.iter_mut().flat_map(std::mem::take);
        streams.for_each(|name| self.shared.note_stream(&name));
        let found = match verdicts {
            Ok(verdicts) => self.suspects(lot, verdicts),
            Err(error) => {
                self.shared.dirty.borrow_mut().unwatch();
                return Err(error);
            }
        };
        let differences = self.judge(&found).await;
        if self.hold.is_none() {
            tokio::time::sleep(self.shared.pace.pause(took)).await;
        }
        Ok(differences)
    }

    async fn compare(&mut self, lot: &[Name]) -> Result<Vec<Verdict>, SyncError> {
        if self.way == Way::Payloads {
            return self.comparer.look(lot).await;
        }
        let (mut verdicts, mut left) = (Vec::with_capacity(lot.len()), lot);
        while !left.is_empty() {
            verdicts.extend(self.compare_by_types(left).await?);
            left = lot.get(verdicts.len()..).unwrap_or_default();
        }
        Ok(verdicts)
    }

    /// The first of these keys, as many as fit into memory.
    async fn compare_by_types(&mut self, lot: &[Name]) -> Result<Vec<Verdict>, SyncError> {
        let bytes_max = self.shared.config.repair_bytes_max();
        let source = &mut self.comparer.source;
        let read = reads::keys(source, self.way, lot, bytes_max).await?;
        let lot = lot.get(..read.len()).unwrap_or(lot);
        let mut held = Vec::with_capacity(lot.len());
        for (name, read) in lot.iter().zip(read) {
            let at_ms = read.at_ms;
            held.push(match read.found {
                Found::Nothing => Held::Nothing,
                Found::Payload(payload) => Held::Whole { payload, at_ms },
                Found::Events(kind, events) => {
                    let head = head(&self.comparer.source, name, kind, at_ms);
                    self.comparer.digested(&head, events)
                }
                Found::Large => Held::Large { at_ms },
                Found::Unreadable(_) => Held::Unknown,
            });
        }
        self.comparer.look_at_target(lot, held).await
    }

    /// A walk over the keys of one end.
    async fn walk(&mut self, side: Side) -> Result<Walk, SyncError> {
        let (config, choice) = (self.shared.config, &self.shared.choice);
        let end = match side {
            Side::Source => &mut self.comparer.source,
            Side::Target | Side::Local => &mut self.comparer.target,
        };
        let mut walk = match Walk::begin(end, config).await {
            // A cluster's nodes have to tell: each is walked through.
            Err(error)
                if error.class == Class::Stop && side == Side::Source && !end.is_cluster() =>
            {
                // INFO is not allowed: databases are found by trying.
                let mut dbs = Vec::new();
                for db in 0..DATABASES_TRIED {
                    match end.one(db, &[b"DBSIZE"]).await {
                        Ok(Value::Int(0)) => {}
                        Ok(_) => dbs.push(db),
                        Err(error) if error.class == Class::Stop => break,
                        Err(error) => return Err(error),
                    }
                }
                Walk::over(&dbs, choice)
            }
            walk => walk?,
        };
        walk.only(&config.scan.dbs, choice);
        Ok(walk)
    }

    fn suspects(&self, lot: &[Name], verdicts: Vec<Verdict>) -> Vec<Name> {
        let mut found = Vec::new();
        for (name, verdict) in lot.iter().zip(verdicts) {
            match verdict {
                Verdict::Equal => {}
                Verdict::Differs(look) if look.is_left_out(self.shared.config) => {}
                Verdict::Differs(_) => found.push(name.clone()),
                Verdict::Unchecked(why) => {
                    self.shared.status.compared.add("unchecked", 1);
                    let unchecked = &self.shared.status.scan.unchecked;
                    unchecked.add(1);
                    if unchecked.get() <= TOLD_MAX {
                        let key = printable(&name.1);
                        tracing::warn!(db = name.0, key, why, "a key cannot be compared");
                    }
                }
            }
        }
        found
    }

    /// Marks those of these that differ although no event of them is on its way.
    async fn judge(&self, found: &[Name]) -> u64 {
        let mut differences = 0;
        if !found.is_empty() {
            let hears = self.shared.listeners.barrier().await;
            let (mut dirty, now) = (self.shared.dirty.borrow_mut(), Instant::now());
            for name in found {
                if hears && dirty.is_on_its_way(name) {
                    continue;
                }
                differences += 1;
                dirty.mark_swept(name, now);
            }
            self.shared.marked.notify_one();
        }
        self.shared.dirty.borrow_mut().unwatch();
        self.shared.status.compared.add("different", differences);
        differences
    }

    /// Looks for keys of the target that the source does not have, and marks them; how many that are.
    async fn target_keys(&mut self) -> Result<u64, SyncError> {
        self.refuse_shrunk().await?;
        let mut walk = self.walk(Side::Target).await?;
        let mut differences = 0;
        while let Some(found) = walk
            .next(&mut self.comparer.target, &self.shared.choice)
            .await?
        {
            self.room().await;
            self.shared.dirty.borrow_mut().watch();
            let extra = absent(&mut self.comparer.source, &found).await;
            let extra = match extra {
                Ok(extra) => extra,
                Err(error) => {
                    self.shared.dirty.borrow_mut().unwatch();
                    return Err(error);
                }
            };
            differences += self.judge(&extra).await;
        }
        Ok(differences)
    }

    /// A source that came back without its data must not empty its copy.
    async fn refuse_shrunk(&mut self) -> Result<(), SyncError> {
        let source = &mut self.comparer.source;
        let run_id = process(source).await?;
        let offered = match source.keyspaces().await {
            Ok(told) => self.count(told),
            // It does not tell.
            Err(error) if error.class == Class::Stop => return Ok(()),
            Err(error) => return Err(error),
        };
        if process(&mut self.comparer.source).await? != run_id {
            let what =
                "it was started anew, or another server took its place, while it was looked at";
            let address = &self.shared.config.source.endpoint.address;
            return Err(SyncError::reconnect(Side::Source, address, what));
        }
        let held = self.comparer.target.keyspaces().await?;
        let held = self.count(held).saturating_sub(self.own_keys);
        let is_other = run_id.is_some_and(|run_id| run_id != self.before);
        if is_other && offered.saturating_mul(2) < held {
            let what = format!(
                "it has started anew and holds {offered} keys, but the target {held}: has the source lost its data? No key was removed at the target; to accept the smaller source, empty the target, delete its checkpoint, and start again"
            );
            let address = &self.shared.config.source.endpoint.address;
            return Err(SyncError::stop(Side::Source, address, what));
        }
        if let Some(run_id) = run_id {
            (self.before, self.run_id) = (run_id, run_id);
            self.shared.process.set(Some(run_id));
        }
        Ok(())
    }

    /// Keys of databases that are looked at.
    fn count(&self, told: impl IntoIterator<Item = (Option<String>, Vec<(u32, u64)>)>) -> u64 {
        let keyspaces = told.into_iter().flat_map(|(_, keyspace)| keyspace);
        let taken = keyspaces.filter(|(db, _)| self.shared.choice.takes_db(*db));
        taken.map(|(_, keys)| keys).sum()
    }

    /// Libraries of functions that differ are put in place; how many that are.
    async fn libraries(&mut self) -> Result<u64, SyncError> {
        let config = self.shared.config;
        let table = rewrite::Table::new();
        let is_blocked = table
            .lookup(b"function")
            .is_some_and(|command| config.filter.table_command(command).is_err());
        if is_blocked || !config.filter.db(rewrite::Db(0)) {
            return Ok(0);
        }
        let mut found = match differing_libraries(&mut self.comparer).await? {
            Libraries::Differing(found) => found,
            Libraries::Lacking => return self.lose_libraries().await.map(|()| 0),
            Libraries::Refused { side, reply } => {
                self.tell_libraries(side, &reply);
                return Ok(0);
            }
        };
        // Others may have put theirs beside ours.
        found.retain(|library| self.owns || library.code.is_some());
        let differences = found.len() as u64;
        // Those that go make room for names of functions that come.
        found.sort_by_key(|library| library.code.is_some());
        *self.shared.libraries.borrow_mut() = found;
        self.shared.marked.notify_one();
        Ok(differences)
    }

    /// The target has no functions (7.0): what the source has of them is refused, or said and counted by library.
    async fn lose_libraries(&mut self) -> Result<(), SyncError> {
        if !self.comparer.source.has(7, 0) || self.comparer.target.has(7, 0) {
            return Ok(());
        }
        let argv: [&[u8]; 2] = [b"FUNCTION", b"LIST"];
        let Value::Array(rows) = self.comparer.source.one(0, &argv).await? else {
            return Ok(());
        };
        let names = rows.iter().filter_map(|row| field(row, "library_name"));
        let mut names: Vec<String> = names.map(|name| printable(&bytes(name))).collect();
        names.retain(|name| !self.lost_libraries.contains(name));
        if names.is_empty() {
            return Ok(());
        }
        let libraries = names.join(", ");
        if self.shared.config.target.losses == Losses::Refuse {
            let what = format!(
                "the library of functions {libraries} needs functions (Redis 7.0), which the target does not have: allow the loss, or filter it out{ALLOW_LOSS}"
            );
            let address = &self.shared.config.target.endpoint.address;
            return Err(SyncError::stop(Side::Target, address, what));
        }
        tracing::warn!(
            libraries,
            "the target has no functions (Redis 7.0): these libraries are not in the copy"
        );
        let dropped = &self.shared.status.dropped;
        dropped.add("snapshot_function", names.len() as u64);
        self.lost_libraries.extend(names);
        Ok(())
    }

    fn tell_libraries(&mut self, side: Side, reply: &str) {
        if std::mem::replace(&mut self.has_told_libraries, true) {
            return;
        }
        self.shared.status.dropped.add("scan_functions_unread", 1);
        tracing::warn!(
            reply,
            "the {side} refuses FUNCTION LIST: libraries of functions are not in the copy, if there are any; for an ACL user: +function|list"
        );
    }

    /// Notices when keys change and no event tells of it.
    async fn watch_events(&mut self, differences: u64, was_first: bool) {
        if !self.shared.wants_events {
            return;
        }
        let source = &mut self.comparer.source;
        let argv: [&[u8]; 3] = [b"CONFIG", b"GET", b"notify-keyspace-events"];
        let told = source.each(0, &argv).await.unwrap_or_default().into_iter();
        let settings = told.filter_map(|(_, reply)| match reply {
            Value::Array(pair) => {
                let flags = pair.get(1)?.as_bytes()?;
                Some(String::from_utf8_lossy(flags).into_owned())
            }
            _ => None,
        });
        // Of a cluster the node that lacks most.
        let setting = settings.max_by_key(|flags| missing(flags).len());
        let missing = setting.as_deref().map(missing);
        let is_silent = match &missing {
            Some(missing) => !missing.is_empty(),
            // Where it is not told, keys that have changed without a word tell it.
            None => differences > 0 && !was_first && self.shared.status.scan.events.get() == 0,
        };
        let hears = self.shared.listeners.are_on() && !is_silent;
        self.shared.status.scan.hears_events.set(u64::from(hears));
        if is_silent && !self.has_told_events {
            let host = source.endpoint.host().to_owned();
            let provider = match source.info("server").await {
                Ok(info) => provider(&host, &info),
                Err(_) => provider(&host, &Info::of(b"")),
            };
            let mend = provider.set_events();
            tracing::warn!(
                setting = setting.as_deref().unwrap_or("not told"),
                missing = missing.as_deref().unwrap_or(""),
                mend,
                "keyspace events do not arrive: changes are found by sweeps alone"
            );
        } else if !is_silent && self.has_told_events {
            tracing::info!("keyspace events arrive");
        }
        self.has_told_events = is_silent;
    }
}

/// What is missing in a value of `notify-keyspace-events`.
pub(crate) fn missing(flags: &str) -> String {
    let has = |flag: char| flags.contains(flag);
    let mut missing = String::new();
    if !has('E') {
        missing.push('E');
    }
    if !has('A') {
        missing.extend("g$lshzxet".chars().filter(|flag| !has(*flag)));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn flags_that_are_missing_are_named() {
        assert_eq!(missing("AKE"), "");
        assert_eq!(missing("Eg$lshzxet"), "");
        assert_eq!(missing("KA"), "E");
        assert_eq!(missing("Eg$"), "lshzxet");
        assert_eq!(missing(""), "Eg$lshzxet");
    }
}
