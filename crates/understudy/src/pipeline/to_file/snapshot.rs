//! A snapshot as commands in a file.

use std::collections::BTreeMap;

use ::rdb::{Decoder, Event, KeyHead, Kind, Poll, Want};
use bytes::Bytes;
use rewrite::{Sent, SnapshotRewriter};

use super::form::Form;
use super::{Output, abilities, cannot_write};
use crate::checkpoint::{Phase, Progress};
use crate::config::Config;
use crate::error::SyncError;
use crate::pipeline::Behind;
use crate::pipeline::lookahead::{Failed, Lookahead, Looked};
use crate::pipeline::snapshot::{
    corrupt, corrupt_word, count_left_out, cut_short, kind_name, method_name, rdb_limits,
};
use crate::source::spool_error;
use crate::spool::Feed;
use crate::status::Status;
use crate::supervise::SourceVersion;

/// Decoded before others have a turn on this thread.
const TURN_BYTES: u64 = 1 << 20;

/// Writes one snapshot, or several one behind the other.
pub(crate) struct SnapshotToFile<'a> {
    config: &'a Config,
    status: &'a Status,
    feed: &'a Feed,
    decoder: Decoder,
    /// Where in the feed the decoder's RDB begins.
    base: u64,
    behind: Behind,
    read_pos: u64,
    rewriter: SnapshotRewriter,
    ahead: Option<Lookahead>,
    form: Form,
    /// Commands that are not in their form yet, the last of them perhaps not whole.
    raw: Vec<u8>,
    sent: Vec<Sent>,
    counts: BTreeMap<(&'static str, &'static str), u64>,
    in_key: bool,
    progress: Progress,
    stream_db: u32,
}

/// What there is to do next.
enum Step {
    Go,
    /// Others have their turn.
    Yield,
    /// The feed has no more.
    Wait,
    Done,
}

impl<'a> SnapshotToFile<'a> {
    /// A writer that goes on at `progress`.
    pub(crate) fn new(
        config: &'a Config,
        status: &'a Status,
        feed: &'a Feed,
        progress: Progress,
        behind: Behind,
        source: SourceVersion,
        output: &Output,
    ) -> Self {
        let options = rewrite::SnapshotOptions {
            filter: config.filter.clone(),
            own_key_mark: Bytes::from_static(crate::checkpoint::KEY_PREFIX.as_bytes()),
            losses: config.target.losses,
            db_map: config.target.db_map.clone(),
            // Nothing has ended at that time: what the stream saves behind is there to be saved.
            ..rewrite::SnapshotOptions::new(abilities(source), 0)
        };
        Self {
            config,
            status,
            feed,
            decoder: Decoder::new(rdb_limits(config)),
            base: 0,
            behind,
            read_pos: 0,
            rewriter: SnapshotRewriter::new(options),
            ahead: None,
            form: Form::new(output.kind()),
            raw: Vec::new(),
            sent: Vec::new(),
            counts: BTreeMap::new(),
            in_key: false,
            progress,
            stream_db: 0,
        }
    }

    /// Writes everything; gives where it ends in the feed, and the database selected in the stream that follows.
    ///
    /// # Errors
    /// What is wrong with the snapshot, or with the file.
    pub(crate) async fn run(mut self, output: &mut Output) -> Result<(u64, u32), SyncError> {
        let mut turn_end = TURN_BYTES;
        loop {
            match self.step(output)? {
                Step::Go if self.read_pos < turn_end => continue,
                Step::Go | Step::Yield => {
                    turn_end = self.read_pos + TURN_BYTES;
                    tokio::task::yield_now().await;
                }
                Step::Wait => tokio::select! {
                    () = self.feed.changed() => {}
                    () = output.due() => {}
                },
                Step::Done => break,
            }
            if output.is_due() {
                self.noted(output.note().await?);
            }
        }
        count_left_out(self.rewriter.counts(), 0, self.status);
        for ((kind, method), count) in &self.counts {
            self.status
                .snapshot_keys
                .add(&format!("{kind}|{method}"), *count);
        }
        Ok((self.base + self.decoder.offset(), self.stream_db))
    }

    fn noted(&self, phase: Option<Phase>) {
        if let Some(Phase::Snapshot(at)) = phase {
            self.status.snapshot_applied.set(at.rdb_bytes);
        }
    }

    fn step(&mut self, output: &mut Output) -> Result<Step, SyncError> {
        if let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.has_begun()) {
            return match ahead.look(self.feed, &mut self.rewriter) {
                Ok(Looked::Done(first)) => {
                    self.rewrite(first, output)?;
                    Ok(Step::Go)
                }
                // Nothing is measured for a file.
                Ok(Looked::Busy | Looked::Measured(_)) => Ok(Step::Yield),
                Ok(Looked::Starved) if self.feed.is_complete() => Err(self.cut_short()),
                Ok(Looked::Starved) => Ok(Step::Wait),
                Err(Failed::Spool(error)) => Err(spool_error(error)),
                Err(Failed::Damaged(error)) => Err(self.corrupt(&error)),
                Err(Failed::Refused(error)) => Err(cannot_write(self.config, &error.to_string())),
            };
        }
        match self.decoder.poll() {
            Ok(Poll::Event(event)) => {
                self.event(event, output)?;
                Ok(Step::Go)
            }
            Ok(Poll::End) => self.end(),
            Ok(Poll::NeedMore) => self.more(),
            Err(error) => Err(self.corrupt(&error)),
        }
    }

    fn more(&mut self) -> Result<Step, SyncError> {
        let chunk = self.feed.read(self.read_pos).map_err(spool_error)?;
        match chunk {
            Some(chunk) => {
                self.read_pos += chunk.bytes.len() as u64;
                self.decoder.feed(chunk.bytes);
                self.feed
                    .with_log(|log| log.release(self.read_pos, self.read_pos))
                    .map_err(spool_error)?;
                Ok(Step::Go)
            }
            None if !self.feed.is_complete() => Ok(Step::Wait),
            None if self.behind == Behind::Rdbs && self.base > 0 && self.read_pos == self.base => {
                Ok(Step::Done)
            }
            None => Err(self.cut_short()),
        }
    }

    fn end(&mut self) -> Result<Step, SyncError> {
        match self.behind {
            Behind::Nothing if !self.decoder.leftover().is_empty() => {
                let what = "bytes follow the end of the RDB";
                Err(corrupt_word(self.config, self.feed, what))
            }
            Behind::Nothing | Behind::Commands => Ok(Step::Done),
            Behind::Rdbs => {
                self.base += self.decoder.offset();
                self.decoder = Decoder::new(rdb_limits(self.config));
                self.read_pos = self.base;
                Ok(Step::Go)
            }
        }
    }

    fn event(&mut self, event: Event, output: &mut Output) -> Result<(), SyncError> {
        match &event {
            Event::Key(head) => return self.key(head),
            Event::Aux { name, value } if name == "repl-stream-db" => {
                let text = String::from_utf8_lossy(value);
                self.stream_db = text.parse().unwrap_or(0);
            }
            Event::ValueStart {
                kind: Kind::Stream, ..
            } => {
                if let Some(ahead) = &mut self.ahead {
                    ahead.begin(event);
                    return Ok(());
                }
            }
            // What an earlier run has written.
            Event::Function { .. } | Event::FunctionPreGa { .. } | Event::ModuleAux { .. }
                if self.base + self.decoder.offset() <= self.progress.rdb_bytes =>
            {
                return Ok(());
            }
            _ => {}
        }
        self.rewrite(event, output)
    }

    fn key(&mut self, head: &KeyHead) -> Result<(), SyncError> {
        if !self.config.source.sync_rdb || self.base + head.at < self.progress.rdb_bytes {
            self.decoder.want(Want::Skip);
            return Ok(());
        }
        let want = self.rewriter.key(head);
        let want = want.map_err(|error| cannot_write(self.config, &error.to_string()))?;
        self.in_key = want != Want::Skip;
        self.ahead = (head.kind == Kind::Stream && self.in_key)
            .then(|| self.decoder.lookahead())
            .flatten()
            .map(|decoder| Lookahead::new(decoder, self.read_pos));
        self.decoder.want(want);
        Ok(())
    }

    fn rewrite(&mut self, event: Event, output: &mut Output) -> Result<(), SyncError> {
        if !self.config.source.sync_rdb {
            return Ok(());
        }
        if matches!(event, Event::String(_) | Event::Raw(_) | Event::ValueEnd) {
            self.in_key = false;
        }
        let written = self.rewriter.event(event, &mut self.raw, &mut self.sent);
        written.map_err(|error| cannot_write(self.config, &error.to_string()))?;
        for sent in self.sent.drain(..).filter(|sent| sent.last_of_key) {
            let label = (kind_name(sent.kind), method_name(sent.method));
            *self.counts.entry(label).or_default() += 1;
            self.status.snapshot_keys_total.add(1);
        }
        let whole = self.form.commands(&self.raw, &mut output.buffer);
        let whole =
            whole.map_err(|error| SyncError::local(format!("a command of ours: {error}")))?;
        self.raw.drain(..whole);
        if !self.in_key && self.raw.is_empty() {
            self.progress.rdb_bytes = self
                .progress
                .rdb_bytes
                .max(self.base + self.decoder.offset());
            output.mark(Phase::Snapshot(self.progress));
        }
        output.settle()
    }

    fn cut_short(&self) -> SyncError {
        cut_short(self.config, self.feed, self.read_pos)
    }

    fn corrupt(&self, error: &::rdb::Error) -> SyncError {
        corrupt(self.config, self.feed, self.base, error)
    }
}
