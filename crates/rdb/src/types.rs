//! The value types: one row each, kind by encoding.

use crate::grammar::{self, Piece};

/// A database number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Db(pub u32);

/// The version of the format, as in the magic or a DUMP payload's footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RdbVersion(pub u16);

/// Who gives the numbers from 22 on their meaning. The magic decides it, nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Versions 1 to 11, the same in both forks; no type or opcode of later ones occurs.
    Shared,
    /// Redis's versions from 12 on.
    Redis,
    /// Valkey's versions from 80 on.
    Valkey,
}

impl Dialect {
    /// The dialect of a DUMP payload, which has no magic, by the version in its footer.
    #[must_use]
    pub const fn of_payload(version: RdbVersion) -> Self {
        match version.0 {
            ..12 => Self::Shared,
            12..80 => Self::Redis,
            80.. => Self::Valkey,
        }
    }
}

/// What a value is to its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A string (also bitmaps and HyperLogLogs).
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    Zset,
    /// A hash.
    Hash,
    /// A stream.
    Stream,
    /// A module's value (vector sets too).
    Module,
    /// A sparse array.
    Array,
    /// A rate limiter (type 33).
    RateLimiter,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Element after element, each a string; a string is one.
    Plain,
    /// Members with their scores as text.
    TextScores,
    /// Members with their scores as binary doubles.
    BinaryScores,
    /// A zipmap in a string.
    Zipmap,
    /// A ziplist in a string.
    Ziplist,
    /// An intset in a string.
    Intset,
    /// A listpack in a string.
    Listpack,
    /// Ziplists, each in a string.
    Quicklist,
    /// Listpacks, each in a string, and large elements on their own.
    Quicklist2,
    /// Fields led by their expiry, absolute (7.4 release candidates).
    ExpiringAbsolute,
    /// A listpack of (field, value, expiry), without a leading minimum (7.4 release candidates).
    ExpiringListpackPreGa,
    /// Fields followed by their expiry, absolute, -1 for none (Valkey).
    ExpiringTrailing,
    /// Fields led by their expiry relative to the smallest one, which stands in front.
    ExpiringRelative,
    /// The smallest expiry, then a listpack of (field, value, expiry).
    ExpiringListpack,
    /// Nodes of listpacks, groups and consumers; the number grows with what is kept.
    Stream(StreamForm),
    /// A module's bytes without frames.
    ModulePreGa,
    /// A module's values, each led by its opcode.
    Module,
    /// (index, value) pairs.
    Array,
    /// A listpack of values, and the field names.
    TemplateListpack,
    /// A listpack of a template's number and the values.
    TemplateListpackRef,
    /// The field names, then the values.
    TemplateArray,
    /// A template's number, then the values.
    TemplateArrayRef,
    /// Not known.
    Reserved,
}

/// The five layouts of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamForm {
    /// Type 15.
    V1,
    /// Type 19: counters.
    V2,
    /// Type 21: a consumer's time of activity.
    V3,
    /// Type 26: idempotent production.
    V4,
    /// Type 27: messages given back.
    V5,
}

impl Encoding {
    /// Whether the decoder can give the elements of such a value.
    #[must_use]
    pub const fn decodes(self) -> bool {
        !matches!(self, Self::ModulePreGa | Self::Reserved)
    }
}

/// A value type.
#[derive(Debug)]
#[non_exhaustive]
pub struct Row {
    /// The type byte.
    pub id: u8,
    /// Redis's name of it, without the prefix.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// How it is written.
    pub encoding: Encoding,
    /// Whose it is; `Shared` is everybody's.
    pub dialect: Dialect,
    /// The first version of the format that has it.
    pub since: RdbVersion,
    /// What stands behind the key; `None` if that cannot be delimited.
    pub(crate) body: Option<&'static [Piece]>,
}

macro_rules! body {
    (unknown) => {
        None
    };
    ($body:ident) => {
        Some(grammar::$body)
    };
}

macro_rules! rows {
    ($($id:literal | $name:literal | $kind:ident | $encoding:expr, $dialect:ident | $since:literal
       | $body:ident;)*) => {
        &[$(Row {
            id: $id,
            name: $name,
            kind: Kind::$kind,
            encoding: { use Encoding::*; $encoding },
            dialect: Dialect::$dialect,
            since: RdbVersion($since),
            body: body!($body),
        }),*]
    };
}

/// Every value type: byte, name, kind, encoding, dialect, first version, body.
pub static ROWS: &[Row] = rows! {
    0  | "STRING"                  | String | Plain,                 Shared | 1  | STRING;
    1  | "LIST"                    | List   | Plain,                 Shared | 1  | STRINGS;
    2  | "SET"                     | Set    | Plain,                 Shared | 1  | MEMBERS;
    3  | "ZSET"                    | Zset   | TextScores,            Shared | 1  | TEXT_SCORES;
    4  | "HASH"                    | Hash   | Plain,                 Shared | 1  | PAIRS;
    5  | "ZSET_2"                  | Zset   | BinaryScores,          Shared | 8  | BINARY_SCORES;
    6  | "MODULE_PRE_GA"           | Module | ModulePreGa,           Shared | 8  | unknown;
    7  | "MODULE_2"                | Module | Module,                Shared | 8  | MODULE;
    9  | "HASH_ZIPMAP"             | Hash   | Zipmap,                Shared | 2  | ZIPMAP;
    10 | "LIST_ZIPLIST"            | List   | Ziplist,               Shared | 2  | ZIPLIST;
    11 | "SET_INTSET"              | Set    | Intset,                Shared | 2  | INTSET;
    12 | "ZSET_ZIPLIST"            | Zset   | Ziplist,               Shared | 2  | ZIPLIST_SCORES;
    13 | "HASH_ZIPLIST"            | Hash   | Ziplist,               Shared | 4  | ZIPLIST_PAIRS;
    14 | "LIST_QUICKLIST"          | List   | Quicklist,             Shared | 7  | QUICKLIST;
    15 | "STREAM_LISTPACKS"        | Stream | Stream(StreamForm::V1), Shared | 9  | STREAM_1;
    16 | "HASH_LISTPACK"           | Hash   | Listpack,              Shared | 10 | LISTPACK_PAIRS;
    17 | "ZSET_LISTPACK"           | Zset   | Listpack,              Shared | 10 | LISTPACK_SCORES;
    18 | "LIST_QUICKLIST_2"        | List   | Quicklist2,            Shared | 10 | QUICKLIST_2;
    19 | "STREAM_LISTPACKS_2"      | Stream | Stream(StreamForm::V2), Shared | 10 | STREAM_2;
    20 | "SET_LISTPACK"            | Set    | Listpack,              Shared | 11 | LISTPACK;
    21 | "STREAM_LISTPACKS_3"      | Stream | Stream(StreamForm::V3), Shared | 11 | STREAM_3;
    22 | "HASH_METADATA_PRE_GA"    | Hash   | ExpiringAbsolute,      Redis  | 12 | EXPIRING_LED;
    22 | "HASH_2"                  | Hash   | ExpiringTrailing,      Valkey | 80 | EXPIRING_TRAILING;
    23 | "HASH_LISTPACK_EX_PRE_GA" | Hash   | ExpiringListpackPreGa, Redis  | 12 | LISTPACK_EXPIRING;
    24 | "HASH_METADATA"           | Hash   | ExpiringRelative,      Redis  | 12 | EXPIRING_RELATIVE;
    25 | "HASH_LISTPACK_EX"        | Hash   | ExpiringListpack,      Redis  | 12 | MIN_LISTPACK_EXPIRING;
    26 | "STREAM_LISTPACKS_4"      | Stream | Stream(StreamForm::V4), Redis  | 13 | STREAM_4;
    27 | "STREAM_LISTPACKS_5"      | Stream | Stream(StreamForm::V5), Redis  | 14 | STREAM_5;
    28 | "ARRAY"                   | Array  | Array,                 Redis  | 14 | ARRAY;
    29 | "HASH_TMPL_LP"            | Hash   | TemplateListpack,      Redis  | 15 | TEMPLATE_LISTPACK;
    30 | "HASH_TMPL_LP_REF"        | Hash   | TemplateListpackRef,   Redis  | 15 | TEMPLATE_LISTPACK_REF;
    31 | "HASH_TMPL_ARRAY"         | Hash   | TemplateArray,         Redis  | 15 | TEMPLATE_ARRAY;
    32 | "HASH_TMPL_ARRAY_REF"     | Hash   | TemplateArrayRef,      Redis  | 15 | TEMPLATE_ARRAY_REF;
    33 | "GCRA"                    | RateLimiter | Reserved,         Redis  | 15 | unknown;
};

/// One more than the highest type byte.
const IDS: usize = 34;
const ABSENT: u8 = u8::MAX;

static SHARED: [u8; IDS] = index(Dialect::Shared);
static REDIS: [u8; IDS] = index(Dialect::Redis);
static VALKEY: [u8; IDS] = index(Dialect::Valkey);

/// Where the row of each type byte stands. Runs when the crate is compiled.
#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler, which would refuse a wrong index; there are 34 rows"
)]
const fn index(dialect: Dialect) -> [u8; IDS] {
    let mut index = [ABSENT; IDS];
    let mut at = 0;
    while at < ROWS.len() {
        let row = &ROWS[at];
        let mine = match row.dialect {
            Dialect::Shared => true,
            Dialect::Redis => matches!(dialect, Dialect::Redis),
            Dialect::Valkey => matches!(dialect, Dialect::Valkey),
        };
        if mine {
            index[row.id as usize] = at as u8;
        }
        at += 1;
    }
    index
}

/// The row of a type byte in a dialect.
#[inline]
#[must_use]
pub fn row(dialect: Dialect, id: u8) -> Option<&'static Row> {
    let index = match dialect {
        Dialect::Shared => &SHARED,
        Dialect::Redis => &REDIS,
        Dialect::Valkey => &VALKEY,
    };
    ROWS.get(usize::from(*index.get(usize::from(id))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_row_and_no_other() {
        for dialect in [Dialect::Shared, Dialect::Redis, Dialect::Valkey] {
            for id in 0..=255 {
                let wanted = ROWS.iter().find(|row| {
                    row.id == id && (row.dialect == Dialect::Shared || row.dialect == dialect)
                });
                let found = row(dialect, id);
                assert_eq!(
                    found.map(|row| row.name),
                    wanted.map(|row| row.name),
                    "{id}"
                );
            }
        }
    }

    #[test]
    fn twenty_two_is_two_types() {
        let name = |dialect| row(dialect, 22).map(|row| row.name);
        assert_eq!(name(Dialect::Shared), None);
        assert_eq!(name(Dialect::Redis), Some("HASH_METADATA_PRE_GA"));
        assert_eq!(name(Dialect::Valkey), Some("HASH_2"));
    }

    #[test]
    fn what_decodes_can_be_delimited() {
        for row in ROWS {
            assert!(
                row.body.is_some() || !row.encoding.decodes(),
                "{}",
                row.name
            );
        }
    }
}
