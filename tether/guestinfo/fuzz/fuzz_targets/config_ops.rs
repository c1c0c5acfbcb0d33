//! Pairs with keys that a config has, and whatever values: a config or errors, and what is a config
//! survives being written.
#![no_main]

use guestinfo::{Report, Spec};
use libfuzzer_sys::fuzz_target;

const FIRST: [&str; 4] = ["guestinfo.vice.", "guestinfo.", "guestinfo.vice./link/", ""];
const LAST: [&str; 40] = [
    "/common/id",
    "/common/name",
    "/sessions",
    "/sessions|a",
    "/sessions|a/cmd/Path",
    "/sessions|a/cmd/Args",
    "/sessions|a/cmd/Args~",
    "/sessions|a/cmd/Env~",
    "/sessions|a/tty",
    "/sessions|a/openstdin",
    "/sessions|a/runblock",
    "/sessions|a/restart",
    "/sessions|a/user",
    "/execs",
    "/execs|b/cmd/Path",
    "/execs|b/cmd/Args~",
    "/networks",
    "/networks|c/network/Common/name",
    "/networks|c/ip/IP",
    "/networks|c/ip/Mask",
    "/networks|c/network/pools",
    "/networks|c/network/pools~",
    "/networks|c/network/nameservers|0/IP",
    "/mounts",
    "/mounts|d/mode",
    "/mounts|d/source/Path",
    "/mounts|d/path",
    "/hostname",
    "/domainname",
    "/diagnostics/debug",
    "/diagnostics/syslog/network",
    "/key",
    "/version",
    "/layer",
    "/repo",
    "/sessions|a/status",
    "/sessions|a/started",
    "/sessions|a/detail/starttime",
    "/sessions|a/stopsignal",
    "/link/mode",
];

fuzz_target!(|pairs: Vec<(u8, u8, String)>| {
    let pairs: Vec<_> = pairs
        .into_iter()
        .map(|(first, last, value)| {
            let last = LAST[usize::from(last) % LAST.len()];
            // Both forms of a key: with a slash for what the guest only reads, with a dot for the rest.
            let last = if first & 4 == 0 { last.to_owned() } else { last.replace('/', ".") };
            (FIRST[usize::from(first) % FIRST.len()].to_owned() + &last, value)
        })
        .collect();
    let decoded = Spec::decode(pairs.iter().map(|(key, value)| (key, value)));
    let spec = decoded.value.expect("there always is a value");
    drop(spec.primary());
    drop(spec.full_hostname());
    assert!(spec.changes_from(&spec).is_empty());
    drop(spec.changes_from(&Spec::default()));
    if let Ok(written) = spec.to_vmx_pairs() {
        let again = Spec::decode(written.iter().map(|(key, value)| (key, value)));
        let again = again.value.expect("there always is a value").to_vmx_pairs();
        assert_eq!(again.as_ref(), Ok(&written));
    }
    drop(Report::from_pairs(pairs));
});
