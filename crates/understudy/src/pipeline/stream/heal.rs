//! The applier's part in repairs: what is passed over, when values are read, where they are put. See
//! [`super::super::repair`].

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use replica::ReplId;
use rewrite::Outcome;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::recall::NAMES_BYTES_MAX;
use super::{Inflight, StreamApplier, describe, show};
use crate::checkpoint::{Names, Phase};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::error::{Class, SyncError};
use crate::net;
use crate::pipeline::repair::{self, Copies, Touched, Whole};

/// Values are not read while the stream is further behind than this: they would be kept in memory until it is there.
const BEHIND_BYTES: u64 = 16 << 20;
/// Most keys that are read at once: the source does nothing else meanwhile.
const KEYS_AT_ONCE: usize = 1024;
/// Between attempts to read.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the source may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts when the stream has ended: what is not repaired then, the next run repairs.
const LAST_ATTEMPTS: u32 = 3;

pub(in crate::pipeline) const TOO_MANY: &str = "it cannot be repaired: too many keys hang on it";

type Reading<'a> = Pin<Box<dyn Future<Output = Result<Copies, SyncError>> + 'a>>;

/// Where the repairs of one connection to the target stand.
#[derive(Default)]
pub(in crate::pipeline) struct Heal<'a> {
    /// Keys whose commands are passed over.
    pub(in crate::pipeline) held: Names,
    /// Keys whose values are in the unit that is collected.
    pub(in crate::pipeline) placed: Names,
    /// Those of them whose values are being read, or are read.
    batch: Names,
    /// They are being read.
    reading: Option<Reading<'a>>,
    /// They are read; the stream is on its way there.
    copies: Option<Copies>,
    not_before: Option<Instant>,
    last_attempts: u32,
    /// The last trouble with reading that was said.
    said: String,
    /// Why it cannot be done: the link is to stop.
    failed: Option<String>,
    /// Commands of which it was said that they are only counted.
    pub(in crate::pipeline) counted: BTreeSet<String>,
}

/// What is done with a command of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) enum Course {
    Apply,
    /// It touches a key under repair.
    PassOver,
    /// Whether it is to be applied is known when the values are read.
    Wait,
}

impl<'a> Heal<'a> {
    pub(in crate::pipeline) fn new(held: Names) -> Self {
        Self {
            held,
            ..Self::default()
        }
    }

    /// Whether there is anything to do.
    pub(in crate::pipeline) fn is_active(&self) -> bool {
        !self.held.is_empty() || self.failed.is_some()
    }

    /// The link is to stop for this.
    pub(in crate::pipeline) fn fail(&mut self, what: String) {
        self.failed.get_or_insert(what);
    }

    /// Whether a unit may go: not when the link is to stop.
    pub(in crate::pipeline) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The values, when they are read, or the time for another attempt; never, if there is nothing to wait for.
    pub(in crate::pipeline) async fn progress(&mut self) -> Option<Result<Copies, SyncError>> {
        match (&mut self.reading, self.not_before) {
            (Some(reading), _) => {
                let read = reading.await;
                self.reading = None;
                Some(read)
            }
            (None, Some(at)) if !self.held.is_empty() && self.copies.is_none() => {
                tokio::time::sleep_until(at).await;
                self.not_before = None;
                None
            }
            _ => std::future::pending().await,
        }
    }

    /// What was read, or is being read, is of no use.
    pub(in crate::pipeline) fn again(&mut self) {
        self.copies = None;
        self.reading = None;
        self.batch = Names::default();
    }

    /// What was collected is thrown away, with the values in it, and these keys are under repair too.
    pub(in crate::pipeline) fn hold(&mut self, names: &Names) {
        let placed = std::mem::take(&mut self.placed);
        self.held.extend(&placed);
        self.held.extend(names);
        // What was read of others stays right: it belongs to a moment that is still to come. There may be more of them
        // soon.
        self.not_before
            .get_or_insert_with(|| Instant::now() + PAUSE);
    }

    /// These are under repair from here on, beside what was collected. There may be more of them soon.
    pub(in crate::pipeline) fn bring(&mut self, names: &Names) {
        if self.held.extend(names) {
            self.not_before
                .get_or_insert_with(|| Instant::now() + PAUSE);
        }
    }

    /// Begins to read the values of the keys under repair, if it is time. So many bytes of the stream wait to be applied.
    pub(in crate::pipeline) fn begin(&mut self, config: &'a Config, tells_time: bool, behind: u64) {
        if self.held.is_empty()
            || self.has_failed()
            || self.copies.is_some()
            || self.reading.is_some()
            || self.not_before.is_some()
            || behind > BEHIND_BYTES
        {
            return;
        }
        self.batch = self.held.first(KEYS_AT_ONCE);
        let names = self.batch.clone();
        self.reading = Some(Box::pin(async move {
            let read = repair::read(config, names, tells_time);
            match tokio::time::timeout(TIMEOUT, read).await {
                Ok(read) => read,
                Err(_) => Err(SyncError::reconnect(
                    crate::error::Side::Source,
                    &config.source.endpoint.address,
                    "it does not answer DUMP",
                )),
            }
        }));
    }

    /// The values are read, or cannot be. `replid` is the history that is followed; `is_complete`: no more comes of it.
    pub(in crate::pipeline) fn has_read(
        &mut self,
        read: Result<Copies, SyncError>,
        replid: ReplId,
        is_complete: bool,
    ) {
        let mut was_read = read.is_ok();
        match read {
            // Another history answers: the receiver will hear of it.
            Ok(copies) if copies.replid != Some(replid) => {
                was_read = false;
                self.not_before = Some(Instant::now() + PAUSE);
            }
            Ok(copies) => self.copies = Some(copies),
            Err(error) if error.class == Class::Stop => {
                self.failed = Some(format!("it cannot be repaired: {error}"));
            }
            Err(error) => {
                let what = error.to_string();
                if self.said != what {
                    tracing::warn!(%error, "the keys under repair cannot be read yet");
                    self.said = what;
                }
                self.not_before = Some(Instant::now() + PAUSE);
            }
        }
        if is_complete && !was_read {
            self.last_attempts += 1;
        }
    }

    /// Whether a command that touches keys under repair, and ends there, has to wait: it may be behind the moment of the values
    /// that are on their way.
    pub(in crate::pipeline) fn waits(&mut self, touched: &Touched, end: u64) -> bool {
        match &self.copies {
            _ if !touched.hits(&self.batch) => {}
            Some(copies) if end <= copies.offset => {}
            // The moment they were read lies within a transaction: there is no place for them.
            Some(_) => self.again(),
            None if self.reading.is_some() => return true,
            None => {}
        }
        false
    }

    /// The values, if the stream has come to the moment at which they were read; they are the unit's then.
    pub(in crate::pipeline) fn arrived(&mut self, position: u64, replid: ReplId) -> Option<Copies> {
        let copies = self
            .copies
            .take_if(|copies| position >= copies.offset)
            .filter(|copies| copies.replid == Some(replid))?;
        Some(copies)
    }

    /// These values are in the unit.
    pub(in crate::pipeline) fn has_placed(&mut self, names: &Names) {
        // Those of the batch that did not fit are read next.
        self.batch = Names::default();
        self.held.remove(names);
        self.placed.extend(names);
    }

    /// Whether, at the end of the stream, it is worth waiting for repairs.
    pub(in crate::pipeline) fn is_worth_waiting(&self) -> bool {
        if self.held.is_empty() || self.has_failed() {
            return false;
        }
        let waits = self.copies.is_none() && self.last_attempts < LAST_ATTEMPTS;
        if !waits {
            tracing::warn!(
                keys = self.held.len(),
                "stopping with keys that differ from the source: the next run repairs them"
            );
        }
        waits
    }

    /// Why the link is to stop, if it is.
    pub(in crate::pipeline) fn take_failure(&mut self) -> Option<String> {
        self.failed.take()
    }
}

impl<'a> StreamApplier<'a> {
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
        let heal = &mut self.heal;
        if !touched.hits(&heal.held) {
            return Course::Apply;
        }
        if heal.waits(&touched, self.input.frame_end(len)) {
            return Course::Wait;
        }
        let is_whole = touched.whole != Whole::Nothing;
        let mut more = Names::default();
        for (db, key) in touched.spread(&heal.held).iter() {
            if repair::is_copied(self.config, db, key) {
                more.insert(db, key.clone());
            }
        }
        if heal.held.extend(&more) {
            heal.again();
            if !self.hold(&more) {
                self.heal.fail(TOO_MANY.to_owned());
            }
            self.show_repairs();
        }
        if is_whole {
            Course::Apply
        } else {
            Course::PassOver
        }
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
        self.show_repairs();
    }

    /// These are under repair as well; false if they are too many.
    fn hold(&mut self, more: &Names) -> bool {
        if self.recalled_from.is_none() {
            return self.repairs.add(more);
        }
        // Whoever begins again at the unseen part comes upon those that are made from what is found there; not upon those
        // that are made from others.
        self.unlisted.extend(more);
        self.unlisted.bytes() <= NAMES_BYTES_MAX && self.repairs.add_doubtful(more)
    }

    /// These keys are no concern of this link any more.
    pub(super) fn let_go(&mut self, names: &Names) {
        if names.is_empty() {
            return;
        }
        self.heal.again();
        self.heal.held.remove(names);
        self.repairs.remove(names);
        self.unlisted.remove(names);
        self.show_repairs();
    }

    /// The next command is not for the target: what it does is in a value that is read at the source.
    pub(super) fn pass_over(&mut self, len: usize) {
        self.status.dropped.add("under_repair", 1);
        self.input.advance(len);
        self.next
            .set_end(self.input.frame_pos, self.rewriter.db(), self.input.at_ms);
    }

    /// Puts the values into the unit, if the stream has come to the moment at which they were read.
    pub(super) fn place(&mut self) -> Result<(), SyncError> {
        if self.rewriter.in_transaction() {
            return Ok(());
        }
        let replid = self.feed.with_log(|log| log.replid());
        let Some(copies) = self.heal.arrived(self.input.frame_pos, replid) else {
            return Ok(());
        };
        let stream_db = self.rewriter.db();
        for copied in &copies.keys {
            self.say(&[b"SELECT", copied.db.to_string().as_bytes()])?;
            self.say(&[b"DEL", &copied.key])?;
            if let Some(value) = &copied.value {
                let at_ms = copied.at_ms.to_string();
                let (key, at_ms) = (&copied.key, at_ms.as_bytes());
                self.say(&[b"RESTORE", key, at_ms, value, b"REPLACE", b"ABSTTL"])?;
            }
        }
        self.say(&[b"SELECT", stream_db.0.to_string().as_bytes()])?;
        self.next
            .set_end(self.input.frame_pos, stream_db, unix_ms());
        let mut copied_keys = Names::default();
        for copied in copies.keys {
            self.late.is_copied(copied.db, &copied.key);
            copied_keys.insert(copied.db, copied.key);
        }
        self.heal.has_placed(&copied_keys);
        Ok(())
    }

    /// Puts a command of our own into the unit, as if it had come in the stream.
    pub(super) fn say(&mut self, argv: &[&[u8]]) -> Result<(), SyncError> {
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, argv);
        let mut decoder = resp::CommandDecoder::new(super::stream_limits());
        let fail = |applier: &Self, why: &dyn std::fmt::Display| {
            let name = argv.first().copied().unwrap_or_default();
            let what = format!("a key cannot be repaired by {}: {why}", show(name));
            applier.refused(what)
        };
        decoder.poll(&frame).map_err(|error| fail(self, &error))?;
        let db = self.rewriter.db();
        self.scratch.clear();
        let args = decoder.args();
        let now_ms = unix_ms();
        let outcome = self
            .rewriter
            .command(&frame, args, now_ms, &mut self.scratch);
        // The unit may end where the one before has ended: only what comes behind it shows that it is applied.
        let from = self.input.frame_pos + 1;
        for granted in self.rewriter.granted() {
            super::note_lease(self.config, self.leases, granted, from);
        }
        if let Some(mapper) = &mut self.mapper {
            let table = self.rewriter.table();
            let put = match &outcome {
                Ok(Outcome::Forward { .. }) => {
                    Some(mapper.put(&mut self.next, table, db, &frame, &[]))
                }
                Ok(Outcome::Rewritten { .. }) => {
                    Some(mapper.put(&mut self.next, table, db, &self.scratch, &[]))
                }
                _ => None,
            };
            if let Some(put) = put {
                self.is_put(put);
                return Ok(());
            }
        }
        match outcome {
            Ok(Outcome::Forward { .. }) => self.next.forward(db, &frame),
            Ok(Outcome::Rewritten { commands, .. }) => {
                self.next.body(db).extend_from_slice(&self.scratch);
                self.next.added(commands, db);
            }
            Ok(Outcome::Dropped(reason)) => {
                self.heal.failed = Some(format!(
                    "it cannot be repaired: {} is left out ({})",
                    show(argv.first().copied().unwrap_or_default()),
                    reason.label()
                ));
            }
            Ok(_) => {}
            Err(error) => self.heal.failed = Some(format!("it cannot be repaired: {error}")),
        }
        Ok(())
    }

    /// Commands failed inside an EXEC that is committed: from here on their keys are under repair, or the link stops.
    pub(super) async fn differs(&mut self, inflight: Inflight) -> Result<(), SyncError> {
        let errors = match &inflight.exec {
            Some(exec) => exec.errors.clone(),
            None => Vec::new(),
        };
        for (_, error) in &errors {
            self.status.target_errors.add(error.code.word(), 1);
            self.status.divergences.add(error.code.word(), 1);
        }
        let what = match errors.first() {
            Some((first, error)) => describe(&inflight.sealed, Some(*first), error),
            None => "the target has ended a key that the source has saved".to_owned(),
        };
        if !self.config.repair {
            self.target.checkpoint = self.checkpoint_at(inflight.end, Phase::Stream);
            return Err(self.diverged(inflight.is_ours, &what).await);
        }
        let failed: Vec<usize> = errors.iter().map(|(at, _)| *at).collect();
        let damaged = repair::damaged(self.rewriter.table(), &inflight.sealed, &failed);
        let damaged = damaged.and_then(|names| repair::at_source(self.config, &names));
        let names = self.copied(damaged.as_ref());
        // What the target has ended is in doubt, and no more.
        let ended = repair::damaged(self.rewriter.table(), &inflight.sealed, &inflight.ended);
        let ended = ended.and_then(|names| repair::at_source(self.config, &names));
        let mut doubts = self.copied(ended.as_ref());
        let has_doubts = self.is_in_doubt(&mut doubts).await;
        if errors.is_empty() && !has_doubts {
            return self.confirmed(inflight);
        }
        if !errors.is_empty() {
            self.tell(&inflight, &errors);
        }
        let is_placed = |names: &Names| {
            let mut placed = inflight.placed.iter();
            placed.any(|(db, key)| names.contains(db, key))
        };
        let is_again = is_placed(&names);
        let is_put_back = has_doubts && is_placed(&doubts);
        let fits = errors.is_empty() || self.repairs.add(&names);
        // Before the position is shown: whoever sees it there must not take the target for a copy.
        self.show_repairs();
        if !inflight.is_ours {
            return Err(self.lost(super::NOT_OURS));
        }
        let end = inflight.end;
        self.confirmed(Inflight {
            placed: match is_again || is_put_back {
                true => Names::default(),
                false => inflight.placed,
            },
            ..inflight
        })?;
        if !errors.is_empty() {
            self.repairs.add(&names);
        }
        let why = match (damaged.is_some(), is_again, fits) {
            (false, ..) => {
                "a command without keys, or in a database that is several of the source's, cannot be repaired"
            }
            (_, true, _) => "the value from the source was refused",
            (.., false) => "too many keys hang on it",
            _ => "",
        };
        // What was collected meanwhile was meant for a target without a flaw.
        self.collect_again(end);
        if errors.is_empty() {
            // What is being read of others goes on.
            self.heal.hold(&doubts);
        } else {
            self.heal = Heal::new(self.repairs.names());
            self.heal.held.extend(&self.unlisted);
        }
        if !why.is_empty() {
            self.heal.failed = Some(format!("{what}; {why}"));
        }
        self.show_repairs();
        Ok(())
    }

    /// Those of these keys that are copied at all.
    fn copied(&self, names: Option<&Names>) -> Names {
        let mut copied = Names::default();
        for (db, key) in names.into_iter().flat_map(Names::iter) {
            if repair::is_copied(self.config, db, key) {
                copied.insert(db, key.clone());
            }
        }
        copied
    }

    /// A line for every key whose command failed.
    fn tell(&self, inflight: &Inflight, errors: &[(usize, resp::ErrorReply)]) {
        let mut told = Names::default();
        let mut db = 0;
        inflight.sealed.each(|at, frame, args| {
            let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
            if word(0).eq_ignore_ascii_case(b"select") {
                let text = std::str::from_utf8(word(1)).unwrap_or_default();
                db = text.parse().unwrap_or(db);
            }
            let Some((_, error)) = errors.iter().find(|(of, _)| *of == at) else {
                return;
            };
            let touched = Touched::by(self.rewriter.table(), db, frame, args);
            for (db, key) in touched.names.iter() {
                if told.insert(db, key.clone()) {
                    tracing::warn!(
                        db,
                        key = show(key),
                        command = show(word(0)),
                        error = show(&error.text),
                        "a command failed at the target, which differs from the source in this key: it is copied again"
                    );
                }
            }
        });
    }

    /// A unit that held values is confirmed.
    pub(super) fn placed(&mut self, names: &Names, offset: u64) {
        if names.is_empty() {
            return;
        }
        self.repairs.set_mended(offset);
        // What was put in place may have come to differ again since.
        let mut done = names.clone();
        done.remove(&self.heal.held);
        self.repairs.remove(&done);
        self.unlisted.remove(&done);
        if self.unlisted.is_empty() {
            self.recalled_from = None;
        }
        if self.next.end().is_none() {
            // The checkpoint still names them.
            let (offset, db) = self.seen;
            self.next.set_end(offset, db, unix_ms());
        }
        self.status.repairs.add(names.len() as u64);
        tracing::info!(keys = names.len(), "repaired: as at the source again");
        self.show_repairs();
    }

    pub(super) fn show_repairs(&self) {
        let open = match self.unlisted.is_empty() {
            true => self.repairs.len(),
            false => {
                let mut open = self.repairs.names();
                open.extend(&self.unlisted);
                open.len()
            }
        };
        self.status.repairs_open.set(open as u64);
    }

    /// The link cannot go on: says so in the checkpoint, and in the error.
    pub(super) async fn give_up(&mut self) -> Option<SyncError> {
        let what = self.heal.take_failure()?;
        Some(self.diverged(true, &what).await)
    }

    /// Writes to the checkpoint that only a new snapshot mends the target.
    async fn diverged(&mut self, is_ours: bool, what: &str) -> SyncError {
        let mut checkpoint = self.target.checkpoint.clone();
        if let Phase::Stream(position) = checkpoint.phase {
            checkpoint.phase = Phase::Diverged(position);
        }
        checkpoint.repairs = Names::default();
        checkpoint.unseen = None;
        let checkpoint = checkpoint.to_string();
        // The connection is in MULTI, as for the next unit.
        let mut out = Vec::new();
        resp::encode::command(
            &mut out,
            &[b"SET", self.key.as_bytes(), checkpoint.as_bytes()],
        );
        resp::encode::command(&mut out, &[b"EXEC"]);
        let done = b"+QUEUED\r\n*1\r\n+OK\r\n";
        let noted = match net::send(&mut self.target.pipe.stream, &out).await {
            Ok(()) if is_ours => {
                let mut reply = [0_u8; 18];
                let read = self.target.pipe.stream.read_exact(&mut reply).await;
                read.is_ok() && &reply == done
            }
            _ => false,
        };
        let then = if self.config.reader.is_of_files() {
            "a file cannot be asked for the key: empty the target, delete its checkpoint and start again"
        } else if self.config.function.is_some() {
            "what filter.function makes cannot be mended one key at a time: empty the target, its checkpoint too, and start again"
        } else if noted {
            "start again: a new snapshot mends the target"
        } else {
            "this could not be noted at the target: delete its checkpoint and start again"
        };
        self.refused(format!(
            "{what}; the target differs from the source from here on; {then}"
        ))
    }
}
