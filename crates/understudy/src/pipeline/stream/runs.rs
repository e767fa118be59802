//! Runs of commands that become one: what [`StreamApplier::command`] does to each, without asking everybody about every one.

use resp::Arg;
use rewrite::{Abilities, CommandId, Db, Table};

use super::StreamApplier;
use crate::config::Config;
use crate::pipeline::growing::Kinds;
use crate::pipeline::sets::Sets;

/// Which commands grow, and which one does just now.
pub(super) struct Runs {
    kinds: Kinds,
    growing: CommandId,
}

impl Runs {
    /// At this target. For the shards of a cluster none grows: a slot may be let go between two commands.
    pub(super) fn new(config: &Config, table: &Table, target: &Abilities) -> Self {
        let kinds = match config.shard {
            Some(_) => Kinds::default(),
            None => Kinds::of(table, target),
        };
        Self {
            kinds,
            growing: CommandId::UNKNOWN,
        }
    }

    /// Whether the command may be followed by others in one; if so, it is what grows from here on.
    pub(super) fn grow(&mut self, command: CommandId, args: &[Arg]) -> bool {
        let grows = self.kinds.grow(command, args.len());
        if grows {
            self.growing = command;
        }
        grows
    }
}

impl StreamApplier<'_> {
    /// Whether something has to be known about each command, be it as simple as may be.
    fn looks_at_each(&self) -> bool {
        let is_busy =
            self.heal.is_active() || self.adopt.slots.is_reading() || self.adopt.is_before;
        let is_mapped = self.mapper.is_some() || self.called.is_some();
        // Of a source cluster, which is refused.
        let is_elsewhere = self.adopt.slots.is_on() && self.rewriter.db() != Db(0);
        is_busy || is_mapped || is_elsewhere || !self.late.is_at_ease()
    }

    /// Collects the plain SETs that come next. Whether there were any.
    pub(super) fn plain_sets(&mut self) -> bool {
        if self.looks_at_each() {
            return false;
        }
        let Some(command) = self.rewriter.forwards_sets() else {
            return false;
        };
        let db = self.rewriter.db();
        let frames = self.input.frames();
        let (mut at, mut count) = (0, 0);
        while !self.is_full() {
            let rest = frames.get(at..).unwrap_or_default();
            let Some(set) = resp::plain_set(rest) else {
                break;
            };
            let pair = rest.get(resp::PlainSet::HEAD.len()..set.len);
            let pair = pair.filter(|pair| Sets::is_small(pair));
            let Some(pair) = pair.filter(|_| self.rewriter.passes(set.key.of(rest))) else {
                break;
            };
            self.next.set(db, pair);
            at += set.len;
            count += 1;
        }
        self.have_run(command, at, count)
    }

    /// Collects the commands that come next and join the one before them. Whether there were any.
    pub(super) fn more_of_the_same(&mut self) -> bool {
        // A SELECT puts nothing into the unit: the same words may mean another database, or one that does not pass.
        let grows = self.next.grows(self.rewriter.db());
        if !grows || self.looks_at_each() {
            return false;
        }
        let frames = self.input.frames();
        let (mut at, mut count) = (0, 0);
        while !self.is_full() {
            let rest = frames.get(at..).unwrap_or_default();
            let Some(len) = self.next.join(rest) else {
                break;
            };
            at += len;
            count += 1;
        }
        self.have_run(self.runs.growing, at, count)
    }

    /// `count` commands of so many bytes are in the unit.
    fn have_run(&mut self, command: CommandId, bytes: usize, count: u64) -> bool {
        if count == 0 {
            return false;
        }
        self.status.commands.hits(usize::from(command.0), count);
        self.input.advance(bytes);
        self.next
            .set_end(self.input.frame_pos, self.rewriter.db(), self.input.at_ms);
        true
    }
}
