//! `understudy rdb resp`: commands that bring the file's keys into a server.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use clap::Args;
use rdb::{Dialect, Event, KeyHead, Kind, Limits, RdbVersion, Want};
use rewrite::{
    Abilities, Fork, Losses, Sent, SnapshotError, SnapshotErrorKind, SnapshotOptions,
    SnapshotRewriter, Version,
};

use super::bar::Bar;
use super::failure::Failure;
use super::output::Output;
use super::reader::Reader;
use super::salvage::{Extent, Readable};
use super::select::Selection;
use crate::clock;
use crate::logging::tell;

/// Options of `rdb resp`.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys are replaced, not merged. Expiries are absolute; keys whose time has come are left out and counted on standard error.
Without --target the commands are those of recent servers (Redis 7.0, Valkey 7.2); what only newer ones have (TTLs of hash
fields, arrays) is said in their commands where the file holds it. RESTORE is used only with --restore; without --target it
is for the version that wrote the file, or a newer one. Modules' values need --restore.

Example: understudy rdb resp dump.rdb | redis-cli -p 6379 --pipe
         understudy rdb resp dump.rdb.zst --target 5.0 --restore --prefix user: > users.resp")]
pub(super) struct RespArgs {
    /// The file, or - for standard input.
    file: PathBuf,
    #[command(flatten)]
    selection: Selection,
    /// The version that the commands are for: 7.0, redis-6.2, valkey-9.1.
    #[arg(long, value_name = "VERSION", value_parser = target)]
    target: Option<(Fork, Version)>,
    /// Send values as they stand in the file, by RESTORE, where the target takes them.
    #[arg(long)]
    restore: bool,
    /// Leave out what the target has no place for, and say so, instead of stopping there.
    #[arg(long)]
    allow_loss: bool,
    /// Of a damaged file, print every key that can be read whole, and end well.
    #[arg(long)]
    until_damage: bool,
}

/// `7.0`, `redis-7.0`, `valkey-9.1`.
fn target(word: &str) -> Result<(Fork, Version), String> {
    let (fork, version) = match word.split_once('-') {
        Some(("valkey", version)) => (Fork::Valkey, version),
        Some(("redis", version)) => (Fork::Redis, version),
        _ => (Fork::Redis, word),
    };
    let version = version.parse().map_err(|_| {
        format!("{word:?} is not a version; say for example 7.0, redis-6.2 or valkey-9.1")
    })?;
    Ok((fork, version))
}

/// Runs `rdb resp`.
pub(super) fn run(args: &RespArgs) -> Result<u8, Failure> {
    let bar = Bar::beside_output();
    let file = Readable::new(&args.file, args.until_damage, &bar)?;
    let mut reader = Reader::open(file.path(), Limits::default(), &bar)?;
    let mut output = Output::stdout();
    let mut writer = Writer {
        args,
        rewriter: SnapshotRewriter::new(options(args, Dialect::Shared, RdbVersion(11))),
        sent: Vec::new(),
        lost: Lost::default(),
        ticked: Instant::now(),
    };
    let result = writer.all(&mut reader, &mut output, file.extent());
    bar.clear();
    let flushed = output.flush();
    writer.say_what_is_left_out();
    result.and(flushed)?;
    file.say_what_is_left();
    Ok(0)
}

fn options(args: &RespArgs, dialect: Dialect, version: RdbVersion) -> SnapshotOptions {
    let (fork, target) = args.target.unwrap_or_else(|| {
        if args.restore {
            writer_of(dialect, version)
        } else {
            (Fork::Redis, Version::new(8, 10, 0))
        }
    });
    let mut abilities = Abilities::from_version(fork, target);
    abilities.restore &= args.restore;
    let mut options = SnapshotOptions::new(abilities, clock::unix_ms());
    options.losses = if args.allow_loss {
        Losses::Allow
    } else {
        Losses::Refuse
    };
    // Every key of the file is its owner's, ours too.
    options.own_key_mark = Bytes::new();
    options
}

/// The oldest release that takes payloads of this version.
fn writer_of(dialect: Dialect, version: RdbVersion) -> (Fork, Version) {
    if dialect == Dialect::Valkey {
        return (Fork::Valkey, Version::new(9, 0, 0));
    }
    let (major, minor) = match version.0 {
        ..=6 => (2, 8),
        7 => (3, 2),
        8 => (4, 0),
        9 => (5, 0),
        10 => (7, 0),
        11 => (7, 2),
        12 => (7, 4),
        13 => (8, 6),
        14 => (8, 8),
        _ => (8, 10),
    };
    (Fork::Redis, Version::new(major, minor, 0))
}

struct Writer<'a> {
    args: &'a RespArgs,
    rewriter: SnapshotRewriter,
    sent: Vec<Sent>,
    lost: Lost,
    ticked: Instant,
}

/// Keys that cannot be brought to the target.
#[derive(Debug, Default)]
struct Lost {
    keys: u64,
    first: Option<String>,
}

impl Writer<'_> {
    fn all(
        &mut self,
        reader: &mut Reader,
        output: &mut Output,
        extent: Extent,
    ) -> Result<(), Failure> {
        let records = extent.is_whole() && !self.args.selection.is_partial();
        loop {
            if records {
                self.records(reader, output)?;
            }
            let Some(event) = extent.next(reader)? else {
                return Ok(());
            };
            let is_collection = matches!(
                event,
                Event::ValueStart { .. }
                    | Event::Item(_)
                    | Event::Pair { .. }
                    | Event::Scored { .. }
            );
            match event {
                Event::Key(head) => self.key(&head, reader)?,
                Event::Start { dialect, version } => {
                    let options = options(self.args, dialect, version);
                    self.rewriter = SnapshotRewriter::new(options);
                    self.event(Event::Start { dialect, version }, output)?;
                }
                Event::ValueStart {
                    kind: Kind::Stream, ..
                } => {
                    self.look_ahead(reader)?;
                    self.event(event, output)?;
                }
                event => self.event(event, output)?,
            }
            if is_collection {
                self.elements(reader, output)?;
            }
            self.settle(output)?;
        }
    }

    /// Keys with short strings, as long as they follow one another.
    fn records(&mut self, reader: &mut Reader, output: &mut Output) -> Result<(), Failure> {
        while let Some(record) = reader.record() {
            if !self
                .rewriter
                .record(&record, &mut output.buffer, &mut self.sent)
            {
                let value = Bytes::from(record.value.to_vec());
                match self.rewriter.key(&record.head()) {
                    Ok(Want::Skip) => {}
                    Ok(_) => self.event(Event::String(value), output)?,
                    Err(error) => self.refuse(&error)?,
                }
            }
            self.settle(output)?;
        }
        self.sent.clear();
        Ok(())
    }

    /// The elements of a collection, as many as are at hand.
    fn elements(&mut self, reader: &mut Reader, output: &mut Output) -> Result<(), Failure> {
        loop {
            let mut end = None;
            reader.elements(|element| {
                let written = self
                    .rewriter
                    .element(element, &mut output.buffer, &mut self.sent);
                self.sent.clear();
                match written {
                    Ok(()) if output.buffer.len() < Output::ROOM => ControlFlow::Continue(()),
                    written => {
                        end = Some(written);
                        ControlFlow::Break(())
                    }
                }
            });
            match end {
                None => return Ok(()),
                Some(Ok(())) => {}
                Some(Err(error)) => self.refuse(&error)?,
            }
            self.settle(output)?;
        }
    }

    /// Writes what was collected, if it is much.
    #[inline]
    fn settle(&mut self, output: &mut Output) -> Result<(), Failure> {
        if output.buffer.len() >= Output::ROOM {
            output.flush()?;
            self.tick();
        }
        Ok(())
    }

    /// The clock is looked at now and then: what expires while a long file is read is left out as well.
    fn tick(&mut self) {
        if self.ticked.elapsed().as_millis() >= 100 {
            self.ticked = Instant::now();
            self.rewriter.tick(clock::unix_ms());
        }
    }

    fn key(&mut self, head: &KeyHead, reader: &mut Reader) -> Result<(), Failure> {
        if !self.args.selection.takes(head) {
            reader.want(Want::Skip);
            return Ok(());
        }
        match self.rewriter.key(head) {
            Ok(want) => {
                if head.kind == Kind::Stream && want != Want::Skip {
                    reader.keep_place();
                }
                reader.want(want);
            }
            Err(error) => {
                self.refuse(&error)?;
                reader.want(Want::Skip);
            }
        }
        Ok(())
    }

    /// Groups stand behind the messages, and have to be known before.
    fn look_ahead(&mut self, reader: &mut Reader) -> Result<(), Failure> {
        let rewriter = &mut self.rewriter;
        reader.look_ahead(|event| {
            let ahead = rewriter.ahead(event);
            ahead.map_err(|error| Failure::Refused(error.to_string()))
        })
    }

    #[inline]
    fn event(&mut self, event: Event, output: &mut Output) -> Result<(), Failure> {
        let result = self
            .rewriter
            .event(event, &mut output.buffer, &mut self.sent);
        self.sent.clear();
        match result {
            Ok(()) => Ok(()),
            Err(error) => self.refuse(&error),
        }
    }

    /// A key has no place at the target: counted, if losses are allowed.
    fn refuse(&mut self, error: &SnapshotError) -> Result<(), Failure> {
        if error.kind == SnapshotErrorKind::OutOfOrder {
            return Err(Failure::Refused(error.to_string()));
        }
        if !self.args.allow_loss {
            let restore = if self.args.restore {
                ""
            } else {
                ", use --restore"
            };
            return Err(Failure::Refused(format!(
                "{error}; name another --target{restore}, or leave such things out with --allow-loss"
            )));
        }
        self.lost.keys += 1;
        self.lost.first.get_or_insert_with(|| error.to_string());
        Ok(())
    }

    fn say_what_is_left_out(&self) {
        let counts = self.rewriter.counts();
        let reasons = [
            (counts.expired_keys, "keys whose time has come"),
            (
                counts.expired_fields,
                "fields of hashes whose time has come",
            ),
            (
                counts.keys_lost,
                "keys of types that the target does not know",
            ),
            (
                counts.modules_lost,
                "keys of modules that the target does not have",
            ),
            (counts.field_ttls_lost, "TTLs of hash fields"),
            (counts.metadata_lost, "keys' metadata"),
            (
                counts.usage_hints_lost,
                "keys' idle times and frequencies of use",
            ),
            (counts.stream_counters_lost, "streams' counters"),
            (
                counts.consumer_times_lost,
                "times when consumers of streams were last seen",
            ),
            (counts.stream_pending_lost, "pending messages of streams"),
            (
                counts.stream_returned_lost,
                "streams' notes of messages given back",
            ),
            (counts.stream_idempotence_lost, "streams' producers"),
            (
                counts.stream_idempotence_counts_lost,
                "streams' counts of producers' messages",
            ),
            (counts.functions_dropped, "libraries of functions"),
            (counts.module_data_dropped, "modules' data beside the keys"),
        ];
        for (count, what) in reasons.into_iter().filter(|(count, _)| *count > 0) {
            tell(format_args!("left out: {count} {what}"));
        }
        if let Some(first) = &self.lost.first {
            let keys = self.lost.keys;
            tell(format_args!(
                "left out: {keys} keys that the target cannot have; the first: {first}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        assert_eq!(target("7.0"), Ok((Fork::Redis, Version::new(7, 0, 0))));
        assert_eq!(
            target("redis-6.2.5"),
            Ok((Fork::Redis, Version::new(6, 2, 5)))
        );
        assert_eq!(
            target("valkey-9.1"),
            Ok((Fork::Valkey, Version::new(9, 1, 0)))
        );
        assert!(target("new").unwrap_err().contains("valkey-9.1"));
    }

    #[test]
    fn a_files_own_version_takes_its_payloads() {
        for version in 1..=15 {
            let (fork, release) = writer_of(Dialect::Redis, RdbVersion(version));
            let abilities = Abilities::from_version(fork, release);
            assert!(abilities.rdb_version_max >= version, "{version}");
        }
        let (fork, release) = writer_of(Dialect::Valkey, RdbVersion(80));
        let abilities = Abilities::from_version(fork, release);
        assert_eq!(abilities.payload_version(22, true), Some(80));
    }
}
