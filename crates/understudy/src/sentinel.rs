//! A server behind Sentinels: who the master is now is asked before every connection, so that a failover is followed.

use std::sync::Mutex;

use resp::{ErrorCode, Value};

use crate::client::Client;
use crate::config::{Auth, Endpoint, TlsConfig};
use crate::error::{Class, Side, SyncError};

/// So many other Sentinels are remembered.
const KNOWN_MAX: usize = 16;

/// The Sentinels that watch a master.
#[derive(Debug)]
pub struct Sentinel {
    /// The name under which they watch it.
    pub master: String,
    /// Who we are to them.
    pub auth: Auth,
    /// TLS to them, if wanted.
    pub tls: Option<TlsConfig>,
    /// Those to ask: first the one that answered last. What they tell of others is added.
    known: Mutex<Vec<String>>,
}

impl Sentinel {
    /// Sentinels at these addresses.
    pub fn new(master: String, addresses: Vec<String>, auth: Auth, tls: Option<TlsConfig>) -> Self {
        Self {
            master,
            auth,
            tls,
            known: Mutex::new(addresses),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The master's address, from the first Sentinel that knows it.
    ///
    /// # Errors
    /// The last one's error, but one that may pass before one that will not: a Sentinel that was told of may be reached by
    /// an address that is not ours to use. Class stop only where all of them refuse us, or do not watch that master.
    pub(crate) async fn resolve(&self, fallback: &Auth, side: Side) -> Result<String, SyncError> {
        let addresses = self.known().clone();
        let mut last: Option<SyncError> = None;
        for address in addresses {
            let asked = match self.ask(&address, &self.auth, side).await {
                // The old form of the configuration has one password for both.
                Err(error) if error.is_auth && self.auth.is_none() && !fallback.is_none() => {
                    self.ask(&address, fallback, side).await
                }
                asked => asked,
            };
            match asked {
                Ok((master, others)) => {
                    self.remember(address, others);
                    return Ok(master);
                }
                Err(Failed { error, .. }) => {
                    let may_pass = |one: &SyncError| one.class != Class::Stop;
                    if may_pass(&error) || !last.as_ref().is_some_and(may_pass) {
                        last = Some(error);
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| SyncError::stop(side, "", "no Sentinel is named")))
    }

    fn remember(&self, answered: String, others: Vec<String>) {
        let mut known = self.known();
        known.retain(|address| *address != answered);
        known.insert(0, answered);
        for other in others {
            if known.len() < KNOWN_MAX && !known.contains(&other) {
                known.push(other);
            }
        }
    }

    /// What one Sentinel says: the master, and the other Sentinels.
    async fn ask(
        &self,
        address: &str,
        auth: &Auth,
        side: Side,
    ) -> Result<(String, Vec<String>), Failed> {
        let endpoint = Endpoint {
            address: address.to_owned(),
            auth: auth.clone(),
            tls: self.tls.clone(),
            sentinel: None,
            follow: None,
        };
        let failed = |error| Failed {
            error,
            is_auth: false,
        };
        let mut client = Client::connect_plainly(&endpoint, side)
            .await
            .map_err(|error| Failed {
                is_auth: error.what.contains("NOAUTH"),
                error,
            })?;
        let master = self.master.as_bytes();
        let question: [&[u8]; 3] = [b"SENTINEL", b"get-master-addr-by-name", master];
        let found = match client.ask(&question).await.map_err(failed)? {
            Value::Error(error) => {
                return Err(Failed {
                    is_auth: error.code == ErrorCode::NoAuth,
                    error: client.refused(&question, &error),
                });
            }
            Value::Array(parts) => match parts.as_slice() {
                [Value::Bulk(host), Value::Bulk(port)] => Some(join(host, port)),
                _ => None,
            },
            _ => None,
        };
        let Some(found) = found else {
            let what = format!(
                "this Sentinel watches no master \"{}\"; set {} to one that it does",
                self.master,
                match side {
                    Side::Source => "sync_reader.sentinel.master_name",
                    Side::Target | Side::Local => "redis_writer.master (or sentinel.master_name)",
                }
            );
            return Err(failed(SyncError::stop(side, address, what)));
        };
        let others = client.ask(&[b"SENTINEL", b"sentinels", master]).await;
        let others = others.ok().as_ref().map(addresses).unwrap_or_default();
        Ok((found, others))
    }
}

struct Failed {
    error: SyncError,
    is_auth: bool,
}

fn join(host: &[u8], port: &[u8]) -> String {
    let (host, port) = (String::from_utf8_lossy(host), String::from_utf8_lossy(port));
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The addresses in an answer to `SENTINEL sentinels`: a list of lists of names and values.
fn addresses(answer: &Value) -> Vec<String> {
    let Value::Array(rows) = answer else {
        return Vec::new();
    };
    let field = |row: &Value, name: &[u8]| match row {
        Value::Array(words) => words.chunks_exact(2).find_map(|pair| match pair {
            [Value::Bulk(key), Value::Bulk(value)] if *key == name => Some(value.clone()),
            _ => None,
        }),
        _ => None,
    };
    rows.iter()
        .filter_map(|row| Some(join(&field(row, b"ip")?, &field(row, b"port")?)))
        .collect()
}

impl Endpoint {
    /// The server itself: behind Sentinels, and for a shard of a cluster, whoever is the master now.
    ///
    /// # Errors
    /// As [`Sentinel::resolve`].
    pub(crate) async fn resolved(&self, side: Side) -> Result<Self, SyncError> {
        if let Some(follow) = &self.follow {
            return Ok(Self {
                address: follow.address().unwrap_or_else(|| self.address.clone()),
                follow: None,
                ..self.clone()
            });
        }
        let Some(sentinel) = &self.sentinel else {
            return Ok(self.clone());
        };
        Ok(Self {
            address: sentinel.resolve(&self.auth, side).await?,
            sentinel: None,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sentinels_are_found_in_their_answer() {
        let bulk = |text: &'static str| Value::Bulk(bytes::Bytes::from_static(text.as_bytes()));
        let row = |ip, port| {
            let words = ["name", "x", "ip", ip, "port", port].map(bulk);
            Value::Array(words.to_vec())
        };
        let answer = Value::Array(vec![row("10.0.0.1", "26379"), row("::1", "5"), Value::Null]);
        assert_eq!(addresses(&answer), ["10.0.0.1:26379", "[::1]:5"]);
    }

    #[test]
    fn who_answered_is_asked_first() {
        let known = ["a:1", "b:1"].map(str::to_owned).to_vec();
        let sentinel = Sentinel::new("m".to_owned(), known, Auth::NONE, None);
        sentinel.remember("b:1".to_owned(), vec!["c:1".to_owned(), "a:1".to_owned()]);
        assert_eq!(*sentinel.known(), ["b:1", "a:1", "c:1"]);
    }
}
