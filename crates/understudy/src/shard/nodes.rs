//! The nodes of a source cluster, as CLUSTER NODES tells them.
//!
//! ```text
//! <id> <ip>:<port>@<bus port>[,<host>..] <flags> <master's id or -> <ping> <pong> <epoch> <state> <slot> <first>-<last> [<slot>->-<to>] ..
//! ```
//! Slots on their way stand only in a node's own line, so every node is asked, and its own line believed. Of several that claim
//! a slot it belongs to the one with the highest epoch.

use std::collections::{BTreeMap, BTreeSet};

use crate::target::cluster::address;

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) address: String,
    /// Whose replica it is; `None`: it is a master.
    pub(super) master: Option<String>,
    /// The others have given it up.
    pub(super) has_failed: bool,
    /// It has told this itself.
    is_own: bool,
    epoch: u64,
    slots: Vec<(u16, u16)>,
    /// Slots on their way to it, or away.
    moving: Vec<u16>,
}

/// All nodes that are known.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    nodes: BTreeMap<String, Node>,
}

impl View {
    /// Adds what the node at `asked` says.
    pub(super) fn add(&mut self, text: &str, asked: &str) -> Result<(), String> {
        for line in text.lines().filter(|line| !line.is_empty()) {
            let node = parse(line, asked).ok_or_else(|| {
                format!("CLUSTER NODES has a line that is not understood: {line}")
            })?;
            let Some(node) = node else { continue };
            let is_better = self.nodes.get(&node.id).is_none_or(|known| {
                (node.is_own, node.epoch) > (known.is_own, known.epoch)
                    || (!known.is_own && node.has_failed)
            });
            if is_better {
                self.nodes.insert(node.id.clone(), node);
            }
        }
        Ok(())
    }

    pub(super) fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.get(id)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Who has each slot, by the nodes' ids.
    pub(super) fn owners(&self) -> Vec<Option<&str>> {
        let mut owners: Vec<Option<&Node>> = vec![None; usize::from(rewrite::SLOTS)];
        for node in self.nodes.values().filter(|node| node.master.is_none()) {
            for (first, last) in &node.slots {
                let range = owners.get_mut(usize::from(*first)..=usize::from(*last));
                for owner in range.into_iter().flatten() {
                    if owner.is_none_or(|owner| owner.epoch < node.epoch) {
                        *owner = Some(node);
                    }
                }
            }
        }
        owners
            .into_iter()
            .map(|owner| owner.map(|node| node.id.as_str()))
            .collect()
    }

    /// Slots on their way from one node to another.
    pub(super) fn moving(&self) -> BTreeSet<u16> {
        let masters = self.nodes.values().filter(|node| node.master.is_none());
        masters.flat_map(|node| node.moving.clone()).collect()
    }
}

/// A line; `Some(None)`: a node that is not to be counted on.
fn parse(line: &str, asked: &str) -> Option<Option<Node>> {
    let mut words = line.split_ascii_whitespace();
    let (id, place, flags) = (words.next()?, words.next()?, words.next()?);
    let (master, _, _) = (words.next()?, words.next()?, words.next()?);
    let (epoch, _) = (words.next()?, words.next()?);
    let has = |flag: &str| flags.split(',').any(|one| one == flag);
    if has("handshake") || has("noaddr") {
        return Some(None);
    }
    let (host, port) = place.split('@').next()?.rsplit_once(':')?;
    let is_own = has("myself");
    let address = match is_own {
        // It has been reached there, whatever it announces.
        true => asked.to_owned(),
        false => address(host, port.parse().ok()?, asked),
    };
    let mut node = Node {
        id: id.to_owned(),
        address,
        master: (has("slave") || has("replica")).then(|| master.to_owned()),
        has_failed: has("fail"),
        is_own,
        epoch: epoch.parse().ok()?,
        slots: Vec::new(),
        moving: Vec::new(),
    };
    for word in words {
        if let Some(word) = word.strip_prefix('[') {
            let slot = word.split('-').next()?;
            node.moving.push(slot.parse().ok()?);
            continue;
        }
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= rewrite::SLOTS {
            return None;
        }
        node.slots.push((first, last));
    }
    Some(Some(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_believed_about_itself() {
        let mut view = View::default();
        let a = "a 10.0.0.1:7001@17001,h1 myself,master - 0 0 1 connected 0-5 7 [7->-b] [9-<-b]\nb 10.0.0.2:7002@17002 master - 0 0 2 connected 8-16383\nc 10.0.0.3:7003@17003 slave a 0 0 1 connected\nd :0@0 master,noaddr - 0 0 9 disconnected 0-16383\n";
        view.add(a, "seed:7001").unwrap();
        let b = "b 10.0.0.2:7002@17002 myself,master - 0 0 3 connected 7-16383\na 10.0.0.1:7001@17001 master,fail - 0 0 1 connected 0-16383\n";
        view.add(b, "10.0.0.2:7002").unwrap();
        let owners = view.owners();
        assert_eq!((owners[5], owners[6]), (Some("a"), None));
        assert_eq!((owners[7], owners[16383]), (Some("b"), Some("b")));
        assert_eq!(view.moving(), BTreeSet::from([7, 9]));
        assert_eq!(view.node("a").unwrap().address, "seed:7001");
        assert!(!view.node("a").unwrap().has_failed);
        assert_eq!(view.node("c").unwrap().master.as_deref(), Some("a"));
        assert_eq!(view.nodes().count(), 3);
    }

    #[test]
    fn who_has_failed_is_told_by_others() {
        let mut view = View::default();
        view.add("b 1:2@3 myself,master - 0 0 5 connected 0-9\na 1:1@3 master,fail - 0 0 1 connected 0-9", "1:2").unwrap();
        assert!(view.node("a").unwrap().has_failed);
        assert_eq!(view.owners()[3], Some("b"));
        for bad in [
            "a",
            "a b c d e f g h",
            "a 1:1@2 master - 0 0 1 connected 5-1",
            "a 1:1@2 master - 0 0 1 connected x",
        ] {
            assert!(view.add(bad, "1:1").is_err(), "{bad}");
        }
    }
}
