//! Containers that are packed into one string.

/// An entry of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// Text.
    Text(&'a [u8]),
    /// An integer, in the shortest form.
    Int(i64),
}

impl<'a> From<&'a str> for Item<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Item<'a> {
    fn from(text: &'a [u8]) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Item<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

/// The bytes of an integer that fits into `n` of them, if it does.
fn fits(value: i64, n: usize) -> Option<Vec<u8>> {
    let spare = 64 - 8 * n as u32;
    (value << spare >> spare == value).then(|| value.to_le_bytes()[..n].to_vec())
}

/// A count that is written up to 65534 and left open above.
fn count(items: usize) -> [u8; 2] {
    u16::try_from(items).unwrap_or(u16::MAX).to_le_bytes()
}

/// A listpack.
#[must_use]
pub fn listpack(items: &[Item<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for item in items {
        let entry = listpack_entry(*item);
        body.extend(&entry);
        body.extend(back_length(entry.len()));
    }
    let total = body.len() as u32 + 7;
    [
        &total.to_le_bytes()[..],
        &count(items.len()),
        &body,
        &[0xff],
    ]
    .concat()
}

fn listpack_entry(item: Item<'_>) -> Vec<u8> {
    let text = match item {
        Item::Int(value) => return listpack_int(value),
        Item::Text(text) => text,
    };
    let mut entry = match text.len() {
        len @ ..64 => vec![0x80 | len as u8],
        len @ 64..4096 => (0xe000 | len as u16).to_be_bytes().to_vec(),
        len => [&[0xf0][..], &(len as u32).to_le_bytes()].concat(),
    };
    entry.extend(text);
    entry
}

fn listpack_int(value: i64) -> Vec<u8> {
    match value {
        0..128 => return vec![value as u8],
        -4096..4096 => return ((value as u16 & 0x1fff) | 0xc000).to_be_bytes().to_vec(),
        _ => {}
    }
    let forms = [(0xf1, 2), (0xf2, 3), (0xf3, 4), (0xf4, 8)];
    let form = |(byte, n)| fits(value, n).map(|bytes| [&[byte][..], &bytes].concat());
    forms.into_iter().find_map(form).unwrap_or_default()
}

/// The size behind an entry, in the form that every server but the newest Valkey writes.
fn back_length(size: usize) -> Vec<u8> {
    let len = match size {
        ..128 => 1,
        128..0x3fff => 2,
        0x3fff..0x1f_ffff => 3,
        0x1f_ffff..0x0fff_ffff => 4,
        _ => 5,
    };
    let seven = |place: usize| (size >> (7 * place)) as u8 & 0x7f;
    (0..len)
        .map(|i| seven(len - 1 - i) | if i == 0 { 0 } else { 0x80 })
        .collect()
}

/// A ziplist.
#[must_use]
pub fn ziplist(items: &[Item<'_>]) -> Vec<u8> {
    let (mut body, mut before, mut tail) = (Vec::new(), 0, 10);
    for item in items {
        let start = body.len();
        match before {
            ..254 => body.push(before as u8),
            _ => body.extend([&[254][..], &(before as u32).to_le_bytes()].concat()),
        }
        body.extend(ziplist_entry(*item));
        before = body.len() - start;
        tail = 10 + start as u32;
    }
    let total = body.len() as u32 + 11;
    let head = [
        &total.to_le_bytes()[..],
        &tail.to_le_bytes(),
        &count(items.len()),
    ]
    .concat();
    [&head[..], &body, &[0xff]].concat()
}

fn ziplist_entry(item: Item<'_>) -> Vec<u8> {
    let text = match item {
        Item::Int(value @ 0..=12) => return vec![0xf1 + value as u8],
        Item::Int(value) => {
            let forms = [(0xfe, 1), (0xc0, 2), (0xf0, 3), (0xd0, 4), (0xe0, 8)];
            let form = |(byte, n)| fits(value, n).map(|bytes| [&[byte][..], &bytes].concat());
            return forms.into_iter().find_map(form).unwrap_or_default();
        }
        Item::Text(text) => text,
    };
    let mut entry = match text.len() {
        len @ ..64 => vec![len as u8],
        len @ 64..0x4000 => (0x4000 | len as u16).to_be_bytes().to_vec(),
        len => [&[0x80][..], &(len as u32).to_be_bytes()].concat(),
    };
    entry.extend(text);
    entry
}

/// An intset with integers of `width` bytes.
#[must_use]
pub fn intset(width: usize, integers: &[i64]) -> Vec<u8> {
    let mut out = (width as u32).to_le_bytes().to_vec();
    out.extend((integers.len() as u32).to_le_bytes());
    for integer in integers {
        out.extend(&integer.to_le_bytes()[..width]);
    }
    out
}

/// A zipmap whose values leave `free` bytes behind them.
#[must_use]
pub fn zipmap(pairs: &[(&[u8], &[u8])], free: u8) -> Vec<u8> {
    let len = |out: &mut Vec<u8>, len: usize| match len {
        ..254 => out.push(len as u8),
        _ => out.extend([&[254][..], &(len as u32).to_le_bytes()].concat()),
    };
    let mut out = vec![pairs.len().min(254) as u8];
    for (field, value) in pairs {
        len(&mut out, field.len());
        out.extend(*field);
        len(&mut out, value.len());
        out.push(free);
        out.extend(*value);
        out.extend(vec![0; usize::from(free)]);
    }
    out.push(0xff);
    out
}

/// A message of a stream's node.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The distance of its id from the node's.
    pub id: (i64, i64),
    /// Whether it is deleted.
    pub deleted: bool,
    /// Its fields, if they are not the node's.
    pub fields: Option<&'a [&'a str]>,
    /// Its values.
    pub values: &'a [&'a str],
}

/// The listpack of a stream's node: messages that share their fields, by distance of their ids.
#[must_use]
pub fn stream_node(fields: &[&str], messages: &[((i64, i64), &[&str])]) -> Vec<u8> {
    let messages: Vec<Message<'_>> = messages
        .iter()
        .map(|(id, values)| Message {
            id: *id,
            deleted: false,
            fields: None,
            values,
        })
        .collect();
    stream_messages(fields, &messages)
}

/// The listpack of a stream's node.
#[must_use]
pub fn stream_messages(fields: &[&str], messages: &[Message<'_>]) -> Vec<u8> {
    let deleted = messages.iter().filter(|message| message.deleted).count();
    let mut items: Vec<Item<'_>> = vec![
        ((messages.len() - deleted) as i64).into(),
        (deleted as i64).into(),
    ];
    items.push((fields.len() as i64).into());
    items.extend(fields.iter().map(|field| Item::from(*field)));
    items.push(0.into());
    for message in messages {
        let start = items.len();
        let flags = i64::from(message.deleted) | i64::from(message.fields.is_none()) << 1;
        items.extend([flags, message.id.0, message.id.1].map(Item::Int));
        match message.fields {
            None => items.extend(message.values.iter().map(|value| Item::from(*value))),
            Some(fields) => {
                items.push((fields.len() as i64).into());
                for (field, value) in fields.iter().zip(message.values) {
                    items.extend([Item::from(*field), Item::from(*value)]);
                }
            }
        }
        items.push(((items.len() - start) as i64).into());
    }
    listpack(&items)
}
