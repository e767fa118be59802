//! The decoder's way through one value: given in elements, whole, or passed over.

use std::ops::ControlFlow;

use crate::decode::{Decoder, State};
use crate::error::{ErrorKind, Stop};
use crate::event::{Element, Event, Want};
use crate::types::{Encoding, Row};
use crate::value::{Elements, Input, Look};
use crate::walk::{Around, Care, Walked};

impl Decoder {
    /// Now it is certain how the value is wanted.
    pub(super) fn begin_value(&mut self, row: &'static Row) -> Option<Event> {
        let decodes = row.encoding.decodes();
        self.state = match self.want {
            Want::Elements if decodes => State::Giving {
                elements: Elements::new(row, Look::Give),
            },
            Want::Groups if decodes => State::Giving {
                elements: Elements::new(row, Look::Groups),
            },
            Want::Skip => {
                let body = row.body.unwrap_or_default();
                self.walk.start(body, Care::Skip, u64::MAX);
                State::Skipping
            }
            Want::Raw { bytes_max } if decodes => {
                self.begin_whole(row, bytes_max.min(self.limits.raw_bytes_max))
            }
            Want::Raw { .. } | Want::Elements | Want::Groups => {
                self.begin_whole(row, self.limits.raw_bytes_max)
            }
        };
        None
    }

    fn begin_whole(&mut self, row: &'static Row, bytes_max: u64) -> State {
        self.window.mark();
        if is_looked_into(row.encoding) {
            self.walk.members.clear();
            return State::Checking {
                row,
                elements: Elements::new(row, Look::Check),
                bytes_max,
            };
        }
        let care = if self.limits.validate_raw {
            Care::Unpacked
        } else {
            Care::Stored
        };
        let body = row.body.unwrap_or_default();
        self.walk.start(body, care, bytes_max);
        State::Walking { row }
    }

    pub(super) fn run_walk(&mut self) -> Result<Walked, Stop> {
        let around = Around {
            limits: &self.limits,
            templates: &self.templates,
        };
        self.walk.run(&mut self.window, around)
    }

    pub(super) fn walk_value(&mut self, row: &'static Row) -> Result<Option<Event>, Stop> {
        match self.run_walk()? {
            Walked::Whole => Ok(Some(self.whole_value())),
            Walked::TooLarge | Walked::Flawed if row.encoding.decodes() => {
                self.go_back(row);
                Ok(None)
            }
            Walked::TooLarge | Walked::Flawed => Err(self.too_large("value without elements")),
        }
    }

    fn whole_value(&mut self) -> Event {
        self.state = self.after_value();
        Event::Raw(self.window.take_marked())
    }

    /// The value is given in elements instead.
    fn go_back(&mut self, row: &'static Row) {
        self.window.rewind();
        self.state = State::Giving {
            elements: Elements::new(row, Look::Give),
        };
    }

    /// Runs over the elements of a value that is wanted whole.
    pub(super) fn check_value(&mut self) -> Result<Option<Event>, Stop> {
        let Self {
            state:
                State::Checking {
                    row,
                    elements,
                    bytes_max,
                },
            window,
            arena,
            limits,
            templates,
            back,
            walk,
            ..
        } = self
        else {
            return Ok(None);
        };
        let event = elements.next(&mut Input {
            window,
            arena,
            limits,
            templates,
            back,
        })?;
        // The names of templates ascend, or they are refused.
        if let (true, Event::Pair { field, .. }) = (has_own_fields(row.encoding), &event) {
            walk.members.text(field);
        }
        if self.window.marked_len() > *bytes_max || elements.is_flawed() || walk.members.is_flawed()
        {
            let row = *row;
            self.go_back(row);
        } else if event == Event::ValueEnd {
            return Ok(Some(self.whole_value()));
        }
        Ok(None)
    }

    #[inline]
    pub(super) fn give(&mut self) -> Result<Option<Event>, Stop> {
        let Self {
            state: State::Giving { elements },
            window,
            arena,
            limits,
            templates,
            back,
            ..
        } = self
        else {
            return Ok(None);
        };
        let event = elements.next(&mut Input {
            window,
            arena,
            limits,
            templates,
            back,
        })?;
        if matches!(event, Event::String(_) | Event::ValueEnd) {
            self.state = self.after_value();
        }
        Ok(Some(event))
    }

    /// Gives elements of the list, set, hash or sorted set that is under way, borrowed, until `each` breaks off, until
    /// they end, or until more bytes are needed; [`poll`](Self::poll) goes on behind them. It is also `poll` that says
    /// what is wrong, and that gives everything else: the elements of a stream for instance, of which none come here.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use rdb::{Decoder, Element, Event, Limits, Poll};
    ///
    /// let mut decoder = Decoder::new(Limits::default());
    /// decoder.feed(bytes::Bytes::from_static(b"REDIS0003\x02\x03set\x02\x03one\x03two\xff"));
    /// let mut members = Vec::new();
    /// while let Poll::Event(event) = decoder.poll()? {
    ///     if let Event::ValueStart { .. } = event {
    ///         decoder.elements(|element| {
    ///             if let Element::Item(member) = element {
    ///                 members.push(member.to_vec());
    ///             }
    ///             ControlFlow::Continue(())
    ///         });
    ///     }
    /// }
    /// assert_eq!(members, [b"one", b"two"]);
    /// # Ok::<(), rdb::Error>(())
    /// ```
    pub fn elements(&mut self, mut each: impl FnMut(Element<'_>) -> ControlFlow<()>) {
        loop {
            let Self {
                state: State::Giving { elements },
                window,
                arena,
                limits,
                templates,
                back,
                ..
            } = self
            else {
                return;
            };
            let drained = elements.drain(
                &mut Input {
                    window,
                    arena,
                    limits,
                    templates,
                    back,
                },
                &mut each,
            );
            match drained {
                Ok(()) => return,
                Err(Stop::Need(bytes)) if self.window.ensure(bytes) => {}
                Err(Stop::Need(_)) => return,
                // It stays for `poll`.
                Err(Stop::Bad(kind)) => {
                    self.fail(kind);
                    return;
                }
            }
        }
    }

    pub(super) fn too_large(&self, what: &'static str) -> Stop {
        let max = self.limits.raw_bytes_max;
        let got = self.window.marked_len().max(max.saturating_add(1));
        Stop::Bad(ErrorKind::Limit { what, got, max })
    }
}

const fn has_own_fields(encoding: Encoding) -> bool {
    matches!(
        encoding,
        Encoding::ExpiringAbsolute | Encoding::ExpiringRelative
    )
}

/// Whether such a value is validated by way of its elements: what makes it good is spread over
/// the value, and its parts are small.
const fn is_looked_into(encoding: Encoding) -> bool {
    matches!(
        encoding,
        Encoding::Stream(_)
            | Encoding::Array
            | Encoding::ExpiringAbsolute
            | Encoding::ExpiringRelative
            | Encoding::TemplateListpack
            | Encoding::TemplateListpackRef
            | Encoding::TemplateArray
            | Encoding::TemplateArrayRef
    )
}
