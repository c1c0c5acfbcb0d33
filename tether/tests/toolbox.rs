//! The agent's guest tools against the emulated hypervisor, by the real instructions: from the host's request to
//! the agent's order.
#![allow(missing_docs, reason = "a test has no readers of its API")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::process::Command;

use guestinfo::backdoor::Protocol;
use guestinfo::sys::Backdoor;
use guestinfo::tclo::{Order, PowerChange};
use guestinfo::{IpNet, Spec};
use hypervisor::{Hypervisor, tracer, vix};
use nix::sys::wait::WaitStatus;
use tether::host::interfaces::Interface;
use tether::host::toolbox::HostTools;
use tokio::time::{Instant, sleep_until};

/// What a line of the guest's output has before an order.
const MARK: &str = "order: ";

#[test]
fn what_the_host_asks_becomes_the_agents_orders() {
    let text = |text: &str| text.as_bytes().to_vec();
    let said = [
        text("reset"),
        text("ping"),
        text("Set_Option broadcastIP 1"),
        text("Capabilities_Register"),
        text("OS_PowerOn"),
        vix::start("ID", "reload", ""),
        vix::start("ID", "kill", "HUP"),
        text("OS_Halt"),
    ];
    let mut host = Hypervisor {
        said: said.into_iter().collect(),
        high_bandwidth: true,
        ..Hypervisor::default()
    };
    let mut guest = Command::new(std::env::current_exe().expect("own path"));
    guest.args(["--exact", "as_the_guest", "--ignored", "--nocapture"]);
    let ended = tracer::run(&mut host, &mut guest, false);
    assert!(matches!(ended.status, WaitStatus::Exited(_, 0)), "{ended:?}");
    let lines = ended.stdout.lines().filter_map(|line| line.split_once(MARK));
    let orders: Vec<_> = lines.map(|(_, order)| order).collect();
    assert_eq!(orders, ["PowerOn", "Reload", "signal HUP", "Halt"]);

    let heard = |wanted: Protocol| {
        let heard = host.heard.iter();
        let heard = heard.filter(move |(protocol, it)| *protocol == wanted && !it.is_empty());
        heard.map(|(_, message)| String::from_utf8_lossy(message).into_owned()).collect::<Vec<_>>()
    };
    let replies = heard(Protocol::Tclo);
    let started = |n: u32| format!("OK 0 0 {n}\0\0");
    let expected = ["OK ATR toolbox", "OK ", "OK ", "OK ", "OK "].map(str::to_owned);
    assert_eq!(replies[..5], expected);
    assert_eq!(replies[5..], [started(32769), started(32770), "OK ".to_owned()]);
    let requests = heard(Protocol::Rpci);
    let halted = "tools.os.statechange.status 1 1\0".to_owned();
    assert_eq!(requests.last(), Some(&halted), "{requests:?}");
    assert_eq!(host.values["guestinfo.ip"], b"172.16.0.2");
}

#[test]
#[ignore = "the guest of another test: without its tracer it would die of SIGSEGV"]
fn as_the_guest() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let spec = Spec { id: "ID".to_owned(), ..Spec::default() };
        let mut tools = HostTools::new(Backdoor::caught_by_a_tracer(), &spec);
        let net = IpNet { addr: [172, 16, 0, 2].into(), prefix_len: 16 };
        let interface = Interface {
            mac: "00:50:56:01:02:03".to_owned(),
            addresses: vec![net],
            ..Interface::default()
        };
        tools.set_interfaces(&[interface]);
        loop {
            sleep_until(tools.deadline()).await;
            if let Some(order) = tools.turn(Instant::now()) {
                println!("\n{MARK}{order}");
                if order == Order::Power(PowerChange::Halt) {
                    return;
                }
            }
        }
    });
}
