//! The golden files, as testkit's writer makes them: one for each row of the type table, and some
//! for the frame.

use rdb::types::{ROWS, Row};
use rdb::{Dialect, Encoding, Kind};
use testkit::rdb_writer::{
    Item, Message, RdbWriter, intset, listpack, stream_messages, stream_node, ziplist, zipmap,
};

/// Name and bytes of every golden file.
pub fn all() -> Vec<(String, Vec<u8>)> {
    let rows = ROWS.iter().map(|row| (name(row), of_row(row)));
    rows.chain(
        frames()
            .into_iter()
            .map(|(name, file)| (name.to_owned(), file)),
    )
    .collect()
}

/// `<what>_<encoding>_v<version>`, where the type's own name has both.
pub fn name(row: &Row) -> String {
    let name = row.name.to_lowercase();
    let plain = if name.contains('_') { "" } else { "_plain" };
    format!("{name}{plain}_v{}", row.since.0)
}

fn writer(row: &Row) -> RdbWriter {
    match row.dialect {
        Dialect::Valkey => RdbWriter::valkey(row.since.0),
        Dialect::Shared | Dialect::Redis => RdbWriter::redis(row.since.0),
    }
}

fn of_row(row: &Row) -> Vec<u8> {
    let mut file = writer(row);
    file.select_db(0);
    if let Encoding::TemplateArrayRef | Encoding::TemplateListpackRef = row.encoding {
        file.hash_template(3, &["a", "bb", "cc"]);
    }
    for (key, body) in bodies(row) {
        file.key(row.id, key).bytes(body.as_bytes());
    }
    file.finish()
}

/// A body, written by steps.
fn steps(write: impl FnOnce(&mut RdbWriter)) -> RdbWriter {
    let mut body = RdbWriter::body();
    write(&mut body);
    body
}

/// A body, written in one go.
fn body(write: impl for<'a> FnOnce(&'a mut RdbWriter) -> &'a mut RdbWriter) -> RdbWriter {
    let mut body = RdbWriter::body();
    write(&mut body);
    body
}

fn bodies(row: &Row) -> Vec<(&'static str, RdbWriter)> {
    match (row.kind, row.encoding) {
        (Kind::String, _) => strings(),
        (_, Encoding::Plain) => plain(row.kind),
        (_, Encoding::TextScores) => vec![("scores", steps(text_scores))],
        (_, Encoding::BinaryScores) => vec![("scores", steps(binary_scores))],
        (_, Encoding::Zipmap) => zipmaps(),
        (_, Encoding::Ziplist) => packed(row.kind, ziplist),
        (_, Encoding::Listpack) => packed(row.kind, listpack),
        (_, Encoding::Intset) => intsets(),
        (_, Encoding::Quicklist | Encoding::Quicklist2) => quicklists(row.encoding),
        (_, Encoding::ExpiringAbsolute | Encoding::ExpiringTrailing) => expiring(row.encoding),
        (_, Encoding::ExpiringRelative) => expiring_relative(),
        (_, Encoding::ExpiringListpack | Encoding::ExpiringListpackPreGa) => {
            expiring_listpacks(row.encoding)
        }
        (_, Encoding::Stream(_)) => vec![
            ("stream", steps(|body| stream(row.id, body))),
            ("empty", steps(|body| empty_stream(row.id, body))),
        ],
        (_, Encoding::Module | Encoding::ModulePreGa) => vec![("module", steps(module))],
        (_, Encoding::Array) => vec![("array", steps(array))],
        (
            _,
            Encoding::TemplateListpack
            | Encoding::TemplateListpackRef
            | Encoding::TemplateArray
            | Encoding::TemplateArrayRef,
        ) => templates(row.encoding),
        (_, Encoding::Reserved) => vec![("unknown", body(|body| body.byte(1)))],
    }
}

fn strings() -> Vec<(&'static str, RdbWriter)> {
    let text = |text: &'static str| body(|body| body.server_text(text));
    vec![
        ("short", text("value")),
        ("none", text("")),
        ("int8", text("-128")),
        ("int16", text("-32768")),
        ("int32", text("-2147483648")),
        ("nearly", text("007")),
        (
            "lzf",
            text("lalalalalalalalalalalalalalalalalalalalalalalalala"),
        ),
        ("longform", body(|body| body.len_64(4).bytes("four"))),
        (
            "two-byte length",
            text(concat!(
                "every letter of it differs from what was before: ",
                "0123456789 abcdefghij KLMNOPQRST!",
            )),
        ),
    ]
}

const ITEMS: [&str; 6] = [
    "one",
    "",
    "-7",
    "70000",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\u{0}\r\n\u{7f}",
];

fn plain(kind: Kind) -> Vec<(&'static str, RdbWriter)> {
    match kind {
        Kind::Hash => vec![("hash", body(|body| body.len(3).texts_of(&ITEMS)))],
        _ => vec![("items", body(|body| body.texts(&ITEMS)))],
    }
}

/// Strings without their number in front.
trait Texts {
    fn texts_of(&mut self, texts: &[&str]) -> &mut Self;
}

impl Texts for RdbWriter {
    fn texts_of(&mut self, texts: &[&str]) -> &mut Self {
        texts.iter().fold(self, |body, text| body.server_text(text))
    }
}

fn text_scores(body: &mut RdbWriter) {
    let scores = [
        "1",
        "-0",
        "0.10000000000000001",
        "1.7976931348623157e+308",
        "5e-324",
    ];
    body.len(scores.len() as u64 + 2);
    for (index, score) in scores.iter().enumerate() {
        body.text(format!("m{index}"))
            .byte(score.len() as u8)
            .bytes(score);
    }
    body.text("up").byte(254).text("down").byte(255);
}

fn binary_scores(body: &mut RdbWriter) {
    let scores = [
        f64::INFINITY,
        1e300,
        0.1,
        5e-324,
        -0.0,
        -1.5,
        f64::NEG_INFINITY,
    ];
    body.len(scores.len() as u64);
    for (index, score) in scores.iter().enumerate() {
        body.server_text(index.to_string())
            .bytes(score.to_le_bytes());
    }
}

fn zipmaps() -> Vec<(&'static str, RdbWriter)> {
    let long = [b'v'; 300];
    let pairs: [(&[u8], &[u8]); 3] = [(b"f", b"value"), (b"", b""), (b"long", &long)];
    vec![
        ("zipmap", body(|body| body.text(zipmap(&pairs, 0)))),
        ("free", body(|body| body.text(zipmap(&pairs[..2], 3)))),
        ("lzf", body(|body| body.lzf_text(zipmap(&pairs, 1)))),
    ]
}

type Pack = fn(&[Item<'_>]) -> Vec<u8>;

fn packed(kind: Kind, pack: Pack) -> Vec<(&'static str, RdbWriter)> {
    let long = "l".repeat(300);
    let scored: Vec<Item<'_>> = vec![
        "down".into(),
        "-inf".into(),
        5.into(),
        (-1).into(),
        "zero".into(),
        "-0".into(),
        "tenth".into(),
        "0.10000000000000001".into(),
        "big".into(),
        i64::MAX.into(),
        "up".into(),
        "inf".into(),
    ];
    let items: Vec<Item<'_>> = vec![
        "a".into(),
        "".into(),
        0.into(),
        12.into(),
        13.into(),
        127.into(),
        128.into(),
        (-1).into(),
        (-4096).into(),
        4095.into(),
        4096.into(),
        40_000.into(),
        9_000_000.into(),
        i64::from(i32::MIN).into(),
        i64::MIN.into(),
        long.as_str().into(),
        "after".into(),
        "z".into(),
    ];
    let items = if kind == Kind::Zset { scored } else { items };
    let short: Vec<Item<'_>> = vec!["f".into(), 1.into()];
    vec![
        ("packed", body(|body| body.text(pack(&items)))),
        ("short", body(|body| body.text(pack(&short)))),
        ("lzf", body(|body| body.lzf_text(pack(&items)))),
    ]
}

fn intsets() -> Vec<(&'static str, RdbWriter)> {
    let sixteen = intset(2, &[-32768, -1, 0, 32767]);
    let thirty_two = intset(4, &[i64::from(i32::MIN), 5, 70_000]);
    let sixty_four = intset(8, &[i64::MIN, -1, i64::MAX]);
    vec![
        ("sixteen", body(|body| body.text(sixteen))),
        ("thirty-two", body(|body| body.text(thirty_two))),
        ("sixty-four", body(|body| body.lzf_text(sixty_four))),
    ]
}

fn quicklists(encoding: Encoding) -> Vec<(&'static str, RdbWriter)> {
    let first: [Item<'_>; 3] = ["a".into(), 1.into(), "bcd".into()];
    let second: [Item<'_>; 2] = ["eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee".into(), 70_000.into()];
    if encoding == Encoding::Quicklist {
        return vec![(
            "list",
            steps(|body| {
                body.len(3)
                    .text(ziplist(&first))
                    .lzf_text(ziplist(&second))
                    .text(ziplist(&[]));
            }),
        )];
    }
    vec![(
        "list",
        steps(|body| {
            body.len(5)
                .len(2)
                .text(listpack(&first))
                .len(1)
                .text("an element of its own");
            body.len(2)
                .lzf_text(listpack(&second))
                .len(2)
                .text(listpack(&[]));
            body.len(1).lzf_text("plain".repeat(20));
        }),
    )]
}

const FIELDS: [(&str, &str, u64); 3] = [
    ("soon", "1", 1_700_000_000_000),
    ("late", "two", (1 << 48) - 1),
    ("never", "3", 0),
];

fn expiring(encoding: Encoding) -> Vec<(&'static str, RdbWriter)> {
    vec![(
        "hash",
        steps(|body| {
            body.len(FIELDS.len() as u64);
            for (field, value, at_ms) in FIELDS {
                if encoding == Encoding::ExpiringAbsolute {
                    body.len(at_ms).server_text(field).server_text(value);
                } else {
                    let at_ms = if at_ms == 0 { -1 } else { at_ms as i64 };
                    body.server_text(field)
                        .server_text(value)
                        .bytes(at_ms.to_le_bytes());
                }
            }
        }),
    )]
}

fn expiring_relative() -> Vec<(&'static str, RdbWriter)> {
    let min = FIELDS[0].2;
    vec![
        (
            "hash",
            steps(|body| {
                body.bytes(min.to_le_bytes()).len(FIELDS.len() as u64);
                for (field, value, at_ms) in FIELDS {
                    let above = at_ms.checked_sub(min).map_or(0, |above| above + 1);
                    body.len(above).server_text(field).server_text(value);
                }
            }),
        ),
        (
            "persistent",
            body(|body| body.bytes([0; 8]).len(1).len(0).text("f").text("v")),
        ),
    ]
}

fn expiring_listpacks(encoding: Encoding) -> Vec<(&'static str, RdbWriter)> {
    let entry = |(field, value, at_ms): (&'static str, &'static str, u64)| {
        [Item::from(field), value.into(), (at_ms as i64).into()]
    };
    let packed = listpack(&FIELDS.map(entry).concat());
    let min = FIELDS[0].2;
    vec![(
        "hash",
        steps(|body| {
            if encoding == Encoding::ExpiringListpack {
                body.bytes(min.to_le_bytes());
            }
            body.text(packed);
        }),
    )]
}

fn id(ms: u64, seq: u64) -> [u8; 16] {
    let both = u128::from(ms) << 64 | u128::from(seq);
    both.to_be_bytes()
}

/// Messages with fields of their own, and deleted ones of both forms.
fn mixed_node() -> Vec<u8> {
    let message = |seq, deleted, fields, values| Message {
        id: (0, seq),
        deleted,
        fields,
        values,
    };
    stream_messages(
        &["f"],
        &[
            message(0, true, None, &["gone"]),
            message(1, false, Some(&["own", "7"]), &["value", "-7"]),
            message(2, true, Some(&["own"]), &["gone, too"]),
            message(3, true, Some(&[]), &[]),
            message(4, false, None, &["8"]),
        ],
    )
}

fn stream(type_id: u8, body: &mut RdbWriter) {
    let node = stream_node(
        &["temperature", "unit"],
        &[
            ((0, 0), &["21", "C"]),
            ((5, 0), &["22", "C"]),
            ((5, 1), &["70000", "a unit"]),
        ],
    );
    body.len(3)
        .text(id(1000, 1))
        .text(&node)
        .lzf_text(id(2000, 0))
        .lzf_text(&node)
        .text(id(3000, 0))
        .text(mixed_node());
    body.len(8).len(3007).len(1);
    if type_id >= 19 {
        body.len(1000).len(1).len(3000).len(3).len(11);
    }
    body.len(2);
    for name in ["group", "other"] {
        body.text(name).len(1005).len(0);
        if type_id >= 19 {
            body.len_64(u64::MAX);
        }
        body.len(2);
        for ms in [1000, 1005] {
            body.bytes(id(ms, ms % 5 + 1))
                .bytes(1_700_000_000_000_i64.to_le_bytes())
                .len(3);
        }
        body.len(2);
        // Below 27, every pending message has an owner.
        let second: &[[u8; 16]] = match type_id {
            27.. => &[],
            _ => &[id(1005, 1)],
        };
        for (consumer, ids) in [("first", &[id(1000, 1)][..]), ("second", second)] {
            body.text(consumer)
                .bytes(1_700_000_000_001_i64.to_le_bytes());
            if type_id >= 21 {
                body.bytes((-1_i64).to_le_bytes());
            }
            body.len(ids.len() as u64).bytes(ids.concat());
        }
        if type_id >= 27 {
            body.len(1).bytes(id(1005, 1));
        }
    }
    stream_end(type_id, body);
}

fn stream_end(type_id: u8, body: &mut RdbWriter) {
    if type_id >= 26 {
        body.len(100).len(100).len(1).text("producer").len(1);
        body.text("message").len(1000).len(1).len(1).len(0);
    }
}

fn empty_stream(type_id: u8, body: &mut RdbWriter) {
    let counters = if type_id >= 19 { 8 } else { 3 };
    body.len(0).bytes(vec![0; counters]).len(0);
    stream_end(type_id, body);
}

/// The number of a module's type.
pub fn module_id(name: &[u8; 9], version: u64) -> u64 {
    let charset = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = |c: &u8| charset.iter().position(|other| other == c).unwrap_or(63) as u64;
    name.iter().fold(0, |id, c| id << 6 | place(c)) << 10 | version
}

fn module_values(body: &mut RdbWriter) {
    body.len(1)
        .len_64(u64::MAX)
        .len(2)
        .len(7)
        .len(3)
        .bytes([0; 4])
        .len(4)
        .bytes([0; 8]);
    body.len(5)
        .text("text")
        .len(5)
        .lzf_text("lalalalalalalalalala")
        .len(5)
        .int(-5)
        .len(0);
}

fn module(body: &mut RdbWriter) {
    body.len(module_id(b"vectorset", 0));
    module_values(body);
}

fn array(body: &mut RdbWriter) {
    body.len(5).len(1).len(9);
    body.len(0)
        .len(0)
        .text("text")
        .len(1)
        .len(1)
        .bytes((-5_i64).to_le_bytes());
    body.len(2)
        .len(2)
        .bytes(0.5_f64.to_le_bytes())
        .len(70)
        .len(3)
        .text("small");
    body.len_64(1 << 40).len(0).lzf_text("lalalalalalalalalala");
}

fn templates(encoding: Encoding) -> Vec<(&'static str, RdbWriter)> {
    let names: [Item<'_>; 3] = ["a".into(), "bb".into(), "cc".into()];
    let values: [Item<'_>; 4] = [3.into(), "x".into(), "y".into(), 70.into()];
    let texts = ["x", "y", "70"];
    let plain_names = |body: &mut RdbWriter| {
        body.len(1).texts(&["a", "bb", "cc"]);
    };
    let packed_names = |body: &mut RdbWriter| {
        body.len(0).text(listpack(&names));
    };
    let rest = |body: &mut RdbWriter| {
        match encoding {
            Encoding::TemplateArray => body.texts_of(&texts),
            _ => body.text(listpack(&values)),
        };
    };
    match encoding {
        Encoding::TemplateListpackRef => vec![("hash", steps(rest))],
        Encoding::TemplateArrayRef => {
            vec![("hash", body(|body| body.len(3).texts_of(&texts)))]
        }
        _ => vec![
            (
                "packed names",
                steps(|body| {
                    packed_names(body);
                    rest(body);
                }),
            ),
            (
                "plain names",
                steps(|body| {
                    plain_names(body);
                    rest(body);
                }),
            ),
        ],
    }
}

/// Files for what stands around the values.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("frame_plain_v1", frame_v1()),
        ("frame_opcodes_v10", frame_v10()),
        ("frame_opcodes_v15", frame_v15()),
        ("frame_opcodes_v80", frame_v80()),
        ("frame_empty_keys_v10", frame_empty_keys()),
        ("frame_no_checksum_v9", {
            let mut file = RdbWriter::redis(9);
            file.select_db(0).string("k", "v");
            file.finish_without_checksum()
        }),
    ]
}

fn frame_v1() -> Vec<u8> {
    let mut file = RdbWriter::redis(1);
    file.select_db(0)
        .string("k", "v")
        .expire_seconds(1_300_000_000)
        .list("l", &["a", "b"]);
    file.select_db(3).expire_seconds(-1).set("s", &["1"]);
    file.finish()
}

fn frame_v10() -> Vec<u8> {
    let mut file = RdbWriter::redis(10);
    file.aux("redis-ver", "7.0.15")
        .byte(250)
        .text("redis-bits")
        .int(64)
        .aux("%log", "line");
    file.byte(247).len(module_id(b"moduleaux", 2)).len(2).len(1);
    module_values(&mut file);
    file.function("#!lua name=lib\nredis.register_function('f', function() return 1 end)");
    file.byte(246)
        .text("old")
        .text("LUA")
        .len(1)
        .text("about it")
        .text("return 1");
    file.byte(246)
        .text("older")
        .text("LUA")
        .len(0)
        .text("return 2");
    file.select_db(0).resize_db(4, 2);
    file.expire_ms(1_700_000_000_000)
        .idle(1000)
        .string("idle", "v");
    file.freq(255)
        .string("frequent", "v")
        .expire_ms(0)
        .string("zero", "v");
    file.select_db(15)
        .resize_db(1, 1)
        .expire_ms(-1)
        .zset("z", &[("m", -0.0)]);
    file.byte(247)
        .len(module_id(b"moduleaux", 2))
        .len(2)
        .len(2)
        .len(0);
    file.finish()
}

fn frame_v15() -> Vec<u8> {
    let mut file = RdbWriter::redis(15);
    file.aux("redis-ver", "8.10.2")
        .hash_template(0, &["f"])
        .hash_template(7, &["a", "b", "aa"]);
    file.select_db(0)
        .resize_db(3, 1)
        .slot_info(12_182, 1, 0)
        .slot_info(16_383, 2, 1);
    file.byte(121)
        .len(5)
        .byte(107)
        .len(70_000)
        .string("foo", "bar");
    file.expire_ms(1_700_000_000_000).idle(9);
    file.byte(243)
        .len(2)
        .bytes(0x0100_u32.to_le_bytes())
        .len(2)
        .len(5)
        .len(0);
    file.bytes(0x0200_u32.to_le_bytes())
        .len(5)
        .text("meta")
        .len(0);
    file.hash("h", &[("f", "v")]).string("plain", "no metadata");
    file.finish()
}

fn frame_v80() -> Vec<u8> {
    let mut file = RdbWriter::valkey(80);
    file.aux("valkey-ver", "9.1.2");
    file.byte(243)
        .text("0123456789012345678901234567890123456789")
        .len(2);
    file.len(0).len(0).len(5461).len(16_383);
    file.select_db(0)
        .slot_info(1, 2, 3)
        .aux("slot-info", "1,2,3,0")
        .string("k", "v");
    file.finish()
}

fn frame_empty_keys() -> Vec<u8> {
    let mut file = RdbWriter::redis(10);
    file.select_db(0);
    for type_id in [1, 2, 3, 4, 5, 14, 18] {
        file.expire_ms(5).key(type_id, "empty").len(0);
    }
    for type_id in [10, 12, 13] {
        file.key(type_id, "empty").text(ziplist(&[]));
    }
    for type_id in [16, 17, 20] {
        file.key(type_id, "empty").text(listpack(&[]));
    }
    file.key(14, "empty")
        .len(2)
        .text(ziplist(&[]))
        .lzf_text(ziplist(&[]));
    file.key(18, "empty")
        .len(2)
        .len(2)
        .text(listpack(&[]))
        .len(2)
        .text(listpack(&[]));
    file.string("after", "no expiry left over");
    file.finish()
}
