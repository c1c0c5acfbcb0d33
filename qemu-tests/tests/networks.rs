//! The network of a container that `containervm run` starts: as Docker's users expect it.

use qemu_tests::{Lab, record};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

#[test]
fn a_container_has_an_address_a_way_out_its_name_and_name_servers() {
    let lab = Lab::new();
    let script = "ip -4 -o addr show eth0 | awk '{print $4}'; ip route | grep default; \
                  cat /etc/resolv.conf; tail -n 1 /etc/hosts; hostname -i; \
                  ping -c 1 -W 5 10.0.2.2 >/dev/null && echo the gateway answers";
    let run = lab.run(["--network", "isolated", "-h", "box", "busybox", "sh", "-c", script]);
    run.code(0).prints(
        "10.0.2.15/24\ndefault via 10.0.2.2 dev eth0 \nnameserver 10.0.2.3\n10.0.2.15\tbox\n\
         10.0.2.15\nthe gateway answers\n",
    );
}

#[test]
fn vic_106_name_servers_are_those_that_were_asked_for() {
    let lab = Lab::new();
    let (dns, more) = (["--dns", "192.0.2.8", "--dns"], ["192.0.2.9", "--network", "isolated"]);
    let run = lab.run([
        dns[0],
        dns[1],
        dns[2],
        more[0],
        more[1],
        more[2],
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ]);
    run.code(0).prints("nameserver 192.0.2.8\nnameserver 192.0.2.9\n");
}

#[test]
fn without_a_network_there_is_loopback_alone() {
    let lab = Lab::new();
    let script = "ls /sys/class/net; ping -c 1 -W 5 127.0.0.1 >/dev/null && echo loopback; \
                  grep -c nameserver /etc/resolv.conf 2>/dev/null; tail -n 1 /etc/hosts";
    let run = lab.run(["--network", "none", "-h", "box", "busybox", "sh", "-c", script]);
    run.code(0).shows("lo\nloopback\n").shows("127.0.1.1\tbox\n");
    let bad = lab.run(["--network", "host", "busybox", "true"]);
    bad.code(125);
    assert!(bad.err().contains("isolated"), "{bad:?}");
}

#[test]
fn vic_31_a_port_is_published_for_tcp_and_udp_and_leads_to_the_container() {
    let lab = Lab::new();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let port = free.port();
    let (tcp, udp) = (format!("127.0.0.1:{port}:80"), format!("127.0.0.1:{port}:80/udp"));
    let script = "echo up; echo served | nc -l -p 80";
    let vm = lab.begin([
        "--network",
        "isolated",
        "-p",
        &tcp,
        "-p",
        &udp,
        "--name",
        "web",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    vm.expect("up\n");
    // What listens in there may not do so yet; then the connection is closed without a word.
    let end = std::time::Instant::now() + qemu_tests::deadline::deadline();
    loop {
        let mut heard = String::new();
        let mut stream = TcpStream::connect(free).expect("QEMU listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        if stream.read_to_string(&mut heard).is_ok() && heard == "served\n" {
            break;
        }
        assert!(std::time::Instant::now() < end, "nobody served: {heard:?}");
    }
    vm.finish().code(0);
    record("a port of the host leads to the container");
}
