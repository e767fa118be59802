//! Commands on their way to their slots: windows of those that stay within one, and steps for the others.

use std::collections::{HashMap, VecDeque};

use resp::Arg;
use rewrite::{Apart, Command, Route, Slot};

use crate::checkpoint::Names;
use crate::pipeline::unit::End;
use crate::pipeline::{Hole, Rival};
use crate::status::Status;
use crate::target::cluster::{Group, Mark};

/// What is done as a whole, with a barrier before and behind it.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) kind: Kind,
    /// What is complete with it; nothing inside a transaction of the source.
    pub(super) end: Option<End>,
    /// Keys whose values from the source it holds.
    pub(super) placed: Names,
}

impl Work {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            end: None,
            placed: Names::default(),
        }
    }

    /// How many commands it has, and bytes.
    pub(super) fn size(&self) -> (u64, usize) {
        match &self.kind {
            Kind::Window(window) => (window.commands, window.bytes),
            Kind::Step(step) => (1, step.frame.len()),
        }
    }

    /// Where the last command of it ends in the stream.
    pub(super) fn last_offset(&self) -> Option<u64> {
        let mark = match &self.kind {
            // Values, which may be those of a moment further on.
            Kind::Window(window) if window.is_closed => None,
            Kind::Window(window) => window.groups.iter().filter_map(|group| group.mark).max(),
            Kind::Step(step) => Some(step.mark),
        };
        mark.map(|mark| mark.offset)
            .max(self.end.map(|end| end.offset))
    }
}

#[derive(Debug)]
pub(super) enum Kind {
    Window(Window),
    Step(Box<Step>),
}

/// Commands that stay within their slots.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) groups: Vec<Group>,
    /// The last group of each slot.
    places: HashMap<u16, usize>,
    pub(super) commands: u64,
    pub(super) bytes: usize,
    /// Nothing more is to come into it.
    is_closed: bool,
}

/// A command that does not.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The target's database that it is for.
    pub(super) db: u32,
    pub(super) frame: Vec<u8>,
    pub(super) args: Vec<Arg>,
    /// Where its keys are.
    pub(super) places: Vec<usize>,
    pub(super) mark: Mark,
    pub(super) what: What,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// `FLUSHALL`, `FLUSHDB`.
    Flush,
    /// It has no keys: every primary is to have it.
    Everywhere,
    /// Its keys are in several slots. `None`: what it does to them is not known.
    Apart(Option<Apart>),
}

/// What waits for its transaction to be complete.
#[derive(Debug)]
enum Held {
    Part {
        db: u32,
        slot: Slot,
        bytes: Vec<u8>,
        words: usize,
        mark: Mark,
        holes: Vec<Hole>,
        is_one: bool,
    },
    Step(Box<Step>),
}

/// A command that comes in, and where it is in the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'a> {
    /// The target's database that it is for.
    pub(super) db: u32,
    pub(super) frame: &'a [u8],
    pub(super) args: &'a [Arg],
    pub(super) mark: Mark,
    /// What is left of it in the feed: tokens stand for that.
    pub(super) holes: &'a [Hole],
    /// It has to answer 1.
    pub(super) is_one: bool,
}

/// How much is collected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) commands: u64,
    pub(super) bytes: usize,
}

/// Collects work in order.
#[derive(Debug)]
pub(super) struct Collector {
    queue: VecDeque<Work>,
    transaction: Option<Vec<Held>>,
    held_bytes: usize,
    /// What the slots have already.
    applied: Vec<Option<Mark>>,
    /// Where the furthest of them is.
    applied_until: u64,
    sizes: Sizes,
    /// A group is to fit into one call of the script.
    is_lua: bool,
    /// A transaction of the source is being put into windows: it is not split for their size.
    is_in_transaction: bool,
    /// Other links write into the same target.
    rival: Option<Rival>,
}

/// Steps that wait at most.
const STEPS_MAX: usize = 64;

impl Collector {
    /// A collector for a target that has `applied`.
    pub(super) fn new(
        applied: Vec<Option<Mark>>,
        sizes: Sizes,
        is_lua: bool,
        rival: Option<Rival>,
    ) -> Self {
        Self {
            queue: VecDeque::new(),
            transaction: None,
            held_bytes: 0,
            applied_until: furthest(&applied),
            applied,
            sizes,
            is_lua,
            is_in_transaction: false,
            rival,
        }
    }

    /// The slots have this now.
    pub(super) fn set_applied(&mut self, applied: Vec<Option<Mark>>) {
        self.applied_until = furthest(&applied);
        self.applied = applied;
    }

    /// Throws away what was collected, for slots that have this now.
    pub(super) fn begin_again(&mut self, applied: Vec<Option<Mark>>) {
        self.queue.clear();
        self.transaction = None;
        self.held_bytes = 0;
        self.set_applied(applied);
    }

    /// Where the furthest slot was.
    pub(super) fn applied_until(&self) -> u64 {
        self.applied_until
    }

    /// A slot has all up to `mark`, by what is collected.
    pub(super) fn took(&mut self, slot: Slot, mark: Mark) {
        if let Some(place) = self.applied.get_mut(usize::from(slot.0)) {
            *place = Some(mark);
            self.applied_until = self.applied_until.max(mark.offset);
        }
    }

    /// Whether a slot has what comes there.
    pub(super) fn has(&self, slot: Slot, mark: Mark) -> bool {
        let has = self.applied.get(usize::from(slot.0)).copied().flatten();
        has >= Some(mark)
    }

    /// Values of keys, in the place of all that the stream has made of them up to `end`.
    pub(super) fn place(&mut self, groups: Vec<Group>, placed: Names, end: End) {
        let window = Window {
            commands: groups.iter().map(|group| u64::from(group.commands)).sum(),
            bytes: groups.iter().map(|group| group.bytes.len()).sum(),
            groups,
            is_closed: true,
            ..Window::default()
        };
        self.queue.push_back(Work {
            end: Some(end),
            placed,
            ..Work::new(Kind::Window(window))
        });
    }

    /// The next work, if there is any.
    pub(super) fn take(&mut self) -> Option<Work> {
        self.queue.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What the oldest work completes.
    pub(super) fn oldest(&self) -> Option<End> {
        self.queue.iter().find_map(|work| work.end)
    }

    /// Whether no more is to be collected now.
    pub(super) fn is_full(&self) -> bool {
        self.transaction.is_none()
            && (self.queue.len() >= STEPS_MAX
                || self.queue.iter().any(|work| match &work.kind {
                    Kind::Window(window) => self.is_full_window(window),
                    Kind::Step(_) => false,
                }))
    }

    fn is_full_window(&self, window: &Window) -> bool {
        window.commands >= self.sizes.commands || window.bytes >= self.sizes.bytes
    }

    /// Bytes of an unfinished transaction.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// A transaction of the source begins.
    pub(super) fn begin_transaction(&mut self) {
        self.transaction = Some(Vec::new());
    }

    /// It ends without effect.
    pub(super) fn discard_transaction(&mut self) {
        self.transaction = None;
        self.held_bytes = 0;
    }

    /// Whether one is open.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// It is complete. One that is in several slots cannot stay one: counted.
    pub(super) fn end_transaction(&mut self, status: &Status) {
        self.held_bytes = 0;
        let Some(held) = self.transaction.take() else {
            return;
        };
        let mut slots = held.iter().map(|held| match held {
            Held::Part { slot, .. } => Some(*slot),
            Held::Step(_) => None,
        });
        let first = slots.next();
        if first == Some(None) || slots.any(|slot| Some(slot) != first) {
            status.cross_slot.add("transaction", 1);
        }
        self.is_in_transaction = true;
        for held in held {
            match held {
                Held::Part {
                    db,
                    slot,
                    bytes,
                    words,
                    mark,
                    holes,
                    is_one,
                } => {
                    let of = Incoming {
                        db,
                        frame: &bytes,
                        args: &[],
                        mark,
                        holes: &holes,
                        is_one,
                    };
                    self.part(slot, words, of);
                }
                Held::Step(step) => self.step(step),
            }
        }
        self.is_in_transaction = false;
    }

    /// Everything up to here is collected; inside a transaction this waits for its end.
    pub(super) fn set_end(&mut self, end: End) {
        if self.transaction.is_some() {
            return;
        }
        if self.queue.is_empty() {
            self.window();
        }
        if let Some(work) = self.queue.back_mut() {
            let received_ms = work.end.map_or(end.received_ms, |end| end.received_ms);
            work.end = Some(End { received_ms, ..end });
        }
    }

    /// A command, which goes to wherever its keys are.
    pub(super) fn command(&mut self, status: &Status, command: Option<&Command>, of: Incoming<'_>) {
        let Incoming {
            db,
            frame,
            args,
            mark,
            ..
        } = of;
        if let Some(rival) = &self.rival {
            rival.sends(status, command, db, frame, args);
        }
        let mut places = Vec::new();
        let route = match command {
            Some(command) => rewrite::route(command, frame, args, &mut places),
            // As everywhere: a module's command has its key first.
            None => args.get(1).map_or(Route::Everywhere, |key| {
                Route::One(rewrite::slot_of(key.of(frame)))
            }),
        };
        let what = match route {
            Route::One(slot) => return self.put(slot, of),
            Route::Parts => {
                let mut out = Vec::new();
                if let Some(parts) = rewrite::parts(frame, args, &places, &mut out) {
                    status.cross_slot.add("split", 1);
                    let mut rest = out.as_slice();
                    for part in parts {
                        let (one, after) = rest.split_at_checked(part.len).unwrap_or((rest, &[]));
                        self.put(part.slot, Incoming { frame: one, ..of });
                        rest = after;
                    }
                    return;
                }
                What::Apart(None)
            }
            Route::Apart => What::Apart(rewrite::apart(frame, args, &places)),
            Route::Everywhere => {
                let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
                let flushes = [&b"flushall"[..], b"flushdb"];
                match flushes.iter().any(|word| name.eq_ignore_ascii_case(word)) {
                    true => What::Flush,
                    false => What::Everywhere,
                }
            }
        };
        let step = Box::new(Step {
            db,
            frame: frame.to_vec(),
            args: args.to_vec(),
            places,
            mark,
            what,
        });
        match &mut self.transaction {
            Some(held) => {
                self.held_bytes += frame.len();
                held.push(Held::Step(step));
            }
            None => self.step(step),
        }
    }

    fn put(&mut self, slot: Slot, of: Incoming<'_>) {
        let (words, mark) = (of.args.len(), of.mark);
        match &mut self.transaction {
            Some(held) => {
                self.held_bytes += of.frame.len();
                held.push(Held::Part {
                    db: of.db,
                    slot,
                    bytes: of.frame.to_vec(),
                    words,
                    mark,
                    holes: of.holes.to_vec(),
                    is_one: of.is_one,
                });
            }
            None => self.part(slot, words, of),
        }
    }

    fn step(&mut self, step: Box<Step>) {
        self.queue.push_back(Work::new(Kind::Step(step)));
    }

    /// One more command of a slot; `words`: how many it has.
    fn part(&mut self, slot: Slot, words: usize, of: Incoming<'_>) {
        let Incoming {
            db,
            frame,
            mark,
            holes,
            is_one,
            ..
        } = of;
        if self.has(slot, mark) {
            return;
        }
        let is_lua = self.is_lua;
        let Some(window) = self.window() else {
            return;
        };
        let group = match window.places.get(&slot.0) {
            Some(place) => window
                .groups
                .get_mut(*place)
                .filter(|group| !is_lua || group.mark == Some(mark) || group.has_room_for(words)),
            None => None,
        };
        let group = match group {
            Some(group) => group,
            None => {
                window.places.insert(slot.0, window.groups.len());
                window.groups.push(Group::new(slot, Some(mark)));
                let Some(group) = window.groups.last_mut() else {
                    return;
                };
                group
            }
        };
        group.select(db);
        group.push(frame, words, holes, is_one);
        group.mark = Some(mark);
        window.commands += 1;
        let left_out: u64 = holes.iter().map(|hole| hole.len).sum();
        window.bytes += frame.len() + usize::try_from(left_out).unwrap_or(usize::MAX / 2);
    }

    /// The window that is open; a new one behind a step, and behind a full one outside of transactions.
    fn window(&mut self) -> Option<&mut Window> {
        let is_open = self.queue.back().is_some_and(|work| match &work.kind {
            Kind::Window(window) if window.is_closed => false,
            Kind::Window(window) => self.is_in_transaction || !self.is_full_window(window),
            Kind::Step(_) => false,
        });
        if !is_open {
            self.queue
                .push_back(Work::new(Kind::Window(Window::default())));
        }
        match self.queue.back_mut().map(|work| &mut work.kind) {
            Some(Kind::Window(window)) => Some(window),
            _ => None,
        }
    }
}

fn furthest(marks: &[Option<Mark>]) -> u64 {
    let offsets = marks.iter().flatten().map(|mark| mark.offset);
    offsets.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use resp::{CommandDecoder, Limits};
    use rewrite::Db;

    use super::*;

    fn collector(applied: Vec<Option<Mark>>) -> Collector {
        let sizes = Sizes {
            commands: 4,
            bytes: 1 << 20,
        };
        Collector::new(applied, sizes, false, None)
    }

    fn put(collector: &mut Collector, status: &Status, text: &str, offset: u64) {
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, &words);
        let mut decoder = CommandDecoder::new(Limits::default());
        decoder.poll(&frame).unwrap().unwrap();
        let command = rewrite::table::lookup(words[0]);
        let mark = Mark { offset, part: 1 };
        let of = Incoming {
            db: 0,
            frame: &frame,
            args: decoder.args(),
            mark,
            holes: &[],
            is_one: false,
        };
        collector.command(status, command, of);
    }

    fn end(offset: u64) -> End {
        End {
            offset,
            db: Db(0),
            received_ms: 1,
        }
    }

    fn told(collector: &mut Collector) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(work) = collector.take() {
            let what = match &work.kind {
                Kind::Window(window) => {
                    let groups = window.groups.iter();
                    let groups: Vec<_> = groups
                        .map(|group| format!("{}x{}", group.slot.0, group.commands))
                        .collect();
                    groups.join(" ")
                }
                Kind::Step(step) => format!("{:?}", step.what),
            };
            told.push(format!("{what} -> {:?}", work.end.map(|end| end.offset)));
        }
        told
    }

    #[test]
    fn windows_end_at_steps_and_a_transaction_waits_for_its_end() {
        let status = Status::default();
        let mut one = collector(Vec::new());
        put(&mut one, &status, "SET foo 1", 10);
        one.set_end(end(10));
        put(&mut one, &status, "DEL foo bar", 20);
        one.set_end(end(20));
        // Nobody's command here: its key is the first word.
        put(&mut one, &status, "some.module foo x", 20);
        put(&mut one, &status, "FLUSHALL", 30);
        one.set_end(end(30));
        one.begin_transaction();
        put(&mut one, &status, "SET foo 2", 40);
        put(&mut one, &status, "RENAME foo bar", 50);
        put(&mut one, &status, "SET bar 2", 60);
        one.set_end(end(60));
        assert_eq!(one.oldest(), Some(end(20)));
        one.end_transaction(&status);
        one.set_end(end(70));
        assert_eq!(
            told(&mut one),
            [
                "12182x3 5061x1 -> Some(20)",
                "Flush -> Some(30)",
                "12182x1 -> None",
                "Apart(Some(Rename { from: 1, to: 2 })) -> None",
                "5061x1 -> Some(70)"
            ]
        );
        let counts = status.cross_slot.read();
        assert_eq!((counts["split"], counts["transaction"]), (1, 1));
    }

    #[test]
    fn what_a_slot_has_is_passed_over() {
        let status = Status::default();
        let mut applied = vec![None; 16384];
        applied[12182] = Some(Mark {
            offset: 20,
            part: 1,
        });
        let mut one = collector(applied);
        put(&mut one, &status, "SET foo 1", 20);
        put(&mut one, &status, "SET bar 1", 20);
        put(&mut one, &status, "SET foo 2", 21);
        one.begin_transaction();
        put(&mut one, &status, "SET foo 2", 22);
        one.discard_transaction();
        one.set_end(end(22));
        assert_eq!(told(&mut one), ["5061x1 12182x1 -> Some(22)"]);
    }
}
