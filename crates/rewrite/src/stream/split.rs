//! Commands of several keys of which only some pass: cut down to what they do to those, where that can be said.

use resp::encode;

use crate::keys::Words;

/// What is left of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// This was appended.
    Down,
    /// It changes none of the keys that pass.
    Nothing,
    /// It cannot be said without the keys that do not pass.
    Cannot,
}

/// Appends what is left of the command for the keys that pass, of which there is one at least, and not all.
pub(super) fn cut_down(
    words: Words<'_>,
    places: &[usize],
    passes: impl Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
) -> Cut {
    let name = words.at(0).to_ascii_lowercase();
    let (from, to) = (words.at(1), words.at(2));
    match &*name {
        b"del" | b"unlink" | b"touch" | b"exists" => apart(words, places, 1, passes, out),
        b"mset" | b"msetnx" => apart(words, places, 2, passes, out),
        b"rename" | b"renamenx" => two_keys(words, passes, out, Some(&[b"DEL", from]), None),
        b"copy" => two_keys(words, passes, out, None, None),
        b"smove" => {
            let member = words.at(3);
            let (gone, come) = ([&b"SREM"[..], from, member], [&b"SADD"[..], to, member]);
            two_keys(words, passes, out, Some(&gone), Some(&come))
        }
        b"rpoplpush" | b"brpoplpush" => two_keys(words, passes, out, Some(&[b"RPOP", from]), None),
        b"lmove" | b"blmove" => {
            let pop: &[u8] = match words.is(3, b"LEFT") {
                true => b"LPOP",
                false => b"RPOP",
            };
            two_keys(words, passes, out, Some(&[pop, from]), None)
        }
        // They write the first of their keys and read the others.
        b"bitop" | b"pfmerge" | b"geosearchstore" | b"sdiffstore" | b"sinterstore"
        | b"sunionstore" | b"zdiffstore" | b"zinterstore" | b"zrangestore" | b"zunionstore" => {
            let written = places.iter().min().map(|place| words.at(*place));
            written_passes(written.is_some_and(passes))
        }
        // They write the last of their keys.
        b"sort" | b"georadius" | b"georadiusbymember" => {
            let written = places.iter().max().map(|place| words.at(*place));
            written_passes(written.is_some_and(passes))
        }
        _ => Cut::Cannot,
    }
}

fn written_passes(passes: bool) -> Cut {
    if passes { Cut::Cannot } else { Cut::Nothing }
}

/// A command that falls apart by key; so many words stand with each.
fn apart(
    words: Words<'_>,
    places: &[usize],
    share: usize,
    passes: impl Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
) -> Cut {
    if words.len() != 1 + places.len() * share {
        return Cut::Cannot;
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
    Cut::Down
}

/// A command that takes from its first key and gives to its second: what it does to the one that passes, as the words of a
/// command.
fn two_keys(
    words: Words<'_>,
    passes: impl Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
    gone: Option<&[&[u8]]>,
    come: Option<&[&[u8]]>,
) -> Cut {
    let takes = passes(words.at(1));
    match if takes { gone } else { come } {
        Some(argv) => {
            encode::command(out, argv);
            Cut::Down
        }
        // COPY takes nothing.
        None if takes => Cut::Nothing,
        None => Cut::Cannot,
    }
}
