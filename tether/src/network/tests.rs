//! Tests of the endpoints: which address, routes and name servers they are to get.

use super::*;
use guestinfo::{Ip, RouteSpec};

fn net(text: &str) -> IpNet {
    let (addr, prefix_len) = text.split_once('/').unwrap();
    IpNet { addr: addr.parse().unwrap(), prefix_len: prefix_len.parse().unwrap() }
}

fn endpoint(spec: NetworkSpec) -> Endpoint {
    let mut networks = Networks::new("box");
    networks.want("n", &spec);
    networks.all.remove("n").unwrap()
}

fn spec(ip: Option<&str>, network: RouteSpec) -> NetworkSpec {
    NetworkSpec { ip: ip.map(net), network, ..NetworkSpec::default() }
}

#[test]
fn an_address_is_asked_for_unless_there_is_one_or_it_is_somebody_elses_to_set() {
    let dynamic = |spec: NetworkSpec| endpoint(spec).is_dynamic();
    assert!(dynamic(spec(None, RouteSpec::default())));
    assert!(dynamic(spec(Some("0.0.0.0/0"), RouteSpec::default())));
    assert!(!dynamic(spec(Some("10.0.0.1/8"), RouteSpec::default())));
    assert!(!dynamic(NetworkSpec { is_static: true, ..spec(None, RouteSpec::default()) }));
}

#[test]
fn a_gateway_leads_to_everything_or_to_the_networks_behind_it() {
    let gateway: Option<IpAddr> = Some("10.0.2.2".parse().unwrap());
    let behind = vec![net("10.9.0.0/16"), net("fd00::/8")];
    let some = RouteSpec { destinations: behind.clone(), ..RouteSpec::default() };
    let routes = endpoint(spec(None, some)).routes(gateway);
    assert_eq!(routes, [(net("10.9.0.0/16"), gateway)], "of its own kind only");
    let all = RouteSpec { destinations: behind, default: true, ..RouteSpec::default() };
    let all = endpoint(spec(None, all));
    assert_eq!(all.routes(gateway), [(net("0.0.0.0/0"), gateway)]);
    let six = Some("fd00::1".parse().unwrap());
    assert_eq!(all.routes(six), [(net("::/0"), six)]);
    assert_eq!(all.routes(None), []);
}

#[test]
fn the_network_with_the_default_route_is_asked_first() {
    let mut networks = Networks::default();
    for (name, default, dns) in [("a", false, "10.0.0.1"), ("b", true, "10.0.0.2")] {
        let dns = vec![Ip(dns.parse().unwrap())];
        let network = RouteSpec { default, dns, ..RouteSpec::default() };
        networks.want(name, &spec(Some("10.1.0.1/8"), network));
    }
    assert!(!networks.are_settled() && networks.settings().is_empty());
    for endpoint in networks.all.values_mut() {
        endpoint.state = State::Up;
    }
    assert!(networks.are_settled());
    let names: Vec<_> = networks.settings().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn what_does_not_come_is_told_with_what_is_there() {
    let mut absent = endpoint(NetworkSpec { id: "192".into(), ..NetworkSpec::default() });
    let there = Interface {
        name: "eth0".into(),
        mac: "52:54:00:12:34:56".into(),
        device: "/sys/devices/pci0000:00/0000:00:02.0".into(),
        ..Interface::default()
    };
    let text = absent.lateness("bridge", &[there]).to_string();
    for part in ["network bridge", "in PCI slot 192", "is eth0 (52:54:00:12:34:56, ", "Common/id"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(absent.lateness("bridge", &[]).to_string().contains("there is none"));
    absent.state = State::Leasing;
    absent.interface = Some(("eth0".into(), 2));
    assert!(absent.lateness("bridge", &[]).to_string().contains("no DHCP server gave eth0"));
}

#[test]
fn what_nobody_waits_for_has_no_deadline() {
    let mut networks = Networks::default();
    assert_eq!(networks.deadline(), None);
    networks.want("n", &NetworkSpec::default());
    assert!(networks.deadline().is_some());
    networks.all.get_mut("n").unwrap().state = State::Up;
    assert_eq!(networks.deadline(), None);
}
