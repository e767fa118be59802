//! All keys of a slot at one moment of the source's stream.
//!
//! ```text
//! MULTI  EXISTS <a key of the slot>  DUMP k  PEXPIRETIME k ..  CLUSTER COUNTKEYSINSLOT s  INFO replication  EXEC
//! ```
//! EXISTS is redirected where the node does not have the slot, or has it no longer whole. The count says whether a key came after
//! the list of keys was read: then it is read anew.

use std::sync::OnceLock;

use resp::Value;
use rewrite::slot_tags;

use crate::client::Client;
use crate::config::Config;
use crate::error::{Class, Side, SyncError};
use crate::pipeline::{Copied, Copies, copied_time};
use crate::target::cluster::redirects;

/// A slot whose keys come and go is tried so often at once.
const ATTEMPTS: usize = 50;

/// What a slot holds, or why that cannot be told now.
#[derive(Debug)]
pub(crate) enum SlotCopy {
    Whole(Copies),
    /// The node does not have it, or it is on its way.
    Elsewhere(String),
    /// Its keys come and go faster than they are listed.
    Busy,
    /// It takes more than can be held.
    TooLarge {
        bytes: u64,
    },
}

/// Reads slots at the shard's master. `tells_time`: it has PEXPIRETIME (7.0).
///
/// # Errors
/// As the source's client; what the user there may not do is of class stop.
pub(crate) async fn read(
    config: &Config,
    slots: &[u16],
    tells_time: bool,
) -> Result<Vec<(u16, SlotCopy)>, SyncError> {
    let mut client = Client::connect(&config.source.endpoint, Side::Source).await?;
    static TAGS: OnceLock<Vec<String>> = OnceLock::new();
    let tags = TAGS.get_or_init(slot_tags);
    let bytes_max = bytes_max(config);
    let mut bytes_left = bytes_max;
    let mut read = Vec::new();
    for slot in slots {
        let tag = tags.get(usize::from(*slot)).map_or("", String::as_str);
        let mut reader = Reader {
            client: &mut client,
            slot: *slot,
            tag,
            tells_time,
        };
        let (copy, bytes) = reader.read(bytes_max).await?;
        read.push((*slot, copy));
        if bytes >= bytes_left {
            break;
        }
        bytes_left -= bytes;
    }
    Ok(read)
}

/// Most bytes of slots that are read at once: as of a transaction.
pub(crate) fn bytes_max(config: &Config) -> u64 {
    config.transaction_bytes_max() as u64
}

struct Reader<'a> {
    client: &'a mut Client,
    slot: u16,
    tag: &'a str,
    tells_time: bool,
}

impl Reader<'_> {
    /// The slot, and about how many bytes it takes.
    async fn read(&mut self, bytes_max: u64) -> Result<(SlotCopy, u64), SyncError> {
        let slot = self.slot.to_string();
        for _ in 0..ATTEMPTS {
            let keys = self.keys(&slot).await?;
            let bytes = self.bytes(&keys).await?;
            if bytes > bytes_max {
                return Ok((SlotCopy::TooLarge { bytes }, bytes));
            }
            if let Some(copy) = self.dump(&slot, &keys).await? {
                return Ok((copy, bytes));
            }
        }
        Ok((SlotCopy::Busy, 0))
    }

    async fn keys(&mut self, slot: &str) -> Result<Vec<bytes::Bytes>, SyncError> {
        let count = self
            .client
            .call(&[b"CLUSTER", b"COUNTKEYSINSLOT", slot.as_bytes()])
            .await?;
        let Value::Int(count) = count else {
            return Err(self.strange());
        };
        let some = (count.saturating_add(64)).to_string();
        let argv: [&[u8]; 4] = [
            b"CLUSTER",
            b"GETKEYSINSLOT",
            slot.as_bytes(),
            some.as_bytes(),
        ];
        let Value::Array(keys) = self.client.call(&argv).await? else {
            return Err(self.strange());
        };
        Ok(keys
            .iter()
            .filter_map(|key| key.as_bytes().cloned())
            .collect())
    }

    /// What keys take in the source's memory, by samples of large values; nothing, where it does not tell.
    async fn bytes(&mut self, keys: &[bytes::Bytes]) -> Result<u64, SyncError> {
        let mut bytes = 0;
        for keys in keys.chunks(1000) {
            let commands: Vec<Vec<&[u8]>> = keys
                .iter()
                .map(|key| vec![&b"MEMORY"[..], b"USAGE", key.as_ref()])
                .collect();
            let replies = self.client.ask_all(&commands).await?;
            bytes += replies
                .iter()
                .filter_map(|reply| match reply {
                    Value::Int(bytes) => u64::try_from(*bytes).ok(),
                    _ => None,
                })
                .sum::<u64>();
        }
        Ok(bytes)
    }

    /// `None`: other keys are there than those.
    async fn dump(
        &mut self,
        slot: &str,
        keys: &[bytes::Bytes],
    ) -> Result<Option<SlotCopy>, SyncError> {
        let mut commands: Vec<Vec<&[u8]>> =
            vec![vec![b"MULTI"], vec![b"EXISTS", self.tag.as_bytes()]];
        for key in keys {
            commands.push(vec![b"DUMP", key]);
            if self.tells_time {
                commands.push(vec![b"PEXPIRETIME", key]);
            } else {
                commands.push(vec![b"PTTL", key]);
                commands.push(vec![b"TIME"]);
            }
        }
        commands.push(vec![b"CLUSTER", b"COUNTKEYSINSLOT", slot.as_bytes()]);
        commands.push(vec![b"INFO", b"replication"]);
        commands.push(vec![b"EXEC"]);
        let mut replies = self.client.ask_all(&commands).await?;
        let answers = match replies.pop() {
            Some(Value::Array(answers)) => answers,
            _ => Vec::new(),
        };
        let refused = replies.iter().zip(&commands);
        let refused = refused.chain(answers.iter().zip(commands.iter().skip(1)));
        for (reply, argv) in refused {
            let Value::Error(error) = reply else { continue };
            if redirects(error.code) {
                return Ok(Some(SlotCopy::Elsewhere(error.to_string())));
            }
            let mut error = self.client.refused(argv, error);
            if error.class == Class::Stop {
                error.what.push_str("; to follow slots that move, the user at the source also needs ~* +multi +exec +exists +dump +cluster|countkeysinslot +cluster|getkeysinslot +memory|usage +pexpiretime +pttl +time +info");
            }
            return Err(error);
        }
        let (keys, count, info) = self.parse(keys, answers).ok_or_else(|| self.strange())?;
        let is_whole = i64::try_from(keys.len()).ok() == Some(count);
        let copies = Copies::at(&info, keys).ok_or_else(|| self.strange())?;
        Ok(is_whole.then_some(SlotCopy::Whole(copies)))
    }

    /// The keys that are there, how many there are, and INFO.
    fn parse(
        &self,
        names: &[bytes::Bytes],
        answers: Vec<Value>,
    ) -> Option<(Vec<Copied>, i64, bytes::Bytes)> {
        let mut answers = answers.into_iter();
        answers.next()?;
        let mut keys = Vec::with_capacity(names.len());
        for key in names {
            let value = answers.next()?;
            let time = answers.next()?;
            let now = match self.tells_time {
                true => None,
                false => answers.next(),
            };
            let Value::Bulk(value) = value else { continue };
            keys.push(Copied {
                db: 0,
                key: key.clone(),
                value: Some(value),
                at_ms: copied_time(&time, now.as_ref())?,
            });
        }
        let Value::Int(count) = answers.next()? else {
            return None;
        };
        Some((keys, count, answers.next()?.as_bytes()?.clone()))
    }

    fn strange(&self) -> SyncError {
        let what = format!(
            "what it says of slot {} is not what a Redis Cluster would say",
            self.slot
        );
        SyncError::stop(Side::Source, self.client.address(), what)
    }
}
