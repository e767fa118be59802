//! The only place that decides: where to start, when to try again, when to stop.
//!
//! One run of the daemon is a row of sessions; a session is one history of the source. Within it the
//! receiver reconnects to the source by itself, and the applier to the target; it ends when the source
//! begins a new history, when the target has fallen back behind what is kept here, or for good.

mod full;
mod losses;
mod session;
mod stream;

use std::cell::Cell;

use bytes::Bytes;
use replica::{ReplId, ReplOffset, Start};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::chance;
use crate::checkpoint::{Checkpoint, Phase, Position, Progress};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Class, Side, SyncError};
use crate::pipeline::{Common, Leases, Repairs, Tide};
use crate::source::{self, Conn, Opened, Receiver, spool_error};
use crate::spool::{self, Feed, Keep, Log, Syncer};
use crate::status::{self, Status};
use crate::stop::Stop;
use crate::target::{self, Databases, Found, Target, Visit};

/// Attempts at the first contact: enough for a hiccup, short enough to say soon what is wrong.
const FIRST_CONTACT_ATTEMPTS: u32 = 6;

/// Runs a link until it is asked to stop or cannot go on.
///
/// # Errors
/// What ended it; [`SyncError::exit_code`] is the process's.
pub(crate) async fn run(config: &Config, status: &Status, stop: &Stop) -> Result<(), SyncError> {
    let dir = &config.spool.dir;
    let _lock = spool::lock(dir)
        .map_err(|error| SyncError::local(format!("spool directory {}: {error}", dir.display())))?;
    status.spool_limit.set(config.spool.max_bytes);
    let supervisor = Supervisor {
        config,
        status,
        stop,
        syncer: Syncer::spawn().map_err(spool_error)?,
        source_version: source_version(config, stop).await?,
        leases: Leases::default(),
        repairs: Repairs::default(),
        databases: Databases::default(),
        tide: Tide::default(),
        owner: chance::number(),
        taken_from: Cell::new(None),
        stopping_since: Cell::new(None),
    };
    let result = supervisor.sessions().await;
    status.set_phase(status::Phase::Stopped);
    result
}

/// Version of the source, where it lets us ask; what it does not say costs nothing but precision.
async fn source_version(config: &Config, stop: &Stop) -> Result<SourceVersion, SyncError> {
    let endpoint = &config.source.endpoint;
    let mut client = contact(stop, FIRST_CONTACT_ATTEMPTS, || {
        Client::connect(endpoint, Side::Source)
    })
    .await?;
    let Some(mut client) = client.take() else {
        return Ok(SourceVersion::default());
    };
    let Ok(info) = client.info("server").await else {
        return Ok(SourceVersion::default());
    };
    let Some((fork, version)) = target::version_of(&info) else {
        return Ok(SourceVersion::default());
    };
    if info.get("redis_mode") == Some("sentinel") {
        let what = "this is a Sentinel; use the address of the master it watches";
        return Err(SyncError::stop(Side::Source, &endpoint.address, what));
    }
    if info.get("redis_mode") == Some("cluster") {
        tracing::warn!(
            "the source is a node of a cluster: only the slots of this one node are read, and resharding is not followed"
        );
    }
    tracing::info!(?fork, version, "source");
    Ok(SourceVersion {
        fork: Some(fork),
        version: version.parse().ok(),
    })
}

/// What the source said of itself.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SourceVersion {
    pub(crate) fork: Option<rewrite::Fork>,
    pub(crate) version: Option<rewrite::Version>,
}

/// Tries a few times; `None` when asked to stop meanwhile.
async fn contact<T, F>(
    stop: &Stop,
    attempts_max: u32,
    attempt: impl Fn() -> F,
) -> Result<Option<T>, SyncError>
where
    F: Future<Output = Result<T, SyncError>>,
{
    let mut backoff = Backoff::default();
    loop {
        let result = tokio::select! {
            biased;
            () = stop.requested() => return Ok(None),
            result = attempt() => result,
        };
        match result {
            Err(error) if error.class == Class::Reconnect => {
                let pause = backoff.pause();
                if backoff.attempts() >= attempts_max {
                    return Err(SyncError {
                        class: Class::Stop,
                        ..error
                    });
                }
                tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "no contact yet");
                tokio::time::sleep(pause).await;
            }
            result => return result.map(Some),
        }
    }
}

/// How a session ended, when the run goes on.
enum Next {
    /// Asked to stop, or there was no more to do.
    Done,
    /// The source began a new history; its answer is at hand.
    NewHistory(Box<Opened>),
    /// Look at the target again and choose anew.
    Again,
}

struct Supervisor<'a> {
    config: &'a Config,
    status: &'a Status,
    stop: &'a Stop,
    syncer: Syncer,
    source_version: SourceVersion,
    leases: Leases,
    repairs: Repairs,
    databases: Databases,
    tide: Tide,
    /// Names this process in checkpoints.
    owner: u64,
    /// Whose checkpoint this run found when it first took the target; 0 if there was none.
    taken_from: Cell<Option<u64>>,
    /// A session has noticed that a stop was asked for.
    stopping_since: Cell<Option<Instant>>,
}

impl Supervisor<'_> {
    /// Session after session. A stop between two of them, or in one whose target had fallen back, still has to leave the
    /// target in good order.
    async fn sessions(&self) -> Result<(), SyncError> {
        if self.sessions_until_asked().await? || self.taken_from.get().is_none() {
            return Ok(());
        }
        let since = self.stopping_since.get().unwrap_or_else(Instant::now);
        let left = self.config.shutdown_timeout.saturating_sub(since.elapsed());
        let why = match tokio::time::timeout(left, Box::pin(self.settle_up())).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "the target is not as this run left it".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "there was no time left".to_owned(),
        };
        tracing::warn!(
            why,
            "stopping without the rest, which is in the spool, and without giving every key its own expiry: the next run does both"
        );
        Ok(())
    }

    /// Whether the last session ended in good order; not when the stop came between two of them.
    async fn sessions_until_asked(&self) -> Result<bool, SyncError> {
        let mut opened: Option<Opened> = None;
        let mut backoff = Backoff::default();
        // Who has been in touch with both ends waits for them as long as it takes.
        let mut attempts_max = FIRST_CONTACT_ATTEMPTS;
        loop {
            self.status.set_phase(status::Phase::Handshaking);
            let visit = contact(self.stop, attempts_max, || {
                target::visit(&self.config.target, &self.config.link_name)
            });
            let Some(visit) = visit.await? else {
                return Ok(false);
            };
            let (start, kept) = self.choose(&visit.found)?;
            let opened_now = match opened.take() {
                Some(opened) => Some(opened),
                None => contact(self.stop, attempts_max, || self.open(start.clone())).await?,
            };
            let opened_now = match opened_now {
                Some(opened) => {
                    self.certain(self.stop, opened, kept.as_ref(), attempts_max)
                        .await?
                }
                None => None,
            };
            attempts_max = u32::MAX;
            let session = match opened_now {
                None => return Ok(false),
                Some(Opened::Continue { conn, replid }) => {
                    Box::pin(self.go_on(visit, conn, replid, kept)).await
                }
                Some(Opened::Full {
                    conn,
                    replid,
                    offset,
                }) => {
                    drop(kept);
                    Box::pin(self.full(visit, conn, replid, offset)).await
                }
            };
            // A connection that broke while the session was set up is no more than a hiccup.
            let next = match session {
                Err(error) if error.class == Class::Reconnect => {
                    tracing::warn!(%error, "beginning again");
                    Next::Again
                }
                session => session?,
            };
            match next {
                Next::Done => return Ok(true),
                Next::NewHistory(answer) => opened = Some(*answer),
                Next::Again => tokio::time::sleep(backoff.pause()).await,
            }
        }
    }

    /// A stop was asked for while there was no session, or none that had the target: what is in the spool is applied, and
    /// every key gets its own expiry, in a session that is asked to stop from the beginning. False where the target is not
    /// as this run, or the one before it, left it: somebody who is there now may need its leases; or where the source
    /// begins anew.
    async fn settle_up(&self) -> Result<bool, SyncError> {
        let not_asked = Stop::default();
        let visit = contact(&not_asked, u32::MAX, || {
            target::visit(&self.config.target, &self.config.link_name)
        });
        let Some(visit) = visit.await? else {
            return Ok(false);
        };
        match &visit.found {
            Found::Checkpoint(found)
                if found.owner == self.owner || Some(found.owner) == self.taken_from.get() =>
            {
                if matches!(found.phase, Phase::Snapshot(_)) {
                    // As with any stop in the midst of one.
                    return Ok(true);
                }
            }
            _ => return Ok(false),
        }
        let (start, Some(kept)) = self.choose(&visit.found)? else {
            return Ok(false);
        };
        let opened = contact(&not_asked, u32::MAX, || self.open(start.clone())).await?;
        let opened = match opened {
            Some(opened) => {
                self.certain(&not_asked, opened, Some(&kept), u32::MAX)
                    .await?
            }
            None => None,
        };
        let Some(Opened::Continue { conn, replid }) = opened else {
            return Ok(false);
        };
        let next = Box::pin(self.go_on(visit, conn, replid, Some(kept))).await?;
        Ok(matches!(next, Next::Done))
    }

    /// Where the stream is asked for from before our position on, and comes under a new name, our position may lie behind
    /// the place where that history left ours: the source is asked whether it knows it.
    async fn certain(
        &self,
        stop: &Stop,
        opened: Opened,
        kept: Option<&Kept>,
        attempts_max: u32,
    ) -> Result<Option<Opened>, SyncError> {
        let position = kept.and_then(|kept| kept.ahead);
        let (Opened::Continue { replid, .. }, Some((ours, offset))) = (&opened, position) else {
            return Ok(Some(opened));
        };
        if *replid == ours {
            return Ok(Some(opened));
        }
        let start = Start::Resume {
            replid: ours,
            received: offset,
            partial: Bytes::new(),
        };
        match contact(stop, attempts_max, || self.open(start.clone())).await? {
            Some(Opened::Continue { .. }) => Ok(Some(opened)),
            answer => Ok(answer),
        }
    }

    fn common(&self) -> Common<'_> {
        Common {
            config: self.config,
            status: self.status,
            leases: &self.leases,
            repairs: &self.repairs,
            databases: &self.databases,
            tide: &self.tide,
        }
    }

    async fn open(&self, start: Start) -> Result<Opened, SyncError> {
        source::open(&self.config.source, self.source_version, start, self.status).await
    }

    fn keep(&self) -> Keep {
        let spool = &self.config.spool;
        Keep {
            tail_bytes: spool.tail_bytes,
            retain_bytes: spool.retain_bytes,
        }
    }

    /// What keeps a snapshot until it is applied.
    fn keep_whole(&self) -> Keep {
        Keep {
            retain_bytes: u64::MAX,
            ..self.keep()
        }
    }

    /// Where to begin: at the end of the spool, at the checkpoint, or with a snapshot.
    fn choose(&self, found: &Found) -> Result<(Start, Option<Kept>), SyncError> {
        let from_the_start = (Start::Full, None);
        let Found::Checkpoint(found) = found else {
            return Ok(from_the_start);
        };
        let unseen_bytes = found.unseen.map_or(0, |unseen| unseen.bytes);
        let (replid, offset, snapshot) = match found.phase {
            _ if found.repairs.are_unnamed() => return Ok(from_the_start),
            Phase::Stream(at) => (at.replid, at.offset, None),
            Phase::Snapshot(at) => match self.spooled_snapshot(at)? {
                Some(snapshot) => (at.replid, at.offset, Some(snapshot)),
                None => return Ok(from_the_start),
            },
            Phase::Diverged(_) => return Ok(from_the_start),
        };
        let dir = &self.config.spool.dir;
        let from = offset.0 - unseen_bytes.min(offset.0);
        // Keys that differ may be known by that part alone: then it has to be there, or come from the source.
        let needed = if found.repairs.are_unread() {
            from
        } else {
            offset.0
        };
        let stream = Log::recover(dir, "stream", self.keep()).map_err(spool_error)?;
        if let Some(mut stream) = stream
            && stream.knows(replid)
            && stream.start() <= needed
            && (stream.start()..=stream.end()).contains(&offset.0)
        {
            let partial = partial_tail(&mut stream, offset.0)?;
            let spooled = stream.end();
            tracing::info!(offset = offset.0, spooled, "going on from the spool");
            let start = Start::Resume {
                replid: stream.replid(),
                received: ReplOffset(spooled),
                partial,
            };
            let ahead = None;
            let kept = Kept {
                snapshot,
                stream,
                ahead,
            };
            return Ok((start, Some(kept)));
        }
        tracing::info!(offset = offset.0, "going on from the target's checkpoint");
        // Whether the commands right before it failed is not known: they are wanted once more.
        let stream = Log::create(dir, "stream", replid, from, self.keep());
        let stream = stream.map_err(spool_error)?;
        let start = Start::Resume {
            replid,
            received: ReplOffset(from),
            partial: Bytes::new(),
        };
        let kept = Kept {
            snapshot,
            stream,
            ahead: (from < offset.0).then_some((replid, offset)),
        };
        Ok((start, Some(kept)))
    }

    /// The snapshot that is being applied, if all of it is in the spool. An older one of the same history may lie
    /// there: a run that was killed as it began another, or a target that has fallen back.
    fn spooled_snapshot(&self, at: Progress) -> Result<Option<Log>, SyncError> {
        let dir = &self.config.spool.dir;
        let taken = (at.replid, at.offset.0);
        Log::recover_whole(dir, "snapshot", taken, self.keep_whole()).map_err(spool_error)
    }

    /// A session in a known history: its snapshot is applied to the end, or its stream goes on.
    async fn go_on(
        &self,
        visit: Visit<'_>,
        conn: Conn,
        replid: ReplId,
        kept: Option<Kept>,
    ) -> Result<Next, SyncError> {
        let Some(Kept {
            snapshot,
            mut stream,
            ..
        }) = kept
        else {
            let what = "the source continued a history that nobody asked for";
            return Err(SyncError::stop(
                Side::Source,
                &self.config.source.endpoint.address,
                what,
            ));
        };
        visit.refuse_source(replid)?;
        self.status.partial_resyncs.add(1);
        stream.rename(replid).map_err(spool_error)?;
        match snapshot {
            Some(snapshot) => self.snapshot_again(visit, conn, snapshot, stream).await,
            None => self.stream(visit, conn, stream).await,
        }
    }

    /// Takes the target, whose checkpoint stays what it is but for its owner.
    async fn take_as_found(&self, visit: Visit<'_>) -> Result<Target, SyncError> {
        let seen = taken_by(&visit.found);
        self.note_taken(seen);
        let chosen_by = match &visit.found {
            Found::Checkpoint(found) => Some(found.clone()),
            Found::Nothing => None,
        };
        let target = take(visit, |found| match found {
            found if taken_by(found) != seen => Err(self.outrun()),
            Found::Checkpoint(found) => Ok(Checkpoint {
                owner: self.owner,
                ..found.clone()
            }),
            Found::Nothing => Err(target::fenced(&self.config.target.endpoint.address)),
        })
        .await?;
        let (epoch, owner) = (target.checkpoint.epoch, target.checkpoint.owner);
        let chosen_by = chosen_by.map(|found| Checkpoint {
            epoch,
            owner,
            ..found
        });
        // What is kept here, and what the source was asked for, was chosen by what was there before. Whoever had the target
        // has gone on since, perhaps to where the history goes on that the source has told us of under another name, and
        // perhaps not. Now that it is ours it stays as it is, and is looked at again.
        if chosen_by.as_ref() != Some(&target.checkpoint) {
            let what = "its checkpoint has moved on before it was taken; looking again";
            let address = &self.config.target.endpoint.address;
            return Err(SyncError::reconnect(Side::Target, address, what));
        }
        Ok(target)
    }

    /// The target is about to be taken from somebody.
    fn note_taken(&self, found: Option<(u64, u64)>) {
        let owner = found.map_or(0, |(owner, _)| owner);
        self.taken_from.set(self.taken_from.get().or(Some(owner)));
    }

    /// The word when another daemon has taken the target between our look and our write.
    fn outrun(&self) -> SyncError {
        let what = "another understudy has begun here meanwhile; looking again";
        SyncError::reconnect(Side::Target, &self.config.target.endpoint.address, what)
    }

    fn show_position(&self, feed: &Feed, position: Position) {
        self.status.set_phase(status::Phase::Stream);
        self.status.source_offset.set(feed.end());
        self.status.spooled_offset.set(feed.end());
        self.status.applied_offset.set(position.offset.0);
    }

    fn receiver<'f>(
        &'f self,
        conn: Conn,
        snapshot: Option<&'f Feed>,
        stream: &'f Feed,
    ) -> Receiver<'f> {
        Receiver {
            config: &self.config.source,
            version: self.source_version,
            spool: &self.config.spool,
            status: self.status,
            syncer: &self.syncer,
            snapshot,
            stream,
            paused: Cell::new(false),
            conn,
        }
    }

    /// Takes the target back after `error`, however long that takes.
    async fn retake(&self, error: &SyncError, ours: &Checkpoint) -> Result<Target, SyncError> {
        tracing::warn!(%error, "lost the target, connecting again");
        self.status.reconnects.add("target", 1);
        let mut backoff = Backoff::default();
        loop {
            match target::retake(&self.config.target, &self.config.link_name, ours).await {
                Err(error) if error.class == Class::Reconnect => {
                    let pause = backoff.pause();
                    tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "cannot reach the target");
                    tokio::time::sleep(pause).await;
                }
                other => return other,
            }
        }
    }
}

/// What the spool kept of an earlier run.
struct Kept {
    /// The snapshot, where it is not applied to its end.
    snapshot: Option<Log>,
    stream: Log,
    /// Our position, where the stream is to begin before it.
    ahead: Option<(ReplId, ReplOffset)>,
}

/// Who took the target last.
fn taken_by(found: &Found) -> Option<(u64, u64)> {
    match found {
        Found::Nothing => None,
        Found::Checkpoint(found) => Some((found.owner, found.epoch)),
    }
}

/// Takes the target with the checkpoint that `make` makes of what is found, its epoch raised.
async fn take(
    mut visit: Visit<'_>,
    make: impl Fn(&Found) -> Result<Checkpoint, SyncError>,
) -> Result<Target, SyncError> {
    loop {
        let checkpoint = make(&visit.found)?;
        let next = Checkpoint {
            epoch: checkpoint.epoch + 1,
            ..checkpoint
        };
        match visit.take(next).await? {
            Ok(target) => return Ok(target),
            Err(again) => visit = again,
        }
    }
}

/// The unfinished command at the log's end, walking from a command boundary.
fn partial_tail(log: &mut Log, boundary: u64) -> Result<Bytes, SyncError> {
    let mut tail = replica::Tail::default();
    let mut pos = boundary;
    while let Some(chunk) = log.read(pos).map_err(spool_error)? {
        tail.feed(&chunk.bytes).map_err(|error| {
            SyncError::local(format!(
                "the spool holds no RESP behind position {pos}: {error}"
            ))
        })?;
        pos += chunk.bytes.len() as u64;
    }
    Ok(tail.partial())
}
