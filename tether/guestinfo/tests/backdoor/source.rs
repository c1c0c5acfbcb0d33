//! guestinfo as the source of a spec and the sink of a report.

use guestinfo::rpci::{RpciSink, RpciSource};
use guestinfo::sink::Sink as _;
use guestinfo::source::Source as _;
use guestinfo::{Header, Spec, Vmx};

use hypervisor::Hypervisor;

const VIC: &str = include_str!("../keys/vic.vmx");
const OLDER: &str = include_str!("../keys/vic04.vmx");

/// What guests may read of a VMX file.
fn guest_visible(file: &str) -> Vec<(String, String)> {
    let vmx = Vmx::parse(file).expect("a VMX file");
    let visible = vmx.iter().filter(|(key, _)| key.starts_with("guestinfo."));
    visible.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn holding(pairs: &[(String, String)]) -> Hypervisor {
    Hypervisor {
        high_bandwidth: true,
        ..Hypervisor::with_values(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }
}

#[test]
fn a_spec_is_found_key_by_key() {
    for file in [VIC, OLDER] {
        let visible = guest_visible(file);
        let mut hypervisor = holding(&visible);
        let found = RpciSource::new(&mut hypervisor).read().expect("reads").expect("is there");
        assert_eq!(
            Spec::from_pairs(found).expect("reads"),
            Spec::from_pairs(visible).expect("reads")
        );
        assert!(hypervisor.all_closed());
        let n_asked = hypervisor.heard.len();
        assert!(n_asked < 400, "{n_asked} questions");
    }
}

#[test]
fn lists_with_pipes_are_found_key_by_key() {
    let mut spec = Spec::from_pairs(guest_visible(VIC)).expect("reads");
    for session in spec.sessions.values_mut() {
        session.cmd.args = ["sh", "-c", "a|b", "c|d", "|"].map(str::to_owned).to_vec();
    }
    let visible: Vec<_> = spec
        .to_vmx_pairs()
        .expect("encodes")
        .into_iter()
        .filter(|(key, _)| key.starts_with("guestinfo."))
        .collect();
    let mut hypervisor = holding(&visible);
    let found = RpciSource::new(&mut hypervisor).read().expect("reads").expect("is there");
    assert_eq!(Spec::from_pairs(found).expect("reads"), spec);
}

#[test]
fn without_values_there_is_no_source() {
    assert_eq!(RpciSource::new(&mut Hypervisor::default()).read().expect("reads"), None);
    assert_eq!(RpciSource::detect().read().expect("reads"), None, "not on VMware");
}

#[test]
fn a_hypervisor_that_fails_is_an_error_and_not_an_empty_config() {
    let mut garbling = Hypervisor { reply: Some(Some(b"?".to_vec())), ..Hypervisor::default() };
    let error = RpciSource::new(&mut garbling).read().expect_err("garbage").to_string();
    assert!(error.contains("replied \"?\""), "{error}");
    assert_eq!(garbling.heard.len(), 1, "the first failure ends it");
    let mut hypervisor = holding(&guest_visible(VIC));
    hypervisor.values.insert("guestinfo.vice./hostname".to_owned(), b"caf\xE9".to_vec());
    let error = RpciSource::new(&mut hypervisor).read().expect_err("not UTF-8").to_string();
    assert!(error.contains("guestinfo.vice./hostname is not UTF-8"), "{error}");
}

#[test]
fn a_list_that_says_it_is_endless_ends_where_nothing_is() {
    let pairs = [
        ("guestinfo.vice./networks", "n"),
        ("guestinfo.vice./networks|n/network/dns", "1000000000"),
        ("guestinfo.vice./networks|n/network/dns|0", "rBAAAQ=="),
    ];
    let mut hypervisor = Hypervisor::with_values(pairs);
    let found = RpciSource::new(&mut hypervisor).read().expect("reads").expect("is there");
    assert_eq!(found.len(), 3);
    assert!(hypervisor.heard.len() < 200, "{} questions", hypervisor.heard.len());
}

#[test]
fn a_report_is_written_and_what_is_refused_is_told() {
    let mut hypervisor = Hypervisor { max_value: Some(20), ..Hypervisor::default() };
    let mut report = guestinfo::Report { agent_version: "0.1.0".into(), ..Default::default() };
    report.sessions.entry("ID".to_owned()).or_default().started =
        guestinfo::Started::Failed("a reason that is too long for it".into());
    let pairs = report.to_pairs(Header::Vice).expect("encodes");
    let error = RpciSink::new(&mut hypervisor).write(&pairs).expect_err("one is too long");
    assert_eq!(
        error.reasons,
        ["info-set guestinfo.vice..sessions|ID.started: the hypervisor refused: Value too large"]
    );
    assert_eq!(
        hypervisor.values["guestinfo.vice..link.version"], b"0.1.0",
        "the others are written"
    );
    hypervisor.max_value = None;
    RpciSink::new(&mut hypervisor).write(&pairs).expect("all of them");
    assert_eq!(
        hypervisor.values["guestinfo.vice..sessions|id.started"],
        b"a reason that is too long for it"
    );
}

#[test]
fn what_is_refused_is_named_in_full_with_an_id_as_vic_gives_them() {
    let mut hypervisor = Hypervisor { max_value: Some(20), ..Hypervisor::default() };
    let key = format!("guestinfo.vice..sessions|{}.diagnostics.exitlogs|0.Time", "b".repeat(64));
    let pairs = [(key.clone(), "2017-07-14 02:40:02.5 +0000 UTC".to_owned())];
    let error = RpciSink::new(&mut hypervisor).write(&pairs).expect_err("it is too long");
    let expected = format!("info-set {key}: the hypervisor refused: Value too large");
    assert_eq!(error.reasons, [expected]);
}
