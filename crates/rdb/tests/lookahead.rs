//! A second decoder looks at a value before the first one gives it.

mod support;

use std::collections::VecDeque;

use bytes::Bytes;
use rdb::{Decoder, Event, Kind, Limits, Poll, Want, key_meta, module_aux};
use support::{Mode, events, files};

/// Everything a lookahead gives at each key and what the decoder itself gives there, with the
/// file fed in chunks of one size. What the lookahead needed is fed to the decoder again.
fn both(file: &[u8], size: usize, want: Want) -> Vec<(Event, Vec<Event>, Vec<Event>)> {
    let mut rest: VecDeque<Bytes> = file.chunks(size).map(Bytes::copy_from_slice).collect();
    let mut decoder = Decoder::new(Limits::default());
    let mut keys: Vec<(Event, Vec<Event>, Vec<Event>)> = Vec::new();
    loop {
        match decoder.poll().expect("a good file") {
            Poll::Event(key @ Event::Key(_)) => {
                let mut ahead = decoder.lookahead().expect("right behind a key");
                ahead.want(want);
                keys.push((key, look(&mut ahead, &rest), Vec::new()));
            }
            Poll::Event(event) => {
                assert!(decoder.lookahead().is_none(), "behind {event:?}");
                if let Some((_, _, value)) = keys.last_mut() {
                    value.push(event);
                }
            }
            Poll::NeedMore => decoder.feed(rest.pop_front().expect("more of the file")),
            Poll::End => return keys,
        }
    }
}

fn look(ahead: &mut Decoder, rest: &VecDeque<Bytes>) -> Vec<Event> {
    let (mut events, mut rest) = (Vec::new(), rest.iter());
    loop {
        match ahead.poll().expect("a good value") {
            Poll::Event(event) => events.push(event),
            Poll::NeedMore => ahead.feed(rest.next().expect("more of the file").clone()),
            Poll::End => return events,
        }
    }
}

fn good_files() -> impl Iterator<Item = (String, Vec<u8>)> {
    files::all()
        .into_iter()
        .filter(|(name, _)| !["module_pre_ga_v8", "gcra_plain_v15"].contains(&name.as_str()))
}

#[test]
fn gives_what_the_decoder_will_give() {
    for (name, file) in good_files() {
        for size in [1, 7, 64, file.len()] {
            let mut seen = 0;
            for (key, ahead, value) in both(&file, size, Want::Elements) {
                assert!(value.starts_with(&ahead), "{name}, {key:?}: {ahead:?}");
                assert!(!ahead.is_empty(), "{name}, {key:?}");
                seen += 1;
            }
            let keys = events(&file, Mode::Skip)
                .iter()
                .filter(|event| matches!(event, Event::Key(_)))
                .count();
            assert_eq!(seen, keys, "{name}");
        }
    }
}

#[test]
fn gives_groups_without_messages() {
    let mut streams = 0;
    for (name, file) in good_files() {
        for size in [1, 7, 64, file.len()] {
            for (key, ahead, value) in both(&file, size, Want::Groups) {
                let Event::Key(head) = &key else { continue };
                let of_messages =
                    |event: &Event| matches!(event, Event::StreamEntry { .. } | Event::Pair { .. });
                let mut wanted = value.clone();
                if head.kind == Kind::Stream {
                    wanted.retain(|event| !of_messages(event));
                    streams += 1;
                }
                assert!(wanted.starts_with(&ahead), "{name}, {key:?}: {ahead:?}");
                assert!(matches!(
                    ahead.last(),
                    Some(Event::ValueEnd | Event::String(_))
                ));
            }
        }
    }
    assert_eq!(streams, 5 * 2 * 4, "two streams of each form, four sizes");
}

#[test]
fn what_modules_keep_beside_values() {
    let files = files::all();
    let file = |wanted| {
        let found = files.iter().find(|(name, _)| name == wanted);
        &found.expect("a golden file").1
    };
    let aux: Vec<String> = events(file("frame_opcodes_v10"), Mode::Skip)
        .iter()
        .filter_map(|event| match event {
            Event::ModuleAux { raw, .. } => Some(format!("{:?}", module_aux(raw))),
            _ => None,
        })
        .collect();
    let first = "Ok([Signed(-1), Unsigned(7), Float(0.0), Double(0.0), String(b\"text\"), \
                 String(b\"lalalalalalalalalala\"), String(b\"-5\")])";
    assert_eq!(aux, [first, "Ok([])"]);

    let meta = events(file("frame_opcodes_v15"), Mode::Skip)
        .into_iter()
        .find_map(|event| match event {
            Event::Key(head) => head.meta,
            _ => None,
        })
        .expect("a key with metadata");
    let metas = key_meta(&meta).expect("a good body");
    let text: Vec<String> = metas.iter().map(|meta| format!("{meta:?}")).collect();
    assert_eq!(
        text,
        [
            "KeyMeta { class: KeyMetaClass(256), values: [Unsigned(5)] }",
            "KeyMeta { class: KeyMetaClass(512), values: [String(b\"meta\")] }"
        ]
    );
    assert_eq!(metas[0].class.to_string(), "AAAB");
    let cut = key_meta(&meta.slice(..meta.len() - 1)).expect_err("half a body");
    assert!(cut.to_string().contains("past the end"), "{cut}");
}
