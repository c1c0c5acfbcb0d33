//! Every example key of VIC's own tests: a struct for each is read from it, and written as VIC writes it.
#![allow(missing_docs, reason = "a test has no readers of its API")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use guestinfo::extraconfig::{Header, Key, from_pairs, to_pairs};
use guestinfo::{IpNet, Spec, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[track_caller]
fn check<T>(value: &T, pairs: &[(&str, &str)])
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let written = to_pairs(value, Header::Vice).expect("encodes");
    let written: Vec<_> = written.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(written, pairs);
    let read = from_pairs::<T, _, _>(Header::Vice, pairs.iter().copied()).expect("decodes");
    assert_eq!(&read, value);
}

/// A struct of one field, which has this mark.
macro_rules! one {
    ($name:ident, $kind:ty, $key:literal) => {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct $name {
            #[serde(rename = $key)]
            field: $kind,
        }
    };
}

one!(Int, i64, ".int");
one!(Bool, bool, ".bool");
one!(Float, f64, ".float");
one!(Text, String, ".string");
one!(Ints, Vec<i32>, "/intslice");
one!(IntMap, BTreeMap<String, i32>, "/intmap");
one!(Numbered, BTreeMap<i32, i32>, "/map");
one!(Common, Noted, "/common");
one!(Time, Timestamp, "/time");
one!(Net, IpNet, "/net");
one!(Map, BTreeMap<String, Named>, "/map");
one!(Slice, Vec<Id>, "/slice");
one!(Id, String, "/id");
one!(Hidden, Executor, "-executorconfig");
one!(Pointers, Sessions, "/pointers");

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Noted {
    #[serde(rename = "/id")]
    id: String,
    #[serde(rename = "/notes")]
    notes: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Named {
    #[serde(rename = "/id")]
    id: String,
    #[serde(rename = "/name")]
    name: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Executor {
    sessions: BTreeMap<String, Session>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    #[serde(rename = "/common")]
    common: Id,
    #[serde(rename = "cmd/args")]
    args: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sessions {
    #[serde(rename = "/sessions")]
    sessions: BTreeMap<String, Terminal>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Terminal {
    #[serde(rename = "/tty@non-persistent")]
    tty: bool,
}

#[test]
fn scalars_1_to_4() {
    check(&Int { field: 42 }, &[("guestinfo.vice..int", "42")]);
    check(&Bool { field: true }, &[("guestinfo.vice..bool", "true")]);
    let float = Float { field: "3.14".parse().expect("a number") };
    check(&float, &[("guestinfo.vice..float", "3.14E+00")]);
    check(&Text { field: "Grrr".into() }, &[("guestinfo.vice..string", "Grrr")]);
}

#[test]
fn lists_and_maps_of_scalars_5_and_6() {
    let ints = Ints { field: vec![1, 2, 3, 4, 5] };
    check(&ints, &[("guestinfo.vice./intslice", "4"), ("guestinfo.vice./intslice~", "1|2|3|4|5")]);
    let map = IntMap { field: [("1st".into(), 12345), ("2nd".into(), 67890)].into() };
    check(
        &map,
        &[
            ("guestinfo.vice./intmap", "1st|2nd"),
            ("guestinfo.vice./intmap|1st", "12345"),
            ("guestinfo.vice./intmap|2nd", "67890"),
        ],
    );
    let numbered = Numbered { field: [(1, 7), (2, 8), (3, 9)].into() };
    let pairs = to_pairs(&numbered, Header::Vice).expect("encodes");
    assert_eq!(pairs[0], ("guestinfo.vice./map".into(), "1|2|3".into()));
}

#[test]
fn structs_times_and_networks_7_to_9() {
    let common = Common { field: Noted { id: "0xDEADBEEF".into(), notes: String::new() } };
    check(
        &common,
        &[("guestinfo.vice./common/id", "0xDEADBEEF"), ("guestinfo.vice./common/notes", "")],
    );
    let text = "2009-11-10 23:00:00 +0000 UTC";
    let time = Time { field: Timestamp::parse(text).expect("a time") };
    check(&time, &[("guestinfo.vice./time", text)]);
    // Go held it in four bytes here; it is read, and written in the sixteen that Go mostly has.
    let four = [("guestinfo.vice./net/IP", "fwAAAQ=="), ("guestinfo.vice./net/Mask", "/wAAAA==")];
    let net = from_pairs::<Net, _, _>(Header::Vice, four).expect("decodes");
    assert_eq!(net.field.to_string(), "127.0.0.1/8");
    let sixteen = [
        ("guestinfo.vice./net/IP", "AAAAAAAAAAAAAP//fwAAAQ=="),
        ("guestinfo.vice./net/Mask", "/wAAAA=="),
    ];
    check(&net, &sixteen);
}

#[test]
fn maps_and_lists_of_structs_10_and_11() {
    let named = |name: &str| Named { id: "0xDEADBEEF".into(), name: name.into() };
    let map = Map {
        field: [("Key1", "beef"), ("Key2", "lamb"), ("Key3", "pork")]
            .map(|(key, name)| (key.to_owned(), named(name)))
            .into(),
    };
    check(
        &map,
        &[
            ("guestinfo.vice./map", "Key1|Key2|Key3"),
            ("guestinfo.vice./map|Key1/id", "0xDEADBEEF"),
            ("guestinfo.vice./map|Key1/name", "beef"),
            ("guestinfo.vice./map|Key2/id", "0xDEADBEEF"),
            ("guestinfo.vice./map|Key2/name", "lamb"),
            ("guestinfo.vice./map|Key3/id", "0xDEADBEEF"),
            ("guestinfo.vice./map|Key3/name", "pork"),
        ],
    );
    let id = |id: &str| Id { field: id.into() };
    check(
        &Slice { field: vec![id("0xDEADFEED"), id("0xFACEFEED")] },
        &[
            ("guestinfo.vice./slice", "1"),
            ("guestinfo.vice./slice|0/id", "0xDEADFEED"),
            ("guestinfo.vice./slice|1/id", "0xFACEFEED"),
        ],
    );
}

#[test]
fn keys_that_are_revealed_and_hidden_12() {
    let key = |fields: &[&str]| {
        let key = fields
            .iter()
            .fold(Key::root(Header::Vice), |key, field| key.field(field).expect("a field"));
        key.to_string()
    };
    assert_eq!(key(&["-a/b", "/c"]), "guestinfo.vice./a/b/c");
    assert_eq!(key(&[".a", ".b/c"]), "guestinfo.vice..a.b.c");
    assert_eq!(key(&[".a", ".b", "-c"]), "a.b/c");
    assert_eq!(key(&[".a", ".b", ".c@non-persistent"]), "guestinfo.vice..a.b.c@non-persistent");
    assert_eq!(key(&[".a", ".b", ".c@secret"]), "guestinfo.vice..a.b.c@secret");
}

#[test]
fn hidden_structs_and_suffixes_13_and_14() {
    let session = Session {
        common: Id { field: "SessionID".into() },
        args: ["/bin/imagec", "-standalone"].map(str::to_owned).to_vec(),
    };
    check(
        &Hidden { field: Executor { sessions: [("Session1".into(), session)].into() } },
        &[
            ("executorconfig/sessions", "Session1"),
            ("guestinfo.vice./executorconfig/sessions|Session1/common/id", "SessionID"),
            ("executorconfig/sessions|Session1/cmd/args", "1"),
            ("executorconfig/sessions|Session1/cmd/args~", "/bin/imagec|-standalone"),
        ],
    );
    let sessions = [("primary".to_owned(), Terminal { tty: true })].into();
    check(
        &Pointers { field: Sessions { sessions } },
        &[
            ("guestinfo.vice./pointers/sessions", "primary"),
            ("guestinfo.vice./pointers/sessions|primary/tty@non-persistent", "true"),
        ],
    );
}

/// A spec of some keys beside the id and one session.
fn spec(pairs: &[(&str, &str)]) -> Spec {
    let id = [("guestinfo.vice./common/id", "ID"), ("guestinfo.vice./sessions", "ID")];
    Spec::from_pairs(id.into_iter().chain(pairs.iter().copied())).expect("reads")
}

#[test]
fn the_name_is_hidden_from_guests_16() {
    assert_eq!(spec(&[("common/name", "happy_turing")]).name, "happy_turing");
}

#[test]
fn an_item_with_a_pipe_is_cut_as_vics_own_reader_cuts_it_20() {
    let args = [
        ("guestinfo.vice./sessions|ID/cmd/Args~", "/bin/sh|-c|echo a|b"),
        ("guestinfo.vice./sessions|ID/cmd/Args", "2"),
    ];
    assert_eq!(spec(&args).sessions["ID"].cmd.args, ["/bin/sh", "-c", "echo a"]);
}

#[test]
fn nil_on_the_wire_is_an_empty_text_60() {
    let exec = [
        ("guestinfo.vice./execs@non-persistent", "E1"),
        ("guestinfo.vice./execs|E1/cmd/Dir@non-persistent", "<nil>"),
    ];
    assert_eq!(spec(&exec).execs["E1"].cmd.dir, "");
}

#[test]
fn what_vic_has_keys_for_and_no_guest_makes_use_of_is_no_fault() {
    let unused = [
        ("guestinfo.vice..diagnostics.resurrections", "3"),
        ("guestinfo.vice..diagnostics.exitlogs", "0"),
        ("guestinfo.vice..diagnostics.exitlogs|0.ExitStatus", "1"),
        ("guestinfo.vice./sessions|ID/cmd/ExtraFiles", "0"),
    ];
    assert_eq!(spec(&unused), spec(&[]));
}
