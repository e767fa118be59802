//! Commands of several keys of which only some pass: cut down to those, where that is exact.

use resp::encode;

use crate::keys::Words;

/// How many words stand with each key of a command that falls apart by key, or `None` for one that does not.
fn words_a_key(name: &[u8]) -> Option<usize> {
    let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
    if is(b"del") || is(b"unlink") || is(b"touch") || is(b"exists") {
        Some(1)
    } else if is(b"mset") || is(b"msetnx") {
        Some(2)
    } else {
        None
    }
}

/// Appends the command with only the keys that pass. `None`: it cannot be cut down.
pub(super) fn cut_down(
    words: Words<'_>,
    places: &[usize],
    passes: impl Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
) -> Option<()> {
    let share = words_a_key(words.at(0))?;
    if words.len() != 1 + places.len() * share {
        return None;
    }
    let kept = places.iter().filter(|place| passes(words.at(**place)));
    encode::command_header(out, 1 + kept.clone().count() * share);
    // It succeeded at the source, for keys that the target may have.
    let msetnx = words.is(0, b"msetnx");
    encode::bulk(out, if msetnx { b"MSET" } else { words.at(0) });
    for place in kept {
        for word in *place..*place + share {
            encode::bulk(out, words.at(word));
        }
    }
    Some(())
}
