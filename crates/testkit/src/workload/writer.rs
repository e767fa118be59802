//! A thread that writes until it is told to stop, and another that waits in blocking commands meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::argv;
use crate::client::{Argv, Client};
use crate::rng::Rng;
use crate::version::Version;
use crate::workload::commands::Generator;
use crate::workload::{DBS, SCRATCH_DB};

/// Units of commands that go out in one round trip.
const UNITS: usize = 24;

/// What a writer has done.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Commands that were answered.
    pub commands: u64,
    /// How often each command word was answered without an error.
    pub words: BTreeMap<String, u64>,
    /// How often each error code was answered.
    pub errors: BTreeMap<String, u64>,
    /// The last error of each command word.
    pub last_errors: BTreeMap<String, String>,
    /// How often the connection was made anew.
    pub reconnects: u64,
}

/// A running writer; ends when it is dropped.
#[derive(Debug)]
pub struct Writer {
    stopped: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    writer: Option<JoinHandle<Report>>,
    blocker: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts writing to `address`, `rate` commands a second (0: as fast as the server answers).
    pub fn start(address: &str, seed: u64, rate: u64) -> Self {
        Self::start_in(address, seed, rate, false, &[])
    }

    /// The same without some commands, in upper case, for a target at which they cannot be done.
    pub fn start_without(
        address: &str,
        seed: u64,
        rate: u64,
        without: &'static [&'static str],
    ) -> Self {
        Self::start_in(address, seed, rate, false, without)
    }

    /// The same in db 0 alone, for a target that has no other.
    pub fn start_in_db_0(address: &str, seed: u64, rate: u64) -> Self {
        Self::start_in(address, seed, rate, true, &[])
    }

    fn start_in(
        address: &str,
        seed: u64,
        rate: u64,
        one_db: bool,
        without: &'static [&'static str],
    ) -> Self {
        let version = Client::connect(address).version();
        let stopped = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let job = Job {
            address: address.into(),
            version,
            stopped: Arc::clone(&stopped),
            answered: Arc::clone(&answered),
            one_db,
            without,
        };
        let (writer, blocker) = (job.clone(), job);
        Self {
            stopped,
            answered,
            writer: Some(std::thread::spawn(move || writer.write(seed, rate))),
            blocker: Some(std::thread::spawn(move || blocker.block(seed ^ 0xb10c))),
        }
    }

    /// Commands answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Stops after the commands in flight.
    pub fn stop(mut self) -> Report {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(blocker) = self.blocker.take() {
            blocker.join().expect("the blocking thread does not panic");
        }
        let writer = self
            .writer
            .take()
            .expect("the writer runs until it is stopped");
        writer.join().expect("the writing thread does not panic")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // A panic of theirs has been printed; a second one here would only abort.
        let _ = self.blocker.take().map(JoinHandle::join);
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

#[derive(Clone)]
struct Job {
    address: String,
    version: Version,
    stopped: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    one_db: bool,
    without: &'static [&'static str],
}

impl Job {
    fn runs(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    fn leaves_out(&self, argv: &Argv) -> bool {
        self.without
            .iter()
            .any(|word| argv[0].eq_ignore_ascii_case(word.as_bytes()))
    }

    /// A connection, as soon as there is one; `None` when told to stop.
    fn connect(&self) -> Option<Client> {
        while self.runs() {
            if let Ok(client) = Client::try_connect(&self.address) {
                return Some(client);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn write(&self, seed: u64, rate: u64) -> Report {
        let mut report = Report::default();
        let mut generator = Generator::new(seed, self.version, self.one_db);
        while let Some(mut client) = self.connect() {
            generator.prepare(&mut client);
            let from = Instant::now();
            let mut sent = 0;
            while self.runs() {
                let mut batch: Vec<Argv> =
                    (0..units(rate)).flat_map(|_| generator.unit()).collect();
                batch.retain(|argv| !self.leaves_out(argv));
                sent += batch.len() as u64;
                if !self.play(&mut client, &batch, &mut generator, &mut report) {
                    break;
                }
                if rate > 0 {
                    let due = Duration::from_secs_f64(sent as f64 / rate as f64);
                    std::thread::sleep(due.saturating_sub(from.elapsed()));
                }
            }
            report.reconnects += u64::from(self.runs());
        }
        report
    }

    /// False when the connection is gone.
    fn play(
        &self,
        client: &mut Client,
        batch: &[Argv],
        generator: &mut Generator,
        report: &mut Report,
    ) -> bool {
        let (results, error) = client.pipeline(batch);
        for (argv, result) in batch.iter().zip(results) {
            report.commands += 1;
            let word = String::from_utf8_lossy(&argv[0]).into_owned();
            match result {
                Ok(reply) => {
                    *report.words.entry(word).or_default() += 1;
                    generator.saw(argv, reply);
                }
                Err(text) => {
                    let code = text.split(' ').next().unwrap_or_default().to_owned();
                    *report.errors.entry(code).or_default() += 1;
                    report.last_errors.insert(word, text);
                }
            }
        }
        self.answered.store(report.commands, Ordering::Relaxed);
        error.is_none()
    }

    /// Waits for what the writer pushes, so that pops reach replicas as the effect of another client's push.
    fn block(&self, seed: u64) {
        let mut rng = Rng::new(seed);
        while let Some(mut client) = self.connect() {
            client.select(if self.one_db { 0 } else { *rng.pick(&DBS) });
            while self.runs() {
                let argv = blocking(&mut rng, &self.version);
                if self.one_db && argv[0] == b"SELECT" {
                    continue;
                }
                if client.pipeline(&[argv]).1.is_some() {
                    break;
                }
            }
        }
    }
}

/// Small batches at small rates, so that writes come evenly.
fn units(rate: u64) -> usize {
    if rate == 0 {
        UNITS
    } else {
        (rate as usize / 100).clamp(1, UNITS)
    }
}

fn blocking(rng: &mut Rng, version: &Version) -> Argv {
    // Before 6.0 a part of a second is an error.
    let timeout = if version.redis(6, 0) { "0.05" } else { "1" };
    let (from, to) = (rng.below(4), rng.below(4));
    match rng.below(8) {
        0 => argv!["BRPOP", format!("w:blocked:{from}"), timeout],
        1 => argv![
            "BRPOPLPUSH",
            format!("w:blocked:{from}"),
            format!("w:list:{to}"),
            timeout
        ],
        2 if version.redis(5, 0) => argv!["BZPOPMIN", format!("w:zset:{from}"), timeout],
        3 if version.redis(6, 2) => {
            argv![
                "BLMOVE",
                format!("w:blocked:{from}"),
                format!("w:list:{to}"),
                "LEFT",
                "RIGHT",
                timeout
            ]
        }
        4 if version.redis(7, 0) => argv![
            "BLMPOP",
            timeout,
            1,
            format!("w:blocked:{from}"),
            "LEFT",
            "COUNT",
            2
        ],
        5 if version.redis(7, 0) => argv!["BZMPOP", timeout, 1, format!("w:zset:{from}"), "MAX"],
        6 if version.redis(5, 0) => argv![
            "XREADGROUP",
            "GROUP",
            "g0",
            "blocked",
            "COUNT",
            2,
            "BLOCK",
            50,
            "STREAMS",
            format!("w:stream:{from}"),
            ">"
        ],
        7 if rng.one_in(20) => argv!["SELECT", rng.pick(&[0, 1, 2, 3, SCRATCH_DB])],
        _ => argv!["BLPOP", format!("w:blocked:{from}"), timeout],
    }
}
