//! The position kept in the target, written in the same MULTI/EXEC as the data it covers.
//!
//! ```text
//! key     understudy:checkpoint:<link name>          in database 0
//! value   v1|<epoch>|<owner>|<phase>|<replid>|<offset>|<db>|<flags>
//! ```
//! `phase` is `snapshot` (keys are being written; `offset` is where the stream will begin, and `db` is how many
//! bytes of the RDB are behind: every key that ends there is written, and the replies were looked at), `stream`
//! (everything up to `offset` is applied, and nothing after it) or `diverged` (a command failed inside an EXEC: the
//! position is past it, so only a new snapshot can mend the target). `epoch` grows whenever the link
//! is taken, `owner` names the process that took it: who finds another owner with a higher epoch has been
//! replaced. `db` is the database selected in the stream at
//! `offset`. `flags` holds `o` when the target was empty at the start, so that every key there is ours
//! and a new snapshot may remove what is gone at the source; `l` while keys of the snapshot may have a lease
//! (see `pipeline::lease`).

use std::fmt;

use replica::{ReplId, ReplOffset};

/// Where the target stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A snapshot is being written.
    Snapshot(Progress),
    /// Everything up to here is applied.
    Stream(Position),
    /// A command failed after it was committed with its checkpoint.
    Diverged(Position),
}

/// A place in a source's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) replid: ReplId,
    pub(crate) offset: ReplOffset,
    /// Database selected in the stream there.
    pub(crate) db: u32,
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The history it begins.
    pub(crate) replid: ReplId,
    /// Where the stream begins that follows it.
    pub(crate) offset: ReplOffset,
    /// Everything before this byte of the RDB is written.
    pub(crate) rdb_bytes: u64,
}

/// The value of the checkpoint key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) epoch: u64,
    pub(crate) owner: u64,
    pub(crate) phase: Phase,
    /// Every key of the target is ours.
    pub(crate) owned: bool,
    /// Keys of the snapshot may still have a lease instead of their own expiry.
    pub(crate) leased: bool,
}

/// What every checkpoint's key begins with.
pub(crate) const KEY_PREFIX: &str = "understudy:checkpoint:";

/// The key of the link called `name`.
pub(crate) fn key(name: &str) -> String {
    format!("{KEY_PREFIX}{name}")
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = match (self.owned, self.leased) {
            (false, false) => "",
            (false, true) => "l",
            (true, false) => "o",
            (true, true) => "ol",
        };
        let (phase, replid, offset, db) = match &self.phase {
            Phase::Snapshot(at) => ("snapshot", at.replid, at.offset, at.rdb_bytes),
            Phase::Stream(at) => ("stream", at.replid, at.offset, u64::from(at.db)),
            Phase::Diverged(at) => ("diverged", at.replid, at.offset, u64::from(at.db)),
        };
        let (epoch, owner) = (self.epoch, self.owner);
        write!(
            f,
            "v1|{epoch}|{owner:016x}|{phase}|{replid}|{}|{db}|{flags}",
            offset.0
        )
    }
}

impl Checkpoint {
    /// Reads a value back; the error says what is wrong with it.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(value).map_err(|_| "it is not text".to_owned())?;
        let fields: Vec<&str> = text.split('|').collect();
        let [version, epoch, owner, phase, replid, offset, db, flags] = fields[..] else {
            return Err(format!("it has {} fields, not 8", fields.len()));
        };
        if version != "v1" {
            return Err(format!(
                "its version is {version:?}; this program writes v1"
            ));
        }
        let number = |what: &str, text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("its {what} is {text:?}, not a number"))
        };
        let replid: ReplId = replid
            .parse()
            .map_err(|_| format!("its replid is {replid:?}"))?;
        let offset = ReplOffset(number("offset", offset)?);
        let position = || {
            Ok::<_, String>(Position {
                replid,
                offset,
                db: u32::try_from(number("db", db)?).map_err(|_| format!("its db is {db}"))?,
            })
        };
        Ok(Self {
            epoch: number("epoch", epoch)?,
            owner: u64::from_str_radix(owner, 16).map_err(|_| format!("its owner is {owner:?}"))?,
            phase: match phase {
                "snapshot" => Phase::Snapshot(Progress {
                    replid,
                    offset,
                    rdb_bytes: number("db", db)?,
                }),
                "stream" => Phase::Stream(position()?),
                "diverged" => Phase::Diverged(position()?),
                other => return Err(format!("its phase is {other:?}")),
            },
            owned: flags.contains('o'),
            leased: flags.contains('l'),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let replid: ReplId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        let at = Position {
            replid,
            offset: ReplOffset(42),
            db: 3,
        };
        let progress = Progress {
            replid,
            offset: ReplOffset(7),
            rdb_bytes: 1 << 40,
        };
        for phase in [
            Phase::Snapshot(progress),
            Phase::Stream(at),
            Phase::Diverged(at),
        ] {
            for owned in [true, false] {
                for leased in [true, false] {
                    let phase = phase.clone();
                    let value = Checkpoint {
                        epoch: 9,
                        owner: u64::MAX - 1,
                        phase,
                        owned,
                        leased,
                    };
                    assert_eq!(Checkpoint::parse(value.to_string().as_bytes()), Ok(value));
                }
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_named() {
        assert!(Checkpoint::parse(b"\xff").unwrap_err().contains("not text"));
        assert!(
            Checkpoint::parse(b"v2|1|2|stream|x|1|0|")
                .unwrap_err()
                .contains("version")
        );
        assert!(
            Checkpoint::parse(b"v1|1|2|stream|x|1|0|")
                .unwrap_err()
                .contains("replid")
        );
        assert!(Checkpoint::parse(b"hello").unwrap_err().contains("fields"));
    }
}
