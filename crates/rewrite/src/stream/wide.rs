//! Commands of more words than the target takes in one (3,999 at ElastiCache Serverless): the same in several, one behind
//! the other in the same transaction.

use resp::{Arg, encode};

use crate::keys::Words;

/// A command that does to each of its last words what it would do to them alone: how many words stand before them, and how
/// many belong together.
fn shape(words: Words<'_>) -> Option<(usize, usize)> {
    let name = words.at(0).to_ascii_lowercase();
    Some(match &*name {
        b"del" | b"unlink" | b"touch" => (1, 1),
        b"mset" | b"msetnx" => (1, 2),
        b"sadd" | b"srem" | b"rpush" | b"lpush" | b"rpushx" | b"lpushx" | b"hdel" | b"zrem"
        | b"pfadd" | b"xdel" => (2, 1),
        b"hset" | b"hmset" => (2, 2),
        // Without options: `INCR` and `CH` would do, but the others count on what is there.
        b"zadd" if is_number(words.at(2)) => (2, 2),
        b"geoadd" if is_number(words.at(2)) => (2, 3),
        b"xack" => (3, 1),
        _ => return None,
    })
}

fn is_number(word: &[u8]) -> bool {
    std::str::from_utf8(word).is_ok_and(|text| text.parse::<f64>().is_ok())
}

/// Appends the command in parts of at most `words_max` words; gives their number. `None`, and nothing appended, for a
/// command that does not fall apart.
pub(super) fn split(
    frame: &[u8],
    args: &[Arg],
    words_max: usize,
    out: &mut Vec<u8>,
) -> Option<u32> {
    let words = Words { frame, args };
    let (head, together) = shape(words)?;
    let rest = words.len().checked_sub(head)?;
    let room = words_max.checked_sub(head)? / together * together;
    if room == 0 || !rest.is_multiple_of(together) {
        return None;
    }
    let mut parts = 0;
    let mut at = head;
    while at < words.len() {
        let count = room.min(words.len() - at);
        encode::command_header(out, head + count);
        for word in (0..head).chain(at..at + count) {
            encode::bulk(out, words.at(word));
        }
        at += count;
        parts += 1;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str, words_max: usize) -> Option<Vec<String>> {
        let mut frame = Vec::new();
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        encode::command(&mut frame, &words);
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        decoder.poll(&frame).unwrap();
        let mut out = Vec::new();
        let count = split(&frame, decoder.args(), words_max, &mut out)?;
        let (mut rest, mut lines) = (&out[..], Vec::new());
        while let Some(found) = decoder.poll(rest).unwrap() {
            let words = decoder.args().iter().map(|arg| arg.of(rest));
            let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
            lines.push(words.join(" "));
            rest = &rest[found.len..];
        }
        assert_eq!(count as usize, lines.len());
        Some(lines)
    }

    #[test]
    fn wide_commands_fall_apart() {
        assert_eq!(
            parts("RPUSH l a b c d e", 4).unwrap(),
            ["RPUSH l a b", "RPUSH l c d", "RPUSH l e"]
        );
        assert_eq!(
            parts("MSET a 1 b 2 c 3", 6).unwrap(),
            ["MSET a 1 b 2", "MSET c 3"]
        );
        assert_eq!(parts("DEL a b c", 3).unwrap(), ["DEL a b", "DEL c"]);
        assert_eq!(
            parts("HSET h a 1 b 2", 5).unwrap(),
            ["HSET h a 1", "HSET h b 2"]
        );
        assert_eq!(
            parts("zadd z 1 a 2 b", 5).unwrap(),
            ["zadd z 1 a", "zadd z 2 b"]
        );
        assert_eq!(parts("XACK s g 1 2 3", 4).unwrap().len(), 3);
    }

    #[test]
    fn what_counts_on_the_whole_does_not() {
        for line in [
            "SINTERSTORE d a b c",
            "ZADD z NX 1 a 2 b",
            "EVAL s 0 a b c",
            "MSET a 1 b",
        ] {
            assert_eq!(parts(line, 3), None, "{line}");
        }
    }
}
