//! The command stream as commands in a file.

use bytes::Bytes;
use replica::ReplOffset;
use rewrite::{Db, DbMap, Outcome, StreamRewriter};

use super::form::Form;
use super::{Output, abilities, cannot_write};
use crate::checkpoint::{self, Phase, Position};
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::pipeline::stream::input::{Input, InputError};
use crate::source::spool_error;
use crate::spool::Feed;
use crate::status::Status;
use crate::supervise::SourceVersion;

/// Written before others have a turn on this thread.
const TURN_BYTES: u64 = 256 << 10;

/// Writes one history's stream.
pub(crate) struct StreamToFile<'a> {
    config: &'a Config,
    status: &'a Status,
    feed: &'a Feed,
    input: Input,
    rewriter: StreamRewriter,
    form: Form,
    map: Option<DbMap>,
    position: Position,
    scratch: Vec<u8>,
    mapped: Vec<u8>,
}

impl<'a> StreamToFile<'a> {
    /// A writer that goes on at `position`, which the file has.
    pub(crate) fn new(
        config: &'a Config,
        status: &'a Status,
        feed: &'a Feed,
        position: Position,
        source: SourceVersion,
        output: &Output,
    ) -> Self {
        let rewriter = StreamRewriter::new(rewrite::StreamOptions {
            filter: config.filter.clone(),
            source_version: source.version,
            own_key_mark: Bytes::from_static(checkpoint::KEY_PREFIX.as_bytes()),
            start_db: Db(position.db),
            losses: config.target.losses,
            ..rewrite::StreamOptions::new(abilities(source))
        });
        Self {
            config,
            status,
            feed,
            // Every command is whole in memory, on its way into its form.
            input: Input::at(position.offset.0, config.transaction_bytes_max()).whole(),
            rewriter,
            form: Form::new(output.kind()),
            map: config.target.db_map.clone(),
            position,
            scratch: Vec::new(),
            mapped: Vec::new(),
        }
    }

    /// Writes until the feed is closed and drained.
    ///
    /// # Errors
    /// What is wrong with the stream, or with the file.
    pub(crate) async fn run(mut self, output: &mut Output) -> Result<(), SyncError> {
        output.mark(Phase::Stream(self.position));
        let mut turn_end = self.input.frame_pos + TURN_BYTES;
        loop {
            let found = self.input.poll();
            match found.map_err(|error| self.not_a_command(&error))? {
                Some(frame) => self.command(frame.len, output)?,
                None if self.input.more(self.feed).map_err(spool_error)? => {}
                None if self.feed.is_complete() => {
                    let noted = output.finish().await?;
                    return self.noted(noted);
                }
                None => tokio::select! {
                    () = self.feed.changed() => {}
                    () = output.due() => {}
                },
            }
            if self.input.frame_pos >= turn_end {
                turn_end = self.input.frame_pos + TURN_BYTES;
                tokio::task::yield_now().await;
            }
            if output.is_due() {
                let noted = output.note().await?;
                self.noted(noted)?;
            }
        }
    }

    /// The file has the stream up to there, on the platter.
    fn noted(&self, phase: Option<Phase>) -> Result<(), SyncError> {
        if let Some(Phase::Stream(at)) = phase {
            let offset = at.offset.0;
            self.feed.set_applied(offset, offset).map_err(spool_error)?;
            self.status.applied_offset.set(offset);
            let is_behind = offset < self.feed.end();
            self.status
                .oldest_unapplied_ms
                .set(if is_behind { self.input.at_ms } else { 0 });
        }
        Ok(())
    }

    fn command(&mut self, len: usize, output: &mut Output) -> Result<(), SyncError> {
        let frame = self.input.window().get(..len).unwrap_or_default();
        let args = self.input.args();
        let db = self.rewriter.db();
        if !args.is_empty() {
            self.scratch.clear();
            let (at_ms, out) = (self.input.at_ms, &mut self.scratch);
            let outcome = self.rewriter.command(frame, args, at_ms, out);
            let outcome = outcome.map_err(|error| {
                let at = self.input.frame_pos;
                cannot_write(self.config, &format!("command at offset {at}: {error}"))
            })?;
            let bytes = match outcome {
                Outcome::Forward { command } => {
                    self.status.commands.hit(usize::from(command.0));
                    frame
                }
                Outcome::Rewritten { command, .. } => {
                    self.status.commands.hit(usize::from(command.0));
                    self.status.rewritten.hit(usize::from(command.0));
                    &self.scratch
                }
                Outcome::Dropped(reason) => {
                    self.status.dropped.add(reason.label(), 1);
                    &[]
                }
                Outcome::Select(_) => &[],
                Outcome::Multi => {
                    self.form.begin();
                    &[]
                }
                Outcome::Exec => {
                    self.form.end(&mut output.buffer);
                    &[]
                }
                // No source sends it.
                Outcome::Discard => {
                    let what = "a transaction in the stream was given up (DISCARD)";
                    let address = &self.config.source.endpoint.address;
                    return Err(SyncError::stop(Side::Source, address, what));
                }
            };
            append(
                self.map.as_ref(),
                &mut self.form,
                (db, bytes),
                &mut self.mapped,
                &mut output.buffer,
            )
            .map_err(|what| {
                let at = self.input.frame_pos;
                cannot_write(self.config, &format!("command at offset {at}: {what}"))
            })?;
        }
        self.input.advance(len);
        if !self.rewriter.in_transaction() {
            self.position.offset = ReplOffset(self.input.frame_pos);
            self.position.db = self.rewriter.db().0;
            output.mark(Phase::Stream(self.position));
        }
        output.settle()
    }

    fn not_a_command(&self, error: &InputError) -> SyncError {
        let at = self.input.frame_pos;
        match error {
            InputError::Resp(error) => {
                let what = format!("the stream is not RESP at offset {at}: {error}");
                SyncError::stop(Side::Source, &self.config.source.endpoint.address, what)
            }
            InputError::TooLarge(bytes) => SyncError::local(format!(
                "the command at offset {at} ({}) does not fit into memory: it has {bytes} bytes or more, and a quarter of limits.memory ({} bytes) is for one that is written to a file; raise limits.memory and start again, nothing is lost",
                self.input.name(),
                self.config.memory_bytes
            )),
        }
    }
}

/// Appends commands of the source's `db` in their form, with the names that they have in the file.
fn append(
    map: Option<&DbMap>,
    form: &mut Form,
    (db, bytes): (Db, &[u8]),
    mapped: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if bytes.is_empty() {
        return Ok(());
    }
    let bytes = match map {
        None => {
            form.select(db);
            bytes
        }
        Some(map) => {
            mapped.clear();
            form.select(map.db(db));
            map.map(form.table(), b"", db, bytes, mapped)
                .map_err(|error| error.to_string())?;
            mapped
        }
    };
    form.commands(bytes, out)
        .map(drop)
        .map_err(|error| error.to_string())
}
