//! Command frames: golden pairs.

use resp::{CommandDecoder, FrameKind, Limits};

#[test]
fn reads_a_command() {
    let mut decoder = CommandDecoder::new(Limits::default());
    let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n*1\r\n";
    for cut in 0..31 {
        assert_eq!(decoder.poll(&bytes[..cut]), Ok(None), "{cut}");
    }
    let frame = decoder.poll(bytes).unwrap().unwrap();
    assert_eq!((frame.len, frame.kind), (31, FrameKind::Command));
    let args: Vec<_> = decoder.args().iter().map(|arg| arg.of(bytes)).collect();
    assert_eq!(args, [&b"SET"[..], b"k", b"hello"]);
}
