//! Keys of a snapshot -> commands for the target.
//!
//! A string is a `SET`. A value of any other kind is a `RESTORE` of its bytes as they stand in the file, if the target
//! knows the type and the value is small enough; else it is built by commands, in chunks bounded in words and bytes.
//! What is built by commands is deleted first. Times are absolute. A key whose time has come is left out: the source will
//! send its `DEL`.
//!
//! Where the target's own keys are not to be replaced, a single command says so itself (`SET ... NX`, `RESTORE` without
//! `REPLACE`); what takes several is built under a temporary name and renamed with `RENAMENX` at the end.

mod ahead;
mod alone;
mod boundary;
mod build;
mod functions;
mod groups;
mod losses;
mod module;
mod record;
mod report;
mod restore;
mod skeleton;
mod stream;
mod string;
mod write;

use std::borrow::Cow;

use bytes::Bytes;
use rdb::{Dialect, Element, Event, KeyHead, Want};

use crate::abilities::Abilities;
use crate::dbmap::DbMap;
use crate::filter::Filter;
use crate::number::Decimal;
use crate::outcome::printable;
use crate::own::OwnKeys;
use crate::stream::{LeaseRule, Losses};
use crate::{Db, Kind};
use ahead::Ahead;
pub(crate) use alone::{by_commands, is_at_a_boundary};
use build::Chunk;
use losses::Loss;
pub use record::PlainSet;
pub use report::{SnapshotCounts, SnapshotError, SnapshotErrorKind};
pub(crate) use restore::has_field_times;
use stream::Stream;
pub use write::{Expect, Method, Sent};

/// What happens to a key that the target already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It gets the source's value.
    Replace,
    /// It stays; the reply to the command says so ([`Expect`]), and the caller ends with an error.
    Fail,
    /// It stays; the reply to the command says so, and the caller counts it.
    Skip,
}

/// How a snapshot is rewritten.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// What the target can take.
    pub target: Abilities,
    /// What passes.
    pub filter: Filter,
    /// What happens to keys that the target already has.
    pub existing: Existing,
    /// What is built by commands is deleted first; not where the target has none of the keys.
    pub deletes: bool,
    /// The largest value that is sent in one piece by `RESTORE`; with 0 commands build whatever they can.
    pub restore_bytes_max: u64,
    /// The largest value that is sent by `RESTORE` in pieces ([`SnapshotRewriter::pieces`]), which holds the target up for
    /// as long as it takes to build it.
    pub restore_pieces_bytes_max: u64,
    /// The most words in a command that builds a value (at least 8).
    pub chunk_items: usize,
    /// About how many bytes are in a command that builds a value.
    pub chunk_bytes: usize,
    /// What may be lost.
    pub losses: Losses,
    /// Expiries of hash fields are moved by this rule, or stay as they are.
    pub field_lease: Option<LeaseRule>,
    /// Keys with this in their names are ours; those of the source are left out.
    pub own_key_mark: Bytes,
    /// The target's libraries of functions go before the snapshot's first one comes: one that is gone at the source may
    /// have a function of the same name, for which the new one would be refused.
    pub flush_functions: bool,
    /// Where the source's databases go, if not under their own numbers.
    pub db_map: Option<DbMap>,
    /// The time, in Unix milliseconds: [`SnapshotRewriter::tick`] moves it on.
    pub now_ms: u64,
}

impl SnapshotOptions {
    /// The usual options for a target. 3,999 words are what ElastiCache Serverless takes; a command of about 64 KiB keeps
    /// any server busy for well below a millisecond.
    pub fn new(target: Abilities, now_ms: u64) -> Self {
        Self {
            target,
            filter: Filter::default(),
            existing: Existing::Replace,
            deletes: true,
            restore_bytes_max: 512 << 10,
            restore_pieces_bytes_max: 0,
            chunk_items: 1024,
            chunk_bytes: 64 << 10,
            losses: Losses::Refuse,
            field_lease: None,
            own_key_mark: Bytes::from_static(crate::OWN_KEY_MARK),
            flush_functions: false,
            db_map: None,
            now_ms,
        }
    }
}

/// Rewrites one snapshot, event by event, in order.
#[derive(Debug)]
pub struct SnapshotRewriter {
    options: SnapshotOptions,
    own: OwnKeys,
    has_key_rules: bool,
    dialect: Dialect,
    selected: Option<Db>,
    counts: SnapshotCounts,
    current: Option<Current>,
    /// The key failed: what is still to come of its value is passed over.
    abandoned: bool,
    has_leased_fields: bool,
    chunk: Chunk,
    ahead: Ahead,
}

/// The key whose value is expected or under way.
#[derive(Debug)]
struct Current {
    head: KeyHead,
    /// How its bytes are to be sent, if they come undecoded.
    restore: Option<RestoreAs>,
    value: Progress,
}

/// A type and version for a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RestoreAs {
    type_id: u8,
    version: u16,
}

/// How far a value is.
#[derive(Debug)]
enum Progress {
    Expected,
    /// A string within a command that is begun; so many bytes are to come.
    Bulk {
        left: u64,
    },
    /// A string of which parts are appended. The last part waits: with its command the key is complete.
    Append {
        name: Bytes,
        begun: bool,
        held: Bytes,
    },
    /// Elements; the name is the key's or a temporary one.
    Elements {
        name: Bytes,
        begun: bool,
        /// Where an array inserts next, less one.
        insert: Option<u64>,
    },
    Stream(Box<Stream>),
    /// A body within a `RESTORE` that is begun.
    Pieces {
        left: u64,
        /// Of what was given.
        checksum: u64,
        begun: restore::Begun,
    },
}

impl SnapshotRewriter {
    /// A rewriter at the beginning of a snapshot, for a connection in db 0.
    pub fn new(options: SnapshotOptions) -> Self {
        Self {
            own: OwnKeys::new(&options.own_key_mark),
            has_key_rules: options.filter.has_key_rules(),
            dialect: Dialect::Shared,
            selected: Some(Db(0)),
            counts: SnapshotCounts::default(),
            current: None,
            abandoned: false,
            has_leased_fields: false,
            chunk: Chunk::default(),
            ahead: Ahead::default(),
            options,
        }
    }

    /// What the time is now.
    pub fn tick(&mut self, now_ms: u64) {
        self.options.now_ms = now_ms;
    }

    /// The next command goes over another connection: its db has to be selected again.
    pub fn reconnected(&mut self) {
        self.selected = None;
    }

    /// What was left out so far.
    pub fn counts(&self) -> &SnapshotCounts {
        &self.counts
    }

    /// Whether expiries of hash fields were moved since the last call.
    pub fn take_leased_fields(&mut self) -> bool {
        std::mem::take(&mut self.has_leased_fields)
    }

    /// Whether the last command that was appended is still open: more of the string or the message that it carries has
    /// to come.
    pub fn is_in_command(&self) -> bool {
        match self.current.as_ref().map(|current| &current.value) {
            Some(Progress::Bulk { .. } | Progress::Pieces { .. }) => true,
            Some(Progress::Stream(stream)) => stream.is_in_message(),
            _ => false,
        }
    }

    /// A key: says in which form its value is wanted. After an error its value is to be skipped, if the caller goes on.
    pub fn key(&mut self, head: &KeyHead) -> Result<Want, SnapshotError> {
        self.current = None;
        self.abandoned = false;
        self.ahead = Ahead::default();
        if self.is_left_out(head.db, &head.key, head.kind, head.expire_at_ms) {
            return Ok(Want::Skip);
        }
        let fail = |kind| SnapshotError {
            key: printable(&head.key),
            kind,
        };
        let (want, restore) = match self.choose(head) {
            Err(SnapshotErrorKind::TypeUnknown { .. }) if self.options.losses == Losses::Allow => {
                match head.kind {
                    Kind::Module => self.counts.modules_lost += 1,
                    _ => self.counts.keys_lost += 1,
                }
                return Ok(Want::Skip);
            }
            chosen => chosen.map_err(fail)?,
        };
        let mut head = head.clone();
        if let Some(map) = &self.options.db_map {
            head.key = map.key(head.db, &head.key).into_owned().into();
            head.db = map.db(head.db);
        }
        if want == Want::Elements {
            self.count_hints(&head);
        }
        if head.meta.is_some() && (!self.takes_metadata() || restore.is_none()) {
            self.count_loss(Loss::Metadata);
            head.meta = None;
        }
        self.current = Some(Current {
            head,
            restore,
            value: Progress::Expected,
        });
        Ok(want)
    }

    /// Commands do not tell how a key is used.
    fn count_hints(&mut self, head: &KeyHead) {
        if restore::has_hints(head) {
            self.count_loss(Loss::UsageHint);
        }
    }

    fn is_left_out(&mut self, db: Db, key: &[u8], kind: Kind, expire_at_ms: Option<i64>) -> bool {
        let filter = &self.options.filter;
        let counter = if self.own.contains(key) {
            &mut self.counts.own_keys
        } else if !filter.db(db) {
            &mut self.counts.filtered_dbs
        } else if self.has_key_rules && !filter.key(key) {
            &mut self.counts.filtered_keys
        } else if filter.kind(kind).is_err() {
            &mut self.counts.filtered_kinds
        } else if expire_at_ms.is_some_and(|at| self.is_past(at)) {
            &mut self.counts.expired_keys
        } else {
            return false;
        };
        *counter += 1;
        true
    }

    fn is_past(&self, at_ms: i64) -> bool {
        i64::try_from(self.options.now_ms).is_ok_and(|now| at_ms <= now)
    }

    /// An event of the value of the last key, or one that belongs to no key. Commands are appended to `out`, one `sent`
    /// for each that is complete; a string that does not fit into one event leaves its command open until its end.
    ///
    /// After an error the key is abandoned: what else comes of its value is passed over. Commands for it may have gone out.
    pub fn event(
        &mut self,
        event: Event,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        if self.abandoned && is_of_a_value(&event) {
            return Ok(());
        }
        let result = self.write(event, out, sent);
        self.abandoned = result
            .as_ref()
            .is_err_and(|error| error.kind != SnapshotErrorKind::OutOfOrder);
        result
    }

    /// An element of the value of the last key, as the event of the same name.
    #[inline]
    pub fn element(
        &mut self,
        element: Element<'_>,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        if self.abandoned {
            return Ok(());
        }
        let result = match &self.current {
            Some(Current {
                value: Progress::Elements { .. },
                ..
            }) => match element {
                Element::Item(item) => self.words([item], out, sent),
                Element::Pair {
                    field,
                    value,
                    expire_at_ms,
                } => self.pair(field, value, expire_at_ms, out, sent),
                Element::Scored { member, score } => self.scored(member, score, out, sent),
            },
            Some(_) | None => return Err(Self::out_of_order()),
        };
        self.abandoned = result
            .as_ref()
            .is_err_and(|error| error.kind != SnapshotErrorKind::OutOfOrder);
        result
    }

    fn write(
        &mut self,
        event: Event,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        if let Some(Current {
            value: Progress::Stream(_),
            ..
        }) = &self.current
            && is_of_a_value(&event)
        {
            return self.stream(event, out, sent);
        }
        match event {
            Event::String(value) => self.string(value, out, sent),
            Event::Raw(body) => self.raw(&body, out, sent),
            Event::ValueStart {
                kind: Kind::String,
                len,
            } => self.string_start(len, out, sent),
            Event::ValueStart {
                kind: Kind::Stream, ..
            } => self.stream_start(),
            Event::ValueStart { .. } => self.elements_start(),
            Event::StringPart(part) => self.string_part(part, out, sent),
            Event::Item(item) => self.words([&item], out, sent),
            Event::Pair {
                field,
                value,
                expire_at_ms,
            } => self.pair(&field, &value, expire_at_ms, out, sent),
            Event::Scored { member, score } => self.scored(&member, score, out, sent),
            Event::ArrayItem { index, value } => {
                let index = Decimal::unsigned(index);
                self.words([index.text(), &value], out, sent)
            }
            Event::ArrayInsertIndex(index) => self.insert_index(index),
            Event::ValueEnd => self.end(out, sent),
            Event::Function { code } => self.function(&code, out, sent),
            Event::FunctionPreGa {
                name, engine, code, ..
            } => self.function_pre_ga(&name, &engine, &code, out, sent),
            Event::Aux { name, value } if *name == *b"lua" => {
                write::script(&value, out, sent);
                Ok(())
            }
            Event::ModuleAux { .. } => {
                self.counts.module_data_dropped += 1;
                Ok(())
            }
            Event::Start { dialect, .. } => {
                self.dialect = dialect;
                Ok(())
            }
            event if is_of_a_value(&event) => Err(Self::out_of_order()),
            // Hints, notes and the end; keys go to `key`.
            _ => Ok(()),
        }
    }

    /// A key that the source does not have, or not any more: it goes at the target too.
    pub fn remove(&mut self, db: Db, key: &[u8], out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
        self.current = None;
        let filter = &self.options.filter;
        if self.own.contains(key) || !filter.db(db) || (self.has_key_rules && !filter.key(key)) {
            return;
        }
        let (db, name) = match &self.options.db_map {
            None => (db, Cow::Borrowed(key)),
            Some(map) => (map.db(db), map.key(db, key)),
        };
        self.select(db, out, sent);
        write::delete(&name, self.options.target.unlink, out);
        sent.push(Sent::deleted(db, Bytes::copy_from_slice(&name)));
    }

    /// A library of functions that the source does not have any more.
    pub fn remove_library(&mut self, name: &[u8], out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
        if self.options.target.functions {
            write::delete_library(name, out, sent);
        }
    }

    /// The key whose value this is, with which it ends.
    fn take(&mut self) -> Result<Current, SnapshotError> {
        self.current.take().ok_or(SnapshotError {
            key: String::new(),
            kind: SnapshotErrorKind::OutOfOrder,
        })
    }

    fn error(head: &KeyHead, kind: SnapshotErrorKind) -> SnapshotError {
        SnapshotError {
            key: printable(&head.key),
            kind,
        }
    }

    fn out_of_order() -> SnapshotError {
        SnapshotError {
            key: String::new(),
            kind: SnapshotErrorKind::OutOfOrder,
        }
    }

    /// `SELECT`, if the connection is in another db.
    fn select(&mut self, db: Db, out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
        if self.selected != Some(db) {
            self.selected = Some(db);
            write::select(db, out, sent);
        }
    }
}

fn is_of_a_value(event: &Event) -> bool {
    matches!(
        event,
        Event::String(_)
            | Event::Raw(_)
            | Event::ValueStart { .. }
            | Event::StringPart(_)
            | Event::Item(_)
            | Event::Pair { .. }
            | Event::Scored { .. }
            | Event::StreamEntry { .. }
            | Event::StreamInfo(_)
            | Event::StreamGroup { .. }
            | Event::StreamPending { .. }
            | Event::StreamConsumer { .. }
            | Event::StreamOwned { .. }
            | Event::StreamReturned { .. }
            | Event::StreamIdempotence { .. }
            | Event::StreamProducer { .. }
            | Event::StreamProduced { .. }
            | Event::StreamIdempotenceCounts { .. }
            | Event::ArrayInsertIndex(_)
            | Event::ArrayItem { .. }
            | Event::ModuleType(_)
            | Event::ModulePart(_)
            | Event::ValueEnd
    )
}
