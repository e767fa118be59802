//! Connections to all primaries for work beside the applier's, kept out as its own are.

use std::collections::BTreeMap;

use resp::Value;
use rewrite::slot_of;

use super::marks::{SlotCheckpoint, mark_key};
use super::topology::Topology;
use super::{fence, holders, locate};
use crate::checkpoint::{self, Checkpoint};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Side, SyncError};

/// A connection to each primary of a cluster that is ours.
pub(crate) struct Reach {
    clients: BTreeMap<String, Client>,
    /// Databases that are selected there, if not 0; `None`: it is not known which.
    dbs: BTreeMap<String, Option<u32>>,
    topology: Topology,
    marks_name: String,
    holder: String,
    address: String,
    /// Where the last command went.
    at: String,
    epoch: u64,
    /// Whoever takes the link over ends these connections.
    are_ended: bool,
}

impl Reach {
    /// Connects to all primaries for the `owner` of the link.
    ///
    /// # Errors
    /// Reconnect when the link is no longer the owner's, or a node cannot be reached.
    pub(crate) async fn connect(config: &Config, owner: u64) -> Result<Self, SyncError> {
        let key = checkpoint::key(&config.link_name);
        let located = locate::locate(&config.target, &key).await?;
        let name = format!(
            "{}{owner:016x}.beside",
            fence::name_prefix(&config.link_name)
        );
        let mut clients = BTreeMap::new();
        let mut are_ended = fence::may_be_by_kill(&config.target);
        for address in located.topology.primaries() {
            let mut client = locate::connect(&config.target, &address).await?;
            are_ended = are_ended && fence::may_kill(&mut client).await?;
            clients.insert(address, client);
        }
        for client in clients.values_mut().filter(|_| are_ended) {
            client
                .call(&[b"CLIENT", b"SETNAME", name.as_bytes()])
                .await?;
        }
        let mut reach = Self {
            clients,
            dbs: BTreeMap::new(),
            topology: located.topology,
            marks_name: holders::marks_name(config.target.cluster.as_ref(), &config.link_name),
            holder: holders::holder(config.target.cluster.as_ref()).to_owned(),
            address: config.target.endpoint.address.clone(),
            at: located.endpoint.address,
            epoch: 0,
            are_ended,
        };
        // Only now: whoever takes the link over from here on finds these connections.
        let value = reach.client()?.call(&[b"GET", key.as_bytes()]).await?;
        match value.as_bytes().map(|value| Checkpoint::parse(value)) {
            Some(Ok(found)) if found.owner == owner => reach.epoch = found.epoch,
            _ => return Err(reach.lost("the checkpoint names another owner")),
        }
        Ok(reach)
    }

    /// The next commands go to the node of this key.
    pub(crate) fn go(&mut self, key: &[u8]) -> Result<(), SyncError> {
        let slot = slot_of(key);
        match self.topology.owner(slot) {
            Some(owner) => self.at.clone_from(&owner.address),
            None => return Err(self.lost(&format!("no node has slot {}", slot.0))),
        }
        Ok(())
    }

    /// The next commands go to this node.
    pub(crate) fn go_to(&mut self, address: &str) {
        address.clone_into(&mut self.at);
    }

    /// All primaries.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.clients.keys().cloned().collect()
    }

    /// The node that the last key is at.
    pub(crate) fn client(&mut self) -> Result<&mut Client, SyncError> {
        let at = &self.at;
        match self.clients.get_mut(at) {
            Some(client) => Ok(client),
            None => Err(SyncError::reconnect(
                Side::Target,
                at,
                "not connected to it",
            )),
        }
    }

    /// Selects a database at the node that the last key is at.
    pub(crate) async fn select(&mut self, db: u32) -> Result<(), SyncError> {
        let at = self.at.clone();
        if self.dbs.get(&at).copied().unwrap_or(Some(0)) == Some(db) {
            return Ok(());
        }
        self.dbs.insert(at.clone(), None);
        let number = db.to_string();
        let client = self.client()?;
        client.call(&[b"SELECT", number.as_bytes()]).await?;
        self.dbs.insert(at, Some(db));
        Ok(())
    }

    /// Sees that the checkpoint of a key's slot is not from anybody who has come after us, and selects database 0 there. It is not watched:
    /// in a slot that is written all the time it changes all the time. Whoever comes after us ends this connection, or
    /// [`Self::guarded`] finds its epoch.
    pub(crate) async fn look_at_slot(&mut self, key: &[u8]) -> Result<(), SyncError> {
        self.go(key)?;
        self.select(0).await?;
        let mark = mark_key(slot_of(key), &self.marks_name);
        let value = self.client()?.call(&[b"GET", mark.as_bytes()]).await?;
        let found = match &value {
            Value::Bulk(text) => SlotCheckpoint::parse(text).ok(),
            _ => None,
        };
        match found {
            Some(found) if found.holder == self.holder && found.epoch <= self.epoch => Ok(()),
            Some(_) => Err(self.lost("the slot's checkpoint names another owner")),
            None => Err(self.lost("the slot has no checkpoint now")),
        }
    }

    /// The one command that gives keys of a slot and a database these expiries, and looks at the slot's checkpoint as it does; `None` where
    /// plain commands will do.
    pub(crate) fn guarded(&self, db: u32, expiries: &[(&[u8], String)]) -> Option<Vec<Vec<u8>>> {
        let (first, _) = expiries.first().filter(|_| !self.are_ended)?;
        let mut words: Vec<Vec<u8>> = vec![
            b"EVAL".to_vec(),
            fence::SCRIPT_EXPIRE.into(),
            (expiries.len() + 1).to_string().into(),
            mark_key(slot_of(first), &self.marks_name).into(),
        ];
        words.extend(expiries.iter().map(|(key, _)| key.to_vec()));
        words.push(self.epoch.to_string().into());
        words.push(db.to_string().into());
        words.extend(expiries.iter().map(|(_, at)| at.as_bytes().to_vec()));
        Some(words)
    }

    fn lost(&self, what: &str) -> SyncError {
        SyncError::reconnect(Side::Target, &self.address, what)
    }
}
