//! Standard output, in large writes.

use std::io::{self, Write};

use super::failure::Failure;

/// Bytes that are collected before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// What is to be printed.
pub(super) struct Output {
    /// What was not written yet; [`Output::settle`] is to be called now and then.
    pub(super) buffer: Vec<u8>,
    to: Box<dyn Write>,
}

impl Output {
    /// Bytes that are worth a write.
    pub(super) const ROOM: usize = WRITE_BYTES;

    /// To standard output.
    pub(super) fn stdout() -> Self {
        // Standard output collects lines by itself, one more copy of everything: past it, where that can be.
        let direct = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned();
        let to: Box<dyn Write> = match direct {
            Ok(handle) => Box::new(std::fs::File::from(handle)),
            Err(_) => Box::new(io::stdout()),
        };
        Self {
            buffer: Vec::with_capacity(WRITE_BYTES * 2),
            to,
        }
    }

    /// Writes what was collected, if it is much.
    #[inline]
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        if self.buffer.len() < WRITE_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Writes what was collected.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let result = self.to.write_all(&self.buffer);
        self.buffer.clear();
        // One huge value does not have its room kept.
        self.buffer.shrink_to(WRITE_BYTES * 8);
        result
            .and_then(|()| self.to.flush())
            .map_err(|error| Failure::output(&error))
    }

    /// Prints a text that is not large.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.buffer.extend_from_slice(text.as_bytes());
        self.settle()
    }
}
