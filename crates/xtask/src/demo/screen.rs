//! What is printed: short aligned lines; colours and redrawn lines only on a terminal.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a line of progress is redrawn on a terminal, and printed elsewhere.
const REDRAW: Duration = Duration::from_millis(200);
const PRINT: Duration = Duration::from_secs(1);

const BOLD: &str = "1";
const GREEN: &str = "32";
const DIM: &str = "2";

/// Standard output.
pub(super) struct Screen {
    terminal: bool,
    colours: bool,
    steps: Cell<u32>,
    /// When a line of progress was last shown, and whether it still waits for its end.
    shown: Cell<Option<Instant>>,
    open: Cell<bool>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            terminal,
            colours: terminal && !plain,
            steps: Cell::new(0),
            shown: Cell::new(None),
            open: Cell::new(false),
        }
    }

    /// The heading of the next step.
    pub(super) fn step(&self, title: &str) {
        self.steps.set(self.steps.get() + 1);
        self.heading(&format!("{}. {title}", self.steps.get()));
    }

    /// A heading without a number.
    pub(super) fn heading(&self, title: &str) {
        self.settle();
        println!("\n{}", self.paint(BOLD, title));
    }

    /// A name and what is to be said of it.
    pub(super) fn fact(&self, name: &str, what: &str) {
        self.settle();
        println!("   {name:<12} {what}");
    }

    /// More of the fact above.
    pub(super) fn more(&self, what: &str) {
        self.fact("", what);
    }

    /// What stands over lines of progress.
    pub(super) fn columns(&self, text: &str) {
        self.settle();
        println!("{}", self.paint(DIM, &format!("   {text}")));
    }

    /// Something that was tried and is right.
    pub(super) fn good(&self, what: &str) {
        self.settle();
        println!("   {} {what}", self.paint(GREEN, "ok"));
    }

    /// Text as it is, indented.
    pub(super) fn quote(&self, text: &str) {
        self.settle();
        for line in text.lines() {
            println!("{}", self.paint(DIM, format!("      {line}").trim_end()));
        }
    }

    /// A line of progress: takes the place of the one before on a terminal, comes once a second elsewhere.
    pub(super) fn live(&self, line: &str) {
        let pause = if self.terminal { REDRAW } else { PRINT };
        if self.shown.get().is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        self.shown.set(Some(Instant::now()));
        if self.terminal {
            print!("\r\x1b[2K   {line}");
            // Nobody to show it to is no reason to stop.
            let _ = std::io::stdout().flush();
            self.open.set(true);
        } else {
            println!("   {line}");
        }
    }

    /// Ends the lines of progress with this one, however short ago another was shown.
    pub(super) fn last(&self, line: &str) {
        let printed = !self.terminal && self.shown.get().is_some_and(|at| at.elapsed() < REDRAW);
        if !printed {
            self.shown.set(None);
            self.live(line);
        }
        self.settle();
        self.shown.set(None);
    }

    /// Ends a line of progress.
    pub(super) fn settle(&self) {
        if self.open.replace(false) {
            println!();
        }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.into()
        }
    }
}
