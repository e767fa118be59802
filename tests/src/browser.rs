//! A real browser without a window: Debian's Chromium, told what to do by its own driver over HTTP (WebDriver).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::port::Port;
use testkit::process;

/// How long the page may take with anything.
const LIMIT: Duration = Duration::from_secs(60);

/// A browser with one page; gone when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    port: Port,
    session: String,
}

impl Browser {
    /// Starts one.
    pub fn start() -> Self {
        let port = Port::reserve();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", port.number()));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A group of its own, so that nothing of the browser is left.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let driver = command.spawn().unwrap_or_else(|error| {
            panic!("chromedriver: {error}; apt-get install chromium chromium-driver (.ci/run does)")
        });
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
        };
        let from = Instant::now();
        while browser.ask("GET", "/status", None).is_err() {
            assert!(from.elapsed() < LIMIT, "chromedriver does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        let options = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless=new",
                // Tests run as root in containers, where Chromium's sandbox cannot be.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--force-prefers-reduced-motion",
            ] },
        } } });
        let session = browser.tell("POST", "/session", &options);
        browser.session = session["sessionId"].as_str().expect("a session").into();
        browser
    }

    /// Goes to an address.
    pub fn open(&self, url: &str) {
        self.tell("POST", &self.path("/url"), &json!({ "url": url }));
    }

    /// What a script returns there.
    pub fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.tell("POST", &self.path("/execute/sync"), &body)
    }

    /// Waits until an expression is true there.
    #[track_caller]
    pub fn wait(&self, expression: &str) {
        let from = Instant::now();
        while self.run(&format!("return Boolean({expression})")) != true {
            if from.elapsed() > LIMIT {
                let text = self.run("return document.body.innerText");
                panic!(
                    "in vain: {expression}\n{}",
                    text.as_str().unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The text of the first element that a selector finds, as it is seen.
    pub fn text(&self, selector: &str) -> String {
        let found = self.run(&format!(
            "const found = document.querySelector({}); return found && found.innerText",
            Value::from(selector)
        ));
        found
            .as_str()
            .unwrap_or_else(|| panic!("no {selector}"))
            .into()
    }

    /// The size of the window, and whether the colours are dark.
    pub fn look_as(&self, width: u32, height: u32, is_dark: bool) {
        let scheme = if is_dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [feature] }),
        );
        let is_phone = width < 600;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, params: &Value) -> Value {
        let body = json!({ "cmd": command, "params": params });
        self.tell("POST", &self.path("/goog/cdp/execute"), &body)
    }

    /// The whole page as a PNG.
    pub fn screenshot(&self, file: &Path) {
        let params = json!({ "captureBeyondViewport": true, "format": "png" });
        let picture = self.devtools("Page.captureScreenshot", &params);
        let picture = base64(picture["data"].as_str().expect("a picture"));
        assert!(picture.starts_with(b"\x89PNG"), "no PNG");
        fs::create_dir_all(file.parent().expect("a folder")).expect("make the folder");
        fs::write(file, picture).expect("write the picture");
    }

    /// What the console says since the last time: errors, and what the page's policy has kept from it.
    pub fn console(&self) -> Vec<String> {
        let lines = self.tell("POST", &self.path("/se/log"), &json!({ "type": "browser" }));
        let lines = lines.as_array().cloned().unwrap_or_default();
        lines
            .iter()
            .map(|line| line["message"].to_string())
            .collect()
    }

    fn path(&self, path: &str) -> String {
        format!("/session/{}{path}", self.session)
    }

    #[track_caller]
    fn tell(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self
            .ask(method, path, Some(body))
            .expect("an answer of chromedriver");
        let value = answer["value"].clone();
        assert!(
            value["error"].is_null(),
            "{method} {path}: {}: {}",
            value["error"],
            value["message"]
        );
        value
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Value> {
        let body = body.map_or_else(String::new, Value::to_string);
        let mut stream = TcpStream::connect(self.port.address())?;
        stream.set_read_timeout(Some(LIMIT))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.port.address(),
            body.len()
        );
        stream.write_all((head + &body).as_bytes())?;
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line)?;
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body)?;
        serde_json::from_slice(&body).map_err(std::io::Error::other)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Nothing may be left of it; if it does not listen any more, what follows ends it.
            let _ = self.ask("DELETE", &self.path(""), None);
        }
        process::kill_group(self.driver.id());
        let _ = self.driver.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four
            .iter()
            .fold(0_u32, |bits, byte| (bits << 6) | u32::from(digit(*byte)));
        let bits = bits << (6 * (4 - four.len()));
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(&bytes[1..four.len()]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn reads_base64() {
        assert_eq!(base64("TWFu"), b"Man");
        assert_eq!(base64("TWE="), b"Ma");
        assert_eq!(base64("TQ=="), b"M");
        assert_eq!(base64(""), b"");
    }
}
