//! The status port: the live page, RedisShake's status JSON, Prometheus metrics, health; and what the administrator may
//! change.

mod admin;
pub(crate) mod ask;
mod cutover;
mod events;
mod json;
mod page;
mod rates;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::{get, post};
use serde_json::Value;

use crate::config::{Config, Follow, HttpConfig, Limits, Secret};
use crate::error::SyncError;
use crate::handover::reasons;
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::status::{Phase, Status};
use events::Events;
use rates::History;

struct App {
    links: Mutex<Vec<Arc<Link>>>,
    metrics: Metrics,
    notices: Notices,
    events: Events,
}

impl App {
    /// Those that run now, and have run.
    fn links(&self) -> Vec<Arc<Link>> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.clone()
    }
}

/// A status port.
#[derive(Clone)]
pub(crate) struct Port(Arc<App>);

impl Port {
    /// It is to tell of one more link.
    pub(crate) fn add(&self, config: &Config, status: Arc<Status>) {
        let link = Arc::new(Link::new(config, status));
        let mut links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.metrics.add(&link.source, &link.target);
        links.push(link);
    }
}

/// What the port tells of a link.
struct Link {
    status: Arc<Status>,
    name: String,
    source: String,
    target: String,
    dir: String,
    ready_lag_ms: u64,
    history: History,
    limits: Arc<Limits>,
    admin_token: Option<Secret>,
    /// Where the source is now, if it is a shard of a cluster.
    follow: Option<Arc<Follow>>,
}

impl Link {
    fn new(config: &Config, status: Arc<Status>) -> Self {
        Self {
            status,
            name: config.link_name.clone(),
            source: config.source.endpoint.address.clone(),
            target: config.target.endpoint.address.clone(),
            dir: config.spool.dir.display().to_string(),
            ready_lag_ms: u64::try_from(config.ready_lag.as_millis()).unwrap_or(u64::MAX),
            history: History::default(),
            limits: config.limits.clone(),
            follow: config.source.endpoint.follow.clone(),
            admin_token: config
                .http
                .as_ref()
                .and_then(|http| http.admin_token.clone()),
        }
    }

    /// Where the source is now.
    fn source_now(&self) -> String {
        let now = self.follow.as_ref().and_then(|follow| follow.address());
        now.unwrap_or_else(|| self.source.clone())
    }
}

/// Looks at every link once a second, and tells whoever listens.
async fn watch(app: Arc<App>) {
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    loop {
        every_second.tick().await;
        for link in app.links() {
            link.history.look(&link.status);
        }
        app.events.send(|| app.status_json().to_string());
    }
}

/// Serves the status of these links on a thread of its own.
///
/// # Errors
/// The port cannot be bound.
pub(crate) fn spawn(
    http: &HttpConfig,
    links: Vec<(&Config, Arc<Status>)>,
    notices: Notices,
) -> Result<Port, SyncError> {
    let cannot = |error: std::io::Error| {
        SyncError::local(format!(
            "cannot listen on {}: {error}; change advanced.status_port or advanced.status_address",
            http.bind
        ))
    };
    let listener = std::net::TcpListener::bind(&http.bind).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let links = links.into_iter();
    let links: Vec<Arc<Link>> = links
        .map(|(config, status)| Arc::new(Link::new(config, status)))
        .collect();
    let ends = links.iter().map(|link| (&*link.source, &*link.target));
    let app = Arc::new(App {
        metrics: Metrics::new(ends),
        links: Mutex::new(links),
        notices,
        events: Events::default(),
    });
    let port = Port(app.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot)?;
    let serve = move || {
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(watch(app.clone()));
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
    Ok(port)
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page::root))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/icon.svg", get(page::icon))
        .route("/events", get(events::events))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/pause", post(admin::pause))
        .route("/resume", post(admin::resume))
        .route("/limits", post(admin::limits))
        .route("/cutover", post(cutover::cutover))
        .with_state(app)
}

async fn status(State(app): State<Arc<App>>) -> Json<Value> {
    Json(app.status_json())
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let links = app.links();
    for link in &links {
        let is_ready = reasons(&link.status, &link.limits).is_empty();
        link.status.cutover_ready.set(u64::from(is_ready));
    }
    let statuses: Vec<&Status> = links.iter().map(|link| &*link.status).collect();
    let text = app.metrics.render(&statuses);
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

async fn healthz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let links = app.links();
    let has_stopped = |link: &&Arc<Link>| link.status.phase() == Phase::Stopped;
    let stopped: Vec<&Arc<Link>> = links.iter().filter(has_stopped).collect();
    match (stopped.as_slice(), links.len()) {
        ([], _) => (StatusCode::OK, "ok\n".to_owned()),
        (_, 1) => (StatusCode::SERVICE_UNAVAILABLE, "stopped\n".to_owned()),
        (stopped, _) => {
            let lines = stopped
                .iter()
                .map(|link| format!("{}: stopped\n", link.name));
            (StatusCode::SERVICE_UNAVAILABLE, lines.collect())
        }
    }
}

async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let links = app.links();
    let is_not_ready = |link: &&Arc<Link>| !link.status.is_ready(link.ready_lag_ms);
    let mut waits: Vec<String> = Vec::new();
    for link in links.iter().filter(is_not_ready) {
        let (phase, lag_ms) = (link.status.phase().name(), link.status.lag_ms());
        let differs = match link.status.phase() {
            Phase::Scan if link.status.scan.is_clean.get() == 0 => ", no clean sweep yet",
            _ => "",
        };
        let whose = match links.len() {
            1 => String::new(),
            _ => format!("{}: ", link.name),
        };
        waits.push(format!(
            "{whose}not ready: {phase}, lag {lag_ms} ms{differs}\n"
        ));
    }
    if waits.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, waits.concat())
    }
}
