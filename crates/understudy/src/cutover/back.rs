//! The way back: where in the new server's stream it begins, and the checkpoint at the old server from which it goes on
//! without a snapshot.
//!
//! At the switch both ends are equal, and nobody but the link writes at the target. A place in the target's stream at that
//! moment is one from which the old server can follow: `understudy sync` finds it there as its own checkpoint, and asks the
//! new server to go on from it.

use std::time::Duration;

use replica::{ReplId, ReplOffset};
use resp::{Value, encode};
use tokio::time::Instant;

use super::fence::position as position_of;
use crate::checkpoint::{self, Checkpoint, Names, Phase, Position};
use crate::client::Client;
use crate::config::{Config, TargetConfig};
use crate::error::{Side, SyncError};
use crate::handover::mark::{self, Back, Record};

/// Between a look at the offset, a write and another look, nobody else may have written; so often it is tried.
const TRIES: u32 = 100;
/// A server begins to keep its stream at once.
const BACKLOG_LIMIT: Duration = Duration::from_secs(5);
/// What the server puts before our write where another database was selected.
const SELECT: &[&[u8]] = &[b"SELECT", b"0"];
/// The owner in a checkpoint that nobody has taken yet.
pub(super) const NOBODY: u64 = 0;

/// Makes the target keep its stream from now on. A server that never had a replica does not: it is asked to begin a
/// replication, of no keys where it can do that (7.0), which is given up at once.
///
/// # Errors
/// Those of the connection; stop where it does not do that.
pub(super) async fn prime(config: &TargetConfig) -> Result<(), SyncError> {
    let endpoint = &config.endpoint;
    let mut client = Client::connect(endpoint, Side::Target).await?;
    if is_kept(&mut client).await? {
        return Ok(());
    }
    let mut replica = Client::connect(endpoint, Side::Target).await?;
    replica
        .ask(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"])
        .await?;
    replica.ask(&[b"REPLCONF", b"rdb-filter-only", b""]).await?;
    let mut psync = Vec::new();
    encode::command(&mut psync, &[b"PSYNC", b"?", b"-1"]);
    replica.ask_encoded(&psync, 0).await?;
    let from = Instant::now();
    while !is_kept(&mut client).await? {
        if from.elapsed() > BACKLOG_LIMIT {
            let said = tokio::time::timeout(Duration::from_secs(1), replica.ask_encoded(b"", 1));
            let said = match said.await {
                Ok(Ok(replies)) => match replies.first() {
                    Some(Value::Error(error)) => String::from_utf8_lossy(&error.text).into_owned(),
                    _ => "it keeps no backlog".to_owned(),
                },
                _ => "it keeps no backlog".to_owned(),
            };
            let what = format!(
                "the new server cannot be followed (PSYNC: {said}), so that there is no way back by replication from it; switch without --reverse"
            );
            return Err(SyncError::stop(Side::Target, &endpoint.address, what));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn is_kept(client: &mut Client) -> Result<bool, SyncError> {
    let info = client.info("replication").await?;
    Ok(info.get("repl_backlog_active").map(str::trim) == Some("1"))
}

/// A place in the target's stream where database 0 is selected, and before which all that the link has written lies. The
/// record is written for it: what is known of the bytes in between says that nobody else wrote.
///
/// # Errors
/// Those of the connection; stop where somebody else goes on writing.
pub(super) async fn place(
    client: &mut Client,
    link_name: &str,
    record: &Record,
) -> Result<Back, SyncError> {
    let (key, value) = (mark::key(link_name), record.text());
    let set: [&[u8]; 3] = [b"SET", key.as_bytes(), value.as_bytes()];
    let bytes_of = |argv: &[&[u8]]| {
        let mut out = Vec::new();
        encode::command(&mut out, argv);
        out.len() as u64
    };
    let (own, select) = (bytes_of(&set), bytes_of(SELECT));
    for _ in 0..TRIES {
        let before = position_of(&client.info("replication").await?);
        client.call(&set).await?;
        let after = position_of(&client.info("replication").await?);
        if let (Some((replid, from)), Some((same, to))) = (before, after)
            && replid == same
        {
            let grown = to.saturating_sub(from);
            if grown == own || grown == own + select {
                return Ok(Back { replid, offset: to });
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let what = "the new server's stream does not stand still: somebody else writes there, or it ends keys all the time; there is no place at which the way back could begin";
    Err(SyncError::stop(Side::Target, client.address(), what))
}

/// Writes the checkpoint of the way back at the old server, which holds what the new one held at `back`.
///
/// # Errors
/// Those of the connection; what was refused.
pub(super) async fn seed(way_back: &Config, back: &Back) -> Result<(), SyncError> {
    let key = checkpoint::key(&way_back.link_name);
    let mut client = Client::connect(&way_back.target.endpoint, Side::Target).await?;
    let found = taken(&mut client, &key).await?;
    let replid: ReplId = back.replid.parse().map_err(|_| {
        let what = "the new server's replication id is none";
        SyncError::stop(Side::Target, &way_back.source.endpoint.address, what)
    })?;
    let checkpoint = Checkpoint {
        epoch: found.map_or(1, |found| found.epoch + 1),
        owner: NOBODY,
        phase: Phase::Stream(Position {
            replid,
            offset: ReplOffset(back.offset),
            db: 0,
        }),
        owned: true,
        leased: false,
        repairs: Names::default(),
        unseen: None,
        slots: None,
    };
    let value = checkpoint.to_string();
    client
        .call(&[b"SET", key.as_bytes(), value.as_bytes()])
        .await
        .map(drop)
}

/// Removes it again.
///
/// # Errors
/// Those of the connection; what was refused.
pub(super) async fn unseed(way_back: &Config) -> Result<(), SyncError> {
    let key = checkpoint::key(&way_back.link_name);
    let mut client = Client::connect(&way_back.target.endpoint, Side::Target).await?;
    client.call(&[b"DEL", key.as_bytes()]).await.map(drop)
}

/// The checkpoint of the way back, if it is there.
///
/// # Errors
/// Those of the connection.
pub(super) async fn found(way_back: &Config) -> Result<Option<Checkpoint>, SyncError> {
    let key = checkpoint::key(&way_back.link_name);
    let mut client = Client::connect(&way_back.target.endpoint, Side::Target).await?;
    taken(&mut client, &key).await
}

async fn taken(client: &mut Client, key: &str) -> Result<Option<Checkpoint>, SyncError> {
    match client.call(&[b"GET", key.as_bytes()]).await? {
        Value::Bulk(value) => Ok(Checkpoint::parse(&value).ok()),
        _ => Ok(None),
    }
}
