//! Commands under the target's names, on their way to the collector.

use std::collections::BTreeSet;

use resp::Arg;
use rewrite::{Db, slot_of};

use super::collect::{Collector, Incoming};
use crate::pipeline::{Hole, each_command};
use crate::status::Status;
use crate::target::cluster::Mark;

/// Where commands go for the target, under its names.
pub(super) struct Sink<'a> {
    pub(super) status: &'a Status,
    pub(super) table: &'a rewrite::Table,
    pub(super) collector: &'a mut Collector,
    pub(super) dbs: &'a mut BTreeSet<u32>,
}

impl Sink<'_> {
    /// One command. What cannot be done in a cluster is told in words: only a new snapshot brings it about.
    pub(super) fn one(
        self,
        known: Option<&rewrite::Command>,
        of: Incoming<'_>,
    ) -> Result<(), String> {
        let word = |at: usize| of.args.get(at).map(|arg| arg.of(of.frame));
        let is = |name: &[u8]| word(0).is_some_and(|word| word.eq_ignore_ascii_case(name));
        if is(b"swapdb") {
            return Err("SWAPDB cannot be done in a cluster".to_owned());
        }
        let is_flush = is(b"flushdb");
        if is_flush && of.db == 0 && self.collector.is_in_transaction() && !self.dbs.is_empty() {
            // It takes the positions of slots along, of which other databases have the rest.
            return Err(
                "FLUSHDB within a transaction of several databases cannot be done in a cluster"
                    .to_owned(),
            );
        }
        // A database that a cluster does not have is empty.
        if of.db != 0 && !is_flush {
            self.dbs.insert(of.db);
        }
        // The other database of what goes from one to another.
        let other = match (is(b"move"), is(b"copy")) {
            (true, _) => word(2),
            (_, true) => rewrite::copy_db(of.frame, of.args),
            _ => None,
        };
        let number = other.and_then(|word| std::str::from_utf8(word).ok()?.parse::<u32>().ok());
        self.dbs.extend(number);
        self.collector.command(self.status, known, of);
        Ok(())
    }

    /// Several, for `db` where they say no other, which one command of the source has become.
    pub(super) fn all(
        self,
        bytes: &[u8],
        mut db: Db,
        end: u64,
        holes: &[Hole],
        is_one: bool,
    ) -> Result<(), String> {
        let (mut part, mut result) = (0, Ok(()));
        each_command(bytes, |_, frame, args| {
            if let Some(selected) = selected(frame, args) {
                db = selected;
                return;
            }
            part += 1;
            let mark = Mark { offset: end, part };
            let sink = Sink {
                status: self.status,
                table: self.table,
                collector: &mut *self.collector,
                dbs: &mut *self.dbs,
            };
            let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
            let known = sink.table.find(name);
            let known = known.and_then(|id| sink.table.command(id));
            let of = Incoming {
                db: db.0,
                frame,
                args,
                mark,
                holes,
                is_one,
            };
            let put = sink.one(known, of);
            if result.is_ok() {
                result = put;
            }
        });
        result
    }
}

/// The database that a SELECT names.
pub(super) fn selected(frame: &[u8], args: &[Arg]) -> Option<Db> {
    let word = |at: usize| args.get(at).map(|arg| arg.of(frame)).unwrap_or_default();
    if !word(0).eq_ignore_ascii_case(b"select") {
        return None;
    }
    let number = std::str::from_utf8(word(1)).ok();
    Some(Db(number
        .and_then(|text| text.parse().ok())
        .unwrap_or(u32::MAX)))
}

/// Whether all slots of their keys have what one command of the source, which ends there, has become.
pub(super) fn is_done(
    collector: &Collector,
    table: &rewrite::Table,
    bytes: &[u8],
    end: u64,
) -> bool {
    if end > collector.applied_until() {
        return false;
    }
    let (mut part, mut is_done, mut places) = (0, true, Vec::new());
    each_command(bytes, |_, frame, args| {
        if selected(frame, args).is_some() {
            return;
        }
        part += 1;
        let mark = Mark { offset: end, part };
        let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
        places.clear();
        if let Some(command) = table.lookup(&name.to_ascii_lowercase()) {
            rewrite::keys_of(command, frame, args, &mut places);
        }
        let key = |at: &usize| args.get(*at).map(|arg| arg.of(frame)).unwrap_or_default();
        let has = |at: &usize| collector.has(slot_of(key(at)), mark);
        is_done &= places.iter().all(has);
    });
    is_done
}
