//! Writes of all types at a rate, many to a key, and some of which end by themselves: what somebody has a hard time with who reads
//! keys as they are and not the commands that made them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::argv;
use crate::client::{Argv, Client};
use crate::rng::Rng;

/// Names of each type.
const NAMES: u64 = 20_000;
/// Commands that go together.
const TOGETHER: u64 = 100;

/// Writes until it is stopped, into database 0.
#[derive(Debug)]
pub struct Churn {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Churn {
    /// Begins, at so many commands a second.
    ///
    /// # Panics
    /// Its thread does when a command fails; [`Self::stop`] then does too.
    pub fn start(address: &str, seed: u64, per_second: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, over) = (address.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut client = Client::connect(&address);
            let mut rng = Rng::new(seed);
            let (from, mut done) = (Instant::now(), 0_u64);
            while !over.load(Ordering::SeqCst) {
                let due = from.elapsed().as_millis() as u64 * per_second / 1000;
                if done >= due {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let commands: Vec<_> = (0..TOGETHER).map(|_| one(&mut rng)).collect();
                done += TOGETHER;
                client.commands(&commands);
            }
            done
        });
        Self { stop, thread }
    }

    /// Ends it; gives the number of commands.
    ///
    /// # Panics
    /// If one has failed.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the writer ends well")
    }
}

/// A write. A key has one type only, so that none fails.
fn one(rng: &mut Rng) -> Argv {
    let n = rng.below(NAMES);
    let value = format!("{}", rng.number());
    let name = |kind: &str| format!("load:{kind}:{n}");
    match rng.below(12) {
        0..=3 => argv!["SET", name("s"), value],
        4 => argv![
            "SET",
            name("e"),
            value,
            "PX",
            format!("{}", 20 + rng.below(4000))
        ],
        5 => argv!["HSET", name("h"), format!("f{}", rng.below(5)), value],
        6 => argv!["RPUSH", name("l"), value],
        7 => argv!["LTRIM", name("l"), "-5", "-1"],
        8 => argv!["ZADD", name("z"), format!("{}", rng.below(100)), value],
        9 => argv!["INCR", name("i")],
        10 => argv!["DEL", name("s"), name("h"), name("z"), name("l")],
        _ => argv![
            "XADD",
            format!("load:x:{}", n % 50),
            "MAXLEN",
            "100",
            "*",
            "f",
            value
        ],
    }
}
