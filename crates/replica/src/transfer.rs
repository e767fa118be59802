//! The snapshot's transfer (`REPL_STATE_TRANSFER`): a header, then bytes in one of two forms.
//!
//! ```text
//! $<len>\r\n <len bytes>                               a file: no line end behind it
//! $EOF:<40 bytes>\r\n <bytes> <the same 40 bytes>      straight from the source's child process
//! -ERR ..\r\n                                          in place of the header: BGSAVE failed
//! ```

use bytes::Bytes;

use crate::{
    ErrorKind,
    error::quoted,
    input::{Input, Line},
    mark::{Found, MARK_LEN, MarkSearch},
    reply::number,
};

#[derive(Debug)]
pub(crate) struct Transfer {
    body: Body,
    /// Bytes of the snapshot passed on.
    bytes: u64,
}

#[derive(Debug)]
enum Body {
    /// The header has not come yet.
    Awaited,
    Length {
        left: u64,
    },
    Mark(Box<MarkSearch>),
    /// The mark was found; the bytes before it are passed on.
    Ended,
}

/// What comes next of a snapshot.
#[derive(Debug, PartialEq)]
pub(crate) enum Progress {
    NeedMore,
    Begin { len: Option<u64> },
    Part(Bytes),
    End { bytes: u64 },
    Failed(resp::ErrorReply),
}

impl Transfer {
    pub(crate) fn new() -> Self {
        Self {
            body: Body::Awaited,
            bytes: 0,
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self.body, Body::Awaited)
    }

    pub(crate) fn next(&mut self, input: &mut Input) -> Result<Progress, ErrorKind> {
        loop {
            let part = match &mut self.body {
                Body::Awaited => return self.header(input),
                Body::Ended | Body::Length { left: 0 } => {
                    return Ok(Progress::End { bytes: self.bytes });
                }
                Body::Length { left } => {
                    let Some(mut chunk) = input.chunk() else {
                        return Ok(Progress::NeedMore);
                    };
                    let taken = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(chunk.len());
                    let part = chunk.split_to(taken);
                    input.put_back(chunk);
                    *left -= part.len() as u64;
                    part
                }
                Body::Mark(search) => {
                    let Some(mut chunk) = input.chunk() else {
                        return Ok(Progress::NeedMore);
                    };
                    let found = search.next(&mut chunk);
                    input.put_back(chunk);
                    match found {
                        Found::Part { snapshot } => snapshot,
                        Found::End { snapshot } => {
                            self.body = Body::Ended;
                            snapshot
                        }
                    }
                }
            };
            if !part.is_empty() {
                self.bytes += part.len() as u64;
                return Ok(Progress::Part(part));
            }
        }
    }

    fn header(&mut self, input: &mut Input) -> Result<Progress, ErrorKind> {
        let (expected, got) = match input.line()? {
            None => return Ok(Progress::NeedMore),
            Some(Line::Error(error)) => return Ok(Progress::Failed(error)),
            Some(Line::Status(status)) => ("the snapshot's header", [b"+", &*status].concat()),
            Some(Line::Header(header)) => match Body::parse(&header) {
                Some((body, len)) => {
                    self.body = body;
                    return Ok(Progress::Begin { len });
                }
                None => ("$<len> or $EOF:<40 bytes>", [b"$", &*header].concat()),
            },
        };
        Err(ErrorKind::Protocol {
            expected,
            got: quoted(&got, 64),
        })
    }
}

impl Body {
    fn parse(header: &[u8]) -> Option<(Self, Option<u64>)> {
        if let Some(mark) = header.strip_prefix(b"EOF:") {
            let mark: &[u8; MARK_LEN] = mark.try_into().ok()?;
            return Some((Self::Mark(Box::new(MarkSearch::new(mark))), None));
        }
        let len = number(header)?;
        Some((Self::Length { left: len }, Some(len)))
    }
}
