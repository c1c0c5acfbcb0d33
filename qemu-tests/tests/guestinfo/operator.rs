//! What an operator of the hypervisor does to a VM and sees of it: power button, backdoor, addresses.

use crate::bench::{Bench, id, lines};
use crate::keys::vic;
use qemu_tests::{Lab, Monitor};
use serde_json::json;

#[test]
fn the_power_button_stops_the_container_in_order() {
    let lab = Lab::new();
    let _daemon = lab.daemon("0");
    let script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 1; done";
    let vm = lab.begin(["--name", "button", "busybox", "sh", "-c", script]);
    vm.expect("up");
    let console = lab.console("button");
    console.expect("a power button");
    let mut monitor = Monitor::connect(&lab.vm("button")).expect("QEMU listens");
    monitor.execute("system_powerdown", &json!({})).expect("QEMU presses it");
    console.expect("the operator shuts the machine down");
    vm.finish().code(5).prints("up\nbye\n");
}

#[test]
fn a_backdoor_that_is_not_vmwares_is_left_alone() {
    let bench = Bench::new();
    let id = id('a');
    let vmx = bench.vmx("vmport", &lines(&vic(&id, &["A=1".to_owned()])));
    bench.lab.serialmux(["register", &vmx]).finish().code(0);
    let qemu = bench.changed(&vmx, "-machine pc ", "-machine pc,vmport=on ");
    let attached = bench.lab.serialmux(["attach", &id]);
    bench.lab.start(qemu).finish().code(0);
    attached.finish().code(7);
    let console = bench.console("vmport");
    assert!(console.contains("VMware guestinfo: not there"), "{console}");
}

#[test]
fn what_the_interface_has_is_in_the_report() {
    let bench = Bench::new();
    let id = id('b');
    let mut pairs = vic(&id, &["PATH=/bin:/sbin".to_owned()]);
    let script = "sh|-c|echo up; until ip link set eth0 up 2>/dev/null; do sleep 0.1; done; \
                  ip addr add 172.16.0.2/16 dev eth0; ip route add default via 172.16.0.1; \
                  read line; ip addr del 172.16.0.2/16 dev eth0; read line; exit 3";
    let changed = [
        (format!("/sessions|{id}/cmd/Args~"), script),
        (format!("/sessions|{id}/cmd/Args"), "2"),
        (format!("/sessions|{id}/openstdin"), "true"),
        (format!("/sessions|{id}/User"), "root"),
        (format!("/sessions|{id}/Group"), "root"),
    ];
    for (key, value) in changed {
        let key = format!("guestinfo.vice.{key}");
        pairs.iter_mut().find(|(had, _)| *had == key).expect("VIC writes it").1 = value.to_owned();
    }
    let vmx = bench.vmx("addresses", &lines(&pairs));
    let mut vm = bench.lab.containervm(["start", "-ai", &vmx]);
    vm.expect("up");
    let key = |key: &str| format!("guestinfo.vice..networks|bridge.{key}");
    let address = |report: &serde_json::Value| report[key("assigned.IP")].clone();
    let report = bench.await_report(&id, |report| address(report) == "AAAAAAAAAAAAAP//rBAAAg==");
    assert_eq!(report[key("assigned.Mask")], "//8AAA==", "{report:#}");
    let report =
        bench.await_report(&id, |report| !report[key("network.assigned.gateway.IP")].is_null());
    assert_eq!(report[key("network.assigned.gateway.IP")], "AAAAAAAAAAAAAP//rBAAAQ==");
    vm.write("\n");
    // QEMU's network also gives it an address of v6, which then stands for it.
    bench.await_report(&id, |report| address(report) != "AAAAAAAAAAAAAP//rBAAAg==");
    vm.write("\n");
    vm.finish().code(3);
}
