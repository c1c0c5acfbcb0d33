//! The scenarios with the real instructions: this program runs itself, traced, as the guest.

use std::process::Command;

use guestinfo::sys::Backdoor;
use hypervisor::{Hypervisor, tracer};
use nix::sys::wait::WaitStatus;

use crate::scenarios::{self, Scenario};
use crate::script;

const SCRIPT: &str = "BACKDOOR_SCRIPT";
const MARK: &str = "outcome: ";

#[test]
fn every_scenario_holds_with_the_real_instructions() {
    let all = scenarios::all();
    assert!(all.len() > 50, "{} scenarios", all.len());
    for Scenario { name, mut hypervisor, script, expected, high_bandwidth } in all {
        let mut guest = Command::new(std::env::current_exe().expect("own path"));
        guest
            .args(["--exact", "instructions::as_the_guest", "--ignored", "--nocapture"])
            .env(SCRIPT, &script);
        let ended = tracer::run(&mut hypervisor, &mut guest, false);
        assert!(matches!(ended.status, WaitStatus::Exited(_, 0)), "{name}: {ended:?}");
        let outcome: Vec<_> = ended
            .stdout
            .lines()
            .filter_map(|line| line.split_once(MARK))
            .map(|(_, line)| line)
            .collect();
        assert_eq!(outcome, expected, "{name}");
        assert!(hypervisor.all_closed(), "{name}: a channel was left open");
        let [n_in, n_out, n_ins, _] = ended.answered;
        assert_eq!(
            ended.restored,
            (n_in + n_out + n_ins).min(tracer::WATCHED),
            "{name}: lost registers"
        );
        assert!(n_in > 0, "{name}: no instruction was caught");
        if !high_bandwidth {
            assert_eq!((n_out, n_ins), (0, 0), "{name}");
        }
    }
}

#[test]
fn both_string_instructions_carry_payloads() {
    let mut hypervisor = Hypervisor { high_bandwidth: true, ..Default::default() };
    let mut guest = Command::new(std::env::current_exe().expect("own path"));
    guest
        .args(["--exact", "instructions::as_the_guest", "--ignored", "--nocapture"])
        .env(SCRIPT, "fill guestinfo.a 65536\nlength guestinfo.a");
    let ended = tracer::run(&mut hypervisor, &mut guest, false);
    assert_eq!(ended.answered[1..3], [2, 2], "one of each for each of two requests: {ended:?}");
    assert_eq!(
        hypervisor.n_high,
        "info-set guestinfo.a ".len()
            + 65536
            + "1 ".len()
            + "info-get guestinfo.a".len()
            + "1 ".len()
            + 65536
    );
    assert_eq!(hypervisor.n_low, 0);
}

#[test]
#[ignore = "the guest of the other tests: without their tracer it would die of SIGSEGV"]
fn as_the_guest() {
    let script = std::env::var(SCRIPT).expect("started by another test");
    for line in script::run(&mut Backdoor::caught_by_a_tracer(), &script) {
        println!("{MARK}{line}");
    }
}

#[test]
fn here_is_no_vmware() {
    // Where this fails, the tests run on VMware itself, and the tracer catches nothing.
    assert!(Backdoor::detect().is_none());
}
