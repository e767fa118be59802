//! Strings that pass in parts.

use crate::error::Stop;
use crate::event::Event;
use crate::leaf::lzf;
use crate::leaf::reader::StringHead;
use crate::limits::Limits;
use crate::value::Input;

/// A string longer than a part. All parts but the last have the same size, however the input
/// was cut.
#[derive(Debug)]
pub(crate) enum Parts {
    Plain { left: usize },
    Lzf(lzf::Stream),
}

impl Parts {
    pub(crate) fn new(head: StringHead, limits: &Limits) -> Self {
        match head {
            StringHead::Plain { len } => Self::Plain { left: len },
            StringHead::Int(_) => Self::Plain { left: 0 },
            StringHead::Lzf { packed, len } => {
                Self::Lzf(lzf::Stream::new(packed, len, part(limits)))
            }
        }
    }

    pub(crate) fn next(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        match self {
            Self::Plain { left: 0 } => Ok(Event::ValueEnd),
            Self::Plain { left } => {
                let len = part(input.limits).min(*left);
                if input.window.rest().len() < len {
                    return Err(Stop::Need(len));
                }
                let bytes = input.window.slice(0, len);
                input.window.consume(len);
                *left -= len;
                Ok(Event::StringPart(bytes))
            }
            Self::Lzf(stream) => loop {
                match stream.step(input.window.rest())? {
                    lzf::Step::Took(n) => input.window.consume(n),
                    lzf::Step::Need(n) => return Err(Stop::Need(n)),
                    lzf::Step::Done => return Ok(Event::ValueEnd),
                    lzf::Step::Part(n, bytes) => {
                        input.window.consume(n);
                        return Ok(Event::StringPart(bytes));
                    }
                }
            },
        }
    }
}

fn part(limits: &Limits) -> usize {
    usize::try_from(limits.part_bytes_max)
        .unwrap_or(usize::MAX)
        .max(1)
}
