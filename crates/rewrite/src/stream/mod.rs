//! Commands of the source's stream -> commands for the target.
//!
//! Most go out as the very bytes that came in: a look at the name, one at the key, a branch. The stream holds only what
//! succeeded at the source, so conditions are taken off (`SETNX` -> `SET`): the target must do the same, whatever its own
//! state says. Times become absolute. What is about the server, the connection or the cluster is dropped, and every
//! drop has a reason with a counter of its own.
//!
//! Commands that name a db, when some dbs are filtered out: `MOVE` to one is a `DEL`, `COPY` to one is dropped; from one
//! to another that passes, and `SWAPDB` of one that passes with one that does not, cannot be said without reading the
//! source, and are dropped as [`DropReason::FilterMixed`]. `FLUSHALL` becomes `FLUSHDB` of each db that passes.
//! `FLUSHALL` and `FLUSHDB` have no keys, so that rules about keys do not stop them.

mod dbs;
mod expire;
mod older;
mod plan;
mod restore;
mod scripts;
mod split;
mod streams;
mod strings;
mod wide;
mod xadd;

use bytes::Bytes;
use resp::Arg;

use crate::Db;
use crate::abilities::{Abilities, Version};
use crate::filter::Filter;
use crate::keys::Words;
use crate::outcome::{DropReason, Error, ErrorKind, Outcome, printable};
use crate::own::OwnKeys;
use crate::table::{CommandId, Table};
use plan::{Action, KeyPlan, Plan};
use split::Cut;

/// Rewriting adds a few words to a command at most: a script's, the parts of an expiry.
const WORDS_ADDED_MAX: u64 = 8;

/// What is lost on the way to a target that lacks something (functions, TTLs of fields).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Losses {
    /// Nothing: it is an error.
    Refuse,
    /// What the target lacks is left out and counted.
    Allow,
}

/// How a stream is rewritten.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// What passes.
    pub filter: Filter,
    /// What the target can take.
    pub target: Abilities,
    /// The source's version, if it is known.
    pub source_version: Option<Version>,
    /// Keys with this in their names are ours; those of the source's stream are dropped.
    pub own_key_mark: Bytes,
    /// Whether messages to channels are passed on.
    pub publish: Publish,
    /// The name of the checkpoint, which lives in db 0; empty if there is none.
    pub checkpoint_key: Bytes,
    /// The db in force at the beginning.
    pub start_db: Db,
    /// Dbs that `FLUSHALL` empties where there are rules about dbs.
    pub databases: Databases,
    /// What may be lost.
    pub losses: Losses,
    /// Expiries of hash fields are moved by this rule, or stay as they are.
    pub field_lease: Option<LeaseRule>,
    /// The commands come from no source but are made up on the way: their conditions are still to be met, and stay.
    pub conditions_stay: bool,
    /// The commands there are.
    pub table: Table,
}

/// Dbs of the source of which the target may hold something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// So many, and all that are selected.
    AtLeast(u32),
    /// These: it is known which the target has.
    These(Vec<Db>),
}

impl Databases {
    /// All of them, in order.
    fn all(&self) -> Vec<Db> {
        match self {
            Self::AtLeast(count) => (0..*count).map(Db).collect(),
            Self::These(dbs) => dbs.clone(),
        }
    }
}

/// What becomes of messages to channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// They are dropped: subscribers listen at one of the two servers.
    Drop,
    /// They are passed on (Sentinel's never are).
    Forward,
}

impl StreamOptions {
    /// The usual options for a target.
    pub fn new(target: Abilities) -> Self {
        Self {
            filter: Filter::default(),
            target,
            source_version: None,
            own_key_mark: Bytes::from_static(crate::OWN_KEY_MARK),
            publish: Publish::Drop,
            checkpoint_key: Bytes::new(),
            start_db: Db(0),
            databases: Databases::AtLeast(16),
            losses: Losses::Refuse,
            field_lease: None,
            conditions_stay: false,
            table: Table::new(),
        }
    }
}

/// Rewrites one source's stream, command by command, in order.
#[derive(Debug)]
pub struct StreamRewriter {
    options: StreamOptions,
    plans: Vec<Plan>,
    own: OwnKeys,
    has_key_rules: bool,
    set: Option<CommandId>,
    db: Db,
    db_passes: bool,
    in_transaction: bool,
    /// Places of keys, kept for its memory.
    places: Vec<usize>,
    lease: Option<LeaseRule>,
    granted: Vec<Granted>,
    has_leased_fields: bool,
    left_out: u64,
}

/// Moves expiries that would come too early at the target: set it while the target is behind its source, where a key
/// may run out before the command that would have saved it is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRule {
    /// Expiries before this Unix time in milliseconds are moved,
    pub before_ms: i64,
    /// by so much.
    pub add_ms: i64,
}

impl LeaseRule {
    /// The time to write, where this one is moved.
    pub(crate) fn moved(self, at_ms: i64) -> Option<i64> {
        (at_ms < self.before_ms).then(|| at_ms.saturating_add(self.add_ms))
    }
}

/// An expiry that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The key's db.
    pub db: Db,
    /// The key.
    pub key: Bytes,
    /// Its own expiry, in Unix milliseconds.
    pub at_ms: i64,
}

/// What an action makes of a command.
enum Done {
    Forward,
    Rewritten(u32),
    Dropped(DropReason),
}

/// What an action works with.
struct Work<'a> {
    words: Words<'a>,
    options: &'a StreamOptions,
    db: Db,
    received_at_ms: u64,
    out: &'a mut Vec<u8>,
    lease: Option<LeaseRule>,
    granted: &'a mut Vec<Granted>,
    has_leased_fields: &'a mut bool,
    left_out: &'a mut u64,
}

impl StreamRewriter {
    /// A rewriter at the beginning of a stream (or where a checkpoint left it: outside a transaction).
    pub fn new(options: StreamOptions) -> Self {
        Self {
            plans: plan::plans(&options),
            own: OwnKeys::new(&options.own_key_mark),
            has_key_rules: options.filter.has_key_rules(),
            set: options.table.find(b"set"),
            db: options.start_db,
            db_passes: options.filter.db(options.start_db),
            in_transaction: false,
            places: Vec::new(),
            lease: None,
            granted: Vec::new(),
            has_leased_fields: false,
            left_out: 0,
            options,
        }
    }

    /// Looks at one command of the source's stream and says what goes to the target. `received_at_ms` is the source's
    /// clock: times that count from now count from there. What [`Outcome::Rewritten`] speaks of is appended to `out`; it
    /// is meant for [`Self::db`], and leaves that db selected. After an error nothing is appended.
    pub fn command(
        &mut self,
        frame: &[u8],
        args: &[Arg],
        received_at_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Error> {
        let start = out.len();
        let outcome = self.say(frame, args, received_at_ms, out)?;
        // Nearly no target and no command: rewriting makes none longer by much.
        if (args.len() as u64).saturating_add(WORDS_ADDED_MAX) > self.options.target.args_max {
            return self.narrow(outcome, frame, args, start, out);
        }
        Ok(outcome)
    }

    /// Commands with more words than the target takes fall apart, or are refused.
    #[cold]
    fn narrow(
        &self,
        outcome: Outcome,
        frame: &[u8],
        args: &[Arg],
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Error> {
        let words_max = usize::try_from(self.options.target.args_max).unwrap_or(usize::MAX);
        let (command, whole) = match outcome {
            Outcome::Forward { command } if args.len() > words_max => (command, frame.to_vec()),
            Outcome::Rewritten { command, .. } => {
                (command, out.get(start..).unwrap_or(&[]).to_vec())
            }
            outcome => return Ok(outcome),
        };
        let mut decoder = resp::CommandDecoder::new(resp::Limits {
            bulk_bytes_max: u64::MAX,
            ..resp::Limits::default()
        });
        let (mut rest, mut commands) = (&*whole, 0);
        out.truncate(start);
        while let Ok(Some(found)) = decoder.poll(rest) {
            let one = rest.get(..found.len).unwrap_or_default();
            if decoder.args().len() <= words_max {
                out.extend_from_slice(one);
                commands += 1;
            } else {
                match wide::split(one, decoder.args(), words_max, out) {
                    Some(parts) => commands += parts,
                    None => {
                        out.truncate(start);
                        return self.too_wide(args, frame);
                    }
                }
            }
            rest = rest.get(found.len..).unwrap_or_default();
        }
        Ok(Outcome::Rewritten { command, commands })
    }

    fn too_wide(&self, args: &[Arg], frame: &[u8]) -> Result<Outcome, Error> {
        match self.options.losses {
            Losses::Allow => Ok(Outcome::Dropped(DropReason::TargetLacks)),
            Losses::Refuse => Err(Error {
                command: printable(Words { frame, args }.at(0)),
                kind: ErrorKind::TargetLacks {
                    what: "room for so many words in one command",
                },
            }),
        }
    }

    fn say(
        &mut self,
        frame: &[u8],
        args: &[Arg],
        received_at_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Error> {
        let words = Words { frame, args };
        if args.is_empty() {
            return Ok(Outcome::Dropped(DropReason::Empty));
        }
        let name = words.at(0);
        let (id, plan) = self.plan(name);
        let fail = |kind| Error {
            command: printable(name),
            kind,
        };
        match plan.action {
            Action::Select => return self.select(words).map_err(fail),
            Action::Multi => return self.multi().map_err(fail),
            Action::Exec => return self.end_transaction(Outcome::Exec).map_err(fail),
            Action::Discard => return self.end_transaction(Outcome::Discard).map_err(fail),
            Action::Drop(reason) => return Ok(Outcome::Dropped(reason)),
            _ => {}
        }
        let blocked = if plan.by_subcommand {
            plan::subcommand(name, words.at(1), &self.options.filter)
        } else {
            plan.blocked
        };
        if let Some(reason) = blocked {
            return Ok(Outcome::Dropped(reason));
        }
        if !self.db_passes && plan.in_db {
            return Ok(Outcome::Dropped(DropReason::FilterDb));
        }
        match self.judge(id, plan.keys, words) {
            Verdict::Pass => {}
            Verdict::Drop(reason) => return Ok(Outcome::Dropped(reason)),
            Verdict::Mixed(reason) => {
                let kept = split::cut_down(words, &self.places, |key| self.passes(key), out);
                return Ok(match kept {
                    Cut::Down => Outcome::Rewritten {
                        command: id,
                        commands: 1,
                    },
                    Cut::Nothing => Outcome::Dropped(DropReason::FilterKey),
                    Cut::Cannot => Outcome::Dropped(reason),
                });
            }
        }
        if plan.action == Action::Forward || !self.has_form(id, plan.action, words) {
            return Ok(Outcome::Forward { command: id });
        }
        let start = out.len();
        let work = Work {
            words,
            options: &self.options,
            db: self.db,
            received_at_ms,
            out,
            lease: self.lease,
            granted: &mut self.granted,
            has_leased_fields: &mut self.has_leased_fields,
            left_out: &mut self.left_out,
        };
        match work.act(plan.action) {
            Ok(Done::Forward) => Ok(Outcome::Forward { command: id }),
            Ok(Done::Rewritten(commands)) => Ok(Outcome::Rewritten {
                command: id,
                commands,
            }),
            Ok(Done::Dropped(reason)) => Ok(Outcome::Dropped(reason)),
            Err(kind) => {
                out.truncate(start);
                Err(fail(kind))
            }
        }
    }

    /// Whether a plain `SET key value` goes to the target as it is in the db in force, which it does for each key that
    /// [`Self::passes`]: then [`Self::command`] need not be asked about one. The command, for counters.
    pub fn forwards_sets(&self) -> Option<CommandId> {
        let id = self.set?;
        let plan = self.plans.get(usize::from(id.0))?;
        let goes = matches!(plan.action, Action::Set | Action::Forward)
            && plan.blocked.is_none()
            && self.db_passes;
        goes.then_some(id)
    }

    /// Expiries are moved by this rule from now on, or are left as they are.
    pub fn set_lease(&mut self, lease: Option<LeaseRule>) {
        self.lease = lease;
    }

    /// The expiries moved since the last call.
    pub fn granted(&mut self) -> std::vec::Drain<'_, Granted> {
        self.granted.drain(..)
    }

    /// Whether expiries of hash fields were moved since the last call.
    pub fn take_leased_fields(&mut self) -> bool {
        std::mem::take(&mut self.has_leased_fields)
    }

    /// How many commands since the last call went without some of their words, which the target does not know: a loss,
    /// to be counted as [`DropReason::TargetLacksWords`].
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// The next command is for this db, as behind a `SELECT`.
    pub fn set_db(&mut self, db: Db) {
        self.db = db;
        self.db_passes = self.options.filter.db(db);
        // A source may have more of them than most.
        if let Databases::AtLeast(count) = &mut self.options.databases {
            *count = (*count).max(db.0.saturating_add(1));
        }
    }

    /// The db in force.
    pub fn db(&self) -> Db {
        self.db
    }

    /// Whether `MULTI` has come and `EXEC` not yet.
    pub fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// The commands known to this rewriter, for the names behind the ids.
    pub fn table(&self) -> &Table {
        &self.options.table
    }

    #[inline]
    fn plan(&self, name: &[u8]) -> (CommandId, Plan) {
        let known = self.options.table.find(name);
        match known.and_then(|id| self.plans.get(usize::from(id.0)).map(|plan| (id, *plan))) {
            Some(found) => found,
            None => (CommandId::UNKNOWN, self.unknown(name)),
        }
    }

    #[cold]
    fn unknown(&self, name: &[u8]) -> Plan {
        let mut plan = plan::unknown(name, &self.options.filter, &self.options.target);
        if name.eq_ignore_ascii_case(b"opinfo") {
            plan.action = Action::Drop(DropReason::Opinfo);
        }
        plan
    }

    fn select(&mut self, words: Words<'_>) -> Result<Outcome, ErrorKind> {
        let db = crate::number::parse_db(words.at(1)).ok_or(ErrorKind::BadDb)?;
        self.set_db(db);
        Ok(Outcome::Select(db))
    }

    fn multi(&mut self) -> Result<Outcome, ErrorKind> {
        if std::mem::replace(&mut self.in_transaction, true) {
            return Err(ErrorKind::NestedMulti);
        }
        Ok(Outcome::Multi)
    }

    fn end_transaction(&mut self, outcome: Outcome) -> Result<Outcome, ErrorKind> {
        if std::mem::replace(&mut self.in_transaction, false) {
            Ok(outcome)
        } else {
            Err(ErrorKind::NoMulti)
        }
    }

    /// Whether a command has as many words as it must: one that has not goes as it came, and the target says what is wrong.
    fn has_form(&self, id: CommandId, action: Action, words: Words<'_>) -> bool {
        let known = self.options.table.command(id);
        matches!(action, Action::Publish | Action::Lacks)
            || known.is_none_or(|command| command.takes(words.len()))
    }

    /// Whether a key passes the filter and is not ours.
    #[inline]
    pub fn passes(&self, key: &[u8]) -> bool {
        !self.own.contains(key) && (!self.has_key_rules || self.options.filter.key(key))
    }

    fn judge(&mut self, id: CommandId, plan: KeyPlan, words: Words<'_>) -> Verdict {
        match plan {
            KeyPlan::None => Verdict::Pass,
            KeyPlan::First => match words.args.get(1) {
                Some(key) => self.judge_one(key.of(words.frame)),
                None => Verdict::Pass,
            },
            KeyPlan::Search => self.judge_all(id, words),
        }
    }

    #[inline]
    fn judge_one(&self, key: &[u8]) -> Verdict {
        if self.own.contains(key) {
            Verdict::Drop(DropReason::OwnKey)
        } else if self.has_key_rules && !self.options.filter.key(key) {
            Verdict::Drop(DropReason::FilterKey)
        } else {
            Verdict::Pass
        }
    }

    fn judge_all(&mut self, id: CommandId, words: Words<'_>) -> Verdict {
        self.places.clear();
        if let Some(command) = self.options.table.command(id) {
            crate::keys::keys_of(command, words.frame, words.args, &mut self.places);
        }
        let (mut own, mut filtered) = (0, 0);
        for place in &self.places {
            match self.judge_one(words.at(*place)) {
                Verdict::Drop(DropReason::OwnKey) => own += 1,
                Verdict::Drop(_) => filtered += 1,
                Verdict::Pass | Verdict::Mixed(_) => {}
            }
        }
        let all = self.places.len();
        match (own, filtered) {
            (0, 0) => Verdict::Pass,
            (_, 0) if own == all => Verdict::Drop(DropReason::OwnKey),
            (_, 0) => Verdict::Mixed(DropReason::OwnKey),
            _ if own + filtered == all => Verdict::Drop(DropReason::FilterKey),
            _ => Verdict::Mixed(DropReason::FilterMixed),
        }
    }
}

/// What the rules say about a command's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    Drop(DropReason),
    /// Some pass; the reason is for a command that cannot be cut down to them.
    Mixed(DropReason),
}

impl Work<'_> {
    fn act(self, action: Action) -> Result<Done, ErrorKind> {
        Ok(match action {
            Action::Rename(name) => self.rename(name),
            Action::DelFirst => self.del_first(),
            Action::Set => self.set(),
            Action::SetExpiring(time) => self.set_expiring(time),
            Action::Getex => self.getex(),
            Action::Expire(time) => self.expire(time),
            Action::FieldExpire(time) => self.field_expire(time)?,
            Action::FieldOptions => self.field_options()?,
            Action::Msetex => self.msetex(),
            Action::Hset => self.hset(),
            Action::Restore => self.restore()?,
            Action::Swapdb => self.swapdb(),
            Action::Move => self.move_key(),
            Action::Copy => self.copy(),
            Action::Flushall => self.flushall(),
            Action::Publish => self.publish(),
            Action::Script => self.script(),
            Action::Function => self.function()?,
            Action::StreamGroup => self.stream_group(),
            Action::StreamSetId => self.stream_set_id(),
            Action::Xadd => self.xadd()?,
            Action::Xtrim => self.xtrim()?,
            Action::Zadd => self.zadd(),
            Action::PopMany(end) => self.pop_many(end),
            Action::ZpopMany(end) => self.zpop_many(end),
            Action::Lmove => self.lmove(),
            Action::CopyByValue => self.copy_by_value()?,
            Action::Flushdb => self.flushdb(),
            Action::Bitop => self.bitop()?,
            Action::MsetexApart => self.msetex_apart()?,
            Action::HsetexApart => self.hsetex_apart()?,
            Action::Lacks => self.unknown_there()?,
            Action::Forward
            | Action::Select
            | Action::Multi
            | Action::Exec
            | Action::Discard
            | Action::Drop(_) => Done::Forward,
        })
    }

    fn emit(&mut self, argv: &[&[u8]]) {
        resp::encode::command(self.out, argv);
    }

    /// The same arguments under another name.
    fn rename(self, name: &str) -> Done {
        resp::encode::command_header(self.out, self.words.len());
        resp::encode::bulk(self.out, name.as_bytes());
        for arg in self.words.args.iter().skip(1) {
            resp::encode::bulk(self.out, arg.of(self.words.frame));
        }
        Done::Rewritten(1)
    }

    /// The target does not know the command: it would refuse the whole unit.
    fn unknown_there(&self) -> Result<Done, ErrorKind> {
        match self.options.losses {
            Losses::Refuse => Err(ErrorKind::CommandUnknown),
            Losses::Allow => Ok(Done::Dropped(DropReason::TargetLacks)),
        }
    }

    /// Some words go that the target does not know: an error, or counted.
    fn leave_out(&mut self, what: &'static str) -> Result<(), ErrorKind> {
        match self.options.losses {
            Losses::Refuse => Err(ErrorKind::TargetLacks { what }),
            Losses::Allow => {
                *self.left_out += 1;
                Ok(())
            }
        }
    }

    /// What the target lacks: an error, or left out.
    fn lacks(&self, what: &'static str) -> Result<Done, ErrorKind> {
        match self.options.losses {
            Losses::Refuse => Err(ErrorKind::TargetLacks { what }),
            Losses::Allow => Ok(Done::Dropped(DropReason::TargetLacks)),
        }
    }
}
