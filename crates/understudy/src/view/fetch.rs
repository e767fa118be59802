//! One GET of the status port.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(5);
/// More than the status of any process has.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The status at `host:port`.
///
/// # Errors
/// A sentence: nobody answers there, or what answers is not an understudy.
pub(super) fn status(address: &str) -> Result<Value, String> {
    let answer = get(address, "/status")?;
    let strange = || format!("{address} answers, but not as an understudy's status port does");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
    if !head.contains(" 200 ") {
        return Err(strange());
    }
    let status: Value = serde_json::from_str(body).map_err(|_| strange())?;
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
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.contains(" 200 ") {
        Ok(body.to_owned())
    } else {
        Err(body.trim_end().to_owned())
    }
}

fn get(address: &str, path: &str) -> Result<String, String> {
    exchange(address, path).map_err(|error| {
        format!("{address} does not answer: {error}; is the daemon running, with this advanced.status_port?")
    })
}

fn exchange(address: &str, path: &str) -> std::io::Result<String> {
    let mut last = std::io::Error::other("the name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, TIMEOUT) {
            Ok(stream) => return ask(stream, address, path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(mut stream: TcpStream, address: &str, path: &str) -> std::io::Result<String> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    // HTTP/1.0 answers with the body as it is, and ends it with the connection.
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
