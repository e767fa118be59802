//! What a key of `shake.toml` is: a row of [`super::keys::KEYS`].

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// Text that is never printed.
    Secret,
    /// `host:port`.
    Address,
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds.
    Int { min: i64, max: i64 },
    /// A size: bytes as a number, or text with a unit (`"64kb"`, `"20gb"`).
    Bytes,
    /// A time: seconds as a number, or text with a unit (`"500ms"`, `"10s"`, `"5m"`).
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A file's name, or a list of them.
    Files,
    /// A list of whole numbers.
    Ints,
    /// A table from databases to databases (or `"drop"`), or the word `"prefix"`.
    Dbs,
}

/// Whether this build acts on the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// Acted on.
    Yes,
    /// Known, but only its default can be honoured: any other value is refused with a clear word.
    DefaultOnly,
    /// Acted on. In a table whose name is a key too (`sentinel`): a file has the one or the other.
    Nested,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// The default as a TOML literal.
    pub(crate) default: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) support: Support,
}

pub(super) const fn key(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default,
        doc,
        support: Support::Yes,
    }
}

pub(super) const fn later(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        support: Support::DefaultOnly,
        ..key(path, kind, default, doc)
    }
}

pub(super) const fn nested(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        support: Support::Nested,
        ..key(path, kind, default, doc)
    }
}

pub(super) const PORT: Kind = Kind::Int {
    min: 0,
    max: 65_535,
};
pub(super) const COUNT: Kind = Kind::Int {
    min: 0,
    max: i64::MAX,
};

/// Both tables as one; `N` is the number of all rows.
pub(super) const fn joined<const N: usize>(first: &[Key], then: &[Key]) -> [Key; N] {
    let mut all = [first[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() {
            first[at]
        } else {
            then[at - first.len()]
        };
        at += 1;
    }
    all
}
