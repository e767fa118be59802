//! A cluster of real servers: primaries with all slots between them, and replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;

use crate::argv;
use crate::client::{Argv, Client, bytes, items, number, text};
use crate::engines::Engine;
use crate::process::wait_until;
use crate::server::{Server, ServerOptions};

const SLOTS: usize = 16_384;
/// How long the nodes may take to agree.
const LIMIT: Duration = Duration::from_secs(40);

/// A running cluster; its servers are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Primaries first, as they were at the beginning.
    pub servers: Vec<Server>,
}

impl Cluster {
    /// Starts `primaries` with the slots between them, and as many `replicas` of each.
    pub fn start(engine: &str, primaries: usize, replicas: usize) -> Self {
        Self::start_with(engine, primaries, replicas, "")
    }

    /// The same with more words for every server's command line.
    pub fn start_with(engine: &str, primaries: usize, replicas: usize, words: &str) -> Self {
        Self::start_each(engine, primaries, replicas, |_| words.to_owned())
    }

    /// The same with more words for the command line of each server by its place.
    pub fn start_each(
        engine: &str,
        primaries: usize,
        replicas: usize,
        words: impl Fn(usize) -> String,
    ) -> Self {
        let servers: Vec<Server> = (0..primaries * (1 + replicas))
            .map(|at| {
                let options = format!(
                    "--cluster-enabled yes --cluster-node-timeout 1500 --cluster-replica-validity-factor 0 --repl-diskless-sync yes {}",
                    words(at)
                );
                Server::start(&Engine::of(engine), ServerOptions::args(&options))
            })
            .collect();
        let cluster = Self { servers };
        for (at, server) in cluster.servers.iter().enumerate() {
            let mut client = server.client();
            // Epochs of their own, so that they need not be told apart later.
            client.command(&argv!["CLUSTER", "SET-CONFIG-EPOCH", at + 1]);
            if at < primaries {
                let mut add = argv!["CLUSTER", "ADDSLOTS"];
                let share = SLOTS * at / primaries..SLOTS * (at + 1) / primaries;
                add.extend(share.map(|slot| slot.to_string().into_bytes()));
                client.command(&add);
            }
            if at > 0 {
                let port = cluster.servers[0].port();
                client.command(&argv!["CLUSTER", "MEET", "127.0.0.1", port]);
            }
        }
        let count = cluster.servers.len();
        wait_until("the nodes know each other", LIMIT, || {
            cluster.servers.iter().all(|server| known(server) == count)
        });
        for (at, server) in cluster.servers.iter().enumerate().skip(primaries) {
            let primary = cluster.id((at - primaries) % primaries);
            wait_until("a replica has its primary", LIMIT, || {
                let replicate = argv!["CLUSTER", "REPLICATE", primary];
                server.client().try_command(&replicate).is_ok()
            });
        }
        wait_until("the cluster is whole", LIMIT, || {
            cluster.servers.iter().enumerate().all(|(at, server)| {
                let info = server.client().info("replication");
                is_ok(server) && (at < primaries || info["master_link_status"] == "up")
            })
        });
        cluster
    }

    /// Adds a node without slots.
    pub fn add(&mut self, engine: &str) -> usize {
        self.add_with(engine, "")
    }

    /// The same with more words for its command line.
    pub fn add_with(&mut self, engine: &str, words: &str) -> usize {
        let options = format!("--cluster-enabled yes --cluster-node-timeout 1500 {words}");
        let server = Server::start(&Engine::of(engine), ServerOptions::args(&options));
        let port = self.servers[0].port();
        server
            .client()
            .command(&argv!["CLUSTER", "MEET", "127.0.0.1", port]);
        self.servers.push(server);
        let count = self.servers.len();
        wait_until("the nodes know the new one", LIMIT, || {
            self.servers
                .iter()
                .filter(|server| server.answers())
                .all(|server| known(server) == count && is_ok(server))
        });
        count - 1
    }

    /// The place of the server that has a slot.
    pub fn place_of(&self, slot: u16) -> usize {
        let owner = self.owner(slot);
        let place = self
            .servers
            .iter()
            .position(|server| server.address() == owner);
        place.expect("one of ours")
    }

    /// Makes the nodes announce other ports than their own, such as those of doors before them.
    pub fn announce(&self, ports: &[u16]) {
        for (server, port) in self.servers.iter().zip(ports) {
            let mut client = server.client();
            let bus = server.port() + 10_000;
            client.command(&argv!["CONFIG", "SET", "cluster-announce-bus-port", bus]);
            client.command(&argv!["CONFIG", "SET", "cluster-announce-port", port]);
        }
        wait_until("the nodes know the ports", LIMIT, || {
            self.servers.iter().all(|server| {
                let slots = Self::slots_at(server);
                let known = |address: &String| {
                    ports
                        .iter()
                        .any(|port| address.ends_with(&format!(":{port}")))
                };
                slots.keys().all(known)
            })
        });
    }

    /// The address of a server.
    pub fn address(&self, at: usize) -> String {
        self.servers[at].address()
    }

    /// The id of a node.
    pub fn id(&self, at: usize) -> String {
        text(&self.servers[at].client().command(&argv!["CLUSTER", "MYID"]))
    }

    /// Waits until every replica has what its primary has sent.
    pub fn wait_replicas(&self) {
        wait_until("the replicas follow", LIMIT, || {
            self.servers
                .iter()
                .filter(|server| server.answers())
                .all(|server| {
                    let info = server.client().info("replication");
                    info["role"] == "master" || info["master_link_status"] == "up"
                })
        });
    }

    /// Slots by the address of their primary, as the first server that answers tells them.
    pub fn slots(&self) -> BTreeMap<String, Vec<(u16, u16)>> {
        let server = self.servers.iter().find(|server| server.answers());
        Self::slots_at(server.expect("a node answers"))
    }

    fn slots_at(server: &Server) -> BTreeMap<String, Vec<(u16, u16)>> {
        let mut slots: BTreeMap<String, Vec<(u16, u16)>> = BTreeMap::new();
        for range in items(server.client().command(&argv!["CLUSTER", "SLOTS"])) {
            let parts = items(range);
            let slot = |at: usize| number(&parts[at]).and_then(|slot| u16::try_from(slot).ok());
            let node = items(parts[2].clone());
            let host = text(&node[0]).replace("localhost", "127.0.0.1");
            let address = format!("{host}:{}", number(&node[1]).unwrap_or(0));
            let range = (slot(0).expect("a slot"), slot(1).expect("a slot"));
            slots.entry(address).or_default().push(range);
        }
        slots
    }

    /// Waits until all slots have primaries that answer, and every node says so.
    pub fn wait_whole(&self) {
        wait_until("the cluster is whole again", LIMIT, || {
            let up: Vec<&Server> = self
                .servers
                .iter()
                .filter(|server| server.answers())
                .collect();
            let addresses: Vec<String> = up.iter().map(|server| server.address()).collect();
            let slots = self.slots();
            up.iter()
                .all(|server| is_ok(server) && Self::slots_at(server) == slots)
                && slots.keys().all(|address| addresses.contains(address))
        });
    }

    /// The value of a command at the node of its first key, in db 0, which mostly is the only one.
    pub fn read(&self, argv: &Argv) -> Value {
        self.read_in(0, argv)
    }

    /// The same in any db.
    pub fn read_in(&self, db: u32, argv: &Argv) -> Value {
        let any = self.servers.iter().find(|server| server.answers());
        let slot = any
            .expect("a node answers")
            .client()
            .command(&argv!["CLUSTER", "KEYSLOT", argv[1]]);
        let slot = number(&slot).and_then(|slot| u16::try_from(slot).ok());
        let slot = slot.expect("a slot");
        let mut client = Client::connect(&self.owner(slot));
        if db != 0 {
            client.select(db);
        }
        client.command(argv)
    }

    /// The slot of a key, as a server says.
    pub fn slot(&self, key: &str) -> u16 {
        let any = self.servers.iter().find(|server| server.answers());
        let slot = any
            .expect("a node answers")
            .client()
            .command(&argv!["CLUSTER", "KEYSLOT", key]);
        let slot = number(&slot).and_then(|slot| u16::try_from(slot).ok());
        slot.expect("a slot")
    }

    /// The address of the node that has a slot.
    pub fn owner(&self, slot: u16) -> String {
        let owner = self.slots().into_iter().find(|(_, ranges)| {
            ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&slot))
        });
        owner.expect("every slot has a node").0
    }

    /// Moves a slot with its keys from one server to another, as `redis-cli --cluster reshard` does.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        self.end_move(slot, from, to);
    }

    /// All of it but the last word, so that both nodes still send to the one that had it.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (from_id, to_id) = (self.id(from), self.id(to));
        let (mut source, mut target) = (self.servers[from].client(), self.servers[to].client());
        target.command(&argv!["CLUSTER", "SETSLOT", slot, "IMPORTING", from_id]);
        source.command(&argv!["CLUSTER", "SETSLOT", slot, "MIGRATING", to_id]);
        // A db at a time, and those again that got keys meanwhile.
        loop {
            let mut moved = 0;
            let dbs: Vec<u32> = source.keyspace().into_keys().collect();
            for db in dbs {
                if db != 0 {
                    source.select(db);
                }
                moved += self.move_keys(&mut source, slot, to, db);
                if db != 0 {
                    source.select(0);
                }
            }
            if moved == 0 {
                break;
            }
        }
    }

    /// Moves the keys of a slot that are in the selected db, so many.
    fn move_keys(&self, source: &mut Client, slot: u16, to: usize, db: u32) -> usize {
        let mut moved = 0;
        loop {
            let keys = source.command(&argv!["CLUSTER", "GETKEYSINSLOT", slot, 10]);
            let keys: Vec<Vec<u8>> = items(keys).into_iter().map(bytes).collect();
            if keys.is_empty() {
                return moved;
            }
            moved += keys.len();
            let port = self.servers[to].port();
            let mut migrate = argv!["MIGRATE", "127.0.0.1", port, "", db, 10_000, "KEYS"];
            migrate.extend(keys);
            source.command(&migrate);
        }
    }

    /// The last word of it.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let to_id = self.id(to);
        let (mut source, mut target) = (self.servers[from].client(), self.servers[to].client());
        target.command(&argv!["CLUSTER", "SETSLOT", slot, "NODE", to_id]);
        source.command(&argv!["CLUSTER", "SETSLOT", slot, "NODE", to_id]);
        // Another move before all agree could leave two nodes that each send to the other.
        wait_until("all nodes know where the slot is", LIMIT, || {
            self.servers
                .iter()
                .filter(|server| server.answers())
                .all(|server| {
                    let slots = Self::slots_at(server);
                    let here = slots.get(&self.address(to)).into_iter().flatten();
                    here.into_iter()
                        .any(|(first, last)| (*first..=*last).contains(&slot))
                })
        });
    }

    /// Makes a replica take over from its living primary, and waits until it has.
    pub fn fail_over(&self, replica: usize, how: &str) {
        let mut client = self.servers[replica].client();
        let argv = match how {
            "" => argv!["CLUSTER", "FAILOVER"],
            how => argv!["CLUSTER", "FAILOVER", how],
        };
        client.command(&argv);
        wait_until("the replica has taken over", LIMIT, || {
            client.info("replication")["role"] == "master"
        });
    }

    /// Keys of a server that are ours.
    pub fn own_keys(&self, at: usize) -> Vec<String> {
        let keys = self.servers[at]
            .client()
            .command(&argv!["KEYS", "*understudy*"]);
        items(keys).iter().map(text).collect()
    }
}

fn known(server: &Server) -> usize {
    let nodes = text(&server.client().command(&argv!["CLUSTER", "NODES"]));
    nodes
        .lines()
        .filter(|line| !line.contains("handshake") && line.contains("connected"))
        .count()
}

fn is_ok(server: &Server) -> bool {
    let info = text(&server.client().command(&argv!["CLUSTER", "INFO"]));
    info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_with_replicas_that_take_over() {
        let mut cluster = Cluster::start("redis-7.0", 3, 1);
        assert_eq!(cluster.slots().len(), 3);
        cluster.servers[0].kill();
        wait_until("another node has the slots", LIMIT, || {
            !cluster.slots().contains_key(&cluster.address(0))
        });
        cluster.wait_whole();
        cluster.move_slot(16_383, 2, 1);
        cluster.read(&argv!["GET", "any"]);
    }
}
