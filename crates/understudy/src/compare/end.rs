//! One of both ends: a connection that is made anew when it is lost, and what the server is.

use std::time::Duration;

use resp::Value;
use rewrite::{Fork, Version};

use super::large::refusal;
use crate::backoff::Backoff;
use crate::client::{Client, Info, class_of};
use crate::config::Endpoint;
use crate::error::{Class, Side, SyncError};
use crate::target::version_of;

/// Everything here only reads, so it is asked again when a connection is lost; so often in a row.
const ATTEMPTS: u32 = 6;
/// A server that answers nothing for so long is lost.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A server that is read from.
pub(crate) struct End {
    pub(crate) endpoint: Endpoint,
    pub(crate) side: Side,
    pub(crate) fork: Fork,
    pub(crate) version: Version,
    client: Option<Client>,
    /// The database that is selected on it.
    db: u32,
    reply_bytes_max: u64,
    overran: bool,
    /// MEMORY USAGE is not there, or not allowed.
    pub(super) tells_no_sizes: bool,
}

impl End {
    /// Connects, and asks for the version. No reply may be longer than `reply_bytes_max`.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        side: Side,
        reply_bytes_max: u64,
    ) -> Result<Self, SyncError> {
        let mut end = Self {
            endpoint: endpoint.clone(),
            side,
            fork: Fork::Redis,
            version: Version::new(2, 8, 0),
            client: None,
            db: 0,
            reply_bytes_max,
            overran: false,
            tells_no_sizes: false,
        };
        // A user who may not ask gets the oldest way of doing things.
        if let Value::Bulk(text) = end.one(0, &[b"INFO", b"server"]).await?
            && let info = Info::of(&text)
            && let Some((fork, version)) = version_of(&info)
        {
            end.fork = fork;
            end.version = version.parse().unwrap_or(end.version);
        }
        Ok(end)
    }

    /// Whether it has what came with this version of Redis; Valkey parted from it after 7.2.
    pub(crate) fn has(&self, major: u16, minor: u16) -> bool {
        self.version >= Version::new(major, minor, 0)
    }

    /// `redis 7.0.15`.
    pub(crate) fn name(&self) -> String {
        let fork = match self.fork {
            Fork::Redis => "redis",
            Fork::Valkey => "valkey",
        };
        format!("{fork} {}", self.version)
    }

    /// One command; its reply, whatever it is, but one that waiting mends.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn one(&mut self, db: u32, argv: &[&[u8]]) -> Result<Value, SyncError> {
        let mut replies = self.ask(db, &[argv.to_vec()]).await?;
        Ok(replies.pop().unwrap_or(Value::Null))
    }

    /// Sends commands that only read to a database at once; gives their replies, whatever they are.
    ///
    /// # Errors
    /// Those of the connection, when it does not come back.
    pub(crate) async fn ask(
        &mut self,
        db: u32,
        commands: &[Vec<&[u8]>],
    ) -> Result<Vec<Value>, SyncError> {
        let mut backoff = Backoff::default();
        loop {
            let asked = tokio::time::timeout(TIMEOUT, self.try_ask(db, commands)).await;
            let result = asked.unwrap_or_else(|_| {
                let what = format!("it has not answered for {} s", TIMEOUT.as_secs());
                Err(SyncError::reconnect(
                    self.side,
                    &self.endpoint.address,
                    what,
                ))
            });
            match result {
                Err(error) => {
                    self.overran |= self
                        .client
                        .take()
                        .is_some_and(|client| client.has_overrun());
                    if error.class != Class::Reconnect || backoff.attempts() >= ATTEMPTS {
                        return Err(error);
                    }
                    tracing::debug!(%error, "asking again");
                    tokio::time::sleep(backoff.pause()).await;
                }
                result => return result,
            }
        }
    }

    /// Whether the last error was an answer longer than may be read. Forgets it.
    pub(crate) fn take_overrun(&mut self) -> bool {
        std::mem::take(&mut self.overran)
    }

    async fn try_ask(&mut self, db: u32, commands: &[Vec<&[u8]>]) -> Result<Vec<Value>, SyncError> {
        let client = match &mut self.client {
            Some(client) => client,
            none => {
                let mut client = Client::connect(&self.endpoint, self.side).await?;
                client.limit_replies(self.reply_bytes_max);
                self.db = 0;
                none.insert(client)
            }
        };
        if db != self.db {
            client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
            self.db = db;
        }
        let replies = client.ask_all(commands).await?;
        for (reply, argv) in replies.iter().zip(commands) {
            if let Value::Error(error) = reply
                && class_of(error.code) == Class::Reconnect
            {
                return Err(client.refused(argv, error));
            }
        }
        Ok(replies)
    }

    /// `INFO section`.
    ///
    /// # Errors
    /// Those of the connection; stop where it does not tell.
    pub(crate) async fn info(&mut self, section: &str) -> Result<Info, SyncError> {
        match self.one(0, &[b"INFO", section.as_bytes()]).await? {
            Value::Bulk(text) => Ok(Info::of(&text)),
            other => Err(self.strange("INFO", &other)),
        }
    }

    /// An answer, unless it says that we may not ask: a value that is gone, or of another kind by now, is an answer.
    ///
    /// # Errors
    /// As [`Self::strange`].
    pub(crate) fn unless_refused(&self, command: &str, answer: Value) -> Result<Value, SyncError> {
        match &answer {
            Value::Error(error) if refusal(command.as_bytes(), error).is_some() => {
                Err(self.strange(command, &answer))
            }
            _ => Ok(answer),
        }
    }

    /// An answer of no use: an error reply, or nothing that a Redis would say.
    pub(crate) fn strange(&self, command: &str, reply: &Value) -> SyncError {
        let what = match reply {
            Value::Error(error) => {
                let text = String::from_utf8_lossy(&error.text);
                let mend = match (error.code, self.side) {
                    (resp::ErrorCode::NoPerm, Side::Source) => {
                        "; comparing needs ~* +info +scan +exists +dump +type +pttl +pexpiretime +time +select +memory|usage at the source"
                    }
                    (resp::ErrorCode::NoPerm, _) => {
                        "; comparing needs ~* +info +get +scan +exists +dump +type +pttl +pexpiretime +time +select +memory|usage at the target"
                    }
                    (resp::ErrorCode::Moved | resp::ErrorCode::CrossSlot, _) => {
                        "; this is a node of a cluster, and compare reads one server in this version"
                    }
                    _ => "",
                };
                format!("{command} was refused: {text}{mend}")
            }
            _ => format!("{command} answered something that a Redis would not say"),
        };
        SyncError::stop(self.side, &self.endpoint.address, what)
    }
}
