//! What a switch-over leaves at the target while it lasts: how far it is, and how to undo what it did to the source's users.
//!
//! ```text
//! key     understudy:checkpoint:{understudy:checkpoint:<link name>}:cutover     in the slot of the link's own checkpoint
//! value   JSON, see [`Record`]
//! ```
//! The switch *is* this key with the stage `go`: it is written in one transaction with the checkpoint, which has to be the
//! one that was proved, so that either the link has stopped there for good, or there is no switch.
//!
//! The links of one source cluster have one record together, under the name that theirs begin with. Where the target is a cluster,
//! no transaction covers them: there the record alone decides. It is made `go` only while it says `fenced`, and whoever takes a
//! link, or goes on where a cutover is not heard of any more, calls off what is not made first ([`call_off`]).

use std::collections::BTreeMap;

use resp::Value;
use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::client::Client;
use crate::config::TargetConfig;
use crate::error::{Side, SyncError};
use crate::target::cluster;

/// The word for a source that is read by SCAN.
pub(crate) const SCAN: &str = "scan";

/// The value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct Record {
    pub(crate) v: u32,
    /// `fenced` or `go`.
    pub(crate) stage: String,
    /// When it was written, Unix milliseconds.
    pub(crate) at_ms: u64,
    /// Of the source's stream: the target is what the source was there.
    #[serde(default)]
    pub(crate) offset: u64,
    #[serde(default)]
    pub(crate) replid: String,
    /// `scan` where the source is read by SCAN: the offset is a number then that stands for the hold alone.
    #[serde(default)]
    pub(crate) reader: String,
    /// `hold` or `apply`.
    #[serde(default)]
    pub(crate) late_writes: String,
    /// Keys that the source had removed by itself since it was started, at that offset.
    #[serde(default)]
    pub(crate) removed: Option<u64>,
    /// What was changed at the source.
    #[serde(default)]
    pub(crate) undo: Vec<Undo>,
    /// Where the way back begins.
    #[serde(default)]
    pub(crate) back: Option<Back>,
    /// The new server refuses PSYNC: the way back reads it by SCAN.
    #[serde(default)]
    pub(crate) back_by_scan: bool,
    /// Of a source cluster, by the names of its links: where each of them has stopped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) links: BTreeMap<String, Place>,
}

/// Where a link has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct Place {
    /// Of its source's stream.
    pub(crate) offset: u64,
    pub(crate) replid: String,
    /// Keys that its source had removed by itself since it was started, at that offset.
    #[serde(default)]
    pub(crate) removed: Option<u64>,
}

/// A change at the source, with what takes it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    /// For people: `user app`, `min-replicas-to-write`.
    pub(crate) what: String,
    /// The words of the command that takes it back.
    pub(crate) command: Vec<String>,
    /// The node of a source cluster, by its address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) node: String,
}

/// A place in the target's own stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Back {
    pub(crate) replid: String,
    pub(crate) offset: u64,
}

impl Record {
    pub(crate) fn is_go(&self) -> bool {
        self.stage == "go"
    }

    /// Whether a way back was prepared.
    pub(crate) fn comes_back(&self) -> bool {
        self.back.is_some() || self.back_by_scan
    }

    pub(crate) fn is_of_scan(&self) -> bool {
        self.reader == SCAN
    }

    /// Where this link has stopped; none for one of a source cluster that came behind the switch.
    pub(crate) fn place(&self, link_name: &str) -> Option<Place> {
        match self.links.is_empty() {
            true => Some(Place {
                offset: self.offset,
                replid: self.replid.clone(),
                removed: self.removed,
            }),
            false => self.links.get(link_name).cloned(),
        }
    }

    pub(crate) fn applies_late(&self) -> bool {
        self.late_writes == "apply"
    }

    /// Reads a value back.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        match record.v {
            1 => Ok(record),
            v => Err(format!("its version is {v}; this program writes 1")),
        }
    }

    pub(crate) fn text(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// Whose record decides for this link: its own, or that of all links of its source cluster.
pub(crate) fn name<'a>(config: &'a TargetConfig, link_name: &'a str) -> &'a str {
    config.group.as_deref().unwrap_or(link_name)
}

/// The key of the link, or of the links together, called `link_name`.
pub(crate) fn key(link_name: &str) -> String {
    let checkpoint = checkpoint::key(link_name);
    format!("{}{{{checkpoint}}}:cutover", checkpoint::KEY_PREFIX)
}

/// What is there, over this connection.
///
/// # Errors
/// Those of the connection; stop where it cannot be read.
pub(crate) async fn get(client: &mut Client, link_name: &str) -> Result<Option<Record>, SyncError> {
    let key = key(link_name);
    match client.call(&[b"GET", key.as_bytes()]).await? {
        Value::Bulk(value) => Record::parse(&value).map(Some).map_err(|why| {
            let what = format!("the record of a switch-over {key} cannot be read: {why}");
            SyncError::stop(Side::Target, client.address(), what)
        }),
        _ => Ok(None),
    }
}

/// What is there.
///
/// # Errors
/// As [`get`], and those of connecting.
pub(crate) async fn read(
    config: &TargetConfig,
    link_name: &str,
) -> Result<Option<Record>, SyncError> {
    let mut client = connect(config, link_name).await?;
    get(&mut client, name(config, link_name)).await
}

/// Removes the record of a switch that was not made, so that a transaction that is still on its way cannot make it. Gives the
/// record of one that was.
///
/// # Errors
/// As [`read`].
pub(crate) async fn withdraw(
    config: &TargetConfig,
    link_name: &str,
) -> Result<Option<Record>, SyncError> {
    put_unless_made(config, link_name, |_| None).await
}

/// Says in the record of a switch that was not made that it is called off, so that nobody makes it any more; what it tells of
/// undoing stays. Gives the record.
///
/// # Errors
/// As [`read`].
pub(crate) async fn call_off(
    config: &TargetConfig,
    link_name: &str,
) -> Result<Option<Record>, SyncError> {
    let called_off = |record| {
        Some(Record {
            stage: "undoing".to_owned(),
            ..record
        })
    };
    put_unless_made(config, link_name, called_off).await
}

/// Puts another record in the place of one of a switch that was not made, or none. Gives what is there then.
async fn put_unless_made(
    config: &TargetConfig,
    link_name: &str,
    other: impl Fn(Record) -> Option<Record>,
) -> Result<Option<Record>, SyncError> {
    let mut client = connect(config, link_name).await?;
    let name = name(config, link_name);
    let key = key(name);
    loop {
        client.call(&[b"WATCH", key.as_bytes()]).await?;
        let record = match get(&mut client, name).await? {
            Some(record) if !record.is_go() => other(record),
            made_or_none => return Ok(made_or_none),
        };
        let text = record.as_ref().map(Record::text);
        let put: Vec<&[u8]> = match &text {
            Some(text) => vec![b"SET", key.as_bytes(), text.as_bytes()],
            None => vec![b"DEL", key.as_bytes()],
        };
        let commands: [Vec<&[u8]>; 3] = [vec![b"MULTI"], put, vec![b"EXEC"]];
        match client.ask_all(&commands).await?.last() {
            Some(Value::Array(_)) => return Ok(record),
            Some(Value::Error(error)) => return Err(client.refused(&[b"EXEC"], error)),
            // It was written meanwhile.
            _ => {}
        }
    }
}

/// A connection to the server that has the record.
///
/// # Errors
/// As [`Client::connect`].
pub(crate) async fn connect(config: &TargetConfig, link_name: &str) -> Result<Client, SyncError> {
    let endpoint = match &config.cluster {
        None => config.endpoint.clone(),
        Some(_) => {
            let key = checkpoint::key(name(config, link_name));
            cluster::locate(config, &key).await?.endpoint
        }
    };
    Client::connect(&endpoint, Side::Target).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_in_the_checkpoints_slot_and_read_back() {
        let own = key("a>b:1");
        let slot = rewrite::slot_of(checkpoint::key("a>b:1").as_bytes());
        assert_eq!(rewrite::slot_of(own.as_bytes()), slot);
        let record = Record {
            v: 1,
            stage: "go".to_owned(),
            offset: 7,
            undo: vec![Undo {
                what: "user app".to_owned(),
                command: vec!["ACL".to_owned()],
                node: String::new(),
            }],
            back: Some(Back {
                replid: "x".to_owned(),
                offset: 9,
            }),
            ..Record::default()
        };
        assert_eq!(Record::parse(record.text().as_bytes()), Ok(record));
        let mut of_cluster = Record::default();
        let place = Place {
            offset: 9,
            ..Place::default()
        };
        of_cluster.v = 1;
        of_cluster.links.insert("a/b".to_owned(), place.clone());
        let read = Record::parse(of_cluster.text().as_bytes()).unwrap();
        assert_eq!((read.place("a/b"), read.place("a/c")), (Some(place), None));
        assert!(Record::parse(b"{\"v\":2,\"stage\":\"\",\"at_ms\":0}").is_err());
        assert!(Record::parse(b"nonsense").is_err());
    }
}
