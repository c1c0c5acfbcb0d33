//! Volumes on NFS servers of the host: of both families of versions, by name, and on servers that are not there.

use crate::bench::{Bench, id, lines};
use crate::disks::{PlainDisk, set};
use crate::ganesha::Ganesha;
use crate::keys::vic;
use crate::networks::{shell, way_out};
use crate::share::Share;
use crate::volumes::runs;
use qemu_tests::{Checkout, Lab};
use std::net::TcpListener;

/// A volume of VIC's keys on a server.
fn volume(pairs: &mut Vec<(String, String)>, name: &str, host: &str, options: &str, copy: &str) {
    for (key, value) in [
        ("source/Scheme", "nfs"),
        ("source/Host", host),
        ("source/Path", "/exports/v1"),
        ("dest", &format!("/{name}")),
        ("mode", options),
        ("copymode", copy),
    ] {
        set(pairs, &format!("/mounts|{name}/{key}"), value);
    }
}

#[test]
fn vics_keys_mount_a_directory_of_a_server_and_others_see_what_is_written() {
    let bench = Bench::new();
    let id = id('a');
    let share = Share::new([("hello", "from the server\n")]);
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    way_out(&mut pairs);
    let script =
        "cat /n/hello; echo mine >/n/mine; ls -A /n; grep -o ',vers=[0-9.]*' /proc/mounts; exit 3";
    runs(&mut pairs, &id, script);
    set(&mut pairs, "/mounts", "n");
    // As VIC writes it, for a server that knows version 3 alone: the newer ones are tried before.
    volume(&mut pairs, "n", "10.0.2.2", &share.options(), "1");
    let vmx = bench.vmx("share", &lines(&pairs));
    let vm = bench.lab.containervm(["start", "-a", &vmx]).finish();
    vm.code(3).prints("from the server\nhello\nmine\n,vers=3\n");
    assert_eq!(share.read("mine").as_deref(), Some("mine\n"));
    let report = bench.inspect(&id)["report"].clone();
    assert_eq!(report["guestinfo.vice..mounts|n.mounted"], "true", "{report:#}");
}

#[test]
fn a_server_that_does_not_answer_ends_the_start_in_a_bounded_time() {
    let bench = Bench::new();
    let id = id('b');
    // The kernel takes connections for it, and nobody ever reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("it has one").port();
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    way_out(&mut pairs);
    set(&mut pairs, "/mounts", "n");
    volume(&mut pairs, "n", "10.0.2.2", &format!("port={port}"), "1");
    let vmx = bench.vmx("silent", &lines(&pairs));
    let told = "volume n: 10.0.2.2:/exports/v1 could not be mounted in 20 s, for the server does not answer";
    bench.lab.containervm(["start", "-a", &vmx]).finish().code(125).complains(&[told]);
    let report = bench.inspect(&id)["report"].clone();
    for key in ["mounts|n.mounted".to_owned(), format!("sessions|{id}.started")] {
        let value = report[format!("guestinfo.vice..{key}")].as_str().unwrap_or_default();
        assert!(value.starts_with(told), "{key}: {report:#}");
    }
    let console = bench.console("silent");
    assert!(console.contains(told) && console.contains("power off"), "{console}");
}

#[test]
fn a_volume_of_dockers_options_is_a_directory_of_a_server_of_version_4() {
    let lab = Lab::new();
    let server = Ganesha::start(&lab);
    let options = format!("o=addr=10.0.2.2,port={}", server.port);
    let create =
        ["volume", "create", "-o", "type=nfs", "-o", "device=:/exports/v1", "-o", &options, "far"];
    lab.containervm(create).finish().code(0).prints("far\n");
    let listed = lab.containervm(["volume", "ls"]).finish();
    listed.code(0).shows("far  ").shows("nfs :/exports/v1 addr=10.0.2.2");

    // A new one gets what the image has in its place, as with Docker.
    let script = "grep -c root /etc/passwd; grep -o ',vers=[0-9.]*' /proc/mounts; echo mine >/etc/mine; \
                  seq 1 100000 | tee /etc/large | sha256sum";
    let first = lab.run(["-v", "far:/etc", "busybox", "sh", "-c", script]);
    first.code(0).shows("1\n,vers=4.2\n");
    let script = "cat /data/mine; sha256sum </data/large; ls -A /data | grep -c vic; touch /data/x || exit 7";
    let second = lab.run(["-v", "far:/data:ro", "busybox", "sh", "-c", script]);
    let sum = first.out().lines().last().expect("a sum").to_owned();
    second.code(7).prints(&format!("mine\n{sum}\n0\n"));
    lab.containervm(["volume", "rm", "far"]).finish().code(0).prints("far\n");
    let gone = lab.containervm(["volume", "rm", "far"]).finish();
    gone.complains(&["there is no volume \"far\""]);
}

#[test]
fn a_vm_ends_although_the_server_of_its_volume_answers_no_more() {
    let bench = Bench::new();
    let id = id('c');
    let share = Share::new([("hello", "from the server\n")]);
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    way_out(&mut pairs);
    runs(&mut pairs, &id, "cat /n/hello; read line; echo written >/n/file; exit 3");
    set(&mut pairs, "/mounts", "n");
    volume(&mut pairs, "n", "10.0.2.2", &share.options(), "1");
    let vmx = bench.vmx("gone", &lines(&pairs));
    let mut vm = bench.lab.containervm(["start", "-ai", &vmx]);
    vm.expect("from the server\n");
    share.hush();
    vm.write("\n");
    vm.await_that("the file", || share.read("file").is_some());
    bench.lab.serialmux(["stop", "-t", "2", &id]).finish().code(0);
    vm.finish().code(137);
    let console = bench.console("gone");
    assert!(console.contains("a server of a volume does not answer"), "{console}");
    assert!(console.contains("power off"), "{console}");
    assert_eq!(share.read("file").as_deref(), Some(""), "it was made, and never written");
}

#[test]
fn a_reload_mounts_from_a_server_by_name_and_the_container_goes_on_while_another_is_silent() {
    let bench = Bench::new();
    let id = id('d');
    let share = Share::new([("hello", "from the server\n")]);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut pairs = vic(&id, &["PATH=/bin".to_owned()]);
    way_out(&mut pairs);
    // The container is its own name server: 10.0.2.15.
    set(&mut pairs, "/networks|bridge/network/dns", "0");
    set(&mut pairs, "/networks|bridge/network/dns|0", "CgACDw==");
    shell(&mut pairs, &id);
    let (vmx, config) = (bench.vmx("names", &lines(&pairs)), PlainDisk::new(&bench));
    config.write(&pairs);
    let vm = bench.lab.start(bench.without_config(&vmx, &config.device()));
    let mut attached = bench.lab.serialmux(["attach", &id]);
    attached.expect("up\n");
    let names = Checkout::built().gauge().with_file_name("names").display().to_string();
    bench.lab.serialmux(["cp", &names, &format!("{id}:/names")]).finish().code(0);
    attached.write("/names 10.0.2.2 &\n");
    attached.expect("listening\n");

    set(&mut pairs, "/mounts", "n|slow");
    volume(&mut pairs, "n", "nas.test", &share.options().replace("10.0.2.2", "nas.test"), "1");
    let port = silent.local_addr().expect("it has one").port();
    volume(&mut pairs, "slow", "10.0.2.2", &format!("port={port}"), "1");
    config.write(&pairs);
    let reload = bench.lab.serialmux(["reload", &id]).finish();
    reload.code(0).shows("volume n is being mounted on /n; volume slow is being mounted on /slow");
    let [n, slow] = ["n", "slow"].map(|name| format!("guestinfo.vice..mounts|{name}.mounted"));
    let report = bench.await_report(&id, |report| !report[&n].is_null());
    assert_eq!(report[&n], "true");
    assert!(report[&slow].is_null(), "it was not waited for: {report:#}");
    attached.write("cat /n/hello; grep -o 'nas.test:[^ ]*' /proc/mounts\n");
    attached.expect("from the server\nnas.test:/exports/v1\n");
    let report = bench.await_report(&id, |report| !report[&slow].is_null());
    let told = report[&slow].as_str().unwrap_or_default();
    assert!(told.contains("the server does not answer"), "{told}");
    attached.write("echo still here; exit 4\n");
    attached.expect("still here\n");
    attached.finish().code(4);
    vm.finish().code(0);
}
