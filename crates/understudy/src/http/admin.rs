//! `POST /pause`, `/resume`, `/limits`: for whoever sends `advanced.admin_token` as a bearer token. They are about every
//! link of the process.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Json;
use serde_json::{Value, json};

use super::{App, Link};
use crate::config::Limits;

pub(super) type Answer = (StatusCode, Json<Value>);

/// What is in force.
pub(super) fn limits_json(limits: &Limits) -> Value {
    json!({
        "source_bytes_per_second": limits.source_bytes.get(),
        "target_commands_per_second": limits.target_commands.get(),
        "target_bytes_per_second": limits.target_bytes.get(),
    })
}

pub(super) async fn pause(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer {
    let links = match allowed(&app, &headers) {
        Ok(links) => links,
        Err(refusal) => return refusal,
    };
    links.iter().for_each(|link| link.limits.pause());
    tracing::warn!("paused over HTTP: nothing is sent to the target until POST /resume");
    in_force(&links)
}

pub(super) async fn resume(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer {
    let links = match allowed(&app, &headers) {
        Ok(links) => links,
        Err(refusal) => return refusal,
    };
    links.iter().for_each(|link| link.limits.resume());
    tracing::info!("resumed over HTTP");
    in_force(&links)
}

/// A JSON object with the limits that change; what it does not name stays. Each of several links has them for itself.
pub(super) async fn limits(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Answer {
    let links = match allowed(&app, &headers) {
        Ok(links) => links,
        Err(refusal) => return refusal,
    };
    let wanted = match parse(&body) {
        Ok(wanted) => wanted,
        Err(what) => return (StatusCode::BAD_REQUEST, Json(json!({ "error": what }))),
    };
    for link in &links {
        for (name, per_second) in &wanted {
            match name {
                Name::SourceBytes => link.limits.source_bytes.set(*per_second),
                Name::TargetCommands => link.limits.target_commands.set(*per_second),
                Name::TargetBytes => link.limits.target_bytes.set(*per_second),
            }
        }
        tracing::info!(link = link.name, limits = %limits_json(&link.limits), "limits changed over HTTP");
    }
    in_force(&links)
}

fn in_force(links: &[Arc<Link>]) -> Answer {
    let of = |link: &Link| json!({ "paused": link.limits.is_paused(), "limits": limits_json(&link.limits) });
    let answer = match links {
        [link] => of(link),
        links => json!({ "links": links.iter().map(|link| of(link)).collect::<Value>() }),
    };
    (StatusCode::OK, Json(answer))
}

/// The links whose token was sent. Without one nothing is done.
pub(super) fn allowed(app: &App, headers: &HeaderMap) -> Result<Vec<Arc<Link>>, Answer> {
    let mut links = app.links();
    if links.iter().all(|link| link.admin_token.is_none()) {
        let what = "set advanced.admin_token to allow this";
        return Err((StatusCode::FORBIDDEN, Json(json!({ "error": what }))));
    }
    let sent = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    let is_allowed = |link: &Arc<Link>| {
        let token = link.admin_token.as_ref();
        token.is_some_and(|token| is_same(sent.as_bytes(), token.reveal().as_bytes()))
    };
    links.retain(is_allowed);
    if links.is_empty() {
        let what = "send the token of advanced.admin_token: Authorization: Bearer ...";
        return Err((StatusCode::UNAUTHORIZED, Json(json!({ "error": what }))));
    }
    Ok(links)
}

/// In a time that does not tell how much of it is right.
fn is_same(sent: &[u8], token: &[u8]) -> bool {
    let differs = sent.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
    sent.len() == token.len() && differs == 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    SourceBytes,
    TargetCommands,
    TargetBytes,
}

fn parse(body: &[u8]) -> Result<Vec<(Name, u64)>, String> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(fields) = value else {
        return Err("not a JSON object".to_owned());
    };
    let known = [
        ("source_bytes_per_second", Name::SourceBytes),
        ("target_commands_per_second", Name::TargetCommands),
        ("target_bytes_per_second", Name::TargetBytes),
    ];
    let mut wanted = Vec::new();
    for (field, value) in fields {
        if field == "memory" {
            return Err("limits.memory holds from one start to the next: change it in the file and start again, nothing is lost".to_owned());
        }
        let Some((_, name)) = known.iter().find(|(known, _)| *known == field) else {
            return Err(format!("unknown limit {field:?}"));
        };
        let number = value.as_u64();
        let number = number.ok_or_else(|| format!("{field} must be a number, 0 for no limit"))?;
        wanted.push((*name, number));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_or_refused() {
        let wanted = parse(br#"{"target_bytes_per_second": 1000, "source_bytes_per_second": 0}"#);
        let wanted = wanted.unwrap();
        assert!(wanted.contains(&(Name::TargetBytes, 1000)));
        assert!(wanted.contains(&(Name::SourceBytes, 0)) && wanted.len() == 2);
        for (body, why) in [
            ("nonsense", "not JSON"),
            ("[]", "object"),
            (r#"{"x": 1}"#, "unknown limit"),
            (r#"{"target_bytes_per_second": "1mb"}"#, "must be a number"),
            (r#"{"memory": 1}"#, "limits.memory"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(is_same(b"abc", b"abc") && !is_same(b"ab", b"abc") && !is_same(b"", b"abc"));
    }
}
