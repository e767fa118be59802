//! The lines to both ends, the clocks, the rate of writes, and what comes of them: how long the snapshot takes, and what
//! it takes on disk.

use std::path::{Path, PathBuf};
use std::time::Instant;

use resp::Value;

use super::facts::Server;
use super::finding::{Finding, fail, pass, unknown, warn};
use crate::client::Info;
use crate::config::{Config, human_bytes};
use crate::error::SyncError;

/// What a target takes of a snapshot in a second (docs/performance.md): its processor is the bound.
const APPLIED_BYTES_PER_SECOND: f64 = 70.0 * 1048576.0;
/// An RDB is about half of what it takes in memory.
const RDB_SHARE: u64 = 2;
/// Clocks may be so far apart.
const SKEW_WARN_MS: i64 = 500;
const SKEW_FAIL_MS: i64 = 60_000;
/// Beside the spool's own rule (docs/operations.md).
const SPOOL_MORE_BYTES: u64 = 64 << 20;

/// What the snapshot will be like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    /// Of the source, in bytes a second.
    pub(super) write_rate: f64,
    /// The rate was told by the replication offset; else by all that clients have sent.
    pub(super) is_exact: bool,
    pub(super) rdb_bytes: u64,
    /// From the source to us.
    pub(super) transfer_seconds: f64,
    /// Until the target has it.
    pub(super) apply_seconds: f64,
}

/// What the source had written, and when it said so.
pub(super) struct Mark {
    at: Instant,
    offset: Option<u64>,
    received: Option<u64>,
}

impl Mark {
    /// Asks the source.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn take(source: &mut Server) -> Result<Self, SyncError> {
        let info = match source.end.one(0, &[b"INFO"]).await? {
            Value::Bulk(text) => Info::of(&text),
            _ => Info::of(b""),
        };
        let number = |field: &str| info.get(field)?.trim().parse().ok();
        Ok(Self {
            at: Instant::now(),
            offset: number("master_repl_offset")
                .filter(|_| info.get("repl_backlog_active") == Some("1")),
            received: number("total_net_input_bytes"),
        })
    }

    /// Bytes a second since `earlier`, and whether that is what replicas get.
    pub(super) fn rate_since(&self, earlier: &Self) -> (f64, bool) {
        let seconds = (self.at - earlier.at).as_secs_f64().max(1e-3);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rate = |now: Option<u64>, before: Option<u64>| {
            Some(now?.saturating_sub(before?) as f64 / seconds)
        };
        match rate(self.offset, earlier.offset) {
            Some(rate) => (rate, true),
            None => (rate(self.received, earlier.received).unwrap_or(0.0), false),
        }
    }
}

impl Estimate {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn new(
        used_memory: u64,
        source_rate: Option<f64>,
        target_rate: Option<f64>,
        (write_rate, is_exact): (f64, bool),
    ) -> Self {
        let rdb_bytes = used_memory / RDB_SHARE;
        let bytes = rdb_bytes as f64;
        let transfer_seconds = bytes / source_rate.unwrap_or(f64::MAX).max(1.0);
        let applied = target_rate
            .unwrap_or(f64::MAX)
            .min(APPLIED_BYTES_PER_SECOND);
        Self {
            write_rate,
            is_exact,
            rdb_bytes,
            transfer_seconds,
            apply_seconds: (bytes / applied).max(transfer_seconds),
        }
    }
}

/// Round trips and bandwidth of both ends, and what comes of them.
pub(super) fn lines(source: Option<&Server>, target: &Server, estimate: &Estimate) -> Vec<Finding> {
    let mut found = Vec::new();
    for server in source.into_iter().chain([target]) {
        let rtt = server.rtt;
        let side = server.end.side;
        let what = format!(
            "{side}: {:.1} ms (least {:.1}, most {:.1})",
            ms(rtt.p50_us),
            ms(rtt.min_us),
            ms(rtt.max_us)
        );
        found.push(match rtt.p50_us > 50_000 {
            true => warn(
                "rtt",
                what,
                "run understudy near the target: each transaction waits for one round trip",
            ),
            false => pass("rtt", what),
        });
    }
    let speed = |server: &Server| server.bytes_per_second;
    let words =
        |rate: Option<f64>| rate.map_or("not told".to_owned(), |rate| format!("{}/s", human(rate)));
    let speeds = [source.and_then(speed), speed(target)];
    let what = format!(
        "one connection: source {}, target {}; the source is written at {}/s{}",
        words(speeds[0]),
        words(speeds[1]),
        human(estimate.write_rate),
        match estimate.is_exact {
            true => "",
            false => " at most (all that its clients send, since it has no replica)",
        }
    );
    let slowest = speeds.into_iter().flatten().fold(f64::MAX, f64::min);
    found.push(if estimate.write_rate > slowest {
        fail(
            "bandwidth",
            format!("{what}: more than the line carries"),
            "a faster line, or a machine nearer to both ends: the target would never catch up",
        )
    } else if estimate.write_rate > slowest / 2.0 {
        warn(
            "bandwidth",
            what,
            "more than half of what the line carries: it will catch up slowly",
        )
    } else {
        pass("bandwidth", what)
    });
    found.push(pass(
        "snapshot_time",
        format!(
            "about {} of RDB: {} from the source, {} until the target has it",
            human_bytes(estimate.rdb_bytes),
            time(estimate.transfer_seconds),
            time(estimate.apply_seconds)
        ),
    ));
    found
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate that is not negative"
)]
fn human(bytes: f64) -> String {
    human_bytes(bytes as u64)
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1.5 => "a second".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// How far the clocks are apart.
pub(super) fn clocks(source: &Server, target: &Server) -> Finding {
    const CHECK: &str = "clock";
    let (Some(source), Some(target)) = (source.clock_ms, target.clock_ms) else {
        return unknown(
            CHECK,
            "one of both ends does not tell its time",
            "allow +time; keys expire by the target's clock",
        );
    };
    let skew_ms = target.0 - source.0;
    let unsure_ms = target.1 + source.1;
    let ahead = if skew_ms > 0 { "target" } else { "source" };
    if skew_ms.abs() <= unsure_ms.max(SKEW_WARN_MS) {
        return pass(
            CHECK,
            format!("within {} ms of one another", skew_ms.abs().max(1)),
        );
    }
    let what = format!(
        "the {ahead}'s clock is {:.1} s ahead: keys expire by the target's clock",
        skew_ms.abs() as f64 / 1000.0
    );
    let mend = "set both clocks by NTP";
    match skew_ms.abs() > SKEW_FAIL_MS {
        true => fail(CHECK, what, mend),
        false => warn(CHECK, what, mend),
    }
}

/// Room for the spool.
pub(super) fn disk(config: &Config, estimate: &Estimate) -> Finding {
    const CHECK: &str = "disk";
    let spool = &config.spool;
    let place = existing(&spool.dir);
    let stream = estimate.write_rate * estimate.apply_seconds;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate that is not negative"
    )]
    let stream = stream as u64;
    let need = estimate.rdb_bytes + stream + spool.retain_bytes + SPOOL_MORE_BYTES;
    if estimate.rdb_bytes > spool.max_bytes || stream > spool.max_bytes {
        return fail(
            CHECK,
            format!(
                "the snapshot ({}) or what is written meanwhile ({}) does not fit spool.max_bytes ({})",
                human_bytes(estimate.rdb_bytes),
                human_bytes(stream),
                human_bytes(spool.max_bytes)
            ),
            format!("spool.max_bytes = \"{}gb\"", (need >> 30) + 1),
        );
    }
    let stat = match rustix::fs::statvfs(&place) {
        Ok(stat) => stat,
        Err(error) => {
            return unknown(CHECK, format!("{}: {error}", place.display()), "");
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let what = format!(
        "{} free under {}, {} needed",
        human_bytes(free),
        place.display(),
        human_bytes(need)
    );
    if rustix::fs::access(&place, rustix::fs::Access::WRITE_OK).is_err() {
        return fail(
            CHECK,
            format!("{} cannot be written to", place.display()),
            "give spool.dir a directory of this user",
        );
    }
    match free {
        free if free < need => fail(CHECK, what, "set spool.dir to a larger disk"),
        free if free < need.saturating_mul(2) => warn(
            CHECK,
            what,
            "set spool.dir to a larger disk, if the target may be slow",
        ),
        _ => pass(CHECK, what),
    }
}

/// The part of a path that is there.
fn existing(dir: &Path) -> PathBuf {
    let mut place = dir;
    while !place.exists() {
        match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => place = parent,
            _ => return PathBuf::from("."),
        }
    }
    place.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates() {
        let mib = 1048576.0;
        let estimate = Estimate::new(
            2000 << 20,
            Some(100.0 * mib),
            Some(500.0 * mib),
            (mib, true),
        );
        assert_eq!(estimate.rdb_bytes, 1000 << 20);
        assert_eq!(estimate.transfer_seconds.round(), 10.0);
        assert_eq!(estimate.apply_seconds.round(), 14.0);
        let slow = Estimate::new(2000 << 20, Some(mib), None, (0.0, false));
        assert_eq!(
            (slow.transfer_seconds, slow.apply_seconds),
            (1000.0, 1000.0)
        );
    }

    #[test]
    fn paths_that_are_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b")), dir.path());
        assert_eq!(existing(Path::new("no/such/place")), PathBuf::from("."));
    }

    #[test]
    fn times_for_people() {
        let words = [0.1, 30.0, 600.0, 9000.0].map(time);
        assert_eq!(words, ["a second", "30 s", "10 min", "2.5 h"]);
    }
}
