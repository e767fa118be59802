//! What exactly-once costs at a cluster: the same commands in windows as the daemon sends them, in each form, in one run.
//!
//! `cargo run -p e2e --release --example cluster_cost` prints rates and the nodes' CPU time.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use testkit::client::Argv;
use testkit::{Client, Cluster, Rng, argv};

/// Commands in a window, as `redis_writer.batch_commands` has it by default.
const WINDOW: usize = 16_384;
const SCRIPT: &str = "\
local found = redis.call('GET', KEYS[1])
if found ~= ARGV[1] then return redis.error_reply('STALE') end
redis.call('SET', KEYS[1], ARGV[2])
local at = 3
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  redis.pcall(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end
return 1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Transactions,
    Script,
}

/// CPU time of a process in seconds.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let fields = stat.rsplit_once(')').expect("a name").1;
    let fields: Vec<i64> = fields
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // State is no number, so that utime and stime are the 11th and 12th of the numbers behind it.
    (fields[10] + fields[11]) as f64 / 100.0
}

/// What a slot's commands come to in a form.
fn form_of(form: Form, sha: &str, mark: &str, before: u64, commands: &[Argv]) -> Vec<Argv> {
    let after = before + 1;
    match form {
        Form::Plain => commands.to_vec(),
        Form::Transactions => {
            let mut all = vec![argv!["MULTI"]];
            all.extend(commands.iter().cloned());
            all.push(argv!["SET", mark, format!("v1|1|{after:016}|0|1")]);
            all.push(argv!["EXEC"]);
            all
        }
        Form::Script => {
            let mut call = argv!["EVALSHA", sha, 1 + commands.len(), mark];
            call.extend(commands.iter().map(|argv| argv[1].clone()));
            call.push(format!("v1|1|{before:016}|0|1").into_bytes());
            call.push(format!("v1|1|{after:016}|0|1").into_bytes());
            for argv in commands {
                call.push(argv.len().to_string().into_bytes());
                call.extend(argv.iter().cloned());
            }
            vec![call]
        }
    }
}

fn main() {
    let total = e2e::from_env("UNDERSTUDY_COMMANDS", 60_000) as usize;
    let cluster = Cluster::start("redis-7.0", 3, 0);
    let slots = cluster.slots();
    let tags = rewrite::slot_tags();
    for form in [Form::Plain, Form::Transactions, Form::Script, Form::Plain] {
        let mut rng = Rng::new(7);
        let mut nodes: BTreeMap<String, (Client, String)> = BTreeMap::new();
        for address in slots.keys() {
            let mut client = Client::connect(address);
            client.command(&argv!["FLUSHALL"]);
            let sha = testkit::client::text(&client.command(&argv!["SCRIPT", "LOAD", SCRIPT]));
            nodes.insert(address.clone(), (client, sha));
        }
        let owner = |slot: u16| {
            let mut all = slots.iter();
            let found = all.find(|(_, ranges)| {
                let mut ranges = ranges.iter();
                ranges.any(|(first, last)| (*first..=*last).contains(&slot))
            });
            found.expect("every slot has a node").0
        };
        let mut windows: BTreeMap<u16, u64> = BTreeMap::new();
        if form == Form::Script {
            for (slot, tag) in tags.iter().enumerate() {
                let slot = u16::try_from(slot).expect("a slot");
                let mark = format!("understudy:checkpoint:{{{tag}}}:cost");
                let first = argv!["SET", mark, format!("v1|1|{:016}|0|1", 0)];
                nodes
                    .get_mut(owner(slot))
                    .expect("a node")
                    .0
                    .command(&first);
            }
        }
        let before: f64 = cluster.servers.iter().map(|server| cpu(server.pid())).sum();
        let from = Instant::now();
        let mut done = 0;
        while done < total {
            let mut groups: BTreeMap<u16, Vec<Argv>> = BTreeMap::new();
            for _ in 0..WINDOW {
                let key = format!("key:{:012}", rng.below(1_000_000));
                let slot = rewrite::slot_of(key.as_bytes()).0;
                groups
                    .entry(slot)
                    .or_default()
                    .push(argv!["SET", key, "x".repeat(64)]);
            }
            let mut batches: BTreeMap<&String, Vec<Argv>> = BTreeMap::new();
            for (slot, commands) in &groups {
                let node = owner(*slot);
                let mark = format!(
                    "understudy:checkpoint:{{{}}}:cost",
                    tags[usize::from(*slot)]
                );
                let window = windows.entry(*slot).or_default();
                let words = form_of(form, &nodes[node].1, &mark, *window, commands);
                *window += 1;
                batches.entry(node).or_default().extend(words);
            }
            for (node, commands) in batches {
                nodes.get_mut(node).expect("a node").0.commands(&commands);
            }
            done += WINDOW;
        }
        let seconds = from.elapsed().as_secs_f64();
        let after: f64 = cluster.servers.iter().map(|server| cpu(server.pid())).sum();
        println!(
            "{form:?}: {:.0} commands/s, the nodes' CPU {:.2} s per million",
            done as f64 / seconds,
            (after - before) / done as f64 * 1e6
        );
    }
}
