//! What stands behind the key of each value type, and behind the opcodes with long bodies.
//!
//! The bodies are sequences of [`Piece`]s; [`Walk`](crate::walk::Walk) runs over them.

use crate::container::{Form, Packed, Shape};

/// A part of a value's body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece {
    /// This many bytes.
    Fixed(usize),
    /// A number in length encoding.
    Number,
    /// A string.
    Text,
    /// A string that must not be there twice in the value.
    Member,
    /// A string that holds a packed container.
    Packed(Packed),
    /// A score as text, led by its length.
    TextScore,
    /// A score as f64.
    BinaryScore,
    /// A number, then that many times these pieces.
    Each(&'static [Self]),
    /// A number, and these pieces if it is 1; it may be 0.
    Optional(&'static [Self]),
    /// A container number, then a listpack or a plain element in a string.
    QuicklistNode,
    /// A field's expiry as i64, at least -1.
    TrailingExpiry,
    /// Values of a module, each led by its opcode, up to opcode 0.
    ModuleParts,
    /// The number of an array's values, its place of insertion if it has one, and its values.
    ArrayHead,
    /// A tag, then the value it announces.
    ArrayValue,
    /// Names in one of two formats; a value for each follows if so stated.
    TemplateNames(NamesThen),
    /// A template's number, then a value for each of its fields.
    TemplateValues,
}

/// What follows the names of a template.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NamesThen {
    /// A listpack, which is a piece of its own.
    Listpack,
    /// As many strings.
    Values,
}

const fn packed(form: Form, shape: Shape) -> Piece {
    Piece::Packed(Packed { form, shape })
}

use Piece::{Each, Fixed, Member, Number, Optional, Text};

pub(crate) const STRING: &[Piece] = &[Text];
pub(crate) const STRINGS: &[Piece] = &[Each(&[Text])];
pub(crate) const MEMBERS: &[Piece] = &[Each(&[Member])];
pub(crate) const PAIRS: &[Piece] = &[Each(&[Member, Text])];
pub(crate) const TEXT_SCORES: &[Piece] = &[Each(&[Member, Piece::TextScore])];
pub(crate) const BINARY_SCORES: &[Piece] = &[Each(&[Member, Piece::BinaryScore])];
pub(crate) const MODULE: &[Piece] = &[Number, Piece::ModuleParts];

pub(crate) const ZIPMAP: &[Piece] = &[packed(Form::Zipmap, Shape::Pairs)];
pub(crate) const ZIPLIST: &[Piece] = &[packed(Form::Ziplist, Shape::Items)];
pub(crate) const ZIPLIST_SCORES: &[Piece] = &[packed(Form::Ziplist, Shape::Scored)];
pub(crate) const ZIPLIST_PAIRS: &[Piece] = &[packed(Form::Ziplist, Shape::Pairs)];
pub(crate) const INTSET: &[Piece] = &[packed(Form::Intset, Shape::Members)];
pub(crate) const LISTPACK: &[Piece] = &[packed(Form::Listpack, Shape::Members)];
pub(crate) const LISTPACK_SCORES: &[Piece] = &[packed(Form::Listpack, Shape::Scored)];
pub(crate) const LISTPACK_PAIRS: &[Piece] = &[packed(Form::Listpack, Shape::Pairs)];
pub(crate) const LISTPACK_EXPIRING: &[Piece] = &[packed(Form::Listpack, Shape::Expiring)];
pub(crate) const MIN_LISTPACK_EXPIRING: &[Piece] =
    &[Fixed(8), packed(Form::Listpack, Shape::Expiring)];
pub(crate) const QUICKLIST: &[Piece] = &[Each(ZIPLIST)];
pub(crate) const QUICKLIST_2: &[Piece] = &[Each(&[Piece::QuicklistNode])];

pub(crate) const EXPIRING_LED: &[Piece] = &[Each(&[Number, Text, Text])];
pub(crate) const EXPIRING_TRAILING: &[Piece] = &[Each(&[Member, Text, Piece::TrailingExpiry])];
pub(crate) const EXPIRING_RELATIVE: &[Piece] = &[Fixed(8), Each(&[Number, Text, Text])];

/// A node's id and its listpack. Streams are passed over by these pieces, and looked into by
/// [`value::stream`](crate::value::stream) alone; so are arrays and templates.
const NODES: Piece = Each(&[Text, Text]);
/// Id, time of delivery; count of deliveries.
const PENDING: Piece = Each(&[Fixed(16 + 8), Number]);
const IDS: Piece = Each(&[Fixed(16)]);
/// Idempotent production: two settings, producers with their messages, two counters.
const IDMP_MESSAGES: Piece = Each(&[Text, Number, Number]);
const IDMP_PRODUCERS: Piece = Each(&[Text, IDMP_MESSAGES]);

pub(crate) const STREAM_1: &[Piece] = &[NODES, Number, Number, Number, Each(GROUP_1)];
const GROUP_1: &[Piece] = &[Text, Number, Number, PENDING, Each(&[Text, Fixed(8), IDS])];

pub(crate) const STREAM_2: &[Piece] = &[
    NODES,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number, //
    Each(GROUP_2),
];
const GROUP_2: &[Piece] = &[
    Text,
    Number,
    Number,
    Number,
    PENDING,
    Each(&[Text, Fixed(8), IDS]),
];

pub(crate) const STREAM_3: &[Piece] = &[
    NODES,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number, //
    Each(GROUP_3),
];
const GROUP_3: &[Piece] = &[Text, Number, Number, Number, PENDING, CONSUMERS_3];
const CONSUMERS_3: Piece = Each(&[Text, Fixed(8 + 8), IDS]);

pub(crate) const STREAM_4: &[Piece] = &[
    NODES,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number, //
    Each(GROUP_3),
    Number,
    Number,
    IDMP_PRODUCERS,
    Number,
    Number,
];

pub(crate) const STREAM_5: &[Piece] = &[
    NODES,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number, //
    Each(GROUP_5),
    Number,
    Number,
    IDMP_PRODUCERS,
    Number,
    Number,
];
const GROUP_5: &[Piece] = &[Text, Number, Number, Number, PENDING, CONSUMERS_3, IDS];

pub(crate) const ARRAY: &[Piece] = &[Piece::ArrayHead];
pub(crate) const ARRAY_VALUE: &[Piece] = &[Number, Piece::ArrayValue];

pub(crate) const TEMPLATE_LISTPACK: &[Piece] = &[Piece::TemplateNames(NamesThen::Listpack), Text];
pub(crate) const TEMPLATE_LISTPACK_REF: &[Piece] = &[Text];
pub(crate) const TEMPLATE_ARRAY: &[Piece] = &[Piece::TemplateNames(NamesThen::Values)];
pub(crate) const TEMPLATE_ARRAY_REF: &[Piece] = &[Piece::TemplateValues];

pub(crate) const AUX: &[Piece] = &[Text, Text];
pub(crate) const MODULE_AUX: &[Piece] = &[Number, Number, Number, Piece::ModuleParts];
pub(crate) const FUNCTION: &[Piece] = &[Text];
pub(crate) const FUNCTION_PRE_GA: &[Piece] = &[Text, Text, Optional(&[Text]), Text];
pub(crate) const KEY_META: &[Piece] = &[Each(&[Fixed(4), Piece::ModuleParts])];
pub(crate) const SLOT_IMPORT: &[Piece] = &[Text, Each(&[Number, Number])];
pub(crate) const HASH_TEMPLATE: &[Piece] = &[Number, Each(&[Text])];
