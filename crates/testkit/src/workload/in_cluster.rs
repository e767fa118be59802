//! A workload at a cluster: counters, lists and other things that show every command which is lost or done twice, with keys in all
//! slots, some of them sharing hash tags. It follows its keys wherever slots move and primaries fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::Value;

use crate::argv;
use crate::client::{Argv, Client, Error};
use crate::rng::Rng;

/// Writes at a cluster until it is stopped.
#[derive(Debug)]
pub struct ClusterWriter {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl ClusterWriter {
    /// Begins, at about so many commands a second, by any of these nodes.
    pub fn start(nodes: &[String], seed: u64, per_second: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let mut writer = Writer {
            nodes: nodes.to_vec(),
            clients: HashMap::new(),
            places: HashMap::new(),
            rng: Rng::new(seed),
            number: 0,
        };
        let (asked, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                for _ in 0..(per_second / 100).max(1) {
                    if writer.write() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // The rate, not a moment.
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self {
            stop,
            answered,
            thread: Some(thread),
        }
    }

    /// Commands that were answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it; gives the number of commands that were answered.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.answered()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the writer ends well");
        }
    }
}

impl Drop for ClusterWriter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Writer {
    nodes: Vec<String>,
    clients: HashMap<String, Client>,
    /// Where keys were seen.
    places: HashMap<Vec<u8>, String>,
    rng: Rng,
    number: u64,
}

impl Writer {
    fn write(&mut self) -> bool {
        self.number += 1;
        let n = self.number;
        let at = self.rng.below(400);
        let tag = self.rng.below(120);
        let other = self.rng.below(4);
        let argv = match self.rng.below(16) {
            0..=3 => argv!["INCR", format!("count:{at}")],
            4 => argv!["APPEND", format!("text:{at}"), format!("{n},")],
            5 | 6 => argv!["RPUSH", format!("{{t{tag}}}:list:{other}"), n],
            7 => argv![
                "LMOVE",
                format!("{{t{tag}}}:list:{other}"),
                format!("{{t{tag}}}:list:{}", other ^ 1),
                "LEFT",
                "RIGHT"
            ],
            8 => argv!["HINCRBY", format!("hash:{at}"), other, 1],
            9 => argv!["ZINCRBY", format!("scores:{at}"), 1, other],
            10 => argv!["SADD", format!("{{t{tag}}}:set:{other}"), n % 50],
            11 => argv![
                "SMOVE",
                format!("{{t{tag}}}:set:{other}"),
                format!("{{t{tag}}}:set:{}", other ^ 1),
                n % 50
            ],
            12 => argv![
                "SET",
                format!("value:{at}"),
                n,
                "PX",
                400 + self.rng.below(60_000)
            ],
            13 => argv![
                "RENAME",
                format!("{{t{tag}}}:list:{other}"),
                format!("{{t{tag}}}:list:{}", (other + 1) % 4)
            ],
            14 => argv!["DEL", format!("text:{at}")],
            _ => argv!["XADD", format!("stream:{at}"), "*", "n", n],
        };
        self.send(&argv).is_some()
    }

    /// Sends it to wherever its first key is; nothing, where it is refused or cannot be sent now.
    fn send(&mut self, argv: &Argv) -> Option<Value> {
        let key = argv[1].clone();
        let mut asking = None;
        for _ in 0..12 {
            let place = match asking.clone() {
                Some(place) => place,
                None => match self.places.get(&key) {
                    Some(place) => place.clone(),
                    None => self.rng.pick(&self.nodes).clone(),
                },
            };
            let Some(client) = self.client(&place) else {
                self.places.remove(&key);
                asking = None;
                continue;
            };
            if asking.take().is_some() {
                let _ = client.try_command(&argv!["ASKING"]);
            }
            match client.try_command(argv) {
                Ok(value) => return Some(value),
                Err(Error::Reply(text)) => {
                    let mut words = text.split_whitespace();
                    match (words.next(), words.nth(1)) {
                        (Some("MOVED"), Some(to)) => {
                            drop(self.places.insert(key.clone(), to.into()))
                        }
                        (Some("ASK"), Some(to)) => asking = Some(to.into()),
                        (Some("TRYAGAIN" | "CLUSTERDOWN"), _) => {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        _ => return None,
                    }
                }
                Err(Error::Connection(_)) => {
                    // Whether it was done is not known: it is not sent again.
                    self.clients.remove(&place);
                    self.places.remove(&key);
                    return None;
                }
            }
        }
        None
    }

    fn client(&mut self, place: &str) -> Option<&mut Client> {
        if !self.clients.contains_key(place) {
            let client = Client::try_connect(place).ok()?;
            self.clients.insert(place.into(), client);
        }
        self.clients.get_mut(place)
    }
}
