//! LZF compression: greedy, with a table of where each three bytes were seen last.

use std::collections::HashMap;

/// Copies reach this far back.
const BACK_MAX: usize = 8192;
/// Copies are at most this long.
const LEN_MAX: usize = 264;

/// What `input` compresses to; longer than it if there is nothing to gain.
#[must_use]
pub fn lzf(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seen: HashMap<[u8; 3], usize> = HashMap::new();
    let (mut at, mut literal) = (0, 0);
    while at < input.len() {
        let found = input[at..]
            .first_chunk::<3>()
            .and_then(|three| seen.insert(*three, at));
        match found.filter(|from| at - from <= BACK_MAX) {
            None => at += 1,
            Some(from) => {
                let same = |n: &usize| input.get(at + n) == input.get(from + n);
                let longest = LEN_MAX.min(input.len() - at);
                let len = (3..longest).find(|n| !same(n)).unwrap_or(longest);
                literals(&mut out, &input[literal..at]);
                copy(&mut out, len, at - from);
                at += len;
                literal = at;
            }
        }
    }
    literals(&mut out, &input[literal..]);
    out
}

fn literals(out: &mut Vec<u8>, bytes: &[u8]) {
    for run in bytes.chunks(32) {
        out.push(run.len() as u8 - 1);
        out.extend(run);
    }
}

fn copy(out: &mut Vec<u8>, len: usize, back: usize) {
    let [high, low] = (back as u16 - 1).to_be_bytes();
    match len - 2 {
        short @ ..7 => out.push(((short as u8) << 5) | high),
        long => out.extend([0xe0 | high, (long - 7) as u8]),
    }
    out.push(low);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_copies() {
        assert_eq!(lzf(b"abc"), b"\x02abc");
        assert_eq!(lzf(b"aaaaaaa"), [0, b'a', 0x80, 0]);
        assert_eq!(lzf(&[b'x'; 300]), [0, b'x', 0xe0, 255, 0, 0xe1, 26, 7]);
    }
}
