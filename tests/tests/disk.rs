//! The spool's disk is full, or tells something else than what was written: nothing is lost, nothing wrong is applied,
//! and what the spool cannot give is asked of the source.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use e2e::{
    LIMIT, Link, catch_up, full_syncs, own, phase, preload, rng, source_of, wait_more, wait_stream,
};
use testkit::process::{limit_files, wait_until};
use testkit::proxy::{Direction, Proxy};
use testkit::{Counters, Daemon, Rng, Server, argv, oracle, workload};

const FULL: &str = "the disk under the spool is full";
const EIO: &str = "spool: Input/output error";
const ROOM: &str = "there is room on the disk under the spool again";

/// All counted, nothing twice, so many full syncs.
fn exact(mut daemon: Daemon, counters: Counters, (source, target): (&Server, &Server), syncs: i64) {
    let ledger = counters.stop();
    catch_up(&mut daemon, source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(source), syncs);
}

/// A daemon that is told of a full disk by an error, not by a signal.
fn start(link: &Link) -> Daemon {
    let mut daemon = Daemon::prepare(&link.text(), &["sync", "shake.toml"]);
    daemon.endure_full_disks();
    daemon.spawn();
    daemon
}

fn times(daemon: &Daemon, text: &str) -> usize {
    daemon.output().matches(text).count()
}

/// Files of the spool, in order of position.
fn segments(daemon: &Daemon, kind: &str) -> Vec<PathBuf> {
    let spool = spool(daemon);
    let files = fs::read_dir(&spool)
        .expect("the spool's directory")
        .flatten();
    let mut files: Vec<PathBuf> = files
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(kind) && name.ends_with(".seg")
        })
        .collect();
    files.sort();
    files
}

/// The link's own directory in `spool.dir`.
fn spool(daemon: &Daemon) -> PathBuf {
    let all = daemon.folder().join("data/spool");
    let mut links = fs::read_dir(&all).expect("spool.dir").flatten();
    links.next().expect("the link's directory").path()
}

/// The part of the stream that is being written; it is there a moment after the first byte.
fn last_segment(daemon: &Daemon) -> PathBuf {
    wait_until("a segment of the stream", LIMIT, || {
        !segments(daemon, "stream").is_empty()
    });
    segments(daemon, "stream").pop().expect("a segment")
}

fn flip_byte(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file);
    let file = file.expect("open a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at)
        .expect("write a byte");
}

#[test]
fn a_disk_that_is_full_in_the_stream_is_waited_for() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 3000);
    let mut daemon = start(&Link::new(&source, &target));
    wait_stream(&mut daemon);
    for round in 1..=3 {
        // Smaller than the file is by now, or somewhere in its next blocks.
        limit_files(daemon.pid(), Some(rng.within(1_000..400_000)));
        daemon.wait_for("the alarm", LIMIT, |daemon| times(daemon, FULL) == round);
        assert_eq!(daemon.metric("understudy_spool_disk_full"), Some(1.0));
        wait_more("operations meanwhile", 3000, || counters.acknowledged());
        assert!(daemon.is_running(), "{}", daemon.output());
        if round == 2 {
            // What is not in the spool is at the source.
            daemon.restart();
            wait_stream(&mut daemon);
        } else {
            limit_files(daemon.pid(), None);
            daemon.wait_for("room", LIMIT, |daemon| {
                times(daemon, ROOM) > (round - 1) / 2
            });
        }
        catch_up(&mut daemon, &source);
    }
    assert_eq!(daemon.metric("understudy_spool_disk_full"), Some(0.0));
    exact(daemon, counters, (&source, &target), 1);
}

#[test]
fn a_disk_that_is_full_in_the_snapshot_is_waited_for() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    workload::fill(&mut source.client(), rng.number(), 3000);
    let counters = Counters::start(&source.address(), rng.number(), 500);
    // A slow line, so that the limit is there before the snapshot is.
    let proxy = Proxy::start(&source.address());
    proxy.throttle(Direction::ToClient, Some(1 << 20));
    let mut daemon = start(&Link::new(&source, &target).source(&proxy.address()));
    limit_files(daemon.pid(), Some(rng.within(100_000..600_000)));
    proxy.throttle(Direction::ToClient, Some(8 << 20));
    daemon.wait_for("the alarm", LIMIT, |daemon| times(daemon, FULL) == 1);
    assert_eq!(phase(&daemon), "snapshot");
    wait_more("operations meanwhile", 500, || counters.acknowledged());
    limit_files(daemon.pid(), None);
    wait_stream(&mut daemon);
    exact(daemon, counters, (&source, &target), 1);
}

/// A target that fell back wants the part of the spool in which a bit has changed.
#[test]
fn a_bit_that_flips_in_the_retained_spool_is_found_and_not_applied() {
    let mut rng = rng();
    let (source, mut target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    wait_more("operations", 1000, || counters.acknowledged());
    target.client().command(&argv!["SAVE"]);
    let len = |daemon: &Daemon| {
        let file = last_segment(daemon);
        (fs::metadata(&file).expect("a segment").len(), file)
    };
    let (before, _) = len(&daemon);
    wait_more("operations that will be lost", 2000, || {
        counters.acknowledged()
    });
    // What is on the disk now is applied then, and no longer in memory too, from where it would be read.
    let (after, file) = len(&daemon);
    catch_up(&mut daemon, &source);
    // From the block after the next on, headers and payloads alike.
    flip_byte(&file, rng.within((before + after) / 2..after));
    target.restart();
    daemon.wait_for("the damage to be found", LIMIT, |daemon| {
        times(daemon, "the spool is damaged near position") == 1
    });
    exact(daemon, counters, (&source, &target), 1);
}

/// The spool of a daemon that was killed, harmed in one of many ways before it is started again.
#[test]
fn a_spool_that_was_harmed_meanwhile_is_cut_off_where_it_is_sound() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 3000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    for round in 0..8 {
        // So that a part of the spool is unapplied, and lost with the harm.
        target.stop();
        wait_more("operations", 1500, || counters.acknowledged());
        last_segment(&daemon);
        daemon.kill();
        target.cont();
        harm(&daemon, round, &mut rng);
        daemon.spawn();
        wait_stream(&mut daemon);
    }
    exact(daemon, counters, (&source, &target), 1);
}

fn harm(daemon: &Daemon, way: u64, rng: &mut Rng) {
    let file = last_segment(daemon);
    let len = fs::metadata(&file).expect("a segment").len();
    let cut = |to: u64| {
        let opened = OpenOptions::new().write(true).open(&file);
        opened.and_then(|file| file.set_len(to)).expect("cut it");
    };
    match way % 4 {
        0 => cut(len - rng.within(1..len / 2)),
        1 => flip_byte(&file, rng.below(len)),
        2 => fs::remove_file(&file).expect("remove it"),
        // Zeros where the file had been made longer, and the bytes never came.
        _ => cut(len + rng.within(1..100_000)),
    }
}

#[test]
fn a_bit_that_flips_in_the_spooled_snapshot_costs_a_new_one() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    workload::fill(&mut source.client(), rng.number(), 3000);
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let proxy = Proxy::start(&target.address());
    proxy.throttle(Direction::ToServer, Some(300_000));
    let mut daemon = Link::new(&source, &target).target(&proxy.address()).start();
    daemon.wait_for(
        "the snapshot in the spool, not yet applied",
        LIMIT,
        |daemon| times(daemon, "snapshot received") == 1 && own(daemon, "snapshot_keys") > Some(50),
    );
    daemon.kill();
    let file = segments(&daemon, "snapshot").pop().expect("a segment");
    let len = fs::metadata(&file).expect("a segment").len();
    flip_byte(&file, rng.within(len / 2..len));
    proxy.throttle(Direction::ToServer, None);
    daemon.spawn();
    wait_stream(&mut daemon);
    exact(daemon, counters, (&source, &target), 2);
}

#[test]
fn files_of_others_in_the_spool_are_left_alone() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), 7, 1000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    daemon.kill();
    let spool = spool(&daemon);
    let others = ["notes", "stream-1.seg", "stream-backup.seg", "snapshot-old"];
    for name in others {
        fs::write(spool.join(name), name).expect("write a file");
    }
    // Into a new history: there the spool's own files are all removed.
    target.client().command(&argv!["FLUSHALL"]);
    daemon.spawn();
    wait_stream(&mut daemon);
    for name in others {
        let kept = fs::read_to_string(spool.join(name));
        assert_eq!(kept.ok().as_deref(), Some(name));
    }
    exact(daemon, counters, (&source, &target), 2);
}

/// A file system of a few hundred KiB under the spool, a real one that says ENOSPC.
#[test]
fn a_small_file_system_that_is_full_is_waited_for() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 3000);
    let link = Link::new(&source, &target).with("spool", "retain_bytes = \"64mb\"");
    let mut daemon = Daemon::prepare(&link.text(), &["sync", "shake.toml"]);
    let is_small = daemon.on_small_disk(1024);
    if is_small {
        daemon.spawn();
    } else {
        println!("no mount is allowed here: a limit on files stands for the small disk");
        daemon.endure_full_disks();
        daemon.spawn();
        limit_files(daemon.pid(), Some(400_000));
    }
    daemon.wait_for("the alarm", LIMIT, |daemon| times(daemon, FULL) == 1);
    wait_more("operations meanwhile", 1000, || counters.acknowledged());
    assert!(daemon.is_running(), "{}", daemon.output());
    let ledger = counters.stop();
    if is_small {
        daemon.make_room();
    } else {
        limit_files(daemon.pid(), None);
    }
    daemon.wait_for("room", LIMIT, |daemon| times(daemon, ROOM) >= 1);
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}

/// What makes calls of a daemon on its spool fail with EIO.
struct Broken {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Broken {
    fn new() -> Self {
        let (folder, library) = preload("eio.c");
        Self { folder, library }
    }

    fn start(&self, link: &Link) -> Daemon {
        let mut daemon = Daemon::prepare(&link.text(), &["sync", "shake.toml"]);
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        daemon.env("LD_PRELOAD", &self.library.display().to_string());
        daemon.env("EIO_FLAG", &path("calls"));
        daemon.spawn();
        daemon
    }

    /// From now on these calls fail: read, write, sync.
    fn fail(&self, calls: &str) {
        fs::write(self.folder.path().join("calls"), calls).expect("write a word");
    }

    fn mend(&self) {
        fs::remove_file(self.folder.path().join("calls")).expect("it was broken");
    }
}

#[test]
fn a_disk_that_cannot_be_written_ends_the_run_and_loses_nothing() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 3000);
    let broken = Broken::new();
    let mut daemon = broken.start(&Link::new(&source, &target));
    wait_stream(&mut daemon);
    wait_more("operations", 1000, || counters.acknowledged());
    for round in 1..=2 {
        broken.fail("write");
        assert_eq!(daemon.wait(LIMIT), 5, "{}", daemon.output());
        assert!(times(&daemon, EIO) >= round, "{}", daemon.output());
        broken.mend();
        daemon.spawn();
        wait_stream(&mut daemon);
        wait_more("operations", 1000, || counters.acknowledged());
    }
    exact(daemon, counters, (&source, &target), 1);
}

#[test]
fn a_disk_that_cannot_be_read_ends_the_run_and_loses_nothing() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 3000);
    let broken = Broken::new();
    // The newest MiB alone is in memory.
    let link = Link::new(&source, &target).with("limits", "memory = \"8mb\"");
    let mut daemon = broken.start(&link);
    wait_stream(&mut daemon);
    target.stop();
    let ballast = vec![b'x'; 100_000];
    for n in 0..60 {
        source
            .client()
            .command(&argv!["SET", format!("ballast:{n}"), ballast]);
    }
    daemon.wait_for("6 MB in the spool", LIMIT, |daemon| {
        own(daemon, "spooled_offset")
            .zip(own(daemon, "applied_offset"))
            .is_some_and(|(spooled, applied)| spooled > applied + 5_000_000)
    });
    broken.fail("read");
    target.cont();
    assert_eq!(daemon.wait(LIMIT), 5, "{}", daemon.output());
    assert!(times(&daemon, EIO) >= 1, "{}", daemon.output());
    broken.mend();
    daemon.spawn();
    wait_stream(&mut daemon);
    exact(daemon, counters, (&source, &target), 1);
}

/// What is not synced is only lost with the machine's power, and then asked of the source again.
#[test]
fn a_disk_that_cannot_be_synced_is_an_alarm_and_no_end() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 1000);
    let broken = Broken::new();
    let mut daemon = broken.start(&Link::new(&source, &target));
    wait_stream(&mut daemon);
    broken.fail("sync");
    daemon.wait_for_output("cannot sync the spool to disk", LIMIT);
    broken.mend();
    wait_more("operations", 500, || counters.acknowledged());
    exact(daemon, counters, (&source, &target), 1);
}
