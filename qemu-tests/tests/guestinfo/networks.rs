//! Networks of a config as VIC writes it: static and leased addresses, several on one interface, changed by a reload.

use crate::bench::{Bench, id, lines};
use crate::disks::{PlainDisk, set};
use crate::keys::vic;
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

/// Gives a container a shell that does what it is told.
pub(crate) fn shell(pairs: &mut Vec<(String, String)>, id: &str) {
    let script = "echo up; while read line; do eval \"$line\"; done; exit 3";
    set(pairs, &format!("/sessions|{id}/cmd/Args~"), &format!("sh|-c|{script}"));
    set(pairs, &format!("/sessions|{id}/cmd/Args"), "2");
    set(pairs, &format!("/sessions|{id}/User"), "root");
    set(pairs, &format!("/sessions|{id}/Group"), "root");
    set(pairs, &format!("/sessions|{id}/openstdin"), "true");
}

/// Gives the VM the address that leads out of QEMU's network, to the host as 10.0.2.2.
pub(crate) fn way_out(pairs: &mut Vec<(String, String)>) {
    for (key, value) in [("ip/IP", "CgACDw=="), ("ip/Mask", "////AA==")] {
        set(pairs, &format!("/networks|bridge/{key}"), value);
    }
}

/// QEMU's option that has everything of its network card written to a file (pcap).
fn dump(path: &Path) -> String {
    format!("-object filter-dump,id=dump,netdev=ethernet0,file={}", path.display())
}

/// From whom to whom addresses were given back (DHCPRELEASE), as such a file has it, each with the address.
fn given_back(path: &Path) -> Vec<[Ipv4Addr; 3]> {
    let bytes = fs::read(path).expect("QEMU wrote it");
    let mut rest = &bytes[24..];
    let mut found = Vec::new();
    while let Some((header, after)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(header[8..12].try_into().expect("four bytes")) as usize;
        let (frame, after) = after.split_at(len);
        rest = after;
        // Ethernet's type for IPv4, the protocol UDP, port 67; then the options behind a BOOTP message.
        let is_question =
            len > 282 && frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == [0, 67];
        if is_question && frame[282..].windows(3).any(|it| it == [53, 1, 7]) {
            let address =
                |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("four"));
            found.push([address(26), address(30), address(54)]);
        }
    }
    found
}

/// A release by the address itself to QEMU's server.
const RELEASE: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 15)];

fn value(report: &Value, key: &str) -> String {
    let key = format!("guestinfo.vice..networks|{key}");
    report[key].as_str().unwrap_or_default().to_owned()
}

#[test]
fn vic_117_two_networks_on_one_interface_are_two_addresses_and_routes_lead_where_they_say() {
    let bench = Bench::new();
    let id = id('a');
    let mut pairs = vic(&id, &["PATH=/bin:/sbin".to_owned()]);
    shell(&mut pairs, &id);
    set(&mut pairs, "/networks", "bridge|other");
    set(&mut pairs, "/networks|bridge/mtu", "1400");
    let route = "/networks|bridge/network";
    for (key, value) in
        [("gateway/IP", "rBAAAQ=="), ("gateway/Mask", "//8AAA=="), ("default", "true")]
    {
        set(&mut pairs, &format!("{route}/{key}"), value);
    }
    // 192.168.7.2/24, with 10.0.0.0/8 behind 192.168.7.1. Both networks say they are in the same slot.
    for (key, value) in [
        ("Common/id", "192"),
        ("Common/name", ""),
        ("static", "true"),
        ("ip/IP", "wKgHAg=="),
        ("ip/Mask", "////AA=="),
        ("network/gateway/IP", "wKgHAQ=="),
        ("network/gateway/Mask", "////AA=="),
        ("network/destinations", "0"),
        ("network/destinations|0/IP", "CgAAAA=="),
        ("network/destinations|0/Mask", "/wAAAA=="),
    ] {
        set(&mut pairs, &format!("/networks|other/{key}"), value);
    }
    let vmx = bench.vmx("two", &lines(&pairs));
    // QEMU's first card is not where VMware's would be: slot 192 is behind a bridge.
    let plain = "-device vmxnet3,netdev=ethernet0,";
    let bridge = "-device pci-bridge,chassis_nr=1,id=behind,addr=0x16";
    bench.lab.serialmux(["register", &vmx]).finish().code(0);
    let moved = format!("{bridge} -device vmxnet3,bus=behind,addr=0x0,netdev=ethernet0,");
    let qemu = bench.changed(&vmx, plain, &moved);
    let vm = bench.lab.start(qemu);
    let mut attached = bench.lab.serialmux(["attach", &id]);
    attached.expect("up\n");
    attached.write("ip -4 -o addr show eth0 | awk '{print $4}'\n");
    attached.expect("172.16.0.2/16\n192.168.7.2/24\n");
    attached.write("ip route | sort; cat /sys/class/net/eth0/mtu /sys/class/net/eth0/ifalias\n");
    attached.expect(
        "10.0.0.0/8 via 192.168.7.1 dev eth0 \n172.16.0.0/16 dev eth0 scope link  src 172.16.0.2 \n\
         192.168.7.0/24 dev eth0 scope link  src 192.168.7.2 \ndefault via 172.16.0.1 dev eth0 \n1400\nbridge\n",
    );
    attached.write("cat /etc/resolv.conf; tail -n 2 /etc/hosts; hostname\n");
    attached.expect(
        "nameserver 172.16.0.1\nnameserver 8.8.8.8\nnameserver 192.168.7.1\n\
         172.16.0.2\tturing\n192.168.7.2\tturing\nturing\n",
    );
    let report = bench.await_report(&id, |report| !value(report, "other.assigned.IP").is_empty());
    assert_eq!(value(&report, "bridge.configured"), "true", "{report:#}");
    assert_eq!(value(&report, "other.assigned.IP"), "AAAAAAAAAAAAAP//wKgHAg==", "{report:#}");
    assert_eq!(value(&report, "bridge.network.assigned.dns"), "1", "{report:#}");
    attached.write("exit 0\n");
    attached.finish().code(0);
    vm.finish().code(0);
}

#[test]
fn an_address_is_leased_when_none_is_given_and_a_reload_changes_it() {
    let bench = Bench::new();
    let id = id('b');
    let mut pairs = vic(&id, &["PATH=/bin:/sbin".to_owned()]);
    pairs.retain(|(key, _)| !key.contains("networks|bridge"));
    shell(&mut pairs, &id);
    set(&mut pairs, "/networks|bridge/network/default", "true");
    let (vmx, config) = (bench.vmx("lease", &lines(&pairs)), PlainDisk::new(&bench));
    config.write(&pairs);
    let packets = bench.lab.path("packets");
    let devices = format!("{} {}", config.device(), dump(&packets));
    let vm = bench.lab.start(bench.without_config(&vmx, &devices));
    let mut attached = bench.lab.serialmux(["attach", &id]);
    attached.expect("up\n");
    attached.write("ip -4 -o addr show eth0 | awk '{print $4}'; ip route | grep default\n");
    attached.expect("10.0.2.15/24\ndefault via 10.0.2.2 dev eth0 \n");
    attached.write("cat /etc/resolv.conf; tail -n 1 /etc/hosts; echo 10.9.9.9 mine >>/etc/hosts\n");
    attached.expect("nameserver 10.0.2.3\n10.0.2.15\tturing\n");
    let report = bench.await_report(&id, |report| !value(report, "bridge.assigned.IP").is_empty());
    assert_eq!(value(&report, "bridge.network.assigned.dns|0"), "AAAAAAAAAAAAAP//CgACAw==");

    // Another address, name server and gateway; and a network more, of which there is no interface.
    for (key, value) in [
        ("static", "true"),
        ("ip/IP", "CgACIQ=="),
        ("ip/Mask", "////AA=="),
        ("network/gateway/IP", "CgACAg=="),
        ("network/gateway/Mask", "////AA=="),
        ("network/dns", "0"),
        ("network/dns|0", "CgACBA=="),
    ] {
        set(&mut pairs, &format!("/networks|bridge/{key}"), value);
    }
    set(&mut pairs, "/networks", "bridge|far|more");
    set(&mut pairs, "/networks|far/Common/id", "00:50:56:01:02:03");
    // 192.168.7.2/24 on the card that is there, which is told by its hardware address.
    for (key, value) in [
        ("Common/id", "52:54:00:12:34:56"),
        ("static", "true"),
        ("ip/IP", "wKgHAg=="),
        ("ip/Mask", "////AA=="),
    ] {
        set(&mut pairs, &format!("/networks|more/{key}"), value);
    }
    set(&mut pairs, "/networks|bridge/Common/id", "52:54:00:12:34:56");
    config.write(&pairs);
    let reload = bench.lab.serialmux(["reload", &id]).finish();
    let doing = |name| format!("network {name} is being configured");
    reload.code(0).shows(&["bridge", "far", "more"].map(doing).join("; "));
    let told = bench.await_report(&id, |report| !value(report, "far.configured").is_empty());
    let far = value(&told, "far.configured");
    assert!(far.contains("no interface with the address 00:50:56:01:02:03"), "{told:#}");
    assert!(far.contains("is eth0 (52:54:00:12:34:56"), "{told:#}");
    attached.write("ip -4 -o addr show eth0 | awk '{print $4}'; ip route | grep default\n");
    attached.expect("10.0.2.33/24\n192.168.7.2/24\ndefault via 10.0.2.2 dev eth0 \n");
    assert_eq!(value(&told, "more.configured"), "true", "{told:#}");
    attached.write("cat /etc/resolv.conf; tail -n 3 /etc/hosts; ping -c 1 -W 5 10.0.2.2 >/dev/null && echo ok\n");
    attached
        .expect("nameserver 10.0.2.4\n10.9.9.9 mine\n10.0.2.33\tturing\n192.168.7.2\tturing\nok\n");
    attached.write("exit 0\n");
    attached.finish().code(0);
    vm.finish().code(0);
    assert_eq!(given_back(&packets), [RELEASE], "once, by the reload that needed it no more");
}

#[test]
fn a_lease_is_given_back_at_the_end() {
    let bench = Bench::new();
    let id = id('d');
    let mut pairs = vic(&id, &["PATH=/bin:/sbin".to_owned()]);
    pairs.retain(|(key, _)| !key.contains("networks|bridge"));
    shell(&mut pairs, &id);
    let (vmx, packets) = (bench.vmx("release", &lines(&pairs)), bench.lab.path("packets"));
    bench.lab.serialmux(["register", &vmx]).finish().code(0);
    let (append, more) = ("-append '", format!("{} -append '", dump(&packets)));
    let vm = bench.lab.start(bench.changed(&vmx, append, &more));
    let mut attached = bench.lab.serialmux(["attach", &id]);
    attached.expect("up\n");
    attached.write("ip -4 -o addr show eth0 | awk '{print $4}'\n");
    attached.expect("10.0.2.15/24\n");
    assert!(given_back(&packets).is_empty(), "it is in use");
    attached.write("exit 0\n");
    attached.finish().code(0);
    vm.finish().code(0);
    assert_eq!(given_back(&packets), [RELEASE]);
    let console = bench.console("release");
    assert!(!console.contains("could not be given back"), "the card has taken it: {console}");
}

#[test]
fn a_network_without_an_interface_is_told_and_nothing_runs() {
    let bench = Bench::new();
    let id = id('c');
    let pairs = vic(&id, &["PATH=/bin".to_owned()]);
    let vmx = bench.vmx("bare", &lines(&pairs));
    bench.lab.serialmux(["register", &vmx]).finish().code(0);
    let qemu = bench.changed(&vmx, "-device vmxnet3,netdev=ethernet0,romfile=", "");
    let attached = bench.lab.serialmux(["attach", &id]);
    bench.lab.start(qemu).finish().code(0);
    let told = "network bridge: no interface in PCI slot 192 came in 30 s; there is none";
    attached.finish().code(125).complains(&[told]);
    let report = bench.inspect(&id)["report"].clone();
    assert!(value(&report, "bridge.configured").starts_with(told), "{report:#}");
    assert!(bench.console("bare").contains(told));
}

#[test]
fn a_network_without_a_server_is_told_with_its_interface() {
    let bench = Bench::new();
    let id = id('d');
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    pairs.retain(|(key, _)| !key.contains("networks|bridge"));
    set(&mut pairs, "/networks|bridge/Common/name", "wan7");
    let vmx = bench.vmx("silent", &lines(&pairs));
    bench.lab.serialmux(["register", &vmx]).finish().code(0);
    // A hub with nobody else on it.
    let qemu =
        bench.changed(&vmx, "-netdev user,id=ethernet0", "-netdev hubport,id=ethernet0,hubid=7");
    let attached = bench.lab.serialmux(["attach", &id]);
    bench.lab.start(qemu).finish().code(0);
    attached.finish().code(125).complains(&["no DHCP server gave wan7 an address in 10 s"]);
}
