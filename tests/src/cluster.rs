//! A cluster as the target: a link to it, and both oracles at the end.

use testkit::oracle::{self, OracleOptions};
use testkit::{Cluster, Daemon, Ledger, Server};

use crate::{Link, catch_up};

/// A link from a source to the cluster that has a node at this address.
pub fn link_to_cluster(source: &Server, address: &str) -> Link {
    Link::between(&source.address(), address).with("redis_writer", "cluster = true")
}

/// When everything has come: every counter is what the source has acknowledged, and every key is equal.
///
/// # Panics
/// With what differs.
pub fn assert_same_in_cluster(
    daemon: &mut Daemon,
    source: &Server,
    cluster: &Cluster,
    ledger: Option<&Ledger>,
) {
    catch_up(daemon, source);
    cluster.wait_whole();
    if let Some(ledger) = ledger {
        let wrong = ledger.check_with(&mut |_, argv| cluster.read(&argv));
        assert!(wrong.is_empty(), "counters:\n{}", wrong.join("\n"));
    }
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_cluster_equal(&source.address(), &cluster.slots(), &options);
}
