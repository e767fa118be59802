//! Ports on 127.0.0.1 that no other test of this machine has, in this process or another.
//!
//! Asking the kernel for a free port is not enough: between closing the probe and starting the server another test
//! may be given the same one. So a port is reserved by a locked file for as long as the value lives.

use std::fs::{self, File};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range that the kernel gives to outgoing connections; a cluster's bus is 10,000 above.
const FIRST: u16 = 13_000;
const COUNT: u16 = 9_000;

/// A reserved port.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port that nobody listens on.
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("understudy-test-ports");
        fs::create_dir_all(&folder).expect("make the folder of port locks");
        // Processes start far apart, so that they seldom try the same file.
        let base = std::process::id().wrapping_mul(631) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + base.wrapping_add(step) % COUNT;
            let lock = File::create(folder.join(number.to_string())).expect("open a port lock");
            if lock.try_lock().is_ok() && is_free(number) && is_free(number + 10_000) {
                return Self {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:number`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

fn is_free(number: u16) -> bool {
    TcpListener::bind(("127.0.0.1", number)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
