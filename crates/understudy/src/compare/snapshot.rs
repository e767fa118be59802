//! A snapshot of the source in the place of its keys: they are not read one by one.
//!
//! Of each value in the file a digest is made while it is read, whatever its size, and the target's value is dumped and
//! digested too. What differs (because it was written since, mostly) is looked at at both ends, as any key is. A value
//! that is too large to be dumped at the target is looked at there as well. Of all keys eight bytes are kept, to find
//! those that only the target has.

use std::io::Write;
use std::path::Path;

use rdb::{Event, Limits, Want};
use replica::Start;
use tempfile::NamedTempFile;

use super::look::{self, Held, Name};
use super::progress::Progress;
use super::rounds::LOT;
use super::run::Run;
use super::what::plain;
use crate::config::{Config, human_bytes};
use crate::error::{Side, SyncError};
use crate::pipeline::KeySet;
use crate::rdb::bar::Bar;
use crate::rdb::diff::digest::{Entry, Value};
use crate::rdb::failure::Failure;
use crate::rdb::reader::Reader;
use crate::source::{self, Opened};
use crate::status::Status;
use crate::supervise::SourceVersion;
use crate::target::version_of;

/// Asks the source for a snapshot (of a cluster each of its masters, one after the other), into files beside the spool that are gone
/// with what this gives.
///
/// # Errors
/// Where the source refuses it, or the disk does.
pub(super) async fn take(
    config: &Config,
    masters: &[String],
    progress: &Progress,
) -> Result<Vec<NamedTempFile>, SyncError> {
    let mut files = Vec::new();
    for address in masters {
        let mut config = config.clone();
        if config.source.cluster {
            config.source.cluster = false;
            config.source.endpoint.address.clone_from(address);
        }
        files.push(take_one(&config, progress).await?);
    }
    Ok(files)
}

async fn take_one(config: &Config, progress: &Progress) -> Result<NamedTempFile, SyncError> {
    let dir = config.spool.dir.parent().unwrap_or(&config.spool.dir);
    let local = |error: std::io::Error| {
        SyncError::local(format!(
            "{}: the snapshot cannot be kept: {error}",
            dir.display()
        ))
    };
    std::fs::create_dir_all(dir).map_err(local)?;
    let mut file = NamedTempFile::with_prefix_in("compare-", dir).map_err(local)?;
    let endpoint = &config.source.endpoint;
    let mut client = crate::client::Client::connect(endpoint, Side::Source).await?;
    let info = client.info("server").await.ok();
    let known = info.as_ref().and_then(version_of);
    let version = SourceVersion {
        fork: known.map(|(fork, _)| fork),
        version: known.and_then(|(_, version)| version.parse().ok()),
    };
    drop(client);
    // Nobody looks at these numbers.
    let status = Status::new(0);
    let opened = source::open(&config.source, version, Start::Full, false, &status)
        .await?
        .or_error()?;
    let Opened::Full { conn, .. } = opened else {
        let what = "it goes on with a history that nobody has asked for";
        return Err(SyncError::stop(Side::Source, &endpoint.address, what));
    };
    progress.tell("taking a snapshot of the source");
    let mut bytes = 0;
    conn.snapshot(&config.source, |piece| {
        bytes += piece.len() as u64;
        file.write_all(piece).map_err(local)
    })
    .await?;
    file.flush().map_err(local)?;
    progress.tell(&format!("a snapshot of {}", human_bytes(bytes)));
    Ok(file)
}

/// A key of the snapshot.
struct Kept {
    name: Name,
    entry: Entry,
}

fn failed(failure: Failure) -> SyncError {
    SyncError::local(failure.to_string())
}

impl Run<'_> {
    /// Compares the target with the snapshot in these files.
    pub(super) async fn snapshot(&mut self, files: &[&Path]) -> Result<(), SyncError> {
        let names: Vec<String> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        self.report.snapshot = Some(names.join(" "));
        self.progress.begin("snapshot", 0);
        let mut known = KeySet::default();
        for file in files {
            self.snapshot_file(file, &mut known).await?;
        }
        self.target_keys(Some(&known)).await
    }

    async fn snapshot_file(&mut self, file: &Path, known: &mut KeySet) -> Result<(), SyncError> {
        let mut reader = Reader::open(file, Limits::default(), &Bar::none());
        let reader = reader
            .as_mut()
            .map_err(|failure| SyncError::local(&*failure))?;
        let reading = self.comparer.reading.clone();
        let mut lot: Vec<Kept> = Vec::new();
        let mut current: Option<(Name, Value<'_>)> = None;
        let mut now_ms = crate::clock::now_ms();
        while let Some(event) = reader.next().map_err(failed)? {
            match event {
                Event::Key(head) => {
                    let is_over = head.expire_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
                    if is_over || !self.choice.takes(head.db.0, &head.key) {
                        reader.want(Want::Skip);
                        continue;
                    }
                    known.insert(head.db.0, &head.key);
                    let value = Value::new(&reading.hashing, &head);
                    current = Some(((head.db.0, head.key), value));
                }
                event if reading.is_nothing(&event, now_ms) => {}
                event => {
                    let event = plain(event);
                    let ended = current.as_mut().and_then(|(_, value)| value.event(&event));
                    let Some(entry) = ended else { continue };
                    if let Some((name, _)) = current.take() {
                        lot.push(Kept { name, entry });
                    }
                    if lot.len() >= LOT {
                        now_ms = self.kept(&std::mem::take(&mut lot)).await?;
                    }
                }
            }
        }
        self.kept(&lot).await?;
        Ok(())
    }

    /// Compares some keys of the snapshot; gives the time.
    async fn kept(&mut self, lot: &[Kept]) -> Result<i64, SyncError> {
        self.comparer.limiter.take(lot.len()).await;
        let names: Vec<Name> = lot.iter().map(|kept| kept.name.clone()).collect();
        let target = look::read(&mut self.comparer.target, &names, u64::MAX).await?;
        let mut differing = Vec::new();
        for (kept, held) in lot.iter().zip(&target.held) {
            let is_equal = match held {
                Held::Whole { payload, at_ms } => {
                    self.comparer.are_near(kept.entry.expire_at_ms, *at_ms)
                        && self
                            .comparer
                            .reading
                            .is_equal(&kept.entry, payload, target.now_ms)
                }
                Held::Large { .. } | Held::Digested { .. } | Held::Unknown | Held::Nothing => false,
            };
            if is_equal {
                self.report.equal += 1;
            } else {
                differing.push(kept.name.clone());
            }
        }
        self.report.source_keys += lot.len() as u64;
        self.progress.advance(lot.len());
        if !differing.is_empty() {
            let verdicts = self.comparer.look(&differing).await?;
            self.judge(&differing, verdicts);
        }
        Ok(target.now_ms)
    }
}
