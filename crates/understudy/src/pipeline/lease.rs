//! Leases: a longer life for keys that would expire before their time.
//!
//! A replica never expires keys by itself; our target does. A key that expires between the source's fork
//! and the moment when the stream has caught up may have been saved in that stream (PERSIST, a later
//! EXPIRE, SET KEEPTTL), or counted on (INCR before its end): were it gone by then, the copy would differ.
//! The same holds for an expiry set by the stream while we are behind. So such keys are written with their expiry moved [`LEASE_MS`] ahead, and get their own back once the
//! stream has passed the point in question, unless the stream has changed it meanwhile. The checkpoint's
//! flag `l` says that leases may be open: a run that finds it looks for them by SCAN.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use resp::Value;
use rewrite::LeaseRule;
use tokio::sync::Notify;

use crate::client::{Client, Info};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::error::{Class, Side, SyncError};
use crate::spool::Feed;
use crate::status::Status;

use super::sweep::each_key;

/// An expiry that had passed longer ago than this when its key was written is not looked for.
const OLDEST_MS: i64 = 30 * 24 * 3600 * 1000;
/// How exactly an expiry is known from what is left of it (before 7.0).
const ROUND_TRIP_MS: u64 = 5_000;
const RETRY: Duration = Duration::from_millis(500);
/// Added to an expiry: some 246 years, and not a round number, so that with what is near now added to it no
/// expiry that anybody means comes out.
const LEASE_MS: i64 = 7_777_777_777_777;
/// Keys that expire within this time get a lease.
const WINDOW_MS: i64 = 10 * 60 * 1000;
/// More open leases than this are not remembered but looked for.
const REMEMBERED_MAX: usize = 500_000;
/// A source that is a replica itself may be this far behind its master.
const SKEW_MS: i64 = 500;
/// An expiry this far ahead can be set at once: lag is smaller.
const AHEAD_MS: i64 = 2_000;
/// A mark older than this says nothing of what lies ahead.
const FRESH: Duration = Duration::from_millis(1_000);
/// How old the stream is taken to be where the source's own clock and offset cannot be asked.
const GUESS_MS: i64 = 30_000;

/// A key whose expiry was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    db: u32,
    key: Bytes,
    at_ms: i64,
}

impl Lease {
    /// Whether an expiry at the target is this lease's: nobody has changed it since.
    fn is_written_as(&self, at_ms: i64) -> bool {
        at_ms.abs_diff(self.at_ms.saturating_add(LEASE_MS)) <= ROUND_TRIP_MS
    }
}

/// Whether a lease can have been granted for this expiry: not a far one that somebody means.
fn is_grantable(at_ms: i64) -> bool {
    let now_ms = now_ms();
    (now_ms - OLDEST_MS..now_ms + WINDOW_MS + ROUND_TRIP_MS.cast_signed()).contains(&at_ms)
}

/// The open leases of a link: granted by the appliers, ended by [`settle_forever`], on one thread.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    open: RefCell<Vec<Lease>>,
    /// Some are not in the list: to be looked for at the target.
    unknown: Cell<bool>,
    granted: Notify,
}

impl Leases {
    /// The expiry to write for a key that expires `at_ms`.
    pub(crate) fn grant(&self, db: u32, key: &[u8], at_ms: i64) -> i64 {
        if at_ms >= Self::before_ms() {
            return at_ms;
        }
        self.note(db, Bytes::copy_from_slice(key), at_ms);
        at_ms.saturating_add(LEASE_MS)
    }

    /// A lease that was granted elsewhere.
    pub(crate) fn note(&self, db: u32, key: Bytes, at_ms: i64) {
        let mut open = self.open.borrow_mut();
        if open.len() < REMEMBERED_MAX {
            open.push(Lease { db, key, at_ms });
        } else {
            self.unknown.set(true);
        }
        self.granted.notify_one();
    }

    /// Leases may be where nobody noted them: under another name, or left by an earlier run.
    pub(crate) fn suspect(&self) {
        self.unknown.set(true);
        self.granted.notify_one();
    }

    /// Forgets all: a new snapshot begins.
    pub(crate) fn clear(&self) {
        self.open.borrow_mut().clear();
        self.unknown.set(false);
    }

    /// Whether any are open.
    pub(crate) fn any(&self) -> bool {
        self.unknown.get() || !self.open.borrow().is_empty()
    }

    /// Expiries before this time get a lease.
    fn before_ms() -> i64 {
        now_ms().saturating_add(WINDOW_MS)
    }

    /// The rule for commands of the stream while the target is behind.
    pub(crate) fn rule() -> LeaseRule {
        LeaseRule {
            before_ms: Self::before_ms(),
            add_ms: LEASE_MS,
        }
    }
}

/// Ends leases as the stream in `feed` passes them, as long as the link runs.
pub(crate) async fn settle_forever(
    config: &Config,
    status: &Status,
    feed: &Feed,
    leases: &Leases,
) -> Infallible {
    loop {
        while leases.any() {
            status.leases_open.set(1);
            let Err(error) = settle(config, feed, leases).await else {
                continue;
            };
            if error.class == Class::Stop {
                tracing::error!(%error, "expiries of keys cannot be set; trying again");
            }
            tokio::time::sleep(RETRY).await;
        }
        status.leases_open.set(0);
        leases.granted.notified().await;
    }
}

/// Ends all leases that are open now, or come to be meanwhile.
///
/// # Errors
/// As the clients of both ends; the caller tries again.
async fn settle(config: &Config, feed: &Feed, leases: &Leases) -> Result<(), SyncError> {
    let mut target = Client::connect(&config.target.endpoint, Side::Target).await?;
    let mut source = Client::connect(&config.source.endpoint, Side::Source).await?;
    while leases.any() {
        let mark = Mark::read(&mut source, feed).await?;
        while feed.applied() < mark.offset {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if leases.unknown.replace(false) {
            match find(config, &mut target).await {
                Ok(found) => leases.open.borrow_mut().extend(found),
                Err(error) => {
                    leases.unknown.set(true);
                    return Err(error);
                }
            }
        }
        let open = std::mem::take(&mut *leases.open.borrow_mut());
        let is_due = |lease: &Lease| mark.allows(lease.at_ms);
        let (mut due, waiting): (Vec<Lease>, Vec<Lease>) = open.into_iter().partition(is_due);
        leases.open.borrow_mut().extend(waiting);
        while let Some(lease) = due.pop() {
            if let Err(error) = end(&mut target, &lease).await {
                due.push(lease);
                leases.open.borrow_mut().append(&mut due);
                return Err(error);
            }
        }
        if leases.any() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// A moment of the source: everything done there before it lies before `offset` in the stream.
#[derive(Debug, Clone, Copy)]
struct Mark {
    source_ms: i64,
    offset: u64,
    read: Instant,
}

impl Mark {
    async fn read(source: &mut Client, feed: &Feed) -> Result<Self, SyncError> {
        // The clock first: what is done between the two answers only makes the offset larger.
        let answers = source
            .ask_all(&[vec![b"TIME"], vec![b"INFO", b"replication"]])
            .await?;
        let [Value::Array(time), info] = answers.as_slice() else {
            return Ok(Self::guess(feed));
        };
        let number = |value: Option<&Value>| -> Option<i64> {
            std::str::from_utf8(value?.as_bytes()?).ok()?.parse().ok()
        };
        let (seconds, micros) = (number(time.first()), number(time.get(1)));
        let offset = info
            .as_bytes()
            .and_then(|text| Info::of(text).get("master_repl_offset")?.parse().ok());
        match (seconds, micros, offset) {
            (Some(seconds), Some(micros), Some(offset)) => Ok(Self {
                source_ms: seconds * 1000 + micros / 1000,
                offset,
                read: Instant::now(),
            }),
            _ => Ok(Self::guess(feed)),
        }
    }

    /// For a source that does not let us ask: what has come, and a clock well behind ours.
    fn guess(feed: &Feed) -> Self {
        Self {
            source_ms: now_ms() - GUESS_MS,
            offset: feed.end(),
            read: Instant::now(),
        }
    }

    /// Whether a key may have its own expiry back: it ran out before this moment and nothing saved it, or it
    /// lives so much longer that lag does not matter.
    fn allows(self, at_ms: i64) -> bool {
        let is_fresh = self.read.elapsed() < FRESH;
        at_ms <= self.source_ms - SKEW_MS || (is_fresh && at_ms >= self.source_ms + AHEAD_MS)
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
        if expires_at_ms(client, &lease.key)
            .await?
            .is_none_or(|at_ms| !lease.is_written_as(at_ms))
        {
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

/// When the key expires at the target; `None` for never, or no such key. Before 7.0 there is no
/// PEXPIRETIME: what is left and our clock tell it to within the round trip.
async fn expires_at_ms(client: &mut Client, key: &[u8]) -> Result<Option<i64>, SyncError> {
    if let Value::Int(at_ms) = client.ask(&[b"PEXPIRETIME", key]).await? {
        return Ok((at_ms >= 0).then_some(at_ms));
    }
    match client.call(&[b"PTTL", key]).await? {
        Value::Int(left_ms) if left_ms >= 0 => Ok(Some(now_ms() + left_ms)),
        _ => Ok(None),
    }
}

/// Looks for keys with a lease.
async fn find(config: &Config, client: &mut Client) -> Result<Vec<Lease>, SyncError> {
    let mut keys: Vec<(u32, Bytes)> = Vec::new();
    each_key(config, client, |db, key| keys.push((db, key.clone()))).await?;
    let mut found = Vec::new();
    for chunk in keys.chunk_by(|(a, _), (b, _)| a == b) {
        let Some((db, _)) = chunk.first() else {
            continue;
        };
        client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
        for keys in chunk.chunks(1000) {
            find_among(client, *db, keys, &mut found).await?;
        }
    }
    Ok(found)
}

/// A first question of all sorts out the keys that cannot have one.
async fn find_among(
    client: &mut Client,
    db: u32,
    keys: &[(u32, Bytes)],
    found: &mut Vec<Lease>,
) -> Result<(), SyncError> {
    let questions: Vec<Vec<&[u8]>> = keys
        .iter()
        .map(|(_, key)| vec![&b"PTTL"[..], key])
        .collect();
    let answers = client.ask_all(&questions).await?;
    for ((_, key), answer) in keys.iter().zip(answers) {
        let Value::Int(left_ms) = answer else {
            continue;
        };
        if left_ms < LEASE_MS / 2 {
            continue;
        }
        let at_ms = expires_at_ms(client, key).await?.unwrap_or(0) - LEASE_MS;
        if is_grantable(at_ms) {
            found.push(Lease {
                db,
                key: key.clone(),
                at_ms,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_expires_soon_gets_a_lease() {
        let leases = Leases::default();
        let now = now_ms();
        assert_eq!(
            leases.grant(0, b"far", now + 2 * WINDOW_MS),
            now + 2 * WINDOW_MS
        );
        assert!(!leases.any());
        assert_eq!(leases.grant(0, b"near", now + 5), now + 5 + LEASE_MS);
        assert_eq!(leases.grant(0, b"past", 7), 7 + LEASE_MS);
        assert_eq!(leases.open.borrow().len(), 2);
    }

    #[test]
    fn an_expiry_that_somebody_means_is_no_lease() {
        let now = now_ms();
        assert!(is_grantable(now - 1000) && is_grantable(now + WINDOW_MS));
        assert!(!is_grantable(9_999_999_999_999 - LEASE_MS) && !is_grantable(now + 2 * WINDOW_MS));
        let lease = Lease {
            db: 0,
            key: Bytes::from_static(b"k"),
            at_ms: now,
        };
        assert!(lease.is_written_as(now + LEASE_MS) && !lease.is_written_as(now));
        assert!(!lease.is_written_as(9_999_999_999_999));
    }
}
