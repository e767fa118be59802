//! What a function costs: commands of the stream that are applied in a second, without one and with one.
//!
//! `cargo run --release -p e2e --example function_cost` (the daemon is that of the same profile).

use std::time::{Duration, Instant};

use e2e::{LIMIT, Link, own, source_of, wait_stream, written};
use testkit::{Server, argv};

const COMMANDS: usize = 400_000;

const SCRIPTS: [(&str, &str); 4] = [
    ("none", ""),
    ("passes all on", "shake.call(DB, ARGV)"),
    (
        "looks at a prefix",
        "if KEYS[1] and KEYS[1]:sub(1, 4) ~= 'key:' then return end shake.call(DB, ARGV)",
    ),
    (
        "renames",
        "for _, at in ipairs(KEY_INDEXES) do ARGV[at] = 'new:' .. ARGV[at] end shake.call(DB, ARGV)",
    ),
];

fn main() {
    for (name, script) in SCRIPTS {
        let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
        let link = Link::new(&source, &target).with("filter", &format!("function = \"{script}\""));
        let mut daemon = link.start();
        wait_stream(&mut daemon);
        daemon.kill();
        let mut client = source.client();
        for from in (0..COMMANDS).step_by(1000) {
            let commands: Vec<_> = (from..from + 1000)
                .map(|at| match at % 4 {
                    0 => argv!["INCR", format!("key:{}", at % 1000)],
                    _ => argv![
                        "SET",
                        format!("key:s{}", at % 50_000),
                        "a value of some length"
                    ],
                })
                .collect();
            client.commands(&commands);
        }
        let goal = written(&source);
        daemon.spawn();
        wait_stream(&mut daemon);
        let (began, from) = (Instant::now(), own(&daemon, "applied_offset").unwrap_or(0));
        daemon.wait_for("the end", LIMIT, |daemon| {
            std::thread::sleep(Duration::from_millis(5));
            own(daemon, "applied_offset").is_some_and(|applied| applied >= goal)
        });
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let share = (goal - from) as f64 / goal as f64;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = COMMANDS as f64 * share / began.elapsed().as_secs_f64();
        println!("{name}: {rate:.0} commands/s");
    }
}
