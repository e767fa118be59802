//! A client of the tests' own, over the `redis` crate: whatever our codec believes, this is another opinion.
//!
//! Commands are words of bytes; [`argv!`](crate::argv) makes them out of strings, numbers and byte slices.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use redis::{ConnectionLike, Value};

use crate::version::Version;

/// A command: its words.
pub type Argv = Vec<Vec<u8>>;

/// So many commands are sent before their replies are read; more could fill both sockets and stop both ends.
const PIPELINE_COMMANDS_MAX: usize = 512;
const PIPELINE_BYTES_MAX: usize = 256 << 10;

/// How long a reply may take before the test fails rather than hangs.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a command gave no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The server's error reply, without the leading `-`.
    Reply(String),
    /// The connection is gone.
    Connection(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(text) => write!(f, "error reply: {text}"),
            Self::Connection(text) => write!(f, "connection: {text}"),
        }
    }
}

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        match error.code() {
            Some(code) => Self::Reply(format!("{code} {}", error.detail().unwrap_or_default())),
            None => Self::Connection(error.to_string()),
        }
    }
}

/// One connection.
pub struct Client {
    address: String,
    connection: redis::Connection,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.address)
    }
}

impl Client {
    /// Connects to `host:port`, RESP2, db 0.
    pub fn try_connect(address: &str) -> Result<Self, Error> {
        let client = redis::Client::open(format!("redis://{address}/"))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self {
            address: address.into(),
            connection,
        })
    }

    /// Connects to a server that has to be there.
    pub fn connect(address: &str) -> Self {
        match Self::try_connect(address) {
            Ok(client) => client,
            Err(error) => panic!("{address}: {error}"),
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The reply, or the error. Errors inside an array stay where they are.
    pub fn try_command(&mut self, argv: &[Vec<u8>]) -> Result<Value, Error> {
        checked(
            self.connection
                .req_packed_command(&redis::pack_command(argv)),
        )
    }

    /// The reply of a command that must not fail.
    pub fn command(&mut self, argv: &[Vec<u8>]) -> Value {
        match self.try_command(argv) {
            Ok(value) => value,
            Err(error) => panic!("{}: {}: {error}", self.address, show(argv)),
        }
    }

    /// One result a command, in order. An outer error means that the connection ended before all replies were in;
    /// the results so far come with it.
    pub fn pipeline(&mut self, commands: &[Argv]) -> (Vec<Result<Value, String>>, Option<Error>) {
        let mut results = Vec::with_capacity(commands.len());
        let mut at = 0;
        while at < commands.len() {
            let mut packed = Vec::new();
            let from = at;
            while at < commands.len()
                && at - from < PIPELINE_COMMANDS_MAX
                && packed.len() < PIPELINE_BYTES_MAX
            {
                packed.extend(redis::pack_command(&commands[at]));
                at += 1;
            }
            if let Err(error) = self.connection.send_packed_command(&packed) {
                return (results, Some(error.into()));
            }
            for _ in from..at {
                match checked(self.connection.recv_response()) {
                    Ok(value) => results.push(Ok(value)),
                    Err(Error::Reply(text)) => results.push(Err(text)),
                    Err(error) => return (results, Some(error)),
                }
            }
        }
        (results, None)
    }

    /// Values of commands of which none may fail.
    pub fn commands(&mut self, commands: &[Argv]) -> Vec<Value> {
        let (results, error) = self.pipeline(commands);
        if let Some(error) = error {
            panic!("{}: {error}", self.address);
        }
        let checked = results
            .into_iter()
            .zip(commands)
            .map(|(result, argv)| match result {
                Ok(value) => value,
                Err(error) => panic!("{}: {}: {error}", self.address, show(argv)),
            });
        checked.collect()
    }

    /// SELECT.
    pub fn select(&mut self, db: u32) {
        self.command(&crate::argv!["SELECT", db]);
    }

    /// The fields of INFO, of all sections or of one.
    pub fn info(&mut self, section: &str) -> BTreeMap<String, String> {
        let argv = match section {
            "" => crate::argv!["INFO"],
            section => crate::argv!["INFO", section],
        };
        let text = text(&self.command(&argv));
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields
            .map(|(name, value)| (name.into(), value.trim().into()))
            .collect()
    }

    /// A field of INFO as a number; 0 if it is not there or none.
    pub fn info_number(&mut self, section: &str, field: &str) -> i64 {
        self.info(section)
            .get(field)
            .and_then(|value| value.parse().ok())
            .unwrap_or(0)
    }

    /// What the server says it is.
    pub fn version(&mut self) -> Version {
        let info = self.info("server");
        let (family, version) = match (info.get("valkey_version"), info.get("redict_version")) {
            (Some(version), _) => ("valkey", version),
            (None, Some(version)) => ("redict", version),
            (None, None) => ("redis", &info["redis_version"]),
        };
        Version::parse(family, version).unwrap_or_else(|| panic!("{version:?} is no version"))
    }

    /// The dbs that hold keys, with their number of keys.
    pub fn keyspace(&mut self) -> BTreeMap<u32, u64> {
        let info = self.info("keyspace");
        let dbs = info.iter().filter_map(|(name, value)| {
            let db = name.strip_prefix("db")?.parse().ok()?;
            let keys = value
                .strip_prefix("keys=")?
                .split(',')
                .next()?
                .parse()
                .ok()?;
            Some((db, keys))
        });
        dbs.collect()
    }

    /// Every key of the selected db (once, sorted).
    pub fn keys(&mut self) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let mut cursor = b"0".to_vec();
        loop {
            let argv = crate::argv!["SCAN", cursor, "COUNT", 2000];
            let mut parts = items(self.command(&argv)).into_iter();
            cursor = parts.next().map(bytes).unwrap_or_default();
            keys.extend(
                parts
                    .next()
                    .map(items)
                    .unwrap_or_default()
                    .into_iter()
                    .map(bytes),
            );
            if cursor == b"0" {
                break;
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    /// The connection itself, for what is not here.
    pub fn raw(&mut self) -> &mut redis::Connection {
        &mut self.connection
    }
}

fn checked(result: redis::RedisResult<Value>) -> Result<Value, Error> {
    match result? {
        Value::ServerError(error) => Err(Error::Reply(format!(
            "{} {}",
            error.code(),
            error.details().unwrap_or_default()
        ))),
        value => Ok(value),
    }
}

/// A reply's bytes; empty for nil, decimal for numbers.
pub fn bytes(value: Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::Nil => Vec::new(),
        other => text(&other).into_bytes(),
    }
}

/// A reply as text.
pub fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::Okay => "OK".into(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Nil => String::new(),
        other => format!("{other:?}"),
    }
}

/// The items of an array or set; a map's keys and values in turn; nothing for nil.
pub fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        Value::Map(pairs) => pairs
            .into_iter()
            .flat_map(|(key, value)| [key, value])
            .collect(),
        _ => Vec::new(),
    }
}

/// A number, also one written as text; `None` for nil.
pub fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => text(other).parse().ok(),
    }
}

/// A command as a person would type it, cut short.
pub fn show(argv: &[Vec<u8>]) -> String {
    let words: Vec<String> = argv.iter().take(12).map(|word| show_bytes(word)).collect();
    words.join(" ")
}

/// Bytes as printable text, cut at 64.
pub fn show_bytes(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(64)].escape_ascii().to_string();
    if bytes.len() > 64 {
        format!("{shown}...({} bytes)", bytes.len())
    } else {
        shown
    }
}

/// What can be a word of a command.
pub trait Word {
    /// The word's bytes.
    fn word(&self) -> Vec<u8>;
}

impl<T: Word + ?Sized> Word for &T {
    fn word(&self) -> Vec<u8> {
        (*self).word()
    }
}

macro_rules! words {
    (bytes: $($bytes:ty)*) => { $(impl Word for $bytes {
        fn word(&self) -> Vec<u8> { let bytes: &[u8] = self.as_ref(); bytes.to_vec() }
    })* };
    (shown: $($shown:ty)*) => { $(impl Word for $shown {
        fn word(&self) -> Vec<u8> { self.to_string().into_bytes() }
    })* };
}
words!(bytes: str String [u8] Vec<u8>);
words!(shown: i32 i64 u16 u32 u64 usize f64);

impl<const N: usize> Word for [u8; N] {
    fn word(&self) -> Vec<u8> {
        self.to_vec()
    }
}

/// A command out of words of any kind: `argv!["SET", key, 7]`.
#[macro_export]
macro_rules! argv {
    ($($word:expr),* $(,)?) => { Vec::from([$($crate::client::Word::word(&$word)),*]) };
}
