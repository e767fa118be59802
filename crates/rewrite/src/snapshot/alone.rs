//! A `DUMP` payload that came on its own, in a `RESTORE` of the stream, as commands: where the target does not know its
//! type, or would die of its bytes.

use bytes::Bytes;
use rdb::{Dialect, Event, KeyHead, Limits, Poll, RdbVersion, Want, dump};

use super::{SnapshotErrorKind, SnapshotOptions, SnapshotRewriter, boundary};

/// Behind the value: version and checksum.
const FOOTER_BYTES: usize = 10;
const KEY_META: u8 = 0xf3;

/// Whether the payload's bytes are not good for every server: see [`boundary`].
pub(crate) fn is_at_a_boundary(payload: &[u8]) -> bool {
    let value = payload.get(..payload.len().saturating_sub(FOOTER_BYTES));
    match value.and_then(<[u8]>::split_first) {
        Some((&type_id, body)) if type_id != KEY_META => {
            boundary::elements(type_id, body).is_ok_and(|elements| elements.is_some())
        }
        _ => false,
    }
}

/// Appends the commands that make the key what the payload says, for a connection that has its db selected, and gives their
/// number; `None` if the payload is damaged. After an error nothing is appended.
pub(crate) fn by_commands(
    payload: &[u8],
    key: &[u8],
    expire_at_ms: i64,
    options: SnapshotOptions,
    out: &mut Vec<u8>,
) -> Result<Option<u32>, SnapshotErrorKind> {
    let Some((mut head, dialect, events)) = decode(payload) else {
        return Ok(None);
    };
    head.key = Bytes::copy_from_slice(key);
    head.expire_at_ms = Some(expire_at_ms).filter(|at| *at != 0);
    let start = out.len();
    let mut rewriter = SnapshotRewriter::new(options);
    rewriter.dialect = dialect;
    let written = rewriter.alone(&head, events, out);
    if written.is_err() {
        out.truncate(start);
    }
    written.map(Some)
}

fn decode(payload: &[u8]) -> Option<(KeyHead, Dialect, Vec<Event>)> {
    let version = dump::verify(payload).ok()?.version;
    let payload = Bytes::copy_from_slice(payload);
    let mut decoder = dump::decoder(&payload, Limits::default()).ok()?;
    let (mut head, mut events) = (None, Vec::new());
    loop {
        match decoder.poll().ok()? {
            Poll::Event(Event::Key(found)) => {
                head = Some(found);
                decoder.want(Want::Elements);
            }
            Poll::Event(event) => events.push(event),
            Poll::End => return Some((head?, Dialect::of_payload(RdbVersion(version)), events)),
            Poll::NeedMore => return None,
        }
    }
}

impl SnapshotRewriter {
    fn alone(
        &mut self,
        head: &KeyHead,
        events: Vec<Event>,
        out: &mut Vec<u8>,
    ) -> Result<u32, SnapshotErrorKind> {
        let mut sent = Vec::new();
        self.selected = Some(head.db);
        self.key(head).map_err(|error| error.kind)?;
        if let Some(Event::ValueStart {
            kind: rdb::Kind::Stream,
            ..
        }) = events.first()
        {
            for event in &events {
                self.ahead(event).map_err(|error| error.kind)?;
            }
        }
        for event in events {
            self.event(event, out, &mut sent)
                .map_err(|error| error.kind)?;
        }
        Ok(u32::try_from(sent.len()).unwrap_or(u32::MAX))
    }
}
