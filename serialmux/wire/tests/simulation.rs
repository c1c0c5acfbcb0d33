//! The link under seeded faults in virtual time: every byte once, in order, in bounded time.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "sim/line.rs"]
mod line;
#[path = "sim/world.rs"]
mod world;

use line::{Faults, Rng};
use wire::Protection;
use world::{Plan, World};

const SECOND: u64 = 1_000_000;

fn plan(seed: u64) -> Plan {
    let mut rng = Rng(seed);
    let mut odds = |most: u64, least: u64| match rng.below(3) {
        0 => 0,
        _ => least + rng.below(most),
    };
    let faults = Faults {
        drop: odds(20_000, 200),
        burst: odds(40_000, 500),
        flip: odds(20_000, 200),
        insert: odds(20_000, 200),
        text: odds(40_000, 2_000),
    };
    let (cut, kill, suspend) = (odds(4_000, 200), odds(8_000, 400), odds(8_000, 400));
    let rate = [11_000, 60_000, 200_000, 900_000][rng.below(4) as usize];
    let output = (0..1 + rng.below(4)).map(|_| rng.below(60_000) as usize).collect();
    let input = rng.below(20_000) as usize;
    let protection = if rng.one_in(4) { Protection::Plain } else { Protection::Sealed };
    Plan { seed, faults, rate, protection, output, input, cut, kill, suspend }
}

#[test]
fn every_byte_arrives_once_whatever_the_line_does() {
    let n = std::env::var("SIM_SEEDS").map_or(200, |n| n.parse().unwrap());
    let first = std::env::var("SIM_FIRST").map_or(0, |n| n.parse().unwrap());
    for seed in first..first + n {
        let plan = plan(seed);
        let text = format!("{plan:?}");
        let run = std::panic::catch_unwind(|| World::new(plan).run(20 * SECOND, 300 * SECOND));
        assert!(run.is_ok(), "SIM_FIRST={seed} SIM_SEEDS=1 fails: {text}");
    }
}

#[test]
fn a_clean_line_is_used_well() {
    let plan = Plan {
        seed: 1,
        faults: Faults::default(),
        rate: 90_000,
        protection: Protection::Sealed,
        output: vec![900_000],
        input: 0,
        cut: 0,
        kill: 0,
        suspend: 0,
    };
    let mut world = World::new(plan);
    world.run(0, 60 * SECOND);
    // 10 s at the line's rate; the rest is framing, handshake and the last acknowledgement.
    assert!(world.now < 10_700_000, "{} µs", world.now);
}
