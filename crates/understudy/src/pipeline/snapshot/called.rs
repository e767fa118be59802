//! A snapshot by `filter.function`: every key is built by commands, and the script says what becomes of each.
//!
//! What a script makes of a command may not be done twice. So a unit ends where a key ends, and its checkpoint says that very
//! place, not the one before: whoever goes on from there repeats nothing.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use rdb::Event;
use rewrite::{Db, Expect, Method, Sent};

use super::{SnapshotApplier, show};
use crate::checkpoint::{Checkpoint, Phase, Position};
use crate::clock::unix_ms;
use crate::error::{Class, SyncError};
use crate::pipeline::called::Called;
use crate::pipeline::lease::Leases;
use crate::pipeline::sweep::{KeySet, write_owned};
use crate::pipeline::unit::each_command;
use crate::target::Target;

/// The script, and what is on its way to it and from it.
pub(super) struct Scripted {
    called: Called,
    /// Commands before the script, and what each is.
    bytes: Vec<u8>,
    sent: Vec<Sent>,
    /// The source's database that they are for.
    db: Db,
    /// What the script has called, and is not in the lane yet.
    waits: VecDeque<(Db, Vec<u8>, Vec<Sent>)>,
    /// Databases of the target that are there.
    known: HashSet<Db>,
    /// The one selected in the lane.
    selected: Db,
    /// What is before this byte of the RDB is done.
    begins_at: u64,
    /// A command of it has failed inside a transaction that is committed, and past which the checkpoint is.
    has_failed: bool,
    /// The key is done: the script is only asked which keys of the target it makes.
    only_names: bool,
}

impl Scripted {
    /// `None` where there is no script.
    pub(super) fn new(
        config: &crate::config::Config,
        target: &Target,
        begins_at: u64,
    ) -> Result<Option<Self>, SyncError> {
        let called = Called::new(config, target)?;
        Ok(called.map(|called| Self {
            called,
            bytes: Vec::new(),
            sent: Vec::new(),
            db: Db(0),
            waits: VecDeque::new(),
            known: HashSet::from([Db(0)]),
            selected: Db(0),
            begins_at,
            has_failed: false,
            only_names: false,
        }))
    }
}

impl SnapshotApplier<'_> {
    /// Whether a script is to run on the next key. It is on one that is done if the names that it makes are wanted.
    pub(super) fn is_asked_for_names(&mut self, is_done: bool) -> bool {
        let Some(scripted) = &mut self.scripted else {
            return false;
        };
        scripted.only_names = is_done;
        self.applied.keys.is_some()
    }

    /// What comes of an event goes through the script and into the lane.
    pub(super) fn rewrite_by_script(&mut self, event: Event) -> Result<(), SyncError> {
        let Some(scripted) = &mut self.scripted else {
            return Ok(());
        };
        let is_of_no_key = matches!(
            event,
            Event::Function { .. } | Event::FunctionPreGa { .. } | Event::Aux { .. }
        );
        if is_of_no_key && self.decoder.offset() <= scripted.begins_at {
            return Ok(());
        }
        let rewritten = self
            .rewriter
            .event(event, &mut scripted.bytes, &mut scripted.sent);
        rewritten.map_err(|error| self.cannot_hold(&error))?;
        self.run_script()?;
        self.take_waiting();
        Ok(())
    }

    /// Runs the script on the commands that are complete.
    fn run_script(&mut self) -> Result<(), SyncError> {
        let bytes_max = self.config.transaction_bytes_max();
        let Some(scripted) = &mut self.scripted else {
            return Ok(());
        };
        if self.rewriter.is_in_command() {
            if scripted.bytes.len() > bytes_max {
                return Err(SyncError::local(format!(
                    "the snapshot holds a value of more than {bytes_max} bytes, and filter.function sees it whole: a quarter of limits.memory ({} bytes) is for one; raise limits.memory and start again",
                    self.config.memory_bytes
                )));
            }
            return Ok(());
        }
        let (bytes, sent) = (
            std::mem::take(&mut scripted.bytes),
            std::mem::take(&mut scripted.sent),
        );
        let lease = self.leases.map(|_| Leases::snapshot_rule());
        scripted.called.set_lease(lease);
        let (mut sent, mut result) = (sent.into_iter(), Ok(()));
        each_command(&bytes, |_, frame, _| {
            let Some(sent) = sent.next() else { return };
            if sent.method == Method::Select {
                scripted.db = sent.db;
            } else if result.is_ok() {
                result = scripted.one(frame, &sent);
            }
        });
        scripted.bytes = bytes;
        scripted.bytes.clear();
        result.map_err(|what| {
            SyncError::local(format!(
                "the snapshot, before byte {}: {what}; mend the script and start again",
                self.decoder.offset()
            ))
        })?;
        for granted in scripted.called.granted() {
            if let Some(leases) = self.leases.filter(|_| !scripted.only_names) {
                leases.note(granted.db.0, granted.key, granted.at_ms, 0);
            }
        }
        for reason in scripted.called.dropped() {
            self.status.dropped.add(reason.label(), 1);
        }
        Ok(())
    }

    /// What the script has called goes into the lane, up to a database of which it is not known whether it is there.
    pub(super) fn take_waiting(&mut self) {
        let Some(scripted) = &mut self.scripted else {
            return;
        };
        while let Some((db, bytes, mut sent)) = scripted.waits.pop_front() {
            if let Some(keys) = &mut self.applied.keys {
                insert_keys(keys, db, &bytes);
            }
            if scripted.only_names {
                continue;
            }
            if scripted.known.insert(db) {
                scripted.waits.push_front((db, bytes, sent));
                self.unchecked = Some(db);
                return;
            }
            if std::mem::replace(&mut scripted.selected, db) != db {
                resp::encode::command(self.lane.body(), &[b"SELECT", db.0.to_string().as_bytes()]);
                self.lane.added(&mut vec![Sent {
                    key: Bytes::new(),
                    db,
                    kind: rdb::Kind::String,
                    method: Method::Select,
                    expect: Expect::Ok,
                    last_of_key: false,
                }]);
            }
            if let Some(rival) = &self.config.rival {
                let keys = sent.iter().filter(|sent| sent.method != Method::Function);
                keys.for_each(|sent| rival.writes(self.status, db.0, &sent.key));
            }
            self.lane.body().extend_from_slice(&bytes);
            self.lane.added(&mut sent);
        }
    }

    pub(super) fn note_failed(&mut self) {
        if let Some(scripted) = &mut self.scripted {
            scripted.has_failed = true;
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.scripted
            .as_ref()
            .is_some_and(|scripted| scripted.has_failed)
    }

    /// Makes the checkpoint say that the target is not what it should be: a run that went on from it would not know.
    pub(super) async fn failed_for_good(&self, error: SyncError) -> SyncError {
        let position = Position {
            replid: self.progress.replid,
            offset: self.progress.offset,
            db: 0,
        };
        let checkpoint = Checkpoint {
            phase: Phase::Diverged(position),
            ..self.checkpoint.clone()
        };
        let noted = write_owned(self.config, &checkpoint).await;
        let then = match noted {
            Ok(()) => "empty the target, its checkpoint too, and start again",
            Err(_) => {
                "this could not be noted at the target: empty it, its checkpoint too, before the next start"
            }
        };
        SyncError {
            class: Class::Stop,
            what: format!("{}; filter.function has called it; {then}", error.what),
            ..error
        }
    }

    /// Whether a unit may not end here, nor its checkpoint say so.
    pub(super) fn is_within_a_key(&self) -> bool {
        self.scripted
            .as_ref()
            .is_some_and(|scripted| self.in_key.is_some() || !scripted.waits.is_empty())
    }
}

/// Notes the keys of these commands.
fn insert_keys(keys: &mut KeySet, db: Db, bytes: &[u8]) {
    let mut places = Vec::new();
    each_command(bytes, |_, frame, args| {
        places.clear();
        let name = args.first().map_or(&[][..], |name| name.of(frame));
        match rewrite::table::lookup(name) {
            Some(command) => rewrite::keys_of(command, frame, args, &mut places),
            None => places.push(1),
        }
        for key in places.iter().filter_map(|place| args.get(*place)) {
            keys.insert(db.0, key.of(frame));
        }
    });
}

impl Scripted {
    /// Runs the script on one command.
    fn one(&mut self, frame: &[u8], of: &Sent) -> Result<(), String> {
        self.called.run(self.db, frame, unix_ms())?;
        let mut last = None;
        for (made, bytes) in self.called.made() {
            let name = self.called.command(made.command);
            let mut sent = Vec::new();
            each_command(bytes, |_, frame, args| {
                let mut places = Vec::new();
                if let Some(command) = name {
                    rewrite::keys_of(command, frame, args, &mut places);
                }
                let key = places.first().or(Some(&1).filter(|_| name.is_none()));
                let key = key.and_then(|place| args.get(*place));
                let is_set = made.is_plain && name.is_some_and(|command| command.name == "set");
                sent.push(Sent {
                    key: key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.of(frame))),
                    db: made.db,
                    kind: of.kind,
                    method: match (is_set, key) {
                        (true, _) => Method::Set,
                        (_, Some(_)) => Method::Commands,
                        (_, None) => Method::Function,
                    },
                    expect: Expect::Ok,
                    last_of_key: false,
                });
            });
            self.waits.push_back((made.db, bytes.to_vec(), sent));
            last = Some(());
        }
        match (last, of.last_of_key, self.waits.back_mut()) {
            (Some(()), true, Some((_, _, sent))) => {
                if let Some(sent) = sent.last_mut() {
                    sent.last_of_key = true;
                }
            }
            (None, true, _) => {
                tracing::trace!(key = show(&of.key), "filter.function makes nothing of it");
            }
            _ => {}
        }
        Ok(())
    }
}
