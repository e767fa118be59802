//! The link's own position, which trails behind what is confirmed, and what a run remembers of its slots.

use std::collections::VecDeque;
use std::time::Duration;

use replica::{ReplId, ReplOffset};
use rewrite::Slot;
use tokio::time::Instant;

use crate::checkpoint::Position;
use crate::pipeline::unit::End;
use crate::target::cluster::Mark;

/// So far the low-water mark stays behind: a failover that loses no more than what was written in so long is made good, by whoever
/// goes on from there.
pub(super) const TRAIL: Duration = Duration::from_secs(10);
/// A place is noted this often.
const STEP: Duration = Duration::from_millis(250);
/// Between two writes of the checkpoint.
const PAUSE: Duration = Duration::from_secs(1);
/// Places that are remembered beyond: more than an hour of them.
const PLACES_MAX: usize = 16_384;

/// What outlives a connection: how far each slot was when it was seen last, and places to begin at.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) generation: u64,
    marks: Vec<Option<Mark>>,
    /// Ends of commands outside transactions, in order, with when they were confirmed.
    places: VecDeque<(Instant, End)>,
    /// What the checkpoint says.
    written: Option<(u64, Instant)>,
    /// The run before has looked at all answers up to here.
    seen: u64,
}

impl Memory {
    /// Remembers where all slots are.
    pub(crate) fn note_marks(&mut self, generation: u64, marks: &[Option<Mark>]) {
        if self.generation != generation {
            *self = Self::default();
        }
        self.generation = generation;
        self.marks = marks.to_vec();
    }

    /// A run begins at `offset`.
    pub(super) fn begin(&mut self, offset: u64) {
        self.seen = offset;
    }

    /// Up to where the run before has looked at the answers to what a slot has that is at `mark` now. Nothing is known of one that
    /// has fallen back: what came behind that is lost, repairs included.
    pub(super) fn seen_of(&self, generation: u64, slot: u16, mark: Mark) -> u64 {
        let was = self.marks.get(usize::from(slot)).copied().flatten();
        match self.generation == generation && was.is_some_and(|was| was <= mark) {
            true => self.seen,
            false => 0,
        }
    }

    /// The slots that are not as far as they were, and the least of what they are at. A slot that nothing is known of is at the
    /// beginning; `is_shard`: it is not this link's.
    pub(crate) fn fallen_back(
        &self,
        generation: u64,
        marks: &[Option<Mark>],
        is_shard: bool,
    ) -> Option<(Vec<Slot>, u64)> {
        if self.generation != generation {
            return None;
        }
        let mut slots = Vec::new();
        let mut least = u64::MAX;
        for (slot, (was, is)) in (0_u16..).zip(self.marks.iter().zip(marks)) {
            if is < was && (is.is_some() || !is_shard) {
                slots.push(Slot(slot));
                least = least.min(is.map_or(0, |mark| mark.offset));
            }
        }
        (!slots.is_empty()).then_some((slots, least))
    }

    /// Slots that were not this link's when they were seen last.
    pub(crate) fn not_held(&self) -> impl Iterator<Item = Slot> + '_ {
        let slots = (0_u16..).zip(&self.marks);
        slots
            .filter(|(_, mark)| mark.is_none())
            .map(|(slot, _)| Slot(slot))
    }

    /// The last place at or before `offset`.
    pub(crate) fn place_before(&self, offset: u64) -> Option<End> {
        let mut places = self.places.iter().rev();
        places.find_map(|(_, end)| (end.offset <= offset).then_some(*end))
    }

    /// Everything up to `end` is confirmed.
    pub(super) fn confirm(&mut self, end: End) {
        self.seen = self.seen.max(end.offset);
        let now = Instant::now();
        // Behind one that it went back to, places are of no use.
        while self
            .places
            .back()
            .is_some_and(|(_, place)| place.offset > end.offset)
        {
            self.places.pop_back();
        }
        let is_due = self
            .places
            .back()
            .is_none_or(|(at, place)| place.offset < end.offset && at.elapsed() >= STEP);
        if is_due {
            self.places.push_back((now, end));
            if self.places.len() > PLACES_MAX {
                self.places.pop_front();
            }
        }
    }

    /// The checkpoint says so.
    pub(super) fn wrote(&mut self, offset: u64) {
        self.written = Some((offset, Instant::now()));
    }

    /// What the checkpoint says.
    pub(super) fn written(&self) -> u64 {
        self.written.map_or(0, |(offset, _)| offset)
    }

    /// The place that the checkpoint is to say now, if another one. `confirmed` is the last of all, which becomes it when nothing
    /// has been written for long enough.
    pub(super) fn due(&self, confirmed: End) -> Option<End> {
        let (written, at) = self.written?;
        if at.elapsed() < PAUSE {
            return None;
        }
        let old = |(at, end): &(Instant, End)| (at.elapsed() >= TRAIL).then_some(*end);
        let place = self.places.iter().rev().find_map(old)?;
        // The last place is the end of all, unless more came within its step.
        let is_last = self
            .places
            .back()
            .is_some_and(|(at, _)| at.elapsed() >= TRAIL);
        let place = if is_last { confirmed } else { place };
        (place.offset > written).then_some(place)
    }

    /// When to look again.
    pub(super) fn pause(&self) -> Duration {
        PAUSE
    }
}

/// A position in a history.
pub(super) fn position(replid: ReplId, end: End) -> Position {
    Position {
        replid,
        offset: ReplOffset(end.offset),
        db: end.db.0,
    }
}

#[cfg(test)]
mod tests {
    use rewrite::Db;

    use super::*;

    fn end(offset: u64) -> End {
        End {
            offset,
            db: Db(0),
            received_ms: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_checkpoint_trails_and_catches_up_when_nothing_goes_on() {
        let mut memory = Memory::default();
        memory.wrote(0);
        for offset in 1..=40 {
            memory.confirm(end(offset * 10));
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        // Twenty seconds: the last ten are kept back.
        let place = memory.due(end(400)).unwrap();
        assert!((190..=210).contains(&place.offset), "{}", place.offset);
        memory.wrote(place.offset);
        assert_eq!(memory.due(end(400)), None);
        tokio::time::advance(TRAIL).await;
        assert_eq!(memory.due(end(405)), Some(end(405)));
        assert_eq!(memory.place_before(155), Some(end(150)));
        assert_eq!(memory.place_before(5), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_counts_unless_the_slot_has_fallen_back() {
        let mark = |offset| Mark { offset, part: 1 };
        let mut memory = Memory::default();
        memory.note_marks(1, &[Some(mark(10)), Some(mark(20)), None]);
        memory.begin(5);
        memory.confirm(end(30));
        assert_eq!(memory.seen_of(1, 0, mark(10)), 30);
        assert_eq!(memory.seen_of(1, 1, mark(25)), 30);
        assert_eq!(memory.seen_of(1, 1, mark(15)), 0);
        assert_eq!(memory.seen_of(1, 2, mark(15)), 0);
        assert_eq!(memory.seen_of(2, 0, mark(10)), 0);
        memory.begin(12);
        assert_eq!(memory.seen_of(1, 0, mark(10)), 12);
    }

    #[test]
    fn slots_that_fell_back_are_found() {
        let mark = |offset| Some(Mark { offset, part: 1 });
        let mut memory = Memory::default();
        memory.note_marks(1, &[mark(10), mark(20), None, mark(5)]);
        assert_eq!(
            memory.fallen_back(1, &[mark(10), mark(30), None, mark(5)], false),
            None
        );
        let fallen = memory.fallen_back(1, &[mark(9), mark(20), None, mark(4)], true);
        assert_eq!(fallen, Some((vec![Slot(0), Slot(3)], 4)));
        let lost = memory.fallen_back(1, &[None, mark(20), None, mark(5)], false);
        assert_eq!(lost, Some((vec![Slot(0)], 0)));
        let not_held = memory.fallen_back(1, &[None, mark(20), None, mark(5)], true);
        assert_eq!(not_held, None);
        assert_eq!(
            memory.fallen_back(2, &[None, None, None, None], false),
            None
        );
    }
}
