//! Who writes while the first migration goes on: an application that moves, and a client that does not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::client::{number, text};
use testkit::{Client, argv};

use super::super::wait;

/// What the application's keys begin with.
pub(super) const PREFIX: &str = "app:";
const WRITERS: u64 = 3;
/// Between two writes of a client. A stream that is read by SCAN is read whole each time: it has to stay one that a small hosted
/// Redis would have.
const PACE: Duration = Duration::from_millis(12);
/// One message of so many is left pending in the group.
const PENDING: u64 = 8;
const STREAM: &str = "app:orders";
const GROUP: &str = "shop";

/// Where it writes, and what it has had acknowledged.
#[derive(Debug)]
struct State {
    address: Mutex<String>,
    is_over: AtomicBool,
    /// By writer: counts, and messages in the stream.
    counts: Vec<AtomicU64>,
}

impl State {
    fn address(&self) -> String {
        let address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        address.clone()
    }

    fn total(&self) -> u64 {
        let counts = self.counts.iter();
        counts.map(|count| count.load(Ordering::SeqCst)).sum()
    }
}

/// The application: writers that count, and put each count into a stream, which a group reads.
#[derive(Debug)]
pub(super) struct Application {
    state: Arc<State>,
    writers: Mutex<Vec<JoinHandle<()>>>,
}

impl Application {
    pub(super) fn start(address: &str) -> Self {
        let mut client = Client::connect(address);
        client.command(&argv!["XGROUP", "CREATE", STREAM, GROUP, "$", "MKSTREAM"]);
        let state = Arc::new(State {
            address: Mutex::new(address.to_owned()),
            is_over: AtomicBool::new(false),
            counts: (0..WRITERS).map(|_| AtomicU64::new(0)).collect(),
        });
        let writer = |number: u64| {
            let state = state.clone();
            std::thread::spawn(move || write(&state, number))
        };
        let writers = (0..WRITERS).map(writer).collect();
        Self {
            state,
            writers: Mutex::new(writers),
        }
    }

    /// From here on it connects to this address. What is connected elsewhere stays until that ends.
    pub(super) fn move_to(&self, address: &str) {
        let mut now = self
            .state
            .address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        address.clone_into(&mut now);
    }

    pub(super) fn wait_more(&self, more: u64) -> Result<(), String> {
        let goal = self.state.total() + more;
        wait("the application to go on", || self.state.total() >= goal)
    }

    /// Ends it; gives all that it had acknowledged.
    pub(super) fn stop(&self) -> u64 {
        self.state.is_over.store(true, Ordering::SeqCst);
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        for writer in writers.drain(..) {
            // One that has panicked is found by its count.
            let _ = writer.join();
        }
        self.state.total()
    }

    /// Every acknowledged write is there, once.
    pub(super) fn check(&self, address: &str) -> Result<(), String> {
        let mut client = Client::connect(address);
        let mut wrong = Vec::new();
        for (writer, count) in self.state.counts.iter().enumerate() {
            let count = count.load(Ordering::SeqCst);
            let there = text(&client.command(&argv!["GET", format!("app:count:{writer}")]));
            if there != count.to_string() {
                wrong.push(format!(
                    "writer {writer}: {count} acknowledged, {there} there"
                ));
            }
        }
        let (total, length) = (
            self.state.total(),
            number(&client.command(&argv!["XLEN", STREAM])),
        );
        if length != i64::try_from(total).ok() {
            wrong.push(format!("{total} messages acknowledged, {length:?} there"));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("\n")),
        }
    }
}

/// One writer: each count is acknowledged with its message, in one transaction. It connects anew, where the application is
/// by then, when its connection ends.
fn write(state: &State, number: u64) {
    let key = format!("app:count:{number}");
    let name = format!("app-{number}");
    let mut read = 0_u64;
    while !state.is_over.load(Ordering::SeqCst) {
        let Ok(mut client) = Client::try_connect(&state.address()) else {
            std::thread::sleep(PACE);
            continue;
        };
        // Without a name it writes as well.
        let _ = client.try_command(&argv!["CLIENT", "SETNAME", name.as_str()]);
        while !state.is_over.load(Ordering::SeqCst) {
            let (answers, broken) = client.pipeline(&[
                argv!["MULTI"],
                argv!["INCR", key.as_str()],
                argv!["XADD", STREAM, "*", "writer", number],
                argv!["EXEC"],
            ]);
            if broken.is_some() || answers.len() != 4 || answers.iter().any(Result::is_err) {
                break;
            }
            if let Some(count) = state
                .counts
                .get(usize::try_from(number).unwrap_or(usize::MAX))
            {
                count.fetch_add(1, Ordering::SeqCst);
            }
            read += 1;
            let mut argv = argv!["XREADGROUP", "GROUP", GROUP, name.as_str(), "COUNT", 3];
            if !read.is_multiple_of(PENDING) {
                argv.extend(argv!["NOACK"]);
            }
            argv.extend(argv!["STREAMS", STREAM, ">"]);
            if client.try_command(&argv).is_err() {
                break;
            }
            std::thread::sleep(PACE);
        }
    }
}

/// A client that has the old server's address in its code.
#[derive(Debug)]
pub(super) struct Straggler {
    is_over: Arc<AtomicBool>,
    written: Arc<Mutex<Vec<String>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Straggler {
    pub(super) const NAME: &'static str = "nightly-report";

    pub(super) fn start(address: &str) -> Self {
        let (is_over, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (over, list, address) = (is_over.clone(), written.clone(), address.to_owned());
        let writer = std::thread::spawn(move || {
            let mut number = 0_u64;
            while !over.load(Ordering::SeqCst) {
                let Ok(mut client) = Client::try_connect(&address) else {
                    std::thread::sleep(PACE);
                    continue;
                };
                // Without a name it writes as well.
                let _ = client.try_command(&argv!["CLIENT", "SETNAME", Self::NAME]);
                while !over.load(Ordering::SeqCst) {
                    let key = format!("legacy:report:{number}");
                    if client
                        .try_command(&argv!["SET", key.as_str(), number])
                        .is_err()
                    {
                        break;
                    }
                    list.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(key);
                    number += 1;
                    std::thread::sleep(PACE * 2);
                }
            }
        });
        Self {
            is_over,
            written,
            writer: Mutex::new(Some(writer)),
        }
    }

    /// What it has written last.
    pub(super) fn late(&self) -> Vec<String> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.iter().rev().take(20).cloned().collect()
    }

    /// How much it has written.
    pub(super) fn written(&self) -> usize {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Somebody has mended its address.
    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // One that has panicked is found by what it has written.
        let _ = writer.map(JoinHandle::join);
    }

    /// All that it has written is there.
    pub(super) fn check(&self, address: &str) -> Result<(), String> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = Client::connect(address);
        for (number, key) in written.iter().enumerate() {
            let there = text(&client.command(&argv!["GET", key.as_str()]));
            if there != number.to_string() {
                return Err(format!("{key} is {there}"));
            }
        }
        Ok(())
    }
}
