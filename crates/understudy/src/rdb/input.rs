//! The bytes of a file, plain or compressed, or of standard input, in chunks.
//!
//! What a file is compressed with is told by its first bytes, never by its name:
//!
//! ```text
//! 1f 8b        gzip, one member after the other
//! 28 b5 2f fd  zstd, one frame after the other; 5? 2a 4d 18 is a frame to be passed over
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::bar::Bar;
use super::failure::Failure;

/// Bytes in a chunk: fits into a core's own cache, so that what was just read is decoded from there.
pub(super) const CHUNK: usize = 256 << 10;
/// Buffers that are kept to be used again, once nothing refers to their bytes any more.
const SPARES_MAX: usize = 8;
/// What tells the compression.
pub(crate) const MAGIC_BYTES: usize = 4;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Whether a file with these first bytes is compressed.
pub(crate) fn is_packed(magic: &[u8]) -> bool {
    Packing::of(magic) != Packing::Plain
}

/// A file or standard input, being read.
pub(crate) struct Input {
    source: Box<dyn Read>,
    packed: bool,
    spares: VecDeque<BytesMut>,
}

impl Input {
    /// Opens a file; `-` is standard input.
    pub(crate) fn open(file: &Path, bar: &Bar) -> Result<Self, Failure> {
        let failed = |error| Failure::open(file, &error);
        let raw: Box<dyn Read> = if file == Path::new("-") {
            bar.length(None);
            Box::new(io::stdin())
        } else {
            let opened = File::open(file).map_err(failed)?;
            let about = opened.metadata().map_err(failed)?;
            if about.is_dir() {
                return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
            }
            bar.length(about.is_file().then_some(about.len()));
            Box::new(opened)
        };
        let counted = Counted {
            inner: raw,
            bar: bar.clone(),
        };
        Self::new(counted).map_err(failed)
    }

    /// Looks at the first bytes and takes what they say.
    fn new(mut raw: impl Read + 'static) -> io::Result<Self> {
        let mut magic = Vec::new();
        raw.by_ref()
            .take(MAGIC_BYTES as u64)
            .read_to_end(&mut magic)?;
        let packing = Packing::of(&magic);
        let whole = Cursor::new(magic).chain(raw);
        let source: Box<dyn Read> = match packing {
            Packing::Plain => Box::new(whole),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(whole))),
            Packing::Zstd => Box::new(Zstd::new(buffered(whole))),
        };
        Ok(Self {
            source,
            packed: packing != Packing::Plain,
            spares: VecDeque::new(),
        })
    }

    /// Whether an error of this kind is the compressed file's own, and not the disk's.
    pub(crate) fn is_damage(&self, error: &io::Error) -> bool {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        self.packed
            && matches!(
                error.kind(),
                InvalidData | InvalidInput | UnexpectedEof | Other
            )
    }

    /// The next bytes; none at the end.
    pub(crate) fn read(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = self.spare();
        buffer.resize(CHUNK, 0);
        let mut filled = 0;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.source.read(room) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What came before the error is given first; the error comes again.
                Err(error) if filled > 0 && self.is_damage(&error) => {
                    self.source = Box::new(Broken(error.kind(), error.to_string()));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        let chunk = buffer.split().freeze();
        self.spares.push_back(buffer);
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// An empty buffer: the oldest one, if its bytes are done with.
    fn spare(&mut self) -> BytesMut {
        if let Some(mut oldest) = self.spares.pop_front() {
            if oldest.try_reclaim(CHUNK) {
                return oldest;
            }
            if self.spares.len() + 1 < SPARES_MAX {
                self.spares.push_front(oldest);
            }
        }
        BytesMut::with_capacity(CHUNK)
    }
}

fn buffered<R: Read>(inner: R) -> BufReader<R> {
    BufReader::with_capacity(CHUNK, inner)
}

/// Tells the bar how far it is.
struct Counted {
    inner: Box<dyn Read>,
    bar: Bar,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bar.advance(n);
        Ok(n)
    }
}

/// Says an error once more.
struct Broken(io::ErrorKind, String);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(self.0, self.1.clone()))
    }
}

/// Frames of zstd, one after the other.
struct Zstd<R> {
    inner: BufReader<R>,
    decoder: FrameDecoder,
    /// Whether a frame is begun and not read to its end.
    within: bool,
}

impl<R: Read> Zstd<R> {
    fn new(inner: BufReader<R>) -> Self {
        Self {
            inner,
            decoder: FrameDecoder::new(),
            within: false,
        }
    }

    /// Begins the next frame; false at the end of the input.
    fn begin(&mut self) -> io::Result<bool> {
        use std::io::BufRead;
        while !self.inner.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.inner) {
                Ok(()) => {
                    self.within = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut passed = self.inner.by_ref().take(u64::from(length));
                    io::copy(&mut passed, &mut io::sink())?;
                }
                Err(error) => return Err(bad_frame(&error)),
            }
        }
        Ok(false)
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let some = BlockDecodingStrategy::UptoBytes(buffer.len());
                self.decoder
                    .decode_blocks(&mut self.inner, some)
                    .map_err(|error| bad_frame(&error))?;
            }
            let n = self.decoder.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            self.within = false;
        }
    }
}

fn bad_frame(error: &FrameDecoderError) -> io::Error {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof) {
            return io::Error::new(io::ErrorKind::InvalidData, "zstd: it ends within a frame");
        }
        cause = error.source();
    }
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("zstd: {error}").replace('\n', " "),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn whole(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut input = Input::new(Cursor::new(bytes))?;
        let mut all = Vec::new();
        while let Some(chunk) = input.read()? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn sample() -> Vec<u8> {
        (0..3 * CHUNK + 7).map(|i| (i * i % 251) as u8).collect()
    }

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        let sample = sample();
        for packed in [sample.clone(), gzip(&sample), zstd(&sample)] {
            assert_eq!(whole(packed).unwrap(), sample);
        }
        for short in [&b""[..], b"R", b"\x1f"] {
            assert_eq!(whole(short.to_vec()).unwrap(), short);
        }
    }

    #[test]
    fn members_and_frames_follow_one_another() {
        let (one, two) = (b"one".repeat(50), b"two".repeat(70));
        let both = [one.as_slice(), &two].concat();
        assert_eq!(whole([gzip(&one), gzip(&two)].concat()).unwrap(), both);
        let passed_over = [0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [zstd(&one), passed_over.to_vec(), zstd(&two)].concat();
        assert_eq!(whole(frames).unwrap(), both);
    }

    #[test]
    fn what_was_cut_off_is_an_error_behind_what_is_there() {
        let sample = sample();
        for packed in [gzip(&sample), zstd(&sample)] {
            let mut input = Input::new(Cursor::new(packed[..packed.len() / 2].to_vec())).unwrap();
            let mut read = 0;
            let error = loop {
                match input.read() {
                    Ok(Some(chunk)) => {
                        assert_eq!(chunk, sample[read..read + chunk.len()]);
                        read += chunk.len();
                    }
                    Ok(None) => panic!("no error"),
                    Err(error) => break error,
                }
            };
            assert!(input.is_damage(&error), "{error:?}");
            assert!(read > 0);
        }
    }

    #[test]
    fn buffers_are_used_again() {
        let mut input = Input::new(Cursor::new(vec![7; 40 * CHUNK])).unwrap();
        let mut places = std::collections::HashSet::new();
        while let Some(chunk) = input.read().unwrap() {
            places.insert(chunk.as_ptr());
        }
        assert!(places.len() <= 2, "{} buffers", places.len());
    }
}
