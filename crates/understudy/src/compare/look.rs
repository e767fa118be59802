//! A look at some keys at both ends: what each holds, and whether that is equal.
//!
//! One exchange asks each end for expiries and sizes, a second one for the payloads of DUMP. Payloads whose bytes are
//! equal are equal values; all others are decoded and compared by what they hold, so that neither encoding nor version
//! matters. A value that is too large for that is read in pieces (see [`super::large`]).

use bytes::Bytes;
use rdb::{Event, KeyHead};
use resp::Value;

use super::end::End;
use super::large;
use super::limiter::Limiter;
use super::scan::absent;
use super::what::{self, Found, Reading, What};
use crate::clock::{now_ms, time_ms};
use crate::config::Config;
use crate::error::{Class, Side, SyncError};
use crate::pipeline::LEASE_MS;
use crate::rdb::diff::digest::{Entry, Value as Digesting};
use crate::rdb::names::{KINDS, moment};

/// A database and a key.
pub(crate) type Name = (u32, Bytes);

/// Values up to this size, as MEMORY USAGE tells it, are dumped; larger ones are read in pieces.
const WHOLE_BYTES_MAX: u64 = 512 << 10;
/// So much is dumped at once: the server does nothing else meanwhile.
const DUMPED_AT_ONCE_BYTES: u64 = 256 << 10;
/// Of each end about so much is held at once, unless there is less memory.
const LOT_BYTES_MAX: u64 = 32 << 20;
/// So near its end a key counts as gone, where expiries are compared closely.
const ENDING_MS: u64 = 1_000;
/// A reply that is longer is not read. MEMORY USAGE goes by samples, so more may come than it said.
pub(super) const REPLY_BYTES_MAX: u64 = 16 << 20;
/// Where there is no MEMORY USAGE, collections up to so many elements are dumped.
const WHOLE_ELEMENTS_MAX: i64 = 2_000;

/// What an end has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    Nothing,
    /// The payload of DUMP, and when it expires.
    Whole {
        payload: Bytes,
        at_ms: Option<i64>,
    },
    /// Too large to be dumped.
    Large {
        at_ms: Option<i64>,
    },
    /// A value that was not dumped, by its digest.
    Digested {
        entry: Entry,
        at_ms: Option<i64>,
    },
    /// There is something, and it cannot be read.
    Unknown,
}

impl Held {
    fn at_ms(&self) -> Option<i64> {
        match self {
            Self::Nothing | Self::Unknown => None,
            Self::Whole { at_ms, .. } | Self::Large { at_ms } | Self::Digested { at_ms, .. } => {
                *at_ms
            }
        }
    }
}

/// What came of a look at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Equal,
    Differs(Look),
    /// It cannot be told.
    Unchecked(String),
}

/// A key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// Stands for what the source holds; 0: nothing.
    pub(super) source: u128,
    pub(crate) found: Found,
}

impl Look {
    /// Whether the filter keeps values of this type away from the target.
    pub(crate) fn is_left_out(&self, config: &Config) -> bool {
        let kind = KINDS.iter().find(|(name, _)| *name == self.found.kind);
        self.found.what == What::Missing
            && kind.is_some_and(|(_, kind)| config.filter.kind(*kind).is_err())
    }
}

/// Compares keys.
pub(crate) struct Comparer {
    pub(crate) source: End,
    pub(crate) target: End,
    pub(super) reading: Reading,
    pub(super) limiter: Limiter,
    tolerance_ms: u64,
    /// A key with less than this left may be gone at one end.
    ending_ms: u64,
    /// An expiry of the target may be a lease.
    takes_leases: bool,
    /// Of each end about so many bytes are held at once.
    lot_bytes_max: u64,
    /// Keys of the source that were seen to be streams, where somebody wants to know.
    pub(crate) streams: Option<Vec<Name>>,
}

impl Comparer {
    pub(super) fn new(source: End, target: End, qps: u64, tolerance_ms: u64) -> Self {
        Self {
            reading: Reading::new(),
            source,
            target,
            limiter: Limiter::new(qps),
            tolerance_ms,
            ending_ms: tolerance_ms,
            takes_leases: true,
            lot_bytes_max: LOT_BYTES_MAX,
            streams: None,
        }
    }

    /// One for a target whose keys have expiries of their own, which holds about so many bytes of each end at once, and
    /// notes which keys are streams.
    pub(crate) fn strict(source: End, target: End, tolerance_ms: u64, lot_bytes_max: u64) -> Self {
        Self {
            ending_ms: ENDING_MS,
            takes_leases: false,
            lot_bytes_max,
            streams: Some(Vec::new()),
            ..Self::new(source, target, 0, tolerance_ms)
        }
    }

    /// One of both.
    pub(super) fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Source => &mut self.source,
            Side::Target | Side::Local => &mut self.target,
        }
    }

    /// Compares these keys now, without waiting for anything.
    pub(crate) async fn look(&mut self, names: &[Name]) -> Result<Vec<Verdict>, SyncError> {
        self.limiter.take(names.len()).await;
        let (mut verdicts, mut left) = (Vec::with_capacity(names.len()), names);
        while !left.is_empty() {
            let bytes_max = self.lot_bytes_max;
            let (source, target) = tokio::try_join!(
                read(&mut self.source, left, bytes_max),
                read(&mut self.target, left, bytes_max)
            )?;
            let now_ms = source.now_ms.max(target.now_ms);
            for ((name, source), target) in left.iter().zip(source.held).zip(target.held) {
                verdicts.push(self.judge(name, &source, &target, now_ms).await?);
            }
            left = names.get(verdicts.len()..).unwrap_or_default();
        }
        self.look_at_siblings(names, &mut verdicts).await?;
        Ok(verdicts)
    }

    /// Where several databases of the source go into one, a key of the target may be another one's than the one that was looked
    /// at: it is looked at under that name.
    async fn look_at_siblings(
        &mut self,
        names: &[Name],
        verdicts: &mut [Verdict],
    ) -> Result<(), SyncError> {
        for (name, verdict) in names.iter().zip(verdicts) {
            let is_extra =
                matches!(verdict, Verdict::Differs(look) if look.found.what == What::Extra);
            if !is_extra {
                continue;
            }
            let siblings = self.target.siblings(name);
            let absent = absent(&mut self.source, &siblings).await?;
            if absent.len() < siblings.len() {
                *verdict = Verdict::Equal;
            }
        }
        Ok(())
    }

    /// What stands for a value of the source that came in events.
    pub(crate) fn digested(&self, head: &KeyHead, events: Vec<Event>) -> Held {
        let at_ms = head.expire_at_ms;
        let mut value = Digesting::new(&self.reading.hashing, head);
        for event in events {
            if let Some(entry) = value.event(&what::plain(event)) {
                return Held::Digested { entry, at_ms };
            }
        }
        Held::Unknown
    }

    /// Compares keys of which the source's values are known.
    ///
    /// # Errors
    /// Those of the connections.
    pub(crate) async fn look_at_target(
        &mut self,
        names: &[Name],
        source: Vec<Held>,
    ) -> Result<Vec<Verdict>, SyncError> {
        let mut verdicts = Vec::with_capacity(names.len());
        let mut source = source.into_iter();
        let mut left = names;
        while !left.is_empty() {
            let target = read(&mut self.target, left, self.lot_bytes_max).await?;
            for (name, target_held) in left.iter().zip(target.held) {
                let source = source.next().unwrap_or(Held::Unknown);
                verdicts.push(
                    self.judge(name, &source, &target_held, target.now_ms)
                        .await?,
                );
            }
            left = names.get(verdicts.len()..).unwrap_or_default();
        }
        Ok(verdicts)
    }

    async fn judge(
        &mut self,
        name: &Name,
        source: &Held,
        target: &Held,
        now_ms: i64,
    ) -> Result<Verdict, SyncError> {
        let differs = |source, what, kind, detail| {
            Ok(Verdict::Differs(Look {
                source,
                found: Found { what, kind, detail },
            }))
        };
        self.note_stream(name, source);
        match (source, target) {
            (Held::Nothing, Held::Nothing) => return Ok(Verdict::Equal),
            (Held::Unknown, _) => {
                let why = "only DUMP could read it, and the source does not allow that";
                return Ok(Verdict::Unchecked(why.to_owned()));
            }
            (Held::Nothing, held) => {
                if self.is_ending(own_expiry(held.at_ms(), now_ms), now_ms) {
                    return Ok(Verdict::Equal);
                }
                return differs(0, What::Extra, what::kind_of(held), expires(held.at_ms()));
            }
            (held, Held::Nothing) => {
                if self.is_ending(held.at_ms(), now_ms) {
                    return Ok(Verdict::Equal);
                }
                let print = self.print(held);
                return differs(
                    print,
                    What::Missing,
                    what::kind_of(held),
                    expires(held.at_ms()),
                );
            }
            _ => {}
        }
        let value = match (source, target) {
            (Held::Whole { payload: a, .. }, Held::Whole { payload: b, .. }) => {
                self.reading.compare(a, b, now_ms)
            }
            (Held::Digested { entry, .. }, Held::Whole { payload, .. }) => {
                match self.reading.is_equal(entry, payload, now_ms) {
                    true => Compared::Equal,
                    false => Compared::Differs {
                        witness: 1,
                        found: Found {
                            what: What::Value,
                            kind: "",
                            detail: String::new(),
                        },
                    },
                }
            }
            _ => large::compare(self, name).await?,
        };
        let (mut print, found) = match value {
            Compared::Unchecked(why) => return Ok(Verdict::Unchecked(why)),
            Compared::Equal => (0, None),
            Compared::Differs { witness, found } => (witness, Some(found)),
        };
        if let Held::Whole { .. } = source {
            print = self.print(source);
        }
        if let Some(Found { what, kind, detail }) = found {
            return differs(print, what, kind, detail);
        }
        let (source_at, target_at) = (source.at_ms(), target.at_ms());
        if self.are_near(source_at, target_at) {
            return Ok(Verdict::Equal);
        }
        let detail = format!("expires {} / {}", at_words(source_at), at_words(target_at));
        let mut digest = self.reading.hashing.begin();
        digest.number(source_at.unwrap_or(0).cast_unsigned());
        differs(
            print.wrapping_add(digest.end()),
            What::Ttl,
            what::kind_of(source),
            detail,
        )
    }

    fn note_stream(&mut self, name: &Name, held: &Held) {
        if let (Some(streams), Held::Whole { payload, .. }) = (&mut self.streams, held)
            && payload.first().is_some_and(|id| is_stream(*id))
        {
            streams.push(name.clone());
        }
    }

    /// Whether two expiries are equal, as far as they have to be. Where sync runs, one that is near has a lease at the
    /// target, which is none of its own.
    pub(super) fn are_near(&self, source: Option<i64>, target: Option<i64>) -> bool {
        match (source, target) {
            (None, None) => true,
            (Some(source), Some(target)) => {
                let is_near = |at_ms: i64| at_ms.abs_diff(target) <= self.tolerance_ms;
                is_near(source) || (self.takes_leases && is_near(source.saturating_add(LEASE_MS)))
            }
            _ => false,
        }
    }

    /// Whether a key with this expiry may be gone at the other end.
    fn is_ending(&self, at_ms: Option<i64>, now_ms: i64) -> bool {
        let until_ms = now_ms.saturating_add_unsigned(self.ending_ms);
        at_ms.is_some_and(|at_ms| at_ms <= until_ms)
    }

    /// Stands for what the source holds.
    fn print(&self, held: &Held) -> u128 {
        let mut digest = self.reading.hashing.begin();
        digest.number(held.at_ms().map_or(0, i64::cast_unsigned));
        if let Held::Whole { payload, .. } = held {
            digest.string(payload);
        }
        digest.end().max(1)
    }
}

/// What comparing two values came to.
#[derive(Debug)]
pub(super) enum Compared {
    Equal,
    /// `witness` stands for what the source has that differs.
    Differs {
        witness: u128,
        found: Found,
    },
    Unchecked(String),
}

/// The expiry that a key of the target has at the source, where it is written as a lease.
fn own_expiry(at_ms: Option<i64>, now_ms: i64) -> Option<i64> {
    // No expiry that somebody means is that far.
    let is_lease = |at_ms: i64| at_ms > now_ms.saturating_add(LEASE_MS / 2);
    at_ms.map(|at_ms| match is_lease(at_ms) {
        true => at_ms - LEASE_MS,
        false => at_ms,
    })
}

fn expires(at_ms: Option<i64>) -> String {
    at_ms.map_or(String::new(), |at_ms| {
        format!("expires {}", at_words(Some(at_ms)))
    })
}

fn at_words(at_ms: Option<i64>) -> String {
    at_ms.map_or("never".to_owned(), |at_ms| {
        format!("{at_ms} ({})", moment(at_ms))
    })
}

/// Whether a payload that begins so is a stream's, whoever wrote it.
fn is_stream(id: u8) -> bool {
    let kind = |dialect| rdb::types::row(dialect, id).map(|row| row.kind);
    let dialects = [rdb::Dialect::Redis, rdb::Dialect::Valkey];
    dialects.map(kind).contains(&Some(rdb::Kind::Stream))
}

/// What one end holds of some keys.
pub(crate) struct Lot {
    pub(crate) held: Vec<Held>,
    /// The server's own time.
    pub(crate) now_ms: i64,
}

/// What is known of a key before its value is read.
pub(crate) enum Shape {
    Nothing,
    There { bytes: u64, at_ms: Option<i64> },
}

/// Reads keys at one end: the first of these, as many as have about so many bytes, but one at least.
pub(crate) async fn read(end: &mut End, names: &[Name], bytes_max: u64) -> Result<Lot, SyncError> {
    let mut left = bytes_max;
    let mut lot = Lot {
        held: Vec::with_capacity(names.len()),
        now_ms: now_ms(),
    };
    for run in names.chunk_by(|a, b| a.0 == b.0) {
        let Some((db, _)) = run.first() else { continue };
        let keys: Vec<&Bytes> = run.iter().map(|(_, key)| key).collect();
        let shapes = shapes(end, *db, &keys, &mut lot.now_ms).await?;
        if !values(end, *db, &keys, &shapes, &mut lot.held, &mut left).await? {
            break;
        }
    }
    Ok(lot)
}

/// Whether keys are there, how large they are, and when they expire.
pub(crate) async fn shapes(
    end: &mut End,
    db: u32,
    keys: &[&Bytes],
    now_ms: &mut i64,
) -> Result<Vec<Shape>, SyncError> {
    let is_absolute = end.has(7, 0);
    let ttl: &[u8] = if is_absolute { b"PEXPIRETIME" } else { b"PTTL" };
    // What is left of an expiry is told by the clock of the key's own node.
    let has_clocks = end.is_cluster() && !is_absolute;
    let mut commands: Vec<Vec<&[u8]>> = vec![vec![b"TIME"]];
    for key in keys {
        if has_clocks {
            commands.push(vec![b"TIME"]);
        }
        commands.push(vec![ttl, key]);
        if !end.tells_no_sizes {
            commands.push(vec![b"MEMORY", b"USAGE", key]);
        }
    }
    let replies = end.ask(db, &commands).await?;
    let mut replies = replies.into_iter();
    // Without it our own clock has to do.
    if let Some(time) = replies.next().as_ref().and_then(time_ms) {
        *now_ms = time;
    }
    let mut shapes = Vec::with_capacity(keys.len());
    for _ in keys {
        if has_clocks && let Some(time) = replies.next().as_ref().and_then(time_ms) {
            *now_ms = time;
        }
        let at_ms = match replies.next().unwrap_or(Value::Null) {
            Value::Int(-2) => None,
            Value::Int(-1) => Some(None),
            Value::Int(ms) if is_absolute => Some(Some(ms)),
            Value::Int(ms) => Some(Some(now_ms.saturating_add(ms))),
            other => return Err(end.strange(&String::from_utf8_lossy(ttl), &other)),
        };
        let bytes = match end.tells_no_sizes {
            true => Some(0),
            false => match replies.next().unwrap_or(Value::Null) {
                Value::Int(bytes) => Some(u64::try_from(bytes).unwrap_or(0)),
                Value::Error(_) => {
                    end.tells_no_sizes = true;
                    break;
                }
                _ => None,
            },
        };
        shapes.push(match (at_ms, bytes) {
            (Some(at_ms), Some(bytes)) => Shape::There { bytes, at_ms },
            _ => Shape::Nothing,
        });
    }
    if shapes.len() < keys.len() {
        return Box::pin(self::shapes(end, db, keys, now_ms)).await;
    }
    if end.tells_no_sizes {
        sizes_by_type(end, db, keys, &mut shapes).await?;
    }
    Ok(shapes)
}

/// Sizes without MEMORY USAGE (4.0): by the length of a string, or the number of elements.
async fn sizes_by_type(
    end: &mut End,
    db: u32,
    keys: &[&Bytes],
    shapes: &mut [Shape],
) -> Result<(), SyncError> {
    let types: Vec<Vec<&[u8]>> = keys.iter().map(|key| vec![&b"TYPE"[..], key]).collect();
    let types = end.ask(db, &types).await?;
    let mut lengths: Vec<Vec<&[u8]>> = Vec::with_capacity(keys.len());
    for (key, kind) in keys.iter().zip(&types) {
        let Value::Simple(kind) = kind else {
            return Err(end.strange("TYPE", kind));
        };
        let command: &[u8] = match kind.as_ref() {
            b"list" => b"LLEN",
            b"set" => b"SCARD",
            b"zset" => b"ZCARD",
            b"hash" => b"HLEN",
            b"stream" => b"XLEN",
            _ => b"STRLEN",
        };
        lengths.push(vec![command, key]);
    }
    let replies = end.ask(db, &lengths).await?;
    for ((shape, argv), reply) in shapes.iter_mut().zip(&lengths).zip(replies) {
        let (Shape::There { bytes, .. }, Value::Int(length)) = (shape, reply) else {
            continue;
        };
        let is_string = argv.first().is_some_and(|command| *command == b"STRLEN");
        *bytes = match is_string {
            true => u64::try_from(length).unwrap_or(0),
            false if length > WHOLE_ELEMENTS_MAX => u64::MAX,
            false => WHOLE_BYTES_MAX / 8,
        };
    }
    Ok(())
}

/// True where all of them were read.
async fn values(
    end: &mut End,
    db: u32,
    keys: &[&Bytes],
    shapes: &[Shape],
    held: &mut Vec<Held>,
    left: &mut u64,
) -> Result<bool, SyncError> {
    let base = held.len();
    let (mut part, mut part_bytes) = (Vec::new(), 0);
    for (at, shape) in shapes.iter().enumerate() {
        match *shape {
            Shape::Nothing => held.push(Held::Nothing),
            Shape::There { bytes, at_ms } if bytes > WHOLE_BYTES_MAX => {
                held.push(Held::Large { at_ms });
            }
            Shape::There { bytes, .. } if bytes > *left && !held.is_empty() => {
                dump(end, db, keys, &part, base, held).await?;
                return Ok(false);
            }
            Shape::There { bytes, at_ms } => {
                held.push(Held::Large { at_ms });
                *left = left.saturating_sub(bytes);
                if part_bytes + bytes > DUMPED_AT_ONCE_BYTES && !part.is_empty() {
                    let dumped =
                        dump(end, db, keys, &std::mem::take(&mut part), base, held).await?;
                    // MEMORY USAGE goes by samples.
                    *left = left.saturating_sub(dumped.saturating_sub(part_bytes));
                    part_bytes = 0;
                }
                part.push(at);
                part_bytes += bytes;
            }
        }
    }
    dump(end, db, keys, &part, base, held).await?;
    Ok(true)
}

/// Fills in the payloads of the keys at these places; gives how many bytes they have.
async fn dump(
    end: &mut End,
    db: u32,
    keys: &[&Bytes],
    part: &[usize],
    base: usize,
    held: &mut [Held],
) -> Result<u64, SyncError> {
    if part.is_empty() {
        return Ok(0);
    }
    let mut dumped = 0;
    let key_of = |at: &usize| keys.get(*at).map_or(&[][..], |key| key.as_ref());
    let commands: Vec<Vec<&[u8]>> = part
        .iter()
        .map(|at| vec![&b"DUMP"[..], key_of(at)])
        .collect();
    let replies = match end.ask(db, &commands).await {
        Err(error) if error.class == Class::Stop && end.take_overrun() => {
            // Larger than it was said to be. On its own it stays what `held` says it is: large.
            if part.len() > 1 {
                for at in part {
                    dumped += Box::pin(dump(end, db, keys, &[*at], base, held)).await?;
                }
            }
            return Ok(dumped);
        }
        replies => replies?,
    };
    for (at, reply) in part.iter().zip(replies) {
        let Some(place) = held.get_mut(base + at) else {
            continue;
        };
        *place = match reply {
            Value::Bulk(payload) => {
                dumped += payload.len() as u64;
                Held::Whole {
                    payload,
                    at_ms: place.at_ms(),
                }
            }
            Value::Null => Held::Nothing,
            other => return Err(end.strange("DUMP", &other)),
        };
    }
    Ok(dumped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_for_the_expiry_it_stands_for() {
        let now = 1_800_000_000_000;
        assert_eq!(own_expiry(None, now), None);
        assert_eq!(own_expiry(Some(now + 5), now), Some(now + 5));
        assert_eq!(own_expiry(Some(now - 7 + LEASE_MS), now), Some(now - 7));
        assert_eq!(
            own_expiry(Some(9_999_999_999_999), now),
            Some(9_999_999_999_999 - LEASE_MS * i64::from(9_999_999_999_999 > now + LEASE_MS / 2))
        );
    }
}
