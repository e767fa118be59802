//! The status JSON: RedisShake's fields, and ours under `understudy`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::rates::Rates;
use super::{App, Link, admin};
use crate::client;
use crate::clock::{date_time, unix_ms};
use crate::config::human_bytes;
use crate::error::Side;
use crate::handover::reasons;
use crate::metrics::command_name;
use crate::status::{Phase, Status};
use crate::version;

/// Commands that a group names, the busiest first.
const NAMED: usize = 4;

/// Commands that were said otherwise, by name.
fn rewritten(status: &Status) -> BTreeMap<String, u64> {
    let counts = status.rewritten.read().into_iter();
    counts
        .filter_map(|(index, count)| Some((command_name(index)?.to_owned(), count)))
        .collect()
}

impl App {
    /// RedisShake's status, with our own fields under `understudy`. Several links stand in arrays, as RedisShake has it for the
    /// nodes of a cluster.
    pub(super) fn status_json(&self) -> Value {
        let links = self.links();
        let sum = |of: fn(&Status) -> u64| links.iter().map(|link| of(&link.status)).sum::<u64>();
        let written = sum(|status| status.commands.total() + status.snapshot_keys_total.get());
        let rates: f64 = links.iter().map(|link| link.history.rates().total).sum();
        let started = links.iter().map(|link| link.status.started_ms.get()).min();
        let one_or_all = |of: &dyn Fn(&Link) -> Value| match links.as_slice() {
            [link] => of(link),
            links => links.iter().map(|link| of(link)).collect(),
        };
        let mut own = match links.as_slice() {
            [link] => link.own_json(),
            links => json!({
                "ready": links.iter().all(|link| link.status.is_ready(link.ready_lag_ms)),
                "links": links.iter().map(|link| link.own_json()).collect::<Value>(),
            }),
        };
        own["version"] = version::VERSION.into();
        own["commit"] = version::COMMIT.into();
        own["at_ms"] = unix_ms().into();
        own["notices"] = self.notices.json();
        json!({
            "start_time": date_time(started.unwrap_or(0)),
            "consistent": links.iter().all(|link| link.is_consistent()),
            "total_entries_count": {
                "read_count": written + sum(|status| status.dropped.total()),
                "read_ops": rates,
                "write_count": written,
                "write_ops": rates,
            },
            "per_cmd_entries_count": self.per_command(),
            "reader": one_or_all(&Link::reader_json),
            "writer": one_or_all(&Link::writer_json),
            "understudy": own,
        })
    }

    /// What each link's charts show.
    pub(super) fn history_json(&self) -> Value {
        let links = self.links();
        links.iter().map(|link| link.history.chart_json()).collect()
    }

    fn per_command(&self) -> Value {
        let mut all: BTreeMap<usize, (u64, f64)> = BTreeMap::new();
        for link in self.links() {
            let rates = link.history.rates();
            for (index, count) in link.status.commands.read() {
                let sums = all.entry(index).or_default();
                sums.0 += count;
                sums.1 += rates.command(index);
            }
        }
        let rows = all.into_iter().filter_map(|(index, (count, rate))| {
            let name = command_name(index)?.to_ascii_uppercase();
            Some((name, json!({ "read_count": count, "read_ops": rate, "write_count": count, "write_ops": rate })))
        });
        Value::Object(rows.collect())
    }
}

impl Link {
    fn is_consistent(&self) -> bool {
        let status = &self.status;
        status.is_ready(u64::MAX) && status.lag_bytes() == 0 && status.leases_waiting.get() == 0
    }

    fn writer_json(&self) -> Value {
        json!({
            "name": format!("writer_{}", self.target.replace(':', "_")),
            "unanswered_bytes": self.status.inflight_bytes.get(),
            "unanswered_entries": self.status.inflight_commands.get(),
        })
    }

    fn reader_json(&self) -> Value {
        let status = &self.status;
        let word = match status.phase() {
            Phase::Handshaking => "hand shaking",
            Phase::WaitingBgsave => "waiting bgsave",
            Phase::Snapshot => "syncing rdb",
            Phase::Stream => "syncing aof",
            Phase::Scan => "scanning",
            Phase::Stopped => "stopped",
        };
        if status.phase() == Phase::Scan {
            let scan = &status.scan;
            let (keys, done) = (scan.sweep_keys.get(), scan.swept_keys.get());
            let percent = (done * 10_000).checked_div(keys).unwrap_or(0).min(10_000);
            return json!({
                "name": format!("reader_{}", self.source.replace(':', "_")),
                "address": self.source,
                "status": word,
                "scan_finished": scan.sweeps.get() > 0,
                "scan_dbId": scan.db.get(),
                "scan_cursor": scan.cursor.get(),
                "scan_percent": format!("{}.{:02}%", percent / 100, percent % 100),
                "need_update_count": scan.dirty.get(),
            });
        }
        let rdb_bytes = status.snapshot_bytes.get();
        let received = status.snapshot_read.get();
        let sent = status.snapshot_applied.get();
        json!({
            "name": format!("reader_{}", self.source.replace(':', "_")),
            "address": self.source,
            "dir": self.dir,
            "status": word,
            "rdb_file_size_bytes": rdb_bytes,
            "rdb_file_size_human": human_bytes(rdb_bytes),
            "rdb_received_bytes": received,
            "rdb_received_human": human_bytes(received),
            "rdb_sent_bytes": sent,
            "rdb_sent_human": human_bytes(sent),
            "aof_received_offset": status.source_offset.get(),
            "aof_sent_offset": status.applied_offset.get(),
            "aof_received_bytes": status.source_offset.get(),
            "aof_received_human": human_bytes(status.source_offset.get()),
        })
    }

    fn scan_json(&self) -> Value {
        let scan = &self.status.scan;
        json!({
            "events": scan.events.get(),
            "events_per_second": self.history.rates().events,
            "hears_events": scan.hears_events.get() == 1,
            "dirty": scan.dirty.get(),
            "overflows": scan.overflows.get(),
            "keys": scan.keys.get(),
            "sweeps": scan.sweeps.get(),
            "differences": scan.differences.get(),
            "swept_keys": scan.swept_keys.get(),
            "sweep_seconds": Duration::from_millis(scan.sweep_ms.get()).as_secs_f64(),
            "unchecked": scan.unchecked.get(),
            "clean": scan.is_clean.get() == 1,
            "latency_us": scan.latency_us.get(),
            "pace_percent": scan.pace_percent.get(),
        })
    }

    fn own_json(&self) -> Value {
        let mut all = Map::new();
        for part in [
            self.state_json(),
            self.progress_json(),
            self.counters_json(),
            json!({ "scan": self.scan_json() }),
        ] {
            if let Value::Object(fields) = part {
                all.extend(fields);
            }
        }
        all.into()
    }

    /// What it is doing, and what stands in the way.
    fn state_json(&self) -> Value {
        let status = &self.status;
        json!({
            "link": self.name,
            "source": self.source_now(),
            "slots_held": status.slots_held.get(),
            "slots_moving": status.slots_moving.get(),
            "slots_taken": status.slots_taken.get(),
            "owner": format!("{:016x}", status.owner.get()),
            "key_conflicts": status.key_conflicts.get(),
            "target": self.target,
            "phase": status.phase().name(),
            "ready": status.is_ready(self.ready_lag_ms),
            "waits_for": status.waits_for(self.ready_lag_ms),
            "leases_open": status.leases_open.get(),
            "leases_waiting": status.leases_waiting.get(),
            "clock_skew_ms": status.clock_skew_ms.get(),
            "repairs": status.repairs.get(),
            "repairs_open": status.repairs_open.get(),
            "doubtful": status.doubtful.get(),
            "unchecked": status.unchecked.get(),
            "target_throttled": status.target_throttled.get() == 1,
            "paused": self.limits.is_paused(),
            "limits": admin::limits_json(&self.limits),
        })
    }

    /// How far it is, and how fast.
    fn progress_json(&self) -> Value {
        let status = &self.status;
        let rates = self.history.rates();
        let (p50, p99) = rates.latency.unzip();
        json!({
            "source_offset": status.source_offset.get(),
            "spooled_offset": status.spooled_offset.get(),
            "applied_offset": status.applied_offset.get(),
            "lag_bytes": status.lag_bytes(),
            "lag_seconds": Duration::from_millis(status.lag_ms()).as_secs_f64(),
            "rates": {
                "commands_per_second": rates.total - rates.keys,
                "stream_bytes_per_second": rates.stream_bytes,
                "snapshot_keys_per_second": rates.keys,
                "snapshot_bytes_per_second": rates.snapshot_bytes,
            },
            "latency": { "p50_seconds": p50, "p99_seconds": p99 },
            "groups": groups_json(status, &rates),
            "nodes": nodes_json(status, &rates),
            "snapshot_keys": status.snapshot_keys_total.get(),
            "snapshot_bytes": status.snapshot_bytes.get(),
            "snapshot_read_bytes": status.snapshot_read.get(),
            "snapshot_applied_bytes": status.snapshot_applied.get(),
            "snapshot_eta_seconds": rates.snapshot_left,
            "spool_bytes": status.spool_bytes.get(),
            "spool_limit_bytes": status.spool_limit.get(),
            "spool_disk_full": status.spool_disk_full.get() == 1,
            "inflight_bytes": status.inflight_bytes.get(),
            "inflight_commands": status.inflight_commands.get(),
        })
    }

    fn counters_json(&self) -> Value {
        let status = &self.status;
        json!({
            "commands_applied": status.commands.total(),
            "commands_dropped": status.dropped.read(),
            "commands_rewritten": rewritten(status),
            "commands_lacking": status.lacking.read(),
            "target_errors": status.target_errors.read(),
            "mends": mends_json(status),
            "reconnects": status.reconnects.read(),
            "full_resyncs": status.full_resyncs.read(),
            "partial_resyncs": status.partial_resyncs.get(),
            "compare_passes": status.compare_passes.get(),
            "compare_found": status.compare_found.get(),
            "cutover": self.cutover_json(),
        })
    }

    pub(super) fn cutover_json(&self) -> Value {
        let status = &self.status;
        status.handover.json(&reasons(status, &self.limits))
    }
}

/// Commands by group, the busiest first: `{"group", "count", "per_second", "commands": ["SET 12,000", ..]}`.
fn groups_json(status: &Status, rates: &Rates) -> Value {
    let mut groups: BTreeMap<&str, Vec<(f64, u64, &str)>> = BTreeMap::new();
    for (index, count) in status.commands.read() {
        let id = u16::try_from(index).map(rewrite::CommandId);
        let named = id
            .ok()
            .and_then(|id| Some((id.group()?.name(), id.name()?)));
        let (group, name) = named.unwrap_or(("MODULE", "other"));
        let all = groups.entry(group).or_default();
        all.push((rates.command(index), count, name));
    }
    let mut rows: Vec<(f64, u64, Value)> = Vec::new();
    for (group, mut commands) in groups {
        commands.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        let per_second = commands.iter().map(|(rate, ..)| rate).sum::<f64>();
        let count = commands.iter().map(|(_, count, _)| count).sum::<u64>();
        let named: Vec<String> = commands
            .iter()
            .take(NAMED)
            .map(|(.., name)| name.to_ascii_uppercase())
            .collect();
        let row =
            json!({ "group": group, "count": count, "per_second": per_second, "commands": named });
        rows.push((per_second, count, row));
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    rows.into_iter().map(|(.., row)| row).collect()
}

/// The nodes of a target that is a cluster.
fn nodes_json(status: &Status, rates: &Rates) -> Value {
    let now_ms = unix_ms();
    let nodes = status.nodes.read().into_iter();
    nodes
        .map(|(address, node)| {
            let since_ms = now_ms.saturating_sub(node.answered_ms);
            let answered = Duration::from_millis(since_ms).as_secs_f64();
            json!({
                "address": address,
                "slots": node.slots,
                "commands": node.commands,
                "per_second": rates.node(&address),
                "inflight_bytes": node.inflight_bytes,
                "answered_seconds": (node.answered_ms > 0).then_some(answered),
                "errors": node.errors,
            })
        })
        .collect()
}

/// What mends the error replies that the target has given.
fn mends_json(status: &Status) -> Value {
    let mut mends = Map::new();
    for code in status.target_errors.read().into_keys() {
        let known = resp::ErrorCode::ALL
            .iter()
            .find(|known| known.word() == code);
        if let Some(mend) = known.and_then(|known| client::mend(*known, Side::Target)) {
            mends.insert(code, mend.into());
        }
    }
    mends.into()
}
