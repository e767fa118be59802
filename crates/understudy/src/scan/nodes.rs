//! The nodes of a source that is a cluster: whether they are those that this session listens to, and whether slots have moved.
//!
//! Every primary has a subscription, and is looked at for what no event tells. When others are primaries, by a failover or because
//! a node has come, all begins anew with them, and a pass over all keys finds what was written where nobody listened, and
//! what a failover has lost. Slots that move between primaries which are known are listened to at both ends, and looked at once more.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use super::shared::Shared;
use crate::compare::End;
use crate::config::Endpoint;
use crate::error::{Side, SyncError};
use crate::target::cluster::Topology;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A node that has not answered for so long is passed over.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at who has which slot, all the while.
///
/// # Errors
/// Reconnect where others are primaries than these.
pub(super) async fn watch(
    shared: &Shared<'_>,
    end: &mut End,
    servers: &[Endpoint],
) -> Result<Infallible, SyncError> {
    let known: BTreeSet<String> = servers.iter().map(|one| one.address.clone()).collect();
    // What each node has said of all slots.
    let mut told: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    loop {
        for address in &known {
            let asked = end.one_at(address, 0, &[b"CLUSTER", b"SLOTS"]);
            let Ok(Ok(reply)) = tokio::time::timeout(PATIENCE, asked).await else {
                continue;
            };
            let Ok(topology) = Topology::parse(&reply, address) else {
                continue;
            };
            if topology.missing().is_some() {
                continue;
            }
            let now: BTreeSet<String> = topology.primaries().into_iter().collect();
            if now != known {
                let list = |of: Vec<&String>| {
                    let names: Vec<&str> = of.into_iter().map(String::as_str).collect();
                    names.join(", ")
                };
                let what = format!(
                    "its primaries are others now (new: {}; no more: {}): all of them are listened to, and every key is looked at",
                    list(now.difference(&known).collect()),
                    list(known.difference(&now).collect()),
                );
                return Err(SyncError::reconnect(Side::Source, address, what));
            }
            let owners = owners(&topology);
            let before = told.insert(address.clone(), owners.clone());
            if let Some(before) = before.filter(|before| *before != owners) {
                let pairs = before.iter().zip(&owners);
                let count = pairs.filter(|(before, now)| before != now).count();
                tracing::info!(
                    count,
                    node = address,
                    "slots of the source have moved: a sweep looks at every key"
                );
                shared.raise("slots_moved");
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// By slot: its primary.
fn owners(topology: &Topology) -> Vec<Option<String>> {
    let slots = (0..rewrite::SLOTS).map(rewrite::Slot);
    slots
        .map(|slot| topology.owner(slot).map(|one| one.address.clone()))
        .collect()
}
