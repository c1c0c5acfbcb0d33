//! Any spec and any report survive being written and read, through a VMX file too.
#![allow(missing_docs, reason = "a test has no readers of its API")]

use std::collections::BTreeMap;

use guestinfo::{
    Blob, CmdSpec, CopyMode, EndpointReport, ExitLog, Header, Ip, IpNet, IpRange, LinkMode,
    LinkSpec, MountReport, MountSpec, NetworkSpec, Protection, Report, RouteSpec, SessionReport,
    SessionSpec, Spec, Started, Timestamp, TrustLevel, Url, Vmx,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Any text but the one that stands for the empty one.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/|~@. \n\"#]{0,12}", any::<String>()]
        .prop_filter("nil", |text| text != "<nil>")
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..5).prop_filter("nil", |texts| texts.join("|") != "<nil>")
}

/// What can name a session, network or volume: part of a key, and no twin of another in lower case.
fn name() -> impl Strategy<Value = String> {
    "[a-z0-9_@~-][a-z0-9._@~-]{0,11}"
}

fn map<T: std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = BTreeMap<String, T>> {
    btree_map(name(), value, 0..4).prop_filter("twins", |map| {
        map.keys().all(|name| {
            map.keys().filter(|other| other.replace('.', "/") == name.replace('.', "/")).count()
                == 1
        })
    })
}

fn ip() -> impl Strategy<Value = Ip> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|bytes| Ip(bytes.into())),
        any::<[u8; 16]>().prop_map(|bytes| Ip(bytes.into()))
    ]
    .prop_filter(
        "v4 in v6 clothes",
        |ip| !matches!(ip.0, std::net::IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()),
    )
}

fn net() -> impl Strategy<Value = IpNet> {
    (ip(), 0..=128u8).prop_map(|(ip, len)| {
        let prefix_len = if ip.0.is_ipv4() { len.min(32) } else { len };
        IpNet { addr: ip.0, prefix_len }
    })
}

fn session() -> impl Strategy<Value = SessionSpec> {
    let cmd = (text(), texts(), texts(), text()).prop_map(|(path, args, env, dir)| CmdSpec {
        path,
        args,
        env,
        dir,
    });
    (cmd, any::<[bool; 6]>(), vec(text(), 5), any::<i64>()).prop_map(
        |(cmd, flags, texts, create_time)| {
            let [tty, open_stdin, attach, run_block, active, restart] = flags;
            let [name, notes, stop_signal, user, group] = texts.try_into().expect("five");
            SessionSpec {
                id: "id".into(),
                cmd,
                tty,
                open_stdin,
                attach,
                run_block,
                active,
                restart,
                name,
                notes,
                stop_signal,
                user,
                group,
                create_time,
                ..SessionSpec::default()
            }
        },
    )
}

fn network() -> impl Strategy<Value = NetworkSpec> {
    let trust =
        prop::sample::select(vec![TrustLevel::Unspecified, TrustLevel::Open, TrustLevel::Peers]);
    let pool = (ip(), ip()).prop_map(|(first, last)| IpRange { first, last });
    let route = (
        trust,
        prop::option::of(net()),
        vec(ip(), 0..3),
        vec(net(), 0..3),
        vec(pool, 0..3),
        texts(),
    )
        .prop_map(|(trust, gateway, dns, destinations, pools, aliases)| RouteSpec {
            trust,
            gateway,
            dns,
            destinations,
            pools,
            aliases,
            ..RouteSpec::default()
        });
    (route, any::<bool>(), prop::option::of(net()), texts()).prop_map(
        |(network, is_static, ip, ports)| NetworkSpec {
            id: "192".into(),
            network,
            is_static,
            ip,
            ports,
            ..NetworkSpec::default()
        },
    )
}

fn mount() -> impl Strategy<Value = MountSpec> {
    let mode = prop::sample::select(vec![CopyMode::Unspecified, CopyMode::Never, CopyMode::New]);
    (vec(text(), 4), mode).prop_map(|(texts, copy_mode)| {
        let [host, path, dest, mode] = texts.try_into().expect("four");
        MountSpec {
            source: Url { scheme: "nfs".into(), host, path, ..Url::default() },
            dest,
            mode,
            copy_mode,
        }
    })
}

fn spec() -> impl Strategy<Value = Spec> {
    let link = (any::<bool>(), any::<(u64, u64)>(), any::<(bool, bool)>()).prop_map(
        |(plain, (linger, max), (lossy, spool))| LinkSpec {
            protection: if plain { Protection::Plain } else { Protection::Sealed },
            linger,
            mode: if lossy { LinkMode::NonBlocking } else { LinkMode::Blocking },
            max_buffer_size: max,
            spool,
        },
    );
    (
        map(session()),
        map(session()),
        map(network()),
        map(mount()),
        map(text()),
        vec(text(), 3),
        vec(any::<u8>(), 0..40),
        link,
    )
        .prop_map(|(sessions, execs, networks, mounts, annotations, texts, key, link)| {
            let [name, hostname, notes] = texts.try_into().expect("three");
            Spec {
                id: "id".into(),
                name,
                hostname,
                notes,
                sessions,
                execs,
                networks,
                mounts,
                annotations,
                link,
                key: Blob(key),
                ..Spec::default()
            }
        })
}

fn report() -> impl Strategy<Value = Report> {
    let log = (0..253_402_300_799i64, 0..1_000_000_000u32, any::<i32>(), text()).prop_map(
        |(seconds, nanos, exit_status, message)| ExitLog {
            time: Timestamp::from_unix(seconds, nanos).expect("before the year 10000"),
            exit_status,
            message,
        },
    );
    let started = || {
        prop_oneof![
            Just(Started::No),
            Just(Started::Yes),
            text()
                .prop_filter("words of their own", |text| !["", "true"].contains(&text.as_str()))
                .prop_map(Started::Failed),
        ]
    };
    let session = (
        started(),
        any::<Option<i32>>(),
        any::<Option<i64>>(),
        any::<i64>(),
        vec(log, 0..3),
        any::<Option<bool>>(),
    )
        .prop_map(|(started, status, stop_time, resurrections, exit_logs, run_block)| {
            SessionReport {
                started,
                status,
                stop_time,
                resurrections,
                exit_logs,
                run_block,
                ..SessionReport::default()
            }
        });
    let endpoint = (started(), prop::option::of(net()), prop::option::of(net()), vec(ip(), 0..3))
        .prop_map(|(configured, assigned, gateway, dns)| EndpointReport {
            configured,
            assigned,
            gateway,
            dns,
        });
    let mount = started().prop_map(|mounted| MountReport { mounted });
    (map(session), map(endpoint), map(mount)).prop_map(|(sessions, networks, mounts)| Report {
        sessions,
        networks,
        mounts,
        ..Report::default()
    })
}

/// The host's index of a map, which a report does not write.
fn index<T>(key: &str, map: &BTreeMap<String, T>) -> (String, String) {
    (key.to_owned(), map.keys().map(String::as_str).collect::<Vec<_>>().join("|"))
}

fn read_report(report: &Report, pairs: BTreeMap<String, String>) -> Report {
    let indexes = [
        index("guestinfo.vice./sessions", &report.sessions),
        index("guestinfo.vice./networks", &report.networks),
        index("guestinfo.vice./mounts", &report.mounts),
    ];
    Report::from_pairs(pairs.into_iter().chain(indexes)).expect("reads")
}

proptest! {
    #[test]
    fn any_spec_survives_a_vmx_file(spec in spec()) {
        let mut vmx = Vmx::new();
        for (key, value) in spec.to_vmx_pairs().expect("encodes") {
            vmx.set(key, value).expect("fits");
        }
        let again = Vmx::parse(vmx.to_string()).expect("parses");
        prop_assert_eq!(Spec::from_vmx(&again).expect("reads"), spec);
    }

    #[test]
    fn any_report_survives_being_written(report in report()) {
        let pairs = report.to_pairs(Header::Vice).expect("encodes").into_iter().collect();
        prop_assert_eq!(read_report(&report, pairs), report);
    }

    #[test]
    fn changes_bring_what_was_written_to_what_is(before in report(), mut after in report(), same in any::<bool>()) {
        if same {
            after.sessions.extend(before.sessions.clone());
        }
        let mut pairs: BTreeMap<_, _> = before.to_pairs(Header::Vice).expect("encodes").into_iter().collect();
        pairs.extend(after.changes(&before, Header::Vice).expect("encodes"));
        // Taken back is as good as never written, but for a number: `<nil>` reads as 0.
        let mut read = read_report(&after, pairs);
        for (id, session) in &mut read.sessions {
            let expected = &after.sessions[id];
            session.status = session.status.filter(|status| *status != 0 || expected.status == Some(0));
            session.stop_time = session.stop_time.filter(|time| *time != 0 || expected.stop_time == Some(0));
            session.run_block = session.run_block.filter(|block| *block || expected.run_block == Some(false));
        }
        for (name, endpoint) in &mut read.networks {
            let expected = &after.networks[name];
            let zero = |net: &IpNet| net.addr.is_unspecified() && net.prefix_len == 32;
            endpoint.assigned = endpoint.assigned.filter(|net| !zero(net) || expected.assigned == Some(*net));
            endpoint.gateway = endpoint.gateway.filter(|net| !zero(net) || expected.gateway == Some(*net));
        }
        prop_assert_eq!(read, after);
    }
}
