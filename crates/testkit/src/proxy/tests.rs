//! Each fault does what it says, to the byte.

use super::*;

/// A listener to stand behind the proxy, the proxy, and a connection through it: (client end, server end).
struct Rig {
    proxy: Proxy,
    listener: TcpListener,
}

impl Rig {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let proxy = Proxy::start(&listener.local_addr().expect("an address").to_string());
        Self { proxy, listener }
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.address()).expect("connect");
        let (server, _) = self.listener.accept().expect("accept");
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(5)))
                .expect("set a limit");
        }
        (client, server)
    }
}

/// Everything until the end, and how it ended.
fn read_out(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (all, None),
            Ok(len) => all.extend_from_slice(&chunk[..len]),
            Err(error) => return (all, Some(error.kind())),
        }
    }
}

fn exactly(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("read");
    bytes
}

fn nothing_comes(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(150)))
        .expect("set a limit");
    let silent = stream.read(&mut [0]).is_err_and(|error| waits(&error));
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("set a limit");
    silent
}

#[test]
fn passes_bytes_both_ways_and_ends_in_order() {
    let rig = Rig::new();
    let (mut client, mut server) = rig.connect();
    let big: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let sent = big.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).expect("write");
        client.shutdown(Shutdown::Write).expect("end");
        read_out(&mut client)
    });
    assert_eq!(read_out(&mut server), (big, None));
    server.write_all(b"answer").expect("write");
    drop(server);
    assert_eq!(
        writer.join().expect("the writer"),
        (b"answer".to_vec(), None)
    );
    assert_eq!(rig.proxy.passed_bytes(Direction::ToServer), 1_000_000);
    assert_eq!(rig.proxy.passed_bytes(Direction::ToClient), 6);
}

#[test]
fn cuts_after_the_very_byte_and_only_once() {
    for (bytes, cut) in [
        (0, Cut::Fin),
        (1, Cut::Fin),
        (7, Cut::Rst),
        (65_537, Cut::Fin),
    ] {
        let rig = Rig::new();
        let (mut client, mut server) = rig.connect();
        rig.proxy.cut_after(Direction::ToServer, bytes, cut);
        client.write_all(&vec![b'x'; 100_000]).expect("write");
        let (got, end) = read_out(&mut server);
        assert_eq!(got.len() as u64, bytes);
        let expected = if cut == Cut::Rst {
            Some(ErrorKind::ConnectionReset)
        } else {
            None
        };
        assert_eq!(end, expected, "{bytes} {cut:?}");
        assert_eq!(rig.proxy.cuts(), 1);
        let (mut client, mut server) = rig.connect();
        client.write_all(b"again").expect("write");
        assert_eq!(exactly(&mut server, 5), b"again");
    }
}

#[test]
fn cuts_now_and_refuses() {
    let rig = Rig::new();
    let (mut client, mut server) = rig.connect();
    rig.proxy.cut_now(Cut::Rst);
    assert_eq!(read_out(&mut client).1, Some(ErrorKind::ConnectionReset));
    assert_eq!(read_out(&mut server).1, Some(ErrorKind::ConnectionReset));
    rig.proxy.refuse(true);
    let mut refused = TcpStream::connect(rig.proxy.address()).expect("connect");
    assert_eq!(
        read_out(&mut refused),
        (Vec::new(), Some(ErrorKind::ConnectionReset))
    );
    rig.proxy.refuse(false);
    let (mut client, mut server) = rig.connect();
    client.write_all(b"a").expect("write");
    assert_eq!(exactly(&mut server, 1), b"a");
    assert_eq!(rig.proxy.connections(), 2);
}

#[test]
fn holds_what_a_client_sent_and_delivers_it_after_the_client_has_gone() {
    let rig = Rig::new();
    let (mut client, mut server) = rig.connect();
    rig.proxy.hold(Direction::ToServer);
    client.write_all(b"EXEC").expect("write");
    assert!(nothing_comes(&mut server));
    assert_eq!(rig.proxy.held_bytes(Direction::ToServer), 4);
    drop(client);
    assert!(nothing_comes(&mut server));
    rig.proxy.release(Direction::ToServer);
    assert_eq!(read_out(&mut server), (b"EXEC".to_vec(), None));
}

#[test]
fn stalls_and_goes_on_without_loss() {
    let rig = Rig::new();
    let (mut client, mut server) = rig.connect();
    rig.proxy.stall(Direction::ToClient);
    // What is in the pump's hands at that moment may still pass.
    std::thread::sleep(LOOK_UP * 2);
    server.write_all(b"late").expect("write");
    assert!(nothing_comes(&mut client));
    client.write_all(b"other way").expect("write");
    assert_eq!(exactly(&mut server, 9), b"other way");
    rig.proxy.release(Direction::ToClient);
    assert_eq!(exactly(&mut client, 4), b"late");
}

#[test]
fn swallows() {
    let rig = Rig::new();
    let (mut client, mut server) = rig.connect();
    rig.proxy.swallow(Direction::ToServer);
    client.write_all(b"lost").expect("write");
    assert!(nothing_comes(&mut server));
    rig.proxy.release(Direction::ToServer);
    client.write_all(b"behind a hole").expect("write");
    assert!(nothing_comes(&mut server));
    server.write_all(b"other way").expect("write");
    assert_eq!(exactly(&mut client, 9), b"other way");
    let (mut client, mut server) = rig.connect();
    client.write_all(b"seen").expect("write");
    assert_eq!(exactly(&mut server, 4), b"seen");
}

#[test]
fn holds_old_connections_while_new_ones_pass() {
    let rig = Rig::new();
    let (mut client, mut server) = rig.connect();
    rig.proxy.hold_old(Direction::ToServer);
    client.write_all(b"EXEC").expect("write");
    drop(client);
    let (mut newer, mut taken) = rig.connect();
    newer.write_all(b"WATCH").expect("write");
    assert_eq!(exactly(&mut taken, 5), b"WATCH");
    assert!(nothing_comes(&mut server));
    rig.proxy.release(Direction::ToServer);
    assert_eq!(read_out(&mut server), (b"EXEC".to_vec(), None));
}

#[test]
fn segments_are_of_one_byte() {
    let rig = Rig::new();
    let (mut client, mut server) = rig.connect();
    rig.proxy.segment(Direction::ToServer, Some(1));
    rig.proxy.throttle(Direction::ToServer, Some(200));
    client.write_all(b"0123456789").expect("write");
    let mut chunk = [0; 64];
    let mut reads = 0;
    let mut got = 0;
    while got < 10 {
        let len = server.read(&mut chunk).expect("read");
        assert!(len > 0);
        got += len;
        reads += 1;
    }
    // A slow reader may find two segments at once; ten bytes in one read would mean that they were never apart.
    assert!(reads >= 5, "{reads} reads");
}

#[test]
fn throttles() {
    let rig = Rig::new();
    let (mut client, mut server) = rig.connect();
    rig.proxy.throttle(Direction::ToServer, Some(100_000));
    let from = Instant::now();
    client.write_all(&[7; 50_000]).expect("write");
    exactly(&mut server, 50_000);
    let took = from.elapsed();
    assert!(
        took > Duration::from_millis(400) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

#[test]
fn moves_to_another_upstream_on_the_same_port() {
    let rig = Rig::new();
    let other = TcpListener::bind("127.0.0.1:0").expect("listen");
    rig.proxy
        .set_upstream(&other.local_addr().expect("an address").to_string());
    let mut client = TcpStream::connect(rig.proxy.address()).expect("connect");
    let (mut server, _) = other.accept().expect("accept");
    client.write_all(b"x").expect("write");
    assert_eq!(exactly(&mut server, 1), b"x");
}
