//! How far each slot is: the checkpoints of the slots, and what they belong to.
//!
//! ```text
//! key     understudy:checkpoint:{<tag of the slot>}:<link name>
//! value   v1|<epoch>|<generation>|<offset>|<part>[|[u<bytes>][|[<keys under repair>][|<holder>]]]
//!
//! key     understudy:checkpoint:{understudy:checkpoint:<link name>}:cluster     in the slot of the link's own checkpoint
//! value   v1|<generation>|<flush>[|<slot>,<slot>, ..]
//! ```
//! Everything of the slot is applied up to the `part`th command that was made of the source's command which ends at `offset`. A
//! generation is what one snapshot and the stream behind it have written: a mark of another one says nothing. `u<bytes>`: nobody
//! had looked at the answers to what the slot has of so many bytes before its mark when it was written. `flush` is 1 while
//! the nodes are emptied one after the other: slots without a mark were emptied just now, and are to be emptied again. The slots, two
//! of each node, had all that lies before the link's position when that was written: one that does not, later, tells of a node that
//! has lost more than the position trails behind. Where the source is a cluster, its links share these keys, by the name that stands
//! before all of theirs, and `holder` is the shard whose link holds the slot (`holders`).

use std::iter::repeat;
use std::sync::OnceLock;

use rewrite::Slot;

use crate::checkpoint::{KEY_PREFIX, Names};

/// How far a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    /// Where the source's command ends.
    pub(crate) offset: u64,
    /// Which one of those that were made of it.
    pub(crate) part: u32,
}

/// The value of a slot's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotCheckpoint {
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
    pub(crate) mark: Mark,
    /// So many bytes of the stream before the mark's end nobody had looked at the answers to.
    pub(crate) unseen: u64,
    /// Keys of the slot that are under repair.
    pub(crate) repairs: Names,
    /// The shard of the source whose link holds the slot; empty where the source is no cluster.
    pub(crate) holder: String,
}

/// What is kept beside the link's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) generation: u64,
    /// The nodes are being emptied.
    pub(crate) flushes: bool,
    /// Slots that had all before the link's position.
    pub(crate) witnesses: Vec<u16>,
}

/// What stands in braces in a key of this slot.
fn tag(slot: Slot) -> &'static str {
    static TAGS: OnceLock<Vec<String>> = OnceLock::new();
    let tags = TAGS.get_or_init(rewrite::slot_tags);
    tags.get(usize::from(slot.0)).map_or("", String::as_str)
}

/// The key of a slot's checkpoint.
pub(crate) fn mark_key(slot: Slot, link_name: &str) -> String {
    format!("{KEY_PREFIX}{{{}}}:{link_name}", tag(slot))
}

/// The name of a copy that is there within one transaction of a slot.
pub(crate) fn temporary(slot: Slot, number: usize) -> String {
    let prefix = String::from_utf8_lossy(rewrite::TEMPORARY_KEY_PREFIX);
    format!("{prefix}{{{}}}:copy:{number}", tag(slot))
}

/// The key of what is kept beside the checkpoint `key`.
pub(crate) fn state_key(key: &str) -> String {
    format!("{KEY_PREFIX}{{{key}}}:cluster")
}

/// Whether a key of ours belongs to the link whose checkpoint is `key`.
pub(crate) fn is_of_link(own: &[u8], key: &str, link_name: &str) -> bool {
    let record = crate::handover::mark::key(link_name);
    if own == key.as_bytes() || own == state_key(key).as_bytes() || own == record.as_bytes() {
        return true;
    }
    let tail = format!("}}:{link_name}");
    let tag = own
        .strip_prefix(KEY_PREFIX.as_bytes())
        .and_then(|rest| rest.strip_prefix(b"{"))
        .and_then(|rest| rest.strip_suffix(tail.as_bytes()));
    tag.is_some_and(|tag| !tag.is_empty() && tag.iter().all(u8::is_ascii_digit))
}

/// What a slot's checkpoint says beside how far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// So many bytes before its mark, of which nobody has looked at the answers.
    pub(crate) unseen: u64,
    /// Its keys that are under repair.
    pub(crate) repairs: Option<Box<Names>>,
}

impl Note {
    pub(super) fn of(checkpoint: &SlotCheckpoint) -> Self {
        let names = &checkpoint.repairs;
        Self {
            unseen: checkpoint.unseen,
            repairs: (!names.is_empty()).then(|| Box::new(names.clone())),
        }
    }
}

impl SlotCheckpoint {
    pub(crate) fn text(&self) -> String {
        let Mark { offset, part } = self.mark;
        let mut text = format!("v1|{}|{:016x}|{offset}|{part}", self.epoch, self.generation);
        let is_held = !self.holder.is_empty();
        match (self.unseen, self.repairs.is_empty() && !is_held) {
            (0, true) => {}
            (0, false) => text.push('|'),
            (bytes, _) => text.push_str(&format!("|u{bytes}")),
        }
        match self.repairs.is_empty() {
            true if is_held => text.push('|'),
            true => {}
            false => text.push_str(&format!("|{}", self.repairs)),
        }
        if is_held {
            text.push('|');
            text.push_str(&self.holder);
        }
        text
    }

    /// Reads a value back; the error says what is wrong with it.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, String> {
        let bad = || format!("it is \"{}\"", value.escape_ascii());
        let text = std::str::from_utf8(value).map_err(|_| bad())?;
        let fields: Vec<&str> = text.split('|').collect();
        let (fields, more) = fields.split_at_checked(5).ok_or_else(bad)?;
        let ["v1", epoch, generation, offset, part] = fields[..] else {
            return Err(bad());
        };
        let (unseen, repairs, holder) = match more {
            [] => ("", None, ""),
            [unseen] => (*unseen, None, ""),
            [unseen, names] => (*unseen, Some(*names), ""),
            [unseen, "", holder] => (*unseen, None, *holder),
            [unseen, names, holder] => (*unseen, Some(*names), *holder),
            _ => return Err(bad()),
        };
        let unseen = match (unseen.strip_prefix('u'), unseen) {
            (Some(bytes), _) => bytes.parse().map_err(|_| bad())?,
            (None, "") => 0,
            _ => return Err(bad()),
        };
        let repairs = repairs.map(|names| Names::parse(names).ok_or_else(bad));
        Ok(Self {
            epoch: epoch.parse().map_err(|_| bad())?,
            generation: u64::from_str_radix(generation, 16).map_err(|_| bad())?,
            mark: Mark {
                offset: offset.parse().map_err(|_| bad())?,
                part: part.parse().map_err(|_| bad())?,
            },
            unseen,
            repairs: repairs.transpose()?.unwrap_or_default(),
            holder: holder.to_owned(),
        })
    }
}

impl State {
    pub(crate) fn text(&self) -> String {
        let mut text = format!("v1|{:016x}|{}", self.generation, u8::from(self.flushes));
        for (slot, comma) in self
            .witnesses
            .iter()
            .zip(["|"].into_iter().chain(repeat(",")))
        {
            text.push_str(&format!("{comma}{slot}"));
        }
        text
    }

    /// Reads a value back; the error says what is wrong with it.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, String> {
        let bad = || format!("it is \"{}\"", value.escape_ascii());
        let text = std::str::from_utf8(value).map_err(|_| bad())?;
        let fields: Vec<&str> = text.split('|').collect();
        let (generation, flushes, witnesses) = match fields[..] {
            ["v1", generation, flushes @ ("0" | "1")] => (generation, flushes, None),
            ["v1", generation, flushes @ ("0" | "1"), slots] => (generation, flushes, Some(slots)),
            _ => return Err(bad()),
        };
        let slots = witnesses.into_iter().flat_map(|slots| slots.split(','));
        let slots = slots.map(|slot| slot.parse().map_err(|_| bad()));
        Ok(Self {
            witnesses: slots.collect::<Result<_, _>>()?,
            generation: u64::from_str_radix(generation, 16).map_err(|_| bad())?,
            flushes: flushes == "1",
        })
    }
}

#[cfg(test)]
mod tests {
    use rewrite::slot_of;

    use super::*;

    #[test]
    fn values_come_back_and_others_are_refused() {
        let mut one = SlotCheckpoint {
            epoch: 7,
            generation: 0xdead_beef,
            mark: Mark {
                offset: 12,
                part: 3,
            },
            unseen: 0,
            repairs: Names::default(),
            holder: String::new(),
        };
        assert_eq!(one.text(), "v1|7|00000000deadbeef|12|3");
        for unseen in [0, 9] {
            for key in ["a", "b|c"] {
                one.unseen = unseen;
                assert_eq!(
                    SlotCheckpoint::parse(one.text().as_bytes()),
                    Ok(one.clone())
                );
                one.repairs.insert(0, key.into());
            }
            for holder in ["", "0123456789ab"] {
                one.holder = holder.to_owned();
                assert_eq!(
                    SlotCheckpoint::parse(one.text().as_bytes()),
                    Ok(one.clone())
                );
            }
            let plain = SlotCheckpoint {
                repairs: Names::default(),
                ..one.clone()
            };
            assert_eq!(SlotCheckpoint::parse(plain.text().as_bytes()), Ok(plain));
            one.holder = String::new();
        }
        let state = State {
            generation: u64::MAX,
            flushes: true,
            witnesses: Vec::new(),
        };
        assert_eq!(State::parse(state.text().as_bytes()), Ok(state.clone()));
        let state = State {
            witnesses: vec![0, 5460, 16383],
            ..state
        };
        assert!(state.text().ends_with("|1|0,5460,16383"));
        assert_eq!(State::parse(state.text().as_bytes()), Ok(state));
        for bad in [
            "",
            "v1",
            "v2|1|2|3|4",
            "v1|1|x|3|4",
            "v1|1|2|3|-4",
            "v1|1|2|3|4|x",
            "v1|1|2|3|4|u",
            "v1|1|2|3|4|u1|zz",
            "v1|1|2|3|4|u1|zz|x",
            "v1|1|2|3|4|u1|0:61|x|y",
            "\u{fc}",
        ] {
            assert!(SlotCheckpoint::parse(bad.as_bytes()).is_err());
            assert!(State::parse(bad.as_bytes()).is_err());
        }
    }

    #[test]
    fn keys_are_in_their_slots_and_known_again() {
        let key = crate::checkpoint::key("a>b:1");
        for slot in [0, 5461, 16383] {
            let own = mark_key(Slot(slot), "a>b:1");
            assert_eq!(slot_of(own.as_bytes()), Slot(slot));
            assert!(is_of_link(own.as_bytes(), &key, "a>b:1"));
            assert!(!is_of_link(own.as_bytes(), &key, "b:1"));
        }
        assert_eq!(slot_of(state_key(&key).as_bytes()), slot_of(key.as_bytes()));
        assert!(is_of_link(state_key(&key).as_bytes(), &key, "a>b:1"));
        assert!(!is_of_link(b"understudy:checkpoint:other", &key, "a>b:1"));
    }
}
