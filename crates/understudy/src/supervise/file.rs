//! Files in the place of a source: they are applied to their end, and then the run is over.
//!
//! An RDB file is a snapshot that nothing follows. An append-only file is a stream, behind a snapshot where it begins with
//! one; its feed is the file itself, and the target's checkpoint says how far it is applied. Nobody can be asked what a key
//! is now: what differs ends the run.

use std::path::PathBuf;
use std::rc::Rc;

use replica::{ReplId, ReplOffset};

use super::{FIRST_CONTACT_ATTEMPTS, Supervisor, contact};
use crate::backoff::Backoff;
use crate::checkpoint::{self, Phase, Position, Progress};
use crate::config::AofReader;
use crate::error::{Class, Side, SyncError};
use crate::files::aof::{Course, Cut, Fate};
use crate::files::packed::{self, Packed};
use crate::files::{self, Set};
use crate::pipeline::{Behind, end_all};
use crate::source::spool_error;
use crate::spool::{Feed, Log};
use crate::status;
use crate::target::{self, Found, Target, Visit};

/// The bytes of RDB files.
enum Content {
    /// Where they lie.
    Plain(Set),
    /// On their way through the spool.
    Packed(Packed),
}

/// A place in append-only files at which their commands go on.
struct From {
    target: Target,
    position: Position,
    /// The feed of the snapshot that was applied before.
    snapshot: Option<Feed>,
}

impl Supervisor<'_> {
    /// Applies RDB files.
    pub(super) async fn rdb_files(&self, paths: &[PathBuf]) -> Result<(), SyncError> {
        let is_packed = packed::is_needed(paths)?;
        let comes_once = packed::come_once(paths);
        let mut once = None;
        if comes_once {
            let mut packed = Packed::open(paths)?;
            let id = packed.identify().await?;
            once = Some((Content::Packed(packed), id));
        }
        let mut visits = Visits::default();
        while let Some(visit) = visits.next(self).await? {
            let opened = match (once.take(), comes_once) {
                (Some(content), _) => content,
                (None, true) => {
                    let what = "it can be read once, and was; start again and give it once more";
                    return Err(self.of_source(what));
                }
                (None, false) => {
                    let mut set = Set::open(paths)?;
                    let id = files::identify_whole(&mut set).map_err(unreadable)?;
                    match is_packed {
                        false => (Content::Plain(set), id),
                        true => (Content::Packed(Packed::open(paths)?), id),
                    }
                }
            };
            let session = self.rdb_session(visit, opened.0, opened.1);
            if let Some(ended) = visits.ended(Box::pin(session).await) {
                return ended;
            }
        }
        Ok(())
    }

    /// Spools what is packed, beside whoever reads the feed. It ends only by failing.
    pub(super) async fn unpack(
        &self,
        packed: Option<Packed>,
        feed: &Feed,
    ) -> Result<(), SyncError> {
        if let Some(packed) = packed {
            packed.spool(feed, self.config.spool.max_bytes).await?;
            self.status.snapshot_bytes.set(feed.end());
            self.status.snapshot_read.set(feed.end());
        }
        std::future::pending().await
    }

    /// Applies RDB files, or what is left of them.
    async fn rdb_session(
        &self,
        mut visit: Visit<'_>,
        content: Content,
        id: ReplId,
    ) -> Result<(), SyncError> {
        let phase = phase_of(&visit.found);
        if matches!(phase, Some(Phase::Stream(at)) if at.replid == id) {
            let key = checkpoint::key(&self.config.link_name);
            tracing::info!(
                key,
                "these files are applied already, nothing is done; to apply them once more, delete this key at the target"
            );
            return Ok(());
        }
        let (target, manner, progress) = match phase {
            Some(Phase::Snapshot(at)) if at.replid == id => {
                let taken = self.take_again(visit).await?;
                taken.ok_or_else(|| self.outrun())?
            }
            _ => {
                // Files that were applied to their end are nobody's past: what is there now is the target's own.
                let manner = match phase {
                    Some(Phase::Stream(_)) => self.first_manner(&mut visit).await?,
                    _ => self.manner(&mut visit).await?,
                };
                let progress = at_the_beginning(id);
                let target = self.take_anew(visit, manner, progress).await?;
                (target, manner, progress)
            }
        };
        let (feed, packed) = self.rdb_feed(content, id)?;
        self.begin_snapshot(&feed, progress);
        let unpack = self.unpack(packed, &feed);
        let apply = async {
            let applied = self.apply_snapshot(target, &feed, manner, progress, Behind::Rdbs);
            let (mut target, applied) = Box::pin(applied).await?;
            // No expiry was moved, and from here on the target is its own.
            self.leases.clear();
            target.checkpoint.owned = false;
            let position = Position {
                replid: id,
                offset: ReplOffset(applied.end),
                db: 0,
            };
            target.checkpoint.phase = Phase::Stream(position);
            let dir = &self.config.spool.dir;
            let nothing = Log::create(dir, "stream", id, applied.end, self.keep());
            let nothing = Feed::new(nothing.map_err(spool_error)?);
            nothing.close();
            self.show_position(&nothing, position);
            let units = self.apply_units(target, &nothing, position, Some(&feed));
            Box::pin(units).await
        };
        tokio::select! {
            biased;
            () = self.stop.requested() => {
                tracing::info!("asked to stop: the next run goes on where this one is");
                Ok(())
            }
            failed = unpack => failed,
            applied = apply => applied,
        }
    }

    /// The feed of RDB files, and what is to be spooled into it.
    fn rdb_feed(&self, content: Content, id: ReplId) -> Result<(Feed, Option<Packed>), SyncError> {
        match content {
            Content::Plain(set) => Ok((feed_of(set, id), None)),
            Content::Packed(packed) => {
                let dir = &self.config.spool.dir;
                let log = Log::create(dir, "snapshot", id, 0, self.keep_whole());
                Ok((Feed::new(log.map_err(spool_error)?), Some(packed)))
            }
        }
    }

    pub(super) fn begin_snapshot(&self, feed: &Feed, progress: Progress) {
        self.status.set_phase(status::Phase::Snapshot);
        self.status.snapshot_bytes.set(feed.end());
        self.status.snapshot_read.set(feed.end());
        let (bytes, applied_bytes) = (feed.end(), progress.rdb_bytes);
        tracing::info!(bytes, applied_bytes, "snapshot begins");
    }

    /// Plays append-only files.
    pub(super) async fn aof(&self, reader: &AofReader) -> Result<(), SyncError> {
        let mut visits = Visits::default();
        while let Some(visit) = visits.next(self).await? {
            let session = Box::pin(self.aof_session(visit, reader));
            if let Some(ended) = visits.ended(session.await) {
                return ended;
            }
        }
        Ok(())
    }

    async fn aof_session(&self, visit: Visit<'_>, reader: &AofReader) -> Result<(), SyncError> {
        let paths = files::parts(&reader.path)?;
        let mut set = Set::open(&paths)?;
        let begins_with_rdb = self.look_at_beginning(&mut set)?;
        // Before anything is written.
        let until = match reader.until {
            None => None,
            Some(seconds) => self.place_of(&mut set, begins_with_rdb, seconds)?,
        };
        let from = match phase_of(&visit.found) {
            Some(Phase::Stream(at)) => {
                self.expect_same(&mut set, at.replid)?;
                self.go_on_in(visit, at, set.len()).await?
            }
            phase => {
                if let Some(Phase::Snapshot(at)) = phase {
                    self.expect_same(&mut set, at.replid)?;
                } else if phase.is_some() {
                    return Err(self.of_others("it was left where the target had come to differ"));
                }
                let before = self.before_commands(visit, &mut set, &paths, begins_with_rdb);
                match Box::pin(before).await? {
                    Some(from) => from,
                    None => return Ok(()),
                }
            }
        };
        if until.is_some_and(|until| until < from.position.offset.0) {
            let what = "aof_reader.timestamp lies before what is applied already; empty the target, delete its checkpoint and start again";
            return Err(self.of_source(what));
        }
        self.play(set, from, until).await
    }

    /// Whether the first file begins with a snapshot.
    pub(super) fn look_at_beginning(&self, set: &mut Set) -> Result<bool, SyncError> {
        let head = set.head(6).map_err(unreadable)?;
        if crate::rdb::input::is_packed(&head) {
            let what = "it is compressed; an append-only file is read as it is: unpack it first";
            return Err(self.of_source(what));
        }
        Ok(head.starts_with(b"REDIS") || head.starts_with(b"VALKEY"))
    }

    /// Where the files end that are played up to a time.
    pub(super) fn place_of(
        &self,
        set: &mut Set,
        begins_with_rdb: bool,
        seconds: u64,
    ) -> Result<Option<u64>, SyncError> {
        let mut from = 0;
        if begins_with_rdb {
            let rdb = files::aof::preamble(set).map_err(|what| self.of_source(&what))?;
            if let Some(at) = rdb.written_at.filter(|at| *at > seconds) {
                let what = format!(
                    "it begins with a snapshot that was written at {at}, later than aof_reader.timestamp = {seconds}: what was there before is no longer in it; nothing was written"
                );
                return Err(self.of_source(&what));
            }
            from = rdb.end;
        }
        match files::aof::cut(set, from, seconds).map_err(unreadable)? {
            Cut::At(at) => Ok(Some(at)),
            Cut::Nowhere => {
                tracing::info!("all of it is older than aof_reader.timestamp");
                Ok(None)
            }
            Cut::NoTimes => {
                let what = "aof_reader.timestamp is set, but it tells no times (the server's aof-timestamp-enabled was off); nothing was written";
                Err(self.of_source(what))
            }
        }
    }

    /// Refuses files that are not those of the checkpoint.
    fn expect_same(&self, set: &mut Set, id: ReplId) -> Result<(), SyncError> {
        match files::begins_with(set, id).map_err(unreadable)? {
            true => Ok(()),
            false => Err(self.of_others("it is of other files (or these were rewritten since)")),
        }
    }

    fn of_others(&self, why: &str) -> SyncError {
        let key = checkpoint::key(&self.config.link_name);
        let what = format!(
            "the checkpoint {key} cannot be gone on from: {why}; nothing was written: empty the target and delete the key (FLUSHALL does both), or give this link a link.name of its own"
        );
        SyncError::stop(Side::Target, &self.config.target.endpoint.address, what)
    }

    /// Takes the target to go on at its checkpoint.
    async fn go_on_in(&self, visit: Visit<'_>, at: Position, len: u64) -> Result<From, SyncError> {
        if at.offset.0 > len {
            return Err(self.of_others("these files are shorter than what is applied"));
        }
        let target = self.take_as_found(visit).await?;
        let Phase::Stream(position) = target.checkpoint.phase else {
            return Err(self.outrun());
        };
        if target.checkpoint.leased {
            self.leases.inherit(&target.abilities);
        }
        tracing::info!(
            offset = position.offset.0,
            db = position.db,
            "going on from the target's checkpoint"
        );
        Ok(From {
            target,
            position,
            snapshot: None,
        })
    }

    /// Takes the target for the files from their beginning, and applies the snapshot that they begin with; `None` when
    /// asked to stop meanwhile.
    async fn before_commands(
        &self,
        mut visit: Visit<'_>,
        set: &mut Set,
        paths: &[PathBuf],
        begins_with_rdb: bool,
    ) -> Result<Option<From>, SyncError> {
        let (mut target, manner, progress) = match phase_of(&visit.found) {
            Some(_) => {
                let taken = self.take_again(visit).await?;
                taken.ok_or_else(|| self.outrun())?
            }
            None => {
                let manner = self.first_manner(&mut visit).await?;
                if manner.sweep && !begins_with_rdb {
                    let what = "existing_keys = \"mirror\" removes what a snapshot does not have, and this append-only file begins with none: empty the target, or set advanced.empty_db_before_sync";
                    return Err(self.of_source(what));
                }
                let id = files::identify(set).map_err(unreadable)?;
                let progress = at_the_beginning(id);
                (
                    self.take_anew(visit, manner, progress).await?,
                    manner,
                    progress,
                )
            }
        };
        let (mut snapshot, mut end) = (None, 0);
        if begins_with_rdb {
            let feed = feed_of(Set::open(paths)?, progress.replid);
            self.begin_snapshot(&feed, progress);
            let apply = self.apply_snapshot(target, &feed, manner, progress, Behind::Commands);
            let applied = tokio::select! {
                biased;
                () = self.stop.requested() => {
                    tracing::info!("asked to stop: the next run goes on where this one is");
                    return Ok(None);
                }
                applied = Box::pin(apply) => applied?,
            };
            target = applied.0;
            end = applied.1.end;
            snapshot = Some(feed);
        }
        let position = Position {
            replid: progress.replid,
            offset: ReplOffset(end),
            db: 0,
        };
        target.checkpoint.phase = Phase::Stream(position);
        Ok(Some(From {
            target,
            position,
            snapshot,
        }))
    }

    /// Plays the commands from a place on.
    async fn play(&self, set: Set, from: From, until: Option<u64>) -> Result<(), SyncError> {
        let From {
            target,
            position,
            snapshot,
        } = from;
        let course = Rc::new(Course::default());
        let feed = Self::feed_of_commands(set, position, until, course.clone());
        self.show_position(&feed, position);
        let asked = {
            // What was not announced yet is announced, behind a snapshot or at the very beginning.
            let nothing = snapshot.or_else(|| self.nothing_before(&target, position));
            let apply = self.apply_units(target, &feed, position, nothing.as_ref());
            let mut apply = Box::pin(apply);
            let asked = tokio::select! {
                biased;
                () = self.stop.requested() => true,
                applied = &mut apply => {
                    applied?;
                    false
                }
            };
            if asked {
                tracing::info!("asked to stop: applying what is in flight");
                course.stop();
                if let Ok(applied) = tokio::time::timeout(self.config.shutdown_timeout, apply).await
                {
                    applied?;
                }
            }
            asked
        };
        if asked {
            return Ok(());
        }
        // From here on the target ends its keys by itself.
        end_all(self.config, &self.leases, self.owner).await?;
        self.tell_end(&feed, course.fate())
    }

    /// Where files begin with commands, the first position has to be made known as behind a snapshot.
    fn nothing_before(&self, target: &Target, position: Position) -> Option<Feed> {
        let is_first = position.offset.0 == 0 && target.checkpoint.unseen.is_none();
        let over = || Feed::new(Log::over(Box::new(Set::empty()), position.replid));
        is_first.then(over)
    }

    /// Says where the commands have ended, and why.
    pub(super) fn tell_end(&self, feed: &Feed, fate: Option<Fate>) -> Result<(), SyncError> {
        let applied_offset = feed.applied();
        let place = |at: u64| feed.place(at).unwrap_or_default();
        match fate {
            None | Some(Fate::Whole) => {
                tracing::info!(applied_offset, "the append-only file is applied to its end");
            }
            Some(Fate::Until { at }) => {
                tracing::info!(
                    applied_offset,
                    place = place(at),
                    "applied up to aof_reader.timestamp"
                );
            }
            Some(Fate::CutShort { from }) => tracing::warn!(
                place = place(from),
                "the append-only file ends in the middle of a command or transaction, which begins here: everything before it is applied, and it is left out"
            ),
            Some(Fate::Broken { at, what }) => {
                let what = format!(
                    "the append-only file is damaged: {}: {what}; everything before this command is applied, nothing after it; `redis-check-aof` shows the place, with --fix it cuts the file off there",
                    place(at)
                );
                return Err(self.of_source(&what));
            }
        }
        Ok(())
    }
}

/// One look at the target after the other, as long as a run's sessions end in what may pass.
#[derive(Default)]
struct Visits {
    backoff: Backoff,
    has_begun: bool,
}

impl Visits {
    /// The next look; `None` when asked to stop.
    async fn next<'s>(
        &mut self,
        supervisor: &'s Supervisor<'_>,
    ) -> Result<Option<Visit<'s>>, SyncError> {
        if self.has_begun {
            tokio::select! {
                biased;
                () = supervisor.stop.requested() => return Ok(None),
                () = tokio::time::sleep(self.backoff.pause()) => {}
            }
        }
        let attempts_max = match std::mem::replace(&mut self.has_begun, true) {
            false => FIRST_CONTACT_ATTEMPTS,
            true => u32::MAX,
        };
        supervisor.status.set_phase(status::Phase::Handshaking);
        let config = supervisor.config;
        contact(supervisor.stop, attempts_max, || {
            target::visit(&config.target, &config.link_name)
        })
        .await
    }

    /// How the run ends with this session; `None` where another one begins.
    fn ended(&self, session: Result<(), SyncError>) -> Option<Result<(), SyncError>> {
        match session {
            Err(error) if matches!(error.class, Class::Reconnect | Class::Resync) => {
                tracing::warn!(%error, "beginning again from the target's checkpoint");
                None
            }
            ended => Some(ended),
        }
    }
}

fn phase_of(found: &Found) -> Option<Phase> {
    match found {
        Found::Nothing => None,
        Found::Checkpoint(found) => Some(found.phase.clone()),
    }
}

pub(super) fn at_the_beginning(id: ReplId) -> Progress {
    Progress {
        replid: id,
        offset: ReplOffset(0),
        rdb_bytes: 0,
    }
}

/// A feed of files where they lie.
pub(super) fn feed_of(set: Set, id: ReplId) -> Feed {
    let names: Vec<(u64, String)> = set
        .files()
        .map(|(path, start, _)| (start, path.display().to_string()))
        .collect();
    let feed = Feed::new(Log::over(Box::new(set), id));
    for (start, name) in names {
        feed.begin_file(start, name);
    }
    feed.close();
    feed
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unreadable(error: std::io::Error) -> SyncError {
    SyncError::stop(Side::Source, "", format!("it cannot be read: {error}"))
}
