//! Tests of the extraconfig codec, on structs made for them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::*;
use crate::{Blob, Ip, IpNet, Timestamp};

mod hostile;

#[track_caller]
fn check<T>(value: &T, expected: &[(&str, &str)])
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let pairs = to_pairs(value, Header::Vice).expect("encodes");
    let written: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(written, expected);
    assert_eq!(&from_pairs::<T, _, _>(Header::Vice, pairs).expect("decodes"), value);
}

#[track_caller]
fn errors<T: DeserializeOwned>(pairs: &[(&str, &str)]) -> Vec<String> {
    let lookup = Pairs::new(Header::Vice, pairs.iter().copied());
    from_lookup::<T>(Header::Vice, &lookup).errors.iter().map(ToString::to_string).collect()
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Scalars {
    #[serde(rename = ".int")]
    int: i64,
    #[serde(rename = ".bool")]
    bool: bool,
    #[serde(rename = ".float")]
    float: f64,
    #[serde(rename = ".string")]
    string: String,
    #[serde(rename = "/blob")]
    blob: Blob,
    #[serde(rename = "/small")]
    small: Option<u8>,
}

#[test]
fn scalars_read_and_write_as_vic_has_them() {
    let value = Scalars {
        int: 42,
        bool: true,
        float: "3.14".parse().unwrap(),
        string: "Grrr".into(),
        blob: Blob(b"key".to_vec()),
        small: None,
    };
    check(
        &value,
        &[
            ("guestinfo.vice..int", "42"),
            ("guestinfo.vice..bool", "true"),
            ("guestinfo.vice..float", "3.14E+00"),
            ("guestinfo.vice..string", "Grrr"),
            ("guestinfo.vice./blob", "a2V5"),
        ],
    );
}

#[test]
fn no_bad_key_hides_another() {
    let found = errors::<Scalars>(&[
        ("guestinfo.vice..int", "4x"),
        ("guestinfo.vice..bool", "maybe"),
        ("guestinfo.vice..float", "a very long value that is no number, and goes on"),
        ("guestinfo.vice./blob", "secret!"),
        ("guestinfo.vice./small", "256"),
    ]);
    assert_eq!(
        found,
        [
            "guestinfo.vice..int = \"4x\"; expected a whole number of 64 bits",
            "guestinfo.vice..bool = \"maybe\"; expected true or false",
            "guestinfo.vice..float = \"a very long value that is no number, and\"…; expected a number",
            "guestinfo.vice./blob = (7 bytes); expected base64",
            "guestinfo.vice./small = \"256\"; expected a whole number from 0 to 255",
        ]
    );
}

#[test]
fn nil_and_empty_are_the_zero_value() {
    for empty in ["", NIL] {
        let pairs =
            ["int", "bool", "float", "string"].map(|k| (format!("guestinfo.vice..{k}"), empty));
        assert_eq!(from_pairs::<Scalars, _, _>(Header::Vice, pairs).unwrap(), Scalars::default());
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Lists {
    #[serde(rename = "/intslice")]
    ints: Vec<i32>,
    #[serde(rename = "/Args")]
    args: Vec<String>,
    #[serde(rename = "/slice")]
    slice: Vec<Common>,
    #[serde(rename = "/dns")]
    dns: Vec<Ip>,
    #[serde(rename = "/times")]
    times: Vec<Timestamp>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Common {
    #[serde(rename = "/id")]
    id: String,
    #[serde(rename = "/notes")]
    notes: Option<String>,
}

fn args(args: &[&str]) -> Lists {
    Lists { args: args.iter().map(ToString::to_string).collect(), ..Lists::default() }
}

#[test]
fn lists_have_their_last_index_and_their_items() {
    let id = |id: &str| Common { id: id.into(), notes: None };
    let value = Lists {
        ints: vec![1, 2, 3, 4, 5],
        args: vec!["a".into(), String::new()],
        slice: vec![id("0xDEADFEED"), id("0xFACEFEED")],
        dns: vec![Ip([8, 8, 8, 8].into())],
        times: vec![Timestamp::from_unix(0, 0).unwrap()],
    };
    check(
        &value,
        &[
            ("guestinfo.vice./intslice", "4"),
            ("guestinfo.vice./intslice~", "1|2|3|4|5"),
            ("guestinfo.vice./Args", "1"),
            ("guestinfo.vice./Args~", "a|"),
            ("guestinfo.vice./slice", "1"),
            ("guestinfo.vice./slice|0/id", "0xDEADFEED"),
            ("guestinfo.vice./slice|1/id", "0xFACEFEED"),
            ("guestinfo.vice./dns", "0"),
            ("guestinfo.vice./dns|0", "AAAAAAAAAAAAAP//CAgICA=="),
            ("guestinfo.vice./times", "0"),
            ("guestinfo.vice./times|0", "1970-01-01 00:00:00 +0000 UTC"),
        ],
    );
    check(&Lists::default(), &[]);
    check(&args(&[""]), &[("guestinfo.vice./Args", "0"), ("guestinfo.vice./Args~", "")]);
}

#[test]
fn items_with_pipes_survive_beside_what_old_readers_see() {
    check(
        &args(&["/bin/sh", "-c", "echo a|b", "c"]),
        &[
            ("guestinfo.vice./Args", "3"),
            ("guestinfo.vice./Args~", "/bin/sh|-c|echo a|b|c"),
            ("guestinfo.vice./Args|2", "echo a|b"),
        ],
    );
}

#[track_caller]
fn check_args(pairs: &[(&str, &str)], expected: &[&str]) {
    let pairs = pairs.iter().map(|(key, value)| (format!("guestinfo.vice./{key}"), *value));
    assert_eq!(from_pairs::<Lists, _, _>(Header::Vice, pairs).unwrap(), args(expected));
}

#[test]
fn without_the_extra_key_a_list_is_cut_as_vic_cuts_it() {
    check_args(&[("Args", "2"), ("Args~", "/bin/sh|-c|echo a|b")], &["/bin/sh", "-c", "echo a"]);
}

#[test]
fn left_over_extra_keys_of_an_older_list_are_not_used() {
    check_args(&[("Args", "1"), ("Args~", "a|b"), ("Args|0", "a|b")], &["a", "b"]);
    check_args(&[("Args", "1"), ("Args~", "x|b|c"), ("Args|0", "a|b")], &["x", "b"]);
    check_args(&[("Args", "1"), ("Args~", "a|bc|d"), ("Args|0", "a|b")], &["a", "bc"]);
    check_args(&[("Args", "1"), ("Args~", "a|b|c|d"), ("Args|0", "a|b")], &["a", "b"]);
    check_args(&[("Args", "-1"), ("Args~", "a|b"), ("Args|0", "a|b")], &[]);
}

#[test]
fn lists_that_do_not_add_up_are_told() {
    let p = "guestinfo.vice./";
    #[track_caller]
    fn one(pairs: &[(&str, &str)], expected: &str) {
        let pairs: Vec<_> =
            pairs.iter().map(|(k, v)| (format!("guestinfo.vice./{k}"), *v)).collect();
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(errors::<Lists>(&pairs), [expected]);
    }
    one(
        &[("Args", "2"), ("Args~", "a|b")],
        &format!("{p}Args~ = \"a|b\"; expected 3 items joined by |, as {p}Args says"),
    );
    one(
        &[("Args", "2")],
        &format!("{p}Args|0 = nothing; expected item 1 of the 3 that {p}Args announces"),
    );
    one(
        &[("Args", "x")],
        &format!("{p}Args = \"x\"; expected the number of the list's items less one"),
    );
    one(
        &[("Args", "-2")],
        &format!("{p}Args = \"-2\"; expected the number of the list's items less one"),
    );
    one(
        &[("Args~", "a|b")],
        &format!(
            "{p}Args~ = \"a|b\"; expected with it the number of its items less one at the key without the ~"
        ),
    );
    one(
        &[("slice", "9223372036854775807"), ("slice|0/id", "x")],
        &format!(
            "{p}slice = \"9223372036854775807\"; expected the number of the list's items less one"
        ),
    );
    one(
        &[("slice", "9223372036854775806"), ("slice|0/id", "x")],
        &format!(
            "{p}slice|1 = nothing; expected item 2 of the 9223372036854775807 that {p}slice announces"
        ),
    );
    one(
        &[("intslice", "2"), ("intslice~", "1|b|3")],
        &format!("{p}intslice|1 = \"b\"; expected a whole number of 32 bits"),
    );
    one(
        &[("dns", "0"), ("dns|0", "AAAA")],
        &format!("{p}dns|0 = \"AAAA\"; expected 4 or 16 bytes of an IP address in base64"),
    );
    one(
        &[("times", "0"), ("times|0", "noon")],
        &format!("{p}times|0 = \"noon\"; expected a time like 2009-11-10 23:00:00 +0000 UTC"),
    );
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Maps {
    #[serde(rename = "/intmap")]
    ints: BTreeMap<String, i32>,
    #[serde(rename = "/map")]
    map: BTreeMap<i32, Common>,
    #[serde(rename = "-annotations")]
    annotations: BTreeMap<String, String>,
}

#[test]
fn maps_have_an_index_and_their_entries() {
    let value = Maps {
        ints: [("2nd".into(), 67890), ("1st".into(), 12345)].into(),
        map: [1, 2, 3]
            .map(|n| (n, Common { id: n.to_string(), notes: Some(String::new()) }))
            .into(),
        annotations: [("docker/x".into(), "y".into())].into(),
    };
    check(
        &value,
        &[
            ("guestinfo.vice./intmap", "1st|2nd"),
            ("guestinfo.vice./intmap|1st", "12345"),
            ("guestinfo.vice./intmap|2nd", "67890"),
            ("guestinfo.vice./map", "1|2|3"),
            ("guestinfo.vice./map|1/id", "1"),
            ("guestinfo.vice./map|1/notes", ""),
            ("guestinfo.vice./map|2/id", "2"),
            ("guestinfo.vice./map|2/notes", ""),
            ("guestinfo.vice./map|3/id", "3"),
            ("guestinfo.vice./map|3/notes", ""),
            ("annotations", "docker/x"),
            ("annotations|docker/x", "y"),
        ],
    );
}

#[test]
fn map_entries_that_would_break_the_index_are_refused() {
    let with = |names: &[&str]| Maps {
        annotations: names.iter().map(|name| (name.to_string(), String::new())).collect(),
        ..Maps::default()
    };
    for bad in ["", "a|b"] {
        let error = to_pairs(&with(&[bad]), Header::Vice).unwrap_err();
        assert!(matches!(&error, EncodeError::EntryName { name, .. } if name == bad), "{error}");
    }
    let error = to_pairs(&with(&["a.b", "a/b"]), Header::Vice).unwrap_err();
    assert!(matches!(error, EncodeError::EntryTwins { .. }), "{error}");
}

#[test]
fn map_indexes_that_make_no_sense_are_told() {
    assert_eq!(
        errors::<Maps>(&[
            ("guestinfo.vice./intmap", "a||b"),
            ("guestinfo.vice./intmap|a", "x"),
            ("guestinfo.vice./intmap|b", "y")
        ]),
        [
            "guestinfo.vice./intmap = \"a||b\"; expected names joined by |, none of them empty",
            "guestinfo.vice./intmap|a = \"x\"; expected a whole number of 32 bits",
            "guestinfo.vice./intmap|b = \"y\"; expected a whole number of 32 bits",
        ]
    );
    assert_eq!(
        errors::<Maps>(&[("guestinfo.vice./intmap", "a|A")]),
        [
            "guestinfo.vice./intmap = \"a|A\"; expected names with keys of their own, but \"a\" and \"A\" share theirs"
        ]
    );
    assert_eq!(errors::<Maps>(&[("guestinfo.vice./map", "x")]).len(), 1);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nets {
    #[serde(rename = "/net")]
    net: Option<IpNet>,
    #[serde(rename = ".assigned", default)]
    assigned: Option<IpNet>,
}

#[test]
fn networks_are_two_keys_in_any_of_gos_widths() {
    let net = |ip: &str, mask: &str| {
        let pairs = [("guestinfo.vice./net/IP", ip), ("guestinfo.vice./net/Mask", mask)];
        from_pairs::<Nets, _, _>(Header::Vice, pairs.into_iter().filter(|(_, v)| *v != "-"))
            .map(|nets| nets.net.map(|net| net.to_string()))
    };
    let is = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(net("fwAAAQ==", "/wAAAA=="), is("127.0.0.1/8"));
    assert_eq!(net("AAAAAAAAAAAAAP//rBAAAg==", "//8AAA=="), is("172.16.0.2/16"));
    assert_eq!(net("AAAAAAAAAAAAAP//rBAAAg==", "/////////////////////w=="), is("172.16.0.2/32"));
    assert_eq!(net("rBAAAg==", "-"), is("172.16.0.2/32"));
    assert_eq!(net("-", "//8AAA=="), is("0.0.0.0/16"));
    assert_eq!(net("IAENuAAAAAAAAAAAAAAAAQ==", "//////////8AAAAAAAAAAA=="), is("2001:db8::1/64"));
    assert_eq!(net("-", "-"), Ok(None));
    assert!(net("rBAAAg==", "/wD/AA==").is_err(), "a mask with a hole");
    check(
        &Nets {
            net: Some(IpNet { addr: [127, 0, 0, 1].into(), prefix_len: 8 }),
            assigned: Some(IpNet { addr: "2001:db8::1".parse().unwrap(), prefix_len: 0 }),
        },
        &[
            ("guestinfo.vice./net/IP", "AAAAAAAAAAAAAP//fwAAAQ=="),
            ("guestinfo.vice./net/Mask", "/wAAAA=="),
            ("guestinfo.vice..assigned.IP", "IAENuAAAAAAAAAAAAAAAAQ=="),
            ("guestinfo.vice..assigned.Mask", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ],
    );
}

#[test]
fn a_types_own_complaint_carries_the_key_and_hides_nothing() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "u8")]
    struct Even;
    impl TryFrom<u8> for Even {
        type Error = String;
        fn try_from(number: u8) -> Result<Self, String> {
            if number.is_multiple_of(2) { Ok(Self) } else { Err("an even number".into()) }
        }
    }
    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Both {
        #[serde(rename = "/a")]
        a: Option<Even>,
        #[serde(rename = "/b")]
        b: Option<Even>,
        #[serde(rename = "/c")]
        c: i8,
    }
    let pairs =
        [("guestinfo.vice./a", "1"), ("guestinfo.vice./b", "3"), ("guestinfo.vice./c", "x")];
    assert_eq!(
        errors::<Both>(&pairs),
        [
            "guestinfo.vice./c = \"x\"; expected a whole number from -128 to 127",
            "guestinfo.vice./a = \"1\"; expected an even number",
            "guestinfo.vice./b = \"3\"; expected an even number",
        ]
    );
    let lookup = Pairs::new(Header::Vice, pairs);
    let value = from_lookup::<Both>(Header::Vice, &lookup).value.expect("goes around the faults");
    assert!(value.a.is_none() && value.b.is_none() && value.c == 0);
}

#[test]
fn letter_case_of_keys_does_not_matter() {
    let pairs = [
        ("GUESTINFO.VICE..INT", "7"),
        ("guestinfo.vice./ARGS", "0"),
        ("guestinfo.vice./args~", "X"),
    ];
    assert_eq!(from_pairs::<Scalars, _, _>(Header::Vice, pairs).unwrap().int, 7);
    assert_eq!(from_pairs::<Lists, _, _>(Header::Vice, pairs).unwrap().args, ["X"]);
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Nested {
    #[serde(rename = "/common")]
    common: Common,
    #[serde(rename = "/time")]
    time: Option<Timestamp>,
    #[serde(rename = "-executorconfig")]
    hidden: Hidden,
    #[serde(rename = "/pointers")]
    pointers: Option<Pointers>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Hidden {
    sessions: BTreeMap<String, HiddenSession>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct HiddenSession {
    #[serde(rename = "/common")]
    common: Common,
    #[serde(rename = "cmd/args")]
    args: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Pointers {
    #[serde(rename = "/sessions")]
    sessions: BTreeMap<String, Pointed>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Pointed {
    #[serde(rename = "/tty@non-persistent")]
    tty: bool,
    #[serde(rename = ".pass@secret")]
    pass: String,
    #[serde(rename = "-gone@non-persistent")]
    gone: String,
}

#[test]
fn nested_hidden_and_suffixed_structs_read_and_write_as_vic_has_them() {
    let session = HiddenSession {
        common: Common { id: "SessionID".into(), notes: None },
        args: vec!["/bin/imagec".into(), "-standalone".into()],
    };
    let pointed = Pointed { tty: true, pass: "p".into(), gone: String::new() };
    let value = Nested {
        common: Common { id: "0xDEADBEEF".into(), notes: Some(String::new()) },
        time: Timestamp::parse("2009-11-10 23:00:00 +0000 UTC"),
        hidden: Hidden { sessions: [("Session1".into(), session)].into() },
        pointers: Some(Pointers { sessions: [("primary".into(), pointed)].into() }),
    };
    check(
        &value,
        &[
            ("guestinfo.vice./common/id", "0xDEADBEEF"),
            ("guestinfo.vice./common/notes", ""),
            ("guestinfo.vice./time", "2009-11-10 23:00:00 +0000 UTC"),
            ("executorconfig/sessions", "Session1"),
            ("guestinfo.vice./executorconfig/sessions|Session1/common/id", "SessionID"),
            ("executorconfig/sessions|Session1/cmd/args", "1"),
            ("executorconfig/sessions|Session1/cmd/args~", "/bin/imagec|-standalone"),
            ("guestinfo.vice./pointers/sessions", "primary"),
            ("guestinfo.vice./pointers/sessions|primary/tty@non-persistent", "true"),
            ("guestinfo.vice..pointers.sessions|primary.pass@secret", "p"),
        ],
    );
}

#[test]
fn secrets_are_not_shown_in_errors() {
    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Secret {
        #[serde(rename = "pin@secret")]
        _pin: u8,
    }
    assert_eq!(
        errors::<Secret>(&[("guestinfo.vice./pin@secret", "hunter2")]),
        ["guestinfo.vice./pin@secret = (7 secret bytes); expected a whole number from 0 to 255"]
    );
}

proptest! {
    #[test]
    fn any_list_of_strings_round_trips(items in prop::collection::vec("[a|]{0,4}|\\PC{0,8}", 0..6)) {
        prop_assume!(items.join("|") != NIL);
        let value = Lists { args: items, ..Lists::default() };
        let pairs = to_pairs(&value, Header::Vice).unwrap();
        prop_assert_eq!(from_pairs::<Lists, _, _>(Header::Vice, pairs).unwrap(), value);
    }

    #[test]
    fn old_readers_see_what_vic_would_have_written(items in prop::collection::vec("[ab|]{0,3}", 1..5)) {
        let value = Lists { args: items.clone(), ..Lists::default() };
        let pairs = to_pairs(&value, Header::Vice).unwrap();
        let as_vic = [
            ("guestinfo.vice./Args".to_owned(), (items.len() - 1).to_string()),
            ("guestinfo.vice./Args~".to_owned(), items.join("|")),
        ];
        prop_assert_eq!(&pairs[..2], &as_vic[..]);
    }
}
