//! A snapshot as an RDB file: every key that passes, with its value copied as it stands.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ::rdb::{Decoder, Dialect, Event, KeyHead, Poll, RdbVersion, Want, Writer};
use bytes::Bytes;
use rewrite::Db;

use super::output::beside;
use crate::checkpoint::KEY_PREFIX;
use crate::config::{Config, FileWriter, Reader};
use crate::error::{Side, SyncError};
use crate::pipeline::snapshot::{corrupt, corrupt_word, cut_short, kind_name, rdb_limits};
use crate::pipeline::{Behind, show};
use crate::source::spool_error;
use crate::spool::Feed;
use crate::status::Status;

/// The opcode of what a module keeps beside the keys.
const MODULE_AUX: u8 = 247;

/// A larger value is walked over in elements.
const WHOLE_BYTES: u64 = 1 << 20;
/// So much is collected before it is written, and others have a turn on this thread.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes the snapshot in `feed`; the file has its name when it is whole.
///
/// # Errors
/// What is wrong with the snapshot, or with the file.
pub(crate) async fn write_rdb(
    config: &Config,
    status: &Status,
    feed: &Feed,
    behind: Behind,
    to: &FileWriter,
) -> Result<(), SyncError> {
    let part = beside(&to.path, "part");
    let file = File::create(&part).map_err(|error| failed(&part, &error))?;
    let mut copy = Copy {
        config,
        status,
        feed,
        decoder: Decoder::new(rdb_limits(config)),
        base: 0,
        behind,
        read_pos: 0,
        from: 0,
        chunk: (0, Bytes::new()),
        key: None,
        begun: None,
        selected: None,
        names: Names::of(config),
        path: part,
        file,
    };
    copy.run().await?;
    copy.finish(&to.path)
}

/// Refuses a file that is there.
///
/// # Errors
/// Local.
pub(crate) fn expect_none(path: &Path) -> Result<(), SyncError> {
    match path.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => Err(SyncError::local(format!(
            "{} is there already; move it away, or name another file_writer.filepath",
            path.display()
        ))),
        Err(error) => Err(failed(path, &error)),
    }
}

fn failed(path: &Path, error: &io::Error) -> SyncError {
    SyncError::local(format!(
        "{} cannot be written: {error}; make room, or look at file_writer.filepath, and start again",
        path.display()
    ))
}

/// The names of keys that several files have: a server loads no file that has a key twice.
struct Names {
    states: [RandomState; 2],
    /// Where in the feed they have come.
    seen: HashMap<[u64; 2], u64>,
}

impl Names {
    fn of(config: &Config) -> Option<Self> {
        let is_of_several = matches!(&config.reader, Reader::Rdb(paths) if paths.len() > 1);
        is_of_several.then(|| Self {
            states: [RandomState::new(), RandomState::new()],
            seen: HashMap::new(),
        })
    }

    /// A key comes at a place of the feed; where it has come before.
    fn meets(&mut self, db: Db, name: &[u8], at: u64) -> Option<u64> {
        // Two hashes, so that no other name is ever taken for it.
        let hashes = self
            .states
            .each_ref()
            .map(|state| state.hash_one((db.0, name)));
        self.seen.insert(hashes, at)
    }
}

/// A key on its way.
struct Key {
    head: KeyHead,
    /// Its database and name in the file that is written.
    db: Db,
    name: Bytes,
    /// Where its value begins in the feed.
    body: u64,
}

struct Copy<'a> {
    config: &'a Config,
    status: &'a Status,
    feed: &'a Feed,
    decoder: Decoder,
    /// Where in the feed the decoder's RDB begins.
    base: u64,
    behind: Behind,
    read_pos: u64,
    /// Where in the feed the event before has ended.
    from: u64,
    /// What was read last for copying.
    chunk: (u64, Bytes),
    /// The key whose value is walked over.
    key: Option<Key>,
    begun: Option<(Writer, Dialect, RdbVersion)>,
    selected: Option<Db>,
    /// Where a key could come twice.
    names: Option<Names>,
    path: PathBuf,
    file: File,
}

impl Copy<'_> {
    async fn run(&mut self) -> Result<(), SyncError> {
        loop {
            match self.decoder.poll() {
                Ok(Poll::Event(event)) => {
                    self.event(event)?;
                    self.from = self.base + self.decoder.offset();
                    if self.is_much() {
                        self.settle()?;
                        tokio::task::yield_now().await;
                    }
                }
                Ok(Poll::End) => {
                    if self.end()? {
                        return Ok(());
                    }
                }
                Ok(Poll::NeedMore) => {
                    if self.more().await? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(corrupt(self.config, self.feed, self.base, &error)),
            }
        }
    }

    /// Takes the next bytes; true behind the last RDB of several.
    async fn more(&mut self) -> Result<bool, SyncError> {
        let chunk = self.feed.read(self.read_pos).map_err(spool_error)?;
        if let Some(chunk) = chunk {
            self.read_pos += chunk.bytes.len() as u64;
            self.decoder.feed(chunk.bytes);
            // What is not copied yet may be read from the disk once more.
            self.feed
                .with_log(|log| log.release(self.from, self.from))
                .map_err(spool_error)?;
            self.status.snapshot_applied.set(self.from);
            return Ok(false);
        }
        if !self.feed.is_complete() {
            self.feed.changed().await;
            return Ok(false);
        }
        let is_behind = self.base > 0 && self.read_pos == self.base;
        match self.behind == Behind::Rdbs && is_behind {
            true => Ok(true),
            false => Err(cut_short(self.config, self.feed, self.read_pos)),
        }
    }

    /// True where nothing follows.
    fn end(&mut self) -> Result<bool, SyncError> {
        if self.behind != Behind::Rdbs {
            return match self.decoder.leftover().is_empty() {
                true => Ok(true),
                false => {
                    let what = "bytes follow the end of the RDB";
                    Err(corrupt_word(self.config, self.feed, what))
                }
            };
        }
        self.base += self.decoder.offset();
        self.decoder = Decoder::new(rdb_limits(self.config));
        self.read_pos = self.base;
        self.from = self.base;
        Ok(false)
    }

    fn event(&mut self, event: Event) -> Result<(), SyncError> {
        match event {
            Event::Start { dialect, version } => self.begin(dialect, version),
            Event::Key(head) => self.key(head),
            Event::String(_) | Event::Raw(_) | Event::ValueEnd => self.value(),
            // Notes are those of the first.
            Event::Aux { .. } if self.base > 0 => Ok(()),
            Event::HashTemplate { .. } if self.base > 0 => {
                let what = "several RDB files, of which one names the fields of hashes by numbers (Redis 8.10), cannot be written as one; write each to a file of its own";
                Err(self.refused(what.to_owned()))
            }
            Event::Aux { .. }
            | Event::Function { .. }
            | Event::FunctionPreGa { .. }
            | Event::HashTemplate { .. } => self.copy(self.from, self.base + self.decoder.offset()),
            // It may stand behind a key that was left out.
            Event::ModuleAux { raw, .. } => {
                if let Some((writer, ..)) = &mut self.begun {
                    writer.copy(&[MODULE_AUX]);
                    writer.copy(&raw);
                }
                Ok(())
            }
            // The database is said before its first key; sizes are hints, and would be wrong where keys are left out.
            _ => Ok(()),
        }
    }

    fn begin(&mut self, dialect: Dialect, version: RdbVersion) -> Result<(), SyncError> {
        let Some((_, of, highest)) = &self.begun else {
            self.begun = Some((Writer::new(dialect, version), dialect, version));
            return Ok(());
        };
        let name = |dialect: Dialect, version: RdbVersion| match dialect {
            Dialect::Valkey => format!("VALKEY{:03}", version.0),
            Dialect::Redis | Dialect::Shared => format!("REDIS{:04}", version.0),
        };
        let is_valkey = |dialect: Dialect| dialect == Dialect::Valkey;
        if is_valkey(dialect) == is_valkey(*of) && version <= *highest {
            return Ok(());
        }
        let place = self.feed.place(self.base).unwrap_or_default();
        let what = format!(
            "{place}: this RDB is {}, and the file was begun as {}, like the first; name the newest first, and write those of Redis and of Valkey to two files",
            name(dialect, version),
            name(*of, *highest)
        );
        Err(self.refused(what))
    }

    fn key(&mut self, head: KeyHead) -> Result<(), SyncError> {
        let config = self.config;
        let is_own = head
            .key
            .windows(KEY_PREFIX.len())
            .any(|part| part == KEY_PREFIX.as_bytes());
        let passes = !is_own
            && config.source.sync_rdb
            && config.filter.db(head.db)
            && config.filter.key(&head.key)
            && config.filter.kind(head.kind).is_ok();
        if !passes {
            let reason = if is_own {
                "snapshot_own_key"
            } else {
                "snapshot_filter_key"
            };
            self.status.dropped.add(reason, 1);
            self.decoder.want(Want::Skip);
            return Ok(());
        }
        let (db, name) = config.target.name_of(head.db.0, &head.key);
        let name = Bytes::copy_from_slice(&name);
        let at = self.base + head.at;
        let names = self.names.as_mut();
        if let Some(before) = names.and_then(|names| names.meets(Db(db), &name, at)) {
            return Err(self.twice(&head, before, at));
        }
        self.decoder.want(Want::Raw {
            bytes_max: WHOLE_BYTES,
        });
        self.key = Some(Key {
            body: self.base + self.decoder.offset(),
            head,
            db: Db(db),
            name,
        });
        Ok(())
    }

    /// A key has come before.
    fn twice(&self, head: &KeyHead, before: u64, at: u64) -> SyncError {
        let place = |at| self.feed.place(at).unwrap_or_default();
        let what = format!(
            "key \"{}\" (db {}) comes twice: {} and {}; a server loads no RDB file that has a key twice: write each of these files to one of its own, or take a file_writer.type of commands, where the later value holds",
            show(&head.key),
            head.db.0,
            place(before),
            place(at)
        );
        self.refused(what)
    }

    /// The value is walked over to its end.
    fn value(&mut self) -> Result<(), SyncError> {
        let Some(key) = self.key.take() else {
            return Ok(());
        };
        let Some((writer, ..)) = &mut self.begun else {
            return Ok(());
        };
        if self.selected != Some(key.db) {
            writer.select_db(key.db);
            self.selected = Some(key.db);
        }
        writer.key(&key.head, &key.name);
        self.status
            .snapshot_keys
            .add(&format!("{}|copy", kind_name(key.head.kind)), 1);
        self.status.snapshot_keys_total.add(1);
        self.copy(key.body, self.base + self.decoder.offset())
    }

    /// Copies bytes of the feed.
    fn copy(&mut self, from: u64, to: u64) -> Result<(), SyncError> {
        let mut at = from;
        while at < to {
            let (start, bytes) = &self.chunk;
            let skip = at
                .checked_sub(*start)
                .and_then(|skip| usize::try_from(skip).ok());
            let here = skip.and_then(|skip| bytes.get(skip..));
            let Some(here) = here.filter(|here| !here.is_empty()) else {
                let chunk = self.feed.read(at).map_err(spool_error)?;
                let Some(chunk) = chunk else {
                    return Err(cut_short(self.config, self.feed, at));
                };
                self.chunk = (at, chunk.bytes);
                continue;
            };
            let left = usize::try_from(to - at).unwrap_or(usize::MAX);
            let part = here.get(..left).unwrap_or(here);
            if let Some((writer, ..)) = &mut self.begun {
                writer.copy(part);
            }
            at += part.len() as u64;
            if self.is_much() {
                self.settle()?;
            }
        }
        Ok(())
    }

    fn is_much(&self) -> bool {
        let writer = self.begun.as_ref();
        writer.is_some_and(|(writer, ..)| writer.waiting() >= BUFFER_BYTES)
    }

    fn settle(&mut self) -> Result<(), SyncError> {
        if let Some((writer, ..)) = &mut self.begun {
            let bytes = writer.take();
            self.file
                .write_all(&bytes)
                .map_err(|error| failed(&self.path, &error))?;
        }
        Ok(())
    }

    fn finish(mut self, path: &Path) -> Result<(), SyncError> {
        self.settle()?;
        let Some((writer, ..)) = self.begun.take() else {
            return Err(self.refused("there is no snapshot to write".to_owned()));
        };
        let part = self.path.clone();
        let written = self
            .file
            .write_all(&writer.finish())
            .and_then(|()| self.file.sync_data());
        written.map_err(|error| failed(&part, &error))?;
        expect_none(path)?;
        std::fs::rename(&part, path).map_err(|error| failed(path, &error))
    }

    fn refused(&self, what: String) -> SyncError {
        SyncError::stop(Side::Source, &self.config.source.endpoint.address, what)
    }
}
