//! `filter.function`: a script says what goes to the target, in the snapshot and in the stream, exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use e2e::{
    LIMIT, Link, catch_up, from_env, full_syncs, own, phase, rng, run, source_of, wait_more,
    wait_stream,
};
use testkit::cluster::Cluster;
use testkit::oracle::{self, OracleOptions};
use testkit::{Server, Writer, argv, client, workload};

fn line(script: &str) -> String {
    format!("function = '''\n{script}\n'''")
}

fn text(server: &Server, db: u32, words: &str) -> String {
    let mut client = server.client();
    client.select(db);
    let argv: Vec<Vec<u8>> = words
        .split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect();
    client::text(&client.command(&argv))
}

/// Commands of the source, as `db words`.
fn say(source: &Server, commands: &[&str]) {
    let mut client = source.client();
    for command in commands {
        let mut words = command.split(' ');
        client.select(words.next().and_then(|db| db.parse().ok()).expect("a db"));
        let argv: Vec<Vec<u8>> = words.map(|word| word.as_bytes().to_vec()).collect();
        client.command(&argv);
    }
}

/// What is done with functions most often: each kind of script that RedisShake's pages show, in words of our own, with
/// commands at the source (once in the snapshot, once in the stream) and what is at the target then.
#[test]
fn scripts_of_every_usual_kind() {
    type Case<'a> = (&'a str, &'a [&'a str], &'a [(u32, &'a str, &'a str)]);
    let cases: [Case<'_>; 3] = [
        // One kind of key, no hashes, and no keys of database 3; those of 1 and 2 change places.
        (
            r#"
            if GROUP == "HASH" or GROUP == "SCRIPTING" or DB == 3 then return end
            if not KEYS[1] or KEYS[1]:sub(1, 5) ~= "user:" then return end
            local other = { [1] = 2, [2] = 1 }
            shake.call(other[DB] or DB, ARGV)
            "#,
            &[
                "0 SET user:1 a",
                "0 SET cart:1 a",
                "0 HSET user:h f v",
                "0 RPUSH user:l a b c",
                "1 SET user:x one",
                "2 SET user:x two",
                "3 SET user:3 a",
                "0 SETEX user:ttl 1000 v",
            ],
            &[
                (0, "GET user:1", "a"),
                (0, "EXISTS cart:1 user:h", "0"),
                (0, "LLEN user:l", "3"),
                (1, "GET user:x", "two"),
                (2, "GET user:x", "one"),
                (3, "DBSIZE", "0"),
                (0, "GET user:ttl", "v"),
            ],
        ),
        // Keys under other names, whatever command they are in.
        (
            r#"
            local from, to = "old_", "new_"
            shake.log("before: " .. table.concat(ARGV, " "))
            for _, at in ipairs(KEY_INDEXES) do
              if ARGV[at]:sub(1, #from) == from then ARGV[at] = to .. ARGV[at]:sub(#from + 1) end
            end
            shake.call(DB, ARGV)
            "#,
            &[
                "0 SET old_a 1",
                "0 MSET old_b 2 c 3",
                "0 SADD old_s1 x y",
                "0 SADD old_s2 y z",
                "0 SINTERSTORE old_both old_s1 old_s2",
                "0 ZADD old_z 1.5 m",
                "0 XADD old_x 1-1 f v",
                "0 HSET old_h f v",
            ],
            &[
                (
                    0,
                    "EXISTS old_a old_b old_s1 old_s2 old_both old_z old_x old_h",
                    "0",
                ),
                (0, "MGET new_a", "1"),
                (0, "GET new_b", "2"),
                (0, "GET c", "3"),
                (0, "SMEMBERS new_both", "y"),
                (0, "ZSCORE new_z m", "1.5"),
                (0, "XLEN new_x", "1"),
                (0, "HGET new_h f", "v"),
            ],
        ),
        // Commands that fall apart, all databases in one, and commands of its own.
        (
            r#"
            if CMD == "MSET" then
              for i = 2, #ARGV, 2 do shake.call(0, {"SET", ARGV[i], ARGV[i + 1]}) end
            else
              shake.call(0, ARGV)
            end
            if CMD == "RPUSH" then shake.call(5, {"HINCRBY", "pushed", KEYS[1], #ARGV - 2}) end
            "#,
            &[
                "3 MSET a 1 b 2",
                "4 SET c 3",
                "4 RPUSH q x y",
                "5 EXPIRE none 1",
            ],
            &[
                (0, "GET a", "1"),
                (0, "GET b", "2"),
                (0, "GET c", "3"),
                (0, "LLEN q", "2"),
                (3, "DBSIZE", "0"),
                (5, "HGET pushed q", "2"),
            ],
        ),
    ];
    for (script, commands, found) in cases {
        for in_snapshot in [true, false] {
            let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
            if in_snapshot {
                say(&source, commands);
            }
            let link = Link::new(&source, &target).with("filter", &line(script));
            let mut daemon = link.start();
            wait_stream(&mut daemon);
            if !in_snapshot {
                say(&source, commands);
            }
            catch_up(&mut daemon, &source);
            for (db, words, expected) in found {
                let found = text(&target, *db, words);
                assert!(
                    found == *expected || found.contains(expected),
                    "{script}\nin the snapshot: {in_snapshot}; {db} {words}: {found:?}, not {expected:?}"
                );
            }
        }
    }
}

/// A script that changes nothing leaves an equal copy: every type, every command, expiries and all.
#[test]
fn a_script_that_passes_all_on_makes_an_equal_copy() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    workload::fill(&mut source.client(), rng.number(), 400);
    let link = Link::new(&source, &target).with("filter", &line("shake.call(DB, ARGV)"));
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    let writer = Writer::start(&source.address(), rng.number(), 1500);
    thread::sleep(Duration::from_millis(1500));
    daemon.restart();
    wait_stream(&mut daemon);
    writer.stop();
    catch_up(&mut daemon, &source);
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
    assert_eq!(full_syncs(&source), 1);
}

/// Sets keys, one after the other, and counts.
struct Setter {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Setter {
    fn start(source: &Server) -> Self {
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted, mut client) = (stop.clone(), count.clone(), source.client());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let at = counted.load(Ordering::Relaxed);
                client.command(&argv!["MULTI"]);
                client.command(&argv!["SET", format!("s:{}", at % 100), at]);
                client.command(&argv!["SET", "other", at]);
                client.command(&argv!["EXEC"]);
                counted.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(300));
            }
        });
        Self {
            stop,
            count,
            thread: Some(thread),
        }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the setter");
        }
        self.count()
    }
}

/// What adds up shows every command that is applied twice, or not at all.
const COUNTS: &str = r#"
if CMD == "SET" and KEYS[1]:sub(1, 2) == "s:" then
  shake.call(0, {"INCR", "count"})
  shake.call(0, {"RPUSH", "all", ARGV[3]})
  shake.call(1, {"SETNX", "first", ARGV[3]})
end
if CMD == "RPUSH" then shake.call(0, {"INCRBY", "elements", #ARGV - 2}) end
if CMD == "DEL" or CMD == "UNLINK" then shake.call(0, {"INCR", "deleted"}) end
shake.call(DB, ARGV)
"#;

/// Killed anywhere, in the snapshot and in the stream, what a script makes is done exactly once.
#[test]
fn kills_double_nothing_of_what_a_script_adds_up() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut filler = source.client();
    let keys = 3000;
    for at in 0..keys {
        filler.command(&argv!["SET", format!("s:k{at}"), "before"]);
    }
    let list: Vec<String> = (0..4000).map(|at| format!("element-{at}")).collect();
    let mut push = argv!["RPUSH", "list"];
    push.extend(list.iter().map(|element| element.as_bytes().to_vec()));
    filler.command(&push);
    let setter = Setter::start(&source);
    let link = Link::new(&source, &target)
        .with("filter", &line(COUNTS))
        .with("redis_writer", "batch_commands = 50")
        .with("redis_writer", "inflight_bytes = \"64kb\"")
        .with("limits", "target_bytes_per_second = \"300kb\"");
    let mut daemon = link.start();
    let mut in_snapshot = 0;
    for _ in 0..from_env("UNDERSTUDY_KILLS", 4) {
        daemon.wait_for("something of the snapshot", LIMIT, |daemon| {
            phase(daemon) == "stream" || own(daemon, "snapshot_keys").is_some_and(|keys| keys > 0)
        });
        thread::sleep(Duration::from_millis(rng.below(700)));
        in_snapshot += u64::from(phase(&daemon) == "snapshot");
        daemon.restart();
    }
    daemon.kill();
    daemon.configure(
        &link
            .with("limits", "target_bytes_per_second = 0")
            .text()
            .replace("target_bytes_per_second = \"300kb\"\n", ""),
    );
    daemon.spawn();
    for _ in 0..from_env("UNDERSTUDY_KILLS", 5) {
        wait_stream(&mut daemon);
        thread::sleep(Duration::from_millis(rng.below(300)));
        daemon.restart();
    }
    wait_stream(&mut daemon);
    wait_more("sets", 100, || setter.count());
    let sets = setter.stop();
    catch_up(&mut daemon, &source);
    println!("{in_snapshot} kills in the snapshot, {sets} sets");
    // Keys that were set before the snapshot was taken are counted once for it.
    let first = text(&target, 1, "GET first");
    let in_stream: u64 = text(&target, 0, "LLEN all").parse().expect("a number");
    let count: u64 = text(&target, 0, "GET count").parse().expect("a number");
    assert_eq!(
        count, in_stream,
        "INCR and RPUSH of one command go together"
    );
    assert_eq!(text(&target, 0, "GET elements"), "4000");
    assert_eq!(text(&target, 0, "LLEN list"), "4000");
    assert_eq!(
        text(&target, 0, "EXISTS deleted"),
        "0",
        "nothing was there to be deleted first"
    );
    assert!(!first.is_empty());
    let all = target.client().command(&argv!["LRANGE", "all", 0, -1]);
    let all: Vec<String> = client::items(all).iter().map(client::text).collect();
    let before = all.iter().filter(|value| *value == "before").count();
    assert_eq!(before, keys, "each key of the snapshot is counted once");
    let numbers: Vec<u64> = all.iter().filter_map(|value| value.parse().ok()).collect();
    // The snapshot holds the last value of each of a hundred keys, then every set of the stream follows in order.
    let last = numbers.last().copied().expect("a set");
    assert_eq!(last, sets - 1);
    let in_a_row = numbers
        .windows(2)
        .rev()
        .take_while(|two| two[0] + 1 == two[1]);
    let first = numbers.len() - 1 - in_a_row.count();
    assert!(first <= 100, "a gap or a double before {}", numbers[first]);
    let mut of_snapshot = numbers[..first].to_vec();
    of_snapshot.sort_unstable();
    of_snapshot.dedup();
    assert_eq!(
        of_snapshot.len(),
        first,
        "a key of the snapshot is counted twice"
    );
    assert!(of_snapshot.iter().all(|number| *number < numbers[first]));
}

/// A cluster as the target: each slot's share of what a script calls is done once.
#[test]
fn a_cluster_gets_what_a_script_calls_once() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    say(
        &source,
        &["0 SET s:a 1", "0 RPUSH l x y z", "0 SET s:ttl v EX 1000"],
    );
    let script = r#"
        if CMD == "SET" and KEYS[1]:sub(1, 2) == "s:" then
          shake.call(0, {"INCR", "count:" .. KEYS[1]})
          shake.call(0, {"INCR", "count"})
        end
        for _, at in ipairs(KEY_INDEXES) do ARGV[at] = "new:" .. ARGV[at] end
        shake.call(0, ARGV)
    "#;
    let link = Link::between(&source.address(), &cluster.address(0))
        .with("redis_writer", "cluster = true")
        .with("filter", &line(script));
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    let setter = Setter::start(&source);
    for _ in 0..3 {
        wait_more("sets", 100, || setter.count());
        thread::sleep(Duration::from_millis(rng.below(200)));
        daemon.restart();
        wait_stream(&mut daemon);
    }
    say(&source, &["0 MSET m1 1 m2 2", "0 DEL l m1"]);
    let sets = setter.stop();
    catch_up(&mut daemon, &source);
    let read = |words: &str| {
        let argv: Vec<Vec<u8>> = words
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        client::text(&cluster.read(&argv))
    };
    assert_eq!(read("GET count"), (sets + 2).to_string());
    let each: u64 = (0..100)
        .map(|at| {
            read(&format!("GET count:s:{at}"))
                .parse::<u64>()
                .unwrap_or(0)
        })
        .sum();
    assert_eq!(each, sets);
    assert_eq!(read("GET new:s:a"), "1");
    assert_eq!(
        (read("EXISTS new:l"), read("GET new:m2")),
        ("0".into(), "2".into())
    );
    assert_eq!(read("EXISTS new:m1"), "0");
}

#[test]
fn what_is_wrong_with_a_script_is_said_with_its_line() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let link = |script: &str| Link::new(&source, &target).with("filter", &line(script));
    let at = |script: &str, of: usize| {
        let text = link(script).text();
        let found = text.lines().position(|line| line.starts_with("function"));
        found.expect("a function") + 1 + of
    };
    let broken = "if DB == 0\nshake.call(DB, ARGV)";
    let ended = run(&link(broken));
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    let place = format!("shake.toml:{}: filter.function: ", at(broken, 2));
    assert!(ended.error().contains(&place), "{}", ended.error());
    say(&source, &["0 SET a 1", "0 HSET h f v"]);
    let wrong = "\nif CMD == 'HSET' then local x = nil + 1 end";
    let ended = run(&link(wrong));
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    let place = format!("line 2 (shake.toml:{})", at(wrong, 2));
    assert!(ended.error().contains(&place), "{}", ended.error());
    for (script, word) in [
        ("shake.call(0, {'CONFIG', 'SET', 'maxmemory', 1})", "CONFIG"),
        (
            "shake.call(0, {'SET', 'understudy:checkpoint:x', 1})",
            "position",
        ),
        ("shake.call(0, {'EXPIRE', 'a', 5, 'GT'})", "GT or LT"),
        ("shake.call(0, {'MULTI'})", "one transaction"),
        ("while true do end", "filter.function_timeout"),
        ("shake.call(99, ARGV)", "database 99"),
    ] {
        let ended = run(&link(script));
        assert!([4, 5].contains(&ended.code), "{script}: {}", ended.stderr);
        assert!(ended.error().contains(word), "{script}: {}", ended.error());
    }
    assert_eq!(text(&target, 0, "EXISTS a h"), "0");
}

/// Another writer at the target makes a command fail: the link stops, and says what is to be done; so it does when a new
/// snapshot would be needed.
#[test]
fn nothing_is_mended_or_begun_anew_behind_ones_back() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let link = Link::new(&source, &target).with("filter", &line("shake.call(DB, ARGV)"));
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    target.client().command(&argv!["SET", "list", "no list"]);
    say(&source, &["0 RPUSH list a"]);
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    let word = "empty the target, its checkpoint too";
    assert!(daemon.output().contains(word), "{}", daemon.output());
    daemon.spawn();
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    let word = "a new snapshot is needed";
    assert!(daemon.output().contains(word), "{}", daemon.output());
    target.client().command(&argv!["FLUSHALL"]);
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    assert_eq!(
        text(&target, 0, "LRANGE list 0 -1"),
        text(&source, 0, "LRANGE list 0 -1")
    );
}

/// Where the file allows it, a new snapshot goes over what a function has renamed, and what is gone at the source goes.
#[test]
fn a_new_snapshot_where_it_is_allowed() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let script = "for _, at in ipairs(KEY_INDEXES) do ARGV[at] = 'new:' .. ARGV[at] end shake.call(DB, ARGV)";
    let link = Link::new(&source, &target).with("filter", &line(script));
    say(
        &source,
        &[
            "0 RPUSH l a b",
            "0 SET gone 1",
            "0 SET a 1",
            "0 SADD s x",
            "0 SET b 1",
        ],
    );
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    daemon.kill();
    // Another history: nothing that is kept anywhere leads on from our position.
    say(
        &source,
        &["0 DEL gone", "0 RPUSH l c", "0 DEBUG CHANGE-REPL-ID"],
    );
    daemon.spawn();
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    let word = "a new snapshot is needed (the source no longer has the history";
    assert!(daemon.output().contains(word), "{}", daemon.output());
    assert_eq!(text(&target, 0, "EXISTS new:gone new:l"), "2");
    let resync = link.with("checkpoint", "on_history_lost = \"resync\"");
    daemon.configure(&resync.text());
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    assert_eq!(text(&target, 0, "LLEN new:l"), "3");
    assert_eq!(text(&target, 0, "EXISTS new:gone"), "0");
    assert_eq!(text(&target, 0, "EXISTS new:a new:s new:b"), "3");
}

/// A command of the script that fails in the snapshot is not passed over by the next run.
#[test]
fn a_command_that_fails_in_the_snapshot_is_not_forgotten() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    say(&source, &["0 SET a 1", "0 SET b 1", "0 SET c 1"]);
    let script =
        "shake.call(DB, ARGV) if KEYS[1] == 'b' then shake.call(DB, {'RPUSH', 'b', 'x'}) end";
    let link = Link::new(&source, &target).with("filter", &line(script));
    let ended = run(&link);
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    for word in [
        "WRONGTYPE",
        "filter.function has called it",
        "empty the target",
    ] {
        assert!(ended.error().contains(word), "{}", ended.error());
    }
    let again = run(&link);
    assert_eq!(again.code, 4, "{}", again.stderr);
    assert!(
        again.error().contains("a new snapshot is needed"),
        "{}",
        again.error()
    );
}
