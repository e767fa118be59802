//! Prints every event of an RDB file, one a line: `cargo run -p rdb --example events -- dump.rdb`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use bytes::Bytes;
use rdb::{Decoder, Limits, Poll};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: events FILE")?;
    let mut file = File::open(path)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut decoder = Decoder::new(Limits::default());
    let mut chunk = vec![0; 64 << 10];
    loop {
        match decoder.poll()? {
            Poll::Event(event) => writeln!(out, "{event:?}")?,
            Poll::End => return Ok(out.flush()?),
            Poll::NeedMore => match file.read(&mut chunk)? {
                0 => decoder.finish()?,
                n => decoder.feed(Bytes::copy_from_slice(chunk.get(..n).unwrap_or_default())),
            },
        }
    }
}
