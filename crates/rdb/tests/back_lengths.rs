//! Sizes of listpack entries that the forks write differently.

use rdb::{Dialect, Limits};
use testkit::rdb_writer::{RdbWriter, listpack};

#[test]
fn forms_of_sizes_that_forks_write_differently() {
    let row = |id| rdb::types::row(Dialect::Shared, id).expect("a type");
    let long = "x".repeat(0x3fff - 5);
    let longer = listpack(&["f".into(), long.as_str().into()]);
    let mut shorter = longer.clone();
    // The size behind the long entry: 00 FF FF becomes 7F FF, and there is a byte less in all.
    let at = shorter.len() - 4;
    shorter.splice(at..at + 3, [0x7f, 0xff]);
    let total = shorter.len() as u32;
    shorter[..4].copy_from_slice(&total.to_le_bytes());
    let other = listpack(&["f".into(), long[1..].into()]);
    for (blob, wanted) in [
        (&longer, (true, false)),
        (&shorter, (false, true)),
        (&other, (false, false)),
    ] {
        for compressed in [true, false] {
            let mut body = RdbWriter::body();
            match compressed {
                true => body.lzf_text(blob),
                false => body.text(blob),
            };
            let body = bytes::Bytes::copy_from_slice(body.as_bytes());
            let found = rdb::dump::back_lengths(row(16), &body, Limits::default());
            let found = found.map(|found| (found.longer, found.shorter));
            assert_eq!(found, Ok(wanted), "compressed: {compressed}");
        }
    }
}
