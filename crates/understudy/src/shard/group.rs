//! What the links of one source cluster share: who has which slot, where each shard's master is, and how many full syncs run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::checkpoint::KEY_PREFIX;

/// No link.
const NOBODY: u16 = u16::MAX;

/// Who is to hold which slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// By slot: the place of the link that is to hold it.
    owners: Vec<u16>,
    /// By link: where its shard's master is.
    pub(crate) addresses: Vec<String>,
    /// By link: what its shard is called by.
    pub(crate) ids: Vec<String>,
}

impl Plan {
    /// A plan by each slot's link; nobody holds a slot that is on its way.
    pub(super) fn new(owners: &[Option<usize>], addresses: Vec<String>, ids: Vec<String>) -> Self {
        let place = |owner: &Option<usize>| {
            let owner = owner.and_then(|owner| u16::try_from(owner).ok());
            owner.unwrap_or(NOBODY)
        };
        Self {
            owners: owners.iter().map(place).collect(),
            addresses,
            ids,
        }
    }

    /// Which link is to hold the slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<usize> {
        let owner = self.owners.get(usize::from(slot));
        owner
            .filter(|owner| **owner != NOBODY)
            .copied()
            .map(usize::from)
    }

    /// The slots of a link.
    pub(crate) fn slots_of(&self, index: usize) -> Vec<u16> {
        let slots = 0..rewrite::SLOTS;
        slots
            .filter(|slot| self.owner(*slot) == Some(index))
            .collect()
    }
}

/// How the first snapshots are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Every key of the target is one of the source's.
    pub(crate) owned: bool,
    /// It held keys: those that are gone at the source are removed behind the snapshots.
    pub(crate) sweeps: bool,
}

/// The links of one source cluster.
#[derive(Debug)]
pub(crate) struct Group {
    /// The name that all their names begin with.
    pub(crate) base: String,
    plan: watch::Sender<Arc<Plan>>,
    full_syncs: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    pub(crate) begun: OnceLock<Begun>,
    /// Slots that a link is asked to let go at the target once more: the place of the link, and the slot.
    asked: Mutex<BTreeSet<(usize, u16)>>,
}

impl Group {
    pub(crate) fn new(base: String) -> Self {
        Self {
            base,
            plan: watch::Sender::new(Arc::default()),
            full_syncs: Mutex::default(),
            begun: OnceLock::new(),
            asked: Mutex::default(),
        }
    }

    /// Asks the link of a shard for slots that it holds by what the target says; false where there is no such link.
    pub(crate) fn ask_for(&self, id: &str, slot: u16) -> bool {
        let plan = self.plan();
        let Some(index) = plan.ids.iter().position(|known| known == id) else {
            return false;
        };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert((index, slot));
        true
    }

    /// What the link at this place was asked for since it looked last.
    pub(crate) fn take_asked(&self, index: usize) -> Vec<u16> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *asked);
        let (own, others): (BTreeSet<_>, BTreeSet<_>) =
            all.into_iter().partition(|(place, _)| *place == index);
        *asked = others;
        own.into_iter().map(|(_, slot)| slot).collect()
    }

    /// The name in the keys of the slots' checkpoints, where the target is a cluster: that of all links together.
    pub(crate) fn slots_name(&self) -> String {
        format!("{}/slots", self.base)
    }

    /// A link's name.
    pub(crate) fn link_name(&self, id: &str) -> String {
        format!("{}/{}", self.base, id.get(..12).unwrap_or(id))
    }

    /// The key at the target that says which link has claimed which slot.
    pub(crate) fn claims_key(&self) -> String {
        format!("{KEY_PREFIX}{}/slots", self.base)
    }

    /// The key at the target that says which process runs which shard's link.
    pub(crate) fn slices_key(&self) -> String {
        format!("{KEY_PREFIX}{}/shards", self.base)
    }

    /// Whether a key of ours belongs to one of the links, or to all.
    pub(crate) fn has_key(&self, own: &[u8]) -> bool {
        let Some(rest) = own.strip_prefix(KEY_PREFIX.as_bytes()) else {
            return false;
        };
        // In a cluster there are `{<tag>}:<name>` for each slot, and `{<key>}:cluster`.
        let name = match rest.strip_prefix(b"{") {
            None => rest,
            Some(tagged) => match tagged.strip_prefix(KEY_PREFIX.as_bytes()) {
                Some(name) => name,
                None => {
                    let mut parts = tagged.splitn(2, |byte| *byte == b'}');
                    parts.next();
                    let tail = parts.next().unwrap_or_default();
                    tail.strip_prefix(b":").unwrap_or_default()
                }
            },
        };
        let tail = name.strip_prefix(self.base.as_bytes());
        tail.is_some_and(|tail| tail.starts_with(b"/"))
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.borrow().clone()
    }

    /// Tells of changes of the plan.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Plan>> {
        self.plan.subscribe()
    }

    /// From here on this is the plan. Whether it is another one.
    pub(super) fn set_plan(&self, plan: Plan) -> bool {
        self.plan.send_if_modified(|known| {
            let is_new = **known != plan;
            if is_new {
                *known = Arc::new(plan);
            }
            is_new
        })
    }

    /// Leave for a full sync from the server at `address`, when no more than `at_once` others are under way at its host.
    /// 0: any number may be.
    pub(crate) async fn may_sync(
        &self,
        address: &str,
        at_once: usize,
    ) -> Option<OwnedSemaphorePermit> {
        if at_once == 0 {
            return None;
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let semaphore = {
            let mut hosts = self
                .full_syncs
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let host = hosts.entry(host.to_owned());
            host.or_insert_with(|| Arc::new(Semaphore::new(at_once)))
                .clone()
        };
        // It is never closed.
        semaphore.acquire_owned().await.ok()
    }
}

/// The address of a shard's master, which may become another one.
#[derive(Debug)]
pub struct Follow {
    pub(crate) group: Arc<Group>,
    pub(crate) index: usize,
    /// Where the link is connected to.
    connected: Mutex<String>,
}

impl Follow {
    pub(crate) fn new(group: Arc<Group>, index: usize) -> Self {
        Self {
            group,
            index,
            connected: Mutex::default(),
        }
    }

    /// Where it is now; `None` before anything is known.
    pub(crate) fn address(&self) -> Option<String> {
        self.group.plan().addresses.get(self.index).cloned()
    }

    /// The link follows the server there.
    pub(crate) fn connects(&self, address: &str) {
        let mut connected = self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        address.clone_into(&mut connected);
    }

    /// Whether the shard has another master than the one that the link follows.
    pub(crate) fn has_moved(&self) -> bool {
        let connected = self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        !connected.is_empty() && self.address().is_some_and(|now| now != *connected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_group_are_known() {
        let group = Group::new("a>b".to_owned());
        let name = group.link_name("0123456789abcdef");
        assert_eq!(name, "a>b/0123456789ab");
        let key = crate::checkpoint::key(&name);
        assert!(group.has_key(key.as_bytes()) && group.has_key(group.claims_key().as_bytes()));
        assert!(group.has_key(format!("understudy:checkpoint:{{17}}:{name}").as_bytes()));
        assert!(group.has_key(format!("understudy:checkpoint:{{{key}}}:cluster").as_bytes()));
        for other in [
            "understudy:checkpoint:a>b",
            "understudy:checkpoint:a>b2/x",
            "a>b/x",
        ] {
            assert!(!group.has_key(other.as_bytes()), "{other}");
        }
    }

    #[tokio::test]
    async fn full_syncs_of_a_host_wait_for_each_other() {
        let group = Group::new("a".to_owned());
        let first = group.may_sync("h:1", 1).await;
        assert!(first.is_some());
        let again = group.may_sync("h:2", 1);
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, again).await.is_err());
        assert!(group.may_sync("other:2", 1).await.is_some());
        drop(first);
        assert!(group.may_sync("h:2", 1).await.is_some());
        assert!(group.may_sync("h:2", 0).await.is_none());
    }
}
