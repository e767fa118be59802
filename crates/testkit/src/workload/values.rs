//! Single values: what goes into keys, in the shapes that servers store in different ways.

use crate::rng::Rng;

/// Text or binary, mostly small, now and then so big that it stops being small anywhere.
pub(super) fn string(rng: &mut Rng) -> Vec<u8> {
    match rng.below(20) {
        0 => Vec::new(),
        1 => number(rng),
        2 => b"-9223372036854775808".to_vec(),
        3 => b"9223372036854775807".to_vec(),
        // Looks like a number and is none: leading zero, too long, a float.
        4 => rng
            .pick(&[
                &b"007"[..],
                b"9223372036854775808",
                b"3.14",
                b"-0",
                b" 1",
                b"1e3",
            ])
            .to_vec(),
        5 => {
            let len = rng.below(200) as usize;
            rng.bytes(len)
        }
        6 => vec![b'z'; rng.within(21..5000) as usize],
        7 if rng.one_in(20) => {
            let len = rng.within(60_000..300_000) as usize;
            rng.bytes(len)
        }
        8 => b"line\r\n$5\r\n*1\r\n\0\xff".to_vec(),
        _ => format!("value-{:x}", rng.number()).into_bytes(),
    }
}

/// A whole number of any width that encodings tell apart.
pub(super) fn number(rng: &mut Rng) -> Vec<u8> {
    let bits = *rng.pick(&[4, 7, 8, 12, 13, 15, 16, 23, 24, 31, 32, 40, 63]);
    let number = (rng.number() >> (64 - bits)) as i64;
    let number = if rng.one_in(2) { -number } else { number };
    number.to_string().into_bytes()
}

/// A member or field: short text, a number, or too long for a compact encoding.
pub(super) fn member(rng: &mut Rng, of: u64) -> Vec<u8> {
    let which = rng.below(of);
    match which % 10 {
        0 => which.to_string().into_bytes(),
        1 => format!("member-{which}-{}", "l".repeat(80)).into_bytes(),
        2 => [b"\0\r\n", which.to_string().as_bytes()].concat(),
        _ => format!("m{which}").into_bytes(),
    }
}

/// A score, among them all that are printed or stored in a special way.
pub(super) fn score(rng: &mut Rng) -> String {
    let special = [
        "0",
        "-0",
        "inf",
        "-inf",
        "1",
        "-1",
        "0.1",
        "3.0000000000000004",
        "5e-324",
        "-5e-324",
        "1.7976931348623157e308",
        "2.2250738585072014e-308",
        "9007199254740993",
        "1e21",
        "123456789.125",
        "4503599627370497.5",
    ];
    match rng.below(4) {
        0 => (*rng.pick(&special)).into(),
        1 => (rng.below(2000) as i64 - 1000).to_string(),
        _ => {
            // Any finite double, whatever its bits.
            let score = f64::from_bits(rng.number());
            if score.is_finite() {
                format!("{score:e}")
            } else {
                "0.5".into()
            }
        }
    }
}

/// Longitude and latitude.
pub(super) fn place(rng: &mut Rng) -> [String; 2] {
    let longitude = rng.below(360_000_000) as f64 / 1e6 - 180.0;
    let latitude = rng.below(170_000_000) as f64 / 1e6 - 85.0;
    [longitude.to_string(), latitude.to_string()]
}
