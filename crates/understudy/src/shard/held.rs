//! Which slots a shard's link holds, as its checkpoint says it.
//!
//! ```text
//! 0-5460,5470@1234,9000      `-` for none
//! ```
//! Of a slot with an offset the target has what the source had there: its commands before that are passed over.

use std::fmt;

/// The slots of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// First and last of those that stand in a row.
    pub(crate) ranges: Vec<(u16, u16)>,
    /// Those that are held from an offset on.
    pub(crate) copied: Vec<(u16, u64)>,
}

impl Held {
    /// Those slots, which are in order.
    pub(crate) fn of(slots: impl Iterator<Item = u16>) -> Self {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in slots {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        Self {
            ranges,
            copied: Vec::new(),
        }
    }

    /// Every slot of the ranges.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u16> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut held = Self::default();
        if text == "-" {
            return Some(held);
        }
        let slot = |text: &str| {
            let slot: Option<u16> = text.parse().ok();
            slot.filter(|slot| *slot < rewrite::SLOTS)
        };
        for one in text.split(',') {
            if let Some((one, offset)) = one.split_once('@') {
                held.copied.push((slot(one)?, offset.parse().ok()?));
                continue;
            }
            let (first, last) = one.split_once('-').unwrap_or((one, one));
            let range = (slot(first)?, slot(last)?);
            if range.0 > range.1 {
                return None;
            }
            held.ranges.push(range);
        }
        Some(held)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ranges.is_empty() && self.copied.is_empty() {
            return f.write_str("-");
        }
        let mut comma = "";
        for (first, last) in &self.ranges {
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        for (slot, offset) in &self.copied {
            write!(f, "{comma}{slot}@{offset}")?;
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_others_are_refused() {
        let mut held = Held::of([0, 1, 2, 7, 16383].into_iter());
        assert_eq!(held.ranges, [(0, 2), (7, 7), (16383, 16383)]);
        assert_eq!(held.slots().count(), 5);
        held.copied = vec![(9, 12), (3, 1 << 40)];
        assert_eq!(held.to_string(), "0-2,7,16383,9@12,3@1099511627776");
        assert_eq!(Held::parse(&held.to_string()), Some(held));
        assert_eq!(Held::parse("-"), Some(Held::default()));
        for bad in ["", "1,", "x", "3-1", "16384", "1@", "@1", "1-2@3"] {
            assert_eq!(Held::parse(bad), None, "{bad}");
        }
    }
}
