//! When it is over: sync is asked to stop, and every key of the link's is removed from the target; if asked for, Sentinels
//! forget us, and the spool goes too.

use std::collections::BTreeMap;
use std::time::Duration;

use resp::Value;
use serde_json::json;
use tokio::time::Instant;

use super::daemon::Daemon;
use super::shards;
use super::steps::Steps;
use crate::checkpoint;
use crate::client::Client;
use crate::config::{Config, Endpoint, SpoolConfig};
use crate::error::{Side, SyncError};
use crate::handover::mark::Record;
use crate::shard::Group;
use crate::spool;
use crate::target::cluster;

/// How long the daemon may take to end, beyond its own limit.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// A service that is started again is there by then.
const RESTARTED: Duration = Duration::from_secs(2);
/// Sentinels say who they are every 2 s.
const HELLO: Duration = Duration::from_millis(2_500);
/// Sentinels need so long to find each other again.
const BETWEEN_RESETS: Duration = Duration::from_secs(1);
const SCAN_COUNT: &[u8] = b"1000";

/// Asks the daemon to stop, and waits until it has.
///
/// # Errors
/// It goes on, or does not listen.
pub(super) async fn stop(
    config: &Config,
    spools: &[SpoolConfig],
    daemon: &Daemon,
) -> Result<String, String> {
    if let Err(why) = daemon.status().await {
        return match are_free(spools) {
            true => Ok("sync does not run".to_owned()),
            false => Err(format!("sync runs, but {why}")),
        };
    }
    if let Err(why) = daemon.stop().await
        && daemon.status().await.is_ok()
    {
        // (One that has ended may not have come to its answer.)
        return Err(why);
    }
    let until = Instant::now() + config.shutdown_timeout + STOP_GRACE;
    loop {
        match daemon.status().await {
            // A supervisor may start it again, and it would take the application's target for a new one.
            Err(_) => {
                tokio::time::sleep(RESTARTED).await;
                if daemon.status().await.is_ok() || !are_free(spools) {
                    let what = "sync was started again, or does not end: keep its service from that first (systemctl disable --now, kubectl scale --replicas=0), and say --finish again";
                    return Err(what.to_owned());
                }
                return Ok("sync has ended".to_owned());
            }
            // One of several links of a process.
            Ok(told) if told.value("phase") == "stopped" => {
                return Ok("the link has ended".to_owned());
            }
            Ok(_) if Instant::now() > until => {
                return Err("sync does not end: send it SIGTERM, and say --finish again".to_owned());
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Whether no process of this machine uses one of the spools.
fn are_free(spools: &[SpoolConfig]) -> bool {
    let mut dirs = spools.iter().map(|spool| &spool.dir);
    dirs.all(|dir| !dir.exists() || spool::lock(dir).is_ok())
}

/// The spools of the links: of a source cluster's those that the record, or the target, tells of.
///
/// # Errors
/// Those of the connection.
pub(super) async fn links(
    config: &Config,
    record: Option<&Record>,
) -> Result<Vec<SpoolConfig>, SyncError> {
    if !config.source.cluster {
        return Ok(vec![config.spool.clone()]);
    }
    let mut links = shards::claimed(config).await?;
    links.extend(
        record
            .into_iter()
            .flat_map(|record| record.links.keys().cloned()),
    );
    let spools = links.iter().map(|link| config.spool.of_link(link));
    Ok(spools.collect())
}

/// Removes the link's keys from every node of the target; gives how many.
///
/// # Errors
/// Those of the connections; what was refused.
pub(super) async fn remove_keys(config: &Config) -> Result<u64, SyncError> {
    let (target, link_name) = (&config.target, &config.link_name);
    let key = checkpoint::key(link_name);
    let mut endpoints = vec![target.endpoint.clone()];
    if target.cluster.is_some() {
        let located = cluster::locate(target, &key).await?;
        let nodes = located.topology.nodes().into_iter();
        let node = |address| Endpoint {
            address,
            ..target.endpoint.clone()
        };
        endpoints = nodes.map(node).collect();
    }
    let group = config.source.cluster.then(|| Group::new(link_name.clone()));
    let is_ours = |found: &[u8]| {
        let of_group = group.as_ref().is_some_and(|group| group.has_key(found));
        of_group || cluster::is_of_link(found, &key, link_name)
    };
    let mut removed = 0;
    for endpoint in &endpoints {
        removed += remove_at(endpoint, &is_ours).await?;
    }
    Ok(removed)
}

async fn remove_at(
    endpoint: &Endpoint,
    is_ours: &impl Fn(&[u8]) -> bool,
) -> Result<u64, SyncError> {
    let mut client = Client::connect(endpoint, Side::Target).await?;
    let (mut ours, mut others) = (Vec::new(), false);
    let temporary = rewrite::TEMPORARY_KEY_PREFIX;
    let mut halves = Vec::new();
    for (db, _) in client.info("keyspace").await?.keyspace() {
        let number = db.to_string();
        client.call(&[b"SELECT", number.as_bytes()]).await?;
        for found in scan(&mut client).await? {
            if found.starts_with(temporary) {
                halves.push((db, found));
            } else if found.starts_with(checkpoint::KEY_PREFIX.as_bytes()) {
                match is_ours(&found) {
                    true => ours.push((db, found)),
                    false => others = true,
                }
            }
        }
    }
    // What is half built may be another link's.
    if !others {
        ours.append(&mut halves);
    }
    for (db, name) in &ours {
        let number = db.to_string();
        client.call(&[b"SELECT", number.as_bytes()]).await?;
        client.call(&[b"DEL", name]).await?;
    }
    Ok(ours.len() as u64)
}

/// Keys of the selected database with our name at the beginning.
async fn scan(client: &mut Client) -> Result<Vec<bytes::Bytes>, SyncError> {
    let mut found = Vec::new();
    let mut cursor = bytes::Bytes::from_static(b"0");
    loop {
        let argv: [&[u8]; 6] = [
            b"SCAN",
            &cursor,
            b"MATCH",
            b"understudy:*",
            b"COUNT",
            SCAN_COUNT,
        ];
        let reply = client.call(&argv).await?;
        let Value::Array(parts) = reply else {
            return Ok(found);
        };
        let mut parts = parts.into_iter();
        let (Some(Value::Bulk(next)), Some(Value::Array(keys))) = (parts.next(), parts.next())
        else {
            return Ok(found);
        };
        found.extend(keys.iter().filter_map(Value::as_bytes).cloned());
        if next.as_ref() == b"0" {
            found.sort();
            found.dedup();
            return Ok(found);
        }
        cursor = next;
    }
}

/// Sentinels that watch the source remember us as a replica that is gone. Tells how they forget, or makes them.
///
/// # Errors
/// Those of the source's connection.
pub(super) async fn sentinels(
    endpoint: &Endpoint,
    resets: bool,
    steps: &Steps,
) -> Result<(), SyncError> {
    let found = heard(endpoint).await?;
    if found.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = found
        .iter()
        .map(|(address, master)| {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            format!("redis-cli -h {host} -p {port} SENTINEL RESET {master}")
        })
        .collect();
    if !resets {
        let text = format!(
            "{} Sentinels watch the source and remember us as a replica: --reset-sentinels, or one after the other, while all is well there:",
            found.len()
        );
        steps.tell("sentinels", true, &text, json!({ "commands": lines }));
        lines.iter().for_each(|line| steps.say(line));
        return Ok(());
    }
    let mut failed = Vec::new();
    for (at, (address, master)) in found.iter().enumerate() {
        if at > 0 {
            tokio::time::sleep(BETWEEN_RESETS).await;
        }
        if let Err(error) = reset(endpoint, address, master).await {
            failed.push(error.to_string());
        }
    }
    let text = match failed.is_empty() {
        true => format!("{} Sentinels have forgotten us", found.len()),
        false => format!("not reset: {}", failed.join("; ")),
    };
    steps.tell(
        "sentinels",
        failed.is_empty(),
        &text,
        json!({ "commands": lines }),
    );
    Ok(())
}

async fn reset(source: &Endpoint, address: &str, master: &str) -> Result<(), SyncError> {
    let endpoint = Endpoint {
        address: address.to_owned(),
        ..source.clone()
    };
    let open = Endpoint {
        auth: crate::config::Auth::NONE,
        ..endpoint.clone()
    };
    let client = match Client::connect_plainly(&open, Side::Source).await {
        Ok(client) => Ok(client),
        // One with a password has the source's, if it is one that we know.
        Err(_) => Client::connect_plainly(&endpoint, Side::Source).await,
    };
    let argv: [&[u8]; 3] = [b"SENTINEL", b"RESET", master.as_bytes()];
    client?.call(&argv).await.map(drop)
}

/// The addresses of Sentinels that watch the source, and what they call it: they say so on a channel there.
async fn heard(endpoint: &Endpoint) -> Result<BTreeMap<String, String>, SyncError> {
    let mut client = Client::connect(endpoint, Side::Source).await?;
    let channel: &[u8] = b"__sentinel__:hello";
    let mut found = BTreeMap::new();
    // A source without Sentinels need not be listened to.
    let count = client.ask(&[b"PUBSUB", b"NUMSUB", channel]).await?;
    let is_watched = match &count {
        Value::Array(words) => words.get(1) != Some(&Value::Int(0)),
        _ => true,
    };
    if !is_watched || matches!(client.ask(&[b"SUBSCRIBE", channel]).await?, Value::Error(_)) {
        return Ok(found);
    }
    let until = Instant::now() + HELLO;
    while let Ok(heard) = tokio::time::timeout_at(until, client.ask_encoded(b"", 1)).await {
        for message in heard? {
            let Value::Array(words) = message else {
                continue;
            };
            let text = words.get(2).and_then(Value::as_bytes);
            let text = text.map(|text| String::from_utf8_lossy(text).into_owned());
            if let Some((address, master)) = text.as_deref().and_then(hello) {
                found.insert(address, master);
            }
        }
    }
    Ok(found)
}

/// `ip,port,runid,epoch,master,masterip,masterport,masterepoch`.
fn hello(text: &str) -> Option<(String, String)> {
    let mut fields = text.split(',');
    let (host, port) = (fields.next()?, fields.next()?);
    port.parse::<u16>().ok()?;
    let master = fields.nth(2)?;
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    Some((format!("{host}:{port}"), master.to_owned()))
}

/// Removes the spool of a link that does not run any more.
///
/// # Errors
/// It runs, or its files cannot be removed.
pub(super) fn remove_spool(spool: &SpoolConfig) -> Result<String, String> {
    let dir = &spool.dir;
    if !dir.exists() {
        return Ok("there is no spool on this machine".to_owned());
    }
    let locked = spool::lock(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    std::fs::remove_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    drop(locked);
    Ok(format!("{} is removed", dir.display()))
}

/// What stays changed at the source, as lines for a terminal.
pub(super) fn left(record: &Record) -> Vec<String> {
    let line = |undo: &crate::handover::mark::Undo| {
        let words = undo
            .command
            .iter()
            .map(|word| match word.contains([' ', '(']) {
                true => format!("'{word}'"),
                false => word.clone(),
            });
        let words = words.collect::<Vec<String>>().join(" ");
        match undo.node.rsplit_once(':') {
            Some((host, port)) => format!("redis-cli -h {host} -p {port} {words}"),
            None => words,
        }
    };
    record.undo.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::mark::Undo;

    #[test]
    fn sentinels_say_where_they_are() {
        let text = "10.0.0.5,26379,abc,0,mymaster,10.0.0.1,6379,0";
        let expected = ("10.0.0.5:26379".to_owned(), "mymaster".to_owned());
        assert_eq!(hello(text), Some(expected));
        assert_eq!(hello("nonsense"), None);
    }

    #[test]
    fn what_is_left_can_be_typed() {
        let mut record = Record {
            undo: vec![Undo {
                what: "user a".to_owned(),
                command: vec!["ACL".to_owned(), "(-@all +get)".to_owned()],
                node: String::new(),
            }],
            ..Record::default()
        };
        assert_eq!(left(&record), ["ACL '(-@all +get)'"]);
        record.undo[0].node = "10.0.0.1:7".to_owned();
        let expected = "redis-cli -h 10.0.0.1 -p 7 ACL '(-@all +get)'";
        assert_eq!(left(&record), [expected]);
    }
}
