//! Commands that name dbs, or act on all of them.

use super::{Done, Work};
use crate::Db;
use crate::number::{Decimal, parse_db};
use crate::outcome::DropReason;

impl Work<'_> {
    fn passes(&self, db: Db) -> bool {
        self.options.filter.db(db)
    }

    /// What the filter says about a command that takes from one db and gives to another.
    fn between(&self, from: Db, to: Db) -> Option<DropReason> {
        match (self.passes(from), self.passes(to)) {
            (true, true) => None,
            (false, false) => Some(DropReason::FilterDb),
            (false, true) | (true, false) => Some(DropReason::FilterMixed),
        }
    }

    /// `SWAPDB a b`. The checkpoint lives in db 0 and is written at the end of the unit: when db 0 changes places, the old
    /// one goes with it and has to be removed from where it went.
    pub(super) fn swapdb(mut self) -> Done {
        let (Some(a), Some(b)) = (parse_db(self.words.at(1)), parse_db(self.words.at(2))) else {
            return Done::Forward;
        };
        if let Some(reason) = self.between(a, b) {
            return Done::Dropped(reason);
        }
        let other = if a == Db(0) { b } else { a };
        let touches_db_0 = (a == Db(0) || b == Db(0)) && a != b;
        if !touches_db_0 || self.options.checkpoint_key.is_empty() {
            return Done::Forward;
        }
        self.emit(&[b"SWAPDB", self.words.at(1), self.words.at(2)]);
        self.select(other);
        self.emit(&[b"DEL", &self.options.checkpoint_key]);
        self.select(self.db);
        Done::Rewritten(4)
    }

    fn select(&mut self, db: Db) {
        self.emit(&[b"SELECT", Decimal::new(i64::from(db.0)).text()]);
    }

    /// `MOVE key db`. To a db that is filtered out it is a `DEL`. Before 3.0 a key lost its expiry on the way.
    pub(super) fn move_key(mut self) -> Done {
        let Some(to) = parse_db(self.words.at(2)) else {
            return Done::Forward;
        };
        let loses_expiry = self.options.source_version.is_some_and(|of| of.major < 3);
        match self.between(self.db, to) {
            None if loses_expiry => {
                self.emit(&[b"PERSIST", self.words.at(1)]);
                self.emit(&[b"MOVE", self.words.at(1), self.words.at(2)]);
                Done::Rewritten(2)
            }
            None => Done::Forward,
            Some(_) if self.passes(self.db) => {
                let key = self.words.at(1);
                self.emit(&[b"DEL", key]);
                Done::Rewritten(1)
            }
            Some(reason) => Done::Dropped(reason),
        }
    }

    /// `COPY source destination [DB db] [REPLACE]`.
    pub(super) fn copy(self) -> Done {
        self.copy_to().1
    }

    /// The db that a `COPY` is for, if it is one, and what becomes of it under the filter.
    pub(super) fn copy_to(&self) -> (Option<Db>, Done) {
        let words = self.words;
        let named = (3..words.len()).find(|at| words.is(*at, b"DB"));
        let to = match named {
            Some(at) => parse_db(words.at(at + 1)),
            None => Some(self.db),
        };
        let done = match to.map(|to| (self.between(self.db, to), self.passes(to))) {
            None | Some((None, _)) => Done::Forward,
            Some((Some(_), false)) => Done::Dropped(DropReason::FilterDb),
            Some((Some(reason), true)) => Done::Dropped(reason),
        };
        (to, done)
    }

    /// How a flush is to be done, if the target knows that word: `ASYNC` came with 4.0, `SYNC` with 6.2.
    fn flush_mode(&self) -> Option<&[u8]> {
        let target = &self.options.target;
        let known = target.words_of_6_2 || (target.unlink && self.words.is(1, b"ASYNC"));
        let mode = self.words.args.get(1).filter(|_| known)?;
        Some(mode.of(self.words.frame))
    }

    /// `FLUSHDB [ASYNC | SYNC]`
    pub(super) fn flushdb(mut self) -> Done {
        if self.words.len() < 2 || self.flush_mode().is_some() {
            return Done::Forward;
        }
        self.emit(&[b"FLUSHDB"]);
        Done::Rewritten(1)
    }

    /// `FLUSHALL [ASYNC | SYNC]`. With some dbs filtered out it is `FLUSHDB` of each of the others.
    pub(super) fn flushall(mut self) -> Done {
        let mode = self.flush_mode().map(<[u8]>::to_vec);
        if !self.options.filter.has_db_rules() {
            if self.words.len() < 2 || mode.is_some() {
                return Done::Forward;
            }
            self.emit(&[b"FLUSHALL"]);
            return Done::Rewritten(1);
        }
        let mut commands = 0;
        let dbs = self.options.databases.all().into_iter();
        for db in dbs.filter(|db| self.options.filter.db(*db)) {
            self.select(db);
            match &mode {
                Some(mode) => self.emit(&[b"FLUSHDB", mode]),
                None => self.emit(&[b"FLUSHDB"]),
            }
            commands += 2;
        }
        if commands == 0 {
            return Done::Dropped(DropReason::FilterDb);
        }
        self.select(self.db);
        Done::Rewritten(commands + 1)
    }
}
