//! Prometheus metrics: names and help in one place, values copied from [`Status`] at each scrape.

use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::{Key, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::status::{Histogram, Phase, Status};
use crate::version;

const PREFIX: &str = "understudy_";
static METADATA: Metadata<'_> = Metadata::new("understudy", Level::INFO, None);

/// What each metric is: name without prefix, help.
const HELP: &[(&str, Kind, &str)] = &[
    ("phase", Kind::Gauge, "1 for the phase the link is in"),
    (
        "source_offset_bytes",
        Kind::Gauge,
        "Replication offset received from the source",
    ),
    (
        "spooled_offset_bytes",
        Kind::Gauge,
        "Replication offset in the spool",
    ),
    (
        "applied_offset_bytes",
        Kind::Gauge,
        "Replication offset confirmed by the target",
    ),
    (
        "lag_bytes",
        Kind::Gauge,
        "Bytes received and not yet confirmed by the target",
    ),
    (
        "lag_seconds",
        Kind::Gauge,
        "Age of the oldest byte received and not yet confirmed",
    ),
    (
        "snapshot_bytes",
        Kind::Gauge,
        "Size of the snapshot, 0 while not known",
    ),
    (
        "snapshot_read_bytes_total",
        Kind::Counter,
        "Bytes of the snapshot received",
    ),
    (
        "snapshot_applied_bytes_total",
        Kind::Counter,
        "Bytes of the snapshot applied",
    ),
    (
        "snapshot_keys_total",
        Kind::Counter,
        "Keys of the snapshot applied, by type and method",
    ),
    (
        "commands_applied_total",
        Kind::Counter,
        "Commands of the stream applied",
    ),
    (
        "commands_rewritten_total",
        Kind::Counter,
        "Commands of the stream that were changed on the way",
    ),
    (
        "commands_dropped_total",
        Kind::Counter,
        "Commands of the stream that were dropped, by reason",
    ),
    (
        "target_errors_total",
        Kind::Counter,
        "Error replies of the target, by code",
    ),
    (
        "divergences_total",
        Kind::Counter,
        "Commands that failed inside a committed transaction, by code",
    ),
    (
        "repairs_total",
        Kind::Counter,
        "Keys of the target repaired from the source",
    ),
    (
        "repairs_open",
        Kind::Gauge,
        "Keys of the target that are under repair",
    ),
    (
        "slots_held",
        Kind::Gauge,
        "Slots of a source cluster that the link applies",
    ),
    (
        "slots_moving",
        Kind::Gauge,
        "Slots that have moved to the link's shard and are not taken over yet",
    ),
    (
        "slots_taken_total",
        Kind::Counter,
        "Slots that were copied whole because they have moved to the link's shard",
    ),
    (
        "key_conflicts_total",
        Kind::Counter,
        "Keys that another link of the process had written into the same target before",
    ),
    (
        "doubtful_keys_total",
        Kind::Counter,
        "Keys that the target may have ended too early during an outage, copied again from the source",
    ),
    (
        "unchecked_keys_total",
        Kind::Counter,
        "Such keys that were not copied again, being too many",
    ),
    (
        "suspects_total",
        Kind::Counter,
        "Keys (or commands without keys) on which a command may have failed unseen, by outcome",
    ),
    (
        "compare_keys_total",
        Kind::Counter,
        "Keys compared with the source's while the link runs, by result",
    ),
    (
        "compare_passes_total",
        Kind::Counter,
        "Times that all keys were compared",
    ),
    (
        "cross_slot_total",
        Kind::Counter,
        "Commands and transactions of several slots of a cluster, by what became of them",
    ),
    (
        "reconnects_total",
        Kind::Counter,
        "Connections lost and made again, by side",
    ),
    ("full_resyncs_total", Kind::Counter, "Full syncs, by reason"),
    ("partial_resyncs_total", Kind::Counter, "Partial syncs"),
    ("spool_bytes", Kind::Gauge, "Bytes of the spool on disk"),
    (
        "spool_limit_bytes",
        Kind::Gauge,
        "Most unapplied bytes the spool may hold",
    ),
    (
        "spool_disk_full",
        Kind::Gauge,
        "1 while the disk under the spool takes nothing more",
    ),
    (
        "target_throttled",
        Kind::Gauge,
        "1 while the target takes less than half of what it took, with more to send",
    ),
    (
        "target_inflight_bytes",
        Kind::Gauge,
        "Bytes sent to the target and not yet answered",
    ),
    (
        "leases_open",
        Kind::Gauge,
        "Keys that have a lease instead of their own expiry",
    ),
    (
        "clock_skew_seconds",
        Kind::Gauge,
        "How far the clocks of source and target are apart",
    ),
    (
        "source_clients",
        Kind::Gauge,
        "Clients of the application that are connected to the source",
    ),
    (
        "cutover_ready",
        Kind::Gauge,
        "1 while a switch-over might begin, by what the daemon knows",
    ),
    (
        "switched",
        Kind::Gauge,
        "1 once the switch is made and nothing of this link is applied any more",
    ),
    (
        "late_writes_total",
        Kind::Counter,
        "Commands that clients have written at the source after the switch",
    ),
    (
        "scan_events_total",
        Kind::Counter,
        "Keyspace events received from a source that is read by SCAN",
    ),
    (
        "scan_dirty_keys",
        Kind::Gauge,
        "Keys that were named by events or sweeps and are not confirmed by the target yet",
    ),
    (
        "scan_dirty_overflows_total",
        Kind::Counter,
        "Keys named by events that were left to the next sweep, memory being full",
    ),
    (
        "scan_keys_total",
        Kind::Counter,
        "Keys read and put at the target, or removed there",
    ),
    ("scan_sweeps_total", Kind::Counter, "Sweeps done"),
    (
        "scan_differences",
        Kind::Gauge,
        "Keys that differed in the last sweep though no event of them was on its way",
    ),
    (
        "scan_clean",
        Kind::Gauge,
        "1 when the last sweep found no difference, and nothing has happened since that only a sweep finds",
    ),
    (
        "scan_hears_events",
        Kind::Gauge,
        "1 when keyspace events are subscribed to and are known to be sent",
    ),
    (
        "scan_source_latency_seconds",
        Kind::Gauge,
        "How long the source takes to answer a PING while it is read by SCAN",
    ),
    (
        "scan_pace_ratio",
        Kind::Gauge,
        "Share of the time in which the source is read; less than 1 while it answers slowly",
    ),
    (
        "build_info",
        Kind::Gauge,
        "1, with version and commit as labels",
    ),
    (
        "process_start_time_seconds",
        Kind::Gauge,
        "Start of the process, Unix seconds",
    ),
    (
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Resident memory",
    ),
    ("process_open_fds", Kind::Gauge, "Open file descriptors"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
}

/// A link as a label: where it comes from and where it goes.
#[derive(Debug, Clone)]
struct Ends {
    source: String,
    target: String,
}

/// Renders the metrics of the process's links.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    links: Mutex<Vec<Ends>>,
}

impl Metrics {
    /// For links given by the addresses of source and target.
    pub(crate) fn new<'a>(links: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        for (name, kind, help) in HELP {
            let name = full_name(name);
            let help = SharedString::const_str(help);
            match kind {
                Kind::Gauge => recorder.describe_gauge(name.into(), None::<Unit>, help),
                Kind::Counter => recorder.describe_counter(name.into(), None::<Unit>, help),
            }
        }
        let links = links.into_iter().map(|(source, target)| Ends {
            source: source.to_owned(),
            target: target.to_owned(),
        });
        Self {
            recorder,
            handle,
            links: Mutex::new(links.collect()),
        }
    }

    /// One more link.
    pub(crate) fn add(&self, source: &str, target: &str) {
        self.ends().push(Ends {
            source: source.to_owned(),
            target: target.to_owned(),
        });
    }

    fn ends(&self) -> MutexGuard<'_, Vec<Ends>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text that Prometheus scrapes; a status for each of the links, in their order.
    pub(crate) fn render(&self, statuses: &[&Status]) -> String {
        let all = self.ends().clone();
        for (ends, status) in all.iter().zip(statuses) {
            let link = Link {
                recorder: &self.recorder,
                ends,
                status,
            };
            link.write();
        }
        let cpu_seconds = self.process(statuses);
        let mut text = self.handle.render();
        // The recorder's counters are whole numbers; this one is not.
        text.push_str(&format!(
            "# HELP process_cpu_seconds_total CPU time used\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {cpu_seconds}\n\n"
        ));
        let histograms = |of: fn(&Status) -> &Histogram| {
            let of_each = all.iter().zip(statuses);
            of_each.map(move |(ends, status)| (ends, of(status)))
        };
        histogram(
            &mut text,
            "batch_seconds",
            "Time of a unit from send to confirmation",
            histograms(|status| &status.batch_seconds),
        );
        histogram(
            &mut text,
            "apply_latency_seconds",
            "Time from reading a command from the source to its confirmation by the target",
            histograms(|status| &status.apply_latency_seconds),
        );
        text
    }

    /// What belongs to the process and to none of its links. Gives the CPU time used, in seconds.
    fn process(&self, statuses: &[&Status]) -> f64 {
        let gauge = |name, labels, value| gauge(&self.recorder, name, labels, value);
        let build = vec![
            Label::new("version", version::VERSION),
            Label::new("commit", version::COMMIT),
        ];
        gauge("build_info", build, 1.0);
        let started_ms = statuses.iter().map(|status| status.started_ms.get()).min();
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
        let started = started_ms.unwrap_or(0) as f64 / 1e3;
        gauge("process_start_time_seconds", Vec::new(), started);
        let usage = ProcessUsage::read();
        let resident = usage.resident_bytes;
        gauge("process_resident_memory_bytes", Vec::new(), resident);
        gauge("process_open_fds", Vec::new(), usage.open_fds);
        usage.cpu_seconds
    }
}

/// One link's values, on their way to the recorder.
struct Link<'a> {
    recorder: &'a PrometheusRecorder,
    ends: &'a Ends,
    status: &'a Status,
}

impl Link<'_> {
    fn write(&self) {
        for phase in Phase::ALL {
            let value = if self.status.phase() == phase {
                1.0
            } else {
                0.0
            };
            self.gauge("phase", &[("phase", phase.name())], value);
        }
        self.numbers();
        self.counters();
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
    fn numbers(&self) {
        let status = self.status;
        let gauges = [
            ("source_offset_bytes", status.source_offset.get()),
            ("spooled_offset_bytes", status.spooled_offset.get()),
            ("applied_offset_bytes", status.applied_offset.get()),
            ("lag_bytes", status.lag_bytes()),
            ("snapshot_bytes", status.snapshot_bytes.get()),
            ("spool_bytes", status.spool_bytes.get()),
            ("spool_limit_bytes", status.spool_limit.get()),
            ("spool_disk_full", status.spool_disk_full.get()),
            ("target_throttled", status.target_throttled.get()),
            ("target_inflight_bytes", status.inflight_bytes.get()),
            ("leases_open", status.leases_open.get()),
            ("repairs_open", status.repairs_open.get()),
            ("cutover_ready", status.cutover_ready.get()),
            ("switched", u64::from(status.handover.state().is_over())),
            ("scan_dirty_keys", status.scan.dirty.get()),
            ("scan_differences", status.scan.differences.get()),
            ("scan_clean", status.scan.is_clean.get()),
            ("scan_hears_events", status.scan.hears_events.get()),
            ("slots_held", status.slots_held.get()),
            ("slots_moving", status.slots_moving.get()),
        ];
        for (name, value) in gauges {
            self.gauge(name, &[], value as f64);
        }
        // Where the source does not tell, there is no such row.
        if let Some(clients) = status.handover.source_clients() {
            self.gauge("source_clients", &[], clients as f64);
        }
        self.gauge("lag_seconds", &[], status.lag_ms() as f64 / 1e3);
        let latency_us = status.scan.latency_us.get();
        self.gauge("scan_source_latency_seconds", &[], latency_us as f64 / 1e6);
        let pace = status.scan.pace_percent.get();
        self.gauge("scan_pace_ratio", &[], pace as f64 / 1e2);
        let skew_ms = status.clock_skew_ms.get();
        self.gauge("clock_skew_seconds", &[], skew_ms as f64 / 1e3);
    }

    fn counters(&self) {
        let status = self.status;
        self.counter("snapshot_read_bytes_total", &[], status.snapshot_read.get());
        self.counter(
            "snapshot_applied_bytes_total",
            &[],
            status.snapshot_applied.get(),
        );
        self.counter("partial_resyncs_total", &[], status.partial_resyncs.get());
        self.counter("compare_passes_total", &[], status.compare_passes.get());
        self.counter("repairs_total", &[], status.repairs.get());
        let late = status.handover.late_writes();
        self.counter("late_writes_total", &[], late);
        self.counter("slots_taken_total", &[], status.slots_taken.get());
        self.counter("key_conflicts_total", &[], status.key_conflicts.get());
        self.counter("doubtful_keys_total", &[], status.doubtful.get());
        self.counter("unchecked_keys_total", &[], status.unchecked.get());
        self.counter("commands_rewritten_total", &[], status.rewritten.total());
        self.counter("scan_events_total", &[], status.scan.events.get());
        self.counter(
            "scan_dirty_overflows_total",
            &[],
            status.scan.overflows.get(),
        );
        self.counter("scan_keys_total", &[], status.scan.keys.get());
        self.counter("scan_sweeps_total", &[], status.scan.sweeps.get());
        for (index, count) in status.commands.read() {
            let name = command_name(index).unwrap_or("other");
            self.counter("commands_applied_total", &[("command", name)], count);
        }
        for (label, count) in status.snapshot_keys.read() {
            let (kind, method) = label.split_once('|').unwrap_or((&label, ""));
            self.counter(
                "snapshot_keys_total",
                &[("type", kind), ("method", method)],
                count,
            );
        }
        let labelled = [
            ("commands_dropped_total", "reason", &status.dropped),
            ("target_errors_total", "code", &status.target_errors),
            ("divergences_total", "code", &status.divergences),
            ("suspects_total", "outcome", &status.suspects),
            ("compare_keys_total", "result", &status.compared),
            ("cross_slot_total", "kind", &status.cross_slot),
            ("reconnects_total", "side", &status.reconnects),
            ("full_resyncs_total", "reason", &status.full_resyncs),
        ];
        for (name, label, counters) in labelled {
            for (value, count) in counters.read() {
                self.counter(name, &[(label, &value)], count);
            }
        }
    }

    fn labels(&self, more: &[(&str, &str)]) -> Vec<Label> {
        let mut all = vec![
            Label::new("source", self.ends.source.clone()),
            Label::new("target", self.ends.target.clone()),
        ];
        let more = more.iter();
        all.extend(more.map(|(name, value)| Label::new((*name).to_owned(), (*value).to_owned())));
        all
    }

    fn gauge(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        gauge(self.recorder, name, self.labels(labels), value);
    }

    fn counter(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        let key = Key::from_parts(full_name(name), self.labels(labels));
        let counter = self.recorder.register_counter(&key, &METADATA);
        counter.absolute(value);
    }
}

fn gauge(recorder: &PrometheusRecorder, name: &str, labels: Vec<Label>, value: f64) {
    let key = Key::from_parts(full_name(name), labels);
    recorder.register_gauge(&key, &METADATA).set(value);
}

/// The command whose counter has this index.
pub(crate) fn command_name(index: usize) -> Option<&'static str> {
    rewrite::CommandId(u16::try_from(index).ok()?).name()
}

/// Process metrics carry Prometheus's own names.
fn full_name(name: &str) -> String {
    if name.starts_with("process_") {
        name.to_owned()
    } else {
        format!("{PREFIX}{name}")
    }
}

fn histogram<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    links: impl Iterator<Item = (&'a Ends, &'a Histogram)>,
) {
    use std::fmt::Write;
    let _ = writeln!(
        text,
        "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} histogram"
    );
    for (Ends { source, target }, histogram) in links {
        let labels = format!("source=\"{source}\",target=\"{target}\"");
        let (buckets, sum, count) = histogram.read();
        for (bound, cumulative) in buckets {
            let _ = writeln!(
                text,
                "{PREFIX}{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}"
            );
        }
        let _ = writeln!(
            text,
            "{PREFIX}{name}_bucket{{{labels},le=\"+Inf\"}} {count}"
        );
        let _ = writeln!(
            text,
            "{PREFIX}{name}_sum{{{labels}}} {sum}\n{PREFIX}{name}_count{{{labels}}} {count}"
        );
    }
    text.push('\n');
}

/// What the process uses, from /proc; zeros where there is none.
#[derive(Debug, Default)]
struct ProcessUsage {
    resident_bytes: f64,
    cpu_seconds: f64,
    open_fds: f64,
}

impl ProcessUsage {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
    fn read() -> Self {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name may hold spaces: fields are counted from behind it.
        let fields: Vec<&str> = text
            .rsplit_once(") ")
            .map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
        let field = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        // Clock ticks are 100 a second and pages 4 KiB on every Linux that this runs on.
        Self {
            cpu_seconds: (field(11) + field(12)) as f64 / 100.0,
            resident_bytes: field(21) as f64 * 4096.0,
            open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_rendered_with_its_help() {
        let status = Status::new(rewrite::Table::new().len());
        status.commands.hit(0);
        status.dropped.add("ping", 2);
        status.target_errors.add("OOM", 1);
        status.divergences.add("WRONGTYPE", 1);
        status.suspects.add("repaired", 1);
        status.compared.add("equal", 1);
        status.handover.set_clients(Some(3), Vec::new());
        status.cross_slot.add("split", 1);
        status.reconnects.add("source", 1);
        status.full_resyncs.add("first", 1);
        status.snapshot_keys.add("hash|restore", 1);
        let text = Metrics::new([("a:1", "b:2")]).render(&[&status]);
        for (name, _, help) in HELP {
            assert!(
                text.contains(&format!("# HELP {} {help}", full_name(name))),
                "{name}\n{text}"
            );
        }
        assert!(
            text.contains(
                "understudy_commands_dropped_total{source=\"a:1\",target=\"b:2\",reason=\"ping\"} 2"
            ),
            "{text}"
        );
        assert!(text.contains("understudy_batch_seconds_bucket"));
    }

    #[test]
    fn several_links_have_rows_of_their_own_under_one_head() {
        let one = Status::new(rewrite::Table::new().len());
        let two = Status::new(rewrite::Table::new().len());
        two.applied_offset.set(7);
        let text = Metrics::new([("a:1", "b:2"), ("c:3", "b:2")]).render(&[&one, &two]);
        let rows = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(rows("# TYPE understudy_batch_seconds histogram"), 1);
        assert_eq!(rows("understudy_batch_seconds_count{"), 2);
        assert_eq!(rows("understudy_applied_offset_bytes{"), 2);
        assert_eq!(rows("process_resident_memory_bytes "), 1, "{text}");
        let row = "understudy_applied_offset_bytes{source=\"c:3\",target=\"b:2\"} 7";
        assert!(text.contains(row), "{text}");
    }
}
