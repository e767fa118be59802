//! The table of commands: name, arity, flags, group, and where the keys stand.
//!
//! The rows come from real servers (`generated.rs`, written by `cargo xtask commands`). Subcommands have rows of their own,
//! named as servers name them (`xgroup|create`). A name is found by one hash of its bytes, without regard to case and
//! without allocation. What a target's modules add is learnt at run time from its own `COMMAND` reply ([`Table::extend`]).

mod extend;
mod generated;
mod group;

use std::borrow::Cow;

pub use extend::Table;
pub use group::Group;

/// One command or subcommand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its name in lower case; a subcommand's is `container|subcommand`.
    pub name: Cow<'static, str>,
    /// The number of words, the name included; negative: at least that many.
    pub arity: i16,
    /// What the server says of it.
    pub flags: Flags,
    /// The group it is documented in.
    pub group: Group,
    /// Where its keys stand.
    pub keys: Cow<'static, [KeySpec]>,
    pub(crate) shape: Shape,
}

impl Command {
    /// Whether the command may have this many words, the name included.
    pub fn takes(&self, words: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            words >= arity
        } else {
            words == arity
        }
    }
}

/// The place of a command in a table: small, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u16);

impl CommandId {
    /// A command that no table knows (a module's, or a server's newer than this table).
    pub const UNKNOWN: Self = Self(u16::MAX);

    /// The name of a command of the built-in table; `None` for a learnt or an unknown one.
    pub fn name(self) -> Option<&'static str> {
        generated::ROWS
            .get(usize::from(self.0))
            .map(|command| &*command.name)
    }

    /// The group of a command of the built-in table.
    pub fn group(self) -> Option<Group> {
        generated::ROWS
            .get(usize::from(self.0))
            .map(|command| command.group)
    }
}

/// A set of facts about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u8);

impl Flags {
    /// It may change data.
    pub const WRITE: Self = Self(1);
    /// It only reads.
    pub const READONLY: Self = Self(2);
    /// It is for administrators.
    pub const ADMIN: Self = Self(4);
    /// It is about channels.
    pub const PUBSUB: Self = Self(8);
    /// It may block the client.
    pub const BLOCKING: Self = Self(16);
    /// Its keys cannot be told from fixed places.
    pub const MOVABLE_KEYS: Self = Self(32);
    /// It is followed by a subcommand.
    pub const CONTAINER: Self = Self(64);

    /// Whether all of `other`'s facts hold.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn of_letters(letters: &[u8]) -> Self {
        let mut bits = 0;
        let mut rest = letters;
        while let [letter, after @ ..] = rest {
            bits |= match *letter {
                b'W' => Self::WRITE.0,
                b'R' => Self::READONLY.0,
                b'A' => Self::ADMIN.0,
                b'P' => Self::PUBSUB.0,
                b'B' => Self::BLOCKING.0,
                b'M' => Self::MOVABLE_KEYS.0,
                b'C' => Self::CONTAINER.0,
                _ => 0,
            };
            rest = after;
        }
        Self(bits)
    }
}

/// Where some keys of a command stand (Redis's "key specification").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// Where to begin.
    pub begin: Begin,
    /// Which arguments from there on are keys.
    pub find: Find,
    /// What the command does to them.
    pub access: Access,
}

/// Where the search for keys begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At this argument (the name is argument 0).
    At(u8),
    /// After this word, looked for from the given argument on (negative: backwards from the end).
    After(&'static str, i8),
    /// It cannot be said.
    Nowhere,
}

/// Which arguments, counted from the beginning found, are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// From the first to the last (relative to the first; negative: from the end of the command), by a step;
    /// a limit of n > 1 says that only the first 1/n of what remains are keys.
    Range(i8, u8, u8),
    /// A number of keys stands at the first place, the first key at the second, then by the step.
    Counted(u8, u8, u8),
    /// It cannot be said.
    Unknown,
}

/// What a command does to some of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// Whether the argument is not a key, but is routed like one (a shard channel).
    pub const fn is_not_key(self) -> bool {
        self.0 & NOT_KEY != 0
    }

    /// Whether the specification does not catch every key in every form of the command.
    pub const fn is_incomplete(self) -> bool {
        self.0 & INCOMPLETE != 0
    }

    /// Whether the command only reads these keys.
    pub const fn is_read_only(self) -> bool {
        self.0 & 3 == RO
    }
}

const RO: u8 = 0;
const RW: u8 = 1;
const OW: u8 = 2;
const RM: u8 = 3;
const NOT_KEY: u8 = 4;
const INCOMPLETE: u8 = 8;

/// How keys are found where the specifications do not say it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// By the specifications.
    Specs,
    /// By the specifications of its subcommand.
    Container,
    Sort,
    GeoRadius,
    Migrate,
    Xread,
    Xreadgroup,
}

const fn k(begin: Begin, find: Find, access: u8) -> KeySpec {
    KeySpec {
        begin,
        find,
        access: Access(access),
    }
}

const fn row(
    name: &'static str,
    arity: i16,
    letters: &[u8],
    group: Group,
    keys: &'static [KeySpec],
) -> Command {
    let flags = Flags::of_letters(letters);
    let shape = shape_of(name.as_bytes(), flags);
    Command {
        name: Cow::Borrowed(name),
        arity,
        flags,
        group,
        keys: Cow::Borrowed(keys),
        shape,
    }
}

const fn shape_of(name: &[u8], flags: Flags) -> Shape {
    if flags.has(Flags::CONTAINER) {
        return Shape::Container;
    }
    match name {
        b"sort" => Shape::Sort,
        b"georadius" | b"georadiusbymember" => Shape::GeoRadius,
        b"migrate" => Shape::Migrate,
        b"xread" => Shape::Xread,
        b"xreadgroup" => Shape::Xreadgroup,
        _ => Shape::Specs,
    }
}

const BUCKETS: usize = 2048;
const FREE: u16 = u16::MAX;

/// Open addressing: the hash of a name leads to its bucket or to one of the few after it.
static INDEX: [u16; BUCKETS] = index();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "runs at compile time, where a bad index is a build error; there are far fewer than 65535 rows"
)]
const fn index() -> [u16; BUCKETS] {
    assert!(
        generated::ROWS.len() * 2 < BUCKETS,
        "a table half full keeps the chains short"
    );
    let mut buckets = [FREE; BUCKETS];
    let mut row = 0;
    while row < generated::ROWS.len() {
        let Cow::Borrowed(name) = generated::ROWS[row].name else {
            panic!("rows borrow")
        };
        let mut bucket = hash(name.as_bytes());
        while buckets[bucket] != FREE {
            bucket = (bucket + 1) % BUCKETS;
        }
        buckets[bucket] = row as u16;
        row += 1;
    }
    buckets
}

/// A bucket for a name, by its length and its first and last eight bytes (which overlap in a short one). Upper and lower
/// case letters hash alike; what else falls together is told apart by comparing.
#[inline]
const fn hash(name: &[u8]) -> usize {
    let (head, tail) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            (Some(head), Some(tail)) => (
                u32::from_le_bytes(*head) as u64,
                u32::from_le_bytes(*tail) as u64,
            ),
            _ => match name {
                [first, second, last] => (*first as u64, (*second as u64) << 8 | *last as u64),
                [first, last] => (*first as u64, *last as u64),
                [only] => (*only as u64, 0),
                _ => (0, 0),
            },
        },
    };
    let (head, tail) = (head | LOWER, tail | LOWER);
    let mixed = (head ^ tail.rotate_left(23) ^ name.len() as u64).wrapping_mul(SPREAD);
    ((mixed ^ mixed >> 32).wrapping_mul(SPREAD) >> HASH_SHIFT) as usize
}

/// Makes letters lower case.
const LOWER: u64 = 0x2020_2020_2020_2020;
/// An odd number whose bits look random (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// What is left are the bits of a bucket.
const HASH_SHIFT: u32 = 64 - BUCKETS.trailing_zeros();

/// The built-in command of this name, in whatever case it is written.
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    find(name).and_then(command)
}

/// The built-in commands, in the order of their names.
pub fn all() -> &'static [Command] {
    generated::ROWS
}

pub(crate) fn command(id: CommandId) -> Option<&'static Command> {
    generated::ROWS.get(usize::from(id.0))
}

/// The id of the built-in command of this name.
pub(crate) fn find(name: &[u8]) -> Option<CommandId> {
    let mut bucket = hash(name);
    loop {
        let row = *INDEX.get(bucket)?;
        let known = generated::ROWS.get(usize::from(row))?;
        if known.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(CommandId(row));
        }
        bucket = (bucket + 1) % BUCKETS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_every_name_is_found() {
        assert!(all().windows(2).all(|pair| pair[0].name < pair[1].name));
        for (place, command) in all().iter().enumerate() {
            let upper = command.name.to_uppercase();
            for name in [command.name.as_bytes(), upper.as_bytes()] {
                assert_eq!(
                    find(name).map(|id| usize::from(id.0)),
                    Some(place),
                    "{}",
                    command.name
                );
            }
        }
    }

    #[test]
    fn names_that_are_no_commands_are_not_found() {
        let long = [b's'; 10_000];
        for name in [
            &b""[..],
            b"se",
            b"sett",
            b"S\x00T",
            b"\xff\xfe",
            b"get ",
            &long,
        ] {
            assert_eq!(lookup(name), None);
        }
        // 0x20 apart without being letters of two cases: `_` and 0x7f, `@` and a grave accent.
        assert_eq!(lookup(b"bitfield\x7fro"), None);
    }

    #[test]
    fn chains_of_buckets_are_short() {
        let far = |(place, row): (usize, &u16)| {
            let home = command(CommandId(*row)).map(|command| hash(command.name.as_bytes()));
            home.map_or(0, |home| (place + BUCKETS - home) % BUCKETS)
        };
        assert!(INDEX.iter().enumerate().map(far).max() <= Some(8));
    }

    #[test]
    fn facts_of_a_few_commands() {
        let set = lookup(b"SET").unwrap();
        assert_eq!((set.arity, set.group), (-3, Group::String));
        assert!(set.flags.has(Flags::WRITE) && !set.flags.has(Flags::READONLY));
        assert!(lookup(b"xgroup").unwrap().flags.has(Flags::CONTAINER));
        assert!(lookup(b"spublish").unwrap().keys[0].access.is_not_key());
        assert!(
            lookup(b"zunionstore")
                .unwrap()
                .flags
                .has(Flags::MOVABLE_KEYS)
        );
    }
}
