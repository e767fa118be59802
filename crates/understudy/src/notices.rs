//! The last warnings and errors of the log, kept for the status page: what happened, how often, and what mends it.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::clock::unix_ms;
use crate::taxonomy;

/// What a person may want to read at once; the log has them all.
const KEPT: usize = 30;
/// A message may quote a server's answer.
const DETAIL_CHARS: usize = 600;

/// The notices of a process, the newest last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notices(Arc<Mutex<VecDeque<Notice>>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Notice {
    at_ms: u64,
    is_error: bool,
    text: String,
    detail: String,
    mend: Option<String>,
    /// Whose it is, where a process has several links.
    link: Option<String>,
    count: u64,
}

impl Notices {
    fn add(&self, notice: Notice) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = kept.iter().position(|known| {
            (known.is_error, &known.text, &known.link)
                == (notice.is_error, &notice.text, &notice.link)
        });
        let count = same
            .and_then(|at| kept.remove(at))
            .map_or(0, |known| known.count);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Notice {
            count: count + 1,
            ..notice
        });
    }

    /// For the status JSON.
    pub(crate) fn json(&self) -> Value {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |notice: &Notice| {
            json!({
                "at_ms": notice.at_ms,
                "level": if notice.is_error { "error" } else { "warn" },
                "text": notice.text,
                "detail": notice.detail,
                "mend": notice.mend,
                "link": notice.link,
                "count": notice.count,
            })
        };
        kept.iter().map(one).collect()
    }
}

/// The link whose span this is.
struct LinkName(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notices {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() != "link" {
            return;
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(name), Some(span)) = (fields.name, context.span(id)) {
            span.extensions_mut().insert(LinkName(name));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level != Level::WARN && level != Level::ERROR {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let link = context.event_scope(event).and_then(|mut scope| {
            scope.find_map(|span| {
                let extensions = span.extensions();
                extensions.get::<LinkName>().map(|link| link.0.clone())
            })
        });
        let error = fields.error.unwrap_or_default();
        let (detail, mend) = with_mend(&error);
        let (text, mend) = match mend {
            Some(mend) => (fields.message, Some(mend)),
            None => with_mend(&fields.message),
        };
        let detail = [detail, fields.others].into_iter();
        let detail: Vec<String> = detail.filter(|part| !part.is_empty()).collect();
        self.add(Notice {
            at_ms: unix_ms(),
            is_error: level == Level::ERROR,
            text,
            detail: detail.join(" · ").chars().take(DETAIL_CHARS).collect(),
            mend,
            link,
            count: 0,
        });
    }
}

/// A message and its mend: what it says behind its last semicolon, or what the table of errors knows.
fn with_mend(message: &str) -> (String, Option<String>) {
    if let Some((what, mend)) = message.rsplit_once("; ") {
        return (what.to_owned(), Some(mend.to_owned()));
    }
    let mend = taxonomy::mend_of(message).map(str::to_owned);
    (message.to_owned(), mend)
}

/// The fields of an event or a span, sorted.
#[derive(Default)]
struct Fields {
    message: String,
    error: Option<String>,
    name: Option<String>,
    others: String,
}

impl Fields {
    fn take(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "error" => self.error = Some(value),
            "name" => self.name = Some(value),
            // How it is tried again is not for people.
            "retry_in_ms" => {}
            other => {
                let comma = if self.others.is_empty() { "" } else { ", " };
                // Writing into a string cannot fail.
                let _ = write!(self.others, "{comma}{other}: {value}");
            }
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn warnings_are_kept_counted_and_named_by_link() {
        let notices = Notices::default();
        let subscriber = tracing_subscriber::registry().with(notices.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("nothing to see");
            for round in 0..3 {
                let error = format!("target t:1: EXEC was refused: OOM {round}; raise maxmemory");
                tracing::warn!(%error, retry_in_ms = 5, "lost the target");
            }
            let span = tracing::info_span!("link", name = "l1");
            let _inside = span.enter();
            tracing::error!(free = 3, "no room; make some");
        });
        let json = notices.json();
        assert_eq!(json.as_array().map(Vec::len), Some(2));
        assert_eq!(json[0]["count"], 3);
        assert_eq!(json[0]["detail"], "target t:1: EXEC was refused: OOM 2");
        assert_eq!(json[0]["mend"], "raise maxmemory");
        assert_eq!(json[0]["link"], Value::Null);
        assert_eq!(
            (&json[1]["level"], &json[1]["text"]),
            (&json!("error"), &json!("no room"))
        );
        assert_eq!(
            (&json[1]["mend"], &json[1]["link"], &json[1]["detail"]),
            (&json!("make some"), &json!("l1"), &json!("free: 3"))
        );
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let notices = Notices::default();
        for at_ms in 0..100 {
            notices.add(Notice {
                at_ms,
                is_error: false,
                text: at_ms.to_string(),
                detail: String::new(),
                mend: None,
                link: None,
                count: 0,
            });
        }
        let json = notices.json();
        let kept = json.as_array().unwrap();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept.last().unwrap()["text"], "99");
    }
}
