//! A cluster of six nodes into a cluster of another layout. Under load slots move, a primary is lost and the daemon is killed; both
//! ends are compared by understudy; then the application is switched, and no write that was acknowledged is missing. At the end
//! every key of the target is what the source's nodes have, and nothing of ours is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use testkit::{Client, argv};

use super::cluster::{all, is_equal};
use super::compose::Rig;
use super::shards::{RATE, is_master, links, load, lose_a_primary, reshard, wrote};
use super::wait;

const FILE: &str = "/etc/understudy/shake.toml";
/// Gates that do not open on a machine that is busy just then.
const ATTEMPTS: u32 = 5;

pub(super) fn drill(rig: &Rig) -> Result<String, String> {
    let nodes = rig.nodes();
    let writer = load(&nodes[..3]);
    wrote(&writer, 3 * RATE)?;
    reshard(rig, 7000, 7001)?;
    rig.kill("understudy", || {
        std::thread::sleep(Duration::from_millis(500));
    })?;
    reshard(rig, 7001, 7002)?;
    let live = lose_a_primary(&nodes)?;
    let masters = || -> Vec<String> {
        let masters = live.iter().filter(|node| is_master(node));
        masters.cloned().collect()
    };
    reshard(rig, 7001, 7000)?;
    wrote(&writer, RATE)?;
    wait_ready(rig)?;
    let compared = rig.inside("understudy", &["understudy", "compare", FILE, "--json"])?;
    println!(
        "  compared: {}",
        compared.lines().last().unwrap_or_default()
    );

    // The application counts at every primary; what was acknowledged before the switch is at the target, once.
    let counters: Vec<Counter> = masters()
        .into_iter()
        .map(Counter::start)
        .collect::<Result<_, _>>()?;
    let held = switch(rig)?;
    let commands = writer.stop();
    let mut counted = 0;
    for counter in counters {
        counted += counter.check(&rig.targets())?;
    }
    let mut keys = 0;
    wait("the target to be equal", || {
        let (source, target) = (all(&masters()), all(&rig.targets()));
        keys = source.len();
        is_equal(&source, &target)
    })?;
    if keys < 300 {
        return Err(format!(
            "only {keys} keys: the load has not reached the cluster"
        ));
    }
    let finish = ["cutover", FILE, "--finish", "--yes", "--remove-spool"];
    println!("{}", rig.once("understudy", &finish)?);
    let ours = rig.targets().iter().map(|node| ours(node)).sum::<usize>();
    if ours > 0 {
        return Err(format!("{ours} keys of ours are left"));
    }
    Ok(format!(
        "{keys} keys equal after {commands} commands, {counted} counts exact over a switch that held writes back for {held:.3} s"
    ))
}

/// Makes the switch; tells for how many seconds writes were held back.
fn switch(rig: &Rig) -> Result<f64, String> {
    let words = [
        "understudy",
        "cutover",
        FILE,
        "--yes",
        "--json",
        "--watch",
        "0s",
        "--compare",
        "full",
    ];
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        match rig.inside("understudy", &words) {
            Ok(told) => {
                let steps = told
                    .lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok());
                let steps: Vec<Value> = steps.collect();
                for step in &steps {
                    println!(
                        "    {:<10} {}",
                        step["step"].as_str().unwrap_or_default(),
                        step["text"]
                    );
                }
                let go = steps.iter().find(|step| step["step"] == "go");
                let held = go.and_then(|step| step["fence_seconds"].as_f64());
                return held.ok_or_else(|| format!("no GO: {told}"));
            }
            Err(why) => said = why,
        }
        println!("  not switched, once more: {said}");
    }
    Err(said)
}

fn wait_ready(rig: &Rig) -> Result<(), String> {
    wait("all shards to be followed", || {
        let links = links(&rig.status(0));
        let held: u64 = links
            .iter()
            .filter_map(|link| link["slots_held"].as_u64())
            .sum();
        let is_ready = rig.get("/readyz").is_some_and(|(code, _)| code == 200);
        is_ready && links.len() == 3 && held == 16_384
    })
}

fn ours(node: &str) -> usize {
    let mut client = Client::connect(node);
    let keys = client.command(&argv!["KEYS", "understudy:*"]);
    testkit::client::items(keys).len()
}

/// Counts a key of one node up until that is refused.
struct Counter {
    key: String,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Counter {
    fn start(node: String) -> Result<Self, String> {
        let mut client = Client::try_connect(&node).map_err(|error| error.to_string())?;
        let key = (0..10_000)
            .map(|n| format!("app:{n}"))
            .find(|key| client.try_command(&argv!["SET", key, 0]).is_ok())
            .ok_or("the node has no slot")?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (count, name) = (Arc::clone(&acknowledged), key.clone());
        let thread = std::thread::spawn(move || {
            while client.try_command(&argv!["INCR", &name]).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self {
            key,
            acknowledged,
            thread,
        })
    }

    /// What was acknowledged, if one of the nodes has just that.
    fn check(self, nodes: &[String]) -> Result<u64, String> {
        self.thread
            .join()
            .map_err(|_| "the counter has panicked".to_owned())?;
        let expected = self.acknowledged.load(Ordering::Relaxed);
        let found = nodes.iter().find_map(|node| {
            let mut client = Client::try_connect(node).ok()?;
            let found = client.try_command(&argv!["GET", &self.key]).ok()?;
            Some(testkit::client::text(&found))
        });
        match found {
            Some(found) if found == expected.to_string() => Ok(expected),
            found => Err(format!(
                "{}: {expected} counts were acknowledged, the target has {found:?}",
                self.key
            )),
        }
    }
}
