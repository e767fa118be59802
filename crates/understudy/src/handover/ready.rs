//! Whether a switch-over may begin, by what the daemon knows by itself.

use super::Stage;
use crate::clock::unix_ms;
use crate::config::Limits;
use crate::status::{Phase, Status};

/// The target may be this far behind.
const LAG_MAX_MS: u64 = 1_000;
/// A source that has not told its offset for so long is not heard.
const SILENT_MS: u64 = 5_000;
/// The first pass copies, the next one compares.
const SWEEPS_MIN: u64 = 2;
/// A pass meets some of what no event tells, such as the groups of streams, before it is copied. That nothing at all differs is
/// proved under the fence.
const DIFFERENCES_MAX: u64 = 100;
/// So many keys are copied in a moment.
const DIRTY_MAX: u64 = 10_000;

/// Why it may not; nothing if it may.
pub(crate) fn reasons(status: &Status, limits: &Limits) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut note = |is_so: bool, what: &dyn Fn() -> String| {
        if is_so {
            reasons.push(what());
        }
    };
    if status.handover.state().stage == Stage::Go {
        note(true, &|| "the switch has been made".to_owned());
        return reasons;
    }
    let phase = status.phase();
    if phase != Phase::Stream && phase != Phase::Scan {
        note(true, &|| {
            format!("the snapshot is not applied ({})", phase.name())
        });
        return reasons;
    }
    let lag_ms = status.lag_ms();
    note(lag_ms >= LAG_MAX_MS, &|| {
        format!("the target is {:.1} s behind", seconds(lag_ms))
    });
    if phase == Phase::Scan {
        scanned(status, &mut note);
    } else {
        let heard_ms = status.source_heard_ms.get();
        let silent_ms = unix_ms().saturating_sub(heard_ms);
        note(heard_ms == 0, &|| {
            "the source has not told its offset (INFO replication)".to_owned()
        });
        note(heard_ms > 0 && silent_ms > SILENT_MS, &|| {
            format!("the source was last heard {:.0} s ago", seconds(silent_ms))
        });
    }
    let open = status.repairs_open.get();
    note(open > 0, &|| {
        format!("{open} keys are being copied again from the source")
    });
    let moving = status.slots_moving.get();
    note(moving > 0, &|| {
        format!("{moving} slots that have moved at the source are not taken over yet")
    });
    let unchecked = status.unchecked.get();
    note(unchecked > 0, &|| {
        format!(
            "{unchecked} keys may have ended too early at the target and could not be copied again: take a new snapshot, or see `understudy compare`"
        )
    });
    let far = status.leases_far.get();
    note(far > 0, &|| format!("{far} keys wait for their own expiry"));
    let found = status.compare_found.get();
    note(found > 0, &|| {
        format!("comparing has found {found} keys that differ: `understudy compare --repair`")
    });
    note(limits.is_paused(), &|| {
        "the link is paused (POST /resume)".to_owned()
    });
    note(status.spool_disk_full.get() == 1, &|| {
        "the disk under the spool is full".to_owned()
    });
    note(status.target_throttled.get() == 1, &|| {
        "the target takes much less than it did".to_owned()
    });
    reasons
}

/// A source that is read by SCAN: passes compare all keys, and find next to nothing.
fn scanned(status: &Status, note: &mut impl FnMut(bool, &dyn Fn() -> String)) {
    let scan = &status.scan;
    note(scan.hears_events.get() == 0, &|| {
        "keyspace events do not arrive (notify-keyspace-events = \"KEA\"): changes are found by passes alone".to_owned()
    });
    // The first one copies; and it may be that there is none (scan_reader.scan = false).
    let is_first = scan.sweeps.get() < SWEEPS_MIN;
    note(is_first, &|| {
        "no pass over all keys has compared both ends yet".to_owned()
    });
    let found = scan.differences.get();
    note(!is_first && found > DIFFERENCES_MAX, &|| {
        format!("the last pass over all keys has found {found} that differ")
    });
    let waiting = scan.dirty.get();
    note(waiting > DIRTY_MAX, &|| {
        format!("{waiting} keys that have changed are not at the target yet")
    });
}

#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_read_by_scan_has_reasons_of_its_own() {
        let (status, limits) = (Status::new(0), Limits::default());
        status.set_phase(Phase::Scan);
        let found = reasons(&status, &limits).join("\n");
        for word in ["keyspace events", "no pass"] {
            assert!(found.contains(word), "{word}: {found}");
        }
        status.scan.hears_events.set(1);
        status.scan.sweeps.add(2);
        assert_eq!(reasons(&status, &limits), Vec::<String>::new());
        status.scan.differences.set(DIFFERENCES_MAX + 1);
        status.scan.dirty.set(DIRTY_MAX + 1);
        let found = reasons(&status, &limits).join("\n");
        for word in ["101 that differ", "10001 keys"] {
            assert!(found.contains(word), "{word}: {found}");
        }
    }

    #[test]
    fn each_reason_is_named() {
        let (status, limits) = (Status::new(0), Limits::default());
        assert!(reasons(&status, &limits)[0].contains("snapshot"));
        status.set_phase(Phase::Stream);
        assert!(reasons(&status, &limits)[0].contains("INFO replication"));
        status.source_heard_ms.set(unix_ms());
        assert_eq!(reasons(&status, &limits), Vec::<String>::new());
        status.repairs_open.set(3);
        status.oldest_unapplied_ms.set(unix_ms() - 2_000);
        status.compare_found.set(1);
        limits.pause();
        let found = reasons(&status, &limits).join("\n");
        for word in ["2.0 s behind", "3 keys", "1 keys", "paused"] {
            assert!(found.contains(word), "{word}: {found}");
        }
    }
}
