//! A cluster into one server: every shard under load, the daemon killed in the midst of it, and at the end every key is what the
//! source's nodes have.

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::oracle::{self, KeyState, OracleOptions};

use super::compose::Rig;
use super::wait;

/// What redis-benchmark does, in the source's container, where it reaches all nodes.
const LOAD: &str =
    "redis-benchmark --cluster -p 7000 -t set,incr,lpush,rpop,sadd,hset,zadd -r 300 -n 6000 -q";

pub(super) fn drill(rig: &Rig) -> Result<String, String> {
    let load = || rig.inside("source", &["/bin/sh", "-c", LOAD]);
    load()?;
    rig.wait_ready()?;
    std::thread::scope(|scope| {
        let loading = scope.spawn(load);
        rig.kill("understudy", || {
            std::thread::sleep(Duration::from_millis(500))
        })?;
        loading
            .join()
            .map_err(|_| "the load has panicked".to_owned())?
    })?;
    rig.wait_ready()?;
    let mut keys = 0;
    wait("the target to be equal", || {
        let (source, target) = (all(&rig.sources()), all(&[rig.target()]));
        keys = source.len();
        is_equal(&source, &target)
    })?;
    match keys {
        0..500 => Err(format!(
            "only {keys} keys: the load has not reached the cluster"
        )),
        keys => Ok(format!("{keys} keys of three shards equal, over a kill")),
    }
}

pub(super) type Keys = BTreeMap<(u32, Vec<u8>), KeyState>;

/// All keys of all nodes, but for our own.
pub(super) fn all(nodes: &[String]) -> Keys {
    let mut keys = Keys::new();
    for node in nodes {
        keys.extend(oracle::read_all(node));
    }
    keys.retain(|(_, key), _| !key.windows(10).any(|part| part == b"understudy"));
    keys
}

pub(super) fn is_equal(source: &Keys, target: &Keys) -> bool {
    let options = OracleOptions::default();
    source.len() == target.len()
        && source.iter().all(|(key, state)| {
            let other = target.get(key);
            other.is_some_and(|other| oracle::difference(state, other, &options).is_none())
        })
}
