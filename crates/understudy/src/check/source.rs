//! The source: what it is, and whether it bears another replica.

use std::time::Duration;

use resp::Value;

use super::facts::Server;
use super::finding::{Finding, fail, pass, unknown, warn};
use super::line::Estimate;
use super::provider::Provider;
use crate::client::Client;
use crate::config::{Config, ScanWhen, human_bytes};
use crate::error::{Side, SyncError};
use crate::scan::{self, missing_events};
use crate::source::offers_rdb_channel;

/// An outage of the line that is to be survived without a new snapshot.
const OUTAGE_SECONDS: f64 = 600.0;
/// So long PSUBSCRIBE may take to be answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What ElastiCache gives a replica's output buffer, out of maxmemory; it cannot be changed there.
const ELASTICACHE_BUFFER_SHARE: u64 = 10;

/// Whether it is a server to follow.
pub(super) fn role(source: &Server, as_cluster: bool) -> Vec<Finding> {
    const CHECK: &str = "source";
    let name = source.name();
    match source.info.mode() {
        Some("sentinel") => {
            return vec![fail(
                CHECK,
                format!("{name} is a Sentinel"),
                "give the address of the master that it watches",
            )];
        }
        Some("cluster") if as_cluster => {
            return vec![pass(
                CHECK,
                format!(
                    "{name} is a node of a cluster, all of which is followed; what is said below of the source is of this node"
                ),
            )];
        }
        _ if as_cluster => {
            return vec![fail(
                CHECK,
                format!("{name} is not a node of a cluster"),
                "set sync_reader.cluster = false",
            )];
        }
        Some("cluster") => {
            return vec![warn(
                CHECK,
                format!("{name} is a node of a cluster: only the slots of this one node are read"),
                "set sync_reader.cluster = true: all shards are followed, and slots that move",
            )];
        }
        _ => {}
    }
    if source.info.get("role") == Some("slave") {
        let master = source.info.get("master_host").unwrap_or("?");
        if source.info.get("master_link_status") != Some("up") {
            return vec![fail(
                CHECK,
                format!("{name} is a replica of {master} and has lost it"),
                "mend that link, or give the address of the master",
            )];
        }
        return vec![pass(CHECK, format!("{name}, a replica of {master}"))];
    }
    vec![pass(CHECK, name)]
}

/// Whether it can make the snapshot: the last one, and memory for the fork.
pub(super) fn fork(source: &Server) -> Vec<Finding> {
    const CHECK: &str = "fork";
    let mut found = Vec::new();
    if source.info.get("rdb_last_bgsave_status") == Some("err") {
        found.push(fail(
            CHECK,
            "the last BGSAVE of the source failed, and PSYNC begins with one",
            "see its log; mostly it is memory (sysctl vm.overcommit_memory=1) or a full disk (then repl-diskless-sync yes)",
        ));
    }
    if source.number("rdb_bgsave_in_progress") == Some(1) {
        found.push(warn(
            CHECK,
            "the source is saving right now: the snapshot begins behind that",
            "wait for it, or start at a quieter time",
        ));
    }
    let (Some(used), Some(total)) = (
        source
            .number("used_memory_rss")
            .or(source.number("used_memory")),
        source.number("total_system_memory"),
    ) else {
        found.push(unknown(
            CHECK,
            "the source does not tell how much memory its machine has",
            "see to it that a quarter of the data's size is free",
        ));
        return found;
    };
    let free = total.saturating_sub(used);
    let share = used / 4;
    let what = format!(
        "{} in use of {}: {} for pages that are written during the snapshot",
        human_bytes(used),
        human_bytes(total),
        human_bytes(free)
    );
    if free < share {
        found.push(warn(
            CHECK,
            what,
            "a quarter of what is in use should be free: take the snapshot at a quiet time, or from a replica of the source",
        ));
    } else if found.is_empty() {
        found.push(pass(CHECK, what));
    }
    found
}

/// Whether a source that refuses PSYNC is read by SCAN.
pub(super) fn falls_back(config: &Config) -> bool {
    config.scan.when == ScanWhen::PsyncRefused
}

/// Whether keyspace events are sent, and may be listened to, where the source is followed by them.
///
/// # Errors
/// Those of the connection.
pub(super) async fn events(source: &Server, config: &Config) -> Result<Vec<Finding>, SyncError> {
    const CHECK: &str = "source_events";
    if !config.scan.follows() {
        return Ok(Vec::new());
    }
    let mend = source.provider.set_events();
    let mut found = Vec::new();
    // A replica has a setting of its own.
    let endpoint = scan::reads_from(config).await?;
    let is_replica = endpoint.address != config.source.endpoint.address;
    let mut client = Client::connect(&endpoint, Side::Source).await?;
    let asked: [&[u8]; 3] = [b"CONFIG", b"GET", b"notify-keyspace-events"];
    let flags = match client.ask(&asked).await? {
        Value::Array(pair) => pair
            .get(1)
            .and_then(Value::as_bytes)
            .map(|flags| String::from_utf8_lossy(flags).into_owned()),
        _ => None,
    };
    let who = match is_replica {
        true => format!("the replica that would be read ({})", endpoint.address),
        false => "the source".to_owned(),
    };
    found.push(match flags {
        None => unknown(
            CHECK,
            format!("{who} does not tell its notify-keyspace-events, without \"KEA\" in which changes are found by sweeps alone"),
            mend,
        ),
        Some(flags) => match missing_events(&flags).as_str() {
            "" => pass(CHECK, format!("{who} sends keyspace events")),
            missing => warn(
                CHECK,
                format!(
                    "notify-keyspace-events of {who} is {flags:?}, without {missing}: changes would be found by sweeps alone"
                ),
                mend,
            ),
        },
    });
    // Listening to nothing tells whether listening is allowed.
    let asked: [&[u8]; 2] = [b"PSUBSCRIBE", b"__keyevent@*__:understudy-check"];
    match tokio::time::timeout(ANSWER_TIMEOUT, client.ask(&asked)).await {
        Ok(Ok(Value::Error(error))) => found.push(warn(
            "source_subscribe",
            format!(
                "{who} refuses PSUBSCRIBE ({}): changes would be found by sweeps alone",
                String::from_utf8_lossy(&error.text)
            ),
            "ACL SETUSER <user> +psubscribe +ping allchannels",
        )),
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => found.push(warn(
            "source_subscribe",
            format!("{who} does not answer PSUBSCRIBE: changes would be found by sweeps alone"),
            "if a proxy stands in between, give the server's own address",
        )),
    }
    Ok(found)
}

/// The backlog: how long the line may be down before a new snapshot is needed.
pub(super) fn backlog(source: &Server, estimate: &Estimate) -> Finding {
    const CHECK: &str = "backlog";
    let size = source
        .parameter_number("repl-backlog-size")
        .or(source.number("repl_backlog_size"));
    let Some(size) = size else {
        return unknown(
            CHECK,
            "the source does not tell the size of its backlog",
            "see that it holds what is written in ten minutes",
        );
    };
    let rate = estimate.write_rate;
    let wanted = size_for(rate * OUTAGE_SECONDS).max(64 << 20);
    let mend = source
        .provider
        .set("repl-backlog-size", &wanted.to_string());
    if rate < 1.0 {
        return match size < 64 << 20 {
            true => warn(
                CHECK,
                format!(
                    "{}, and nothing is written now; that is little once something is",
                    human_bytes(size)
                ),
                mend,
            ),
            false => pass(
                CHECK,
                format!("{}, and nothing is written now", human_bytes(size)),
            ),
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = size as f64 / rate;
    let what = format!(
        "{} at {}/s of writes: a line that is down for {seconds:.0} s costs a new snapshot",
        human_bytes(size),
        human_bytes(whole(rate))
    );
    match seconds < OUTAGE_SECONDS {
        true => warn(CHECK, what, mend),
        false => pass(CHECK, what),
    }
}

/// The settings by which a source sends the snapshot on a connection of its own: Valkey's and Redis's.
const OF_TWO_CONNECTIONS: [&str; 2] = ["dual-channel-replication-enabled", "repl-rdb-channel"];

/// Whether the source drops us while the snapshot is on its way.
pub(super) fn output_buffer(source: &Server, estimate: &Estimate, config: &Config) -> Finding {
    const CHECK: &str = "output_buffer";
    let is_on = |name: &str| source.parameter(name) == Some("yes");
    let offers = offers_rdb_channel(&config.source, 0);
    let own = OF_TWO_CONNECTIONS
        .into_iter()
        .find(|name| source.parameter(name).is_some());
    if offers && own.is_some_and(is_on) && is_on("repl-diskless-sync") {
        let what = "the snapshot comes on a connection of its own: what is written meanwhile waits in the spool, not at the source";
        return pass(CHECK, what);
    }
    let limits = source
        .parameter("client-output-buffer-limit")
        .and_then(buffer_of);
    let is_fixed = matches!(source.provider, Provider::ElastiCache);
    let limits = match limits {
        Some(limits) => limits,
        None if is_fixed => {
            let most = source.number("maxmemory").unwrap_or(0) / ELASTICACHE_BUFFER_SHARE;
            (most, most, 60)
        }
        None => {
            return unknown(
                CHECK,
                "the source does not tell its client-output-buffer-limit",
                "it should be 1.5 times what is written while the snapshot is sent",
            );
        }
    };
    let seconds = estimate.transfer_seconds;
    let need = estimate.write_rate * seconds;
    let what = format!(
        "{} are written in the {seconds:.0} s of the snapshot; the source keeps {} for a replica",
        human_bytes(whole(need)),
        buffer_words(limits)
    );
    let (hard, soft, soft_seconds) = limits;
    let wanted = size_for(need * 1.5).max(256 << 20);
    let mend = match is_fixed {
        true => "it cannot be changed at ElastiCache: take the snapshot at a quieter time, or from a larger node".to_owned(),
        false => source.provider.set(
            "client-output-buffer-limit",
            &format!("replica {wanted} 0 0"),
        ),
    };
    let mend = match own.filter(|_| offers) {
        Some(name) => {
            format!("{mend}; or {name} yes and repl-diskless-sync yes: then it waits in the spool")
        }
        None => mend,
    };
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let (hard, soft, soft_seconds) = (hard as f64, soft as f64, soft_seconds as f64);
    let time_above_soft = seconds - soft / estimate.write_rate.max(1.0);
    let is_dropped = (hard > 0.0 && need > hard) || (soft > 0.0 && time_above_soft > soft_seconds);
    let is_close = hard > 0.0 && need * 1.5 > hard;
    match (is_dropped, is_close) {
        (true, _) => fail(
            CHECK,
            format!("{what}: it would drop us, and the next snapshot too"),
            mend,
        ),
        (_, true) => warn(CHECK, what, mend),
        _ => pass(CHECK, what),
    }
}

/// `normal 0 0 0 replica 268435456 67108864 60 pubsub ..`: hard and soft limit and its seconds of a replica.
fn buffer_of(text: &str) -> Option<(u64, u64, u64)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| *word == "slave" || *word == "replica")?;
    let number = |offset: usize| words.get(at + offset)?.parse().ok();
    Some((number(1)?, number(2)?, number(3)?))
}

fn buffer_words((hard, soft, seconds): (u64, u64, u64)) -> String {
    let word = |bytes: u64| match bytes {
        0 => "any amount".to_owned(),
        bytes => human_bytes(bytes),
    };
    match soft {
        0 => word(hard),
        soft => format!(
            "{}, and more than {} for {seconds} s",
            word(hard),
            word(soft)
        ),
    }
}

/// A power of two of mebibytes that holds so much.
fn size_for(bytes: f64) -> u64 {
    whole(bytes).div_ceil(1 << 20).next_power_of_two() << 20
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate that is not negative"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// Timeouts and the life of the backlog.
pub(super) fn timeouts(source: &Server) -> Vec<Finding> {
    const CHECK: &str = "timeouts";
    let mut found = Vec::new();
    if let Some(seconds) = source.parameter_number("repl-timeout")
        && seconds < 30
    {
        found.push(warn(
            CHECK,
            format!("repl-timeout is {seconds} s: a short pause of a line or of this machine loses the link"),
            source.provider.set("repl-timeout", "60"),
        ));
    }
    let replicas = source.number("connected_slaves").unwrap_or(0);
    if let Some(seconds) = source.parameter_number("repl-backlog-ttl")
        && seconds > 0
        && seconds < 3600
        && replicas == 0
    {
        found.push(warn(
            CHECK,
            format!("repl-backlog-ttl is {seconds} s and there is no other replica: an outage longer than that costs a new snapshot"),
            source.provider.set("repl-backlog-ttl", "0"),
        ));
    }
    if found.is_empty() {
        found.push(pass(CHECK, "nothing that would lose the link early"));
    }
    found
}

/// Sentinels that may move the source.
pub(super) fn sentinels(source: &Server) -> Finding {
    const CHECK: &str = "sentinel";
    match source.sentinels {
        None => unknown(
            CHECK,
            "the source does not tell whether Sentinels watch it",
            "",
        ),
        Some(0) => pass(CHECK, "no Sentinel watches the source"),
        Some(count) => warn(
            CHECK,
            format!("{count} Sentinels watch the source: a failover moves its address"),
            "give an address that follows the master (a DNS name, a proxy); the link goes on with the new master by PSYNC. We announce no port, so Sentinel does not take us for one of its replicas",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replicas_line_of_the_buffers() {
        let text = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(buffer_of(text), Some((268_435_456, 67_108_864, 60)));
        assert_eq!(buffer_of("normal 0 0 0 replica 1 2 3"), Some((1, 2, 3)));
        assert_eq!(buffer_of("normal 0 0 0"), None);
        assert_eq!(buffer_words((0, 0, 0)), "any amount");
    }

    #[test]
    fn sizes_are_round() {
        assert_eq!(size_for(1.0), 1 << 20);
        assert_eq!(size_for(3.0 * 1024.0 * 1024.0), 4 << 20);
    }
}
