//! What is said on the way: lines for people, or a JSON object a step; and questions.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use crate::clock::{date_time, unix_ms};

/// Where steps are told.
#[derive(Debug)]
pub(super) struct Steps {
    json: bool,
    /// Nobody is asked.
    yes: bool,
    answers: Mutex<Option<mpsc::Receiver<String>>>,
}

impl Steps {
    pub(super) fn new(json: bool, yes: bool) -> Self {
        Self {
            json,
            yes,
            answers: Mutex::new(None),
        }
    }

    /// Whether somebody is there to be asked, where that is needed.
    pub(super) fn can_ask(&self) -> bool {
        self.yes || (std::io::stdin().is_terminal() && !self.json)
    }

    /// Whether steps go on without a question.
    pub(super) fn is_unattended(&self) -> bool {
        self.yes
    }

    /// One step: its name, whether it went well, what people are told, and its facts.
    pub(super) fn tell(&self, step: &str, ok: bool, text: &str, facts: Value) {
        let mut out = std::io::stdout();
        let line = if self.json {
            let mut line =
                json!({ "step": step, "ok": ok, "at": date_time(unix_ms()), "text": text });
            if let (Value::Object(line), Value::Object(facts)) = (&mut line, facts) {
                line.extend(facts);
            }
            line.to_string()
        } else {
            let mark = if ok { "ok  " } else { "FAIL" };
            format!("{mark} {step:<11} {text}")
        };
        // Whoever reads it may have gone: that is no reason to leave writers waiting.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// A line for people alone.
    pub(super) fn say(&self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stdout(), "     {text}");
        }
    }

    /// Asks; true for yes. Unattended, it is always yes.
    pub(super) async fn ask(&self, question: &str) -> bool {
        if self.yes {
            return true;
        }
        let answer = self.line(&format!("{question} [yes/no] ")).await;
        matches!(answer.trim(), "y" | "yes")
    }

    /// Waits for Enter.
    pub(super) async fn enter(&self, text: &str) {
        self.line(&format!("{text} ")).await;
    }

    /// What is typed; nothing where nobody types any more.
    async fn line(&self, prompt: &str) -> String {
        let mut err = std::io::stderr();
        let _ = write!(err, "{prompt}").and_then(|()| err.flush());
        let mut answers = self.answers.lock().await;
        answers
            .get_or_insert_with(typed)
            .recv()
            .await
            .unwrap_or_default()
    }
}

/// Lines of standard input, read by a thread of its own: it may wait when the process ends.
fn typed() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    let read = move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("typed".to_owned());
    // Without the thread the channel is closed, which is an answer too: no.
    drop(thread.spawn(read));
    receiver
}
