//! The only place that decides: where to start, when to try again, when to stop.
//!
//! One run of the daemon is a row of sessions; a session is one history of the source. Within it the
//! receiver reconnects to the source by itself, and the applier to the target; it ends when the source
//! begins a new history, when the target has fallen back behind what is kept here, or for good.

mod cluster;
mod file;
mod full;
mod gone;
mod losses;
mod scan;
mod session;
mod stream;
mod to_file;

use std::cell::Cell;

use bytes::Bytes;
use replica::{ReplId, ReplOffset, Start};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::chance;
use crate::checkpoint::{Checkpoint, Phase, Position, Progress};
use crate::client::Client;
use crate::config::{Config, Reader, Writer};
use crate::error::{Class, Side, SyncError};
use crate::handover::{admit, watch_clients_forever};
use crate::pipeline::cluster::Memory;
use crate::pipeline::{Common, Leases, Repairs, Tide};
use crate::shard::Held;
use crate::shard::claims::Claims;
use crate::source::{self, Conn, Opened, Receiver, offers_rdb_channel, spool_error};
use crate::spool::{self, Feed, Keep, Log, Syncer};
use crate::status::{self, Status};
use crate::stop::Stop;
use crate::target::{self, Databases, Found, Target, Visit};

/// Attempts at the first contact: enough for a hiccup, short enough to say soon what is wrong.
const FIRST_CONTACT_ATTEMPTS: u32 = 6;

/// A source that has closed so many connections in a row at PSYNC does not offer it.
const CLOSED_MAX: u32 = 3;

/// Runs a link until it is asked to stop or cannot go on.
///
/// # Errors
/// What ended it; [`SyncError::exit_code`] is the process's.
pub(crate) async fn run(config: &Config, status: &Status, stop: &Stop) -> Result<(), SyncError> {
    let dir = &config.spool.dir;
    let _lock = spool::lock(dir)
        .map_err(|error| SyncError::local(format!("spool directory {}: {error}", dir.display())))?;
    status.spool_limit.set(config.spool.max_bytes);
    let owner = chance::number();
    status.owner.set(owner);
    let supervisor = Supervisor {
        config,
        status,
        stop,
        syncer: Syncer::spawn().map_err(spool_error)?,
        source_version: match config.reader {
            Reader::Sync | Reader::Scan => source_version(config, stop).await?,
            Reader::Rdb(_) | Reader::Aof(_) => SourceVersion::default(),
        },
        leases: match config.reader {
            Reader::Sync | Reader::Scan | Reader::Rdb(_) => Leases::default(),
            Reader::Aof(_) => Leases::of_a_recording(),
        },
        repairs: Repairs::default(),
        databases: Databases::default(),
        tide: match config.reader {
            Reader::Sync | Reader::Scan | Reader::Rdb(_) => Tide::default(),
            Reader::Aof(_) => Tide::of_a_recording(),
        },
        memory: Cell::default(),
        owner,
        taken_from: Cell::new(None),
        closed: Cell::new(0),
        channel_losses: Cell::new(0),
        stopping_since: Cell::new(None),
        full_sync: Cell::new(None),
    };
    let result = match (&config.writer, &config.reader) {
        (Writer::File(to), _) => Box::pin(supervisor.to_file(to)).await,
        (Writer::Redis, Reader::Sync) => tokio::select! {
            biased;
            result = supervisor.sessions() => result,
            never = watch_clients_forever(config, status) => match never {},
        },
        (Writer::Redis, Reader::Scan) => tokio::select! {
            biased;
            result = Box::pin(supervisor.scan()) => result,
            never = watch_clients_forever(config, status) => match never {},
        },
        (Writer::Redis, Reader::Rdb(files)) => Box::pin(supervisor.rdb_files(files)).await,
        (Writer::Redis, Reader::Aof(reader)) => Box::pin(supervisor.aof(reader)).await,
    };
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
    if info.mode() == Some("sentinel") {
        let what = "this is a Sentinel; use the address of the master it watches";
        return Err(SyncError::stop(Side::Source, &endpoint.address, what));
    }
    let is_whole = config.shard.is_some() || config.scan.cluster;
    if info.mode() == Some("cluster") && !is_whole {
        let key = match config.reader {
            Reader::Scan => "scan_reader.cluster",
            Reader::Sync | Reader::Rdb(_) | Reader::Aof(_) => "sync_reader.cluster",
        };
        tracing::warn!(
            "the source is a node of a cluster: only the slots of this one node are read, and resharding is not followed; {key} = true follows all of it"
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
    /// What is known of a cluster's slots.
    memory: Cell<Memory>,
    /// Names this process in checkpoints.
    owner: u64,
    /// Whose checkpoint this run found when it first took the target; 0 if there was none.
    taken_from: Cell<Option<u64>>,
    /// How often in a row the source has closed the connection at PSYNC.
    closed: Cell<u32>,
    /// How many snapshots have broken off in a row that had a connection of their own.
    channel_losses: Cell<u32>,
    /// A session has noticed that a stop was asked for.
    stopping_since: Cell<Option<Instant>>,
    /// Leave for the full sync that is asked for.
    full_sync: Cell<Option<OwnedSemaphorePermit>>,
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
            if let Some(record) = visit.switch().cloned() {
                self.note_switch(&record);
                if record.is_of_scan() {
                    drop(visit);
                    return Box::pin(self.scan()).await.map(|()| true);
                }
                if !record.applies_late() {
                    opened = None;
                    let watched = Box::pin(self.watch_late(visit, &record, attempts_max)).await;
                    attempts_max = u32::MAX;
                    match self.unless_hiccup(watched)? {
                        Next::Done => return Ok(true),
                        Next::NewHistory(_) | Next::Again => {
                            tokio::time::sleep(backoff.pause()).await;
                        }
                    }
                    continue;
                }
            }
            self.refuse_after_switch(&visit)?;
            let (start, kept) = self.choose(&visit.found)?;
            if start == Start::Full && visit.switch().is_some() {
                return Err(self.switched());
            }
            let opened_now = match opened.take() {
                Some(opened) => Some(opened),
                None => {
                    self.wait_for_turn(&start).await;
                    contact(self.stop, attempts_max, || self.open(start.clone())).await?
                }
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
                // It may be restarting: a position is not given up for that.
                Some(Opened::Refused {
                    error,
                    is_certain: false,
                }) if scan::was_exact(&visit.found) => Err(error),
                Some(Opened::Refused { error, .. }) => {
                    drop(kept);
                    self.may_scan(&visit.found, error)?;
                    drop(visit);
                    return Box::pin(self.scan()).await.map(|()| true);
                }
            };
            match self.unless_hiccup(session)? {
                // The switch was made.
                Next::Done
                    if self.status.handover.state().is_over() && !self.stop.is_requested() => {}
                Next::Done => return Ok(true),
                Next::NewHistory(answer) => opened = Some(*answer),
                Next::Again => tokio::time::sleep(backoff.pause()).await,
            }
        }
    }

    /// A connection that broke while the session was set up is no more than a hiccup.
    fn unless_hiccup(&self, session: Result<Next, SyncError>) -> Result<Next, SyncError> {
        match session {
            Err(error) if error.class == Class::Reconnect => {
                tracing::warn!(%error, "beginning again");
                Ok(Next::Again)
            }
            session => session,
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
        if visit.switch().is_some() {
            // The target is the application's.
            return Ok(true);
        }
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
        let config = &self.config.source;
        let is_full = start == Start::Full;
        let rdb_channel = is_full && offers_rdb_channel(config, self.channel_losses.get());
        let version = self.source_version;
        let opened = Box::pin(source::open(
            config,
            version,
            start,
            rdb_channel,
            self.status,
        ))
        .await?;
        if let Opened::Refused { error, is_certain } = opened {
            self.closed.set(self.closed.get() + 1);
            // Once may have any reason; a proxy that does not know a command does it each time.
            return match is_certain || self.closed.get() >= CLOSED_MAX {
                true => Ok(Opened::Refused { error, is_certain }),
                false => Err(error),
            };
        }
        self.closed.set(0);
        Ok(opened)
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
            // Where the source offers PSYNC now, a snapshot goes over what was read by SCAN.
            Phase::Diverged(_) | Phase::Scan(_) => return Ok(from_the_start),
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
            Some(snapshot) => Box::pin(self.snapshot_again(visit, conn, snapshot, stream)).await,
            None => self.stream(visit, conn, stream).await,
        }
    }

    /// A snapshot is about to be asked for: no more than so many at once of a host.
    async fn wait_for_turn(&self, start: &Start) {
        self.full_sync.take();
        let (Start::Full, Some(shard)) = (start, &self.config.shard) else {
            return;
        };
        let source = &self.config.source;
        let plan = shard.group.plan();
        let address = plan.addresses.get(shard.index);
        let address = address.unwrap_or(&source.endpoint.address);
        let turn = shard.group.may_sync(address, source.full_syncs_per_host);
        tokio::select! {
            biased;
            () = self.stop.requested() => {}
            turn = turn => self.full_sync.set(turn),
        }
    }

    /// The slots of a shard's snapshot: those that it is to hold, and no other link does.
    async fn claim_slots(&self) -> Result<Option<Held>, SyncError> {
        let Some(shard) = &self.config.shard else {
            return Ok(None);
        };
        let slots = shard.group.plan().slots_of(shard.index);
        let mut claims = Claims::connect(self.config, shard.group.claims_key()).await?;
        let mut claimed = claims.claim(&self.config.link_name, &slots, None).await?;
        claimed.sort_unstable();
        Ok(Some(Held::of(claimed.into_iter())))
    }

    /// From here on the link has the slots that its checkpoint says.
    fn begin_slots(&self, target: &Target) {
        // In a cluster the slots themselves say it: that was read when it was taken.
        if target.cluster.is_none() {
            begin_slots(self.config, &target.checkpoint);
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
        let mut target = take(visit, |found| match found {
            found if taken_by(found) != seen => Err(self.outrun()),
            Found::Checkpoint(found) => Ok(Checkpoint {
                owner: self.owner,
                ..found.clone()
            }),
            Found::Nothing => Err(target::fenced(&self.config.target.endpoint.address)),
        })
        .await?;
        admit(self.config, self.status).await?;
        self.tell_nodes(&mut target);
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
            limits: &self.config.limits,
            status: self.status,
            syncer: &self.syncer,
            snapshot,
            stream,
            taken_at: stream.end(),
            channel_losses: &self.channel_losses,
            paused: Cell::new(false),
            turn: Cell::new(self.full_sync.take()),
            conn,
        }
    }

    /// [`retake`] for this link.
    async fn retake(&self, error: &SyncError, ours: &Checkpoint) -> Result<Target, SyncError> {
        let mut target = retake(self.config, self.status, error, ours).await?;
        self.tell_nodes(&mut target);
        Ok(target)
    }

    /// Lets the status tell of the nodes of a target that is ours now.
    fn tell_nodes(&self, target: &mut Target) {
        if let Some(cluster) = &mut target.cluster {
            cluster.report_to(self.status.nodes.clone());
        }
    }
}

/// Takes the target back after `error`, however long that takes.
///
/// # Errors
/// As [`target::retake`], but for what waiting mends.
pub(crate) async fn retake(
    config: &Config,
    status: &Status,
    error: &SyncError,
    ours: &Checkpoint,
) -> Result<Target, SyncError> {
    tracing::warn!(%error, "lost the target, connecting again");
    status.reconnects.add("target", 1);
    let mut backoff = Backoff::default();
    loop {
        match target::retake(&config.target, &config.link_name, ours).await {
            Err(error) if error.class == Class::Reconnect => {
                let pause = backoff.pause();
                tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "cannot reach the target");
                tokio::time::sleep(pause).await;
            }
            Ok(target) => {
                // (What waiting mends is asked again behind another take.)
                match admit(config, status).await {
                    Err(error) if error.class == Class::Reconnect => {
                        tracing::warn!(%error, "cannot reach the target");
                        tokio::time::sleep(backoff.pause()).await;
                    }
                    admitted => return admitted.map(|()| target),
                }
            }
            other => return other,
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

/// A shard's link has the slots that its checkpoint says.
fn begin_slots(config: &Config, checkpoint: &Checkpoint) {
    let (Some(shard), Some(held)) = (&config.shard, &checkpoint.slots) else {
        return;
    };
    let offset = match checkpoint.phase {
        Phase::Snapshot(at) => at.offset.0,
        Phase::Stream(at) | Phase::Diverged(at) => at.offset.0,
        Phase::Scan(_) => return,
    };
    shard.begin(held, offset, checkpoint.unseen.is_some());
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
