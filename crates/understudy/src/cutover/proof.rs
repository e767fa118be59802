//! The proof under the fence: the link has stopped at the very offset of the source, and nothing else has moved.

use std::cell::Cell;
use std::time::Duration;

use resp::Value;

use super::daemon::Daemon;
use super::fence::position;
use crate::checkpoint::{self, Checkpoint, Phase};
use crate::client::Client;
use crate::clock::unix_ms;
use crate::config::{Config, Endpoint};
use crate::error::{Side, SyncError};
use crate::handover::Stage;
use crate::handover::mark::{self, Record};

/// The source's own commands (pings, the ends of keys) may move its offset between two looks; so often it is tried.
const TRIES: u32 = 50;
const SOON: Duration = Duration::from_millis(3);
/// Of `EXEC` in a stream.
const EXEC_BYTES: u64 = b"*1\r\n$4\r\nEXEC\r\n".len() as u64;
/// It comes at once, if it comes.
const EXEC_LIMIT: Duration = Duration::from_millis(500);

/// Where source and target are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) replid: String,
    pub(super) offset: u64,
    /// The target's checkpoint, as it is there; none in a cluster, where each slot has its own.
    checkpoint: Option<Vec<u8>>,
}

/// Stops the link where the source is: at `at`, or where it stands now.
///
/// # Errors
/// A sentence.
pub(super) async fn stop_at(
    config: &Config,
    daemon: &Daemon,
    source: &Endpoint,
    at: Option<(String, u64)>,
    held: &Cell<Option<u64>>,
) -> Result<Proof, String> {
    let words = |error: SyncError| error.to_string();
    if let Some((replid, offset)) = at {
        // Nothing more can be asked of the source.
        let offset = behind_exec(daemon, offset).await?;
        held.set(Some(offset));
        return match close(daemon, offset).await? {
            true => proof(config, &replid, offset).await,
            false => Err("the link is beyond the source's offset".to_owned()),
        };
    }
    let mut client = Client::connect(source, Side::Source).await.map_err(words)?;
    let mut why = String::new();
    for _ in 0..TRIES {
        let (replid, offset) = asked(&mut client).await?;
        // Whoever says again that a hold is wanted says it of this one.
        held.set(Some(offset));
        if !close(daemon, offset).await? {
            "the source's offset goes on".clone_into(&mut why);
            continue;
        }
        let proof = proof(config, &replid, offset).await?;
        let (same, now) = asked(&mut client).await?;
        if same != replid {
            return Err("the source has begun another history".to_owned());
        }
        if now == offset {
            return Ok(proof);
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
    held: &Cell<Option<u64>>,
) -> Result<(Proof, String), String> {
    // No other hold has this number.
    let hold = unix_ms();
    held.set(Some(hold));
    daemon.close(hold).await?;
    let told = loop {
        let told = daemon.status().await?;
        if let Some(trouble) = told.cutover()["trouble"].as_str() {
            return Err(trouble.to_owned());
        }
        match told.stage() {
            Some(Stage::Closed) if told.cutover()["offset"] == hold => break told,
            Some(Stage::Closing | Stage::Closed) => tokio::time::sleep(SOON * 10).await,
            _ => return Err("sync has not kept to the hold: was it started anew?".to_owned()),
        }
    };
    let connected = mark::connect(&config.target, &config.link_name).await;
    let mut client = connected.map_err(|error| error.to_string())?;
    let value = checkpoint_at(&mut client, config).await?;
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
    let proof = Proof {
        replid: at.run_id.to_string(),
        offset: hold,
        checkpoint: Some(value),
    };
    Ok((proof, text))
}

async fn asked(source: &mut Client) -> Result<(String, u64), String> {
    let info = source.info("replication").await;
    let info = info.map_err(|error| error.to_string())?;
    position(&info).ok_or("the source does not tell its offset".to_owned())
}

/// Waits until the link has stopped at `offset`; false if it was beyond already.
async fn close(daemon: &Daemon, offset: u64) -> Result<bool, String> {
    daemon.close(offset).await?;
    loop {
        let told = daemon.status().await?;
        match told.stage() {
            Some(Stage::Closed) if told.cutover()["offset"] == offset => return Ok(true),
            Some(Stage::Closing | Stage::Closed) => tokio::time::sleep(SOON).await,
            Some(Stage::Fenced) if told.cutover()["passed"] == true => return Ok(false),
            _ => return Err("sync has not kept to the hold: was it started anew?".to_owned()),
        }
    }
}

/// The target's own word: its checkpoint says that offset of that history.
async fn proof(config: &Config, replid: &str, offset: u64) -> Result<Proof, String> {
    if config.target.cluster.is_some() {
        return Ok(Proof {
            replid: replid.to_owned(),
            offset,
            checkpoint: None,
        });
    }
    let connected = mark::connect(&config.target, &config.link_name).await;
    let mut client = connected.map_err(|error| error.to_string())?;
    let value = checkpoint_at(&mut client, config).await?;
    let found = Checkpoint::parse(&value)?;
    let Phase::Stream(at) = found.phase else {
        return Err("the target's checkpoint is not one of the stream".to_owned());
    };
    if at.replid.to_string() != replid || at.offset.0 != offset {
        return Err(format!(
            "the target's checkpoint says {} of {}, the source {offset} of {replid}",
            at.offset.0, at.replid
        ));
    }
    if !found.repairs.is_empty() {
        return Err("keys of the target are under repair".to_owned());
    }
    Ok(Proof {
        replid: replid.to_owned(),
        offset,
        checkpoint: Some(value),
    })
}

async fn checkpoint_at(client: &mut Client, config: &Config) -> Result<Vec<u8>, String> {
    let key = checkpoint::key(&config.link_name);
    match client.call(&[b"GET", key.as_bytes()]).await {
        Ok(Value::Bulk(value)) => Ok(value.to_vec()),
        Ok(_) => Err("the target has no checkpoint of this link".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes the switch: the record says so, in one transaction with the checkpoint that was proved. The link, which watches that,
/// cannot write any more after it.
///
/// # Errors
/// A sentence. Whether the switch was made is for the record to tell then.
pub(super) async fn make(config: &Config, proof: &Proof, record: &Record) -> Result<(), String> {
    let words = |error: SyncError| error.to_string();
    let mut client = mark::connect(&config.target, &config.link_name)
        .await
        .map_err(words)?;
    let (key, record_key) = (
        checkpoint::key(&config.link_name),
        mark::key(&config.link_name),
    );
    client
        .call(&[b"WATCH", key.as_bytes(), record_key.as_bytes()])
        .await
        .map_err(words)?;
    let there = mark::get(&mut client, &config.link_name).await;
    if there
        .map_err(words)?
        .is_none_or(|there| there.stage != "fenced")
    {
        return Err("the cutover was taken back meanwhile".to_owned());
    }
    let value = checkpoint_at(&mut client, config).await?;
    if proof
        .checkpoint
        .as_ref()
        .is_some_and(|proved| *proved != value)
    {
        return Err("the target's checkpoint has changed since it was proved".to_owned());
    }
    let text = record.text();
    let commands: [Vec<&[u8]>; 4] = [
        vec![b"MULTI"],
        vec![b"SET", key.as_bytes(), &value],
        vec![b"SET", record_key.as_bytes(), text.as_bytes()],
        vec![b"EXEC"],
    ];
    let replies = client.ask_all(&commands).await.map_err(words)?;
    match replies.last() {
        Some(Value::Array(_)) => Ok(()),
        Some(Value::Null) => {
            Err("the target's checkpoint has changed since it was proved".to_owned())
        }
        Some(Value::Error(error)) => Err(format!(
            "the target has refused the switch: {}",
            String::from_utf8_lossy(&error.text)
        )),
        _ => Err("EXEC answered something that a Redis would not say".to_owned()),
    }
}

impl Proof {
    /// What a record tells of it.
    pub(super) fn of(record: &Record) -> Self {
        Self {
            replid: record.replid.clone(),
            offset: record.offset,
            checkpoint: None,
        }
    }
}
