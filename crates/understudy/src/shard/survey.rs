//! One look at a source cluster as a whole, for a switch-over: every primary is asked, and believed about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::nodes::View;
use crate::client::Client;
use crate::config::Endpoint;
use crate::error::{Side, SyncError};

/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The nodes that are found may tell of others; so often that is followed.
const ROUNDS_MAX: usize = 4;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Primaries that have slots, by their ids: where they are, and how many slots they have.
    pub(crate) primaries: BTreeMap<String, (String, usize)>,
    /// Addresses of replicas that live, with their primary's id.
    pub(crate) replicas: BTreeMap<String, String>,
    /// Who has each slot.
    owners: Vec<Option<String>>,
    /// Slots on their way from one node to another.
    pub(crate) moving: BTreeSet<u16>,
}

impl Survey {
    /// Asks the node at the endpoint's address, or one of the others, then every primary.
    ///
    /// # Errors
    /// Where a primary does not answer, or what it says is not understood.
    pub(crate) async fn look(endpoint: &Endpoint, others: &[String]) -> Result<Self, SyncError> {
        let mut view = View::default();
        let mut asked = BTreeSet::new();
        let mut failed = None;
        for address in std::iter::once(&endpoint.address).chain(others) {
            match ask(endpoint, address, &mut view).await {
                Ok(()) => {
                    asked.insert(address.clone());
                    break;
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let (true, Some(error)) = (asked.is_empty(), failed) {
            return Err(error);
        }
        for _ in 0..ROUNDS_MAX {
            let mut new = primaries(&view);
            new.retain(|(_, address)| !asked.contains(address));
            if new.is_empty() {
                break;
            }
            for (_, address) in new {
                ask(endpoint, &address, &mut view).await?;
                asked.insert(address);
            }
        }
        Ok(Self::of(&view))
    }

    fn of(view: &View) -> Self {
        let owners: Vec<Option<String>> = view
            .owners()
            .into_iter()
            .map(|owner| owner.map(str::to_owned))
            .collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for owner in owners.iter().flatten() {
            *counts.entry(owner).or_default() += 1;
        }
        let slots_of = |id: &str| counts.get(id).copied().unwrap_or(0);
        let replicas = view.nodes().filter(|node| !node.has_failed);
        let replicas =
            replicas.filter_map(|node| Some((node.address.clone(), node.master.clone()?)));
        let primaries = primaries(view).into_iter();
        let primaries = primaries.map(|(id, address)| {
            let slots = slots_of(&id);
            (id, (address, slots))
        });
        Self {
            primaries: primaries.collect(),
            replicas: replicas.collect(),
            moving: view.moving(),
            owners,
        }
    }

    /// Addresses of the primaries.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let addresses = self.primaries.values();
        addresses.map(|(address, _)| address.clone()).collect()
    }

    /// Slots that nobody has.
    pub(crate) fn missing(&self) -> usize {
        self.owners.iter().filter(|owner| owner.is_none()).count()
    }

    /// What is not as it was at an earlier look, in words; nothing where the same nodes have the same slots.
    pub(crate) fn changed_since(&self, before: &Self) -> Option<String> {
        if let Some(slot) = self.moving.first() {
            return Some(format!("slot {slot} of the source has begun to move"));
        }
        let gone = before.primaries.iter().find(|(id, place)| {
            let now = self.primaries.get(*id);
            now.is_none_or(|now| now.0 != place.0)
        });
        if let Some((_, (address, _))) = gone {
            return Some(format!(
                "{address} is no primary of the source any more: a replica has taken over"
            ));
        }
        if let Some(slot) = (0_u16..)
            .zip(self.owners.iter().zip(&before.owners))
            .find_map(|(slot, (now, was))| (now != was).then_some(slot))
        {
            return Some(format!("slot {slot} of the source has moved"));
        }
        let new = self
            .primaries
            .iter()
            .find(|(id, _)| !before.primaries.contains_key(*id));
        new.map(|(_, (address, _))| {
            format!("{address} is a primary of the source that was none before")
        })
    }
}

/// Primaries that have slots: id and address.
fn primaries(view: &View) -> Vec<(String, String)> {
    let owners: BTreeSet<String> = view
        .owners()
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    let owners = owners.into_iter();
    let placed = owners.filter_map(|id| {
        let address = view.node(&id)?.address.clone();
        Some((id, address))
    });
    placed.collect()
}

/// Adds what the node at `address` says.
async fn ask(endpoint: &Endpoint, address: &str, view: &mut View) -> Result<(), SyncError> {
    let node = Endpoint {
        address: address.to_owned(),
        ..endpoint.clone()
    };
    let argv: [&[u8]; 2] = [b"CLUSTER", b"NODES"];
    let asked = async {
        let mut client = Client::connect_plainly(&node, Side::Source).await?;
        client.call(&argv).await
    };
    let late = || SyncError::reconnect(Side::Source, address, "it does not answer CLUSTER NODES");
    let reply = tokio::time::timeout(TIMEOUT, asked)
        .await
        .map_err(|_| late())??;
    let text = reply.as_bytes().cloned().unwrap_or_default();
    let added = view.add(&String::from_utf8_lossy(&text), address);
    added.map_err(|what| SyncError::stop(Side::Source, address, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(text: &str) -> Survey {
        let mut view = View::default();
        view.add(text, "1:1").unwrap();
        Survey::of(&view)
    }

    #[test]
    fn what_has_changed_between_two_looks_is_named() {
        let text = "a 1:1@2 myself,master - 0 0 1 connected 0-99\nb 1:2@2 master - 0 0 2 connected 100-16383\nc 1:3@2 slave b 0 0 2 connected\n";
        let before = survey(text);
        assert_eq!(before.addresses(), ["1:1", "1:2"]);
        assert_eq!(before.replicas.keys().collect::<Vec<_>>(), ["1:3"]);
        assert_eq!((before.missing(), before.changed_since(&before)), (0, None));
        for (from, to, word) in [
            ("0-99", "0-99 [7->-b]", "slot 7 of the source has begun"),
            (
                "100-16383\nc 1:3@2 slave b 0 0 2 connected",
                "\nc 1:3@2 master - 0 0 3 connected 100-16383",
                "1:2 is no primary",
            ),
            (
                "0-99\nb 1:2@2 master - 0 0 2 connected 100-16383",
                "0-98\nb 1:2@2 master - 0 0 2 connected 99-16383",
                "slot 99 of the source has moved",
            ),
        ] {
            let now = survey(&text.replace(from, to));
            let said = now.changed_since(&before).unwrap_or_default();
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(
            survey("a 1:1@2 myself,master - 0 0 1 connected 0-99").missing(),
            16_284
        );
    }
}
