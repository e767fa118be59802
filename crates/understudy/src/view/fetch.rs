//! What a running daemon tells of itself, as `understudy status` needs it.

use serde_json::Value;

use crate::http::ask::{Answer, Request, ask_and_wait};

/// The status at `host:port`.
///
/// # Errors
/// A sentence: nobody answers there, or what answers is not an understudy.
pub(super) fn status(address: &str) -> Result<Value, String> {
    let answer = get(address, "/status")?;
    let strange = || format!("{address} answers, but not as an understudy's status port does");
    if answer.code != Some(200) {
        return Err(strange());
    }
    let status: Value = serde_json::from_str(&answer.body).map_err(|_| strange())?;
    if status["understudy"].is_object() {
        Ok(status)
    } else {
        Err(strange())
    }
}

/// What `/healthz` at `host:port` says while the process works.
///
/// # Errors
/// What it says while it does not; or a sentence: nobody answers there.
pub(super) fn health(address: &str) -> Result<String, String> {
    let answer = get(address, "/healthz")?;
    if answer.code == Some(200) {
        Ok(answer.body)
    } else {
        Err(answer.body.trim_end().to_owned())
    }
}

fn get(address: &str, path: &str) -> Result<Answer, String> {
    ask_and_wait(address, Request::get(path)).map_err(|error| {
        format!("{address} does not answer: {error}; is the daemon running, with this advanced.status_port?")
    })
}
