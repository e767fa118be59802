//! The other end of the status port: one request to a running daemon, for `understudy status` and `understudy cutover`.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More than the status of any process has.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) body: &'a str,
    /// `advanced.admin_token`, where it is needed.
    pub(crate) token: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// A GET of this path.
    pub(crate) fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            body: "",
            token: None,
        }
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// None where it is not HTTP.
    pub(crate) code: Option<u16>,
    pub(crate) body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let code = head.strip_prefix("HTTP/").and_then(|rest| {
            let code = rest.split(' ').nth(1)?;
            code.trim_end().parse().ok()
        });
        Self {
            code,
            body: body.to_owned(),
        }
    }
}

/// Asks whoever listens at `host:port`.
///
/// # Errors
/// It cannot be reached, or does not answer in time.
pub(crate) async fn ask(address: &str, request: Request<'_>) -> io::Result<Answer> {
    let asked = tokio::time::timeout(TIMEOUT, exchange(address, request)).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The same for whoever has no runtime.
///
/// # Errors
/// As [`ask`].
pub(crate) fn ask_and_wait(address: &str, request: Request<'_>) -> io::Result<Answer> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_all()
        .build()?
        .block_on(ask(address, request))
}

async fn exchange(address: &str, request: Request<'_>) -> io::Result<Answer> {
    let Request {
        method,
        path,
        body,
        token,
    } = request;
    let mut stream = TcpStream::connect(address).await?;
    let token = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    // HTTP/1.0 answers with the body as it is, and ends it with the connection.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n{token}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(Answer::of(&String::from_utf8_lossy(&answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = Answer::of("HTTP/1.0 409 Conflict\r\nx: y\r\n\r\nno\r\n\r\n");
        assert_eq!(
            (answer.code, answer.body.as_str()),
            (Some(409), "no\r\n\r\n")
        );
        assert_eq!(Answer::of("HTTP/1.1 200\r\n\r\n").code, Some(200));
        assert_eq!(Answer::of("-ERR unknown command\r\n").code, None);
        assert_eq!(Answer::of("").code, None);
    }

    #[test]
    fn nobody_there_is_an_error() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap();
        assert!(ask_and_wait(&port.to_string(), Request::get("/status")).is_err());
    }
}
