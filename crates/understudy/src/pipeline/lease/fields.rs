//! Leases of hash fields, where a recording is played: as long as it lasts no field ends at the target, as in a server that
//! loads its file.
//!
//! The source's HDEL of a field that has ended comes with the stream, as the DEL of a key does; but what is played later
//! finds every expiry passed, also that of a field which was given another life behind it. So all of them are moved by
//! [`LEASE_MS`], and at the end every hash of the target is looked at: what lies so far ahead gets its own expiry. Nobody
//! keeps a list, since a field goes along with its key by RENAME, COPY or MOVE.
//!
//! A condition (`HPEXPIREAT .. GT`) that only some of the fields have met compares expiries which all were moved by the
//! same. So those within [`WINDOW_MS`] are moved, which is longer than for keys.

use bytes::Bytes;
use resp::Value;
use rewrite::{Abilities, LeaseRule};

use super::{GUESS_MS, LEASE_MS, Leases, Server, Target, is_grantable_before, now_ms};
use crate::config::{Config, Reader};
use crate::error::{Side, SyncError};
use crate::pipeline::sweep::{is_own, may_hold, scan};

/// Expiries of fields within a year are moved. The longer this is, the more that somebody means (some 246 years ahead) could
/// be taken for moved ones, and 9,999,999,999,999 is one that is meant.
const WINDOW_MS: i64 = 365 * 24 * 3600 * 1000;
/// Hashes looked at in one go.
const BATCH_KEYS: usize = 100;
/// Asked for with one HSCAN; and so many fields are changed in one transaction at the most.
const PAGE_FIELDS: usize = 500;
const PAGE: &[u8] = b"500";

/// The rule for expiries of fields: only a recording has one.
pub(in crate::pipeline) fn rule(config: &Config) -> Option<LeaseRule> {
    matches!(config.reader, Reader::Aof(_)).then_some(LeaseRule {
        before_ms: now_ms().saturating_add(WINDOW_MS),
        add_ms: LEASE_MS,
    })
}

/// The own expiry of a field with this one, if that was moved.
fn own_ms(at_ms: i64) -> Option<i64> {
    let before_ms = now_ms().saturating_add(WINDOW_MS + GUESS_MS);
    Some(at_ms - LEASE_MS).filter(|own| is_grantable_before(*own, before_ms))
}

impl Leases {
    /// Fields have leases.
    pub(in crate::pipeline) fn note_fields(&self) {
        self.fields.set(true);
    }

    /// An earlier run has left leases that this one does not know of.
    pub(crate) fn inherit(&self, target: &Abilities) {
        self.suspect(0);
        if self.is_recording && target.hash_field_ttl {
            self.note_fields();
        }
    }
}

/// A page of a hash: its place among the hashes looked at, and fields.
struct Page {
    key: Bytes,
    fields: Vec<Bytes>,
    /// Where the next page begins; `None` behind the last.
    next: Option<Bytes>,
}

impl Target {
    /// Gives every field with a lease its own expiry, as the `owner` of the link.
    pub(super) async fn end_fields(
        &mut self,
        config: &Config,
        owner: u64,
    ) -> Result<(), SyncError> {
        let addresses = match &self.server {
            Server::One(_) => vec![self.address.clone()],
            Server::Many(reach) => reach.addresses(),
        };
        for address in addresses {
            self.go_to(&address);
            let keyspace = self.client()?.info("keyspace").await?.keyspace();
            for (db, _) in keyspace.into_iter().filter(|(db, _)| may_hold(config, *db)) {
                let mut cursor = Bytes::from_static(b"0");
                loop {
                    self.go_to(&address);
                    self.select_there(db).await?;
                    let hashes: [&[u8]; 2] = [b"TYPE", b"hash"];
                    let (next, mut keys) = scan(config, self.client()?, &cursor, &hashes).await?;
                    keys.retain(|key| !is_own(key) && config.may_be_copied(db, key));
                    for keys in keys.chunks(BATCH_KEYS) {
                        self.end_fields_of(&address, db, keys, owner).await?;
                    }
                    if next.as_ref() == b"0" {
                        break;
                    }
                    cursor = next;
                }
            }
        }
        Ok(())
    }

    fn go_to(&mut self, address: &str) {
        if let Server::Many(reach) = &mut self.server {
            reach.go_to(address);
        }
    }

    /// The same for some hashes of one database of a server.
    async fn end_fields_of(
        &mut self,
        address: &str,
        db: u32,
        keys: &[Bytes],
        owner: u64,
    ) -> Result<(), SyncError> {
        let begin = Bytes::from_static(b"0");
        let mut open: Vec<(Bytes, Bytes)> = keys
            .iter()
            .map(|key| (key.clone(), begin.clone()))
            .collect();
        while !open.is_empty() {
            self.go_to(address);
            self.select_there(db).await?;
            let pages = self.pages(&open).await?;
            for (key, fields) in self.with_leases(&pages).await? {
                for fields in fields.chunks(PAGE_FIELDS) {
                    self.end_page(db, &key, fields, owner).await?;
                }
            }
            let next = |page: Page| page.next.map(|cursor| (page.key, cursor));
            open = pages.into_iter().filter_map(next).collect();
        }
        Ok(())
    }

    /// The next page of each of these hashes.
    async fn pages(&mut self, open: &[(Bytes, Bytes)]) -> Result<Vec<Page>, SyncError> {
        let commands: Vec<Vec<&[u8]>> = open
            .iter()
            .map(|(key, cursor)| vec![&b"HSCAN"[..], key, cursor, b"COUNT", PAGE, b"NOVALUES"])
            .collect();
        let mut pages = Vec::new();
        for ((key, _), reply) in open.iter().zip(self.ask(&commands).await?) {
            let Some((cursor, fields)) = cursor_and_fields(reply) else {
                let what = "HSCAN answered something that is not a cursor and fields";
                return Err(SyncError::stop(Side::Target, &self.address, what));
            };
            pages.push(Page {
                key: key.clone(),
                fields,
                next: Some(cursor).filter(|cursor| cursor.as_ref() != b"0"),
            });
        }
        Ok(pages)
    }

    /// The fields of these pages that have a lease, by their keys.
    async fn with_leases(&mut self, pages: &[Page]) -> Result<Vec<(Bytes, Vec<Bytes>)>, SyncError> {
        let pages: Vec<&Page> = pages
            .iter()
            .filter(|page| !page.fields.is_empty())
            .collect();
        let counts: Vec<String> = pages
            .iter()
            .map(|page| page.fields.len().to_string())
            .collect();
        let commands: Vec<Vec<&[u8]>> = pages
            .iter()
            .zip(&counts)
            .map(|(page, count)| question(&page.key, count, &page.fields))
            .collect();
        let mut found = Vec::new();
        for (page, reply) in pages.iter().zip(self.ask(&commands).await?) {
            let leased = expiries_ms(&reply)
                .zip(&page.fields)
                .filter(|(at_ms, _)| own_ms(*at_ms).is_some());
            let leased: Vec<Bytes> = leased.map(|(_, field)| field.clone()).collect();
            if !leased.is_empty() {
                found.push((page.key.clone(), leased));
            }
        }
        Ok(found)
    }

    /// Gives fields of a hash their own expiries. WATCH makes the look and the change one; who was disturbed looks again.
    async fn end_page(
        &mut self,
        db: u32,
        key: &Bytes,
        fields: &[Bytes],
        owner: u64,
    ) -> Result<(), SyncError> {
        let count = fields.len().to_string();
        loop {
            self.select(db).await?;
            self.watch(&[key], owner).await?;
            let reply = self.ask(&[question(key, &count, fields)]).await?;
            let reply = reply.first().unwrap_or(&Value::Null);
            let mut due: Vec<(i64, &Bytes)> = expiries_ms(reply)
                .zip(fields)
                .filter_map(|(at_ms, field)| Some((own_ms(at_ms)?, field)))
                .collect();
            if due.is_empty() {
                self.client()?.call(&[b"UNWATCH"]).await?;
                return Ok(());
            }
            due.sort_unstable_by_key(|(own, _)| *own);
            let same: Vec<_> = due.chunk_by(|(a, _), (b, _)| a == b).collect();
            let numbers: Vec<_> = same
                .iter()
                .map(|fields| {
                    let at = fields.first().map_or(0, |(own, _)| (*own).max(1));
                    (at.to_string(), fields.len().to_string())
                })
                .collect();
            // Alone: a busy server may refuse it and take what follows, which then would not be guarded.
            self.client()?.call(&[b"MULTI"]).await?;
            let mut commands: Vec<Vec<&[u8]>> = Vec::new();
            for ((at, count), fields) in numbers.iter().zip(same) {
                let (at, count) = (at.as_bytes(), count.as_bytes());
                let mut words = vec![&b"HPEXPIREAT"[..], key, at, b"FIELDS", count];
                words.extend(fields.iter().map(|(_, field)| field.as_ref()));
                commands.push(words);
            }
            commands.push(vec![b"EXEC"]);
            let replies = self.ask(&commands).await?;
            if matches!(replies.last(), Some(Value::Array(_))) {
                return Ok(());
            }
        }
    }

    /// The replies to all, none of which is an error.
    async fn ask(&mut self, commands: &[Vec<&[u8]>]) -> Result<Vec<Value>, SyncError> {
        let replies = self.client()?.ask_all(commands).await?;
        for (command, reply) in commands.iter().zip(&replies) {
            if let Value::Error(error) = reply {
                return Err(self.client()?.refused(command, error));
            }
        }
        Ok(replies)
    }
}

fn question<'a>(key: &'a [u8], count: &'a str, fields: &'a [Bytes]) -> Vec<&'a [u8]> {
    let mut words = vec![&b"HPEXPIRETIME"[..], key, b"FIELDS", count.as_bytes()];
    words.extend(fields.iter().map(AsRef::as_ref));
    words
}

/// When the fields asked for expire; less than nothing for those that do not, or are gone. Nothing for a key that is gone.
fn expiries_ms(reply: &Value) -> impl Iterator<Item = i64> + '_ {
    let times = match reply {
        Value::Array(times) => times.as_slice(),
        _ => &[],
    };
    times.iter().map(|time| match time {
        Value::Int(at_ms) => *at_ms,
        _ => -1,
    })
}

fn cursor_and_fields(reply: Value) -> Option<(Bytes, Vec<Bytes>)> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let [Value::Bulk(cursor), Value::Array(fields)] = parts.as_slice() else {
        return None;
    };
    let names = fields.iter().map(|field| match field {
        Value::Bulk(field) => Some(field.clone()),
        _ => None,
    });
    Some((cursor.clone(), names.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn only_what_was_moved_is_moved_back() {
        let now = now_ms();
        for own in [now - WINDOW_MS, now, now + WINDOW_MS] {
            assert_eq!(own_ms(own + LEASE_MS), Some(own));
            // Nor twice.
            assert_eq!(own_ms(own), None);
        }
        for somebodys in [
            -1,
            9_999_999_999_999,
            now + 2 * WINDOW_MS + LEASE_MS,
            1 << 46,
        ] {
            assert_eq!(own_ms(somebodys), None);
        }
    }

    #[test]
    fn fields_are_open_beside_keys() {
        let leases = Leases::of_a_recording();
        leases.note_fields();
        assert!(leases.any() && !leases.any_key() && !leases.are_ended());
        leases.clear();
        assert!(!leases.any());
        let abilities = |version: &str| {
            Abilities::from_version(rewrite::Fork::Redis, version.parse().expect("a version"))
        };
        leases.inherit(&abilities("7.2.0"));
        assert!(!leases.fields.get());
        leases.inherit(&abilities("8.0.0"));
        assert!(leases.fields.get());
        let live = Leases::default();
        live.inherit(&abilities("8.0.0"));
        assert!(live.any_key() && !live.fields.get());
    }
}
