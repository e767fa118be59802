//! Which link of a group has claimed which slot: a hash at the target, so that links in several processes never hold the same.
//!
//! ```text
//! key     understudy:checkpoint:<group>/slots
//! field   <slot>                          value   <name of the link>
//! field   begun                           value   what the target held: `alone` nothing, `mirror` an older copy, `beside` other keys
//! field   nodes                           value   addresses of the source's nodes, with commas between
//! ```
//! A link claims a slot before it holds it, and gives the claim up when its checkpoint says that it does not.

use std::collections::{BTreeMap, BTreeSet};

use resp::Value;

use super::group::Begun;
use crate::client::Client;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::target::cluster;

/// Slots in one round trip.
const AT_ONCE: usize = 1024;
const BEGUN: &[u8] = b"begun";
const NODES: &[u8] = b"nodes";

/// The claims of a group.
pub(crate) struct Claims {
    client: Client,
    key: String,
}

impl Claims {
    /// # Errors
    /// As the target's client.
    pub(crate) async fn connect(config: &Config, key: String) -> Result<Self, SyncError> {
        let endpoint = match &config.target.cluster {
            None => config.target.endpoint.clone(),
            Some(_) => cluster::locate(&config.target, &key).await?.endpoint,
        };
        let client = Client::connect(&endpoint, Side::Target).await?;
        Ok(Self { client, key })
    }

    /// All claims: slots by links.
    pub(crate) async fn all(&mut self) -> Result<BTreeMap<String, BTreeSet<u16>>, SyncError> {
        let argv: [&[u8]; 2] = [b"HGETALL", self.key.as_bytes()];
        let mut all: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
        if let Value::Array(words) = self.client.call(&argv).await? {
            for pair in words.chunks_exact(2) {
                if let [Value::Bulk(slot), Value::Bulk(link)] = pair
                    && let Some(slot) = std::str::from_utf8(slot)
                        .ok()
                        .and_then(|slot| slot.parse().ok())
                {
                    let link = String::from_utf8_lossy(link).into_owned();
                    all.entry(link).or_default().insert(slot);
                }
            }
        }
        Ok(all)
    }

    /// How the first snapshots are written; `None` where no link has begun yet.
    pub(crate) async fn begun(&mut self) -> Result<Option<Begun>, SyncError> {
        let found = self
            .client
            .call(&[b"HGET", self.key.as_bytes(), BEGUN])
            .await?;
        Ok(found.as_bytes().map(|word| Begun {
            owned: word.as_ref() != b"beside",
            sweeps: word.as_ref() == b"mirror",
        }))
    }

    /// Notes it, where nobody has.
    pub(crate) async fn set_begun(&mut self, begun: Begun) -> Result<(), SyncError> {
        let word: &[u8] = match (begun.owned, begun.sweeps) {
            (false, _) => b"beside",
            (true, false) => b"alone",
            (true, true) => b"mirror",
        };
        let argv: [&[u8]; 4] = [b"HSETNX", self.key.as_bytes(), BEGUN, word];
        self.client.call(&argv).await.map(drop)
    }

    /// Addresses at which nodes of the source were seen: the one that is configured may be gone.
    pub(crate) async fn nodes(&mut self) -> Result<Vec<String>, SyncError> {
        let argv: [&[u8]; 3] = [b"HGET", self.key.as_bytes(), NODES];
        let found = self.client.call(&argv).await?;
        let found = found.as_bytes().cloned().unwrap_or_default();
        let text = String::from_utf8_lossy(&found);
        let addresses = text.split(',').filter(|address| !address.is_empty());
        Ok(addresses.map(str::to_owned).collect())
    }

    /// Notes them.
    pub(crate) async fn set_nodes(
        &mut self,
        nodes: impl Iterator<Item = &String>,
    ) -> Result<(), SyncError> {
        let nodes: Vec<&str> = nodes.map(String::as_str).collect();
        let nodes = nodes.join(",");
        let argv: [&[u8]; 4] = [b"HSET", self.key.as_bytes(), NODES, nodes.as_bytes()];
        self.client.call(&argv).await.map(drop)
    }

    /// Claims slots; gives those that are the link's then.
    pub(crate) async fn claim(&mut self, link: &str, slots: &[u16]) -> Result<Vec<u16>, SyncError> {
        let mut claimed = Vec::new();
        for slots in slots.chunks(AT_ONCE) {
            let names: Vec<String> = slots.iter().map(u16::to_string).collect();
            let (key, link) = (self.key.as_bytes(), link.as_bytes());
            let mut commands: Vec<Vec<&[u8]>> = Vec::new();
            for name in &names {
                commands.push(vec![b"HSETNX", key, name.as_bytes(), link]);
                commands.push(vec![b"HGET", key, name.as_bytes()]);
            }
            let replies = self.client.ask_all(&commands).await?;
            for ((slot, pair), command) in slots.iter().zip(replies.chunks_exact(2)).zip(&commands)
            {
                match pair {
                    [Value::Error(error), _] | [_, Value::Error(error)] => {
                        return Err(self.client.refused(command, error));
                    }
                    [_, Value::Bulk(owner)] if owner.as_ref() == link => claimed.push(*slot),
                    _ => {}
                }
            }
        }
        Ok(claimed)
    }

    /// Gives claims of the link up.
    pub(crate) async fn release(&mut self, link: &str, slots: &[u16]) -> Result<(), SyncError> {
        // Nobody but the link changes a claim of its own.
        let mut own = self.claimed_by(link, slots).await?;
        own.sort_unstable();
        for slots in own.chunks(AT_ONCE) {
            let names: Vec<String> = slots.iter().map(u16::to_string).collect();
            let mut argv: Vec<&[u8]> = vec![b"HDEL", self.key.as_bytes()];
            argv.extend(names.iter().map(String::as_bytes));
            self.client.call(&argv).await?;
        }
        Ok(())
    }

    /// Those of these slots that the link has claimed.
    async fn claimed_by(&mut self, link: &str, slots: &[u16]) -> Result<Vec<u16>, SyncError> {
        let mut own = Vec::new();
        for slots in slots.chunks(AT_ONCE) {
            let names: Vec<String> = slots.iter().map(u16::to_string).collect();
            let mut argv: Vec<&[u8]> = vec![b"HMGET", self.key.as_bytes()];
            argv.extend(names.iter().map(String::as_bytes));
            if let Value::Array(found) = self.client.call(&argv).await? {
                let pairs = slots.iter().zip(&found);
                let pairs = pairs.filter(|(_, found)| {
                    found
                        .as_bytes()
                        .is_some_and(|found| found.as_ref() == link.as_bytes())
                });
                own.extend(pairs.map(|(slot, _)| *slot));
            }
        }
        Ok(own)
    }
}
