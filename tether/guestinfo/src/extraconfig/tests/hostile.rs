//! Tests of the decoder on pairs that mean it ill.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::super::*;

/// Counts what a decoder asks.
struct Counted {
    pairs: Pairs,
    n_asked: std::cell::Cell<usize>,
}

impl Lookup for Counted {
    fn value(&self, key: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.n_asked.set(self.n_asked.get() + 1);
        self.pairs.value(key)
    }

    fn holds(&self, key: &Key) -> Option<bool> {
        self.n_asked.set(self.n_asked.get() + 1);
        self.pairs.holds(key)
    }
}

fn n_asked(pairs: &[(String, String)]) -> usize {
    let pairs = pairs.iter().map(|(key, value)| (key, value.as_str()));
    let counted = Counted { pairs: Pairs::new(Header::Vice, pairs), n_asked: 0.into() };
    let spec = from_lookup::<crate::Spec>(Header::Vice, &counted);
    assert!(spec.errors.len() <= 1001, "{} errors", spec.errors.len());
    counted.n_asked.get()
}

#[test]
fn hostile_pairs_cost_in_proportion_to_their_size() {
    let key = |key: &str| format!("guestinfo.vice./{key}");
    let names = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>().join("|");
    type Make<'a> = &'a dyn Fn(usize) -> Vec<(String, String)>;
    let kinds: [(&str, Make<'_>); 6] = [
        ("an index of nothing", &|n| vec![(key("sessions"), names(n))]),
        ("an index of nameless entries", &|n| vec![(key("mounts"), "|".repeat(n))]),
        ("one list for all the spellings of a name", &|n| {
            let spellings: Vec<_> = (0..n.ilog2())
                .map(|n| format!("{:016b}", n).replace('0', ".").replace('1', "/"))
                .collect();
            let list = (0..n).map(|n| {
                (
                    key(&format!("networks|{}/network/dns|{n}", "/".repeat(16))),
                    "rBAAAQ==".to_owned(),
                )
            });
            let length = (key(&format!("networks|{}/network/dns", "/".repeat(16))), n.to_string());
            list.chain([length, (key("networks"), spellings.join("|"))]).collect()
        }),
        ("a list that says it is endless", &|n| {
            let items = (0..n).map(|n| {
                (key(&format!("networks|a/network/pools|{n}/first")), "rBAAAQ==".to_owned())
            });
            items
                .chain([
                    (key("networks"), "a".to_owned()),
                    (key("networks|a/network/pools"), i64::MAX.to_string()),
                ])
                .collect()
        }),
        ("parts without items", &|n| {
            vec![
                (key("sessions"), "a".into()),
                (key("sessions|a/cmd/Args"), "0".into()),
                (key("sessions|a/cmd/Args~"), "|".repeat(n)),
            ]
        }),
        ("extra keys that almost fit", &|n| {
            let extra =
                (0..n).map(|n| (key(&format!("sessions|a/cmd/Args|{n}")), "a|a".to_owned()));
            let list = [
                ("sessions", "a".to_owned()),
                ("sessions|a/cmd/Args", n.to_string()),
                ("sessions|a/cmd/Args~", "a|".repeat(2 * n)),
            ];
            extra.chain(list.map(|(name, value)| (key(name), value))).collect()
        }),
    ];
    for (kind, make) in kinds {
        let (small, large) = (n_asked(&make(1000)), n_asked(&make(4000)));
        assert!(
            large <= 4 * small + 100,
            "{kind}: {small} questions, {large} for four times as much"
        );
    }
}

#[test]
fn an_index_has_a_limit() {
    let index = (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>().join("|");
    #[derive(Deserialize)]
    struct Map {
        #[serde(rename = "/intmap")]
        ints: BTreeMap<String, i32>,
    }
    let pairs = [("guestinfo.vice./intmap", index.as_str())];
    let lookup = Pairs::new(Header::Vice, pairs);
    let decoded = from_lookup::<Map>(Header::Vice, &lookup);
    assert_eq!(decoded.value.unwrap().ints.len(), 10_000);
    assert!(decoded.errors[0].expected.contains("at most 10000 names"));
}

/// Keys that a spec looks for, in spellings right and wrong, with values right and wrong.
fn hostile() -> impl Strategy<Value = Vec<(String, String)>> {
    let word = prop::sample::select(vec![
        "sessions",
        "networks",
        "mounts",
        "execs@non-persistent",
        "|a",
        "|b.c",
        "|0",
        "|1",
        "|-1",
        "/cmd/Args",
        "/cmd/Args~",
        "/cmd/Env",
        "/network/dns",
        "/network/pools",
        "/ip/IP",
        "/ip/Mask",
        "/first",
        "/source/Path",
        ".runblock",
        ".status",
        "/tty",
        "~",
        "@secret",
        "key",
        "common/id",
        "link/linger",
        "annotations",
        "/",
        ".",
        "|",
    ]);
    let start = prop::sample::select(vec![
        "guestinfo.vice./",
        "guestinfo.vice..",
        "guestinfo./",
        "guestinfo.",
        "",
    ]);
    let key = (start, prop::collection::vec(word, 0..5))
        .prop_map(|(start, words)| format!("{start}{}", words.concat()));
    let value = prop_oneof![
        prop::sample::select(vec![
            "a",
            "a|b.c",
            "a|a",
            "||",
            "0",
            "1",
            "-1",
            "9223372036854775807",
            "true",
            "<nil>",
            "",
            "rBAAAQ==",
            "a|b|c"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    prop::collection::vec((key, value), 0..30)
}

proptest! {
    #[test]
    fn hostile_pairs_are_read_or_told(pairs in hostile()) {
        let decoded = crate::Spec::decode(pairs.iter().map(|(key, value)| (key, value)));
        for error in decoded.errors {
            prop_assert!(error.to_string().len() < 2000, "{}", error);
        }
        if let Err(error) = crate::Report::from_pairs(pairs) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
