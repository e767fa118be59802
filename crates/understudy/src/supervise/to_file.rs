//! A file in the place of a target: the same readers, and nobody to ask but the file itself.

use std::path::PathBuf;
use std::rc::Rc;

use replica::{ReplId, ReplOffset};

use super::file::{at_the_beginning, feed_of, unreadable};
use super::{FIRST_CONTACT_ATTEMPTS, Next, Supervisor, contact};
use crate::backoff::Backoff;
use crate::checkpoint::{Phase, Position, Progress};
use crate::config::{AofReader, FileKind, FileWriter, Reader};
use crate::error::{Side, SyncError};
use crate::files::aof::{Commands, Course};
use crate::files::packed::{self, Packed};
use crate::files::{self, Set};
use crate::pipeline::Behind;
use crate::pipeline::to_file::{
    Output, SnapshotToFile, StreamToFile, expect_none, found, write_rdb,
};
use crate::source::{Conn, Opened, spool_error};
use crate::spool::{Feed, Log};
use crate::status;
use crate::target::Found;

impl Supervisor<'_> {
    /// Writes what the reader reads to a file.
    pub(super) async fn to_file(&self, to: &FileWriter) -> Result<(), SyncError> {
        if to.kind == FileKind::Rdb {
            expect_none(&to.path)?;
        }
        match &self.config.reader {
            // Configurations with scan_reader and a file are refused: what is swept has no order to be written in.
            Reader::Sync | Reader::Scan => self.sync_to_file(to).await,
            Reader::Rdb(paths) => self.rdb_to_file(paths, to).await,
            Reader::Aof(reader) => self.aof_to_file(reader, to).await,
        }
    }

    /// A live source: session after session, as with a target.
    async fn sync_to_file(&self, to: &FileWriter) -> Result<(), SyncError> {
        let mut opened: Option<Opened> = None;
        let mut backoff = Backoff::default();
        let mut attempts_max = FIRST_CONTACT_ATTEMPTS;
        loop {
            self.status.set_phase(status::Phase::Handshaking);
            let output = match to.kind {
                FileKind::Rdb => None,
                FileKind::Cmd | FileKind::Aof | FileKind::Json => Some(Output::open(to)?),
            };
            let phase = output.as_ref().and_then(Output::phase);
            let (start, kept) = self.choose(
                &phase
                    .as_ref()
                    .map_or(Found::Nothing, |phase| Found::Checkpoint(found(phase))),
            )?;
            let answer = match opened.take() {
                Some(opened) => Some(opened),
                None => contact(self.stop, attempts_max, || self.open(start.clone())).await?,
            };
            attempts_max = u32::MAX;
            let session = match answer {
                None => return Ok(()),
                Some(Opened::Refused { error, .. }) => Err(error),
                Some(Opened::Continue { conn, replid }) => {
                    let Some(kept) = kept else {
                        let what = "the source continued a history that nobody asked for";
                        return Err(self.of_source(what));
                    };
                    let mut stream = kept.stream;
                    stream.rename(replid).map_err(spool_error)?;
                    self.status.partial_resyncs.add(1);
                    let pair = (kept.snapshot, stream);
                    Box::pin(self.go_on_in_file(output, conn, phase, pair)).await
                }
                Some(Opened::Full {
                    conn,
                    replid,
                    offset,
                }) => {
                    drop(kept);
                    if matches!(phase, Some(Phase::Stream(_))) {
                        return Err(self.history_lost(to));
                    }
                    Box::pin(self.full_to_file(output, conn, replid, offset, to)).await
                }
            };
            match self.unless_hiccup(session)? {
                Next::Done => return Ok(()),
                Next::NewHistory(answer) => opened = Some(*answer),
                Next::Again => tokio::time::sleep(backoff.pause()).await,
            }
        }
    }

    fn history_lost(&self, to: &FileWriter) -> SyncError {
        let path = to.path.display();
        let what = format!(
            "it no longer has the history that {path} holds; the file is good up to where it ends: move it and {path}.understudy away, and start again for a new one"
        );
        self.of_source(&what)
    }

    /// A new snapshot, then the stream.
    async fn full_to_file(
        &self,
        output: Option<Output>,
        conn: Conn,
        replid: ReplId,
        offset: ReplOffset,
        to: &FileWriter,
    ) -> Result<Next, SyncError> {
        self.status.full_resyncs.add("first", 1);
        tracing::info!(%replid, offset = offset.0, "full sync");
        let dir = &self.config.spool.dir;
        let snapshot = Log::create(dir, "snapshot", replid, 0, self.keep_whole());
        let snapshot = Feed::new(snapshot.map_err(spool_error)?);
        let stream = Log::create(dir, "stream", replid, offset.0, self.keep());
        let stream = Feed::new(stream.map_err(spool_error)?);
        self.status.snapshot_read.set(0);
        self.status.source_offset.set(offset.0);
        let receiver = self.receiver(conn, Some(&snapshot), &stream);
        let progress = Progress {
            replid,
            offset,
            rdb_bytes: 0,
        };
        let applier = async {
            let Some(mut output) = output else {
                write_rdb(self.config, self.status, &snapshot, Behind::Nothing, to).await?;
                snapshot.with_log(Log::clear).map_err(spool_error)?;
                tracing::info!("the snapshot is written");
                return Ok(());
            };
            output.begin_anew()?;
            self.all_to_file(output, &snapshot, &stream, progress).await
        };
        Box::pin(self.session(receiver.run(), applier, &stream)).await
    }

    /// The history goes on where the file ends.
    async fn go_on_in_file(
        &self,
        output: Option<Output>,
        conn: Conn,
        phase: Option<Phase>,
        (snapshot, stream): (Option<Log>, Log),
    ) -> Result<Next, SyncError> {
        let stream = Feed::new(stream);
        let receiver = self.receiver(conn, None, &stream);
        let Some(mut output) = output else {
            return Err(self.of_source("it goes on, and a snapshot was asked for"));
        };
        match (phase, snapshot) {
            (Some(Phase::Snapshot(progress)), Some(snapshot)) => {
                tracing::info!(
                    applied_bytes = progress.rdb_bytes,
                    of_bytes = snapshot.end(),
                    "going on with the snapshot in the spool"
                );
                let snapshot = Feed::new(snapshot);
                snapshot.close();
                self.status.set_phase(status::Phase::Snapshot);
                self.status.snapshot_bytes.set(snapshot.end());
                self.status.snapshot_read.set(snapshot.end());
                let applier = self.all_to_file(output, &snapshot, &stream, progress);
                Box::pin(self.session(receiver.run(), applier, &stream)).await
            }
            (Some(Phase::Stream(position)), _) => {
                tracing::info!(offset = position.offset.0, "going on where the file ends");
                Log::discard(&self.config.spool.dir, "snapshot").map_err(spool_error)?;
                stream.rewind(position.offset.0);
                if !self.config.source.sync_aof {
                    tracing::info!("the snapshot is written already, and sync_aof is false: done");
                    return Ok(Next::Done);
                }
                self.show_position(&stream, position);
                let source = self.source_version;
                let applier = async {
                    let (config, status) = (self.config, self.status);
                    StreamToFile::new(config, status, &stream, position, source, &output)
                        .run(&mut output)
                        .await
                };
                Box::pin(self.session(receiver.run(), applier, &stream)).await
            }
            _ => Err(self.of_source("it goes on, and there is no place for that in the file")),
        }
    }

    /// Writes the snapshot, then the stream.
    async fn all_to_file(
        &self,
        mut output: Output,
        snapshot: &Feed,
        stream: &Feed,
        progress: Progress,
    ) -> Result<(), SyncError> {
        let (config, status, source) = (self.config, self.status, self.source_version);
        let writer = SnapshotToFile::new(
            config,
            status,
            snapshot,
            progress,
            Behind::Nothing,
            source,
            &output,
        );
        let (end, db) = Box::pin(writer.run(&mut output)).await?;
        let position = Position {
            replid: progress.replid,
            offset: progress.offset,
            db,
        };
        tracing::info!(bytes = end, "the snapshot is written");
        self.show_position(stream, position);
        output.end_snapshot(position).await?;
        snapshot.with_log(Log::clear).map_err(spool_error)?;
        if !config.source.sync_aof {
            tracing::info!("sync_aof is false: done");
            return Ok(());
        }
        let writer = StreamToFile::new(config, status, stream, position, source, &output);
        writer.run(&mut output).await
    }

    /// RDB files, to their end.
    async fn rdb_to_file(&self, paths: &[PathBuf], to: &FileWriter) -> Result<(), SyncError> {
        let (id, set, packed) = if packed::is_needed(paths)? {
            let mut packed = Packed::open(paths)?;
            let id = match packed::come_once(paths) {
                true => packed.identify().await?,
                false => files::identify_whole(&mut Set::open(paths)?).map_err(unreadable)?,
            };
            (id, None, Some(packed))
        } else {
            let mut set = Set::open(paths)?;
            let id = files::identify_whole(&mut set).map_err(unreadable)?;
            (id, Some(set), None)
        };
        let feed = match set {
            Some(set) => feed_of(set, id),
            None => {
                let dir = &self.config.spool.dir;
                let log = Log::create(dir, "snapshot", id, 0, self.keep_whole());
                Feed::new(log.map_err(spool_error)?)
            }
        };
        let progress = at_the_beginning(id);
        self.begin_snapshot(&feed, progress);
        let unpack = self.unpack(packed, &feed);
        let write = async {
            if to.kind == FileKind::Rdb {
                let (config, status) = (self.config, self.status);
                write_rdb(config, status, &feed, Behind::Rdbs, to).await?;
            } else {
                self.rdb_commands(to, &feed, id).await?;
            }
            feed.with_log(Log::clear).map_err(spool_error)
        };
        tokio::select! {
            biased;
            () = self.stop.requested() => {
                tracing::info!("asked to stop: the next run goes on where this one is");
                Ok(())
            }
            failed = unpack => failed,
            written = write => written,
        }
    }

    async fn rdb_commands(
        &self,
        to: &FileWriter,
        feed: &Feed,
        id: ReplId,
    ) -> Result<(), SyncError> {
        let mut output = Output::open(to)?;
        let progress = match output.phase() {
            None => at_the_beginning(id),
            Some(Phase::Snapshot(at)) if at.replid == id => at,
            Some(Phase::Stream(at)) if at.replid == id => {
                tracing::info!("these files are written already, nothing is done");
                return Ok(());
            }
            Some(_) => return Err(self.of_other_files(to)),
        };
        let (config, status, source) = (self.config, self.status, self.source_version);
        let writer = SnapshotToFile::new(
            config,
            status,
            feed,
            progress,
            Behind::Rdbs,
            source,
            &output,
        );
        let (end, _) = Box::pin(writer.run(&mut output)).await?;
        let position = Position {
            replid: id,
            offset: ReplOffset(end),
            db: 0,
        };
        status.set_phase(status::Phase::Stream);
        output.end_snapshot(position).await
    }

    fn of_other_files(&self, to: &FileWriter) -> SyncError {
        let path = to.path.display();
        SyncError::local(format!(
            "{path} was written from other files than {}, or these were rewritten since; move it and {path}.understudy away and start again",
            self.config.source.endpoint.address
        ))
    }

    /// Append-only files, to their end.
    async fn aof_to_file(&self, reader: &AofReader, to: &FileWriter) -> Result<(), SyncError> {
        let paths = files::parts(&reader.path)?;
        let mut set = Set::open(&paths)?;
        let begins_with_rdb = self.look_at_beginning(&mut set)?;
        let until = match reader.until {
            None => None,
            Some(seconds) => self.place_of(&mut set, begins_with_rdb, seconds)?,
        };
        let mut output = Output::open(to)?;
        let (mut position, progress) = match output.phase() {
            Some(Phase::Stream(at)) => (Some(at), at_the_beginning(at.replid)),
            Some(Phase::Snapshot(at)) => (None, at),
            _ => {
                let id = files::identify(&mut set).map_err(unreadable)?;
                (None, at_the_beginning(id))
            }
        };
        let is_same = files::begins_with(&mut set, progress.replid).map_err(unreadable)?;
        let applied = position.map_or(0, |position| position.offset.0);
        if !is_same || applied > set.len() {
            return Err(self.of_other_files(to));
        }
        if until.is_some_and(|until| until < applied) {
            let what = "aof_reader.timestamp lies before what is written already; move the file and its .understudy away and start again";
            return Err(self.of_source(what));
        }
        if position.is_none() && begins_with_rdb {
            let feed = feed_of(Set::open(&paths)?, progress.replid);
            self.begin_snapshot(&feed, progress);
            let (config, status, source) = (self.config, self.status, self.source_version);
            let behind = Behind::Commands;
            let writer =
                SnapshotToFile::new(config, status, &feed, progress, behind, source, &output);
            let written = tokio::select! {
                biased;
                () = self.stop.requested() => None,
                written = Box::pin(writer.run(&mut output)) => Some(written?),
            };
            let Some((end, _)) = written else {
                tracing::info!("asked to stop: the next run goes on where this one is");
                return Ok(());
            };
            position = Some(Position {
                replid: progress.replid,
                offset: ReplOffset(end),
                db: 0,
            });
        }
        let position = position.unwrap_or(Position {
            replid: progress.replid,
            offset: ReplOffset(0),
            db: 0,
        });
        let course = Rc::new(Course::default());
        let feed = Self::feed_of_commands(set, position, until, course.clone());
        self.show_position(&feed, position);
        let (config, status, source) = (self.config, self.status, self.source_version);
        let writer = StreamToFile::new(config, status, &feed, position, source, &output);
        let mut write = Box::pin(writer.run(&mut output));
        let asked = tokio::select! {
            biased;
            () = self.stop.requested() => true,
            written = &mut write => {
                written?;
                false
            }
        };
        if asked {
            course.stop();
            return write.await;
        }
        self.tell_end(&feed, course.fate())
    }

    /// The commands of append-only files as a feed that is whole.
    pub(super) fn feed_of_commands(
        set: Set,
        position: Position,
        until: Option<u64>,
        course: Rc<Course>,
    ) -> Feed {
        let names: Vec<(u64, String)> = set
            .files()
            .map(|(path, start, _)| (start, path.display().to_string()))
            .collect();
        let commands = Commands::new(set, position.offset.0, until, course);
        let feed = Feed::new(Log::over(Box::new(commands), position.replid));
        for (start, name) in names {
            feed.begin_file(start, name);
        }
        feed.rewind(position.offset.0);
        feed.close();
        feed
    }

    pub(super) fn of_source(&self, what: &str) -> SyncError {
        SyncError::stop(Side::Source, &self.config.source.endpoint.address, what)
    }
}
