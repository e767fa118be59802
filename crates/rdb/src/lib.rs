//! Decodes RDB, the format of Redis's and Valkey's snapshots, and makes DUMP payloads.
//!
//! No I/O, no clock: bytes are fed as they arrive, events are taken as they become complete.
//!
//! # The format
//!
//! Behind a production stands since which version it exists; R is Redis's own
//! numbering from 12 on, V is Valkey's from 80 on. Fixed numbers are little-endian.
//!
//! ```text
//! file       = magic { opcode | key } FF [ u64 checksum ]               checksum: 5
//! magic      = "REDIS" digit*4 | "VALKEY" digit*3                       VALKEY: V80
//! opcode     = FE number                          the database          1
//!            | FB number number                   size of the database  7
//!            | FA string string                   note of the writer    7
//!            | F7 number number number parts      a module's data       9
//!            | F6 string string flag [ string ] string | F5 string      functions: 10
//!            | F4 number number number            size of a slot        R12, V80
//!            | F2 number n string*n               names of a template   R15
//!            | F3 string n (number number)*n      slots imported        V80
//!            | 79 number | 6B number              Redis Enterprise's, passed over
//! key        = { lead } type string value
//! lead       = FD i32 | FC i64                    expiry in s or ms     1, 3
//!            | F8 number | F9 u8                  idle, frequency       9
//!            | F3 n (u32 parts)*n                 metadata of modules   R13
//! payload    = [ F3 n (u32 parts)*n ] type value u16-version u64-checksum
//!
//! number     = 00xxxxxx | 01xxxxxx u8 | 80 u32-be | 81 u64-be           81: 8
//! string     = number bytes | C0 i8 | C1 i16 | C2 i32 | C3 number number lzf
//! parts      = { (1 | 2) number | 3 f32 | 4 f64 | 5 string } 0
//! score      = u8 text | FD | FE | FF
//! item       = (0 | 3) string | 1 i64 | 2 f64
//! names      = 0 <listpack> | 1 n string*n
//! stream     = n (16-byte-id <listpack>)*n   length last-id
//!              [ first-id max-deleted-id added ]                         10
//!              n group*n   [ idempotence ]                               idempotence: R13
//! group      = name last-id [ read ] pending   n consumer*n              read: 10
//!              [ n 16-byte-id*n ]                given back              R14
//! consumer   = name i64-seen [ i64-active ]   n 16-byte-id*n             active: 11
//! idempotence = number number n (string n (string id)*n)*n number number
//! pending    = n (16-byte-id i64 number)*n
//!
//! value      = string                             string: 0             1
//!            | n string*n                         list, set: 1, 2       1
//!            | n (string score)*n                 sorted set: 3         1
//!            | n (string string)*n                hash: 4               1
//!            | n (string f64)*n                   sorted set: 5         8
//!            | number parts                       module: 7             8
//!            | <zipmap>                           hash: 9               2
//!            | <ziplist> | <intset>               10, 12 | 11           2
//!            | <ziplist>                          hash: 13              4
//!            | n <ziplist>*n                      list: 14              7
//!            | stream                             15, 19, 21            9, 10, 11
//!            | <listpack>                         16, 17 | set: 20      10 | 11
//!            | n (1 string | 2 <listpack>)*n      list: 18              10
//!            | n (string string i64-expiry)*n     hash: 22              V80
//!            | n (number string string)*n         hash: 22              R12
//!            | <listpack>                         hash: 23              R12
//!            | i64-min n (number string string)*n hash: 24              R12
//!            | i64-min <listpack>                 hash: 25              R12
//!            | stream                             26, 27                R13, R14
//!            | n flag [ number ] (number item)*n   array: 28   R14
//!            | names <listpack> | <listpack>      hash: 29, 30          R15
//!            | names string*n | number string*n   hash: 31, 32          R15
//!            | ?                                  6, 33: no marks to read or pass over them by
//! ```
//!
//! `n` is a number, `<x>` a string that holds x. [`types::ROWS`] has every type with its first
//! version; a file of the source opens with the layout of what it reads.
//!
//! # One key on its way
//!
//! A set of two, `02 03 key 02 01 a 01 b`, arrives as `02 03 ke` and the rest:
//!
//! 1. [`Decoder::feed`] keeps the first chunk; it copies nothing. [`Decoder::poll`] looks the type
//!    byte up in [`types::ROWS`] and finds that the key needs more: [`Poll::NeedMore`].
//! 2. With the second chunk, the key straddles two: it alone is copied. The number behind it is
//!    not 0, so this is no empty collection (those are left out, as servers do), and
//!    [`Event::Key`] comes out. Nothing of the value has been read.
//! 3. Now [`Decoder::want`] may be said. With [`Want::Raw`] the body is walked by its grammar,
//!    validated, and comes out as one [`Event::Raw`], a slice of the chunk. A body that is too long,
//!    or that not every server would take, goes the other way from its beginning:
//! 4. [`Event::ValueStart`], an [`Event::Item`] for `a` and one for `b`, [`Event::ValueEnd`]. Each is
//!    given when its last byte is there; nothing waits for the value to be whole.
//!
//! # Whole, in elements, or not at all
//!
//! ```
//! use rdb::{Decoder, Event, Limits, Poll, Want, dump};
//!
//! let file = b"REDIS0003\xfe\x00\x02\x03key\x02\x01a\x01b\xff";
//! let events = |want| -> Result<Vec<Event>, rdb::Error> {
//!     let mut decoder = Decoder::new(Limits::default());
//!     decoder.feed(bytes::Bytes::from_static(file));
//!     let mut events = Vec::new();
//!     while let Poll::Event(event) = decoder.poll()? {
//!         match event {
//!             Event::Key(_) => decoder.want(want),
//!             Event::Raw(_) | Event::Item(_) => events.push(event),
//!             _ => {}
//!         }
//!     }
//!     decoder.finish()?;
//!     Ok(events)
//! };
//! assert_eq!(events(Want::Elements)?, [Event::Item("a".into()), Event::Item("b".into())]);
//! assert_eq!(events(Want::Skip)?, []);
//!
//! let raw = events(Want::Raw { bytes_max: 1000 })?;
//! let [Event::Raw(body)] = raw.as_slice() else { unreachable!("a good value") };
//! // With its type and a footer it is what RESTORE takes; and it can be read again.
//! let mut payload = Vec::new();
//! dump::payload(&mut payload, None, 2, body, 11);
//! assert_eq!(dump::verify(&payload)?.version, 11);
//! let mut decoder = dump::decoder(&payload.into(), Limits::default())?;
//! assert!(matches!(decoder.poll()?, Poll::Event(Event::Key(_))));
//! // A second decoder sees the value first; this one still stands before it.
//! let mut ahead = decoder.lookahead().expect("a key was just given");
//! ahead.poll()?;
//! assert_eq!(ahead.poll()?, Poll::Event(Event::Item("a".into())));
//! assert!(matches!(decoder.poll()?, Poll::Event(Event::ValueStart { len: Some(2), .. })));
//! # Ok::<(), rdb::Error>(())
//! ```
//!
//! # What is not checked
//!
//! Whether a key comes twice in a database: to know, all keys would have to be kept. Nor are the
//! members of a value that is given in elements compared with each other.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

mod arena;
mod checksum;
mod container;
mod decode;
pub mod dump;
mod error;
mod event;
pub mod fuzzing;
mod grammar;
mod leaf;
mod limits;
mod members;
mod opcode;
mod templates;
pub mod types;
mod value;
mod walk;
mod window;
mod write;

pub use checksum::crc64;
pub use decode::{Decoder, Record, Stored};
pub use error::{Error, ErrorKind};
pub use event::{
    Element, Event, KeyHead, ModuleId, ModuleValue, Poll, Score, StreamCounters, StreamId,
    StreamInfo, Want,
};
pub use limits::Limits;
pub use types::{Db, Dialect, Encoding, Kind, RdbVersion};
pub use value::module::{KeyMeta, KeyMetaClass, key_meta, module_aux};
pub use write::Writer;
