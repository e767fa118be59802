//! A link that reads by SCAN: what its status says, and when both ends are to be equal.

use std::time::Duration;

use testkit::Daemon;

use crate::Link;

/// A number of the part of the status JSON that tells of reading by SCAN.
pub fn scan(daemon: &Daemon, field: &str) -> Option<u64> {
    daemon.status()?["understudy"]["scan"][field].as_u64()
}

/// Whether `/readyz` says yes.
pub fn is_ready(daemon: &Daemon) -> bool {
    daemon.get("/readyz").is_some_and(|(code, _)| code == 200)
}

/// Waits for a sweep that began after this, and found nothing.
#[track_caller]
pub fn settle(daemon: &mut Daemon, limit: Duration) {
    let sweeps = scan(daemon, "sweeps").unwrap_or(0);
    daemon.wait_for("a clean sweep, and nothing that waits", limit, |daemon| {
        scan(daemon, "sweeps").is_some_and(|now| now >= sweeps + 2)
            && is_ready(daemon)
            && scan(daemon, "dirty") == Some(0)
    });
}

/// The same link with sweeps that follow one another quickly.
pub fn fast(link: Link) -> Link {
    link.with("scan_reader", "repair_interval = \"500ms\"")
}
