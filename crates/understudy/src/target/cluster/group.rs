//! The commands of one slot on their way to a cluster, and what they have answered.

use resp::{ErrorReply, ReplyKind};
use rewrite::Slot;

use super::ask;
use super::fence::SCRIPT_WORDS_MAX;
use super::marks::Mark;
use crate::pipeline::{Gap, Hole, gaps_of, words_of};

/// The commands of one slot, in order.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) slot: Slot,
    pub(crate) bytes: Vec<u8>,
    pub(crate) commands: u32,
    /// Words of all commands.
    pub(crate) words: usize,
    /// How far the slot is with them; `None`: plain commands, which may be repeated, without a checkpoint.
    pub(crate) mark: Option<Mark>,
    /// Of plain commands that are sent again: which ones they were.
    pub(super) left: Vec<usize>,
    /// The places of commands that have to answer 1, in order.
    pub(super) ones: Vec<u32>,
    /// Words that are left in the feed, in order.
    pub(super) gaps: Vec<Gap>,
    /// The database before its commands: 0, unless they are plain ones.
    pub(super) base: u32,
    /// The one behind them.
    pub(super) db: u32,
}

/// What the commands of a group that was carried out have answered.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// Commands that failed, each with its place.
    pub(crate) errors: Vec<(usize, ErrorReply)>,
    /// The places of those that had to answer 1, and answered 0.
    pub(crate) ended: Vec<usize>,
    /// The reply to each command, for a group without a checkpoint.
    pub(crate) kinds: Vec<ReplyKind>,
}

impl Group {
    /// An empty one.
    pub(crate) fn new(slot: Slot, mark: Option<Mark>) -> Self {
        Self {
            slot,
            bytes: Vec::new(),
            commands: 0,
            words: 0,
            mark,
            left: Vec::new(),
            ones: Vec::new(),
            gaps: Vec::new(),
            base: 0,
            db: 0,
        }
    }

    /// Plain commands of one database. Those that are sent again have to find it selected once more, so it is not one of them
    /// that selects it.
    pub(crate) fn plain(slot: Slot, db: u32) -> Self {
        Self {
            base: db,
            db,
            ..Self::new(slot, None)
        }
    }

    /// The database that is selected behind its commands.
    pub(crate) fn db(&self) -> u32 {
        self.db
    }

    /// The next command is for this database.
    pub(crate) fn select(&mut self, db: u32) {
        if self.db != db {
            self.db = db;
            ask::select(&mut self.bytes, db);
            self.commands += 1;
            self.words += 2;
        }
    }

    /// One more command, with tokens in the place of `holes`. `is_one`: it has to answer 1.
    pub(crate) fn push(&mut self, frame: &[u8], words: usize, holes: &[Hole], is_one: bool) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        if !holes.is_empty() {
            self.gaps.extend(gaps_of(frame, holes).map(|gap| Gap {
                at: gap.at + begin,
                ..gap
            }));
        }
        if is_one {
            self.ones.push(self.commands);
        }
        self.commands += 1;
        self.words += words;
    }

    /// Whether so many more words fit into one call of the script.
    pub(crate) fn has_room_for(&self, words: usize) -> bool {
        self.commands == 0
            || 2 * self.words + words + 8 + self.commands as usize <= SCRIPT_WORDS_MAX
    }

    /// The words of the `index`th command.
    pub(crate) fn command(&self, index: usize) -> Option<Vec<Vec<u8>>> {
        words_of(&self.bytes, index)
    }
}
