//! Saying again who we are, on a connection that stands for longer than a password or a token is good for.
//!
//! Between two units, with the connection in MULTI and nothing on its way:
//! ```text
//! EXEC  AUTH [user] password  WATCH checkpoint  GET checkpoint  MULTI
//! ```
//! EXEC ends the empty transaction (AUTH within one would wait for it); its answer, and that of GET, tell whether the
//! checkpoint was ours all the time, as between any two units.
//!
//! A connection to a node of a cluster watches nothing between two windows: AUTH alone does there.

use std::time::Duration;

use resp::{Limits, Value, ValueDecoder};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::client::{Client, auth_refusal};
use crate::config::Endpoint;
use crate::error::{Side, SyncError, io_word};
use crate::net;
use crate::pipeline::guard as unit_guard;
use crate::target::Pipe;

/// Until the next try, where it came to nothing.
const TRY_AGAIN: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// When a connection has to say who we are again.
#[derive(Debug)]
pub(crate) struct Renewal {
    after: Option<Duration>,
    due: Option<Instant>,
}

impl Renewal {
    /// For a connection that is about to say it for the first time, or has just done so.
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        let after = endpoint.auth.renew_after;
        Self {
            after,
            due: after.map(|after| Instant::now() + after),
        }
    }

    /// Whether it is time.
    pub(crate) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| Instant::now() >= due)
    }

    /// Waits until it is time; for ever where it need not be said again.
    pub(crate) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Says it over all of these connections, to nodes of a cluster, on which nothing is on its way and nothing is watched.
    ///
    /// # Errors
    /// Class reconnect when one of them broke.
    pub(crate) async fn renew_all(
        &mut self,
        clients: impl Iterator<Item = &mut Client>,
        endpoint: &Endpoint,
    ) -> Result<(), SyncError> {
        let said = match endpoint.auth.credentials().await {
            Ok(Some(found)) => {
                let auth = found.auth();
                let mut said = Ok(());
                for client in clients {
                    let address = client.address().to_owned();
                    let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, client.ask(&auth)).await
                    else {
                        let what = "AUTH was not answered in time";
                        return Err(SyncError::reconnect(Side::Target, &address, what));
                    };
                    if let Value::Error(error) = answer? {
                        let why =
                            format!("AUTH was refused at {address}: {}", auth_refusal(&error));
                        said = said.and(Err(why));
                    }
                }
                said
            }
            Ok(None) => Ok(()),
            Err(why) => Err(why),
        };
        self.note(said);
        Ok(())
    }

    /// When it is to be said the next time.
    fn note(&mut self, said: Result<(), String>) {
        let wait = match said {
            Ok(()) => {
                tracing::info!("said again who we are, on the connection that stands");
                self.after
            }
            Err(error) => {
                tracing::warn!(
                    error,
                    retry_in_s = TRY_AGAIN.as_secs(),
                    "could not say again who we are; the connection still stands"
                );
                self.after.map(|after| after.min(TRY_AGAIN))
            }
        };
        self.due = wait.map(|wait| Instant::now() + wait);
    }
}

impl Pipe {
    /// Says it. What goes wrong with the password is tried again a minute later: the connection is still good.
    ///
    /// # Errors
    /// Class reconnect when the connection broke, or the checkpoint `key` is no longer what `guard` says, the reply to a
    /// GET of it.
    pub(crate) async fn renew(
        &mut self,
        endpoint: &Endpoint,
        key: &str,
        guard: &[u8],
    ) -> Result<(), SyncError> {
        let said = match endpoint.auth.credentials().await {
            Ok(Some(found)) => {
                let auth = found.auth();
                let exchange = exchange(self, endpoint, &auth, key, guard);
                let lost = |what| SyncError::reconnect(Side::Target, &endpoint.address, what);
                match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
                    Ok(said) => said?,
                    Err(_) => return Err(lost("AUTH was not answered in time")),
                }
            }
            Ok(None) => Ok(()),
            Err(why) => Err(why),
        };
        self.renewal.note(said);
        Ok(())
    }
}

/// The inner error is the server's refusal of the password.
async fn exchange(
    pipe: &mut Pipe,
    endpoint: &Endpoint,
    auth: &[&[u8]],
    key: &str,
    guard: &[u8],
) -> Result<Result<(), String>, SyncError> {
    let lost =
        |what: &dyn std::fmt::Display| SyncError::reconnect(Side::Target, &endpoint.address, what);
    let key = key.as_bytes();
    let commands: [&[&[u8]]; 5] = [
        &[b"EXEC"],
        auth,
        &[b"WATCH", key],
        &[b"GET", key],
        &[b"MULTI"],
    ];
    let mut out = Vec::new();
    for command in commands {
        resp::encode::command(&mut out, command);
    }
    net::send(&mut pipe.stream, &out)
        .await
        .map_err(|error| lost(&io_word(&error)))?;
    let mut decoder = ValueDecoder::new(Limits::default());
    let mut replies = Vec::new();
    while replies.len() < commands.len() {
        match decoder.poll(&mut pipe.replies) {
            Ok(Some(reply)) => {
                replies.push(reply);
                continue;
            }
            Ok(None) => {}
            Err(error) => return Err(lost(&format!("its answer is not RESP: {error}"))),
        }
        match pipe.stream.read_buf(&mut pipe.replies).await {
            Ok(0) => return Err(lost(&"the server closed the connection")),
            Ok(_) => {}
            Err(error) => return Err(lost(&io_word(&error))),
        }
    }
    let is_ok = |reply: &Value| matches!(reply, Value::Simple(_));
    match replies.as_slice() {
        [Value::Array(none), said, watch, Value::Bulk(found), multi]
            if none.is_empty() && is_ok(watch) && unit_guard(found) == guard && is_ok(multi) =>
        {
            Ok(match said {
                Value::Error(error) => Err(format!("AUTH was refused: {}", auth_refusal(error))),
                _ => Ok(()),
            })
        }
        _ => Err(lost(
            &"the checkpoint was changed by somebody else, or is not watched",
        )),
    }
}
