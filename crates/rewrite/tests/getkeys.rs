//! `keys_of` says what real servers say.

mod common;

use rewrite::{keys_of, table};

#[test]
fn as_command_getkeys() {
    let golden = include_str!("getkeys.golden");
    let lines: Vec<&str> = golden
        .lines()
        .filter(|line| line.contains(" => "))
        .collect();
    assert!(lines.len() > 150, "{} lines", lines.len());
    for line in lines {
        let (words, expected) = line.split_once(" => ").expect("an arrow");
        assert_eq!(keys(words), expected, "{words}");
    }
}

fn keys(words: &str) -> String {
    let frame = common::frame(words);
    let args = common::args(&frame);
    let command = table::lookup(args[0].of(&frame)).unwrap_or_else(|| panic!("{words}: unknown"));
    let mut found = Vec::new();
    keys_of(command, &frame, &args, &mut found);
    let keys = found
        .iter()
        .map(|place| String::from_utf8_lossy(args[*place].of(&frame)));
    let keys = keys.collect::<Vec<_>>().join(" ");
    if keys.is_empty() { "-".into() } else { keys }
}

#[test]
fn malformed_commands_have_no_keys() {
    let malformed = [
        "EVAL",
        "EVAL s",
        "EVAL s x k",
        "EVAL s 3 k",
        "EVAL s -1 k",
        "EVAL s 99999999999999999999 k",
        "ZUNIONSTORE d 2 k",
        "ZUNION 0",
        "BITOP AND",
        "SORT",
        "XREAD STREAMS",
        "XREAD STREAMS k1 k2 0",
        "XREADGROUP GROUP g c k1 >",
        "MIGRATE h p",
        "GEORADIUS k",
        "XGROUP",
        "XGROUP CREATE",
        "XGROUP NONE k",
        "OBJECT",
        "MEMORY USAGE",
        "LMPOP",
        "BLPOP",
        "MSETEX 18446744073709551615 k v",
        "GET",
    ];
    for words in malformed {
        assert_eq!(keys(words), "-", "{words}");
    }
}
