//! The largest of many.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The `max` largest of what was offered; of equals the first ones.
#[derive(Debug)]
pub(super) struct Top<T> {
    max: usize,
    offered: u64,
    heap: BinaryHeap<Reverse<Ranked<T>>>,
}

#[derive(Debug)]
struct Ranked<T> {
    rank: (u64, Reverse<u64>),
    item: T,
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<T> Eq for Ranked<T> {}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl<T> Top<T> {
    pub(super) const fn new(max: usize) -> Self {
        Self {
            max,
            offered: 0,
            heap: BinaryHeap::new(),
        }
    }

    /// Offers one; it is made only if it is among the largest so far.
    #[inline]
    pub(super) fn offer(&mut self, size: u64, make: impl FnOnce() -> T) {
        let full = self.heap.len() >= self.max;
        let smallest = self.heap.peek().map(|Reverse(ranked)| ranked.rank.0);
        if full && smallest.is_none_or(|smallest| size <= smallest) {
            return;
        }
        if full {
            self.heap.pop();
        }
        self.offered += 1;
        let rank = (size, Reverse(self.offered));
        let item = make();
        self.heap.push(Reverse(Ranked { rank, item }));
    }

    /// The largest first, with their sizes.
    pub(super) fn sorted(&self) -> Vec<(u64, &T)> {
        let mut all: Vec<&Ranked<T>> = self.heap.iter().map(|Reverse(ranked)| ranked).collect();
        all.sort_by(|one, other| other.cmp(one));
        all.into_iter()
            .map(|ranked| (ranked.rank.0, &ranked.item))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_largest_and_of_equals_the_first() {
        let mut top = Top::new(3);
        for (index, size) in [5, 1, 9, 5, 5, 0].into_iter().enumerate() {
            top.offer(size, || index);
        }
        assert_eq!(top.sorted(), [(9, &2), (5, &0), (5, &3)]);
        let mut none = Top::new(0);
        none.offer(1, || panic!("not wanted"));
        assert!(none.sorted().is_empty());
    }
}
