//! Tests of the DHCP client: a conversation in its order, and servers that say what they should not.

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// A server's words in answer to a question.
fn answer(question: &[u8], kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = question[..HEADER].to_vec();
    bytes[0] = REPLY;
    bytes[16..20].copy_from_slice(&ADDRESS.octets());
    bytes.extend([KIND, 1, kind, super::SERVER, 4]);
    bytes.extend(SERVER.octets());
    for (code, value) in options {
        bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
        bytes.extend(*value);
    }
    bytes.push(END);
    bytes
}

const HOUR: (u8, &[u8]) = (LEASE_TIME, &[0, 0, 14, 16]);
const NETWORK: (u8, &[u8]) = (MASK, &[255, 255, 255, 0]);
const GOOD: [(u8, &[u8]); 4] =
    [HOUR, NETWORK, (ROUTER, &[10, 0, 2, 2]), (DNS, &[10, 0, 2, 3, 1, 1, 1, 1])];

fn client() -> Client {
    Client::new(MAC, "box", 0x0102_0304, 0)
}

/// What is sent at this time; nothing else may be done.
#[track_caller]
fn sent(client: &mut Client, now: u64) -> (Option<Ipv4Addr>, Vec<u8>) {
    let Some(Action::Send(to, bytes)) = client.poll(now) else { panic!("nothing is sent") };
    assert_eq!(client.poll(now), None);
    (to, bytes)
}

/// The options of a question.
fn option(question: &[u8], code: u8) -> Option<Vec<u8>> {
    let mut reply = question.to_vec();
    reply[0] = REPLY;
    let transaction = u32::from_be_bytes(question[4..8].try_into().unwrap());
    Answer::read(&reply, transaction, MAC)?.option(code).map(<[u8]>::to_vec)
}

/// A client with a lease of an hour that began at 0.
fn leased() -> Client {
    let mut client = client();
    let (_, question) = sent(&mut client, 0);
    assert_eq!(client.hear(&answer(&question, OFFER, &GOOD), 0), None);
    let (_, question) = sent(&mut client, 0);
    let used = client.hear(&answer(&question, ACK, &GOOD), 0);
    assert!(matches!(used, Some(Action::Use(_))), "{used:?}");
    client
}

#[test]
fn an_offer_is_asked_for_and_used() {
    let mut client = client();
    let (to, question) = sent(&mut client, 0);
    assert_eq!((to, option(&question, KIND)), (None, Some(vec![DISCOVER])));
    assert_eq!(question[10..12], [0x80, 0], "no address to be answered at");
    assert_eq!(option(&question, HOSTNAME), Some(b"box".to_vec()));
    assert_eq!(question.len(), 300);
    client.hear(&answer(&question, OFFER, &GOOD), 5);
    let (to, question) = sent(&mut client, 5);
    assert_eq!((to, option(&question, KIND)), (None, Some(vec![ASK])));
    assert_eq!(option(&question, ASKED_ADDRESS), Some(ADDRESS.octets().to_vec()));
    assert_eq!(option(&question, super::SERVER), Some(SERVER.octets().to_vec()));
    let expected = Lease {
        address: IpNet { addr: ADDRESS.into(), prefix_len: 24 },
        router: Some(SERVER),
        dns: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(1, 1, 1, 1)],
        server: SERVER,
    };
    assert_eq!(client.hear(&answer(&question, ACK, &GOOD), 10), Some(Action::Use(expected)));
    assert_eq!(client.deadline(), 10 + 1_800_000, "half of it");
}

#[test]
fn a_lease_is_renewed_with_its_server_then_with_anybody_and_then_it_ends() {
    let mut client = leased();
    let (to, question) = sent(&mut client, 1_800_000);
    assert_eq!((to, &question[12..16]), (Some(SERVER), &ADDRESS.octets()[..]));
    assert_eq!(option(&question, super::SERVER), None, "RFC 2131, 4.3.2");
    let renewed = client.hear(&answer(&question, ACK, &GOOD), 1_800_000);
    assert!(matches!(renewed, Some(Action::Use(_))));
    assert_eq!(client.deadline(), 3_600_000);
    let (mut now, mut asked) = (0, Vec::new());
    for _ in 0..100 {
        now = client.deadline();
        match client.poll(now) {
            Some(Action::Send(to, _)) => asked.push((now, to)),
            Some(Action::Drop) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(now, 5_400_000, "an hour after it was renewed");
    let rebinding = 1_800_000 + 3_150_000;
    assert!(asked.iter().all(|(at, to)| to.is_some() == (*at < rebinding)), "{asked:?}");
    assert!(asked.len() > 4 && asked.len() < 20, "{asked:?}");
    let (_, question) = sent(&mut client, now + 1_000);
    assert_eq!(option(&question, KIND), Some(vec![DISCOVER]));
}

#[test]
fn silence_is_answered_with_ever_longer_pauses() {
    let mut client = client();
    let mut times = Vec::new();
    for _ in 0..9 {
        let now = client.deadline();
        sent(&mut client, now);
        times.push(now / 1000);
    }
    assert_eq!(times, [0, 1, 3, 7, 15, 31, 63, 127, 191]);
    // An offer that is then not kept: offers are sought again.
    let now = client.deadline();
    let (_, question) = sent(&mut client, now);
    client.hear(&answer(&question, OFFER, &GOOD), now);
    for _ in 0..MAX_REQUESTS {
        let now = client.deadline();
        assert_eq!(option(&sent(&mut client, now).1, KIND), Some(vec![ASK]));
    }
    let now = client.deadline();
    assert_eq!(client.poll(now), None);
    let now = client.deadline();
    assert_eq!(option(&sent(&mut client, now).1, KIND), Some(vec![DISCOVER]));
}

#[test]
fn a_refusal_is_not_asked_about_at_once() {
    let mut client = leased();
    let (_, question) = sent(&mut client, 1_800_000);
    assert_eq!(client.hear(&answer(&question, NAK, &[]), 1_800_000), Some(Action::Drop));
    assert_eq!(client.poll(1_800_000), None);
    let (_, again) = sent(&mut client, 1_801_000);
    assert_ne!(again[4..8], question[4..8], "another transaction");
    assert_eq!(client.hear(&answer(&question, OFFER, &GOOD), 1_801_000), None);
    assert_eq!(client.poll(1_801_000), None, "an old question's answer");
}

#[test]
fn what_is_no_answer_or_no_use_is_passed_over() {
    let without = |code: u8| GOOD.into_iter().filter(|it| it.0 != code).collect::<Vec<_>>();
    let mut client = client();
    let (_, question) = sent(&mut client, 0);
    let mut bad: Vec<Vec<u8>> = vec![
        answer(&question, OFFER, &without(LEASE_TIME)),
        answer(&question, OFFER, &without(MASK)),
        answer(&question, ACK, &GOOD),
        answer(&question, OFFER, &[HOUR, (MASK, &[255, 0, 255, 0])]),
        answer(&question, OFFER, &[NETWORK, (LEASE_TIME, &[0, 0, 0, 0])]),
        question.clone(),
        Vec::new(),
    ];
    for (at, byte) in [(4, 9), (28, 9), (236, 9), (16, 224), (16, 127), (0, 1)] {
        let mut odd = answer(&question, OFFER, &GOOD);
        odd[at] = byte;
        bad.push(odd);
    }
    for bad in bad {
        assert_eq!(client.hear(&bad, 0), None);
        assert_eq!(client.poll(0), None, "{bad:?}");
    }
    // Cut before it has said how long and how wide, it is not taken either; whole, it is.
    let good = answer(&question, OFFER, &GOOD);
    for len in 0..HEADER + 21 {
        assert_eq!(client.hear(&good[..len], 0), None);
        assert_eq!(client.poll(0), None, "{len}");
    }
    client.hear(&good, 0);
    assert!(client.poll(0).is_some());
}

#[test]
fn a_lease_of_seconds_or_of_centuries_keeps_nobody_busy() {
    for (seconds, first) in [([0, 0, 0, 1], 30_000), ([255; 4], 182 * 86_400_000 + 43_200_000)] {
        let mut client = client();
        let (_, question) = sent(&mut client, 0);
        let options = [(LEASE_TIME, &seconds[..]), NETWORK, (T1, &[0; 4]), (T2, &[255; 4])];
        let plain = &options[..2];
        client.hear(&answer(&question, OFFER, plain), 0);
        let (_, question) = sent(&mut client, 0);
        client.hear(&answer(&question, ACK, plain), 0);
        assert_eq!(client.deadline(), first);
        // Times that make no sense are bent into ones that do.
        let (_, question) = sent(&mut client, first);
        client.hear(&answer(&question, ACK, &options), first);
        assert!(client.deadline() >= first + 1_000);
    }
}

#[test]
fn a_lease_is_given_back_to_who_let_it_and_what_was_not_let_is_not() {
    let mut nothing = client();
    assert_eq!(nothing.release(), None);
    sent(&mut nothing, 0);
    assert_eq!(nothing.release(), None);
    let (to, bytes) = leased().release().unwrap();
    assert_eq!((to, option(&bytes, KIND)), (SERVER, Some(vec![RELEASE])));
    assert_eq!((&bytes[10..12], &bytes[12..16]), (&[0, 0][..], &ADDRESS.octets()[..]));
    assert_eq!(option(&bytes, super::SERVER), Some(SERVER.octets().to_vec()));
    for code in [ASKED, ASKED_ADDRESS, HOSTNAME] {
        assert_eq!(option(&bytes, code), None, "RFC 2131, table 5: option {code}");
    }
}
