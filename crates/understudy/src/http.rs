//! The status port: RedisShake's status JSON, Prometheus metrics, health.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use serde_json::{Value, json};

use crate::clock::date_time;
use crate::config::{Config, HttpConfig, human_bytes};
use crate::error::SyncError;
use crate::metrics::{Metrics, command_name};
use crate::status::{Phase, Status};

struct App {
    status: Arc<Status>,
    metrics: Metrics,
    source: String,
    target: String,
    dir: String,
    ready_lag_ms: u64,
    rates: Mutex<Rates>,
}

/// Entries per second over the last second.
#[derive(Debug, Clone, Default)]
struct Rates {
    total: f64,
    commands: HashMap<usize, f64>,
}

impl Rates {
    fn command(&self, index: usize) -> f64 {
        self.commands.get(&index).copied().unwrap_or(0.0)
    }
}

/// What was counted at some moment.
struct Sample {
    at: Instant,
    total: u64,
    commands: HashMap<usize, u64>,
}

impl Sample {
    fn of(status: &Status) -> Self {
        Self {
            at: Instant::now(),
            total: status.commands.total() + status.snapshot_keys_total.get(),
            commands: status.commands.read().into_iter().collect(),
        }
    }

    /// Rates between an earlier sample and this one.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn since(&self, before: &Self) -> Rates {
        let seconds = (self.at - before.at).as_secs_f64().max(1e-3);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let commands = self.commands.iter().map(|(index, count)| {
            (
                *index,
                rate(*count, before.commands.get(index).copied().unwrap_or(0)),
            )
        });
        Rates {
            total: rate(self.total, before.total),
            commands: commands.collect(),
        }
    }
}

/// Keeps the rates fresh.
async fn sample(app: Arc<App>) {
    let mut before = Sample::of(&app.status);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = Sample::of(&app.status);
        *app.rates.lock().unwrap_or_else(PoisonError::into_inner) = now.since(&before);
        before = now;
    }
}

/// Serves `status` on a thread of its own.
///
/// # Errors
/// The port cannot be bound.
pub(crate) fn spawn(
    http: &HttpConfig,
    config: &Config,
    status: Arc<Status>,
) -> Result<(), SyncError> {
    let cannot = |error: std::io::Error| {
        SyncError::local(format!(
            "cannot listen on {}: {error}; change advanced.status_port or advanced.status_address",
            http.bind
        ))
    };
    let listener = std::net::TcpListener::bind(&http.bind).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let source = config.source.endpoint.address.clone();
    let target = config.target.endpoint.address.clone();
    let app = Arc::new(App {
        status,
        metrics: Metrics::new(&source, &target),
        source,
        target,
        dir: config.spool.dir.display().to_string(),
        ready_lag_ms: u64::try_from(config.ready_lag.as_millis()).unwrap_or(u64::MAX),
        rates: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot)?;
    let serve = move || {
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(sample(app.clone()));
            axum::serve(listener, router(app)).await
        });
        if let Err(error) = served {
            tracing::error!(%error, "the status port has ended");
        }
    };
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(serve)
        .map_err(cannot)?;
    tracing::info!(address = http.bind, "status port");
    Ok(())
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(status))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(app)
}

async fn status(State(app): State<Arc<App>>) -> Json<Value> {
    Json(app.status_json())
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = app.metrics.render(&app.status);
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

async fn healthz(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.status.phase() {
        Phase::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped\n"),
        _ => (StatusCode::OK, "ok\n"),
    }
}

async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    if app.status.is_ready(app.ready_lag_ms) {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        let phase = app.status.phase().name();
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {phase}, lag {} ms\n", app.status.lag_ms()),
        )
    }
}

impl App {
    /// RedisShake's status, with our own fields under `understudy`.
    fn status_json(&self) -> Value {
        let status = &self.status;
        let commands = status.commands.total();
        let keys = status.snapshot_keys_total.get();
        let rates = self
            .rates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let per_command: serde_json::Map<String, Value> = status
            .commands
            .read()
            .into_iter()
            .filter_map(|(index, count)| {
                let name = command_name(index)?.to_ascii_uppercase();
                Some((name, json!({ "read_count": count, "read_ops": rates.command(index), "write_count": count, "write_ops": rates.command(index) })))
            })
            .collect();
        let read = commands + keys + status.dropped.total();
        json!({
            "start_time": date_time(status.started_ms.get()),
            "consistent": status.is_ready(u64::MAX) && status.lag_bytes() == 0 && status.leases_waiting.get() == 0,
            "total_entries_count": {
                "read_count": read,
                "read_ops": rates.total,
                "write_count": commands + keys,
                "write_ops": rates.total,
            },
            "per_cmd_entries_count": per_command,
            "reader": self.reader_json(),
            "writer": {
                "name": format!("writer_{}", self.target.replace(':', "_")),
                "unanswered_bytes": status.inflight_bytes.get(),
                "unanswered_entries": status.inflight_commands.get(),
            },
            "understudy": self.own_json(),
        })
    }

    fn reader_json(&self) -> Value {
        let status = &self.status;
        let word = match status.phase() {
            Phase::Handshaking => "hand shaking",
            Phase::WaitingBgsave => "waiting bgsave",
            Phase::Snapshot => "syncing rdb",
            Phase::Stream => "syncing aof",
            Phase::Stopped => "stopped",
        };
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

    fn own_json(&self) -> Value {
        let status = &self.status;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "phase": status.phase().name(),
            "ready": status.is_ready(self.ready_lag_ms),
            "source_offset": status.source_offset.get(),
            "spooled_offset": status.spooled_offset.get(),
            "applied_offset": status.applied_offset.get(),
            "leases_open": status.leases_open.get(),
            "leases_waiting": status.leases_waiting.get(),
            "clock_skew_ms": status.clock_skew_ms.get(),
            "repairs": status.repairs.get(),
            "repairs_open": status.repairs_open.get(),
            "doubtful": status.doubtful.get(),
            "unchecked": status.unchecked.get(),
            "lag_bytes": status.lag_bytes(),
            "lag_seconds": Duration::from_millis(status.lag_ms()).as_secs_f64(),
            "snapshot_keys": status.snapshot_keys_total.get(),
            "snapshot_bytes": status.snapshot_bytes.get(),
            "snapshot_read_bytes": status.snapshot_read.get(),
            "snapshot_applied_bytes": status.snapshot_applied.get(),
            "commands_applied": status.commands.total(),
            "commands_dropped": status.dropped.read(),
            "target_errors": status.target_errors.read(),
            "reconnects": status.reconnects.read(),
            "full_resyncs": status.full_resyncs.read(),
            "partial_resyncs": status.partial_resyncs.get(),
            "spool_bytes": status.spool_bytes.get(),
        })
    }
}
