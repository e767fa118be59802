//! The proof under the fence: the link has stopped at the very offset of the source, and nothing else has moved.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use resp::Value;
use serde_json::json;

use super::daemon::{Daemon, Holds};
use super::fence::{self, position};
use super::shards;
use crate::checkpoint::{self, Checkpoint, Phase};
use crate::client::Client;
use crate::clock::unix_ms;
use crate::config::{Config, Endpoint};
use crate::error::{Side, SyncError};
use crate::handover::Stage;
use crate::handover::mark::{self, Place, Record};
use crate::shard;
use crate::target::cluster;

/// The source's own commands (pings, the ends of keys) may move its offset between two looks; so often it is tried.
const TRIES: u32 = 50;
const SOON: Duration = Duration::from_millis(3);
/// Of `EXEC` in a stream.
const EXEC_BYTES: u64 = b"*1\r\n$4\r\nEXEC\r\n".len() as u64;
/// It comes at once, if it comes.
const EXEC_LIMIT: Duration = Duration::from_millis(500);

/// Where source and target are the same: of each link of a source cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Proof {
    pub(super) parts: Vec<Part>,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) link: String,
    /// The address of its source.
    pub(super) source: String,
    pub(super) replid: String,
    pub(super) offset: u64,
    /// The target's checkpoint, as it is there; none in a cluster, where each slot has its own.
    checkpoint: Option<Vec<u8>>,
}

/// Stops each link where its source is.
///
/// # Errors
/// A sentence.
pub(super) async fn stop_all(
    config: &Config,
    daemon: &Daemon,
    holds: &RefCell<Holds>,
) -> Result<Proof, String> {
    let mut parts = Vec::new();
    for told in daemon.links().await? {
        let source = shards::source_of(config, &told);
        let source = Endpoint {
            address: source.address,
            ..fence::endpoint(config)
        };
        let part = stop_at(config, daemon, told.name(), &source, None, holds).await;
        let named = |why| format!("{}: {why}", told.name());
        parts.push(part.map_err(named)?);
    }
    Ok(Proof { parts })
}

/// Stops the link where the source is: at `at`, or where it stands now.
///
/// # Errors
/// A sentence.
pub(super) async fn stop_at(
    config: &Config,
    daemon: &Daemon,
    link: &str,
    source: &Endpoint,
    at: Option<(String, u64)>,
    holds: &RefCell<Holds>,
) -> Result<Part, String> {
    let words = |error: SyncError| error.to_string();
    let part = |replid: &str, offset, checkpoint| Part {
        link: link.to_owned(),
        source: source.address.clone(),
        replid: replid.to_owned(),
        offset,
        checkpoint,
    };
    if let Some((replid, offset)) = at {
        // Nothing more can be asked of the source.
        let offset = behind_exec(daemon, offset).await?;
        hold(holds, link, offset);
        return match close(daemon, link, offset).await? {
            true => {
                let checkpoint = proof(config, daemon, link, &replid, offset).await?;
                Ok(part(&replid, offset, checkpoint))
            }
            false => Err("the link is beyond the source's offset".to_owned()),
        };
    }
    let mut client = Client::connect(source, Side::Source).await.map_err(words)?;
    let mut why = String::new();
    for _ in 0..TRIES {
        let (replid, offset) = asked(&mut client).await?;
        // Whoever says again that a hold is wanted says it of this one.
        hold(holds, link, offset);
        if !close(daemon, link, offset).await? {
            "the source's offset goes on".clone_into(&mut why);
            continue;
        }
        let checkpoint = proof(config, daemon, link, &replid, offset).await?;
        let (same, now) = asked(&mut client).await?;
        if same != replid {
            return Err("the source has begun another history".to_owned());
        }
        if now == offset {
            return Ok(part(&replid, offset, checkpoint));
        }
        why = format!(
            "the source's offset goes on ({} bytes meanwhile)",
            now - offset
        );
    }
    Err(format!(
        "{why}: somebody writes there past the fence, or it ends keys all the time (CLIENT PAUSE holds those back too)"
    ))
}

/// From here on the link is held there.
fn hold(holds: &RefCell<Holds>, link: &str, offset: u64) {
    let mut holds = holds.borrow_mut();
    holds.retain(|(held, _)| held != link);
    holds.push((link.to_owned(), offset));
}

/// Where a source before 6.2 stands that was asked within a transaction: it may put MULTI and EXEC around the question into
/// its stream, and tells the place before EXEC. Nothing else can follow: all its clients are paused.
async fn behind_exec(daemon: &Daemon, told: u64) -> Result<u64, String> {
    let behind = told + EXEC_BYTES;
    let from = tokio::time::Instant::now();
    while from.elapsed() < EXEC_LIMIT {
        if daemon.status().await?.number("source_offset") >= behind {
            return Ok(behind);
        }
        tokio::time::sleep(SOON).await;
    }
    Ok(told)
}

/// Where the source is read by SCAN: waits until a pass under the fence has found no difference, and nothing more is put at
/// the target.
///
/// # Errors
/// A sentence.
pub(super) async fn stop_scan(
    config: &Config,
    daemon: &Daemon,
    holds: &RefCell<Holds>,
) -> Result<(Proof, String), String> {
    let link = &config.link_name;
    // No other hold has this number.
    let ticket = unix_ms();
    hold(holds, link, ticket);
    daemon.close(link, ticket).await?;
    let told = loop {
        let told = daemon.status().await?;
        if let Some(trouble) = told.cutover()["trouble"].as_str() {
            return Err(trouble.to_owned());
        }
        match told.stage() {
            Some(Stage::Closed) if told.cutover()["offset"] == ticket => break told,
            Some(Stage::Closing | Stage::Closed) => tokio::time::sleep(SOON * 10).await,
            _ => return Err("sync has not kept to the hold: was it started anew?".to_owned()),
        }
    };
    let connected = mark::connect(&config.target, &config.link_name).await;
    let mut client = connected.map_err(|error| error.to_string())?;
    let value = checkpoint_at(&mut client, link).await?;
    let found = Checkpoint::parse(&value)?;
    let Phase::Scan(at) = found.phase else {
        return Err(
            "the target's checkpoint is not one of a source that is read by SCAN".to_owned(),
        );
    };
    let keys = &told.value("scan")["swept_keys"];
    let besides = match found.owned {
        true => "",
        false => "; keys that only the target has were not looked at: it held keys of its own",
    };
    let text = format!(
        "a pass under the fence over all {keys} keys of the source has found no difference, and no event waits{besides}"
    );
    let part = Part {
        link: link.clone(),
        source: config.source.endpoint.address.clone(),
        replid: at.run_id.to_string(),
        offset: ticket,
        checkpoint: Some(value),
    };
    Ok((Proof { parts: vec![part] }, text))
}

async fn asked(source: &mut Client) -> Result<(String, u64), String> {
    let info = source.info("replication").await;
    let info = info.map_err(|error| error.to_string())?;
    position(&info).ok_or("the source does not tell its offset".to_owned())
}

/// Waits until the link has stopped at `offset`; false if it was beyond already.
async fn close(daemon: &Daemon, link: &str, offset: u64) -> Result<bool, String> {
    daemon.close(link, offset).await?;
    loop {
        let told = daemon.link(link).await?;
        match told.stage() {
            Some(Stage::Closed) if told.cutover()["offset"] == offset => return Ok(true),
            Some(Stage::Closing | Stage::Closed) => tokio::time::sleep(SOON).await,
            Some(Stage::Fenced) if told.cutover()["passed"] == true => return Ok(false),
            _ => return Err("sync has not kept to the hold: was it started anew?".to_owned()),
        }
    }
}

/// The target's own word: its checkpoint says that offset of that history. In a cluster, where it trails, that nobody but the
/// daemon that has stopped there has the link.
async fn proof(
    config: &Config,
    daemon: &Daemon,
    link: &str,
    replid: &str,
    offset: u64,
) -> Result<Option<Vec<u8>>, String> {
    let endpoint = match config.target.cluster {
        None => config.target.endpoint.clone(),
        Some(_) => {
            let located = cluster::locate(&config.target, &checkpoint::key(link)).await;
            located.map_err(|error| error.to_string())?.endpoint
        }
    };
    let connected = Client::connect(&endpoint, Side::Target).await;
    let mut client = connected.map_err(|error| error.to_string())?;
    let value = checkpoint_at(&mut client, link).await?;
    let found = Checkpoint::parse(&value)?;
    let Phase::Stream(at) = found.phase else {
        return Err("the target's checkpoint is not one of the stream".to_owned());
    };
    if config.target.cluster.is_some() {
        let told = daemon.link(link).await?;
        return match told.value("owner") == &format!("{:016x}", found.owner) {
            true => Ok(None),
            false => Err("another understudy has taken the link over".to_owned()),
        };
    }
    if at.replid.to_string() != replid || at.offset.0 != offset {
        return Err(format!(
            "the target's checkpoint says {} of {}, the source {offset} of {replid}",
            at.offset.0, at.replid
        ));
    }
    if !found.repairs.is_empty() {
        return Err("keys of the target are under repair".to_owned());
    }
    Ok(Some(value))
}

async fn checkpoint_at(client: &mut Client, link: &str) -> Result<Vec<u8>, String> {
    let key = checkpoint::key(link);
    match client.call(&[b"GET", key.as_bytes()]).await {
        Ok(Value::Bulk(value)) => Ok(value.to_vec()),
        Ok(_) => Err("the target has no checkpoint of this link".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes the switch: the record says so, in one transaction with the checkpoints that were proved. The links, which watch those,
/// cannot write any more after it. In a cluster, where no transaction covers them, the record alone says it: see `handover::mark`.
///
/// # Errors
/// A sentence. Whether the switch was made is for the record to tell then.
pub(super) async fn make(config: &Config, proof: &Proof, record: &Record) -> Result<(), String> {
    let words = |error: SyncError| error.to_string();
    let mut client = mark::connect(&config.target, &config.link_name)
        .await
        .map_err(words)?;
    let record_key = mark::key(&config.link_name);
    let proved = || {
        let parts = proof.parts.iter();
        parts.filter_map(|part| Some((checkpoint::key(&part.link), part.checkpoint.as_ref()?)))
    };
    let mut keys: Vec<String> = proved().map(|(key, _)| key).collect();
    keys.push(record_key.clone());
    if config.source.cluster && config.target.cluster.is_none() {
        // A link that is not among them would have to claim slots before it writes.
        keys.push(shard::Group::new(config.link_name.clone()).claims_key());
    }
    let mut watch: Vec<&[u8]> = vec![b"WATCH"];
    watch.extend(keys.iter().map(String::as_bytes));
    client.call(&watch).await.map_err(words)?;
    let there = mark::get(&mut client, &config.link_name).await;
    if there
        .map_err(words)?
        .is_none_or(|there| there.stage != "fenced")
    {
        return Err("the cutover was taken back meanwhile".to_owned());
    }
    const CHANGED: &str = "the target's checkpoint has changed since it was proved";
    for part in proof.parts.iter().filter(|part| part.checkpoint.is_some()) {
        let value = checkpoint_at(&mut client, &part.link).await?;
        if part.checkpoint.as_ref() != Some(&value) {
            return Err(CHANGED.to_owned());
        }
    }
    if config.source.cluster && config.target.cluster.is_none() {
        let known: BTreeSet<&str> = proof.parts.iter().map(|part| part.link.as_str()).collect();
        let claimed = shards::claimed(config).await.map_err(words)?;
        if let Some(link) = claimed.iter().find(|link| !known.contains(link.as_str())) {
            return Err(format!("the link {link} has claimed slots meanwhile"));
        }
    }
    let text = record.text();
    let own: Vec<(String, &Vec<u8>)> = proved().collect();
    let mut commands: Vec<Vec<&[u8]>> = vec![vec![b"MULTI"]];
    for (key, value) in &own {
        commands.push(vec![b"SET", key.as_bytes(), value]);
    }
    commands.push(vec![b"SET", record_key.as_bytes(), text.as_bytes()]);
    commands.push(vec![b"EXEC"]);
    let replies = client.ask_all(&commands).await.map_err(words)?;
    match replies.last() {
        Some(Value::Array(_)) => Ok(()),
        Some(Value::Null) => Err(CHANGED.to_owned()),
        Some(Value::Error(error)) => Err(format!(
            "the target has refused the switch: {}",
            String::from_utf8_lossy(&error.text)
        )),
        _ => Err("EXEC answered something that a Redis would not say".to_owned()),
    }
}

impl Proof {
    /// What a record tells of it.
    pub(super) fn of(record: &Record, link: &str) -> Self {
        let part = |(link, place): (String, Place)| Part {
            link,
            source: String::new(),
            replid: place.replid,
            offset: place.offset,
            checkpoint: None,
        };
        let parts: Vec<Part> = match record.links.is_empty() {
            true => record
                .place(link)
                .map(|place| (link.to_owned(), place))
                .map(part)
                .into_iter()
                .collect(),
            false => record.links.clone().into_iter().map(part).collect(),
        };
        Self { parts }
    }

    /// Where each link has stopped.
    pub(super) fn holds(&self) -> Holds {
        let parts = self.parts.iter();
        parts.map(|part| (part.link.clone(), part.offset)).collect()
    }

    /// The only one, where the source is one server.
    pub(super) fn only(&self) -> Option<&Part> {
        match self.parts.as_slice() {
            [part] => Some(part),
            _ => None,
        }
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match self.only() {
            Some(part) => format!(
                "source and target are at offset {} of {}",
                part.offset, part.replid
            ),
            None => format!(
                "all {} links have stopped where their primaries are",
                self.parts.len()
            ),
        }
    }

    /// For programs.
    pub(super) fn facts(&self) -> serde_json::Value {
        if let Some(part) = self.only() {
            return json!({ "source_offset": part.offset, "target_offset": part.offset, "replid": part.replid });
        }
        let each = self.parts.iter();
        let each = each.map(|part| json!({ "link": part.link, "source": part.source, "offset": part.offset, "replid": part.replid }));
        json!({ "links": each.collect::<Vec<_>>() })
    }
}
