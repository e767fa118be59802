//! Whether a collection names a member twice.
//!
//! Servers differ over such a value: some load it and serve it, some refuse it, some end. So it is
//! never passed on whole, but in elements, which every server takes. Since that is all that hangs
//! on the answer, a wrong yes does no harm: a hash of 64 bits stands in for the member, and a search
//! that gets long is taken for a hit, whoever chose the members.

use crate::container::Entry;

/// A power of two; what is asked most, a packed container, needs no more.
const SLOTS: usize = 256;
/// A table above this size is given back.
const SLOTS_KEPT: usize = 1 << 16;
/// At half load a search ends far below this, unless the members were chosen for it.
const SEARCH_MAX: u64 = 512;

const SEEDS: [u64; 3] = [
    0x9e37_79b9_7f4a_7c15,
    0xd1b5_4a32_d192_ed03,
    0x8bb8_4b93_962e_acc9,
];

/// The members of one value seen so far, by their hashes: 16 to 32 bytes a member.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Hashes where their lowest bits say, or behind; 0 is free.
    slots: Vec<u64>,
    used: usize,
    flawed: bool,
}

impl Members {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            used: 0,
            flawed: false,
        }
    }

    /// Begins a value.
    pub(crate) fn clear(&mut self) {
        self.flawed = false;
        if self.used == 0 {
            return;
        }
        self.used = 0;
        if self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
        }
        self.slots.truncate(SLOTS);
        self.slots.fill(0);
    }

    /// Whether a member came twice, or out of its order where there is one.
    pub(crate) const fn is_flawed(&self) -> bool {
        self.flawed
    }

    /// Says that it is so.
    pub(crate) const fn flaw(&mut self) {
        self.flawed = true;
    }

    /// Adds a member. Text that a server would write as an integer is the same as that integer.
    #[inline]
    pub(crate) fn text(&mut self, text: &[u8]) {
        let hash = match integer(text) {
            Some(value) => hash_int(value),
            None => hash_text(text),
        };
        self.add(hash);
    }

    #[inline]
    pub(crate) fn int(&mut self, value: i64) {
        self.add(hash_int(value));
    }

    /// Adds an entry of a container.
    #[inline]
    pub(crate) fn entry(&mut self, blob: &[u8], entry: Entry) {
        match entry {
            Entry::Text { start, end } => self.text(blob.get(start..end).unwrap_or_default()),
            Entry::Int(value) => self.int(value),
        }
    }

    #[inline]
    fn add(&mut self, hash: u64) {
        if self.flawed {
            return;
        }
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        self.flawed = !insert(&mut self.slots, hash.max(1));
        self.used += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let wider = vec![0; (self.slots.len() * 2).max(SLOTS)];
        let slots = std::mem::replace(&mut self.slots, wider);
        for hash in slots {
            self.flawed |= hash != 0 && !insert(&mut self.slots, hash);
        }
    }
}

/// Puts a hash into a table that has room; false if it is there or finds no place nearby.
#[inline]
fn insert(slots: &mut [u64], hash: u64) -> bool {
    let mask = (slots.len() as u64).wrapping_sub(1);
    for step in 0..SEARCH_MAX {
        let place = usize::try_from(hash.wrapping_add(step) & mask).unwrap_or_default();
        match slots.get_mut(place) {
            Some(slot @ 0) => {
                *slot = hash;
                return true;
            }
            Some(slot) if *slot != hash => {}
            _ => return false,
        }
    }
    false
}

/// The number that this text is exactly the decimal form of.
#[inline]
fn integer(text: &[u8]) -> Option<i64> {
    let (digits, negative) = match text {
        [b'-', digits @ ..] => (digits, true),
        digits => (digits, false),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    // Nineteen digits fit into 64 bits without a sign.
    let mut number = 0_u64;
    for digit in digits {
        match digit {
            b'0'..=b'9' => number = number * 10 + u64::from(digit - b'0'),
            _ => return None,
        }
    }
    if negative {
        0_i64.checked_sub_unsigned(number)
    } else {
        i64::try_from(number).ok()
    }
}

#[inline]
fn hash_int(value: i64) -> u64 {
    let [a, b, _] = SEEDS;
    fold(value.cast_unsigned() ^ a, b)
}

#[inline]
fn hash_text(text: &[u8]) -> u64 {
    let [a, b, c] = SEEDS;
    let mut hash = (text.len() as u64).wrapping_mul(c) ^ a;
    let mut rest = text;
    while let (Some((sixteen, more)), true) = (rest.split_first_chunk::<16>(), rest.len() > 16) {
        hash = ends::<8>(sixteen).map_or(hash, |(one, two)| fold(one ^ hash, two ^ b));
        rest = more;
    }
    // The two parts of what is left may overlap; the length was mixed in.
    let (one, two) = ends::<8>(rest)
        .or_else(|| ends::<4>(rest))
        .or_else(|| ends::<2>(rest))
        .unwrap_or((rest.first().map_or(0, |byte| u64::from(*byte)), 0));
    fold(one ^ hash, two ^ c)
}

/// The first and the last bytes as numbers.
#[inline]
fn ends<const N: usize>(bytes: &[u8]) -> Option<(u64, u64)> {
    let number = |part: &[u8; N]| {
        let mut wide = [0; 8];
        wide.get_mut(..N)?.copy_from_slice(part);
        Some(u64::from_le_bytes(wide))
    };
    Some((number(bytes.first_chunk()?)?, number(bytes.last_chunk()?)?))
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves of the product are what is wanted"
)]
const fn fold(one: u64, two: u64) -> u64 {
    let product = one as u128 * two as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_every_length_differ_and_are_found_again() {
        let text: Vec<u8> = (0..200_u8).map(|byte| byte ^ 0x55).collect();
        for len in 0..200 {
            for at in 0..=200 - len {
                let mut members = Members::new();
                members.text(&text[at..at + len]);
                for other in 0..len {
                    let mut changed = text[at..at + len].to_vec();
                    changed[other] ^= 1;
                    members.text(&changed);
                }
                assert!(!members.is_flawed(), "{len} bytes at {at}");
                members.text(&text[at..at + len]);
                assert!(members.is_flawed(), "{len} bytes at {at}");
                if at > 4 {
                    break;
                }
            }
        }
    }

    #[test]
    fn many_members_and_one_of_them_again() {
        let mut members = Members::new();
        for round in 0..2 {
            for index in 0..300_000 {
                members.text(format!("member:{index}").as_bytes());
                members.int(index);
            }
            assert!(!members.is_flawed(), "round {round}");
            members.text(b"member:777");
            assert!(members.is_flawed(), "round {round}");
            members.clear();
            assert!(members.slots.len() <= SLOTS && !members.is_flawed());
        }
    }

    #[test]
    fn integers_and_their_text_are_the_same() {
        for value in [0, 7, -7, 1 << 40, i64::MIN, i64::MAX] {
            let mut members = Members::new();
            members.int(value);
            members.text(value.to_string().as_bytes());
            assert!(members.is_flawed(), "{value}");
        }
        let mut members = Members::new();
        members.int(7);
        members.int(0);
        for other in [
            "07",
            "+7",
            "-0",
            "-07",
            "7 ",
            "-",
            "",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551623",
        ] {
            members.text(other.as_bytes());
        }
        assert!(!members.is_flawed());
    }

    /// Members that all belong into one slot end the search, not the program's day.
    #[test]
    fn chosen_members_do_no_harm() {
        let mut members = Members::new();
        for high in 1..=SEARCH_MAX * 4 {
            members.add(high << 40);
        }
        assert!(members.is_flawed());
    }
}
