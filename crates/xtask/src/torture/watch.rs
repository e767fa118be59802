//! Looks on all the while: the daemon's memory, and a target that must never be empty.

use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::{Client, argv, client, process};

use super::shared::{Shared, ms};

/// Until the round is over.
pub(super) fn watch(shared: &Shared, memory_max: u64) {
    let mut turn = 0_u64;
    while shared.sleep(ms(100)) {
        let peak = process::peak_memory(shared.daemon_pid.load(Ordering::SeqCst));
        shared.daemon_peak.fetch_max(peak, Ordering::SeqCst);
        if peak > memory_max {
            shared.violation(format!(
                "the daemon has {peak} bytes of memory, limits.memory is {memory_max}"
            ));
        }
        turn += 1;
        if turn.is_multiple_of(5) && seen_empty(shared) {
            shared.violation("the target was seen empty");
        }
    }
}

/// Whether the primary answers that it has no key in db 0. One that is loading, hangs or is gone says nothing.
fn seen_empty(shared: &Shared) -> bool {
    let primary = shared.primary();
    let Ok(mut client) = Client::try_connect(&primary) else {
        return false;
    };
    let limit = Some(Duration::from_millis(500));
    if client.raw().set_read_timeout(limit).is_err() {
        return false;
    }
    let size = client.try_command(&argv!["DBSIZE"]);
    let role = client.try_command(&argv!["ROLE"]);
    let (Ok(size), Ok(role)) = (size, role) else {
        return false;
    };
    let role = client::items(role)
        .first()
        .map(client::text)
        .unwrap_or_default();
    // A primary of a moment ago is filled anew as the replica that it is by now.
    client::number(&size) == Some(0) && role == "master" && shared.primary() == primary
}
