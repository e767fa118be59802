//! What the decoder accepts and how much it holds.

/// Bounds on what the input may make the decoder hold. Nothing is ever allocated by a declared
/// size: memory grows as bytes arrive, up to these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest value of type string. It passes in parts, so this bounds sanity, not memory.
    pub string_bytes_max: u64,
    /// Largest item that is held whole: a key, an element, a packed container (before and after
    /// decompression). Redis's own default bound for a bulk string is 512 MiB.
    pub item_bytes_max: u64,
    /// Largest value without a decoded form, and largest opcode body (a function library, a
    /// module's data): both are held whole.
    pub raw_bytes_max: u64,
    /// Size of a [`StringPart`](crate::Event::StringPart); a string up to this size is one event.
    pub part_bytes_max: u64,
    /// Highest database number accepted.
    pub db_max: u32,
    /// Highest hash template number accepted (template numbers are small and dense).
    pub template_id_max: u64,
    /// What the names of all hash templates of a file may take.
    pub templates_bytes_max: u64,
    /// Whether compressed parts of raw values are decompressed to validate what they hold.
    /// Uncompressed parts are always validated.
    pub validate_raw: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            string_bytes_max: 64 << 30,
            item_bytes_max: 1 << 30,
            raw_bytes_max: 4 << 30,
            part_bytes_max: 256 << 10,
            db_max: 1 << 24,
            template_id_max: 1 << 21,
            templates_bytes_max: 256 << 20,
            validate_raw: true,
        }
    }
}
