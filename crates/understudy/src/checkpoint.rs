//! The position kept in the target, written in the same MULTI/EXEC as the data it covers.
//!
//! ```text
//! key     understudy:checkpoint:<link name>          in database 0
//! value   v1|<epoch>|<owner>|<phase>|<replid>|<offset>|<db>|<flags>[|<repairs>[|<slots>]]
//! ```
//! `phase` is `snapshot` (keys are being written; `offset` is where the stream will begin, and `db` is how many
//! bytes of the RDB are behind: every key that ends there is written, and the replies were looked at), `stream`
//! (everything up to `offset` is applied, and nothing after it) or `diverged` (a command failed inside an EXEC: the
//! position is past it, so only a new snapshot can mend the target) or `scan` (the source is read by SCAN: `replid` names
//! its process, `offset` is the cursor at which a sweep is and `db` its database, 0 and 0 between two sweeps: see `scan`). `epoch` grows whenever the link
//! is taken, `owner` names the process that took it: who finds another owner with a higher epoch has been
//! replaced. `db` is the database selected in the stream at
//! `offset`. `flags` holds `o` when the target was empty at the start, so that every key there is ours
//! and a new snapshot may remove what is gone at the source; `l` while keys of the snapshot may have a lease
//! (see `pipeline::lease`); `u<bytes>.<db>` behind them says that of so many bytes before `offset` no reply was looked
//! at when this was written, and which database was selected where they begin: whoever goes on from here does not know
//! whether a command among them failed (see `pipeline::stream::recall`). `repairs` is there while keys are under repair
//! (see `pipeline::repair`): `db:key` in hex, with commas between them, or the one entry `4294967295:` when they are too
//! many to be named; `4294967294:` among them says that there are others, which the unseen part tells of. Of these keys
//! the target holds what it may; all others are as `phase` says. `slots` is there where the source is a shard of a cluster: those
//! that the link holds (see `shard::Held`); `repairs` may be empty then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use replica::{ReplId, ReplOffset};

use crate::shard::Held;

/// Where the target stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A snapshot is being written.
    Snapshot(Progress),
    /// Everything up to here is applied.
    Stream(Position),
    /// A command failed after it was committed with its checkpoint.
    Diverged(Position),
    /// The source is read by SCAN: keys are put as they are found, and compared.
    Scan(ScanAt),
}

/// Keys of several databases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names(BTreeMap<u32, BTreeSet<Bytes>>);

/// Most keys that a checkpoint names: it is written with every unit.
pub(crate) const NAMED_MAX: usize = 4096;
/// Most bytes of their names; a checkpoint carries them twice over.
pub(crate) const NAMED_BYTES_MAX: usize = 128 << 10;
/// What stands for more than that. No database has this number.
const UNNAMED: (u32, &[u8]) = (u32::MAX, b"");
/// What stands for those that the unseen part of the stream tells of; nor this one.
const UNREAD: (u32, &[u8]) = (u32::MAX - 1, b"");

/// [`NAMED_MAX`], but in simulations that try the way of many keys with few.
fn named_max() -> usize {
    #[cfg(test)]
    if let Some(count) = crate::sim::named_max() {
        return count;
    }
    NAMED_MAX
}

impl Names {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// They are too many to be named: only a new snapshot makes sure of them.
    pub(crate) fn are_unnamed(&self) -> bool {
        self.contains(UNNAMED.0, UNNAMED.1)
    }

    /// Others are found by reading the unseen part: whoever cannot, needs a new snapshot.
    pub(crate) fn are_unread(&self) -> bool {
        self.contains(UNREAD.0, UNREAD.1)
    }

    /// Says that others are found by reading the unseen part.
    pub(crate) fn set_unread(&mut self) {
        self.insert(UNREAD.0, Bytes::from_static(UNREAD.1));
    }

    /// Those that are keys.
    pub(crate) fn keys(&self) -> Self {
        let mut keys = self.clone();
        keys.0.remove(&UNNAMED.0);
        keys.0.remove(&UNREAD.0);
        keys
    }

    /// Whether a checkpoint has room for all of them.
    pub(crate) fn can_be_named(&self) -> bool {
        self.len() <= named_max() && self.bytes() <= NAMED_BYTES_MAX
    }

    /// As a checkpoint has them: all, or none by name.
    pub(crate) fn for_checkpoint(&self) -> Self {
        if self.can_be_named() {
            return self.clone();
        }
        let mut unnamed = Self::default();
        unnamed.insert(UNNAMED.0, Bytes::from_static(UNNAMED.1));
        unnamed
    }

    /// The first `count` of them.
    pub(crate) fn first(&self, count: usize) -> Self {
        let mut first = Self::default();
        for (db, key) in self.iter().take(count) {
            first.insert(db, key.clone());
        }
        first
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// Bytes of all keys together.
    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(|(_, key)| key.len()).sum()
    }

    pub(crate) fn contains(&self, db: u32, key: &[u8]) -> bool {
        self.0.get(&db).is_some_and(|keys| keys.contains(key))
    }

    /// Whether there are any of this database.
    pub(crate) fn has_db(&self, db: u32) -> bool {
        self.0.contains_key(&db)
    }

    /// Adds a key; false if it was there already.
    pub(crate) fn insert(&mut self, db: u32, key: Bytes) -> bool {
        self.0.entry(db).or_default().insert(key)
    }

    /// Adds all of `other`; false if they were there already.
    pub(crate) fn extend(&mut self, other: &Self) -> bool {
        let before = self.len();
        for (db, key) in other.iter() {
            self.insert(db, key.clone());
        }
        self.len() > before
    }

    /// Takes out all of `other`.
    pub(crate) fn remove(&mut self, other: &Self) {
        for (db, gone) in &other.0 {
            let Some(keys) = self.0.get_mut(db) else {
                continue;
            };
            for key in gone {
                keys.remove(key);
            }
            if keys.is_empty() {
                self.0.remove(db);
            }
        }
    }

    /// Databases in order, keys in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Bytes)> {
        let dbs = self.0.iter();
        dbs.flat_map(|(db, keys)| keys.iter().map(|key| (*db, key)))
    }

    /// Reads them as a checkpoint has them.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut names = Self::default();
        for one in text.split(',') {
            let (db, hex) = one.split_once(':')?;
            let digits = hex.as_bytes();
            if digits.len() % 2 != 0 {
                return None;
            }
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let key: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
            names.insert(db.parse().ok()?, key?.into());
        }
        Some(names)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (db, key) in self.iter() {
            write!(f, "{comma}{db}:")?;
            for byte in key {
                write!(f, "{byte:02x}")?;
            }
            comma = ",";
        }
        Ok(())
    }
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

/// How far a sweep over the source's keys is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanAt {
    /// Names the process that the cursor is good for, by its `run_id`.
    pub(crate) run_id: ReplId,
    pub(crate) db: u32,
    /// Cursor of SCAN; 0 between two sweeps.
    pub(crate) cursor: u64,
}

impl ScanAt {
    /// The `run_id` of no process.
    pub(crate) fn nobody() -> ReplId {
        const NOBODY: &str = "0000000000000000000000000000000000000000";
        NOBODY
            .parse()
            .unwrap_or_else(|_| unreachable!("forty digits"))
    }

    /// Before the first sweep.
    pub(crate) fn beginning() -> Self {
        Self {
            run_id: Self::nobody(),
            db: 0,
            cursor: 0,
        }
    }
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
    /// Keys that are under repair: what the target holds of them may be anything.
    pub(crate) repairs: Names,
    /// The end of the stream's part whose replies nobody has looked at yet.
    pub(crate) unseen: Option<Unseen>,
    /// Of a shard of a source cluster: the slots that the link holds.
    pub(crate) slots: Option<Held>,
}

/// Commands right before a position, of which it is not known whether one of them failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unseen {
    /// Their length in the stream.
    pub(crate) bytes: u64,
    /// Database selected where they begin.
    pub(crate) db: u32,
}

impl Unseen {
    /// What follows `flags` in a checkpoint's value, behind the `u`.
    fn parse(text: &str) -> Option<Self> {
        let (bytes, db) = text.split_once('.')?;
        Some(Self {
            bytes: bytes.parse().ok()?,
            db: db.parse().ok()?,
        })
    }
}

/// What every checkpoint's key begins with.
pub(crate) const KEY_PREFIX: &str = "understudy:checkpoint:";

/// The key of the link called `name`.
pub(crate) fn key(name: &str) -> String {
    format!("{KEY_PREFIX}{name}")
}

/// What is watched where the checkpoint itself changes too often: a key that never stays, and is touched whenever the
/// link whose checkpoint has this `key` is taken, and before its leases are looked for. In database 0 too.
pub(crate) fn fence(key: &str) -> String {
    let prefix = String::from_utf8_lossy(rewrite::TEMPORARY_KEY_PREFIX);
    format!("{prefix}fence:{key}")
}

/// The commands, for a transaction, that tell whoever watches this fence.
pub(crate) fn touch(fence: &str) -> [Vec<&[u8]>; 2] {
    let fence = fence.as_bytes();
    [vec![b"SET", fence, b""], vec![b"DEL", fence]]
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
            Phase::Scan(at) => ("scan", at.run_id, ReplOffset(at.cursor), u64::from(at.db)),
        };
        let (epoch, owner) = (self.epoch, self.owner);
        write!(
            f,
            "v1|{epoch}|{owner:016x}|{phase}|{replid}|{}|{db}|{flags}",
            offset.0
        )?;
        if let Some(unseen) = self.unseen {
            write!(f, "u{}.{}", unseen.bytes, unseen.db)?;
        }
        match &self.slots {
            Some(slots) => write!(f, "|{}|{slots}", self.repairs),
            None if self.repairs.is_empty() => Ok(()),
            None => write!(f, "|{}", self.repairs),
        }
    }
}

impl Checkpoint {
    /// Reads a value back; the error says what is wrong with it.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(value).map_err(|_| "it is not text".to_owned())?;
        let mut fields: Vec<&str> = text.split('|').collect();
        let mut repairs = Names::default();
        let mut slots = None;
        if let [_, _, _, _, _, _, _, _, names, text] = fields[..] {
            slots = Some(Held::parse(text).ok_or_else(|| format!("its slots are {text:?}"))?);
            fields.truncate(if names.is_empty() { 8 } else { 9 });
        }
        if let [_, _, _, _, _, _, _, _, names] = fields[..] {
            repairs = Names::parse(names)
                .ok_or_else(|| format!("its keys under repair are {names:?}"))?;
            fields.pop();
        }
        let [version, epoch, owner, phase, replid, offset, db, flags] = fields[..] else {
            return Err(format!("it has {} fields, not 8 to 10", fields.len()));
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
        let (flags, unseen) = match flags.split_once('u') {
            None => (flags, None),
            Some((flags, text)) => {
                let unseen = Unseen::parse(text).filter(|unseen| unseen.bytes <= offset.0);
                let unseen = unseen.ok_or_else(|| format!("its unseen part is {text:?}"))?;
                (flags, Some(unseen))
            }
        };
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
                "scan" => {
                    let at = position()?;
                    Phase::Scan(ScanAt {
                        run_id: at.replid,
                        db: at.db,
                        cursor: at.offset.0,
                    })
                }
                other => return Err(format!("its phase is {other:?}")),
            },
            owned: flags.contains('o'),
            leased: flags.contains('l'),
            repairs,
            unseen,
            slots,
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
            Phase::Scan(ScanAt {
                run_id: replid,
                db: 3,
                cursor: 42,
            }),
        ] {
            for owned in [true, false] {
                for leased in [true, false] {
                    let phase = phase.clone();
                    let mut value = Checkpoint {
                        epoch: 9,
                        owner: u64::MAX - 1,
                        phase,
                        owned,
                        leased,
                        repairs: Names::default(),
                        unseen: (owned != leased).then_some(Unseen { bytes: 7, db: 12 }),
                        slots: owned.then(|| Held::parse("0-9,11@5").unwrap()),
                    };
                    for key in ["", "a|b,c:d"] {
                        assert_eq!(
                            Checkpoint::parse(value.to_string().as_bytes()),
                            Ok(value.clone())
                        );
                        value.repairs.insert(3, Bytes::from_static(key.as_bytes()));
                    }
                    assert_eq!(Checkpoint::parse(value.to_string().as_bytes()), Ok(value));
                }
            }
        }
    }

    #[test]
    fn too_many_names_are_none() {
        let mut names = Names::default();
        for n in 0..NAMED_MAX {
            names.insert(0, Bytes::from(n.to_string()));
        }
        assert_eq!(names.for_checkpoint(), names);
        names.insert(1, Bytes::from_static(b"one more"));
        let unnamed = names.for_checkpoint();
        assert!(unnamed.are_unnamed() && !names.are_unnamed() && !unnamed.is_empty());
        assert_eq!(Names::parse(&unnamed.to_string()), Some(unnamed));
        let mut unread = names.first(2);
        unread.set_unread();
        assert!(unread.are_unread() && !names.are_unread());
        assert_eq!(Names::parse(&unread.to_string()), Some(unread.clone()));
        assert_eq!(unread.keys(), names.first(2));
        let mut long = Names::default();
        long.insert(0, Bytes::from(vec![b'x'; NAMED_BYTES_MAX + 1]));
        assert!(long.for_checkpoint().are_unnamed());
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
        let id = "0123456789abcdef0123456789abcdef01234567";
        for unseen in ["u", "u3", "u.0", "u2.0", "ou1.x", "lu-1.0"] {
            let value = format!("v1|1|2|stream|{id}|1|0|{unseen}");
            let error = Checkpoint::parse(value.as_bytes()).unwrap_err();
            assert!(error.contains("unseen"), "{unseen}: {error}");
        }
        for repairs in ["", "1", "x:61", "1:6", "1:zz", "1:61,"] {
            let value = format!("v1|1|2|stream|{id}|1|0||{repairs}");
            let error = Checkpoint::parse(value.as_bytes()).unwrap_err();
            assert!(error.contains("repair"), "{repairs}: {error}");
        }
    }
}
