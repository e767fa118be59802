//! Leases: a longer life for keys of the snapshot that expire soon.
//!
//! A replica never expires keys by itself; our target does. A key that expires between the source's fork
//! and the moment when the stream has caught up may have been saved in that stream (PERSIST, a later
//! EXPIRE, SET KEEPTTL), or counted on (INCR before its end): were it gone by then, the copy would differ.
//! So such keys are written with their expiry moved [`LEASE_MS`] ahead, and get their own back once the
//! stream has passed the point in question, unless the stream has changed it meanwhile. The checkpoint's
//! flag `l` says that leases may be open: a run that finds it looks for them by SCAN.

use std::time::Duration;

use bytes::Bytes;
use resp::Value;

use crate::client::Client;
use crate::clock::unix_ms;
use crate::config::Config;
use crate::error::{Class, Side, SyncError};
use crate::spool::Feed;

use super::sweep::each_key;

/// Added to an expiry, some 246 years: no expiry that anybody means is in that range.
const LEASE_MS: i64 = 7_777_777_777_777;
/// Keys that expire within this time get a lease.
const WINDOW_MS: i64 = 10 * 60 * 1000;
/// More open leases than this are not remembered but looked for.
const REMEMBERED_MAX: usize = 500_000;
/// What the source did this long ago has been received: clocks and links differ by less.
const SETTLED_MS: i64 = 500;
/// An expiry this far ahead can be set at once: lag is smaller.
const AHEAD_MS: i64 = 2_000;

/// A key whose expiry was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    db: u32,
    key: Bytes,
    at_ms: i64,
}

/// The leases of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    open: Vec<Lease>,
    overflowed: bool,
}

impl Leases {
    /// The expiry to write for a key that expires `at_ms`.
    pub(crate) fn grant(&mut self, db: u32, key: &[u8], at_ms: i64) -> i64 {
        let now_ms = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
        if at_ms > now_ms.saturating_add(WINDOW_MS) {
            return at_ms;
        }
        if self.open.len() < REMEMBERED_MAX {
            self.open.push(Lease {
                db,
                key: Bytes::copy_from_slice(key),
                at_ms,
            });
        } else {
            self.overflowed = true;
        }
        at_ms.saturating_add(LEASE_MS)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && !self.overflowed
    }

    /// Leases of an earlier run, to be looked for.
    pub(crate) fn unknown() -> Self {
        Self {
            open: Vec::new(),
            overflowed: true,
        }
    }
}

/// Ends all leases as the stream in `feed` passes them.
///
/// # Errors
/// As the target's client; the caller tries again.
pub(crate) async fn settle(
    config: &Config,
    feed: &Feed,
    leases: &mut Leases,
) -> Result<(), SyncError> {
    let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
    if leases.overflowed {
        leases.open = find(config, &mut client).await?;
        leases.overflowed = false;
    }
    while !leases.open.is_empty() {
        let (offset, mark_ms) = (feed.end(), now_ms());
        while feed.applied() < offset && !feed.is_complete() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let now_ms = now_ms();
        let due = |lease: &Lease| {
            feed.is_complete()
                || lease.at_ms <= mark_ms - SETTLED_MS
                || lease.at_ms >= now_ms + AHEAD_MS
        };
        let mut waiting = Vec::new();
        let mut open = std::mem::take(&mut leases.open).into_iter();
        while let Some(lease) = open.next() {
            if !due(&lease) {
                waiting.push(lease);
                continue;
            }
            if let Err(error) = end(&mut client, &lease).await {
                waiting.push(lease);
                waiting.extend(open);
                leases.open = waiting;
                return Err(error);
            }
        }
        leases.open = waiting;
        if !leases.open.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// [`settle`], over as many connections as it takes.
pub(crate) async fn settle_all(config: &Config, feed: &Feed, mut leases: Leases) {
    while let Err(error) = settle(config, feed, &mut leases).await {
        if error.class == Class::Stop {
            tracing::error!(%error, "expiries of keys from the snapshot could not be set; the next start tries again");
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn now_ms() -> i64 {
    i64::try_from(unix_ms()).unwrap_or(i64::MAX)
}

/// Gives the key its own expiry, unless the stream has changed it. WATCH makes the look and the change one.
async fn end(client: &mut Client, lease: &Lease) -> Result<(), SyncError> {
    client
        .call(&[b"SELECT", lease.db.to_string().as_bytes()])
        .await?;
    loop {
        client.call(&[b"WATCH", &lease.key]).await?;
        let Value::Int(left_ms) = client.call(&[b"PTTL", &lease.key]).await? else {
            return Ok(());
        };
        // What is left tells a lease from any other expiry; which of the two it is, is all that counts.
        if left_ms < LEASE_MS / 2 {
            client.call(&[b"UNWATCH"]).await?;
            return Ok(());
        }
        let at = lease.at_ms.max(1).to_string();
        client.call(&[b"MULTI"]).await?;
        client
            .call(&[b"PEXPIREAT", &lease.key, at.as_bytes()])
            .await?;
        if client.call(&[b"EXEC"]).await? != Value::Null {
            return Ok(());
        }
    }
}

/// Looks for keys with a lease.
async fn find(config: &Config, client: &mut Client) -> Result<Vec<Lease>, SyncError> {
    let mut found = Vec::new();
    let mut keys: Vec<(u32, Bytes)> = Vec::new();
    each_key(config, client, |db, key| keys.push((db, key.clone()))).await?;
    let mut selected = None;
    for (db, key) in keys {
        if selected != Some(db) {
            client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
            selected = Some(db);
        }
        if let Some(at_ms) = leased_until(client, &key).await? {
            found.push(Lease { db, key, at_ms });
        }
    }
    Ok(found)
}

/// The key's own expiry, if it has a lease. Before 7.0 there is no PEXPIRETIME: what is left and our clock
/// tell it to within the round trip.
async fn leased_until(client: &mut Client, key: &[u8]) -> Result<Option<i64>, SyncError> {
    let Value::Int(left_ms) = client.call(&[b"PTTL", key]).await? else {
        return Ok(None);
    };
    if left_ms < LEASE_MS / 2 {
        return Ok(None);
    }
    let at_ms = match client.ask(&[b"PEXPIRETIME", key]).await? {
        Value::Int(at_ms) => at_ms,
        _ => now_ms() + left_ms,
    };
    Ok(Some(at_ms - LEASE_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_expires_soon_gets_a_lease() {
        let mut leases = Leases::default();
        let now = now_ms();
        assert_eq!(
            leases.grant(0, b"far", now + 2 * WINDOW_MS),
            now + 2 * WINDOW_MS
        );
        assert!(leases.is_empty());
        assert_eq!(leases.grant(0, b"near", now + 5), now + 5 + LEASE_MS);
        assert_eq!(leases.grant(0, b"past", 7), 7 + LEASE_MS);
        assert_eq!(leases.open.len(), 2);
    }
}
