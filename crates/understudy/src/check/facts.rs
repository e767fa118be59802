//! What is asked of a server before anything is judged. Nothing of it changes anything there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use resp::Value;

use super::provider::{Provider, provider};
use crate::client::{Client, Info};
use crate::clock::{now_ms, time_ms};
use crate::compare::End;
use crate::config::Endpoint;
use crate::error::{Side, SyncError};

/// A reply that is longer is not read.
pub(super) const REPLY_BYTES_MAX: u64 = 32 << 20;
/// Times that PING is sent.
const PINGS: usize = 30;
/// Bytes of a PING that measures how fast bytes go.
const LOAD_BYTES: usize = 1 << 20;
/// Times that it is sent.
const LOADS: u32 = 4;

/// Parameters that are asked for.
const PARAMETERS: [&str; 15] = [
    "databases",
    "maxmemory",
    "maxmemory-policy",
    "repl-backlog-size",
    "repl-backlog-ttl",
    "client-output-buffer-limit",
    "notify-keyspace-events",
    "repl-timeout",
    "repl-diskless-sync-delay",
    "repl-diskless-sync",
    "dual-channel-replication-enabled",
    "repl-rdb-channel",
    "maxclients",
    "min-replicas-to-write",
    "proto-max-bulk-len",
];

/// What is known of a server.
pub(super) struct Server {
    pub(super) end: End,
    pub(super) provider: Provider,
    pub(super) info: Info,
    pub(super) commandstats: Info,
    /// None where CONFIG is refused.
    pub(super) parameters: Option<BTreeMap<String, String>>,
    /// Names in lower case; none where COMMAND is refused.
    pub(super) commands: Option<BTreeSet<String>>,
    pub(super) modules: Option<Vec<String>>,
    /// Libraries of functions; none where there are none to ask for.
    pub(super) libraries: Option<usize>,
    pub(super) sentinels: Option<i64>,
    /// How far its clock is ahead of ours, and how sure that is.
    pub(super) clock_ms: Option<(i64, i64)>,
    pub(super) rtt: Rtt,
    /// Bytes a second, to and fro.
    pub(super) bytes_per_second: Option<f64>,
}

/// Round trips, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rtt {
    pub(super) min_us: u64,
    pub(super) p50_us: u64,
    pub(super) max_us: u64,
}

impl Server {
    /// Asks everything.
    ///
    /// # Errors
    /// Where it cannot be reached, or does not let us in.
    pub(super) async fn look(endpoint: &Endpoint, side: Side) -> Result<Self, SyncError> {
        // The one error that says why it cannot be reached, at once.
        drop(Client::connect(endpoint, side).await?);
        let mut end = End::connect(endpoint, side, REPLY_BYTES_MAX).await?;
        let info = text_of(end.one(0, &[b"INFO"]).await?);
        let commandstats = text_of(end.one(0, &[b"INFO", b"commandstats"]).await?);
        let clock_ms = clock(&mut end).await?;
        let rtt = round_trips(&mut end).await?;
        Ok(Self {
            provider: provider(endpoint.host(), &info),
            parameters: parameters(&mut end).await?,
            commands: commands(&mut end).await?,
            modules: modules(&mut end).await?,
            libraries: libraries(&mut end).await?,
            sentinels: sentinels(&mut end).await?,
            bytes_per_second: load(&mut end).await?,
            info,
            commandstats,
            clock_ms,
            rtt,
            end,
        })
    }

    /// A number of INFO.
    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.info.get(field)?.trim().parse().ok()
    }

    /// A parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        Some(self.parameters.as_ref()?.get(name)?.as_str())
    }

    /// A parameter that is a number.
    pub(super) fn parameter_number(&self, name: &str) -> Option<u64> {
        self.parameter(name)?.parse().ok()
    }

    /// How it is called in the report.
    pub(super) fn name(&self) -> String {
        let by = match self.provider {
            Provider::Own => String::new(),
            provider => format!(" ({})", provider.name()),
        };
        format!("{} at {}{by}", self.end.name(), self.end.endpoint.address)
    }
}

fn text_of(reply: Value) -> Info {
    match reply {
        Value::Bulk(text) | Value::Verbatim { text, .. } => Info::of(&text),
        _ => Info::of(b""),
    }
}

fn text(value: &Value) -> Option<String> {
    let bytes = value.as_bytes()?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

async fn parameters(end: &mut End) -> Result<Option<BTreeMap<String, String>>, SyncError> {
    let commands: Vec<Vec<&[u8]>> = PARAMETERS
        .iter()
        .map(|name| vec![&b"CONFIG"[..], b"GET", name.as_bytes()])
        .collect();
    let mut found = BTreeMap::new();
    for reply in end.ask(0, &commands).await? {
        let Value::Array(words) = reply else { continue };
        for pair in words.chunks_exact(2) {
            if let [name, value] = pair
                && let (Some(name), Some(value)) = (text(name), text(value))
            {
                found.insert(name, value);
            }
        }
    }
    Ok((!found.is_empty()).then_some(found))
}

async fn commands(end: &mut End) -> Result<Option<BTreeSet<String>>, SyncError> {
    let Value::Array(rows) = end.one(0, &[b"COMMAND"]).await? else {
        return Ok(None);
    };
    let name = |row: &Value| match row {
        Value::Array(facts) => Some(text(facts.first()?)?.to_ascii_lowercase()),
        _ => None,
    };
    let names: BTreeSet<String> = rows.iter().filter_map(name).collect();
    Ok((!names.is_empty()).then_some(names))
}

async fn modules(end: &mut End) -> Result<Option<Vec<String>>, SyncError> {
    let Value::Array(rows) = end.one(0, &[b"MODULE", b"LIST"]).await? else {
        return Ok(None);
    };
    let name = |row: &Value| match row {
        Value::Array(words) => text(words.get(1)?),
        _ => None,
    };
    Ok(Some(rows.iter().filter_map(name).collect()))
}

async fn libraries(end: &mut End) -> Result<Option<usize>, SyncError> {
    match end.one(0, &[b"FUNCTION", b"LIST"]).await? {
        Value::Array(rows) => Ok(Some(rows.len())),
        _ => Ok(None),
    }
}

/// Sentinels listen to one another through the servers that they watch.
async fn sentinels(end: &mut End) -> Result<Option<i64>, SyncError> {
    let argv: [&[u8]; 3] = [b"PUBSUB", b"NUMSUB", b"__sentinel__:hello"];
    match end.one(0, &argv).await? {
        Value::Array(words) => match words.get(1) {
            Some(Value::Int(count)) => Ok(Some(*count)),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

async fn clock(end: &mut End) -> Result<Option<(i64, i64)>, SyncError> {
    let (asked, at_ms) = (Instant::now(), now_ms());
    let reply = end.one(0, &[b"TIME"]).await?;
    let half_ms = i64::try_from(asked.elapsed().as_millis() / 2).unwrap_or(i64::MAX);
    Ok(time_ms(&reply).map(|server_ms| (server_ms - at_ms - half_ms, half_ms + 1)))
}

async fn round_trips(end: &mut End) -> Result<Rtt, SyncError> {
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let from = Instant::now();
        end.one(0, &[b"PING"]).await?;
        times.push(u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    let at = |place: usize| times.get(place).copied().unwrap_or(0);
    Ok(Rtt {
        min_us: at(0),
        p50_us: at(PINGS / 2),
        max_us: at(PINGS - 1),
    })
}

/// PING gives back what it is given (2.8 does not: then nothing is known).
async fn load(end: &mut End) -> Result<Option<f64>, SyncError> {
    let load = vec![b'u'; LOAD_BYTES];
    let (mut total, mut bytes) = (Duration::ZERO, 0);
    for _ in 0..LOADS {
        let from = Instant::now();
        match end.one(0, &[b"PING", &load]).await? {
            Value::Bulk(back) if back.len() == LOAD_BYTES => {}
            _ => return Ok(None),
        }
        total += from.elapsed();
        // There and back, one after the other.
        bytes += 2 * LOAD_BYTES;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let bytes = bytes as f64;
    Ok(Some(bytes / total.as_secs_f64().max(1e-6)))
}
