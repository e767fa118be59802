//! A plain request/reply client, for all that is not on the hot path.

use std::time::Duration;

use bytes::BytesMut;
use resp::{ErrorCode, Limits, Value, ValueDecoder};
use tokio::io::AsyncReadExt;

use crate::auth::Credentials;
use crate::config::{Auth, Endpoint};
use crate::error::{Class, Side, SyncError, io_word};
use crate::net::{self, Bulk, Stream};
use crate::tls;

/// The name of our connections in the source's CLIENT LIST.
pub(crate) const OUR_NAME: &str = "understudy";

/// How long a server may take to answer AUTH and PING.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that has authenticated.
pub(crate) struct Client {
    stream: Stream,
    buf: BytesMut,
    decoder: ValueDecoder,
    side: Side,
    address: String,
    /// An answer was longer than it may be.
    overran: bool,
}

impl Client {
    /// Connects and authenticates.
    ///
    /// # Errors
    /// Class stop where the server refuses us for good (password, permission, not a Redis).
    pub(crate) async fn connect(endpoint: &Endpoint, side: Side) -> Result<Self, SyncError> {
        if endpoint.sentinel.is_none() && endpoint.follow.is_none() {
            return Self::connect_plainly(endpoint, side).await;
        }
        let master = Box::pin(endpoint.resolved(side)).await?;
        Self::connect_plainly(&master, side).await
    }

    /// Connects to the address itself.
    pub(crate) async fn connect_plainly(
        endpoint: &Endpoint,
        side: Side,
    ) -> Result<Self, SyncError> {
        let bulk = match side {
            Side::Source => Bulk::Reading,
            Side::Target | Side::Local => Bulk::Writing,
        };
        let stream = net::connect(endpoint, side, bulk).await?;
        // A command or a chain of credentials has a time of its own.
        let credentials = endpoint.auth.credentials().await;
        let credentials =
            credentials.map_err(|what| SyncError::reconnect(side, &endpoint.address, what))?;
        let greeting = Self::greet(stream, endpoint, credentials, side);
        match tokio::time::timeout(GREETING_TIMEOUT, greeting).await {
            Ok(greeted) => greeted,
            Err(_) => {
                let what = format!(
                    "the connection stands, but PING was not answered within {} s; is this a Redis port, and is the server stuck?",
                    GREETING_TIMEOUT.as_secs()
                );
                Err(SyncError::reconnect(side, &endpoint.address, what))
            }
        }
    }

    async fn greet(
        stream: Stream,
        endpoint: &Endpoint,
        credentials: Option<Credentials>,
        side: Side,
    ) -> Result<Self, SyncError> {
        let mut client = Self {
            stream,
            buf: BytesMut::with_capacity(16 << 10),
            decoder: ValueDecoder::new(Limits::default()),
            side,
            address: endpoint.address.clone(),
            overran: false,
        };
        if let Some(credentials) = credentials {
            let answered = client.call_as(&endpoint.auth, &credentials.auth()).await;
            answered.map_err(|error| match endpoint.auth.origin() {
                Some(origin) if error.class != Class::Reconnect || endpoint.auth.may_change() => {
                    SyncError {
                        what: format!("{}; {origin}", error.what),
                        ..error
                    }
                }
                _ => error,
            })?;
        }
        client.call_as(&endpoint.auth, &[b"PING"]).await?;
        if side == Side::Source {
            // Without the right to it we are taken for a client there, and no more.
            client
                .ask(&[b"CLIENT", b"SETNAME", OUR_NAME.as_bytes()])
                .await?;
        }
        Ok(client)
    }

    /// As [`Self::call`], where a refused password may be another one by now.
    async fn call_as(&mut self, auth: &Auth, argv: &[&[u8]]) -> Result<Value, SyncError> {
        match self.ask(argv).await? {
            Value::Error(error) => Err(SyncError {
                class: auth.class_of(error.code),
                ..self.refused(argv, &error)
            }),
            value => Ok(value),
        }
    }

    /// From here on a reply of more bytes than this is an error, before it is read.
    pub(crate) fn limit_replies(&mut self, bytes_max: u64) {
        self.decoder = ValueDecoder::new(Limits {
            bulk_bytes_max: bytes_max,
            frame_bytes_max: bytes_max,
            ..Limits::default()
        });
    }

    /// Whether an answer was longer than it may be. It is not read: the connection is of no use any more.
    pub(crate) fn has_overrun(&self) -> bool {
        self.overran
    }

    /// Sends one command and waits for its reply; an error reply is an `Err`.
    pub(crate) async fn call(&mut self, argv: &[&[u8]]) -> Result<Value, SyncError> {
        match self.ask(argv).await? {
            Value::Error(error) => Err(self.refused(argv, &error)),
            value => Ok(value),
        }
    }

    /// Sends all commands at once; gives their replies, whatever they are.
    pub(crate) async fn ask_all(
        &mut self,
        commands: &[Vec<&[u8]>],
    ) -> Result<Vec<Value>, SyncError> {
        let mut out = Vec::new();
        for argv in commands {
            resp::encode::command(&mut out, argv);
        }
        net::send(&mut self.stream, &out)
            .await
            .map_err(|error| self.broken(&error))?;
        let mut replies = Vec::with_capacity(commands.len());
        for _ in commands {
            replies.push(self.reply().await?);
        }
        Ok(replies)
    }

    /// Sends commands that are encoded already, and waits for so many replies, whatever they are.
    pub(crate) async fn ask_encoded(
        &mut self,
        encoded: &[u8],
        count: usize,
    ) -> Result<Vec<Value>, SyncError> {
        net::send(&mut self.stream, encoded)
            .await
            .map_err(|error| self.broken(&error))?;
        let mut replies = Vec::new();
        for _ in 0..count {
            replies.push(self.reply().await?);
        }
        Ok(replies)
    }

    /// The server's address.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The connection, and what of its replies was read already; nothing may be on its way.
    pub(crate) fn parts(&mut self) -> (&mut Stream, &mut BytesMut) {
        (&mut self.stream, &mut self.buf)
    }

    /// Sends one command and waits for its reply, whatever it is.
    pub(crate) async fn ask(&mut self, argv: &[&[u8]]) -> Result<Value, SyncError> {
        let mut out = Vec::new();
        resp::encode::command(&mut out, argv);
        net::send(&mut self.stream, &out)
            .await
            .map_err(|error| self.broken(&error))?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Value, SyncError> {
        loop {
            match self.decoder.poll(&mut self.buf) {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => {}
                Err(error) => {
                    let start: Vec<u8> = self.buf.iter().take(40).copied().collect();
                    let what = if let resp::ErrorKind::Limit { got, max, .. } = error.kind {
                        self.overran = true;
                        format!(
                            "the answer has {got} bytes or more, and {max} is what may be read at once"
                        )
                    } else if start.starts_with(&[0x15, 0x03]) {
                        "the server speaks TLS on this port; set tls = true or use its plain port"
                            .to_owned()
                    } else {
                        format!(
                            "the answer is not RESP ({error}): \"{}\"; is this a Redis port?",
                            start.escape_ascii()
                        )
                    };
                    return Err(SyncError::stop(self.side, &self.address, what));
                }
            }
            self.buf.reserve(16 << 10);
            match self.stream.read_buf(&mut self.buf).await {
                Ok(0) => {
                    let what = "the server closed the connection";
                    return Err(SyncError::reconnect(self.side, &self.address, what));
                }
                Ok(_) => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    /// `INFO section` as text.
    pub(crate) async fn info(&mut self, section: &str) -> Result<Info, SyncError> {
        let text = match self.call(&[b"INFO", section.as_bytes()]).await? {
            Value::Bulk(text) | Value::Verbatim { text, .. } => text,
            other => {
                let what = format!("INFO answered {other:?}");
                return Err(SyncError::stop(self.side, &self.address, what));
            }
        };
        Ok(Info(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Hands over the connection; nothing may be on its way.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    fn broken(&self, error: &std::io::Error) -> SyncError {
        SyncError {
            class: if tls::is_refusal(error) {
                Class::Stop
            } else {
                Class::Reconnect
            },
            ..SyncError::reconnect(self.side, &self.address, io_word(error))
        }
    }

    pub(crate) fn refused(&self, argv: &[&[u8]], error: &resp::ErrorReply) -> SyncError {
        let name = argv
            .first()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .unwrap_or_default();
        let text = match name.as_str() {
            "AUTH" => auth_refusal(error),
            _ => String::from_utf8_lossy(&error.text),
        };
        SyncError {
            side: self.side,
            address: self.address.clone(),
            class: class_of(error.code),
            what: match mend(error.code, self.side) {
                Some(mend) => format!("{name} was refused: {text}; {mend}"),
                None => format!("{name} was refused: {text}"),
            },
        }
    }
}

/// What a server says to AUTH. One that does not know it repeats its arguments.
pub(crate) fn auth_refusal(error: &resp::ErrorReply) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(error.text.split(|c| *c == b',').next().unwrap_or_default())
}

/// Whether waiting may mend an error reply.
pub(crate) fn class_of(code: ErrorCode) -> Class {
    match code {
        ErrorCode::Loading
        | ErrorCode::Busy
        | ErrorCode::MasterDown
        | ErrorCode::ClusterDown
        | ErrorCode::TryAgain
        | ErrorCode::Moved
        | ErrorCode::Ask
        | ErrorCode::NoReplicas
        | ErrorCode::Oom
        | ErrorCode::ReadOnly
        | ErrorCode::Misconf
        | ErrorCode::NoMasterLink => Class::Reconnect,
        _ => Class::Stop,
    }
}

/// What the operator can do about an error reply.
pub(crate) fn mend(code: ErrorCode, side: Side) -> Option<&'static str> {
    let table = |source, target| match side {
        Side::Source => source,
        Side::Target | Side::Local => target,
    };
    match code {
        ErrorCode::NoAuth | ErrorCode::WrongPass => Some(table(
            "set sync_reader.password (and sync_reader.username for an ACL user)",
            "set redis_writer.password (and redis_writer.username for an ACL user)",
        )),
        ErrorCode::NoPerm => Some(table(
            "the user needs +ping +psync +replconf +info",
            "the user needs ~* +@write +ping +info +select +multi +exec +watch +unwatch +get +scan +command +pttl +pexpiretime +time +pfcount +script|load",
        )),
        ErrorCode::Oom => {
            Some("the target is out of memory: raise maxmemory or take a larger node")
        }
        ErrorCode::Loading => Some("it is loading its data, which is waited for"),
        ErrorCode::Busy => Some("a script runs there, which is waited for; SCRIPT KILL ends it"),
        ErrorCode::Misconf => Some("it cannot save its data: look at its log and its disk"),
        ErrorCode::NoReplicas => Some("its min-replicas-to-write is not met"),
        ErrorCode::ReadOnly => Some("this is a replica: use the address of the primary"),
        ErrorCode::Denied => {
            Some("protected mode is on: set a password there, or protected-mode no")
        }
        _ => None,
    }
}

/// The text of an INFO reply.
#[derive(Debug)]
pub(crate) struct Info(String);

impl Info {
    /// A reply's text.
    pub(crate) fn of(text: &[u8]) -> Self {
        Self(String::from_utf8_lossy(text).into_owned())
    }

    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The value of `field`.
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.trim_end().strip_prefix(field)?.strip_prefix(':'))
    }

    /// What the server is: `standalone`, `cluster` or `sentinel`. Valkey calls the field by another name.
    pub(crate) fn mode(&self) -> Option<&str> {
        self.get("redis_mode").or_else(|| self.get("server_mode"))
    }

    /// `(db, keys)` of every database of the keyspace section.
    pub(crate) fn keyspace(&self) -> Vec<(u32, u64)> {
        self.0
            .lines()
            .filter_map(|line| {
                let (db, rest) = line.strip_prefix("db")?.split_once(":keys=")?;
                let keys = rest.split(',').next()?;
                Some((db.parse().ok()?, keys.parse().ok()?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_fields() {
        let info = Info(
            "# Server\r\nredis_version:7.0.15\r\ndb0:keys=3,expires=1\r\ndb11:keys=20\r\n"
                .to_owned(),
        );
        assert_eq!(info.get("redis_version"), Some("7.0.15"));
        assert_eq!(info.get("redis"), None);
        assert_eq!(info.mode(), None);
        for name in ["redis_mode", "server_mode"] {
            let info = Info(format!("redis_version:7.2.4\r\n{name}:cluster\r\n"));
            assert_eq!(info.mode(), Some("cluster"), "{name}");
        }
        assert_eq!(info.keyspace(), vec![(0, 3), (11, 20)]);
    }
}
