//! The source's data and its applications, which never stop writing.

use std::time::Duration;

use testkit::client::Argv;
use testkit::workload::{DBS, fill};
use testkit::{Client, Counters, Ledger, Server, Writer, argv};

use super::screen::Screen;
use crate::text::count;

const SEED: u64 = 7;
/// Commands a second, of every family of commands, and of counters.
const WRITER_RATE: u64 = 3000;
const COUNTER_RATE: u64 = 2000;
/// One key in so many is of a kind that only a database of everything has; the others are small, as they mostly are.
const ODD_ONE_IN: u64 = 8;
/// Elements of a big key, and how many go into one command.
const BIG: u64 = 250_000;
const PART: u64 = 500;
/// Bytes of the big string.
const TEXT: usize = 48 << 20;

/// The applications.
pub(super) struct Load {
    writer: Writer,
    counters: Counters,
}

impl Load {
    pub(super) fn start(address: &str) -> Self {
        Self {
            writer: Writer::start(address, SEED, WRITER_RATE),
            counters: Counters::start(address, SEED, COUNTER_RATE),
        }
    }

    /// Writes that the source has answered so far.
    pub(super) fn written(&self) -> u64 {
        self.writer.answered() + self.counters.acknowledged()
    }

    /// Every write in flight is answered, and no other comes.
    pub(super) fn stop(self) -> Ledger {
        // Both are told before either is waited for.
        std::thread::scope(|scope| {
            let counters = scope.spawn(|| self.counters.stop());
            self.writer.stop();
            counters.join().expect("counting does not panic")
        })
    }
}

/// Keys of every type, then the big ones; shows how far it is.
pub(super) fn fill_source(source: &Server, keys: u64, screen: &Screen) {
    std::thread::scope(|scope| {
        let filling = scope.spawn(|| {
            fill(&mut source.client(), SEED, keys.div_ceil(ODD_ONE_IN));
            fill_small(&mut source.client(), keys - keys.div_ceil(ODD_ONE_IN));
            fill_big(&mut source.client());
        });
        let mut client = source.client();
        while !filling.is_finished() {
            let keys: u64 = client.keyspace().values().sum();
            screen.live(&format!("filling      {} keys", count(keys)));
            std::thread::sleep(Duration::from_millis(100));
        }
        if let Err(panic) = filling.join() {
            std::panic::resume_unwind(panic);
        }
    });
    screen.settle();
}

/// Users, and sessions that end some day.
fn fill_small(client: &mut Client, keys: u64) {
    let mut commands: Vec<Argv> = Vec::new();
    for i in 0..keys {
        if i.is_multiple_of(keys.div_ceil(DBS.len() as u64)) {
            let db = DBS[(i / keys.div_ceil(DBS.len() as u64)) as usize];
            commands.push(argv!["SELECT", db]);
        }
        if i.is_multiple_of(3) {
            let name = format!("user {i}");
            commands.push(argv![
                "HMSET",
                format!("user:{i}"),
                "name",
                name,
                "visits",
                i
            ]);
        } else {
            let token = format!("token-{:032x}", u128::from(i).pow(3));
            let left = 3600 + i % 100_000;
            commands.push(argv!["SETEX", format!("session:{i}"), left, token]);
        }
    }
    client.commands(&commands);
}

fn fill_big(client: &mut Client) {
    client.select(0);
    let mut commands: Vec<Argv> = vec![argv!["SET", "big:text", vec![b'x'; TEXT]]];
    for from in (0..BIG).step_by(PART as usize) {
        let part = from..from + PART;
        let mut list = argv!["RPUSH", "big:list"];
        list.extend(part.clone().map(|i| format!("item {i}").into_bytes()));
        let mut set = argv!["SADD", "big:set"];
        set.extend(part.clone().map(|i| format!("member {i}").into_bytes()));
        let mut hash = argv!["HMSET", "big:hash"];
        let mut zset = argv!["ZADD", "big:zset"];
        for i in part {
            hash.extend(argv![format!("field {i}"), format!("value {}", i * i)]);
            zset.extend(argv![i as f64 / 7.0, format!("member {i}")]);
        }
        commands.extend([list, set, hash, zset]);
    }
    client.commands(&commands);
}
