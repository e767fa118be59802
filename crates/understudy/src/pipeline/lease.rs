//! Leases: a longer life for keys that would expire before their time.
//!
//! A replica never expires keys by itself: the source's DEL does. Our target is a master and expires on its
//! own, so a command that the source ran in the last moments of a key's life (PERSIST, a later EXPIRE, INCR,
//! LSET) could find it gone here: by any lag, by an outage of ours, by a snapshot that takes its time. So an
//! expiry that is near is written with [`LEASE_MS`] added, and the key lives here until
//!
//! - the source's own DEL comes (nearly always),
//! - or the stream has passed the expiry and nothing in it saved the key: then it gets it, and is gone,
//! - or the stream has set another expiry: then the lease is void,
//! - or it turns out to be far from its end, when we have caught up: then it gets its own expiry back.
//!
//! While nothing goes on at the source, keys with some seconds left have their exact expiry too; they get a
//! new lease when it comes near. "Passed" is told by the source's own clock and offset, not by ours. The
//! checkpoint's flag `l` says that leases may be open: a run that finds it looks for them by SCAN.

pub(super) mod fields;
mod found;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use bytes::Bytes;
use resp::Value;
use rewrite::LeaseRule;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::sweep::{is_own, may_hold, scan};
use super::tide::Tide;
use crate::checkpoint::{self, Checkpoint};
use crate::client::{Client, Info};
use crate::clock::{now_ms, time_ms};
use crate::config::Config;
use crate::error::{Class, Side, SyncError};
use crate::spool::Feed;
use crate::status::Status;
use crate::target::cluster::Reach;

/// Added to an expiry: some 246 years, and not a round number, so that with what is near now added to it no
/// expiry that anybody means comes out.
pub(crate) const LEASE_MS: i64 = 7_777_777_777_777;
/// Keys of a snapshot, and of the stream while we are behind, that expire within this time get a lease.
pub(super) const WINDOW_MS: i64 = 10 * 60 * 1000;
/// Keys of a recording that expire within this time get one: it may take so long to play it.
const RECORDING_WINDOW_MS: i64 = 30 * 24 * 3600 * 1000;
/// No recording is older than this.
const RECORDING_OLDEST_MS: i64 = 10 * 365 * 24 * 3600 * 1000;
/// Otherwise, keys that expire within this time.
const NEAR_MS: i64 = 15_000;
/// While nothing goes on, keys with more than this left have their exact expiry.
const AHEAD_MS: i64 = 3_000;
/// Nothing goes on when the source's offset has stood still for this long.
const IDLE: Duration = Duration::from_millis(250);
/// A source that is a replica itself may be this far behind its master.
const SKEW_MS: i64 = 500;
/// How old the stream is taken to be where the source's own clock and offset cannot be asked.
const GUESS_MS: i64 = 30_000;
/// A mark older than this says nothing of what lies ahead.
const FRESH: Duration = Duration::from_millis(1_000);
/// More open leases than this are not remembered but looked for.
const REMEMBERED_MAX: usize = 500_000;
/// An expiry that had passed longer ago than this when its key was written is not looked for.
const OLDEST_MS: i64 = 30 * 24 * 3600 * 1000;
/// How exactly an expiry is known from what is left of it and the target's own time (targets before 7.0). Less than
/// [`SKEW_MS`]: an expiry taken for one that ended has then ended too.
const SLACK_MS: u64 = 50;
/// Keys changed in one transaction.
const BATCH_KEYS: usize = 200;
const ROUND: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(500);
/// Between two rounds while the stream is held, and writers wait.
const HELD_ROUND: Duration = Duration::from_millis(10);

/// A key whose expiry was moved, or will have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    db: u32,
    key: Bytes,
    /// Its own expiry.
    at_ms: i64,
    form: Form,
    /// Where the stream has to be applied to before the target can be asked about it.
    from: u64,
}

/// What is written at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Leased,
    Exact,
}

impl Lease {
    fn leased(db: u32, key: Bytes, at_ms: i64, from: u64) -> Self {
        Self {
            db,
            key,
            at_ms,
            form: Form::Leased,
            from,
        }
    }

    /// The expiry at the target in a form.
    fn written_as(&self, form: Form) -> i64 {
        match form {
            Form::Leased => self.at_ms.saturating_add(LEASE_MS),
            Form::Exact => self.at_ms,
        }
    }
}

/// Whether a lease can have been granted for this expiry: not a far one that somebody means.
fn is_grantable(at_ms: i64, is_recording: bool) -> bool {
    let now_ms = now_ms();
    match is_recording {
        false => (now_ms - OLDEST_MS..now_ms + WINDOW_MS + GUESS_MS).contains(&at_ms),
        true => is_grantable_before(at_ms, now_ms + RECORDING_WINDOW_MS + GUESS_MS),
    }
}

/// The same for what a recording holds, where leases are for expiries before this time.
fn is_grantable_before(at_ms: i64, before_ms: i64) -> bool {
    (now_ms() - RECORDING_OLDEST_MS..before_ms).contains(&at_ms)
}

/// The open leases of a link: granted by the appliers, ended by [`settle_forever`], on one thread.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    open: RefCell<Vec<Lease>>,
    /// Some are not in the list: to be looked for at the target, when the stream is applied up to there, and once more when
    /// it is applied up to where others came.
    unknown: Cell<Option<(u64, u64)>>,
    /// Some are out of the list because they are being worked on.
    in_work: Cell<bool>,
    /// Fields of hashes may have some: [`fields`].
    fields: Cell<bool>,
    granted: Notify,
    /// The stream is no live source's: whatever expires may have been saved behind.
    is_recording: bool,
}

impl Leases {
    /// Of a stream that is no live source's.
    pub(crate) fn of_a_recording() -> Self {
        Self {
            is_recording: true,
            ..Self::default()
        }
    }

    /// The expiry to write for a key of a snapshot that expires `at_ms`.
    pub(crate) fn grant(&self, db: u32, key: &[u8], at_ms: i64) -> i64 {
        let window_ms = match self.is_recording {
            false => WINDOW_MS,
            true => RECORDING_WINDOW_MS,
        };
        if at_ms >= now_ms().saturating_add(window_ms) {
            return at_ms;
        }
        self.note(db, Bytes::copy_from_slice(key), at_ms, 0);
        at_ms.saturating_add(LEASE_MS)
    }

    /// A lease that was granted by the rule, and is at the target when the stream is applied up to `from`.
    pub(crate) fn note(&self, db: u32, key: Bytes, at_ms: i64, from: u64) {
        let mut open = self.open.borrow_mut();
        if open.len() < REMEMBERED_MAX {
            open.push(Lease::leased(db, key, at_ms, from));
        } else {
            self.suspect(from);
        }
        self.granted.notify_one();
    }

    /// Leases may be where nobody noted them, when the stream is applied up to `from`: under another name, or left by an
    /// earlier run.
    pub(crate) fn suspect(&self, from: u64) {
        let (first, last) = self.unknown.get().unwrap_or((from, from));
        self.unknown.set(Some((first.min(from), last.max(from))));
        self.granted.notify_one();
    }

    /// Forgets all: a new snapshot begins.
    pub(crate) fn clear(&self) {
        self.open.borrow_mut().clear();
        self.unknown.set(None);
        self.in_work.set(false);
        self.fields.set(false);
    }

    /// Whether any are open.
    pub(crate) fn any(&self) -> bool {
        self.fields.get() || self.any_key()
    }

    /// Whether any key has one.
    pub(crate) fn any_key(&self) -> bool {
        self.unknown.get().is_some() || self.in_work.get() || !self.open.borrow().is_empty()
    }

    /// Whether every key has its own expiry.
    pub(crate) fn are_ended(&self) -> bool {
        let is_leased = |lease: &Lease| lease.form == Form::Leased;
        self.unknown.get().is_none()
            && !self.in_work.get()
            && !self.fields.get()
            && !self.open.borrow().iter().any(is_leased)
    }

    /// The rule for a snapshot's commands.
    pub(super) fn snapshot_rule() -> LeaseRule {
        LeaseRule {
            before_ms: now_ms().saturating_add(WINDOW_MS),
            add_ms: LEASE_MS,
        }
    }

    /// The rule for commands of the stream.
    pub(crate) fn rule(is_behind: bool, tide: &Tide) -> LeaseRule {
        let near_ms = NEAR_MS.saturating_add(tide.ahead_ms());
        let window_ms = if tide.is_recording() {
            RECORDING_WINDOW_MS
        } else if is_behind {
            WINDOW_MS.max(near_ms)
        } else {
            near_ms
        };
        LeaseRule {
            before_ms: now_ms().saturating_add(window_ms),
            add_ms: LEASE_MS,
        }
    }

    /// Shows how many keys do not have their own expiry: all, those that could when nothing goes on, and
    /// those that could in any case.
    fn show(&self, status: &Status, source_ms: i64) {
        let unknown = u64::from(self.unknown.get().is_some());
        // What the stream has taken to another name is looked for in the next round, and with some streams in every round.
        let left_behind = u64::from(matches!(self.unknown.get(), Some((0, _))));
        let (mut open, mut waiting, mut far) = (unknown, unknown, left_behind);
        for lease in self
            .open
            .borrow()
            .iter()
            .filter(|lease| lease.form == Form::Leased)
        {
            open += 1;
            waiting += u64::from(lease.at_ms > source_ms + AHEAD_MS);
            far += u64::from(lease.at_ms > source_ms + NEAR_MS);
        }
        status.leases_open.set(open);
        status.leases_waiting.set(waiting);
        status.leases_far.set(far);
    }
}

/// Ends leases as the stream in `feed` passes them, as long as the link runs. Gives the error for which no expiry can
/// ever be set: keys would stay that are gone at the source.
pub(crate) async fn settle_forever(
    config: &Config,
    status: &Status,
    feed: &Feed,
    leases: &Leases,
    tide: &Tide,
    owner: u64,
) -> SyncError {
    leases.show(status, now_ms());
    loop {
        match settle(config, status, feed, leases, tide, owner).await {
            Err(error) if error.class == Class::Stop => return error,
            Err(error) => {
                tracing::debug!(%error, "expiries are set later");
                tokio::time::sleep(RETRY).await;
            }
            Ok(()) => leases.granted.notified().await,
        }
    }
}

/// Gives every key its own expiry: the link is asked to stop, and the target has to end its keys by itself.
///
/// # Errors
/// As the target's client.
pub(crate) async fn end_all(config: &Config, leases: &Leases, owner: u64) -> Result<(), SyncError> {
    if !leases.any() {
        return Ok(());
    }
    let mut target = Target::connect(config, owner).await?;
    if !target.is_owner(owner).await? {
        // Whoever has taken the link over needs them.
        return Ok(());
    }
    if leases.in_work.replace(false) || leases.unknown.get().is_some() {
        leases.unknown.set(None);
        let found = target.find(config).await?;
        leases.open.borrow_mut().extend(found);
    }
    while leases.any() {
        let ended = match leases.any_key() {
            true => {
                let step = |lease: &Lease| match is_ours(config, lease) {
                    true => Step::End,
                    false => Step::Forget,
                };
                target.round(leases, owner, step).await
            }
            false => {
                let ended = target.end_fields(config, owner).await;
                leases.fields.set(ended.is_err());
                ended
            }
        };
        if ended.is_err() && !target.is_owner(owner).await? {
            return Ok(());
        }
        ended?;
    }
    Ok(())
}

/// Whether the lease's key is this link's: its slot, where the source is a shard, may have gone to another one.
fn is_ours(config: &Config, lease: &Lease) -> bool {
    let slot = rewrite::slot_of(&lease.key);
    config.shard.as_ref().is_none_or(|shard| shard.holds(slot))
}

/// Works until no lease is open.
async fn settle(
    config: &Config,
    status: &Status,
    feed: &Feed,
    leases: &Leases,
    tide: &Tide,
    owner: u64,
) -> Result<(), SyncError> {
    if !leases.any() {
        return Ok(());
    }
    let mut target = Target::connect(config, owner).await?;
    let mut source = None;
    let (mut stood_at, mut since) = (0, Instant::now());
    // Whoever was interrupted in the midst of work has lost what it held.
    if leases.in_work.replace(false) {
        leases.suspect(0);
    }
    while leases.any() {
        if feed.is_held() {
            hold(config, &mut target, feed, leases, owner).await?;
            leases.show(status, now_ms());
            tokio::time::sleep(HELD_ROUND).await;
            continue;
        }
        let mark = tokio::select! {
            mark = read_mark(config, &mut source, feed) => mark?,
            // A source that is paused does not answer.
            () = until_held(feed) => {
                source = None;
                continue;
            }
        };
        if mark.offset != stood_at {
            (stood_at, since) = (mark.offset, Instant::now());
        }
        while feed.applied() < mark.offset && !feed.is_held() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // From here on keys get their own expiries, behind a snapshot too.
        tide.end_grace();
        let applied = feed.applied();
        if let Some((first, last)) = leases.unknown.get()
            && first <= applied
        {
            // What comes to be unknown meanwhile is looked for in the next round.
            leases.in_work.set(true);
            leases.unknown.set((last > applied).then_some((last, last)));
            let found = target.find(config).await?;
            leases.open.borrow_mut().extend(found);
            leases.in_work.set(false);
        }
        let is_idle = since.elapsed() >= IDLE && target.tells_time;
        let applied = feed.applied();
        target
            .round(leases, owner, |lease| match lease.from <= applied {
                // Its slot is another link's now, which may have given it a lease of its own.
                _ if !is_ours(config, lease) => Step::Forget,
                true => mark.step(lease, is_idle, tide.ahead_ms()),
                // The target does not have it yet.
                false => Step::Keep,
            })
            .await?;
        leases.show(status, mark.source_ms);
        if leases.any() {
            tokio::time::sleep(ROUND).await;
        }
    }
    Ok(())
}

async fn read_mark(
    config: &Config,
    source: &mut Option<Client>,
    feed: &Feed,
) -> Result<Mark, SyncError> {
    let source = match source {
        Some(source) => source,
        none => none.insert(Client::connect(&config.source.endpoint, Side::Source).await?),
    };
    Mark::read(source, feed).await
}

async fn until_held(feed: &Feed) {
    while !feed.is_held() {
        tokio::time::sleep(ROUND).await;
    }
}

/// The stream stands still at a place, and the target may become the application's: what is applied gets its own expiry,
/// and a lease again if it goes on. (The source's offset goes on, by its pings: it is not waited for.)
async fn hold(
    config: &Config,
    target: &mut Target,
    feed: &Feed,
    leases: &Leases,
    owner: u64,
) -> Result<(), SyncError> {
    if !feed.is_at_hold() {
        return Ok(());
    }
    if leases.unknown.take().is_some() {
        leases.in_work.set(true);
        let found = target.find(config).await;
        leases.in_work.set(false);
        match found {
            Ok(found) => leases.open.borrow_mut().extend(found),
            Err(error) => {
                leases.suspect(0);
                return Err(error);
            }
        }
    }
    let step = |lease: &Lease| match lease.form {
        Form::Leased => Step::Write(Form::Exact),
        Form::Exact => Step::Keep,
    };
    target.round(leases, owner, step).await
}

/// A moment of the source: everything done there before it lies before `offset` in the stream.
#[derive(Debug, Clone, Copy)]
struct Mark {
    source_ms: i64,
    offset: u64,
    read: Instant,
}

/// What is to be done about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing now.
    Keep,
    /// Write it in this form, and keep it.
    Write(Form),
    /// Write the key's own expiry and forget the lease.
    End,
    /// Forget it.
    Forget,
}

impl Mark {
    async fn read(source: &mut Client, feed: &Feed) -> Result<Self, SyncError> {
        // The clock first: what is done between the two answers only makes the offset larger.
        let answers = source
            .ask_all(&[vec![b"TIME"], vec![b"INFO", b"replication"]])
            .await?;
        let read = Instant::now();
        let [time, info] = answers.as_slice() else {
            return Ok(Self::guess(feed));
        };
        let offset = info
            .as_bytes()
            .and_then(|text| Info::of(text).get("master_repl_offset")?.parse().ok());
        match (time_ms(time), offset) {
            (Some(source_ms), Some(offset)) => Ok(Self {
                source_ms,
                offset,
                read,
            }),
            _ => Ok(Self::guess(feed)),
        }
    }

    /// For a source that does not let us ask: what has come, and a clock well behind ours.
    fn guess(feed: &Feed) -> Self {
        Self {
            source_ms: now_ms() - GUESS_MS,
            offset: feed.end(),
            read: Instant::now(),
        }
    }

    /// What to do about a lease now that the stream has been applied up to this mark. The target's clock is so far ahead.
    fn step(self, lease: &Lease, is_idle: bool, ahead_ms: i64) -> Step {
        let (near_ms, soon_ms) = (
            NEAR_MS.saturating_add(ahead_ms),
            AHEAD_MS.saturating_add(ahead_ms),
        );
        let left_ms = lease.at_ms.saturating_sub(self.source_ms);
        let is_fresh = self.read.elapsed() < FRESH;
        match lease.form {
            // The source has passed it, and nothing that was done before saved the key.
            _ if left_ms <= -SKEW_MS => Step::End,
            Form::Leased if is_fresh && left_ms > near_ms => Step::End,
            Form::Leased if is_fresh && is_idle && left_ms > soon_ms => Step::Write(Form::Exact),
            Form::Exact if left_ms > near_ms => Step::Forget,
            Form::Exact if left_ms <= soon_ms => Step::Write(Form::Leased),
            Form::Leased | Form::Exact => Step::Keep,
        }
    }
}

/// The connection over which leases are ended.
struct Target {
    server: Server,
    address: String,
    /// The checkpoint's.
    key: String,
    db: u32,
    /// It has PEXPIRETIME.
    tells_time: bool,
}

/// One server, or all primaries of a cluster.
enum Server {
    One(Box<Client>),
    Many(Box<Reach>),
}

impl Target {
    async fn connect(config: &Config, owner: u64) -> Result<Self, SyncError> {
        let server = match &config.target.cluster {
            None => {
                let client = Client::connect(&config.target.endpoint, Side::Target).await?;
                Server::One(Box::new(client))
            }
            Some(_) => Server::Many(Box::new(Reach::connect(config, owner).await?)),
        };
        Ok(Self {
            server,
            address: config.target.endpoint.address.clone(),
            key: checkpoint::key(&config.link_name),
            db: 0,
            tells_time: true,
        })
    }

    fn client(&mut self) -> Result<&mut Client, SyncError> {
        match &mut self.server {
            Server::One(client) => Ok(client),
            Server::Many(reach) => reach.client(),
        }
    }

    /// What a batch has in common: its database, and in a cluster its slot.
    fn share(&self, lease: &Lease) -> (u32, u16) {
        match self.server {
            Server::One(_) => (lease.db, 0),
            Server::Many(_) => (lease.db, rewrite::slot_of(&lease.key).0),
        }
    }

    /// Does for every lease what is due. Only who has the link, its `owner`, may: whoever has taken it over does not know
    /// of new ones, and may have begun again before the place at which one could end.
    async fn round(
        &mut self,
        leases: &Leases,
        owner: u64,
        step: impl Fn(&Lease) -> Step,
    ) -> Result<(), SyncError> {
        leases.in_work.set(true);
        let open = std::mem::take(&mut *leases.open.borrow_mut());
        let mut due: Vec<(Lease, Step)> = Vec::new();
        for lease in open {
            match step(&lease) {
                Step::Keep => leases.open.borrow_mut().push(lease),
                Step::Forget => {}
                step => due.push((lease, step)),
            }
        }
        due.sort_by_key(|(lease, _)| self.share(lease));
        let mut rest = due.as_slice();
        while let Some((first, _)) = rest.first() {
            let same_db = rest
                .iter()
                .take_while(|(lease, _)| self.share(lease) == self.share(first))
                .count();
            let (batch, after) = rest.split_at(same_db.min(BATCH_KEYS));
            match self.write(batch, owner).await {
                Ok(kept) => leases.open.borrow_mut().extend(kept),
                Err(error) => {
                    leases
                        .open
                        .borrow_mut()
                        .extend(rest.iter().map(|(lease, _)| lease.clone()));
                    return Err(error);
                }
            }
            rest = after;
        }
        leases.in_work.set(false);
        Ok(())
    }

    /// Changes the expiries of a batch of one database, each only if nobody has changed it. Gives the leases
    /// that go on. WATCH makes the look and the change one; a batch that was disturbed is taken key by key.
    async fn write(
        &mut self,
        batch: &[(Lease, Step)],
        owner: u64,
    ) -> Result<Vec<Lease>, SyncError> {
        let db = batch.first().map_or(0, |(lease, _)| lease.db);
        self.select(db).await?;
        if let Some(kept) = self.write_once(batch, owner).await? {
            return Ok(kept);
        }
        let mut kept = Vec::new();
        for one in batch.chunks(1) {
            match self.write_once(one, owner).await? {
                Some(written) => kept.extend(written),
                // A key that changes under our eyes: the next round looks again.
                None => kept.extend(one.iter().map(|(lease, _)| lease.clone())),
            }
        }
        Ok(kept)
    }

    /// `None` when one of the keys was changed meanwhile.
    async fn write_once(
        &mut self,
        batch: &[(Lease, Step)],
        owner: u64,
    ) -> Result<Option<Vec<Lease>>, SyncError> {
        let keys: Vec<&[u8]> = batch.iter().map(|(lease, _)| lease.key.as_ref()).collect();
        self.watch(&keys, owner).await?;
        let expiries = self.expiries_ms(&keys).await?;
        let mut kept = Vec::new();
        let mut texts = Vec::new();
        for ((lease, step), at_ms) in batch.iter().zip(expiries) {
            // A slot that moves takes along what is left of an expiry, which is a moment less exact.
            let is_exact = self.tells_time && matches!(self.server, Server::One(_));
            let slack = if is_exact { 0 } else { SLACK_MS };
            let is_nearer = |(other, _): &(Lease, Step)| other.is_nearer(lease, at_ms);
            if slack > 0 && batch.iter().any(is_nearer) {
                continue;
            }
            let Some(found) = lease.found_as(at_ms, slack) else {
                continue;
            };
            let form = match step {
                Step::Write(form) => *form,
                Step::End | Step::Keep | Step::Forget => Form::Exact,
            };
            if form != found {
                texts.push((
                    lease.key.as_ref(),
                    lease.written_as(form).max(1).to_string(),
                ));
            }
            if let Step::Write(form) = step {
                kept.push(Lease {
                    form: *form,
                    ..lease.clone()
                });
            }
        }
        if texts.is_empty() {
            self.client()?.call(&[b"UNWATCH"]).await?;
            return Ok(Some(kept));
        }
        // Alone: a busy server may refuse it and take what follows, which then would not be guarded.
        self.client()?.call(&[b"MULTI"]).await?;
        let guarded = match &self.server {
            Server::Many(reach) => reach.guarded(self.db, &texts),
            Server::One(_) => None,
        };
        let mut commands: Vec<Vec<&[u8]>> = match &guarded {
            Some(words) => vec![words.iter().map(Vec::as_slice).collect()],
            None => {
                let plain = texts.iter();
                plain
                    .map(|(key, at)| vec![&b"PEXPIREAT"[..], key, at.as_bytes()])
                    .collect()
            }
        };
        commands.push(vec![b"EXEC"]);
        let replies = self.client()?.ask_all(&commands).await?;
        // The first error is the cause; EXEC only says that there was one.
        let within = match replies.last() {
            Some(Value::Array(within)) => within.as_slice(),
            _ => &[],
        };
        let mut all = replies.iter().chain(within);
        match (all.find_map(Value::as_error), replies.last()) {
            (Some(error), _) => Err(self.client()?.refused(&[b"PEXPIREAT"], error)),
            (None, Some(Value::Array(_))) => Ok(Some(kept)),
            (None, _) => Ok(None),
        }
    }

    /// Whether the link is still this process's.
    async fn is_owner(&mut self, owner: u64) -> Result<bool, SyncError> {
        let key = self.key.clone();
        if let Server::Many(reach) = &mut self.server {
            reach.go(key.as_bytes())?;
        }
        self.select_there(0).await?;
        let value = self.client()?.call(&[b"GET", key.as_bytes()]).await?;
        Ok(is_owners(&value, owner))
    }

    /// Selects a database at the node that is asked next.
    async fn select_there(&mut self, db: u32) -> Result<(), SyncError> {
        match &mut self.server {
            Server::One(_) => self.select(db).await,
            Server::Many(reach) => reach.select(db).await,
        }
    }

    /// Watches keys of the database in force, and who has the link, which is ours still: an EXEC that follows changes
    /// nothing once another daemon has taken it, or leases have been looked for, however late it arrives.
    async fn watch(&mut self, keys: &[&[u8]], owner: u64) -> Result<(), SyncError> {
        if let (Server::Many(reach), Some(first)) = (&mut self.server, keys.first()) {
            reach.look_at_slot(first).await?;
            reach.select(self.db).await?;
            let mut watch: Vec<&[u8]> = vec![b"WATCH"];
            watch.extend(keys);
            reach.client()?.call(&watch).await?;
            return Ok(());
        }
        let (db, key) = (self.db, self.key.clone());
        let fence = checkpoint::fence(&key);
        let number = db.to_string();
        let mut watch: Vec<&[u8]> = vec![b"WATCH"];
        watch.extend(keys);
        let commands = [
            vec![&b"SELECT"[..], b"0"],
            vec![b"WATCH", fence.as_bytes()],
            vec![b"GET", key.as_bytes()],
            vec![b"SELECT", number.as_bytes()],
            watch,
        ];
        self.db = u32::MAX;
        let replies = self.client()?.ask_all(&commands).await?;
        for (command, reply) in commands.iter().zip(&replies) {
            if let Value::Error(error) = reply {
                return Err(self.client()?.refused(command, error));
            }
        }
        self.db = db;
        if replies.get(2).is_some_and(|value| is_owners(value, owner)) {
            return Ok(());
        }
        let what = "the checkpoint names another owner";
        Err(SyncError::reconnect(Side::Target, &self.address, what))
    }

    async fn select(&mut self, db: u32) -> Result<(), SyncError> {
        // At a cluster's node, when it is known which one.
        if self.db != db && matches!(self.server, Server::One(_)) {
            self.client()?
                .call(&[b"SELECT", db.to_string().as_bytes()])
                .await?;
        }
        self.db = db;
        Ok(())
    }

    /// When the keys expire at the target; `None` for never, or no such key. Before 7.0 there is no
    /// PEXPIRETIME: what is left and our clock tell it to within the round trip.
    async fn expiries_ms(&mut self, keys: &[&[u8]]) -> Result<Vec<Option<i64>>, SyncError> {
        if self.tells_time {
            let questions: Vec<Vec<&[u8]>> = keys
                .iter()
                .map(|key| vec![&b"PEXPIRETIME"[..], key])
                .collect();
            let answers = self.client()?.ask_all(&questions).await?;
            self.tells_time = !answers
                .iter()
                .any(|answer| matches!(answer, Value::Error(_)));
            if self.tells_time {
                return Ok(answers.iter().map(positive).collect());
            }
        }
        let mut questions: Vec<Vec<&[u8]>> =
            keys.iter().map(|key| vec![&b"PTTL"[..], key]).collect();
        // What is left counts from the target's time, not from ours.
        questions.push(vec![b"TIME"]);
        let mut answers = self.client()?.ask_all(&questions).await?;
        let now_ms = match answers.pop() {
            Some(Value::Error(error)) => return Err(self.client()?.refused(&[b"TIME"], &error)),
            time => time.as_ref().and_then(time_ms).unwrap_or_else(now_ms),
        };
        let refused = answers.iter().find_map(|answer| match answer {
            Value::Error(error) => Some(error),
            _ => None,
        });
        if let Some(error) = refused {
            return Err(self.client()?.refused(&[b"PTTL"], error));
        }
        Ok(answers
            .iter()
            .map(|answer| positive(answer).map(|left_ms| now_ms + left_ms))
            .collect())
    }

    /// Looks for keys with a lease. What was sent over a connection that is lost, and is still on its way, comes to nothing:
    /// it would change what was looked at.
    async fn find(&mut self, config: &Config) -> Result<Vec<Lease>, SyncError> {
        let addresses = match &self.server {
            Server::One(_) => return self.find_in_one(config).await,
            Server::Many(reach) => reach.addresses(),
        };
        let mut found = Vec::new();
        for address in addresses {
            if let Server::Many(reach) = &mut self.server {
                reach.go_to(&address);
            }
            found.extend(self.look(config).await?);
        }
        Ok(found)
    }

    async fn find_in_one(&mut self, config: &Config) -> Result<Vec<Lease>, SyncError> {
        self.select(0).await?;
        let fence = checkpoint::fence(&self.key);
        let [set, del] = checkpoint::touch(&fence);
        let commands = [vec![&b"MULTI"[..]], set, del, vec![b"EXEC"]];
        let replies = self.client()?.ask_all(&commands).await?;
        let refused = commands.iter().zip(&replies);
        let refused = refused.filter_map(|(command, reply)| match reply {
            Value::Error(error) => Some((command, error)),
            _ => None,
        });
        match refused.min_by_key(|(_, error)| error.code != resp::ErrorCode::Oom) {
            // It takes no SET; the leases are to end all the same.
            Some((_, error)) if error.code == resp::ErrorCode::Oom => {}
            Some((command, error)) => return Err(self.client()?.refused(command, error)),
            None => {}
        }
        self.look(config).await
    }

    /// Looks at every key of the server.
    async fn look(&mut self, config: &Config) -> Result<Vec<Lease>, SyncError> {
        let mut found = Vec::new();
        let keyspace = self.client()?.info("keyspace").await?.keyspace();
        for (db, _) in keyspace.into_iter().filter(|(db, _)| may_hold(config, *db)) {
            self.select_there(db).await?;
            let mut cursor = Bytes::from_static(b"0");
            loop {
                let (next, mut keys) = scan(config, self.client()?, &cursor, &[]).await?;
                keys.retain(|key| !is_own(key) && config.may_be_copied(db, key));
                let names: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
                for (key, at_ms) in keys.iter().zip(self.expiries_ms(&names).await?) {
                    let at_ms = at_ms.unwrap_or(0) - LEASE_MS;
                    if is_grantable(at_ms, config.reader.is_of_files()) {
                        found.push(Lease::leased(db, key.clone(), at_ms, 0));
                    }
                }
                if next.as_ref() == b"0" {
                    break;
                }
                cursor = next;
            }
        }
        Ok(found)
    }
}

/// Whether a checkpoint's value names this owner.
fn is_owners(value: &Value, owner: u64) -> bool {
    let found = value.as_bytes().map(|value| Checkpoint::parse(value));
    matches!(found, Some(Ok(found)) if found.owner == owner)
}

fn positive(answer: &Value) -> Option<i64> {
    match answer {
        Value::Int(number) if *number >= 0 => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
