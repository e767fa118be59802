//! Which of several processes runs which shard's link (`shards = "i/n"`). They share nothing but the target, so a hash there says it:
//!
//! ```text
//! key     understudy:checkpoint:<group>/shards
//! field   of                     value   <n>
//! field   <id of the shard>      value   <i>|<the node that is its master>
//! ```
//! A shard goes to the process with the fewest, once, and stays there whatever becomes of its nodes. Whoever sees a shard first writes
//! it down, in a transaction behind a WATCH, so that all see the same. This says who *begins* a link. That no two processes
//! write for one is the checkpoint's business, and that no two links hold a slot that of the claims: were two processes ever
//! of different minds, one would be told that its link was taken over.

use std::collections::BTreeMap;
use std::fmt;

use resp::Value;

use crate::client::Client;
use crate::config::Config;
use crate::error::{Class, Side, SyncError};

const OF: &str = "of";

/// This process's part of a source cluster: `i` of `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// From 1 on.
    pub index: u16,
    /// How many processes there are.
    pub of: u16,
}

impl Slice {
    /// All shards.
    pub const WHOLE: Self = Self { index: 1, of: 1 };

    /// `i/n`; in the place of i also a name that ends in a number from 0 on, such as that of a pod of a StatefulSet.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "shards is \"{text}\", but must be \"i/n\" with i from 1 to n: this process takes the shards of slice i of n; or \"name-k/n\" with k from 0 on"
            )
        };
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let index = match index.rsplit_once('-') {
            None => number(index)?,
            Some((_, ordinal)) => number(ordinal)?.checked_add(1).ok_or_else(wrong)?,
        };
        let of = number(of)?;
        match (1..=of).contains(&index) {
            true => Ok(Self { index, of }),
            false => Err(wrong()),
        }
    }

    /// Whether there are other processes.
    pub(crate) fn is_part(self) -> bool {
        self.of > 1
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// What is written down of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) slice: u16,
    /// The id of the node that is its master.
    pub(super) node: String,
}

/// What is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) of: u16,
    pub(super) shards: BTreeMap<String, Entry>,
}

/// A shard that is to be written down.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) id: String,
    pub(super) node: String,
    /// Its first slot.
    pub(super) first: Option<u16>,
}

impl Table {
    fn parse(words: &[Value]) -> Option<Self> {
        let mut table = Self::default();
        for pair in words.chunks_exact(2) {
            let text = |at: usize| -> Option<&str> {
                let bytes = pair.get(at)?.as_bytes()?;
                std::str::from_utf8(bytes).ok()
            };
            let (field, value) = (text(0)?, text(1)?);
            if field == OF {
                table.of = value.parse().ok()?;
                continue;
            }
            let (slice, node) = value.split_once('|')?;
            let entry = Entry {
                slice: slice.parse().ok()?,
                node: node.to_owned(),
            };
            table.shards.insert(field.to_owned(), entry);
        }
        Some(table)
    }

    /// Another number of processes is written down than this one knows.
    pub(super) fn is_of_others(&self, slice: Slice) -> bool {
        self.of != 0 && self.of != slice.of
    }

    /// The table with these shards in it. Where there are another number of processes now, all are given anew.
    fn with(&self, of: u16, seats: &[Seat]) -> Self {
        let mut next = match self.of == of {
            true => self.clone(),
            false => Self {
                of,
                shards: BTreeMap::new(),
            },
        };
        let mut counts: BTreeMap<u16, usize> = (1..=of).map(|slice| (slice, 0)).collect();
        for seat in seats.iter().filter(|seat| seat.first.is_some()) {
            if let Some(entry) = next.shards.get(&seat.id) {
                *counts.entry(entry.slice).or_default() += 1;
            }
        }
        let mut seats: Vec<&Seat> = seats.iter().collect();
        seats.sort_by_key(|seat| (seat.first.is_none(), seat.first, &seat.id));
        for seat in seats {
            if let Some(entry) = next.shards.get_mut(&seat.id) {
                entry.node.clone_from(&seat.node);
                continue;
            }
            let fewest = counts
                .iter()
                .min_by_key(|(slice, count)| (**count, **slice));
            let slice = fewest.map_or(1, |(slice, _)| *slice);
            if seat.first.is_some() {
                *counts.entry(slice).or_default() += 1;
            }
            let entry = Entry {
                slice,
                node: seat.node.clone(),
            };
            next.shards.insert(seat.id.clone(), entry);
        }
        next
    }
}

/// The hash at the target.
pub(super) struct Slices {
    client: Client,
    key: String,
}

impl Slices {
    /// # Errors
    /// As the target's client.
    pub(super) async fn connect(config: &Config, key: String) -> Result<Self, SyncError> {
        let client = Client::connect(&config.target.endpoint, Side::Target).await?;
        Ok(Self { client, key })
    }

    /// What is written down; nothing, where no process of several has begun.
    pub(super) async fn read(&mut self) -> Result<Table, SyncError> {
        let argv: [&[u8]; 2] = [b"HGETALL", self.key.as_bytes()];
        let Value::Array(words) = self.client.call(&argv).await? else {
            return Ok(Table::default());
        };
        Table::parse(&words).ok_or_else(|| {
            let what = format!(
                "the key {} is not as understudy writes it: remove it while no understudy of this source runs",
                self.key
            );
            SyncError::stop(Side::Target, self.client.address(), what)
        })
    }

    /// Writes these shards down, and gives what is written then. `begins`: the number of processes may be another one than
    /// before; else nothing is written beside others.
    ///
    /// # Errors
    /// As the target's client.
    pub(super) async fn allot(
        &mut self,
        slice: Slice,
        seats: &[Seat],
        begins: bool,
    ) -> Result<Table, SyncError> {
        loop {
            self.client.call(&[b"WATCH", self.key.as_bytes()]).await?;
            let known = self.read().await?;
            if !begins && known.is_of_others(slice) {
                self.client.call(&[b"UNWATCH"]).await?;
                return Ok(known);
            }
            let next = known.with(slice.of, seats);
            if next == known {
                self.client.call(&[b"UNWATCH"]).await?;
                return Ok(next);
            }
            let of = next.of.to_string();
            let values: Vec<(&str, String)> = next
                .shards
                .iter()
                .map(|(id, entry)| (id.as_str(), format!("{}|{}", entry.slice, entry.node)))
                .collect();
            let mut set: Vec<&[u8]> = vec![b"HSET", self.key.as_bytes(), b"of", of.as_bytes()];
            for (id, value) in &values {
                set.extend([id.as_bytes(), value.as_bytes()]);
            }
            let commands = [
                vec![&b"MULTI"[..]],
                vec![b"DEL", self.key.as_bytes()],
                set,
                vec![b"EXEC"],
            ];
            let replies = self.client.ask_all(&commands).await?;
            for (reply, argv) in replies.iter().zip(&commands) {
                if let Value::Error(error) = reply {
                    return Err(self.client.refused(argv, error));
                }
            }
            if !matches!(replies.last(), Some(Value::Null)) {
                return Ok(next);
            }
        }
    }

    /// Shards that are gone are forgotten.
    pub(super) async fn forget(&mut self, ids: &[String]) -> Result<(), SyncError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut argv: Vec<&[u8]> = vec![b"HDEL", self.key.as_bytes()];
        argv.extend(ids.iter().map(String::as_bytes));
        self.client.call(&argv).await.map(drop)
    }

    /// Whether an error is the connection's, which is made anew then.
    pub(super) fn is_lost(error: &SyncError) -> bool {
        error.class == Class::Reconnect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_as_people_and_pods_write_them() {
        let slice = |index, of| Ok(Slice { index, of });
        assert_eq!(Slice::parse("1/1"), Ok(Slice::WHOLE));
        assert_eq!(Slice::parse("2/3"), slice(2, 3));
        assert_eq!(Slice::parse("understudy-0/3"), slice(1, 3));
        assert_eq!(Slice::parse("my-understudy-2/3"), slice(3, 3));
        for bad in [
            "", "1", "0/3", "4/3", "x/3", "a-3/3", "1/0", "1/x", "a-/2", "-1/0",
        ] {
            let error = Slice::parse(bad).unwrap_err();
            assert!(error.contains("\"i/n\""), "{bad}: {error}");
        }
        assert_eq!(Slice { index: 2, of: 3 }.to_string(), "2/3");
    }

    fn seat(id: &str, node: &str, first: Option<u16>) -> Seat {
        Seat {
            id: id.to_owned(),
            node: node.to_owned(),
            first,
        }
    }

    fn slices(table: &Table) -> Vec<(&str, u16, &str)> {
        let shards = table.shards.iter();
        shards
            .map(|(id, entry)| (id.as_str(), entry.slice, entry.node.as_str()))
            .collect()
    }

    #[test]
    fn a_shard_goes_to_the_fewest_and_stays() {
        let seats = [
            seat("c", "c", Some(10_000)),
            seat("a", "a", Some(5000)),
            seat("b", "b", Some(0)),
        ];
        let table = Table::default().with(2, &seats);
        assert_eq!(
            slices(&table),
            [("a", 2, "a"), ("b", 1, "b"), ("c", 1, "c")]
        );
        // A failover of one; another one is new; one has lost its slots.
        let seats = [
            seat("a", "a2", Some(5000)),
            seat("b", "b", None),
            seat("c", "c", Some(10_000)),
            seat("d", "d", Some(1)),
        ];
        let next = table.with(2, &seats);
        assert_eq!(
            slices(&next),
            [("a", 2, "a2"), ("b", 1, "b"), ("c", 1, "c"), ("d", 1, "d")]
        );
        assert_eq!(next.with(2, &seats), next);
        // Another number of processes.
        let anew = next.with(3, &seats);
        assert_eq!(
            slices(&anew),
            [("a", 2, "a2"), ("b", 1, "b"), ("c", 3, "c"), ("d", 1, "d")]
        );
    }

    #[test]
    fn the_hash_is_read_back() {
        let bulk = |text: &'static str| Value::Bulk(bytes::Bytes::from_static(text.as_bytes()));
        let words = ["of", "3", "ab", "2|abcdef"].map(bulk);
        let table = Table::parse(&words).unwrap();
        assert_eq!((table.of, slices(&table)), (3, vec![("ab", 2, "abcdef")]));
        for bad in [["of", "x"], ["ab", "2"], ["ab", "x|y"]] {
            assert_eq!(Table::parse(&bad.map(bulk)), None);
        }
    }
}
