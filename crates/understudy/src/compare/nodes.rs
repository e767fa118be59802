//! The nodes of an end that is a cluster: who has which slot, and where a command of ours goes.
//!
//! Everything here only reads. A key is asked for at the primary of its slot; while the slot is on its way to another node, that
//! is where MOVED and ASK point to. What names no key goes along with the key behind it, so that a TIME is that of the same
//! server.

use std::collections::BTreeMap;

use resp::{ErrorCode, Value};
use rewrite::{Slot, slot_of};

use crate::client::Client;
use crate::config::Endpoint;
use crate::error::{Side, SyncError};
use crate::target::cluster::Topology;

/// A cluster as it was seen last.
#[derive(Debug)]
pub(super) struct Nodes {
    pub(super) topology: Topology,
    /// A node was lost, or a slot went to one that was not known: everything is looked at anew.
    pub(super) is_stale: bool,
}

impl Nodes {
    /// Asks the nodes at these addresses in turn, the one that was given last.
    ///
    /// # Errors
    /// Stop for what is no cluster; reconnect where no node answers, or a slot has no node.
    pub(super) async fn find(
        endpoint: &Endpoint,
        side: Side,
        seen: &[String],
    ) -> Result<Self, SyncError> {
        let (mut failed, mut cut_off) = (None, None);
        let given = std::iter::once(&endpoint.address);
        for address in seen.iter().chain(given) {
            match ask(endpoint, side, address).await {
                Ok((topology, true)) => return Ok(Self::of(topology)),
                // One that is cut off from the others tells what it knew last: another one is believed first.
                Ok((topology, false)) => cut_off = cut_off.or(Some(topology)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (cut_off, failed) {
            (Some(topology), _) => Ok(Self::of(topology)),
            (None, Some(error)) => Err(error),
            (None, None) => {
                let what = "no node of the cluster answers";
                Err(SyncError::reconnect(side, &endpoint.address, what))
            }
        }
    }

    fn of(topology: Topology) -> Self {
        Self {
            topology,
            is_stale: false,
        }
    }

    /// The address of the slot's primary.
    pub(super) fn owner(&self, slot: Slot) -> Option<&str> {
        let owner = self.topology.owner(slot)?;
        Some(&owner.address)
    }

    /// The slot has moved there.
    pub(super) fn moved(&mut self, slot: Slot, address: &str) {
        if !self.topology.moved(slot, address) {
            self.is_stale = true;
        }
    }

    /// The places of commands by the node that they go to.
    pub(super) fn routes(
        &self,
        commands: &[Vec<&[u8]>],
    ) -> Result<BTreeMap<String, Vec<usize>>, String> {
        let mut routes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut last = self.owner(Slot(0)).map(str::to_owned);
        let mut waiting = Vec::new();
        for (at, argv) in commands.iter().enumerate() {
            let Some(key) = key_at(argv).and_then(|place| argv.get(place)) else {
                waiting.push(at);
                continue;
            };
            let slot = slot_of(key);
            let owner = self.owner(slot);
            let owner = owner.ok_or_else(|| format!("no node has slot {}", slot.0))?;
            let places = routes.entry(owner.to_owned()).or_default();
            places.append(&mut waiting);
            places.push(at);
            last = Some(owner.to_owned());
        }
        if let (Some(last), false) = (last, waiting.is_empty()) {
            routes.entry(last).or_default().append(&mut waiting);
        }
        Ok(routes)
    }
}

/// The place of the key in a command of ours; none in one that names no key.
pub(super) fn key_at(argv: &[&[u8]]) -> Option<usize> {
    match *argv.first()? {
        b"MEMORY" | b"XINFO" | b"OBJECT" => Some(2),
        b"TIME" | b"INFO" | b"SCAN" | b"FUNCTION" | b"CLUSTER" | b"PING" | b"CONFIG"
        | b"COMMAND" | b"ACL" | b"ROLE" => None,
        _ => Some(1),
    }
}

/// What a node tells, and whether it finds the cluster well.
async fn ask(
    endpoint: &Endpoint,
    side: Side,
    address: &str,
) -> Result<(Topology, bool), SyncError> {
    let node = Endpoint {
        address: address.to_owned(),
        ..endpoint.clone()
    };
    let mut client = Client::connect(&node, side).await?;
    let stop = |what: String| SyncError::stop(side, address, what);
    let reply = match client.ask(&[b"CLUSTER", b"SLOTS"]).await? {
        Value::Error(error) if error.text.ends_with(b"cluster support disabled") => {
            let key = match side {
                Side::Source => "sync_reader.cluster",
                Side::Target | Side::Local => "redis_writer.cluster",
            };
            return Err(stop(format!("this is not a cluster: set {key} = false")));
        }
        Value::Error(error) if error.code == ErrorCode::NoPerm => {
            return Err(stop(format!(
                "CLUSTER SLOTS was refused: {error}; comparing a cluster needs +cluster|slots +cluster|nodes +cluster|info +asking there"
            )));
        }
        Value::Error(error) => return Err(client.refused(&[b"CLUSTER SLOTS"], &error)),
        reply => reply,
    };
    let topology = Topology::parse(&reply, address).map_err(stop)?;
    if let Some(slot) = topology.missing() {
        let what = format!(
            "no node has slot {}; is the cluster whole? `redis-cli --cluster check {address}` tells",
            slot.0
        );
        return Err(SyncError::reconnect(side, address, what));
    }
    // Who may not ask has to take it as it is.
    let info = client.ask(&[b"CLUSTER", b"INFO"]).await?;
    let text = info.as_bytes().cloned().unwrap_or_default();
    let is_well = !String::from_utf8_lossy(&text).contains("cluster_state:fail");
    Ok((topology, is_well))
}

/// Slots on their way to the node that says this of itself (CLUSTER NODES).
pub(super) fn importing(text: &str) -> Vec<u16> {
    let own = text.lines().find(|line| {
        let flags = line.split_ascii_whitespace().nth(2).unwrap_or_default();
        flags.split(',').any(|flag| flag == "myself")
    });
    let words = own.unwrap_or_default().split_ascii_whitespace();
    let slot = |word: &str| {
        let (slot, from) = word.strip_prefix('[')?.split_once('-')?;
        from.starts_with("<-").then(|| slot.parse().ok())?
    };
    words.filter_map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Nodes {
        let text = "*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$1\r\na\r\n:1\r\n*3\r\n:8192\r\n:16383\r\n*2\r\n$1\r\nb\r\n:2\r\n";
        let mut buffer = bytes::BytesMut::from(text);
        let mut decoder = resp::ValueDecoder::new(resp::Limits::default());
        let value = decoder.poll(&mut buffer).unwrap().unwrap();
        Nodes::of(Topology::parse(&value, "x:1").unwrap())
    }

    #[test]
    fn a_command_without_a_key_goes_with_the_key_behind_it() {
        // Slots 15495 and 3300.
        let commands: Vec<Vec<&[u8]>> = vec![
            vec![b"TIME"],
            vec![b"PTTL", b"a"],
            vec![b"TIME"],
            vec![b"MEMORY", b"USAGE", b"b"],
            vec![b"INFO"],
        ];
        let routes = nodes().routes(&commands).unwrap();
        assert_eq!(routes["b:2"], [0, 1]);
        assert_eq!(routes["a:1"], [2, 3, 4]);
        let only: Vec<Vec<&[u8]>> = vec![vec![b"FUNCTION", b"LIST"]];
        assert_eq!(nodes().routes(&only).unwrap()["a:1"], [0]);
    }

    #[test]
    fn slots_on_their_way_to_a_node_stand_in_its_own_line() {
        let text = "a 1:1@2 master - 0 0 1 connected 0-5 [9-<-b]\nb 1:2@3 myself,master - 0 0 2 connected 6-16383 [7->-a] [8-<-a] [10-<-a]\n";
        assert_eq!(importing(text), [8, 10]);
        assert!(importing("").is_empty());
    }

    #[test]
    fn a_slot_that_goes_to_somebody_unknown_makes_it_stale() {
        let mut nodes = nodes();
        nodes.moved(Slot(0), "b:2");
        assert_eq!((nodes.owner(Slot(0)), nodes.is_stale), (Some("b:2"), false));
        nodes.moved(Slot(0), "c:3");
        assert!(nodes.is_stale);
    }
}
