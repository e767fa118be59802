//! What no event tells of: FLUSHALL, FLUSHDB and SWAPDB, and what groups of streams do (XACK, XREADGROUP, XCLAIM). The
//! source counts its commands, and whoever reads the counts sees that there was one. Where a replica is read, whether it still
//! follows is seen here too.

use std::time::Duration;

use resp::Value;
use tokio::time::Instant;

use super::shared::Shared;
use crate::client::Info;
use crate::compare::End;
use crate::config::Endpoint;
use crate::error::{Side, SyncError};
use crate::replicas::follows;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// After trouble.
const RETRY: Duration = Duration::from_secs(5);
/// INFO is not longer than this.
const REPLY_BYTES_MAX: u64 = 4 << 20;
/// Commands after which whole databases are others.
const WHOLE: [&str; 3] = ["flushall", "flushdb", "swapdb"];
/// Commands that change a stream's groups without an event.
const GROUPS: [&str; 5] = ["xack", "xreadgroup", "xclaim", "xautoclaim", "xackdel"];
/// Streams that are read again at one look.
const STREAMS: usize = 500;
/// A replica may be without its master for so long: a full sync of it takes its time, and so do failovers.
const ORPHAN_MAX: Duration = Duration::from_secs(10);
/// Where commands are not counted: fewer keys than this share are left.
const SHRUNK_PERCENT: u64 = 70;

/// Counts of one look.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    whole: Option<u64>,
    groups: u64,
    keys: Vec<(u32, u64)>,
    /// Whether it is a replica that hears from its master; none where it does not tell.
    follows: Option<bool>,
}

/// Looks at one of the servers, all the while. `is_first`: the first of them. `is_replica`: it is read in its master's place.
///
/// # Errors
/// Reconnect where it is a replica that follows no more, or is gone: what it holds is no longer what the source holds.
pub(super) async fn run(
    shared: &Shared<'_>,
    endpoint: &Endpoint,
    is_first: bool,
    is_replica: bool,
) -> Result<(), SyncError> {
    let mut before: Option<Counts> = None;
    let mut has_told = false;
    let mut orphan_since: Option<Instant> = None;
    loop {
        let mut end = match End::connect(endpoint, Side::Source, REPLY_BYTES_MAX).await {
            Ok(end) => end,
            Err(error) => {
                let since = *orphan_since.get_or_insert_with(Instant::now);
                if is_replica && since.elapsed() >= ORPHAN_MAX {
                    return Err(error);
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        while let Ok(now) = look(&mut end).await {
            if now.whole.is_none() && !has_told {
                has_told = true;
                tracing::warn!(
                    "the source does not count its commands for us (+info): FLUSHALL, FLUSHDB, SWAPDB and the groups of streams are noticed by sweeps alone"
                );
            }
            if let Some(before) = &before {
                judge(shared, before, &now);
            }
            if is_first {
                shared.mark_streams(STREAMS);
            }
            if is_replica && now.follows == Some(false) {
                let since = *orphan_since.get_or_insert_with(Instant::now);
                // What is read now may be old.
                shared.raise("replica_behind");
                if since.elapsed() >= ORPHAN_MAX {
                    let what = "the replica that is read has lost its master, or follows no more";
                    return Err(SyncError::reconnect(Side::Source, &endpoint.address, what));
                }
            } else {
                orphan_since = None;
            }
            before = Some(now);
            tokio::time::sleep(EVERY).await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn judge(shared: &Shared<'_>, before: &Counts, now: &Counts) {
    if now.whole != before.whole {
        tracing::info!("FLUSHALL, FLUSHDB or SWAPDB at the source: a sweep looks at every key");
        shared.flushed("flush_or_swap");
    } else if now.whole.is_none() && has_shrunk(&before.keys, &now.keys) {
        tracing::info!(
            "the source has far fewer keys than a moment ago: a sweep looks at every key"
        );
        shared.flushed("shrunk");
    }
    // A single pass does not follow what changes behind it.
    if now.groups != before.groups && shared.wants_events {
        shared.owe_streams();
    }
}

async fn look(end: &mut End) -> Result<Counts, SyncError> {
    let commands: [Vec<&[u8]>; 3] = [
        vec![b"INFO", b"commandstats"],
        vec![b"INFO", b"keyspace"],
        vec![b"INFO", b"replication"],
    ];
    let mut answers = end.ask(0, &commands).await?.into_iter();
    let mut info = || match answers.next() {
        Some(Value::Bulk(text) | Value::Verbatim { text, .. }) => Some(Info::of(&text)),
        _ => None,
    };
    let (commands, keyspace, replication) = (info(), info(), info());
    Ok(Counts {
        follows: replication.as_ref().and_then(follows),
        ..counts(commands.as_ref(), keyspace.as_ref())
    })
}

fn counts(commands: Option<&Info>, keyspace: Option<&Info>) -> Counts {
    let commands = commands.filter(|info| info.text().contains("cmdstat_"));
    let sum = |info: &Info, names: &[&str]| names.iter().map(|name| calls(info, name)).sum();
    Counts {
        whole: commands.map(|info| sum(info, &WHOLE)),
        groups: commands.map_or(0, |info| sum(info, &GROUPS)),
        keys: keyspace.map(Info::keyspace).unwrap_or_default(),
        follows: None,
    }
}

/// `cmdstat_flushall:calls=3,usec=..`.
fn calls(info: &Info, name: &str) -> u64 {
    let calls = info.get(&format!("cmdstat_{name}"));
    let calls = calls.and_then(|text| text.strip_prefix("calls=")?.split(',').next());
    calls.and_then(|calls| calls.parse().ok()).unwrap_or(0)
}

fn has_shrunk(before: &[(u32, u64)], now: &[(u32, u64)]) -> bool {
    let left = |db: u32| {
        let mut now = now.iter();
        now.find(|(of, _)| *of == db).map_or(0, |(_, keys)| *keys)
    };
    let mut before = before.iter();
    before.any(|(db, keys)| *keys > 100 && left(*db) * 100 < keys * SHRUNK_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_as_the_server_tells() {
        let text = "# Commandstats\r\ncmdstat_flushall:calls=3,usec=9\r\ncmdstat_flushdb:calls=1,usec=1\r\ncmdstat_xack:calls=7,usec=1\r\n";
        let counted = counts(Some(&Info::of(text.as_bytes())), None);
        assert_eq!((counted.whole, counted.groups), (Some(4), 7));
        // INFO without this section, as some have it.
        assert_eq!(counts(Some(&Info::of(b"")), None).whole, None);
    }

    #[test]
    fn a_replica_follows_while_it_hears_from_its_master() {
        let says = |text: &str| follows(&Info::of(text.as_bytes()));
        assert_eq!(says("role:slave\r\nmaster_link_status:up\r\n"), Some(true));
        assert_eq!(
            says("role:slave\r\nmaster_link_status:down\r\n"),
            Some(false)
        );
        // It was promoted: whoever writes to the old master writes past it.
        assert_eq!(says("role:master\r\n"), Some(false));
        assert_eq!(says(""), None);
    }

    #[test]
    fn databases_that_lose_most_of_their_keys() {
        assert!(has_shrunk(&[(0, 1000), (3, 200)], &[(0, 999)]));
        assert!(has_shrunk(&[(0, 1000)], &[(0, 10)]));
        assert!(!has_shrunk(&[(0, 1000), (1, 5)], &[(0, 900)]));
    }
}
