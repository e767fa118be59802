//! How far the target is behind: what differs now may be on its way.
//!
//! Where sync keeps the target, its checkpoint there says which of the source's offsets is applied. Where nobody keeps a
//! checkpoint, nothing is known, and a pause has to do.

use std::time::Duration;

use resp::Value;
use tokio::time::Instant;

use super::end::End;
use crate::checkpoint::{self, Checkpoint, Phase};
use crate::config::Config;
use crate::error::{Side, SyncError};

/// Between two looks at the checkpoint.
const POLL: Duration = Duration::from_millis(10);

/// How the target keeps up with the source.
#[derive(Debug)]
pub(super) struct Lag {
    key: String,
    /// It was waited in vain already.
    is_still: bool,
    /// Nothing is on its way.
    is_none: bool,
}

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// Everything up to there is applied.
    Yes,
    /// Nobody says where the target stands.
    Unknown,
    /// It goes on, but is not there yet; so many bytes are missing.
    Moving(u64),
    /// It does not go on.
    Still(u64),
}

impl Reached {
    /// Whether what differs now cannot be on its way.
    pub(super) fn is_proof(self) -> bool {
        !matches!(self, Self::Moving(_))
    }
}

impl Lag {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            key: checkpoint::key(&config.link_name),
            is_still: false,
            is_none: false,
        }
    }

    /// Where nothing moves, and so nothing is waited for.
    pub(super) fn none() -> Self {
        Self {
            key: String::new(),
            is_still: false,
            is_none: true,
        }
    }

    /// The checkpoint of this link, if there is one.
    ///
    /// # Errors
    /// Those of the connection; stop where it cannot be read.
    pub(super) async fn checkpoint(
        &self,
        target: &mut End,
    ) -> Result<Option<Checkpoint>, SyncError> {
        match target.one(0, &[b"GET", self.key.as_bytes()]).await? {
            Value::Bulk(value) => match Checkpoint::parse(&value) {
                Ok(checkpoint) => Ok(Some(checkpoint)),
                Err(why) => {
                    let what = format!("the checkpoint {} cannot be read: {why}", self.key);
                    let address = &target.endpoint.address;
                    Err(SyncError::stop(Side::Target, address, what))
                }
            },
            Value::Null => Ok(None),
            other => Err(target.strange("GET", &other)),
        }
    }

    /// Where the source stands now, in the history that the target follows; none where it follows none.
    pub(super) async fn mark(
        &self,
        source: &mut End,
        target: &mut End,
    ) -> Result<Option<u64>, SyncError> {
        if self.is_none {
            return Ok(None);
        }
        let Some(checkpoint) = self.checkpoint(target).await? else {
            return Ok(None);
        };
        let Phase::Stream(position) = checkpoint.phase else {
            return Ok(None);
        };
        let info = source.info("replication").await?;
        let replid = position.replid.to_string();
        let is_its_own = ["master_replid", "master_replid2"]
            .iter()
            .any(|field| info.get(field) == Some(&replid));
        let offset = info.get("master_repl_offset");
        Ok(offset
            .filter(|_| is_its_own)
            .and_then(|offset| offset.parse().ok()))
    }

    /// Waits until the target has applied everything up to `mark`.
    pub(super) async fn reach(
        &mut self,
        target: &mut End,
        mark: Option<u64>,
        limit: Duration,
    ) -> Result<Reached, SyncError> {
        let Some(mark) = mark else {
            return Ok(Reached::Unknown);
        };
        let from = Instant::now();
        let mut first = None;
        loop {
            let applied = match self.checkpoint(target).await? {
                Some(Checkpoint {
                    phase: Phase::Stream(position),
                    ..
                }) => position.offset.0,
                _ => return Ok(Reached::Unknown),
            };
            if applied >= mark {
                self.is_still = false;
                return Ok(Reached::Yes);
            }
            let has_moved = *first.get_or_insert(applied) != applied;
            self.is_still &= !has_moved;
            if from.elapsed() >= limit || self.is_still {
                self.is_still = !has_moved;
                let behind = mark - applied;
                return Ok(match self.is_still {
                    true => Reached::Still(behind),
                    false => Reached::Moving(behind),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
