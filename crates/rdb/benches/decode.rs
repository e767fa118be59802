//! Throughput over files in memory, fed as a socket would: `cargo bench -p rdb`.

use bytes::Bytes;
use divan::counter::BytesCount;
use rdb::{Decoder, Limits, Poll, Want};
use testkit::rdb_writer::{Item, RdbWriter, listpack};

fn main() {
    divan::main();
}

/// Keys in each file.
const KEYS: u32 = 100_000;

/// Bytes that do not compress.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) * 0x9e37_79b9 + 1;
    let next = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn file(write: impl Fn(&mut RdbWriter, u32)) -> Bytes {
    let mut file = RdbWriter::redis(11);
    file.select_db(0);
    (0..KEYS).for_each(|index| write(&mut file, index));
    Bytes::from(file.finish_without_checksum())
}

fn strings() -> Bytes {
    file(|file, index| {
        file.key(0, format!("key:{index:09}"))
            .text(noise(index, 200));
    })
}

fn listpacks() -> Bytes {
    file(|file, index| {
        let texts: Vec<Vec<u8>> = (0..20).map(|item| noise(index + item, 12)).collect();
        let items: Vec<Item<'_>> = texts.iter().map(|text| text.as_slice().into()).collect();
        file.key(16, format!("hash:{index:09}"))
            .text(listpack(&items));
    })
}

fn compressed_listpacks() -> Bytes {
    file(|file, index| {
        let fields: Vec<String> = (0..20).map(|field| format!("field{field}")).collect();
        let items: Vec<Item<'_>> = fields
            .iter()
            .flat_map(|field| [Item::from(field.as_str()), i64::from(index).into()])
            .collect();
        file.key(16, format!("hash:{index:09}"))
            .lzf_text(listpack(&items));
    })
}

fn members() -> Bytes {
    file(|file, index| {
        let members: Vec<Vec<u8>> = (0..20).map(|member| noise(index + member, 12)).collect();
        file.set(format!("set:{index:09}"), &members);
    })
}

fn decode(file: &Bytes, want: Want, limits: &Limits) -> u64 {
    let mut decoder = Decoder::new(limits.clone());
    let (mut events, mut at) = (0, 0);
    loop {
        match decoder.poll() {
            Ok(Poll::Event(event)) => {
                if let rdb::Event::Key(_) = event {
                    decoder.want(want);
                }
                events += 1;
                divan::black_box(event);
            }
            Ok(Poll::NeedMore) => {
                let end = file.len().min(at + (64 << 10));
                decoder.feed(file.slice(at..end));
                at = end;
            }
            Ok(Poll::End) => return events,
            Err(error) => panic!("{error}"),
        }
    }
}

const RAW: Want = Want::Raw {
    bytes_max: 64 << 10,
};

fn run(bencher: divan::Bencher<'_, '_>, file: Bytes, want: Want, limits: Limits) {
    bencher
        .counter(BytesCount::new(file.len()))
        .bench_local(|| decode(&file, want, &limits));
}

macro_rules! benches {
    ($($name:ident: $file:ident, $want:expr, $limits:expr;)*) => {
        $(#[divan::bench]
        fn $name(bencher: divan::Bencher<'_, '_>) {
            run(bencher, $file(), $want, $limits);
        })*
    };
}

benches! {
    strings_elements: strings, Want::Elements, Limits::default();
    strings_skip: strings, Want::Skip, Limits::default();
    listpacks_elements: listpacks, Want::Elements, Limits::default();
    listpacks_raw: listpacks, RAW, Limits::default();
    compressed_raw: compressed_listpacks, RAW, Limits::default();
    compressed_raw_unvalidated: compressed_listpacks, RAW,
        Limits { validate_raw: false, ..Limits::default() };
    members_elements: members, Want::Elements, Limits::default();
    members_raw: members, RAW, Limits::default();
    strings_raw: strings, RAW, Limits::default();
    members_skip: members, Want::Skip, Limits::default();
    listpacks_skip: listpacks, Want::Skip, Limits::default();
}

#[divan::bench]
fn checksum(bencher: divan::Bencher<'_, '_>) {
    let bytes = noise(1, 8 << 20);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| {
            let pieces = bytes.chunks(64 << 10);
            pieces.fold(0, rdb::crc64)
        });
}
