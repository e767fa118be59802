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
use crate::checkpoint::{self, Checkpoint};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::target::cluster;

/// Slots in one round trip.
const AT_ONCE: usize = 1024;
const BEGUN: &[u8] = b"begun";
const NODES: &[u8] = b"nodes";

fn word_of(begun: Begun) -> &'static [u8] {
    match (begun.owned, begun.sweeps) {
        (false, _) => b"beside",
        (true, false) => b"alone",
        (true, true) => b"mirror",
    }
}

/// The claims of a group.
pub(crate) struct Claims {
    client: Client,
    key: String,
    /// At a cluster a link's checkpoint is in another slot, and each slot's own says who holds it.
    is_cluster: bool,
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
        Ok(Self {
            client,
            key,
            is_cluster: config.target.cluster.is_some(),
        })
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
        let argv: [&[u8]; 4] = [b"HSETNX", self.key.as_bytes(), BEGUN, word_of(begun)];
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

    /// Empties the target and notes how it is begun, where nobody has begun yet: whether it was done.
    pub(crate) async fn flush_as_first(&mut self, begun: Begun) -> Result<bool, SyncError> {
        self.client.call(&[b"WATCH", self.key.as_bytes()]).await?;
        if self.begun().await?.is_some() {
            self.client.call(&[b"UNWATCH"]).await?;
            return Ok(false);
        }
        let commands = [
            vec![&b"MULTI"[..]],
            vec![b"FLUSHALL"],
            vec![b"HSET", self.key.as_bytes(), BEGUN, word_of(begun)],
            vec![b"EXEC"],
        ];
        let replies = self.client.ask_all(&commands).await?;
        for (reply, argv) in replies.iter().zip(&commands) {
            if let Value::Error(error) = reply {
                return Err(self.client.refused(argv, error));
            }
        }
        Ok(!matches!(replies.last(), Some(Value::Null)))
    }

    /// The answers to these commands, done as one if the link is still `owner`'s: a process that was replaced, and goes on
    /// after a pause, changes nothing.
    async fn guarded(
        &mut self,
        link: &str,
        owner: u64,
        commands: &[Vec<&[u8]>],
    ) -> Result<Vec<Value>, SyncError> {
        if self.is_cluster {
            return self.client.ask_all(commands).await;
        }
        let key = checkpoint::key(link);
        let fence = checkpoint::fence(&key);
        let taken = |address: &str| {
            let what =
                "another understudy has taken this link; the claims of its slots stay as they are";
            Err(SyncError::reconnect(Side::Target, address, what))
        };
        self.client.call(&[b"WATCH", fence.as_bytes()]).await?;
        let found = self.client.call(&[b"GET", key.as_bytes()]).await?;
        let found = found
            .as_bytes()
            .and_then(|value| Checkpoint::parse(value).ok());
        if found.is_some_and(|found| found.owner != owner) {
            self.client.call(&[b"UNWATCH"]).await?;
            return taken(self.client.address());
        }
        let mut all: Vec<Vec<&[u8]>> = vec![vec![b"MULTI"]];
        all.extend(commands.iter().cloned());
        all.push(vec![b"EXEC"]);
        let mut replies = self.client.ask_all(&all).await?;
        let last = replies.pop();
        for (reply, argv) in replies.iter().zip(&all) {
            if let Value::Error(error) = reply {
                return Err(self.client.refused(argv, error));
            }
        }
        match last {
            Some(Value::Array(answers)) => Ok(answers),
            Some(Value::Error(error)) => Err(self.client.refused(&[b"EXEC"], &error)),
            _ => taken(self.client.address()),
        }
    }

    /// Claims slots; gives those that are the link's then. With an `owner` only while the link is that one's.
    pub(crate) async fn claim(
        &mut self,
        link: &str,
        slots: &[u16],
        owner: Option<u64>,
    ) -> Result<Vec<u16>, SyncError> {
        let (mut claimed, own_key, name) = (Vec::new(), self.key.clone(), link);
        for slots in slots.chunks(AT_ONCE) {
            let names: Vec<String> = slots.iter().map(u16::to_string).collect();
            let (key, link) = (own_key.as_bytes(), link.as_bytes());
            let mut commands: Vec<Vec<&[u8]>> = Vec::new();
            for name in &names {
                commands.push(vec![b"HSETNX", key, name.as_bytes(), link]);
                commands.push(vec![b"HGET", key, name.as_bytes()]);
            }
            let replies = match owner {
                None => self.client.ask_all(&commands).await?,
                Some(owner) => self.guarded(name, owner, &commands).await?,
            };
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

    /// Gives claims of the link up, which is `owner`'s.
    pub(crate) async fn release(
        &mut self,
        link: &str,
        slots: &[u16],
        owner: u64,
    ) -> Result<(), SyncError> {
        // Nobody but the link changes a claim of its own.
        let mut own = self.claimed_by(link, slots).await?;
        own.sort_unstable();
        let key = self.key.clone();
        for slots in own.chunks(AT_ONCE) {
            let names: Vec<String> = slots.iter().map(u16::to_string).collect();
            let mut argv: Vec<&[u8]> = vec![b"HDEL", key.as_bytes()];
            argv.extend(names.iter().map(String::as_bytes));
            let replies = self.guarded(link, owner, &[argv.clone()]).await?;
            if let Some(Value::Error(error)) = replies.first() {
                return Err(self.client.refused(&argv, error));
            }
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
