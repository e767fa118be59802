//! What is counted.

use std::collections::BTreeMap;

use rdb::{Dialect, Event, KeyHead, RdbVersion};

use super::heavy::Heavy;
use super::top::Top;
use crate::rdb::names::{kind_name, printable, type_name};

/// Keys of one kind, type or database.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Group {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) elements: u64,
    pub(super) bytes_max: u64,
    pub(super) expires: u64,
}

impl Group {
    fn add(&mut self, one: &Current, bytes: u64) {
        self.keys += 1;
        self.bytes += bytes;
        self.elements += one.elements;
        self.bytes_max = self.bytes_max.max(bytes);
        self.expires += u64::from(one.head.expire_at_ms.is_some());
    }
}

/// A key that is among the biggest.
#[derive(Debug)]
pub(super) struct Big {
    pub(super) db: u32,
    pub(super) key: String,
    pub(super) kind: &'static str,
    pub(super) type_name: &'static str,
    pub(super) bytes: u64,
    pub(super) elements: u64,
}

/// How long keys have still to live, by steps.
pub(super) const TTL_STEPS: [(&str, i64); 8] = [
    ("expired", 0),
    ("under a minute", 60_000),
    ("under an hour", 3_600_000),
    ("under a day", 86_400_000),
    ("under a week", 7 * 86_400_000),
    ("under 30 days", 30 * 86_400_000),
    ("under a year", 365 * 86_400_000),
    ("a year and more", i64::MAX),
];

/// What the file says beside its keys.
#[derive(Debug, Default)]
pub(super) struct FileFacts {
    pub(super) format: Option<(Dialect, RdbVersion)>,
    pub(super) bytes: u64,
    pub(super) aux: Vec<(String, String)>,
    pub(super) functions: u64,
    pub(super) function_bytes: u64,
    pub(super) module_aux: u64,
    pub(super) templates: u64,
    pub(super) skipped_empty: u64,
}

/// AUX fields that are listed; a file may have one for each script or slot.
const AUX_MAX: usize = 64;

impl FileFacts {
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Aux { name, value } if self.aux.len() < AUX_MAX => {
                self.aux.push((printable(name), printable(value)));
            }
            Event::Function { code } | Event::FunctionPreGa { code, .. } => {
                self.functions += 1;
                self.function_bytes += code.len() as u64;
            }
            Event::ModuleAux { .. } => self.module_aux += 1,
            Event::HashTemplate { .. } => self.templates += 1,
            _ => {}
        }
    }

    /// The value of an AUX field.
    pub(super) fn aux(&self, name: &str) -> Option<&str> {
        let found = self.aux.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) file: FileFacts,
    pub(super) all: Group,
    pub(super) kinds: BTreeMap<&'static str, Group>,
    /// By type byte and name.
    pub(super) types: BTreeMap<(u8, &'static str), Group>,
    pub(super) dbs: BTreeMap<u32, Group>,
    pub(super) ttls: [u64; TTL_STEPS.len()],
    pub(super) timed_fields: u64,
    pub(super) biggest: Top<Big>,
    pub(super) longest: Top<Big>,
    pub(super) prefixes: Heavy,
    pub(super) top: usize,
    now_ms: i64,
}

impl Stats {
    pub(super) fn new(top: usize, separator: &str, depth: usize, now_ms: i64) -> Self {
        Self {
            file: FileFacts::default(),
            all: Group::default(),
            kinds: BTreeMap::new(),
            types: BTreeMap::new(),
            dbs: BTreeMap::new(),
            ttls: [0; TTL_STEPS.len()],
            timed_fields: 0,
            biggest: Top::new(top),
            longest: Top::new(top),
            prefixes: Heavy::new(separator, depth),
            top,
            now_ms,
        }
    }

    /// A key that ends at this offset.
    pub(super) fn add(&mut self, one: &Current, end: u64, dialect: Dialect) {
        let bytes = end.saturating_sub(one.head.at);
        let (kind, type_id) = (kind_name(one.head.kind), one.head.type_id);
        let type_name = type_name(dialect, type_id);
        self.all.add(one, bytes);
        self.kinds.entry(kind).or_default().add(one, bytes);
        let by_type = self.types.entry((type_id, type_name));
        by_type.or_default().add(one, bytes);
        let by_db = self.dbs.entry(one.head.db.0);
        by_db.or_default().add(one, bytes);
        self.timed_fields += one.timed_fields;
        if let Some(at) = one.head.expire_at_ms {
            self.count_ttl(at);
        }
        let big = || Big {
            db: one.head.db.0,
            key: printable(&one.head.key),
            kind,
            type_name,
            bytes,
            elements: one.elements,
        };
        self.biggest.offer(bytes, big);
        // A string is one element however long it is.
        if one.elements > 1 {
            self.longest.offer(one.elements, big);
        }
        self.prefixes.add(&one.head.key, bytes);
    }

    fn count_ttl(&mut self, at_ms: i64) {
        let left = at_ms.saturating_sub(self.now_ms);
        let step = TTL_STEPS
            .iter()
            .position(|(_, below)| left < *below || (*below == 0 && left <= 0))
            .unwrap_or(TTL_STEPS.len() - 1);
        if let Some(count) = self.ttls.get_mut(step) {
            *count += 1;
        }
    }
}

/// The key under way.
#[derive(Debug)]
pub(super) struct Current {
    head: KeyHead,
    elements: u64,
    timed_fields: u64,
}

impl Current {
    pub(super) const fn new(head: KeyHead) -> Self {
        Self {
            head,
            elements: 0,
            timed_fields: 0,
        }
    }

    /// Takes an event of the value in; true with the last one.
    #[inline]
    pub(super) fn event(&mut self, event: &Event) -> bool {
        match event {
            Event::String(_) | Event::Raw(_) => {
                self.elements = 1;
                return true;
            }
            Event::ValueEnd => return true,
            Event::Pair { expire_at_ms, .. } => {
                // A message's fields are no elements of the stream.
                self.elements += u64::from(self.head.kind == rdb::Kind::Hash);
                self.timed_fields += u64::from(expire_at_ms.is_some());
            }
            Event::Item(_)
            | Event::Scored { .. }
            | Event::StreamEntry { .. }
            | Event::ArrayItem { .. }
            | Event::ModulePart(_) => self.elements += 1,
            Event::ValueStart {
                kind: rdb::Kind::String,
                ..
            } => self.elements = 1,
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_fall_into_their_steps() {
        let mut stats = Stats::new(1, ":", 1, 1_000_000);
        for at in [
            i64::MIN,
            1_000_000,
            1_000_001,
            1_059_999,
            1_060_000,
            i64::MAX,
        ] {
            stats.count_ttl(at);
        }
        assert_eq!(stats.ttls, [2, 2, 1, 0, 0, 0, 0, 1]);
    }
}
