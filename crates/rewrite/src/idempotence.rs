//! The name that a server gives a message of `XADD IDMPAUTO`: a hash of what is in it.
//!
//! `t_stream.c: createIdempotencyHash`: of each field, its length (eight bytes, little-endian) and its value together the
//! XXH3 hash of 128 bits; of all of them the sum and the XOR of each half, so that their order does not matter. The
//! source sends such a message with its id, which no server takes from a client beside `IDMPAUTO`: the message goes without,
//! and this name of it by `XIDMPRECORD`. Were the hash another one day, a message sent twice would be in the target
//! twice, where the source has it once; the tests compare it with real servers.

use xxhash_rust::xxh3::Xxh3;

/// The name of a message of these fields and values in turn.
pub(crate) fn name<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> [u8; 16] {
    let (mut sum, mut xor) = ([0_u64; 2], [0_u64; 2]);
    while let Some((field, value)) = words.next().zip(words.next()) {
        let mut hash = Xxh3::new();
        hash.update(field);
        hash.update(&(field.len() as u64).to_le_bytes());
        hash.update(value);
        for ((sum, xor), half) in sum.iter_mut().zip(&mut xor).zip(halves(hash.digest128())) {
            *sum = sum.wrapping_add(half);
            *xor ^= half;
        }
    }
    let ([sum_low, sum_high], [xor_low, xor_high]) = (sum, xor);
    let low = sum_low ^ xor_high.rotate_left(1);
    let high = sum_high ^ xor_low.rotate_left(1);
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}

/// The low half and the high one.
fn halves(hash: u128) -> [u64; 2] {
    let bytes = hash.to_le_bytes();
    let half = |part: Option<&[u8; 8]>| part.map_or(0, |half| u64::from_le_bytes(*half));
    [half(bytes.first_chunk()), half(bytes.last_chunk())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> [u8; 16] {
        name(words.iter().map(|word| word.as_bytes()))
    }

    #[test]
    fn order_does_not_matter_and_all_else_does() {
        let one = of(&["a", "1", "b", "2"]);
        assert_eq!(one, of(&["b", "2", "a", "1"]));
        for other in [
            &["a", "2", "b", "1"][..],
            &["a", "1"],
            &["a1", "", "b", "2"],
            &["a", "1", "b", "2", "b", "2"],
        ] {
            assert_ne!(one, of(other), "{other:?}");
        }
    }
}
