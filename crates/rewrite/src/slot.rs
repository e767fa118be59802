//! The slot of a key in a cluster (`cluster.c: keyHashSlot`): CRC-16/XMODEM of the hash tag, or of the whole key.

/// How many slots a cluster has.
pub const SLOTS: u16 = 16384;

/// A slot of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// The slot that a key (or a shard channel) belongs to.
pub fn slot_of(key: &[u8]) -> Slot {
    Slot(crc16(hash_tag(key).unwrap_or(key)) % SLOTS)
}

/// What stands between the first `{` and the next `}`, unless that is nothing.
pub fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', key)?;
    let inner = key.get(open + 1..)?;
    let close = memchr::memchr(b'}', inner)?;
    inner.get(..close).filter(|tag| !tag.is_empty())
}

/// The shortest number for each slot that is in it, as text: a hash tag that puts a key of ours there.
pub fn slot_tags() -> Vec<String> {
    let mut tags = vec![String::new(); usize::from(SLOTS)];
    let mut left = tags.len();
    for number in 0_u32.. {
        if left == 0 {
            break;
        }
        let text = number.to_string();
        if let Some(tag) = tags.get_mut(usize::from(slot_of(text.as_bytes()).0))
            && tag.is_empty()
        {
            *tag = text;
            left -= 1;
        }
    }
    tags
}

/// The name of a key under construction, in the slot of the key that it will be.
pub fn temporary_key(key: &[u8]) -> Vec<u8> {
    let prefix = crate::TEMPORARY_KEY_PREFIX;
    if hash_tag(key).is_some() {
        return [prefix, key].concat();
    }
    if !key.is_empty() && memchr::memchr(b'}', key).is_none() {
        return [prefix, b"{", key, b"}"].concat();
    }
    // A brace in the wrong place: no tag can hold the key. Some number below a few ten thousand shares its slot.
    let slot = slot_of(key);
    let tags = (0..u32::MAX).map(|number| number.to_string());
    let tag = tags
        .into_iter()
        .find(|tag| slot_of(tag.as_bytes()) == slot)
        .unwrap_or_default();
    [prefix, b"{", tag.as_bytes(), b"}", key].concat()
}

static TABLE: [u16; 256] = table();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "runs at compile time; the index is below 256"
)]
const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 {
                (crc << 1) ^ 0x1021
            } else {
                crc << 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        let [high, _] = crc.to_be_bytes();
        let entry = TABLE
            .get(usize::from(high ^ byte))
            .copied()
            .unwrap_or_default();
        (crc << 8) ^ entry
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_checksum() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    /// As `CLUSTER KEYSLOT` of a real server says.
    #[test]
    fn slots_of_keys() {
        let keys = [
            ("foo", 12182),
            ("bar", 5061),
            ("", 0),
            ("{user1000}.following", 3443),
            ("{}x", 10595),
        ];
        for (key, slot) in keys {
            assert_eq!(slot_of(key.as_bytes()), Slot(slot), "{key}");
        }
        assert_eq!(slot_of(b"a{foo}b{bar}"), slot_of(b"foo"));
        assert_eq!(hash_tag(b"{}{a}"), None);
        assert_eq!(hash_tag(b"}{a"), None);
    }

    #[test]
    fn every_slot_has_a_tag() {
        let tags = slot_tags();
        for (slot, tag) in tags.iter().enumerate() {
            assert_eq!(usize::from(slot_of(tag.as_bytes()).0), slot);
            let key = format!("understudy:{{{tag}}}:x");
            assert_eq!(usize::from(slot_of(key.as_bytes()).0), slot);
            assert!(tag.len() <= 6, "{tag}");
        }
    }

    #[test]
    fn a_key_under_construction_is_in_its_slot() {
        for key in [
            "foo", "", "}", "{}x", "a}b", "{tag}x", "x{", "x{y", "{{a}}", "\u{0}",
        ] {
            let temporary = temporary_key(key.as_bytes());
            assert!(temporary.starts_with(crate::TEMPORARY_KEY_PREFIX));
            assert_eq!(slot_of(&temporary), slot_of(key.as_bytes()), "{key:?}");
        }
        assert_ne!(temporary_key(b"}a"), temporary_key(b"}b"));
    }
}
