//! Tests of the choice of pipe, step by step in a time of their own.

use super::*;
use Transport::{Uart, Virtio, Vsock};

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn on_uart() -> Ladder {
    let mut ladder = Ladder::new(Uart, at(0));
    ladder.look(true, None, at(0));
    ladder
}

fn wanting(ladder: &Ladder, second: u64) -> Vec<Transport> {
    Transport::ALL.into_iter().filter(|pipe| ladder.wants(*pipe, at(second))).collect()
}

#[test]
fn a_better_pipe_asks_as_soon_as_it_is_open() {
    let mut ladder = on_uart();
    assert_eq!(wanting(&ladder, 1), []);
    ladder.set_open(Virtio, true);
    assert_eq!(wanting(&ladder, 1), [Virtio]);
    ladder.set_open(Vsock, true);
    assert_eq!(wanting(&ladder, 1), [Vsock, Virtio]);
    ladder.moved(Vsock, at(1));
    assert_eq!(wanting(&ladder, 1), [Virtio], "and climbs over a good one");
    ladder.moved(Virtio, at(2));
    assert_eq!(wanting(&ladder, 2), []);
    assert_eq!(ladder.deadline(), None);
}

#[test]
fn a_closed_pipe_is_left_at_once_and_climbs_back_when_it_opens() {
    let mut ladder = on_uart();
    ladder.set_open(Virtio, true);
    ladder.moved(Virtio, at(1));
    ladder.set_open(Virtio, false);
    assert_eq!(wanting(&ladder, 2), [Uart]);
    ladder.moved(Uart, at(2));
    assert_eq!(wanting(&ladder, 3), []);
    ladder.set_open(Virtio, true);
    assert_eq!(wanting(&ladder, 3), [Virtio]);
}

#[test]
fn silence_makes_the_others_ask_until_it_ends() {
    let mut ladder = on_uart();
    ladder.set_open(Virtio, true);
    ladder.moved(Virtio, at(1));
    assert!(!ladder.look(true, Some(at(10)), at(11)));
    assert_eq!((wanting(&ladder, 11), ladder.deadline()), (vec![], Some(at(13))));
    assert!(ladder.look(true, Some(at(10)), at(13)), "the one in use is called");
    assert_eq!((wanting(&ladder, 13), ladder.deadline()), (vec![Uart], Some(at(16))));
    assert!(!ladder.look(true, Some(at(10)), at(14)), "not all the time");
    assert!(ladder.look(true, Some(at(10)), at(16)));
    // It was only slow, or suspended: nothing has happened.
    assert!(!ladder.look(true, None, at(17)));
    assert_eq!((wanting(&ladder, 17), ladder.deadline()), (vec![], None));
}

#[test]
fn one_that_did_not_answer_waits_longer_each_time_before_it_climbs_back() {
    let mut ladder = on_uart();
    ladder.set_open(Virtio, true);
    let mut now = 1;
    let mut waits = Vec::new();
    for _ in 0..9 {
        ladder.moved(Virtio, at(now));
        now += 5;
        ladder.look(true, Some(at(now - 4)), at(now));
        ladder.moved(Uart, at(now));
        let due = ladder.deadline().unwrap();
        assert!(!ladder.wants(Virtio, at(now)));
        assert!(ladder.wants(Virtio, due));
        waits.push(due.since(at(now)).as_secs());
        now += waits[waits.len() - 1];
        ladder.forgive(at(now));
        assert_eq!(ladder.deadline(), None);
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 120, 120, 120]);
    // Two good minutes, and it is forgiven.
    ladder.moved(Virtio, at(now));
    now += 121;
    ladder.look(true, Some(at(now - 4)), at(now));
    ladder.moved(Uart, at(now));
    assert_eq!(ladder.deadline(), Some(at(now + 2)));
}

#[test]
fn when_the_last_one_fails_even_a_shunned_one_asks() {
    let mut ladder = on_uart();
    ladder.set_open(Virtio, true);
    ladder.moved(Virtio, at(1));
    ladder.look(true, Some(at(1)), at(5));
    ladder.moved(Uart, at(5));
    assert_eq!(wanting(&ladder, 5), []);
    ladder.look(true, Some(at(5)), at(8));
    assert_eq!(wanting(&ladder, 8), [Virtio]);
    ladder.look(false, None, at(9));
    assert_eq!(wanting(&ladder, 9), [Virtio], "so it does without a session");
}
