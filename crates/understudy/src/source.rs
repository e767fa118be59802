//! The link to the source: a thin shell of sockets and timers around [`replica::Link`].
//!
//! One future does only `read, append to the spool, acknowledge`, so that the source's output buffer
//! never fills because of a slow target. It reconnects by itself as long as a partial resync goes on
//! where it stopped; a new history ends it. Where the source sends the snapshot on a connection of its own (`source/channel.rs`),
//! the same future reads both, in turns.

mod channel;

use std::cell::Cell;
use std::time::Duration;

use bytes::BytesMut;
use replica::{Event, Link, Poll, ReplId, ReplOffset, Start};
use tokio::io::AsyncReadExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::clock::unix_ms;
use crate::config::{Endpoint, Limits, SourceConfig, SpoolConfig};
use crate::error::{Class, Side, SyncError, io_word};
use crate::net::{self, Bulk, Stream};
use crate::replicas;
use crate::spool::{Feed, Log, Syncer};
use crate::status::{Phase, Status};
use crate::supervise::SourceVersion;
use channel::{Turn, read_either};

/// Space made for one read.
const READ_BYTES: usize = 256 << 10;
/// A read is only begun with at least this much space.
const READ_BYTES_MIN: usize = 64 << 10;
const TICK: Duration = Duration::from_millis(100);
/// With a full spool, one read in this time.
const TRICKLE: Duration = Duration::from_secs(5);
/// With a full disk, no more than this waits in memory for room.
const PENDING_BYTES_MAX: usize = 4 << 20;
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// A snapshot on a connection of its own that has broken off so often in a row is not offered again before one is in.
const CHANNEL_LOSSES_MAX: u32 = 2;

/// A connection whose PSYNC was answered.
pub(crate) struct Conn {
    stream: Stream,
    link: Link,
    buf: BytesMut,
    epoch: Instant,
    /// The connection that the snapshot comes on, where it is another one.
    snapshot: Option<Box<Self>>,
}

/// The answer to PSYNC.
pub(crate) enum Opened {
    /// The stream goes on where we were; the history's name may be new.
    Continue { conn: Conn, replid: ReplId },
    /// A new history: its snapshot follows, then the stream from `offset` on.
    Full {
        conn: Conn,
        replid: ReplId,
        offset: ReplOffset,
    },
    /// It does not let us replicate; reading it by SCAN may be possible.
    Refused {
        error: SyncError,
        /// It said so; else it closed the connection, which may have another reason.
        is_certain: bool,
    },
}

impl Opened {
    /// A refusal as the error that it is where there is no other way.
    pub(crate) fn or_error(self) -> Result<Self, SyncError> {
        match self {
            Self::Refused { error, .. } => Err(error),
            opened => Ok(opened),
        }
    }
}

/// What PSYNC is answered, before an answer is good for anything.
enum Answer {
    Opened(Opened),
    /// The snapshot comes on a second connection.
    RdbChannel(Conn, replica::RdbChannel),
}

/// Whether a snapshot on a connection of its own is worth asking for, after so many that broke off in a row.
pub(crate) fn offers_rdb_channel(config: &SourceConfig, losses: u32) -> bool {
    config.rdb_channel && config.diskless && config.sync_aof && losses < CHANNEL_LOSSES_MAX
}

/// Connects, shakes hands and asks for the history from `start` on; a snapshot on a connection of its own is offered where
/// `rdb_channel` says so.
///
/// # Errors
/// Class reconnect for what waiting may mend; stop for what it will not.
pub(crate) async fn open(
    config: &SourceConfig,
    version: SourceVersion,
    start: Start,
    rdb_channel: bool,
    status: &Status,
) -> Result<Opened, SyncError> {
    let master = Box::pin(config.endpoint.resolved(Side::Source)).await?;
    if let Some(follow) = &config.endpoint.follow {
        // Before anything else: a master that is another one meanwhile is seen.
        follow.connects(&master.address);
    }
    let endpoint = match config.prefer_replica {
        true => Box::pin(replicas::choose(master.clone(), &start)).await?,
        false => master.clone(),
    };
    // Boxed: what asks for a second connection is large.
    let asked = open_at(
        config,
        version,
        &endpoint,
        start.clone(),
        rdb_channel,
        status,
    );
    match Box::pin(asked).await? {
        Opened::Refused { error, .. } if endpoint.address != master.address => {
            tracing::warn!(%error, replica = endpoint.address, master = master.address, "sync_reader.prefer_replica: this replica refuses PSYNC; following the master");
            let asked = open_at(config, version, &master, start, rdb_channel, status);
            Box::pin(asked).await
        }
        opened => Ok(opened),
    }
}

/// [`open`] at this very server.
async fn open_at(
    config: &SourceConfig,
    version: SourceVersion,
    endpoint: &Endpoint,
    start: Start,
    rdb_channel: bool,
    status: &Status,
) -> Result<Opened, SyncError> {
    let options = options(config, version, endpoint, rdb_channel).await?;
    let link = Link::new(options.clone(), start.clone(), 0);
    let conn = Conn::connect(endpoint, link).await?;
    let (conn, channel) = match conn.answer(config, status).await? {
        Answer::Opened(opened) => return Ok(opened),
        Answer::RdbChannel(conn, channel) => (conn, channel),
    };
    // What a snapshot holds goes by the version that its own connection names, which nobody waits for who moves slots.
    let of_snapshot = replica::Options {
        version: announced_version(version),
        ..options.clone()
    };
    let opened = Box::pin(channel::open(config, endpoint, of_snapshot, conn, channel)).await;
    let error = match opened {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    tracing::warn!(%error, form = channel.name(), "the source offers the snapshot on a connection of its own, and it does not come about: asking for it in front of the stream");
    let options = replica::Options {
        rdb_channel: false,
        ..options
    };
    let conn = Conn::connect(endpoint, Link::new(options, start, 0)).await?;
    match conn.answer(config, status).await? {
        Answer::Opened(opened) => Ok(opened),
        Answer::RdbChannel(..) => {
            let what = "the source offers a second connection that nobody asked for";
            Err(SyncError::stop(
                Side::Source,
                &config.endpoint.address,
                what,
            ))
        }
    }
}

/// How to speak to this server.
async fn options(
    config: &SourceConfig,
    version: SourceVersion,
    endpoint: &Endpoint,
    rdb_channel: bool,
) -> Result<replica::Options, SyncError> {
    let auth = &config.endpoint.auth;
    let credentials = auth.credentials().await;
    let credentials = credentials
        .map_err(|what| SyncError::reconnect(Side::Source, &config.endpoint.address, what))?;
    let (username, password) = credentials.map_or((None, None), |found| {
        let password = found.password.reveal().to_owned();
        (found.username, Some(password))
    });
    let announced = announced_version(version);
    Ok(replica::Options {
        username,
        password,
        psync_command: config.psync_at(&endpoint.address).to_owned(),
        // A replica that names its version would be waited for by whoever moves slots; without `capa eof` a Valkey sends
        // the TTLs of hash fields all the same.
        capa_eof: config.diskless && !(config.endpoint.follow.is_some() && announced.is_some()),
        rdb_channel,
        version: announced.filter(|_| config.endpoint.follow.is_none()),
        ack: config.ack,
        timeouts: replica::Timeouts::default(),
    })
}

/// A Valkey from 9 on sends the TTLs of hash fields only to a replica that names a version which knows
/// them; to all others the announcement would only be noise.
fn announced_version(source: SourceVersion) -> Option<String> {
    match (source.fork, source.version) {
        (Some(rewrite::Fork::Valkey), Some(version)) if version.major >= 9 => {
            Some(version.to_string())
        }
        _ => None,
    }
}

impl Conn {
    async fn connect(endpoint: &Endpoint, link: Link) -> Result<Self, SyncError> {
        let stream = net::connect(endpoint, Side::Source, Bulk::Reading).await?;
        Ok(Self {
            stream,
            link,
            buf: BytesMut::new(),
            epoch: Instant::now(),
            snapshot: None,
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Drives the handshake until PSYNC is answered.
    async fn answer(mut self, config: &SourceConfig, status: &Status) -> Result<Answer, SyncError> {
        let fail = |error: &replica::Error| link_error(error, config);
        let mut tick = tokio::time::interval(TICK);
        loop {
            let polled = match self.link.poll() {
                Err(error) if is_refusal(&error) => {
                    let error = fail(&error);
                    let is_certain = true;
                    return Ok(Answer::Opened(Opened::Refused { error, is_certain }));
                }
                polled => polled.map_err(|error| fail(&error))?,
            };
            match polled {
                Poll::Event(Event::FullResync { replid, offset }) => {
                    status.set_phase(Phase::WaitingBgsave);
                    return Ok(Answer::Opened(Opened::Full {
                        conn: self,
                        replid,
                        offset,
                    }));
                }
                Poll::Event(Event::RdbChannel(channel)) => {
                    status.set_phase(Phase::WaitingBgsave);
                    return Ok(Answer::RdbChannel(self, channel));
                }
                Poll::Event(Event::Continue { replid, .. }) => {
                    return Ok(Answer::Opened(Opened::Continue { conn: self, replid }));
                }
                Poll::Event(other) => {
                    let what = format!("the link gave {other:?} before PSYNC was answered");
                    return Err(SyncError::stop(
                        Side::Source,
                        &config.endpoint.address,
                        what,
                    ));
                }
                Poll::NeedMore => {}
            }
            // After the poll: what it has made us ask goes out before anything is waited for.
            while let Some(out) = self.link.output() {
                net::send(&mut self.stream, &out)
                    .await
                    .map_err(|error| broken(&error, config))?;
            }
            tokio::select! {
                biased;
                read = self.read(None) => match read {
                    Ok(0) => {
                        let waits_for_psync = self.link.waits_for_psync();
                        let error = self.link.eof();
                        let is_certain = false;
                        return match waits_for_psync {
                            true => Ok(Answer::Opened(Opened::Refused { error: fail(&error), is_certain })),
                            false => Err(fail(&error)),
                        };
                    }
                    Ok(_) => self.feed(),
                    Err(error) => return Err(broken(&error, config)),
                },
                _ = tick.tick() => {
                    let now = self.now_ms();
                    self.link.tick(now).map_err(|error| fail(&error))?;
                }
            }
        }
    }

    /// Hands over the snapshot that follows, piece by piece; then the connection ends, and nobody follows this history.
    ///
    /// # Errors
    /// As [`open`]; what `take` gives.
    pub(crate) async fn snapshot(
        mut self,
        config: &SourceConfig,
        mut take: impl FnMut(&[u8]) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        loop {
            match self.event(config).await? {
                Event::Snapshot(bytes) => take(&bytes)?,
                Event::SnapshotEnd { .. } => return Ok(()),
                _ => {}
            }
        }
    }

    /// `bytes_max`: where the rate is limited.
    async fn read(&mut self, bytes_max: Option<u64>) -> std::io::Result<usize> {
        if self.buf.capacity() - self.buf.len() < READ_BYTES_MIN {
            self.buf.reserve(READ_BYTES);
        }
        match bytes_max {
            None => self.stream.read_buf(&mut self.buf).await,
            Some(bytes_max) => {
                let mut some = (&mut self.stream).take(bytes_max);
                some.read_buf(&mut self.buf).await
            }
        }
    }

    fn feed(&mut self) {
        self.link.feed(self.buf.split().freeze());
    }
}

/// Whether nobody, or not our user, may replicate from there.
fn is_refusal(error: &replica::Error) -> bool {
    error.class() == replica::Class::PsyncRefused
        || matches!(error.kind, replica::ErrorKind::NoPerm { .. })
}

fn broken(error: &std::io::Error, config: &SourceConfig) -> SyncError {
    SyncError::reconnect(Side::Source, &config.endpoint.address, io_word(error))
}

fn link_error(error: &replica::Error, config: &SourceConfig) -> SyncError {
    let address = &config.endpoint.address;
    match error.class() {
        // The password may be another one by now.
        replica::Class::Fatal
            if config.endpoint.auth.may_change()
                && matches!(error.kind, replica::ErrorKind::Auth { .. }) =>
        {
            let origin = config.endpoint.auth.origin().unwrap_or_default();
            SyncError::reconnect(Side::Source, address, format!("{error}; {origin}"))
        }
        replica::Class::Reconnect => SyncError::reconnect(Side::Source, address, error),
        replica::Class::Fatal => SyncError::stop(Side::Source, address, error),
        replica::Class::PsyncRefused => SyncError::stop(
            Side::Source,
            address,
            format!(
                "{error}; allow PSYNC there (ACL: +psync +replconf +ping), or set sync_reader.psync_command if it is renamed"
            ),
        ),
    }
}

/// Receives one history into its feeds.
pub(crate) struct Receiver<'a> {
    pub(crate) config: &'a SourceConfig,
    pub(crate) version: SourceVersion,
    pub(crate) spool: &'a SpoolConfig,
    pub(crate) limits: &'a Limits,
    pub(crate) status: &'a Status,
    pub(crate) syncer: &'a Syncer,
    /// The snapshot, where one was asked for.
    pub(crate) snapshot: Option<&'a Feed>,
    pub(crate) stream: &'a Feed,
    /// The offset that the snapshot stands for.
    pub(crate) taken_at: u64,
    /// How many snapshots have broken off in a row that had a connection of their own.
    pub(crate) channel_losses: &'a Cell<u32>,
    /// Whether reading has stopped because the spool is full.
    pub(crate) paused: Cell<bool>,
    /// Leave for a full sync, until the snapshot is in.
    pub(crate) turn: Cell<Option<OwnedSemaphorePermit>>,
    pub(crate) conn: Conn,
}

impl Receiver<'_> {
    /// Runs until the history ends: `Ok` with a new one, `Err` when the source is lost for good
    /// (class stop) or the snapshot broke off (class resync).
    pub(crate) async fn run(mut self) -> Result<Opened, SyncError> {
        let mut second = self.conn.snapshot.take();
        loop {
            let Err(error) = self.follow(&mut second).await;
            if error.class != Class::Reconnect {
                return Err(error);
            }
            if self
                .snapshot
                .is_some_and(|snapshot| !snapshot.is_complete())
            {
                if second.is_some() {
                    let losses = self.channel_losses.get() + 1;
                    self.channel_losses.set(losses);
                    if losses == CHANNEL_LOSSES_MAX {
                        tracing::warn!(
                            losses,
                            "snapshots on a connection of their own break off: the next one is asked for in front of the stream"
                        );
                    }
                }
                return Err(SyncError {
                    class: Class::Resync,
                    ..error
                });
            }
            tracing::warn!(%error, offset = self.stream.end(), "lost the source, connecting again");
            self.status.reconnects.add("source", 1);
            let start = Start::Resume {
                replid: self.stream.with_log(|log| log.replid()),
                received: ReplOffset(self.stream.end()),
                partial: bytes::Bytes::copy_from_slice(&self.conn.link.partial()),
            };
            match self.reopen(start).await? {
                Opened::Continue { replid, .. } if self.is_in_doubt(replid) => {
                    let what = "it goes on under a new name before the target's position";
                    let address = &self.config.endpoint.address;
                    return Err(SyncError::resync(Side::Source, address, what));
                }
                Opened::Continue { conn, replid } => {
                    self.continued(replid)?;
                    self.conn = conn;
                }
                other @ (Opened::Full { .. } | Opened::Refused { .. }) => return Ok(other),
            }
        }
    }

    /// Tries until the source answers; only what waiting cannot mend ends it.
    async fn reopen(&self, start: Start) -> Result<Opened, SyncError> {
        let mut backoff = Backoff::default();
        loop {
            let opened = open(self.config, self.version, start.clone(), false, self.status).await;
            match opened.and_then(Opened::or_error) {
                Err(error) if error.class == Class::Reconnect => {
                    let pause = backoff.pause();
                    tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "cannot reach the source");
                    tokio::time::sleep(pause).await;
                }
                other => return other,
            }
        }
    }

    /// Whether the target's position may lie behind the place where a new history leaves the one it belongs to: only
    /// while what comes before the position is being asked for again.
    fn is_in_doubt(&self, replid: ReplId) -> bool {
        self.stream.end() < self.stream.applied()
            && replid != self.stream.with_log(|log| log.replid())
    }

    fn continued(&self, replid: ReplId) -> Result<(), SyncError> {
        self.status.partial_resyncs.add(1);
        tracing::info!(%replid, offset = self.stream.end(), "the source goes on where we stopped");
        self.stream
            .with_log(|log| log.rename(replid))
            .map_err(spool_error)
    }

    /// Reads until the connection ends, or the second one before it has brought the snapshot.
    async fn follow(
        &mut self,
        second: &mut Option<Box<Conn>>,
    ) -> Result<std::convert::Infallible, SyncError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut synced = Instant::now();
        let mut writable = true;
        let (mut last_read, mut last_of_snapshot) = (Instant::now(), Instant::now());
        let mut last = Turn::First;
        let mut read_on = 0;
        loop {
            self.drain_link()?;
            self.drain_snapshot(second)?;
            writable = writable && self.answer_source().await;
            let disk_full = self.feeds().any(|feed| feed.is_full());
            let paused = disk_full || self.stream.unapplied_bytes() > self.spool.max_bytes;
            // A little is read all the same, so that the silence is not taken for the source's.
            let is_slowed = !self.limits.may_read();
            let may_read =
                !is_slowed && (!paused || (last_read.elapsed() >= TRICKLE && self.may_pend()));
            // The snapshot has a limit of its own, at which the run ends.
            let may_read_second = second.is_some()
                && !is_slowed
                && (!disk_full || (last_of_snapshot.elapsed() >= TRICKLE && self.may_pend()));
            tokio::select! {
                biased;
                // First what is rare: a source that always has more would leave no turn for its ACKs.
                _ = tick.tick() => {
                    let is_whole = self.snapshot.is_none_or(Feed::is_complete);
                    if is_whole && self.config.endpoint.follow.as_ref().is_some_and(|follow| follow.has_moved()) {
                        let what = "the shard has another master";
                        return Err(SyncError::reconnect(Side::Source, &self.config.endpoint.address, what));
                    }
                    self.confirm();
                    let now = self.conn.now_ms();
                    self.conn.link.tick(now).map_err(|error| link_error(&error, self.config))?;
                    if let Some(second) = second {
                        let now = second.now_ms();
                        second.link.tick(now).map_err(|error| self.of_snapshot(&link_error(&error, self.config)))?;
                    }
                    self.housekeeping(paused, &mut synced)?;
                }
                _ = self.stream.moved() => self.confirm(),
                () = self.limits.reading(), if is_slowed => {}
                (from, read) = read_either(
                    may_read.then_some(&mut self.conn),
                    second.as_deref_mut().filter(|_| may_read_second),
                    last,
                    self.limits.read_bytes_max(),
                ), if may_read || may_read_second => match (from, read) {
                    (Turn::First, Ok(0)) => return Err(link_error(&self.conn.link.eof(), self.config)),
                    (Turn::First, Err(error)) => return Err(broken(&error, self.config)),
                    (Turn::Second, Ok(0)) => {
                        let error = second.as_mut().map(|second| second.link.eof());
                        if let Some(error) = error {
                            return Err(self.of_snapshot(&link_error(&error, self.config)));
                        }
                    }
                    (Turn::Second, Err(error)) => {
                        return Err(self.of_snapshot(&broken(&error, self.config)));
                    }
                    (from, Ok(bytes)) => {
                        self.limits.source_bytes.took(bytes as u64);
                        last = from;
                        match (from, second.as_mut()) {
                            (Turn::Second, Some(conn)) => {
                                last_of_snapshot = Instant::now();
                                conn.feed();
                                self.drain_snapshot(second)?;
                            }
                            _ => {
                                last_read = Instant::now();
                                self.conn.feed();
                                self.drain_link()?;
                            }
                        }
                        // The applier shares this thread: it works off what just came, once there is no more to read,
                        // and at the latest after this much.
                        read_on += bytes;
                        if read_on >= READ_BYTES_MIN {
                            read_on = 0;
                            tokio::task::yield_now().await;
                        }
                    }
                },
            }
        }
    }

    /// The end of the second connection, whatever it is: there is another way.
    fn of_snapshot(&self, error: &SyncError) -> SyncError {
        let what = format!("the snapshot's own connection: {}", error.what);
        SyncError::reconnect(Side::Source, &self.config.endpoint.address, what)
    }

    /// Tells the link what the target has confirmed; before the snapshot is in, that is nothing.
    fn confirm(&mut self) {
        if self.status.phase() == Phase::Stream {
            self.conn.link.applied(ReplOffset(self.stream.applied()));
        }
    }

    /// Writes ACKs; a source that no longer reads is not lost before it is read to its end.
    async fn answer_source(&mut self) -> bool {
        while let Some(out) = self.conn.link.output() {
            if net::send(&mut self.conn.stream, &out).await.is_err() {
                return false;
            }
        }
        true
    }

    fn drain_link(&mut self) -> Result<(), SyncError> {
        let at_ms = unix_ms();
        loop {
            let event = match self
                .conn
                .link
                .poll()
                .map_err(|error| link_error(&error, self.config))?
            {
                Poll::NeedMore => return Ok(()),
                Poll::Event(event) => event,
            };
            match event {
                Event::Stream { bytes, end } => {
                    self.stream.append(bytes, at_ms).map_err(spool_error)?;
                    assert_eq!(
                        end.0,
                        self.stream.end(),
                        "the spool is not at the link's offset"
                    );
                    self.status.source_offset.set(end.0);
                    self.status.spooled_offset.set(end.0);
                }
                Event::SnapshotStart { len } => self.snapshot_start(len)?,
                Event::Snapshot(bytes) => self.snapshot_bytes(bytes, at_ms)?,
                Event::SnapshotEnd { bytes } => self.snapshot_end(bytes)?,
                Event::FullResync { .. }
                | Event::Continue { .. }
                | Event::RdbChannel(_)
                | Event::SnapshotAt(_) => {
                    let what = "a second answer to PSYNC on one connection";
                    return Err(SyncError::stop(
                        Side::Source,
                        &self.config.endpoint.address,
                        what,
                    ));
                }
            }
        }
    }

    /// Takes what the second connection has brought; at the snapshot's end that is let go.
    fn drain_snapshot(&mut self, second: &mut Option<Box<Conn>>) -> Result<(), SyncError> {
        let at_ms = unix_ms();
        while let Some(conn) = second {
            let polled = conn.link.poll();
            let polled =
                polled.map_err(|error| self.of_snapshot(&link_error(&error, self.config)))?;
            match polled {
                Poll::NeedMore => return Ok(()),
                Poll::Event(Event::SnapshotStart { len }) => self.snapshot_start(len)?,
                Poll::Event(Event::Snapshot(bytes)) => self.snapshot_bytes(bytes, at_ms)?,
                Poll::Event(Event::SnapshotEnd { bytes }) => {
                    self.snapshot_end(bytes)?;
                    self.channel_losses.set(0);
                    self.conn.link.snapshot_is_in();
                    *second = None;
                }
                Poll::Event(other) => {
                    let what = format!("the snapshot's own connection gave {other:?}");
                    let address = &self.config.endpoint.address;
                    return Err(SyncError::stop(Side::Source, address, what));
                }
            }
        }
        Ok(())
    }

    fn snapshot_end(&self, bytes: u64) -> Result<(), SyncError> {
        tracing::info!(
            bytes,
            stream_bytes = self.stream.end() - self.taken_at,
            "snapshot received"
        );
        self.status.snapshot_bytes.set(bytes);
        self.turn.take();
        if let Some(snapshot) = self.snapshot {
            // From here on a run that is killed needs no second one.
            snapshot
                .with_log(|log| log.note_whole(self.taken_at))
                .map_err(spool_error)?;
            snapshot.close();
        }
        Ok(())
    }

    fn snapshot_start(&self, len: Option<u64>) -> Result<(), SyncError> {
        self.status.set_phase(Phase::Snapshot);
        self.status.snapshot_bytes.set(len.unwrap_or(0));
        tracing::info!(
            bytes = len.unwrap_or(0),
            diskless = len.is_none(),
            "snapshot begins"
        );
        self.check_room(len.unwrap_or(0))
    }

    fn snapshot_bytes(&self, bytes: bytes::Bytes, at_ms: u64) -> Result<(), SyncError> {
        let Some(snapshot) = self.snapshot else {
            return Ok(());
        };
        self.status.snapshot_read.add(bytes.len() as u64);
        snapshot.append(bytes, at_ms).map_err(spool_error)?;
        self.check_room(snapshot.end())
    }

    fn check_room(&self, bytes: u64) -> Result<(), SyncError> {
        check_room(bytes, self.spool.max_bytes)
    }

    fn housekeeping(&self, paused: bool, synced: &mut Instant) -> Result<(), SyncError> {
        for feed in self.feeds() {
            feed.with_log(Log::flush).map_err(spool_error)?;
        }
        self.status
            .spool_bytes
            .set(self.stream.with_log(|log| log.disk_bytes()));
        if synced.elapsed() >= SYNC_EVERY {
            *synced = Instant::now();
            for file in self.stream.with_log(Log::take_unsynced) {
                self.syncer.sync(file);
            }
            if let Some(snapshot) = self.snapshot {
                // Not synced, since losing it costs another one and no more; only its files are let go.
                drop(snapshot.with_log(Log::take_unsynced));
            }
        }
        self.say_full();
        self.say_paused(paused);
        Ok(())
    }

    /// The logs that are written to: the snapshot, while it arrives, and the stream.
    fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.snapshot.into_iter().chain([self.stream])
    }

    /// Whether a little more may wait in memory for room on the disk.
    fn may_pend(&self) -> bool {
        self.feeds()
            .all(|feed| feed.with_log(|log| log.pending_bytes()) <= PENDING_BYTES_MAX)
    }
}

impl Receiver<'_> {
    /// Says when the disk takes nothing more, and when it does again.
    fn say_full(&self) {
        let full = self
            .feeds()
            .find_map(|feed| feed.with_log(|log| log.full().map(str::to_owned)));
        let was_full = self.status.spool_disk_full.get() == 1;
        self.status.spool_disk_full.set(u64::from(full.is_some()));
        match full {
            Some(error) if !was_full => tracing::error!(
                %error,
                "the disk under the spool is full: not reading from the source until there is room"
            ),
            None if was_full => {
                tracing::info!("there is room on the disk under the spool again");
            }
            _ => {}
        }
    }

    /// Says when reading stops because the spool is full, and when it goes on.
    fn say_paused(&self, paused: bool) {
        if self.paused.replace(paused) == paused || self.status.spool_disk_full.get() == 1 {
            return;
        }
        let (unapplied_bytes, limit_bytes) = (self.stream.unapplied_bytes(), self.spool.max_bytes);
        if paused {
            tracing::warn!(
                unapplied_bytes,
                limit_bytes,
                "the spool is full: not reading from the source until the target catches up"
            );
        } else {
            tracing::info!(
                unapplied_bytes,
                limit_bytes,
                "reading from the source again"
            );
        }
    }
}

/// Whether a snapshot of so many bytes may be spooled.
pub(crate) fn check_room(bytes: u64, bytes_max: u64) -> Result<(), SyncError> {
    if bytes > bytes_max {
        let what = format!(
            "the snapshot ({bytes} bytes or more) does not fit spool.max_bytes ({bytes_max}); raise it"
        );
        return Err(SyncError::local(what));
    }
    Ok(())
}

/// An error of the spool's disk. Damage is cut off when the spool is opened anew, and what it held is asked of the
/// source again.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn spool_error(error: std::io::Error) -> SyncError {
    let what = SyncError::local(format!("spool: {error}"));
    match error.kind() {
        std::io::ErrorKind::InvalidData => SyncError {
            class: Class::Resync,
            ..what
        },
        _ => what,
    }
}
