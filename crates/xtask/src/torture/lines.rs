//! Faults of a line between the daemon and a server, played by the proxy in between, and those of the source.

use testkit::process::{Signal, signal};
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Client, Rng, argv};

use super::shared::{Shared, ms};

/// A line and its end.
pub(super) struct Line<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) names: &'a Names,
}

/// What the faults of one line are called in the table.
pub(super) struct Names {
    cut: &'static str,
    cut_back: &'static str,
    cut_now: &'static str,
    refused: &'static str,
    stall: &'static str,
    stall_back: &'static str,
    half_open: &'static str,
    half_open_back: &'static str,
    thin: &'static str,
    throttle: &'static str,
    delay: &'static str,
    hold: &'static str,
    zombie: &'static str,
}

macro_rules! names {
    ($side:literal) => {
        Names {
            cut: concat!($side, ": cut after N bytes towards it"),
            cut_back: concat!($side, ": cut after N bytes from it"),
            cut_now: concat!($side, ": all connections cut"),
            refused: concat!($side, ": connections refused for a while"),
            stall: concat!($side, ": stall towards it"),
            stall_back: concat!($side, ": stall from it"),
            half_open: concat!($side, ": half-open towards it"),
            half_open_back: concat!($side, ": half-open from it"),
            thin: concat!($side, ": one-byte segments"),
            throttle: concat!($side, ": throttle"),
            delay: concat!($side, ": delay"),
            hold: concat!($side, ": held and delivered late"),
            zombie: concat!($side, ": held over a reconnect, delivered late"),
        }
    };
}

pub(super) const SOURCE: Names = names!("source line");
pub(super) const TARGET: Names = names!("target line");

impl Line<'_> {
    /// Plays one fault after the other until the round is over. `other` now and then takes a turn.
    pub(super) fn suffer(
        &self,
        shared: &Shared,
        mut rng: Rng,
        mut other: impl FnMut(&mut Rng) -> bool,
    ) {
        while shared.sleep(ms(rng.within(20..900))) {
            if !other(&mut rng) {
                self.one(shared, &mut rng);
            }
        }
        self.heal();
    }

    /// One fault, and its end.
    fn one(&self, shared: &Shared, rng: &mut Rng) {
        let proxy = self.proxy;
        let way = *rng.pick(&[Direction::ToServer, Direction::ToClient]);
        let towards = way == Direction::ToServer;
        let named = |there, back| if towards { there } else { back };
        let cut = *rng.pick(&[Cut::Rst, Cut::Fin]);
        let names = self.names;
        match rng.below(13) {
            0..=3 => {
                shared.fault(named(names.cut, names.cut_back));
                let most = *rng.pick(&[30, 400, 20_000, 300_000]);
                proxy.cut_after(way, rng.within(1..most), cut);
            }
            4 => {
                shared.fault(names.cut_now);
                proxy.cut_now(cut);
            }
            5 => {
                shared.fault(names.refused);
                proxy.refuse(true);
                proxy.cut_now(cut);
                shared.sleep(ms(rng.within(100..1500)));
                proxy.refuse(false);
            }
            6 => {
                shared.fault(named(names.stall, names.stall_back));
                proxy.stall(way);
                shared.sleep(ms(rng.within(100..3000)));
                proxy.release(way);
            }
            7 => {
                shared.fault(named(names.half_open, names.half_open_back));
                proxy.swallow(way);
                shared.sleep(ms(rng.within(100..3000)));
                proxy.cut_now(Cut::Rst);
                proxy.release(way);
                // Whoever came in between has lost bytes too.
                proxy.cut_now(Cut::Rst);
            }
            8 => {
                shared.fault(names.thin);
                proxy.segment(way, Some(1));
                shared.sleep(ms(rng.within(200..2000)));
                proxy.segment(way, None);
            }
            9 => {
                shared.fault(names.throttle);
                proxy.throttle(way, Some(rng.within(10_000..300_000)));
                shared.sleep(ms(rng.within(300..3000)));
                proxy.throttle(way, None);
            }
            10 => {
                shared.fault(names.delay);
                proxy.delay(way, ms(rng.within(1..80)));
                shared.sleep(ms(rng.within(200..2000)));
                proxy.delay(way, ms(0));
            }
            11 => {
                shared.fault(names.hold);
                proxy.hold(way);
                shared.sleep(ms(rng.within(100..2000)));
                proxy.release(way);
            }
            _ => {
                shared.fault(names.zombie);
                proxy.hold_old(Direction::ToServer);
                shared.sleep(ms(rng.within(300..6000)));
                proxy.release(Direction::ToServer);
            }
        }
    }

    /// A line without faults, and with none in its connections.
    fn heal(&self) {
        let proxy = self.proxy;
        proxy.refuse(false);
        for way in [Direction::ToServer, Direction::ToClient] {
            proxy.release(way);
            proxy.segment(way, None);
            proxy.throttle(way, None);
            proxy.delay(way, ms(0));
        }
        proxy.cut_now(Cut::Rst);
    }
}

/// A fault of the source itself; false when it is not its turn.
pub(super) fn source_fault(shared: &Shared, rng: &mut Rng, address: &str, pid: u32) -> bool {
    if !rng.one_in(5) {
        return false;
    }
    // Asked straight, on a connection of its own each time: the last fault may have taken it.
    let Ok(mut client) = Client::try_connect(address) else {
        return false;
    };
    match rng.below(3) {
        0 => {
            shared.fault("source: SIGSTOP");
            signal(pid, Signal::STOP);
            shared.sleep(ms(rng.within(200..3000)));
            signal(pid, Signal::CONT);
        }
        1 => {
            shared.fault("source: CLIENT PAUSE");
            let _ = client.try_command(&argv!["CLIENT", "PAUSE", rng.within(100..1500)]);
        }
        _ => {
            shared.fault("source: CLIENT KILL of replicas");
            let _ = client.try_command(&argv!["CLIENT", "KILL", "TYPE", "replica"]);
        }
    }
    true
}
