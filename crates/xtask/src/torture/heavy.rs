//! Writes that are large: values of megabytes, transactions of thousands of commands, scripts, pops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::client::Argv;
use testkit::{Client, Rng, argv};

/// A running workload; ends when it is stopped or dropped.
pub(super) struct Heavy {
    stopped: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Heavy {
    /// Starts writing to `address`.
    pub(super) fn start(address: &str, seed: u64) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let (over, count, address) = (stopped.clone(), written.clone(), address.to_owned());
        let thread = std::thread::spawn(move || {
            let mut rng = Rng::new(seed);
            while !over.load(Ordering::Relaxed) {
                let Ok(mut client) = Client::try_connect(&address) else {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                };
                while !over.load(Ordering::Relaxed) {
                    let batch = unit(&mut rng);
                    let (_, error) = client.pipeline(&batch);
                    if error.is_some() {
                        break;
                    }
                    count.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(rng.within(50..900)));
                }
            }
        });
        Self {
            stopped,
            written,
            thread: Some(thread),
        }
    }

    /// Stops after the commands in flight; how many were answered.
    pub(super) fn stop(mut self) -> u64 {
        self.end();
        self.written.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Heavy {
    fn drop(&mut self) {
        self.end();
    }
}

fn unit(rng: &mut Rng) -> Vec<Argv> {
    let db = *rng.pick(&[0, 1, 3]);
    let mut batch = vec![argv!["SELECT", db]];
    match rng.below(5) {
        0 => {
            let len = rng.within(100_000..5_000_000) as usize;
            batch.push(argv![
                "SET",
                format!("heavy:{}", rng.below(4)),
                rng.bytes(len)
            ]);
        }
        1 => {
            batch.push(argv!["MULTI"]);
            for _ in 0..rng.within(100..4000) {
                batch.push(argv!["INCR", format!("heavy:sum:{}", rng.below(50))]);
            }
            batch.push(argv!["EXEC"]);
        }
        2 => {
            let script = "for i = 1, tonumber(ARGV[1]) do \
                redis.call('RPUSH', KEYS[1], redis.call('INCR', KEYS[2])) end \
                redis.call('LTRIM', KEYS[1], -500, -1) redis.call('SPOP', KEYS[3])";
            batch.push(argv![
                "EVAL",
                script,
                3,
                "heavy:list",
                "heavy:next",
                "heavy:set",
                rng.within(1..800)
            ]);
        }
        3 => {
            let members = (0..300).map(|_| format!("m{}", rng.below(100_000)));
            let words = ["SADD", "heavy:set"].map(String::from).into_iter();
            batch.push(words.chain(members).map(String::into_bytes).collect());
            batch.push(argv!["SPOP", "heavy:set", rng.within(1..400)]);
        }
        _ => {
            // Lives of a few seconds, some of them prolonged at the last moment.
            for key in 0..40 {
                let (key, life) = (format!("heavy:short:{key}"), rng.within(100..6000));
                batch.push(argv!["SET", key, "v", "PX", life]);
                if rng.one_in(3) {
                    batch.push(argv!["PEXPIRE", key, 3_600_000]);
                }
            }
        }
    }
    batch
}
