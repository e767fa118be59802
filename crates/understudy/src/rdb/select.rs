//! Which keys are looked at: by db, by name, by type.

use clap::Args;
use rdb::{KeyHead, Kind};

use super::names::KINDS;

/// Options that choose keys; a key has to fulfil all that are given.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Selection {
    /// Only keys of these databases.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(super) db: Vec<u32>,
    /// Only keys whose names match this pattern, as KEYS takes it (`user:*`, `h?llo`, `h[ae]llo`).
    #[arg(long, value_name = "GLOB")]
    pub(super) key: Option<String>,
    /// Only keys whose names begin so.
    #[arg(long, value_name = "TEXT")]
    pub(super) prefix: Option<String>,
    /// Only values of these types: string, list, set, zset, hash, stream, array, module.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = kind)]
    pub(super) kind: Vec<Kind>,
}

fn kind(word: &str) -> Result<Kind, String> {
    let found = KINDS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        format!("no such type; there are {}", names.join(", "))
    })
}

impl Selection {
    /// Whether this key is chosen.
    #[inline]
    pub(super) fn takes(&self, head: &KeyHead) -> bool {
        (self.db.is_empty() || self.db.contains(&head.db.0))
            && (self.kind.is_empty() || self.kind.contains(&head.kind))
            && self
                .prefix
                .as_ref()
                .is_none_or(|prefix| head.key.starts_with(prefix.as_bytes()))
            && self
                .key
                .as_ref()
                .is_none_or(|glob| matches(glob.as_bytes(), &head.key))
    }

    /// Whether something is left out.
    pub(super) const fn is_partial(&self) -> bool {
        !self.db.is_empty() || !self.kind.is_empty() || self.prefix.is_some() || self.key.is_some()
    }
}

/// Whether a pattern of KEYS matches: `*`, `?`, `[a-z]`, `[^a]`, `\` for the next character as it is.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut rest, mut left) = (pattern, text);
    // The last star: what follows it in the pattern, and where in the text it was tried.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = rest {
            star = Some((after, left));
            rest = after;
            continue;
        }
        match (one(rest, left.first()), left) {
            (Some(after), [_, behind @ ..]) => (rest, left) = (after, behind),
            (_, []) if rest.is_empty() => return true,
            _ => match star {
                // The star takes one more.
                Some((after, [_, behind @ ..])) => {
                    star = Some((after, behind));
                    (rest, left) = (after, behind);
                }
                _ => return false,
            },
        }
    }
}

/// The rest of the pattern, if its first element matches this byte.
fn one<'a>(pattern: &'a [u8], byte: Option<&u8>) -> Option<&'a [u8]> {
    let byte = *byte?;
    match pattern {
        [b'?', after @ ..] => Some(after),
        [b'[', class @ ..] => class_matches(class, byte),
        [b'\\', plain, after @ ..] | [plain, after @ ..] => (*plain == byte).then_some(after),
        [] => None,
    }
}

/// The rest of the pattern behind a class that has this byte. A class that is not closed ends with the pattern.
fn class_matches(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut has = false;
    loop {
        rest = match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', plain, after @ ..] => {
                has |= *plain == byte;
                after
            }
            [from, b'-', to, after @ ..] => {
                let range = (*from).min(*to)..=(*from).max(*to);
                has |= range.contains(&byte);
                after
            }
            [plain, after @ ..] => {
                has |= *plain == byte;
                after
            }
        };
    }
    (has != negated).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let yes = [
            ("*", ""),
            ("*", "abc"),
            ("h?llo", "hallo"),
            ("h[ae]llo", "hello"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            ("user:*:cart", "user:1:2:cart"),
            ("*a*b", "xxaxxaxb"),
            ("a\\*b", "a*b"),
            ("a[\\]]b", "a]b"),
            ("", ""),
            ("a[bc", "ab"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern}");
        }
        let no = [
            ("", "a"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("user:*:cart", "user:1:carts"),
            ("a\\*b", "axb"),
            ("*a*b", "bbba"),
            ("?", ""),
        ];
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(60) + "*b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(4000).as_bytes()));
    }
}
