//! The live page: three files out of the binary, which load nothing from anywhere else.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Json, Response};
use std::sync::Arc;

use super::App;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const ICON: &str = include_str!("page/icon.svg");

/// What the page may do: its own files, and its own stream of events.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page for a browser, RedisShake's status JSON for anything else.
pub(super) async fn root(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let mut response = if wants_html(&headers) {
        file("text/html; charset=utf-8", PAGE)
    } else {
        Json(app.status_json()).into_response()
    };
    let vary = (header::VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(vary.0, vary.1);
    response
}

pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn icon() -> Response {
    file("image/svg+xml", ICON)
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version may answer at this address tomorrow.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// Whether HTML is asked for by name: `*/*` is what programs send.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).into_iter();
    let ranges = accepts
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    ranges.into_iter().any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let refused = parts.any(|part| {
            let quality = part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
            quality.is_some_and(|quality| quality <= 0.0)
        });
        kind.eq_ignore_ascii_case("text/html") && !refused
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_who_asks_for_html_gets_it() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            wants_html(&headers)
        };
        assert!(wants("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(wants("application/json, Text/HTML; q=0.5"));
        assert!(!wants("*/*") && !wants("application/json") && !wants("text/html;q=0"));
        assert!(!wants_html(&HeaderMap::new()));
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_nothing_is_inline() {
        for (name, text) in [("html", PAGE), ("css", STYLE), ("js", SCRIPT)] {
            // The name of a namespace is no address that anything is fetched from.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for word in [
                "http:",
                "https:",
                "//cdn",
                "@import",
                "url(",
                "eval(",
                "innerHTML",
                "insertAdjacentHTML",
            ] {
                assert!(!text.contains(word), "{name}: {word}");
            }
        }
        assert!(!PAGE.contains("style=") && !PAGE.contains("onclick") && !PAGE.contains("<style"));
        assert_eq!(PAGE.matches("<script").count(), 1, "the one that is a file");
        assert!(PAGE.len() + STYLE.len() + SCRIPT.len() < 48 << 10, "small");
    }

    /// Pairs of text (or a mark) and what is behind it, with the least ratio that WCAG 2 AA asks for.
    const PAIRS: &[(&str, &str, f64)] = &[
        ("text", "page", 4.5),
        ("text", "card", 4.5),
        ("text", "fill", 4.5),
        ("muted", "page", 4.5),
        ("muted", "card", 4.5),
        ("accent", "page", 4.5),
        ("accent", "card", 4.5),
        ("card", "accent", 4.5),
        ("good", "page", 4.5),
        ("good", "card", 4.5),
        ("good", "good-back", 4.5),
        ("warn", "card", 4.5),
        ("warn", "warn-back", 4.5),
        ("bad", "page", 4.5),
        ("bad", "card", 4.5),
        ("bad", "bad-back", 4.5),
        ("edge", "card", 3.0),
        ("edge", "page", 3.0),
        ("accent", "fill", 3.0),
    ];

    /// The tokens of `:root` in one part of the style.
    fn tokens(css: &str) -> BTreeMap<&str, &str> {
        let (_, root) = css.split_once(":root {").expect("a :root");
        let (root, _) = root.split_once('}').expect("its end");
        let lines = root.lines().filter_map(|line| {
            let (name, colour) = line.trim().strip_prefix("--")?.split_once(": #")?;
            Some((name, colour.trim_end_matches(';')))
        });
        lines.collect()
    }

    /// Relative luminance as WCAG 2 has it.
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).expect("a colour in hex");
            let value = f64::from(value) / 255.0;
            if value <= 0.040_45 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
    }

    fn ratio(one: &str, other: &str) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn colours_have_the_contrast_of_wcag_aa_in_both_schemes() {
        assert!((ratio("000000", "ffffff") - 21.0).abs() < 1e-9);
        let (light, dark) = STYLE
            .split_once("@media (prefers-color-scheme: dark)")
            .expect("a dark scheme");
        for (scheme, css) in [("light", light), ("dark", dark)] {
            let tokens = tokens(css);
            for (front, back, least) in PAIRS {
                let found = ratio(tokens[front], tokens[back]);
                assert!(found >= *least, "{scheme}: {front} on {back}: {found:.2}");
            }
            for name in tokens.keys().filter(|name| **name != "line") {
                let used = PAIRS
                    .iter()
                    .any(|(front, back, _)| front == name || back == name);
                assert!(used, "{name} is in no pair");
            }
        }
        let rest = STYLE.lines().filter(|line| !line.trim().starts_with("--"));
        assert!(
            rest.into_iter().all(|line| !line.contains(": #")),
            "colours are tokens"
        );
    }
}
