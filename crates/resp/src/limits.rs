//! How much of a peer's input is accepted, and why there.

/// Bounds on what a peer may send. Whatever exceeds one is an error that names the bound.
///
/// A declared length is compared with its bound when it is read, before any of its bytes came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest bulk string. The default is Redis's own `proto-max-bulk-len`, 512 MiB; more than
    /// 2 GiB is never accepted.
    pub bulk_bytes_max: u64,
    /// Most arguments of a command, or items of one aggregate (a map's pair is one). A source may
    /// send commands with more arguments than it takes from its own clients (1,048,576).
    pub items_max: u64,
    /// Deepest nesting of aggregates. Real replies end at about seven (`XINFO STREAM FULL`).
    pub depth_max: u32,
    /// Longest line: simple strings, errors, big numbers, inline commands. 64 KiB, as Redis's
    /// `PROTO_INLINE_MAX_SIZE`. The text of a bulk error is held to it as well.
    pub line_bytes_max: u64,
    /// Longest frame, from its first byte to its last line end. Never more than `u32::MAX`, since
    /// the places inside a frame are kept in 32 bits.
    pub frame_bytes_max: u64,
}

impl Limits {
    const BULK_BYTES_HARD: u64 = 2 << 30;
    const FRAME_BYTES_HARD: u64 = u32::MAX as u64;
    /// More items than this do not fit into a frame (a command's takes six bytes, a reply's three),
    /// and twice as many, for a map's pairs, still fit into 32 bits.
    const ITEMS_HARD: u64 = 1 << 30;

    /// The same limits held to what the decoders can represent.
    pub(crate) fn clamped(self) -> Self {
        Self {
            bulk_bytes_max: self.bulk_bytes_max.min(Self::BULK_BYTES_HARD),
            frame_bytes_max: self.frame_bytes_max.min(Self::FRAME_BYTES_HARD),
            items_max: self.items_max.min(Self::ITEMS_HARD),
            line_bytes_max: self.line_bytes_max.min(Self::FRAME_BYTES_HARD),
            depth_max: self.depth_max,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_bytes_max: 512 << 20,
            items_max: 64 << 20,
            depth_max: 32,
            line_bytes_max: 64 << 10,
            frame_bytes_max: Self::FRAME_BYTES_HARD,
        }
    }
}
