//! What a guest asks and what must come of it, whoever carries the question.

use guestinfo::backdoor::Step;

use crate::script;
use hypervisor::Hypervisor;

/// A hypervisor, what its guest does, and what that must give.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) script: String,
    pub(crate) expected: Vec<String>,
    /// Which port payloads must take.
    pub(crate) high_bandwidth: bool,
}

const KEY: &str = "guestinfo.vice./common/id";

fn scenario(name: &str, hypervisor: Hypervisor, lines: &[(&str, &str)]) -> [Scenario; 2] {
    let make = |hypervisor, high_bandwidth| Scenario {
        name: format!("{name} ({} bandwidth)", if high_bandwidth { "high" } else { "low" }),
        hypervisor: Hypervisor { high_bandwidth, ..hypervisor },
        script: lines.iter().map(|(line, _)| *line).collect::<Vec<_>>().join("\n"),
        expected: lines.iter().map(|(_, expected)| (*expected).to_owned()).collect(),
        high_bandwidth,
    };
    [make(hypervisor.clone(), false), make(hypervisor, true)]
}

fn with_id() -> Hypervisor {
    Hypervisor::with_values([
        (KEY, "e8f2"),
        ("guestinfo.empty", ""),
        ("guestinfo.ip", "Zürich\n2 lines"),
    ])
}

/// Every scenario, for both bandwidths.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    all.extend(plain());
    all.extend(cut_short());
    all.extend(refused());
    all.extend(garbage());
    all
}

fn plain() -> Vec<Scenario> {
    let lengths: Vec<_> = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 4096, 65536]
        .into_iter()
        .flat_map(|length: usize| {
            [
                (format!("fill guestinfo.a {length}"), "set".to_owned()),
                ("length guestinfo.a".to_owned(), length.to_string()),
            ]
        })
        .collect();
    let lengths: Vec<_> =
        lengths.iter().map(|(line, expected)| (line.as_str(), expected.as_str())).collect();
    [
        scenario(
            "values come and go whole",
            with_id(),
            &[
                ("version", "Some(6)"),
                ("get guestinfo.vice./common/id", "\"e8f2\""),
                ("get GUESTINFO.VICE./COMMON/ID", "\"e8f2\""),
                ("get guestinfo.empty", "\"\""),
                ("get guestinfo.ip", "\"Zürich\\n2 lines\""),
                ("get guestinfo.absent", "none"),
                ("set guestinfo.vice..sessions|ID.started true", "set"),
                ("get guestinfo.vice..sessions|ID.started", "\"true\""),
                ("set guestinfo.vice..sessions|ID.started x: no such executable\\nin PATH", "set"),
                ("get guestinfo.vice..sessions|ID.started", "\"x: no such executable\\nin PATH\""),
            ],
        ),
        scenario("every length has its tail", Hypervisor::default(), &lengths),
        scenario(
            "a hypervisor without cookies",
            Hypervisor { no_cookies: true, ..with_id() },
            &[("get guestinfo.vice./common/id", "\"e8f2\"")],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn cut_short() -> Vec<Scenario> {
    let lines = [("set guestinfo.a some text", "set"), ("get guestinfo.a", "\"some text\"")];
    let cut = |step, times| Hypervisor { cuts: Some((step, times)), ..Hypervisor::default() };
    let steps = [
        Step::SendSize,
        Step::SendPayload,
        Step::ReceiveSize,
        Step::ReceivePayload,
        Step::ReceiveStatus,
    ];
    let mut all = Vec::new();
    for step in steps {
        all.extend(scenario(&format!("a checkpoint where it is to {step}"), cut(step, 1), &lines));
        all.extend(scenario(
            &format!("15 checkpoints where it is to {step}"),
            cut(step, 15),
            &lines,
        ));
        let given_up = format!(
            "info-get guestinfo.a: 16 attempts to {step} were all cut short by checkpoints; try again later"
        );
        let lines = [("get guestinfo.a", given_up.as_str())];
        all.extend(scenario(
            &format!("checkpoints without end where it is to {step}"),
            cut(step, 1000),
            &lines,
        ));
    }
    all
}

fn refused() -> Vec<Scenario> {
    let refusing = |step, times| Hypervisor { refusals: Some((step, times)), ..with_id() };
    let mut all = Vec::new();
    all.extend(scenario(
        "a value that is too large",
        Hypervisor { max_value: Some(10), ..Hypervisor::default() },
        &[
            ("set guestinfo.a 0123456789", "set"),
            (
                "set guestinfo.a 0123456789x",
                "info-set guestinfo.a: the hypervisor refused: Value too large",
            ),
            ("get guestinfo.a", "\"0123456789\""),
        ],
    ));
    all.extend(scenario(
        "a request that it does not know",
        Hypervisor::default(),
        &[("raw make-coffee now", "make-coffee now: the hypervisor refused: Unknown command")],
    ));
    all.extend(scenario(
        "no channels",
        refusing(Step::Open, 2),
        &[
            (
                "get guestinfo.a",
                "info-get guestinfo.a: the hypervisor refused to open a channel, with status 0x0000; expected 0x0001 set",
            ),
            ("get guestinfo.vice./common/id", "\"e8f2\""),
        ],
    ));
    for step in [
        Step::SendSize,
        Step::SendPayload,
        Step::ReceiveSize,
        Step::ReceivePayload,
        Step::ReceiveStatus,
    ] {
        all.extend(scenario(
            &format!("a channel that is gone when it is to {step}"),
            refusing(step, 1),
            &[("get guestinfo.vice./common/id", "\"e8f2\"")],
        ));
        let twice = format!(
            "info-get guestinfo.vice./common/id: the hypervisor refused to {step}, with status 0x0000; expected 0x0001 set"
        );
        all.extend(scenario(
            &format!("two channels that are gone when it is to {step}"),
            refusing(step, 2),
            &[
                ("get guestinfo.vice./common/id", &twice),
                ("get guestinfo.vice./common/id", "\"e8f2\""),
            ],
        ));
    }
    all
}

fn garbage() -> Vec<Scenario> {
    let get = "get guestinfo.a";
    let replying = |reply: Option<&[u8]>| Hypervisor {
        reply: Some(reply.map(<[u8]>::to_vec)),
        ..Hypervisor::default()
    };
    let replies: [(Option<&[u8]>, &str); 8] = [
        (
            None,
            "info-get guestinfo.a: the hypervisor took it but has no reply; expected `1 …` or `0 …`",
        ),
        (Some(b""), "info-get guestinfo.a: the hypervisor replied \"\"; expected `1 …` or `0 …`"),
        (
            Some(b"2 x"),
            "info-get guestinfo.a: the hypervisor replied \"2 x\"; expected `1 …` or `0 …`",
        ),
        (
            Some(b"10"),
            "info-get guestinfo.a: the hypervisor replied \"10\"; expected `1 …` or `0 …`",
        ),
        (
            Some(b"\0\xFF"),
            "info-get guestinfo.a: the hypervisor replied \"\\0\u{FFFD}\"; expected `1 …` or `0 …`",
        ),
        (Some(b"0"), "info-get guestinfo.a: the hypervisor refused: no reason given"),
        (Some(b"0 why\0"), "info-get guestinfo.a: the hypervisor refused: why"),
        (Some(b"1"), "\"\""),
    ];
    let mut all = Vec::new();
    for (reply, expected) in replies {
        all.extend(scenario(&format!("a reply of {reply:?}"), replying(reply), &[(get, expected)]));
    }
    all.extend(scenario(
        "a reply beyond all measure",
        Hypervisor { announced: Some(u32::MAX), ..with_id() },
        &[(get, "info-get guestinfo.a: a message of 4294967295 bytes; expected at most 1048576")],
    ));
    all.extend(scenario(
        "an answer to another question",
        Hypervisor { wrong_step: Some(9), ..with_id() },
        &[(get, "info-get guestinfo.a: asked to ask for a message, the hypervisor went on with step 9; expected 1")],
    ));
    let low = "info-get guestinfo.a: the hypervisor refused to receive a message, with status 0x0000; expected 0x0001 set";
    all.extend(scenario(
        "a reply shorter than announced",
        Hypervisor { announced: Some(100), ..with_id() },
        &[(get, low)],
    ));
    all
}

#[test]
fn every_scenario_holds_when_called_directly() {
    for Scenario { name, mut hypervisor, script, expected, high_bandwidth } in all() {
        let outcome = script::run(&mut hypervisor, &script);
        assert_eq!(outcome, expected, "{name}");
        assert!(hypervisor.all_closed(), "{name}: a channel was left open");
        let other = if high_bandwidth { hypervisor.n_low } else { hypervisor.n_high };
        assert_eq!(other, 0, "{name}: bytes went by the other port");
    }
}

#[test]
fn a_request_beyond_all_measure_is_not_begun() {
    let mut hypervisor = Hypervisor::default();
    let outcome = script::run(&mut hypervisor, "fill guestinfo.a 1048576");
    let expected = "info-set guestinfo.a: a message of 1048597 bytes; expected at most 1048576";
    assert_eq!(outcome, [expected]);
    assert!(hypervisor.heard.is_empty() && hypervisor.all_closed());
}

#[test]
fn a_key_that_a_request_cannot_carry_is_not_asked_for() {
    let mut hypervisor = Hypervisor::default();
    for key in ["", "a b", "a\0b"] {
        let error = guestinfo::rpci::info_get(&mut hypervisor, key).unwrap_err();
        assert!(error.to_string().contains("expected a key without"), "{error}");
    }
    assert!(hypervisor.heard.is_empty());
}
