//! Differences that are planted into a copy for `understudy compare` to find: of every kind that there is, and live writes beside them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::{Argv, Client};
use crate::{Cluster, Rng, Server, argv};

/// One kind of planted difference: commands that make the key at the source, and those that spoil the copy.
pub struct Plant {
    /// What a comparison calls it.
    pub kind: &'static str,
    /// Names the keys.
    pub word: &'static str,
    /// Makes the key at the source.
    pub make: fn(&str) -> Vec<Argv>,
    /// Spoils the copy.
    pub spoil: fn(&str) -> Vec<Argv>,
}

fn stream_with_group(key: &str) -> Vec<Argv> {
    vec![
        argv!["XADD", key, "1-1", "f", "v"],
        argv!["XADD", key, "2-1", "f", "w"],
        argv!["XADD", key, "3-1", "f", "x"],
        argv!["XGROUP", "CREATE", key, "g", "0"],
        argv![
            "XREADGROUP",
            "GROUP",
            "g",
            "alice",
            "COUNT",
            2,
            "STREAMS",
            key,
            ">"
        ],
    ]
}

/// All kinds.
pub const PLANTS: &[Plant] = &[
    Plant {
        kind: "value",
        word: "string",
        make: |key| vec![argv!["SET", key, "value"]],
        spoil: |key| vec![argv!["SET", key, "valuE"]],
    },
    Plant {
        kind: "value",
        word: "hash",
        make: |key| vec![argv!["HSET", key, "f", 1, "g", 2]],
        spoil: |key| vec![argv!["HSET", key, "g", 3]],
    },
    Plant {
        kind: "value",
        word: "set",
        make: |key| vec![argv!["SADD", key, "a", "b"]],
        spoil: |key| vec![argv!["SREM", key, "a"], argv!["SADD", key, "c"]],
    },
    Plant {
        kind: "type",
        word: "other",
        make: |key| vec![argv!["RPUSH", key, "a"]],
        spoil: |key| vec![argv!["DEL", key], argv!["SADD", key, "a"]],
    },
    Plant {
        kind: "ttl",
        word: "expiry",
        make: |key| vec![argv!["SET", key, "v", "EX", 10_000]],
        spoil: |key| vec![argv!["EXPIRE", key, 20_000]],
    },
    Plant {
        kind: "ttl",
        word: "persistent",
        make: |key| vec![argv!["SET", key, "v", "EX", 10_000]],
        spoil: |key| vec![argv!["PERSIST", key]],
    },
    Plant {
        kind: "order",
        word: "list",
        make: |key| vec![argv!["RPUSH", key, "a", "b", "c"]],
        spoil: |key| vec![argv!["LMOVE", key, key, "LEFT", "RIGHT"]],
    },
    Plant {
        kind: "score",
        word: "zset",
        make: |key| vec![argv!["ZADD", key, 1, "a", 2.5, "b"]],
        spoil: |key| vec![argv!["ZADD", key, 2.25, "b"]],
    },
    Plant {
        kind: "missing",
        word: "missing",
        make: |key| vec![argv!["SET", key, "v"]],
        spoil: |key| vec![argv!["DEL", key]],
    },
    Plant {
        kind: "extra",
        word: "extra",
        make: |_| vec![],
        spoil: |key| vec![argv!["SET", key, "v"]],
    },
    Plant {
        kind: "group",
        word: "no-group",
        make: stream_with_group,
        spoil: |key| vec![argv!["XGROUP", "DESTROY", key, "g"]],
    },
    Plant {
        kind: "group",
        word: "group-id",
        make: stream_with_group,
        spoil: |key| vec![argv!["XGROUP", "SETID", key, "g", "1-1"]],
    },
    Plant {
        kind: "pending",
        word: "acknowledged",
        make: stream_with_group,
        spoil: |key| vec![argv!["XACK", key, "g", "2-1"]],
    },
    Plant {
        kind: "pending",
        word: "claimed",
        make: stream_with_group,
        spoil: |key| vec![argv!["XCLAIM", key, "g", "bob", 0, "2-1"]],
    },
    Plant {
        kind: "messages",
        word: "stream",
        make: |key| vec![argv!["XADD", key, "1-1", "f", "v"]],
        spoil: |key| vec![argv!["XADD", key, "2-1", "f", "v"]],
    },
];

/// The key of the plant with this number.
pub fn key_of(plant: &Plant, number: u64) -> String {
    format!("plant:{}:{number}", plant.word)
}

/// What a comparison has to find once `count` keys of a database of the source are spoilt.
pub fn expected(db: u32, count: u64) -> BTreeMap<(i64, String), String> {
    let plants = (0..count).map(|number| (&PLANTS[number as usize % PLANTS.len()], number));
    let row = |(plant, number)| {
        (
            (i64::from(db), key_of(plant, number)),
            plant.kind.to_owned(),
        )
    };
    plants.map(row).collect()
}

/// Makes `count` keys to be spoilt, and gives what a comparison has to find once they are.
pub fn make(source: &mut Client, db: u32, count: u64) -> BTreeMap<(i64, String), String> {
    source.select(db);
    each(count, |key, plant| {
        source.commands(&(plant.make)(key));
    });
    expected(db, count)
}

/// Spoils them in a copy.
pub fn spoil(target: &mut Client, db: u32, count: u64) {
    target.select(db);
    each(count, |key, plant| {
        target.commands(&(plant.spoil)(key));
    });
}

/// The same at a cluster's nodes.
pub fn make_in_cluster(source: &Cluster, count: u64) -> BTreeMap<(i64, String), String> {
    let mut nodes = ByKey::new(source);
    each(count, |key, plant| {
        nodes.of(key).commands(&(plant.make)(key));
    });
    expected(0, count)
}

/// Spoils copies at a cluster's nodes; keys are called there what `name` makes of them.
pub fn spoil_in_cluster(target: &Cluster, count: u64, name: impl Fn(&str) -> String) {
    let mut nodes = ByKey::new(target);
    each(count, |key, plant| {
        let key = name(key);
        nodes.of(&key).commands(&(plant.spoil)(&key));
    });
}

fn each(count: u64, mut run: impl FnMut(&str, &Plant)) {
    for number in 0..count {
        let plant = &PLANTS[number as usize % PLANTS.len()];
        run(&key_of(plant, number), plant);
    }
}

/// Connections to a cluster's nodes, by the keys that they have.
#[derive(Debug)]
pub struct ByKey<'a> {
    cluster: &'a Cluster,
    clients: BTreeMap<String, Client>,
}

impl<'a> ByKey<'a> {
    /// None yet.
    pub fn new(cluster: &'a Cluster) -> Self {
        let clients = BTreeMap::new();
        Self { cluster, clients }
    }

    /// A connection to the node that has this key.
    pub fn of(&mut self, key: &str) -> &mut Client {
        let address = self.cluster.owner(self.cluster.slot(key));
        self.clients
            .entry(address.clone())
            .or_insert_with(|| Client::connect(&address))
    }
}

/// Writes to the keys that `fill` has made and to new ones, in pieces that a comparison can come between.
#[derive(Debug)]
pub struct Scribbler {
    stopped: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Scribbler {
    /// Starts on `keys` keys called `scribble:<number>`, in database 0.
    ///
    /// # Panics
    /// Where a command is refused.
    pub fn start(source: &Server, mut rng: Rng, keys: u64) -> Self {
        let stopped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stop = std::sync::Arc::clone(&stopped);
        let mut client = source.client();
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut commands = Vec::new();
                for _ in 0..50 {
                    let number = rng.below(keys);
                    let key = format!("scribble:{number}");
                    commands.push(match rng.below(6) {
                        0 => argv!["SET", key, rng.number()],
                        1 => argv!["SET", key, rng.number(), "PX", 500 + rng.below(100_000)],
                        2 => argv!["DEL", key],
                        3 => argv!["RENAME", key, format!("scribble:{}", rng.below(keys))],
                        4 => argv!["LPUSH", format!("list:{}", number % 1000), rng.number()],
                        _ => argv!["APPEND", key, "x"],
                    });
                }
                let (_, error) = client.pipeline(&commands);
                assert_eq!(error, None);
                count += 50;
                std::thread::sleep(Duration::from_millis(10));
            }
            count
        });
        Self {
            stopped,
            thread: Some(thread),
        }
    }

    /// Stops; how many commands it has written.
    ///
    /// # Panics
    /// Where it has panicked.
    pub fn stop(mut self) -> u64 {
        self.stopped
            .store(true, std::sync::atomic::Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("the scribbler does not panic")
    }
}

impl Drop for Scribbler {
    fn drop(&mut self) {
        self.stopped
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
