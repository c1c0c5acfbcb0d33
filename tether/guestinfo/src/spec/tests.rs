//! Tests of the spec: the keys of VIC's field tables, both generations, and our own.

use super::*;

const ID: &str = "e8f2f2b4b0e6f6a2b4d0c0ffee00112233445566778899aabbccddeeff001122";

/// A key set as VIC's encoder makes it.
const VIC: &str = include_str!("../../tests/keys/vic.vmx");

fn vic() -> Spec {
    Spec::from_vmx(&Vmx::parse(VIC).unwrap()).unwrap()
}

#[test]
fn a_key_set_of_vic_is_read_whole() {
    let spec = vic();
    assert_eq!((spec.id.as_str(), spec.name.as_str()), (ID, "happy_turing"));
    assert_eq!(spec.create_time, 1_500_000_000_000_000_000);
    let session = spec.primary().unwrap();
    assert_eq!(session.cmd.path, "/bin/sh");
    assert_eq!(session.cmd.args, ["/bin/sh", "-c", "echo a"], "VIC's own loss");
    assert_eq!(session.cmd.env, ["PATH=/bin", "A=b"]);
    assert_eq!(session.cmd.dir, "/");
    assert!(
        session.tty && session.attach && session.open_stdin && session.active && session.run_block
    );
    assert!(!session.restart);
    assert_eq!(session.stop_signal, "15");
    assert_eq!((session.user.as_str(), session.group.as_str()), ("u", "g"));
    assert_eq!(spec.key.0, b"-----BEGIN");
    assert_eq!(spec.diagnostics.debug, 3);
    let syslog = spec.diagnostics.syslog.unwrap();
    assert_eq!((syslog.network.as_str(), syslog.address.as_str()), ("tcp", "1.2.3.4:514"));
    assert_eq!(spec.execs["E1"].id, "E1");
    assert_eq!(spec.execs["E1"].cmd.path, "ls");
    assert_eq!(spec.execs["E1"].cmd.dir, "");
    assert_eq!(spec.version.plugin_version, 10);
    assert_eq!(spec.annotations["docker/x"], "y");
    assert_eq!(spec.link, LinkSpec::default());
}

#[test]
fn networks_and_mounts_of_vic_are_read_whole() {
    let spec = vic();
    let bridge = &spec.networks["bridge"];
    assert_eq!(
        (bridge.slot(), bridge.name.as_str(), bridge.is_static),
        (Some(192), "bridge", true)
    );
    assert_eq!(bridge.ip.unwrap().to_string(), "172.16.0.2/16");
    assert_eq!(bridge.ports, ["80/tcp", "8080:80/tcp"]);
    let network = &bridge.network;
    assert_eq!((network.kind.as_str(), network.trust), ("bridge", TrustLevel::Open));
    assert_eq!(
        network.dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["172.16.0.1", "8.8.8.8"]
    );
    assert_eq!(network.destinations[0].to_string(), "10.0.0.0/8");
    assert_eq!(network.pools[0].last.to_string(), "172.16.255.254");
    assert_eq!(network.aliases, ["a:b"]);
    assert_eq!(network.gateway, None);
    assert_eq!(spec.mounts["vol.1"].source.to_string(), "label:d0573dc600f0f819");
    assert_eq!(
        (spec.mounts["vol.1"].dest.as_str(), spec.mounts["vol.1"].copy_mode),
        ("/v", CopyMode::Unspecified)
    );
    assert_eq!(spec.mounts["n"].source.to_string(), "nfs://nfs.example.com/exports/v1");
    assert_eq!(spec.mounts["n"].mode, "addr=nfs.example.com");
    assert_eq!(spec.mounts["n"].copy_mode, CopyMode::Never);
}

#[test]
fn a_network_called_like_a_path_into_another_gives_that_no_address() {
    let pairs = [
        ("guestinfo.vice./networks", "c|c/ip/vlan|c/network/gateway/x"),
        ("guestinfo.vice./networks|c/ip/vlan/static", "true"),
        ("guestinfo.vice./networks|c/network/gateway/x/static", "true"),
    ];
    let networks = Spec::decode(pairs).value.unwrap().networks;
    assert_eq!((networks["c"].ip, networks["c"].network.gateway), (None, None));
    assert!(networks["c/ip/vlan"].is_static);
}

#[test]
fn a_network_called_like_a_field_of_another_is_not_written() {
    let written = |names: &[&str]| {
        let networks = names.iter().map(|name| ((*name).to_owned(), NetworkSpec::default()));
        Spec { networks: networks.collect(), ..Spec::default() }.to_vmx_pairs()
    };
    assert!(written(&["c", "c.d", "c/e/ip"]).is_ok());
    for name in ["c/ip/Mask", "C.IP", "c/network/gateway/x"] {
        let error = written(&["c", name]).unwrap_err();
        let EncodeError::EntryTwins { first, second, .. } = error else { panic!("{error}") };
        assert_eq!((first.as_str(), second.as_str()), ("c", name));
    }
}

#[test]
fn what_is_written_reads_back_through_a_vmx_file() {
    let mut spec = vic();
    let session = spec.sessions.get_mut(ID).unwrap();
    session.cmd.args = ["/bin/sh", "-c", "echo a|b\nüber \"x\"", ""].map(str::to_owned).to_vec();
    spec.link = LinkSpec {
        protection: Protection::Plain,
        linger: 5,
        mode: LinkMode::NonBlocking,
        max_buffer_size: 4096,
        spool: true,
    };
    session.process = ProcessSpec {
        ulimits: vec!["nofile=1024:2048".parse().unwrap(), "core=0:-1".parse().unwrap()],
        oom_score_adj: OomScore::try_from(-500).unwrap(),
        cap_add: vec!["NET_RAW".parse().unwrap()],
        cap_drop: vec![Capability::All],
        no_new_privileges: true,
        group_add: vec!["audio".into(), "1234".into()],
    };
    spec.container = ContainerSpec {
        read_only: true,
        tmpfs: vec!["/run:size=64m,mode=755".parse().unwrap(), "/tmp".parse().unwrap()],
        shm_size: 1 << 30,
        mask_paths: true,
        init: true,
        memory: 5 << 30,
        pids: 100,
        nano_cpus: 1_500_000_000,
    };
    let mut vmx = Vmx::new();
    for (key, value) in spec.to_vmx_pairs().unwrap() {
        assert_ne!(value, "", "{key}: vSphere would drop it");
        vmx.set(key, value).unwrap();
    }
    let again = Vmx::parse(vmx.to_string()).unwrap();
    assert_eq!(Spec::from_vmx(&again).unwrap(), spec);
    assert_eq!(again.get("guestinfo.vice./link/protection"), Some("plain"));
    assert_eq!(again.get("guestinfo.vice./link/linger"), Some("5"));
    assert_eq!(again.get("guestinfo.vice./link/mode"), Some("non-blocking"));
    assert_eq!(again.get("common/name"), Some("happy_turing"));
    let process = |key: &str| again.get(&format!("guestinfo.vice./sessions|{ID}/process/{key}"));
    assert_eq!(process("ulimits~"), Some("nofile=1024:2048|core=0:-1"));
    assert_eq!(process("oomScoreAdj"), Some("-500"));
    assert_eq!(process("capDrop~"), Some("ALL"));
    assert_eq!(again.get("guestinfo.vice./container/tmpfs~"), Some("/run:size=64m,mode=755|/tmp"));
    assert_eq!(again.get("guestinfo.vice./container/memory"), Some("5368709120"));
}

/// VIC 0.4's form of hello-world, with one of our own keys beside it.
const OLDER: &str = include_str!("../../tests/keys/vic04.vmx");

#[test]
fn the_older_generation_of_keys_is_read() {
    let spec = Spec::from_vmx(&Vmx::parse(OLDER).unwrap()).unwrap();
    assert_eq!(spec.header, Header::Bare);
    assert_eq!((spec.name.as_str(), spec.repo.as_str()), ("jolly_panini", "hello-world"));
    assert_eq!((spec.create_time, spec.diagnostics.debug), (1_470_000_000, 2));
    assert_eq!(spec.full_hostname(), "jolly_panini");
    let session = spec.primary().unwrap();
    assert_eq!(
        (session.cmd.path.as_str(), session.cmd.args.as_slice()),
        ("/hello", &["/hello".to_owned()][..])
    );
    assert!(session.active, "had no such key");
    assert!(session.open_stdin, "went with attach");
    assert_eq!(spec.networks["bridge"].ip.unwrap().to_string(), "172.16.0.2/16");
    assert!(spec.networks["bridge"].is_static && !spec.networks["dhcp"].is_static);
    assert_eq!(spec.link.protection, Protection::Plain);
}

#[test]
fn the_older_generations_two_keys_for_debug_are_both_read() {
    for key in ["guestinfo./diagnostics/debug", "guestinfo./common/diagnostics/debug"] {
        let spec = Spec::from_pairs([("guestinfo./common/id", "ID"), (key, "2")]).unwrap();
        assert_eq!(spec.diagnostics.debug, 2, "{key}");
    }
}

#[test]
fn older_keys_left_beside_newer_ones_do_not_count() {
    let newer = [("guestinfo.vice./common/id", "new"), ("guestinfo.vice./sessions", "new")];
    let older = Vmx::parse(OLDER).unwrap();
    let spec = Spec::from_pairs(older.iter().chain(newer)).unwrap();
    assert_eq!((spec.header, spec.id.as_str(), spec.repo.as_str()), (Header::Vice, "new", ""));
    assert_eq!(spec.sessions.keys().collect::<Vec<_>>(), ["new"]);
}

#[test]
fn every_bad_key_is_told_and_the_rest_is_there() {
    let pairs = [
        ("guestinfo.vice./common/id", "ID"),
        ("guestinfo.vice./sessions", "ID"),
        ("guestinfo.vice./sessions|ID/tty", "maybe"),
        ("guestinfo.vice./sessions|ID/cmd/Path", "/bin/sh"),
        ("guestinfo.vice./networks", "n"),
        ("guestinfo.vice./networks|n/ip/IP", "!"),
        ("guestinfo.vice./networks|n/network/TrustLevel", "9"),
        ("guestinfo.vice./link/protection", "none"),
        ("guestinfo.vice./link/linger", "-1"),
        ("guestinfo.vice./container/pids", "few"),
    ];
    let decoded = Spec::decode(pairs);
    let keys: Vec<_> = decoded.errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(
        keys,
        pairs
            .map(|(key, _)| key)
            .into_iter()
            .filter(|key| pairs[2].0 == *key || pairs[5..].iter().any(|(k, _)| k == key))
            .collect::<Vec<_>>()
    );
    let spec = decoded.value.unwrap();
    assert_eq!(spec.primary().unwrap().cmd.path, "/bin/sh");
    assert_eq!(spec.link.protection, Protection::Sealed, "never less than asked for");
}

fn with_sessions(id: &str, sessions: &[&str]) -> Spec {
    let all = sessions.join("|");
    Spec::from_pairs([("guestinfo.vice./common/id", id), ("guestinfo.vice./sessions", &all)])
        .unwrap()
}

#[test]
fn the_primary_session_has_the_containers_id_or_is_the_only_one() {
    assert_eq!(with_sessions("b", &["a", "b"]).primary().unwrap().id, "b");
    assert_eq!(with_sessions("x", &["a"]).primary().unwrap().id, "a");
    assert_eq!(with_sessions("x", &[]).primary(), Err(PrimaryError::NoSession));
    let error = with_sessions("x", &["a", "b"]).primary().unwrap_err();
    assert_eq!(
        error.to_string(),
        "none of the sessions a, b has the container's id \"x\"; give the one to run that id"
    );
}

#[test]
fn the_host_name_falls_back_on_the_id() {
    let mut spec = vic();
    assert_eq!(spec.full_hostname(), &ID[..12]);
    spec.domainname = "example.com".into();
    assert_eq!(spec.full_hostname(), &ID[..12]);
    spec.hostname = "www".into();
    assert_eq!(spec.full_hostname(), "www.example.com");
}
