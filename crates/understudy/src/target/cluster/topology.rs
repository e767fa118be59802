//! Which node of a cluster has which slot, as `CLUSTER SLOTS` tells it.
//!
//! ```text
//! [[first slot, last slot, [host, port, id, metadata], [a replica's host, port, ..], ..], ..]
//! ```
//! The host is the one that the cluster announces, a name or an address; an empty or a missing one is the one that was asked.

use std::collections::BTreeMap;

use resp::Value;
use rewrite::{SLOTS, Slot};

/// No node.
const NOBODY: u16 = u16::MAX;

/// Who has which slot.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    /// By slot: the place of its primary.
    owners: Vec<u16>,
    primaries: Vec<Primary>,
}

/// A node that has slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Primary {
    /// `host:port`.
    pub(crate) address: String,
    /// Its replicas'.
    pub(crate) replicas: Vec<String>,
}

impl Topology {
    /// Reads the answer of the node at `asked`.
    pub(crate) fn parse(reply: &Value, asked: &str) -> Result<Self, String> {
        let Value::Array(ranges) = reply else {
            return Err(format!("CLUSTER SLOTS answered {reply:?}"));
        };
        let mut topology = Self {
            owners: vec![NOBODY; usize::from(SLOTS)],
            primaries: Vec::new(),
        };
        for range in ranges {
            let read = topology.add(range, asked);
            read.ok_or_else(|| format!("CLUSTER SLOTS has a range {range:?}"))?;
        }
        Ok(topology)
    }

    fn add(&mut self, range: &Value, asked: &str) -> Option<()> {
        let Value::Array(parts) = range else {
            return None;
        };
        let [Value::Int(first), Value::Int(last), primary, replicas @ ..] = parts.as_slice() else {
            return None;
        };
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        let address = node(primary, asked)?;
        let replicas: Vec<String> = replicas
            .iter()
            .filter_map(|replica| node(replica, asked))
            .collect();
        let place = self.place(&address);
        self.primaries.get_mut(usize::from(place))?.replicas = replicas;
        self.owners.get_mut(first..=last)?.fill(place);
        Some(())
    }

    fn place(&mut self, address: &str) -> u16 {
        let known = self.primaries.iter().position(|one| one.address == address);
        let place = known.unwrap_or_else(|| {
            self.primaries.push(Primary {
                address: address.to_owned(),
                replicas: Vec::new(),
            });
            self.primaries.len() - 1
        });
        u16::try_from(place).unwrap_or(NOBODY)
    }

    /// Who has the slot; nobody where the cluster is not whole.
    pub(crate) fn owner(&self, slot: Slot) -> Option<&Primary> {
        let place = self.owners.get(usize::from(slot.0))?;
        self.primaries.get(usize::from(*place))
    }

    /// The slot has moved to this primary; false if it is none that is known.
    pub(crate) fn moved(&mut self, slot: Slot, address: &str) -> bool {
        let known = self.primaries.iter().position(|one| one.address == address);
        let place = known.and_then(|place| u16::try_from(place).ok());
        match (place, self.owners.get_mut(usize::from(slot.0))) {
            (Some(place), Some(owner)) => {
                *owner = place;
                true
            }
            _ => false,
        }
    }

    /// The first slot that nobody has.
    pub(crate) fn missing(&self) -> Option<Slot> {
        let has_owner = |place: &u16| usize::from(*place) < self.primaries.len();
        let missing = self.owners.iter().position(|place| !has_owner(place))?;
        u16::try_from(missing).ok().map(Slot)
    }

    /// Addresses of all primaries that have slots.
    pub(crate) fn primaries(&self) -> Vec<String> {
        self.primaries
            .iter()
            .map(|one| one.address.clone())
            .collect()
    }

    /// Addresses of all nodes.
    pub(crate) fn nodes(&self) -> Vec<String> {
        let mut nodes = self.primaries();
        nodes.extend(self.primaries.iter().flat_map(|one| one.replicas.clone()));
        nodes
    }

    /// All slots by their primaries' addresses.
    pub(crate) fn slots(&self) -> BTreeMap<String, Vec<Slot>> {
        let mut slots: BTreeMap<String, Vec<Slot>> = BTreeMap::new();
        for slot in (0..SLOTS).map(Slot) {
            if let Some(owner) = self.owner(slot) {
                slots.entry(owner.address.clone()).or_default().push(slot);
            }
        }
        slots
    }
}

/// `host:port` of a node in the answer of the one at `asked`.
fn node(node: &Value, asked: &str) -> Option<String> {
    let Value::Array(facts) = node else {
        return None;
    };
    let host = match facts.first()? {
        Value::Null => "",
        host => std::str::from_utf8(host.as_bytes()?).ok()?,
    };
    let Value::Int(port) = facts.get(1)? else {
        return None;
    };
    // A cluster that prefers names says `?` of a node that has none; what it knows besides stands in the metadata.
    let ip = match (host, facts.get(3)) {
        ("?", Some(Value::Array(metadata))) => metadata
            .chunks(2)
            .find(|pair| {
                pair.first()
                    .and_then(Value::as_bytes)
                    .is_some_and(|name| **name == *b"ip")
            })
            .and_then(|pair| std::str::from_utf8(pair.get(1)?.as_bytes()?).ok()),
        _ => None,
    };
    let host = ip.unwrap_or(if host == "?" { "" } else { host });
    Some(address(host, u16::try_from(*port).ok()?, asked))
}

/// `host:port`; an empty host is the one of `asked`.
pub(crate) fn address(host: &str, port: u16, asked: &str) -> String {
    if host.is_empty() || host == "?" {
        let host = asked.rsplit_once(':').map_or(asked, |(host, _)| host);
        return format!("{host}:{port}");
    }
    if host.contains(':') {
        return format!("[{host}]:{port}");
    }
    format!("{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Topology, String> {
        let mut buffer = bytes::BytesMut::from(text.replace('\n', "\r\n").as_bytes());
        let mut decoder = resp::ValueDecoder::new(resp::Limits::default());
        let value = decoder.poll(&mut buffer).unwrap().unwrap();
        Topology::parse(&value, "seed.example:7000")
    }

    #[test]
    fn owners_replicas_and_holes() {
        let text = "*2\n*4\n:0\n:9999\n*4\n$2\nh1\n:7001\n$1\na\n*0\n*4\n$0\n\n:7004\n$1\nd\n*0\n*3\n:10001\n:16383\n*3\n$-1\n:7002\n$1\nb\n";
        let mut topology = read(text).unwrap();
        assert_eq!(topology.owner(Slot(0)).unwrap().address, "h1:7001");
        assert_eq!(
            topology.owner(Slot(0)).unwrap().replicas,
            ["seed.example:7004"]
        );
        assert_eq!(
            topology.owner(Slot(16383)).unwrap().address,
            "seed.example:7002"
        );
        assert_eq!(topology.missing(), Some(Slot(10000)));
        assert!(topology.moved(Slot(10000), "h1:7001") && topology.missing().is_none());
        assert!(!topology.moved(Slot(1), "h9:1"));
        assert_eq!(topology.nodes().len(), 3);
    }

    #[test]
    fn a_node_without_a_name_is_found_by_its_address() {
        let text = "*1\n*3\n:0\n:16383\n*4\n$1\n?\n:7001\n$1\na\n*2\n$2\nip\n$9\n127.0.0.2\n";
        assert_eq!(read(text).unwrap().primaries(), ["127.0.0.2:7001"]);
        assert_eq!(address("::1", 5, "x:1"), "[::1]:5");
        assert!(read("*1\n*1\n:0\n").is_err());
        assert!(read("+OK\n").is_err());
    }
}
