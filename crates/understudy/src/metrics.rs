//! Prometheus metrics: names and help in one place, values copied from [`Status`] at each scrape.

use metrics::{Key, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::status::{Histogram, Phase, Status};

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
    ("build_info", Kind::Gauge, "1, with the version as label"),
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

/// Renders metrics of one link.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    source: String,
    target: String,
}

impl Metrics {
    pub(crate) fn new(source: &str, target: &str) -> Self {
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
        Self {
            recorder,
            handle,
            source: source.to_owned(),
            target: target.to_owned(),
        }
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn render(&self, status: &Status) -> String {
        for phase in Phase::ALL {
            let value = if status.phase() == phase { 1.0 } else { 0.0 };
            self.gauge("phase", &[("phase", phase.name())], value);
        }
        self.numbers(status);
        self.counters(status);
        let cpu_seconds = self.process(status);
        let mut text = self.handle.render();
        // The recorder's counters are whole numbers; this one is not.
        let labels = self.labels_text();
        text.push_str(&format!(
            "# HELP process_cpu_seconds_total CPU time used\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total{{{labels}}} {cpu_seconds}\n\n"
        ));
        histogram(
            &mut text,
            "batch_seconds",
            "Time of a unit from send to confirmation",
            &status.batch_seconds,
            &self.labels_text(),
        );
        histogram(
            &mut text,
            "apply_latency_seconds",
            "Time from reading a command from the source to its confirmation by the target",
            &status.apply_latency_seconds,
            &self.labels_text(),
        );
        text
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
    fn numbers(&self, status: &Status) {
        let gauges = [
            ("source_offset_bytes", status.source_offset.get()),
            ("spooled_offset_bytes", status.spooled_offset.get()),
            ("applied_offset_bytes", status.applied_offset.get()),
            ("lag_bytes", status.lag_bytes()),
            ("snapshot_bytes", status.snapshot_bytes.get()),
            ("spool_bytes", status.spool_bytes.get()),
            ("spool_limit_bytes", status.spool_limit.get()),
            ("spool_disk_full", status.spool_disk_full.get()),
            ("target_inflight_bytes", status.inflight_bytes.get()),
            ("leases_open", status.leases_open.get()),
            ("repairs_open", status.repairs_open.get()),
        ];
        for (name, value) in gauges {
            self.gauge(name, &[], value as f64);
        }
        self.gauge("lag_seconds", &[], status.lag_ms() as f64 / 1e3);
        let skew_ms = status.clock_skew_ms.get();
        self.gauge("clock_skew_seconds", &[], skew_ms as f64 / 1e3);
        self.gauge("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    }

    fn counters(&self, status: &Status) {
        self.counter("snapshot_read_bytes_total", &[], status.snapshot_read.get());
        self.counter(
            "snapshot_applied_bytes_total",
            &[],
            status.snapshot_applied.get(),
        );
        self.counter("partial_resyncs_total", &[], status.partial_resyncs.get());
        self.counter("repairs_total", &[], status.repairs.get());
        self.counter("doubtful_keys_total", &[], status.doubtful.get());
        self.counter("unchecked_keys_total", &[], status.unchecked.get());
        self.counter("commands_rewritten_total", &[], status.rewritten.get());
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
            ("reconnects_total", "side", &status.reconnects),
            ("full_resyncs_total", "reason", &status.full_resyncs),
        ];
        for (name, label, counters) in labelled {
            for (value, count) in counters.read() {
                self.counter(name, &[(label, &value)], count);
            }
        }
    }

    /// Gives the CPU time used, in seconds.
    fn process(&self, status: &Status) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
        self.gauge(
            "process_start_time_seconds",
            &[],
            status.started_ms.get() as f64 / 1e3,
        );
        let usage = ProcessUsage::read();
        self.gauge("process_resident_memory_bytes", &[], usage.resident_bytes);
        self.gauge("process_open_fds", &[], usage.open_fds);
        usage.cpu_seconds
    }

    fn key(&self, name: &str, labels: &[(&str, &str)]) -> Key {
        let mut all = vec![
            Label::new("source", self.source.clone()),
            Label::new("target", self.target.clone()),
        ];
        all.extend(
            labels
                .iter()
                .map(|(name, value)| Label::new((*name).to_owned(), (*value).to_owned())),
        );
        Key::from_parts(full_name(name), all)
    }

    fn gauge(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.recorder
            .register_gauge(&self.key(name, labels), &METADATA)
            .set(value);
    }

    fn counter(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.recorder
            .register_counter(&self.key(name, labels), &METADATA)
            .absolute(value);
    }

    fn labels_text(&self) -> String {
        format!("source=\"{}\",target=\"{}\"", self.source, self.target)
    }
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

fn histogram(text: &mut String, name: &str, help: &str, histogram: &Histogram, labels: &str) {
    use std::fmt::Write;
    let (buckets, sum, count) = histogram.read();
    let _ = writeln!(
        text,
        "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} histogram"
    );
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
        "{PREFIX}{name}_sum{{{labels}}} {sum}\n{PREFIX}{name}_count{{{labels}}} {count}\n"
    );
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
        status.reconnects.add("source", 1);
        status.full_resyncs.add("first", 1);
        status.snapshot_keys.add("hash|restore", 1);
        let text = Metrics::new("a:1", "b:2").render(&status);
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
}
