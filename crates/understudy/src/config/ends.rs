//! Which reader and which writer a file names: one table of each kind is filled in.

use std::path::PathBuf;

use super::document::Document;
use super::endpoint::{
    SCAN, SOURCE, SOURCE_SENTINELS, TARGET, TARGET_SENTINELS, behind_sentinels, endpoint,
};
use super::{Auth, ConfigError, Endpoint, Proof};

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// A live server, as a replica of it.
    Sync,
    /// RDB files, one after the other; `-` is standard input.
    Rdb(Vec<PathBuf>),
    /// An append-only file.
    Aof(AofReader),
    /// A live server, by SCAN and keyspace events.
    Scan,
}

/// An append-only file to be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofReader {
    /// The file, the manifest of several, or the folder that it is in.
    pub path: PathBuf,
    /// Nothing that was written later than this, in seconds of Unix time.
    pub until: Option<u64>,
}

/// Where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writer {
    /// To a server.
    Redis,
    /// To a file.
    File(FileWriter),
}

/// A file that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWriter {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub kind: FileKind,
}

/// What is in a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A command a line, as one types it for redis-cli.
    Cmd,
    /// Commands in RESP, which a server loads.
    Aof,
    /// A line of JSON a command.
    Json,
    /// A snapshot.
    Rdb,
}

impl Reader {
    /// Whether files are read, and no server is asked.
    pub fn is_of_files(&self) -> bool {
        match self {
            Self::Sync | Self::Scan => false,
            Self::Rdb(_) | Self::Aof(_) => true,
        }
    }
}

/// The key of each table that says that it is filled in.
const READERS: [&str; 4] = [
    "sync_reader.address",
    "scan_reader.address",
    "rdb_reader.filepath",
    "aof_reader.filepath",
];
const WRITERS: [&str; 2] = ["redis_writer.address", "file_writer.filepath"];

/// The one that is filled in; `None` where none is.
fn given(doc: &Document, keys: &[&'static str]) -> Result<Option<&'static str>, ConfigError> {
    let mut given = keys.iter().filter(|key| doc.is_filled(key));
    match (given.next(), given.next()) {
        (Some(first), Some(second)) => {
            let what =
                format!("{first} and {second} are both set; a link has one reader and one writer");
            Err(doc.error(second, what))
        }
        (first, _) => Ok(first.copied()),
    }
}

/// The reader, and where it reads.
///
/// # Errors
/// What is missing, or does not go together, with its line.
pub(super) fn reader(doc: &Document) -> Result<(Reader, Endpoint), ConfigError> {
    let sentinels = behind_sentinels(doc, &SOURCE_SENTINELS)?;
    match given(doc, &READERS)? {
        Some("scan_reader.address") => Ok((Reader::Scan, endpoint(doc, &SCAN)?)),
        Some("rdb_reader.filepath") => {
            let files: Vec<PathBuf> = doc
                .texts("rdb_reader.filepath")
                .into_iter()
                .map(PathBuf::from)
                .collect();
            let endpoint = nowhere(&names(&files));
            Ok((Reader::Rdb(files), endpoint))
        }
        Some("aof_reader.filepath") => {
            let path = PathBuf::from(doc.text("aof_reader.filepath"));
            let endpoint = nowhere(&names(std::slice::from_ref(&path)));
            let until = Some(doc.int("aof_reader.timestamp")).filter(|until| *until > 0);
            Ok((Reader::Aof(AofReader { path, until }), endpoint))
        }
        _ => match sentinels {
            Some(endpoint) => Ok((Reader::Sync, endpoint)),
            None => Ok((Reader::Sync, endpoint(doc, &SOURCE)?)),
        },
    }
}

/// The writer, and where it writes.
///
/// # Errors
/// As [`reader`].
pub(super) fn writer(doc: &Document) -> Result<(Writer, Endpoint), ConfigError> {
    let sentinels = behind_sentinels(doc, &TARGET_SENTINELS)?;
    match given(doc, &WRITERS)? {
        Some("file_writer.filepath") => {
            let path = PathBuf::from(doc.text("file_writer.filepath"));
            let endpoint = nowhere(&names(std::slice::from_ref(&path)));
            let kind = match doc.text("file_writer.type").as_str() {
                "aof" => FileKind::Aof,
                "json" => FileKind::Json,
                "rdb" => FileKind::Rdb,
                _ => FileKind::Cmd,
            };
            Ok((Writer::File(FileWriter { path, kind }), endpoint))
        }
        _ => match sentinels {
            Some(endpoint) => Ok((Writer::Redis, endpoint)),
            None => Ok((Writer::Redis, endpoint(doc, &TARGET)?)),
        },
    }
}

/// What files are called in the place of an address.
fn names(files: &[PathBuf]) -> String {
    let name = |file: &PathBuf| match file.to_str() {
        Some("-") => "stdin".to_owned(),
        _ => file.display().to_string(),
    };
    match files {
        [] => String::new(),
        [one] => name(one),
        [first, rest @ ..] => format!("{} and {} more", name(first), rest.len()),
    }
}

/// In the place of a server: the name alone is used, for words and for the link's own name.
fn nowhere(name: &str) -> Endpoint {
    Endpoint {
        address: name.to_owned(),
        auth: Auth {
            username: None,
            proof: Proof::None,
            renew_after: None,
        },
        tls: None,
        sentinel: None,
        follow: None,
    }
}

/// What does not go together.
pub(super) fn check(doc: &Document, reader: &Reader, writer: &Writer) -> Result<(), ConfigError> {
    if let Reader::Rdb(files) = reader {
        let stdin = files.iter().filter(|file| file.as_os_str() == "-").count();
        if stdin > 1 {
            let what = "rdb_reader.filepath names standard input (\"-\") more than once";
            return Err(doc.error("rdb_reader.filepath", what));
        }
    }
    let is_unchecked = matches!(reader, Reader::Aof(_)) || *writer != Writer::Redis;
    if let (true, Some(map)) = (is_unchecked, doc.dbs("redis_writer.db_map"))
        && let rewrite::DbMap::Numbers(rules) = &map
        && rules
            .values()
            .flatten()
            .any(|to| map.is_merged(rewrite::Db(*to)))
        && doc.ints("filter.allow_db").len() != 1
    {
        let what = "redis_writer.db_map brings several databases into one, which cannot be checked for keys of one name in an append-only file, nor in a file that is written: use \"prefix\", or filter.allow_db with one database";
        return Err(doc.error("redis_writer.db_map", what));
    }
    if doc.is_filled("filter.function") && (reader.is_of_files() || *writer != Writer::Redis) {
        let what = "filter.function is not for files in this version: from a live server into another one it is";
        return Err(doc.error("filter.function", what));
    }
    let Writer::File(file) = writer else {
        return Ok(());
    };
    if *reader == Reader::Sync && doc.bool("sync_reader.cluster") {
        let what = "a source cluster into a file is not in this version: give each node's address a link and a file of its own";
        return Err(doc.error("sync_reader.cluster", what));
    }
    if *reader == Reader::Scan {
        let what = "scan_reader reads keys again and again, which makes no file: use redis_writer, or sync_reader with file_writer";
        return Err(doc.error("scan_reader.address", what));
    }
    if file.kind != FileKind::Rdb {
        return Ok(());
    }
    match reader {
        Reader::Rdb(_) | Reader::Scan => Ok(()),
        Reader::Sync if !doc.bool("sync_reader.sync_aof") => Ok(()),
        Reader::Sync => {
            let what = "file_writer.type = \"rdb\" holds a snapshot and no stream: set sync_reader.sync_aof = false, or another type";
            Err(doc.error("file_writer.type", what))
        }
        Reader::Aof(_) => {
            let what = "file_writer.type = \"rdb\" cannot be made of commands: play the AOF into a server and let it save, or set another type";
            Err(doc.error("file_writer.type", what))
        }
    }
}
