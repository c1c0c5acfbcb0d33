//! Tests of what is made of interfaces and routes.

use super::*;

fn net(text: &str) -> IpNet {
    let (addr, prefix_len) = text.split_once('/').unwrap();
    IpNet { addr: addr.parse().unwrap(), prefix_len: prefix_len.parse().unwrap() }
}

fn interface(name: &str, device: &str, addresses: &[&str]) -> Interface {
    Interface {
        name: name.to_owned(),
        device: device.into(),
        addresses: addresses.iter().map(|text| net(text)).collect(),
        ..Interface::default()
    }
}

#[test]
fn the_default_route_is_that_of_the_interface() {
    let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                  eth1\t00000000\t010010AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n";
    assert_eq!(default_gateway(routes, "eth0"), Some([192, 168, 0, 1].into()));
    assert_eq!(default_gateway(routes, "eth1"), Some([172, 16, 0, 1].into()));
    assert_eq!(default_gateway(routes, "tun0"), None, "no gateway");
    assert_eq!(default_gateway(routes, "eth2"), None);
    assert_eq!(default_gateway("", "eth0"), None);
}

#[test]
fn slots_are_counted_as_vmware_does() {
    for (slot, path) in [
        (33, "0000:00:11.0/0000:02:01.0"),
        (160, "0000:00:15.0/0000:03:00.0"),
        (192, "0000:00:16.0/0000:0b:00.0"),
        (224, "0000:00:17.0/0000:13:00.0"),
        (256, "0000:00:18.0/0000:1b:00.0"),
        (1184, "0000:00:15.1/0000:04:00.0"),
        (3, "0000:00:03.0"),
    ] {
        let device = Path::new("/sys/devices/pci0000:00").join(path);
        assert!(is_in_slot(&device, slot), "{slot}");
        assert!(!is_in_slot(&device, slot + 1) && !is_in_slot(&device, slot + 32), "{slot}");
    }
    assert!(!is_in_slot(Path::new(""), 192));
    assert!(!is_in_slot(Path::new("/sys/devices/pci0000:00"), u32::MAX));
}

#[test]
fn a_network_gets_the_interface_of_its_slot_then_of_its_name_then_the_only_one() {
    let in_slot = interface("eth7", "/sys/devices/pci0000:00/0000:00:16.0/0000:0b:00.0", &[]);
    let named = interface("bridge", "/sys/devices/pci0000:00/0000:00:03.0", &[]);
    let network = NetworkSpec { id: "192".into(), name: "bridge".into(), ..NetworkSpec::default() };
    let all = [named.clone(), in_slot.clone()];
    assert_eq!(interface_of(&network, 2, &all), Some(&in_slot));
    assert_eq!(interface_of(&network, 2, &all[..1]), Some(&named));
    let other = NetworkSpec { id: "x".into(), ..NetworkSpec::default() };
    assert_eq!(interface_of(&other, 2, &all), None);
    assert_eq!(interface_of(&other, 2, &all[..1]), None, "it may be the other network's");
    assert_eq!(interface_of(&other, 1, &all[..1]), Some(&named));
    let mut by_mac = all.clone();
    by_mac[1].mac = "00:50:56:01:02:0a".to_owned();
    let network = NetworkSpec { id: "00:50:56:01:02:0A".into(), ..NetworkSpec::default() };
    assert_eq!(interface_of(&network, 2, &by_mac), Some(&by_mac[1]));
    assert_eq!(interface_of(&network, 1, &by_mac[..1]), None, "another card is not it");
}

#[test]
fn what_a_network_got_is_what_the_interface_has() {
    let mut eth0 = interface("eth0", "", &["fe80::1/64", "10.0.0.9/8", "172.16.0.2/16"]);
    eth0.gateway = Some([172, 16, 0, 1].into());
    let asked = NetworkSpec { ip: Some(net("172.16.0.2/16")), ..NetworkSpec::default() };
    let networks: BTreeMap<_, _> = [("bridge".to_owned(), asked.clone())].into();
    let servers = vec![Ip([10, 0, 0, 1].into()), Ip("::1".parse().unwrap())];
    let dns = |name: &str| if name == "bridge" { servers.clone() } else { Vec::new() };
    let all = endpoints(&networks, std::slice::from_ref(&eth0), dns);
    let expected = EndpointReport {
        assigned: Some(net("172.16.0.2/16")),
        gateway: Some(net("172.16.0.1/16")),
        dns: servers.clone(),
        ..EndpointReport::default()
    };
    assert_eq!(all["bridge"], expected);
    assert_eq!(assigned(&NetworkSpec::default(), &eth0), Some(net("10.0.0.9/8")), "first of v4");
    let six = interface("eth0", "", &["fe80::1/64", "2001:db8::1/64"]);
    assert_eq!(assigned(&asked, &six), Some(net("2001:db8::1/64")));
    let bare = interface("eth0", "", &["fe80::1/64"]);
    let none = endpoints(&networks, &[bare], dns);
    assert_eq!(none["bridge"], EndpointReport::default(), "no address, no name servers either");
}

#[test]
fn this_machines_interfaces_are_found_without_loopback() {
    let found = all();
    assert!(found.iter().all(|it| it.name != "lo" && !it.name.is_empty()), "{found:?}");
    for interface in found.iter().filter(|it| it.mac.len() == 17) {
        let mac = Path::new("/sys/class/net").join(&interface.name).join("address");
        assert_eq!(fs::read_to_string(mac).unwrap().trim(), interface.mac);
    }
}

#[tokio::test]
async fn nothing_has_changed_until_it_does() {
    let watch = Watch::open().unwrap();
    tokio::task::yield_now().await;
    watch.take();
    assert!(!watch.take());
}
