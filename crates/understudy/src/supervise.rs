//! The only place that decides: where to start, when to try again, when to stop.
//!
//! One run of the daemon is a row of sessions; a session is one history of the source. Within it the
//! receiver reconnects to the source by itself, and the applier to the target; it ends when the source
//! begins a new history, when the target has fallen back behind what is kept here, or for good.

use std::cell::Cell;

use bytes::Bytes;
use replica::{ReplId, ReplOffset, Start};

use crate::backoff::Backoff;
use crate::checkpoint::{Checkpoint, Phase, Position, Progress};
use crate::client::Client;
use crate::config::{Config, ExistingKeys};
use crate::error::{Class, Side, SyncError};
use crate::pipeline::{
    Common, Leases, SnapshotApplier, StreamApplier, end_all, settle_forever, stream_limits, sweep,
};
use crate::source::{self, Conn, Opened, Receiver, spool_error};
use crate::spool::{self, Feed, Keep, Log, Syncer};
use crate::status::{self, Status};
use crate::stop::Stop;
use crate::target::{self, Databases, Found, Target, Visit};

/// Attempts at the first contact: enough for a hiccup, short enough to say soon what is wrong.
const FIRST_CONTACT_ATTEMPTS: u32 = 6;
/// A new snapshot with fewer than this share of the target's keys is taken for a mishap.
const SHRUNK_PERCENT: u64 = 50;

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
        databases: Databases::default(),
        owner: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id()),
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
            result = attempt() => result,
            () = stop.requested() => return Ok(None),
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
    databases: Databases,
    /// Names this process in checkpoints.
    owner: u64,
}

impl Supervisor<'_> {
    async fn sessions(&self) -> Result<(), SyncError> {
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
                return Ok(());
            };
            let (start, kept) = self.choose(&visit.found)?;
            let opened_now = match opened.take() {
                Some(opened) => Some(opened),
                None => contact(self.stop, attempts_max, || self.open(start.clone())).await?,
            };
            attempts_max = u32::MAX;
            let session = match opened_now {
                None => return Ok(()),
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
                Next::Done => return Ok(()),
                Next::NewHistory(answer) => opened = Some(*answer),
                Next::Again => tokio::time::sleep(backoff.pause()).await,
            }
        }
    }

    fn common(&self) -> Common<'_> {
        Common {
            config: self.config,
            status: self.status,
            leases: &self.leases,
            databases: &self.databases,
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
        let (replid, offset, snapshot) = match found.phase {
            Phase::Stream(at) => (at.replid, at.offset, None),
            Phase::Snapshot(at) => match self.spooled_snapshot(at)? {
                Some(snapshot) => (at.replid, at.offset, Some(snapshot)),
                None => return Ok(from_the_start),
            },
            Phase::Diverged(_) => return Ok(from_the_start),
        };
        let dir = &self.config.spool.dir;
        let stream = Log::recover(dir, "stream", self.keep()).map_err(spool_error)?;
        if let Some(mut stream) = stream
            && stream.knows(replid)
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
            return Ok((start, Some(Kept { snapshot, stream })));
        }
        tracing::info!(offset = offset.0, "going on from the target's checkpoint");
        let stream = Log::create(dir, "stream", replid, offset.0, self.keep());
        let stream = stream.map_err(spool_error)?;
        let start = Start::Resume {
            replid,
            received: offset,
            partial: Bytes::new(),
        };
        Ok((start, Some(Kept { snapshot, stream })))
    }

    /// The snapshot that is being applied, if all of it is in the spool.
    fn spooled_snapshot(&self, at: Progress) -> Result<Option<Log>, SyncError> {
        let dir = &self.config.spool.dir;
        let log = Log::recover_whole(dir, "snapshot", self.keep_whole()).map_err(spool_error)?;
        Ok(log.filter(|log| log.knows(at.replid)))
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

    /// Goes on with a snapshot that an earlier run has received and not applied to its end.
    async fn snapshot_again(
        &self,
        visit: Visit<'_>,
        conn: Conn,
        snapshot: Log,
        stream: Log,
    ) -> Result<Next, SyncError> {
        self.refuse_half_skipped(&visit.found)?;
        let target = self.take_as_found(visit).await?;
        let Phase::Snapshot(progress) = target.checkpoint.phase else {
            return Ok(Next::Again);
        };
        tracing::info!(
            applied_bytes = progress.rdb_bytes,
            of_bytes = snapshot.end(),
            "going on with the snapshot in the spool"
        );
        let manner = Manner {
            owned: target.checkpoint.owned,
            sweep: target.checkpoint.owned,
            existing: ExistingKeys::Replace,
            reason: "",
        };
        self.status.snapshot_bytes.set(snapshot.end());
        self.status.snapshot_read.set(snapshot.end());
        self.status.source_offset.set(stream.end());
        self.status.set_phase(status::Phase::Snapshot);
        let (snapshot, stream) = (Feed::new(snapshot), Feed::new(stream));
        snapshot.close();
        let receiver = self.receiver(conn, None, &stream);
        let applier = self.apply_all(target, &snapshot, &stream, manner, progress);
        Box::pin(self.session(receiver.run(), applier, &stream)).await
    }

    /// Takes the target, whose checkpoint stays what it is but for its owner.
    async fn take_as_found(&self, visit: Visit<'_>) -> Result<Target, SyncError> {
        take(visit, |found| match found {
            Found::Checkpoint(found) => Ok(Checkpoint {
                owner: self.owner,
                ..found.clone()
            }),
            Found::Nothing => Err(target::fenced(&self.config.target.endpoint.address)),
        })
        .await
    }

    /// A session that goes on in the stream.
    async fn stream(&self, visit: Visit<'_>, conn: Conn, log: Log) -> Result<Next, SyncError> {
        let target = self.take_as_found(visit).await?;
        let Phase::Stream(position) = target.checkpoint.phase else {
            return Ok(Next::Again);
        };
        if target.checkpoint.leased {
            self.leases.suspect();
        }
        tracing::info!(
            offset = position.offset.0,
            db = position.db,
            "resuming the stream"
        );
        let feed = Feed::new(log);
        feed.set_applied(position.offset.0).map_err(spool_error)?;
        self.show_position(&feed, position);
        let receiver = self.receiver(conn, None, &feed);
        let applier = self.apply_stream(target, &feed, position, false);
        Box::pin(self.session(receiver.run(), applier, &feed)).await
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

    /// A session that begins with a snapshot.
    async fn full(
        &self,
        mut visit: Visit<'_>,
        conn: Conn,
        replid: ReplId,
        offset: ReplOffset,
    ) -> Result<Next, SyncError> {
        visit.refuse_source(replid)?;
        let manner = self.manner(&mut visit).await?;
        let progress = Progress {
            replid,
            offset,
            rdb_bytes: 0,
        };
        let target = take(visit, |found| {
            let epoch = match found {
                Found::Nothing => 0,
                Found::Checkpoint(found) => found.epoch,
            };
            Ok(Checkpoint {
                epoch,
                owner: self.owner,
                phase: Phase::Snapshot(progress),
                owned: manner.owned,
                leased: true,
            })
        })
        .await?;
        self.status.full_resyncs.add(manner.reason, 1);
        tracing::info!(%replid, offset = offset.0, reason = manner.reason, "full sync");
        let dir = &self.config.spool.dir;
        let snapshot = Feed::new(
            Log::create(dir, "snapshot", replid, 0, self.keep_whole()).map_err(spool_error)?,
        );
        let stream = Feed::new(
            Log::create(dir, "stream", replid, offset.0, self.keep()).map_err(spool_error)?,
        );
        self.status.snapshot_read.set(0);
        self.status.source_offset.set(offset.0);
        let receiver = self.receiver(conn, Some(&snapshot), &stream);
        let applier = self.apply_all(target, &snapshot, &stream, manner, progress);
        Box::pin(self.session(receiver.run(), applier, &stream)).await
    }

    /// Applies the snapshot, then the stream.
    async fn apply_all(
        &self,
        target: Target,
        snapshot: &Feed,
        stream: &Feed,
        manner: Manner,
        progress: Progress,
    ) -> Result<(), SyncError> {
        let (target, position) = self
            .apply_snapshot(target, snapshot, manner, progress)
            .await?;
        if !self.config.source.sync_aof {
            tracing::info!("the snapshot is applied, and sync_aof is false: done");
        }
        self.show_position(stream, position);
        if !self.config.source.sync_aof {
            stream.close();
        }
        self.apply_stream(target, stream, position, true).await
    }

    /// How a snapshot is to be written, given what the target holds.
    async fn manner(&self, visit: &mut Visit<'_>) -> Result<Manner, SyncError> {
        let target = &self.config.target;
        let refuse = |what: String| SyncError::stop(Side::Target, &target.endpoint.address, what);
        if let Found::Checkpoint(found) = &visit.found {
            let reason = match found.phase {
                Phase::Snapshot(_) => "snapshot_unfinished",
                Phase::Stream(_) => "history_lost",
                Phase::Diverged(_) => "diverged",
            };
            if reason == "history_lost" && !self.config.resync_on_history_lost {
                let what = "it no longer has the history from our position on, and checkpoint.on_history_lost is \"fail\"";
                return Err(SyncError::stop(
                    Side::Source,
                    &self.config.source.endpoint.address,
                    what,
                ));
            }
            self.refuse_half_skipped(&visit.found)?;
            return Ok(Manner {
                owned: found.owned,
                sweep: found.owned,
                existing: ExistingKeys::Replace,
                reason,
            });
        }
        if target.empty_before {
            tracing::warn!("advanced.empty_db_before_sync: FLUSHALL at the target");
            visit.flush().await?;
        }
        let foreign = visit.foreign_keys().await?;
        if target.existing == ExistingKeys::Fail
            && !foreign.is_empty()
            && self.config.source.sync_rdb
        {
            let list: Vec<String> = foreign
                .iter()
                .map(|(db, keys)| format!("db{db}: {keys}"))
                .collect();
            return Err(refuse(format!(
                "the target holds keys already ({}); empty it, or set rdb_restore_command_behavior to \"rewrite\" (replace them) or \"skip\" (leave them); nothing was written",
                list.join(", ")
            )));
        }
        let owned = foreign.is_empty() && self.config.source.sync_rdb;
        let existing = if owned {
            ExistingKeys::Replace
        } else {
            target.existing
        };
        Ok(Manner {
            owned,
            sweep: false,
            existing,
            reason: "first",
        })
    }

    /// Refuses to go on where keys of the target were to be left as they are, and a snapshot broke off.
    fn refuse_half_skipped(&self, found: &Found) -> Result<(), SyncError> {
        let target = &self.config.target;
        let Found::Checkpoint(found) = found else {
            return Ok(());
        };
        if found.owned || target.existing != ExistingKeys::Skip {
            return Ok(());
        }
        let what = format!(
            "an earlier snapshot into a target that held keys was left as {}; with existing keys \"skip\" nobody can tell whose a key is: set \"replace\", or empty the target and delete its checkpoint",
            target::phase_word(&found.phase)
        );
        Err(SyncError::stop(
            Side::Target,
            &target.endpoint.address,
            what,
        ))
    }

    /// Applies the snapshot from `progress` on, over as many connections as it takes.
    async fn apply_snapshot(
        &self,
        mut target: Target,
        feed: &Feed,
        manner: Manner,
        mut progress: Progress,
    ) -> Result<(Target, Position), SyncError> {
        let mut existing = manner.existing;
        let applied = loop {
            self.leases.clear();
            if progress.rdb_bytes > 0 {
                // What was written before this run has leases that it does not know.
                self.leases.suspect();
            }
            let applier = SnapshotApplier::new(
                self.common(),
                feed,
                &target,
                progress,
                existing,
                manner.sweep,
            );
            match applier.run(&mut target).await {
                Ok(applied) => break applied,
                Err(error) if error.class == Class::Reconnect => {
                    target = self.retake(&error, &target.checkpoint).await?;
                    // What is there now may be our own half-done work.
                    if manner.owned || existing != ExistingKeys::Skip {
                        existing = ExistingKeys::Replace;
                    }
                    progress.rdb_bytes = match target.checkpoint.phase {
                        Phase::Snapshot(found)
                            if (found.replid, found.offset)
                                == (progress.replid, progress.offset) =>
                        {
                            found.rdb_bytes
                        }
                        // It has fallen back to a time before this snapshot.
                        _ => 0,
                    };
                    target.checkpoint.phase = Phase::Snapshot(progress);
                    tracing::info!(
                        applied_bytes = progress.rdb_bytes,
                        "going on with the snapshot"
                    );
                }
                Err(error) => return Err(error),
            }
        };
        if let Some(keys) = &applied.keys {
            self.sweep(keys).await?;
        }
        feed.with_log(Log::clear).map_err(spool_error)?;
        tracing::info!(
            keys = self.status.snapshot_keys_total.get(),
            "snapshot applied"
        );
        let position = Position {
            replid: progress.replid,
            offset: progress.offset,
            db: applied.stream_db,
        };
        target.checkpoint.phase = Phase::Stream(position);
        Ok((target, position))
    }

    async fn sweep(&self, keys: &crate::pipeline::KeySet) -> Result<(), SyncError> {
        let removed = sweep(self.config, keys, SHRUNK_PERCENT).await?;
        if removed > 0 {
            tracing::info!(removed, "removed keys that are gone at the source");
        }
        Ok(())
    }

    /// Applies the stream, and ends leases as it passes them.
    async fn apply_stream(
        &self,
        target: Target,
        feed: &Feed,
        position: Position,
        announce: bool,
    ) -> Result<(), SyncError> {
        let settling = settle_forever(self.config, self.status, feed, &self.leases);
        tokio::select! {
            biased;
            result = self.apply_units(target, feed, position, announce) => result?,
            never = settling => match never {},
        }
        // The stream has ended in good order: from here on the target ends its keys by itself.
        end_all(self.config, &self.leases).await
    }

    /// Applies the stream from `position` on, over as many connections as it takes.
    async fn apply_units(
        &self,
        mut target: Target,
        feed: &Feed,
        mut position: Position,
        mut announce: bool,
    ) -> Result<(), SyncError> {
        loop {
            let ours = target.checkpoint.clone();
            let mut applier = StreamApplier::new(
                self.common(),
                feed,
                target,
                position,
                self.source_version.version,
            );
            if announce {
                applier.announce(position);
            }
            if !self.config.source.sync_aof {
                applier.end_here();
            }
            let error = match applier.run().await {
                Ok(_) => return Ok(()),
                Err(error) if error.class != Class::Reconnect => return Err(error),
                Err(error) => error,
            };
            target = self.retake(&error, &ours).await?;
            let resync = |what: &str| {
                SyncError::resync(Side::Target, &self.config.target.endpoint.address, what)
            };
            position = match target.checkpoint.phase {
                Phase::Stream(found) => found,
                // The first unit never arrived: nothing of the stream is applied.
                Phase::Snapshot(_) if announce => {
                    target.checkpoint.phase = Phase::Stream(position);
                    position
                }
                Phase::Snapshot(_) | Phase::Diverged(_) => {
                    return Err(resync("its checkpoint fell back"));
                }
            };
            announce = announce && position.offset.0 == feed.applied();
            let kept = feed.with_log(|log| log.start()..=log.end());
            let is_known = feed.with_log(|log| log.knows(position.replid));
            if !is_known || !kept.contains(&position.offset.0) {
                return Err(resync("its checkpoint is outside of what is kept here"));
            }
            tracing::info!(
                offset = position.offset.0,
                "the target is back; going on from its checkpoint"
            );
            if target.checkpoint.leased {
                self.leases.suspect();
            }
            feed.rewind(position.offset.0);
            self.status.applied_offset.set(position.offset.0);
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

    /// Runs both halves of a session until one of them ends, or a stop is asked for.
    async fn session(
        &self,
        receiver: impl Future<Output = Result<Opened, SyncError>>,
        applier: impl Future<Output = Result<(), SyncError>>,
        feed: &Feed,
    ) -> Result<Next, SyncError> {
        let mut applier = std::pin::pin!(applier);
        let ended = {
            let receiver = std::pin::pin!(receiver);
            tokio::select! {
                biased;
                () = self.stop.requested() => Ended::Asked,
                received = receiver => Ended::Received(received.map(Box::new)),
                applied = &mut applier => Ended::Applied(applied),
            }
        };
        let result = match ended {
            Ended::Asked => {
                tracing::info!("asked to stop: applying what is in flight");
                self.drain(applier, feed).await.map(|()| Next::Done)
            }
            Ended::Received(Ok(answer)) => Ok(Next::NewHistory(answer)),
            Ended::Received(Err(error)) if error.class == Class::Resync => {
                tracing::warn!(%error, "the snapshot broke off; asking for another one");
                self.status.reconnects.add("source", 1);
                Ok(Next::Again)
            }
            Ended::Received(Err(error)) => {
                // What was received before it failed is still good.
                let _ = self.drain(applier, feed).await;
                Err(error)
            }
            Ended::Applied(Ok(())) => Ok(Next::Done),
            Ended::Applied(Err(error)) if error.class == Class::Resync => {
                tracing::warn!(%error, "beginning again from the target's checkpoint");
                Ok(Next::Again)
            }
            Ended::Applied(Err(error)) => Err(error),
        };
        feed.with_log(Log::flush).map_err(spool_error)?;
        result
    }

    /// Lets the applier work off what was received, as long as the configuration allows.
    async fn drain(
        &self,
        applier: impl Future<Output = Result<(), SyncError>>,
        feed: &Feed,
    ) -> Result<(), SyncError> {
        if self.status.phase() != status::Phase::Stream {
            return Ok(());
        }
        feed.close();
        match tokio::time::timeout(self.config.shutdown_timeout, applier).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!(
                    unapplied_bytes = feed.unapplied_bytes(),
                    "not everything received could be applied in time; it is in the spool, and the checkpoint tells from where to go on"
                );
                Ok(())
            }
        }
    }
}

/// What the spool kept of an earlier run.
struct Kept {
    /// The snapshot, where it is not applied to its end.
    snapshot: Option<Log>,
    stream: Log,
}

enum Ended {
    Asked,
    Received(Result<Box<Opened>, SyncError>),
    Applied(Result<(), SyncError>),
}

/// How a snapshot is written.
#[derive(Debug, Clone, Copy)]
struct Manner {
    owned: bool,
    sweep: bool,
    existing: ExistingKeys,
    reason: &'static str,
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
    let mut decoder = resp::CommandDecoder::new(stream_limits());
    let mut pos = boundary;
    let mut rest: Vec<u8> = Vec::new();
    while let Some(chunk) = log.read(pos).map_err(spool_error)? {
        pos += chunk.bytes.len() as u64;
        rest.extend_from_slice(&chunk.bytes);
        let mut done = 0;
        while let Some(frame) =
            decoder
                .poll(rest.get(done..).unwrap_or_default())
                .map_err(|error| {
                    SyncError::local(format!(
                        "the spool holds no RESP near position {pos}: {error}"
                    ))
                })?
        {
            done += frame.len;
        }
        rest.drain(..done);
    }
    Ok(Bytes::from(rest))
}
