//! `/events`: the status once a second as server-sent events, for the page.
//!
//! ```text
//! event: history   [[[unix ms, lag in seconds, commands per second], ..] for each link], once
//! event: status    the status JSON, at once and then every second
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::App;

/// Pages that are open at once; each costs a socket and a few kilobytes a second.
const READERS_MAX: usize = 64;
/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(1);

/// The newest status, for all who listen.
#[derive(Debug)]
pub(super) struct Events {
    newest: watch::Sender<Arc<str>>,
    seats: Arc<Semaphore>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            newest: watch::Sender::new("".into()),
            seats: Arc::new(Semaphore::new(READERS_MAX)),
        }
    }
}

impl Events {
    /// Sends what `status` gives, if anybody listens.
    pub(super) fn send(&self, status: impl FnOnce() -> String) {
        if self.newest.receiver_count() > 0 {
            // Who has gone meanwhile is not missed.
            let _ = self.newest.send(status().into());
        }
    }
}

/// A page that listens.
struct Reader {
    newest: watch::Receiver<Arc<str>>,
    /// What is sent before the newest.
    first: Vec<Event>,
    _seat: OwnedSemaphorePermit,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if let Some(event) = self.first.pop() {
            return Some((Ok(event), self));
        }
        self.newest.changed().await.ok()?;
        let status = self.newest.borrow_and_update().clone();
        Some((Ok(status_event(&status)), self))
    }
}

fn status_event(status: &str) -> Event {
    Event::default().event("status").data(status)
}

pub(super) async fn events(State(app): State<Arc<App>>) -> Response {
    let Ok(seat) = app.events.seats.clone().try_acquire_owned() else {
        let what = format!("{READERS_MAX} pages are open already; close one\n");
        let later = [(header::RETRY_AFTER, "10")];
        return (StatusCode::SERVICE_UNAVAILABLE, later, what).into_response();
    };
    let history = Event::default().event("history").retry(RETRY);
    let reader = Reader {
        newest: app.events.newest.subscribe(),
        first: vec![
            status_event(&app.status_json().to_string()),
            history.data(app.history_json().to_string()),
        ],
        _seat: seat,
    };
    Sse::new(stream::unfold(reader, Reader::next)).into_response()
}
