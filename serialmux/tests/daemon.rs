//! The daemon over real sockets, with a guest that is only the agent's end of the link.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "daemon/guest.rs"]
mod guest;
#[path = "daemon/lab.rs"]
mod lab;

use guest::{Guest, ID};
use lab::{KEY, Lab, drain, loopback, noise, print_all, running};
use serialmux::api::{Input, answer, input, inside, request};
use serialmux::client::{ClientError, next};
use serialmux::daemon::{Daemon, ServeError};
use serialmux::place::Place;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::Protection::{Plain, Sealed};
use wire::chunk::Stream::{Stderr, Stdout};
use wire::message::{MuxMessage, guest as said, mux};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_registration_to_exit() {
    let lab = Lab::new().await;
    for protection in [Sealed, Plain] {
        lab.register(protection == Plain).await.unwrap();
        let (mut sender, receiver) = lab.attach(true).await;
        let mut guest = Guest::new(KEY, protection, 1);
        guest.connect(lab.listen).await;
        let bytes = input::Body::Bytes("typed".into());
        sender.send(&Input { body: Some(bytes), at: 0 }).await.unwrap();
        let end = input::Body::End(request::Hello {});
        sender.send(&Input { body: Some(end), at: 0 }).await.unwrap();
        guest.started();
        guest.until("standard input", |guest| guest.stdin_ended).await;
        assert_eq!(guest.stdin, b"typed");
        guest.print(Stdout, b"out");
        guest.print(Stderr, b"err");
        guest.exited(7);
        guest.until("everything to be durable", |guest| guest.is_drained()).await;
        let (out, err, exit) = drain(receiver).await;
        assert_eq!((&out[..], &err[..], exit.code), (&b"out"[..], &b"err"[..], 7));
        assert_eq!(lab.client.wait("web".into()).await.unwrap().code, 7);
        guest.hang_up();
        lab.client.gone("web".into(), String::new()).await.unwrap();
        lab.client.remove("web".into()).await.unwrap();
        assert!(lab.client.list().await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_the_middle_loses_and_repeats_nothing() {
    let mut lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let mut guest = Guest::new(KEY, Sealed, 1);
    guest.connect(lab.listen).await;
    guest.started();
    let sent = noise(600_000);
    for part in sent.chunks(100_000) {
        print_all(&mut guest, part).await;
        lab.restart().await;
        guest.connect(lab.listen).await;
    }
    guest.exited(0);
    guest.until("everything to be durable", |guest| guest.is_drained()).await;
    let (_sender, receiver) = lab.attach(true).await;
    let (out, _, exit) = drain(receiver).await;
    assert_eq!(exit.code, 0);
    assert!(out == sent, "{} of {} bytes", out.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_between_the_exit_and_the_last_output_waits_for_that() {
    let (mut lab, mut guest) = running().await;
    let sent = noise(200_000);
    guest.print_at_once(&sent);
    guest.exited(4);
    // The exit goes first, and of the output what fits into the window.
    guest.gasp().await;
    while lab.client.list().await.unwrap()[0].status != "exited" {}
    assert!(!guest.is_taken());
    lab.restart().await;
    let (_sender, mut receiver) = lab.attach(true).await;
    let Ok(answer::Body::Output(first)) = next(&mut receiver).await else { panic!("no output") };
    let drained = tokio::spawn(drain(receiver));
    guest.connect(lab.listen).await;
    guest.until("everything to be durable", |guest| guest.is_drained()).await;
    let (rest, _, exit) = drained.await.unwrap();
    assert_eq!(exit.code, 4);
    let out = [&first.bytes[..], &rest[..]].concat();
    assert!(out == sent, "{} of {} bytes", out.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_vm_that_is_killed_while_it_is_spoken_to_all_that_arrived_is_kept() {
    let (lab, mut guest) = running().await;
    let (mut sender, mut receiver) = lab.attach(true).await;
    let sent = noise(40_000);
    guest.print_at_once(&sent);
    let typing = tokio::spawn(async move {
        let key = Input { body: Some(input::Body::Bytes("x".into())), at: 0 };
        while sender.send(&key).await.is_ok() {}
    });
    guest.is_told().await;
    // With something unread at its end the connection is not closed but reset, and nothing can be written to it.
    assert_eq!(guest.gasp().await, 0);
    let mut out = Vec::new();
    while out.len() < sent.len() {
        let Ok(answer::Body::Output(output)) = next(&mut receiver).await else {
            panic!("no output")
        };
        out.extend(output.bytes);
    }
    assert!(out == sent);
    typing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_whole_is_not_open_again_with_the_next_daemon() {
    let (mut lab, mut guest) = running().await;
    guest.print(Stdout, b"all of it");
    guest.exited(4);
    guest.gasp().await;
    assert_eq!(lab.client.wait("web".into()).await.unwrap().code, 4);
    lab.restart().await;
    // The guest does not know that it arrived, and opens the channel again.
    guest.connect(lab.listen).await;
    guest.until("everything to be known", |guest| guest.is_drained()).await;
    let waited = tokio::time::timeout(Duration::from_secs(10), lab.client.wait("web".into()));
    assert_eq!(waited.await.expect("its VM is there, and nothing is missing").unwrap().code, 4);
}

/// What `inspect` says of the container.
async fn inspected(lab: &Lab) -> serde_json::Value {
    serde_json::from_str(&lab.client.inspect("web".into()).await.unwrap()).unwrap()
}

fn report(pairs: &[(&str, &str)]) -> said::Body {
    let pairs = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    said::Body::Report(said::Report { pairs })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_report_is_shown_and_outlives_the_daemon() {
    let mut lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let before = inspected(&lab).await;
    assert_eq!(before["status"], "created");
    assert_eq!(before["link"]["connected"], false);
    assert_eq!(before["report"], serde_json::json!({}));

    let mut guest = Guest::new(KEY, Sealed, 1);
    guest.connect(lab.listen).await;
    guest.say(report(&[("guestinfo.a", "1"), ("guestinfo.b", "über\n\"2\"")]));
    guest.say(report(&[("guestinfo.b", "3")]));
    guest.started();
    guest.until("all to be taken", |guest| guest.sessions > 0 && guest.is_drained()).await;
    let running = inspected(&lab).await;
    assert_eq!(running["status"], "running");
    assert_eq!(running["started"], "1970-01-01T00:00:00.000005000Z");
    assert_eq!(running["exit"], serde_json::Value::Null);
    assert_eq!(running["link"]["connected"], true);
    assert_eq!(running["link"]["agent"], "a guest of the tests");
    assert!(running["link"]["statistics"]["packets_in"].as_u64() > Some(0), "{running}");
    assert_eq!(running["report"], serde_json::json!({ "guestinfo.b": "3" }));

    guest.hang_up();
    lab.restart().await;
    let after = inspected(&lab).await;
    assert_eq!(after["report"], running["report"]);
    assert_eq!(after["link"]["agent"], "a guest of the tests");
    assert_eq!(after["link"]["connected"], false);
    let secret: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!after.to_string().contains(&secret), "the key is nobody's business: {after}");

    // What an earlier boot reported is not the next one's.
    let mut next = Guest::new(KEY, Sealed, 2);
    next.connect(lab.listen).await;
    next.until("a session", |guest| guest.sessions > 0).await;
    assert_eq!(inspected(&lab).await["report"], serde_json::json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_slows_nobody() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let (_stuck, _unread) = lab.attach(true).await;
    let (_sender, reads) = lab.attach(true).await;
    let mut guest = Guest::new(KEY, Sealed, 1);
    guest.connect(lab.listen).await;
    let sent = noise(3_000_000);
    print_all(&mut guest, &sent).await;
    guest.exited(0);
    guest.until("everything to be durable", |guest| guest.is_drained()).await;
    assert!(drain(reads).await.0 == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_garbage_on_the_port_disturb_nobody() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let mut impostor = Guest::new(b"another key", Sealed, 3);
    impostor.connect(lab.listen).await;
    let mut garbage = tokio::net::TcpStream::connect(lab.listen).await.unwrap();
    garbage.write_all(&noise(100_000)).await.unwrap();
    let mut plain = Guest::new(KEY, Plain, 4);
    plain.connect(lab.listen).await;
    let mut guest = Guest::new(KEY, Sealed, 1);
    guest.connect(lab.listen).await;
    guest.started();
    guest.until("a session", |guest| guest.sessions == 1 && guest.is_drained()).await;
    // One greeting each, and no session, for whoever does not hold the key.
    let mut answer = [0; 64];
    assert!(garbage.read(&mut answer).await.unwrap() > 0, "the port solicits");
    assert_eq!((impostor.sessions, plain.sessions), (0, 0));
    let container = &lab.client.list().await.unwrap()[0];
    assert_eq!((container.status.as_str(), container.connected), ("running", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_before_the_boot_reach_the_guest() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let client = lab.client.clone();
    let resize = tokio::spawn(async move { client.resize("web".into(), 40, 120).await });
    let mut guest = Guest::new(KEY, Sealed, 1);
    guest.connect(lab.listen).await;
    // Whatever else a new session brings.
    let asked = |asked: &MuxMessage| match &asked.body {
        Some(mux::Body::Resize(resize)) => Some((resize.rows, resize.columns)),
        _ => None,
    };
    guest.until("the request", |guest| guest.asked.iter().any(|it| asked(it).is_some())).await;
    guest.until("the reply to be through", |guest| guest.is_drained()).await;
    resize.await.unwrap().unwrap();
    assert_eq!(guest.asked.iter().find_map(asked), Some((40, 120)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_gives_what_the_agent_says_it_did() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let mut guest = Guest::new(KEY, Sealed, 1);
    guest.connect(lab.listen).await;
    guest.say(report(&[("guestinfo.vice..link.reload", "1: done: linger 9 s")]));
    guest.until("the report to be through", |guest| guest.is_drained()).await;
    let client = lab.client.clone();
    let reload = tokio::spawn(async move { client.reload("web".into()).await });
    let is_reload = |asked: &MuxMessage| matches!(asked.body, Some(mux::Body::Reload(_)));
    guest.until("the request", |guest| guest.asked.iter().any(is_reload)).await;
    guest.until("the reply to be through", |guest| guest.is_drained()).await;
    assert_eq!(reload.await.unwrap().unwrap(), "done: linger 9 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_dies_without_a_word_ends_the_wait_with_the_reason() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let (_sender, receiver) = lab.attach(true).await;
    lab.client.gone("web".into(), "QEMU was killed".into()).await.unwrap();
    let (_, _, exit) = drain(receiver).await;
    assert_eq!(exit.code, 137);
    assert!(exit.error.contains("QEMU was killed"), "{}", exit.error);
    lab.register(false).await.unwrap();
    assert_eq!(lab.client.list().await.unwrap()[0].status, "created", "a new run begins");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_dies_amid_its_output_ends_what_follows_it_at_once() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    for boot in 1..=10 {
        let mut guest = lab.boot(boot).await;
        let (_sender, receiver) = lab.attach(false).await;
        for part in noise(100_000).chunks(10_000) {
            assert_eq!(guest.print(Stdout, part), part.len());
        }
        // What it says last is being stored while the word of its end comes.
        guest.gasp().await;
        lab.client.gone("web".into(), String::new()).await.unwrap();
        // A VM that stays away is waited for for 15 s.
        let ended = tokio::time::timeout(Duration::from_secs(10), drain(receiver)).await;
        let (_, _, exit) = ended.unwrap_or_else(|_| panic!("boot {boot} has no end"));
        assert_eq!(exit.code, 137);
        assert_eq!(lab.client.wait("web".into()).await.unwrap().code, 137);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vm_said_last_is_read_before_it_counts_as_gone() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let state = lab.place.containers().join(ID).join("state.new");
    for boot in 1..=8 {
        let mut guest = lab.boot(boot).await;
        let (_sender, receiver) = lab.attach(false).await;
        let sent = noise(50_000);
        guest.print_at_once(&sent);
        guest.exited(4);
        // The exit comes first, and saving it takes until somebody reads what is written.
        assert!(std::process::Command::new("mkfifo").arg(&state).status().unwrap().success());
        assert_eq!(guest.gasp().await, 0);
        let client = lab.client.clone();
        let gone = tokio::spawn(async move { client.gone("web".into(), String::new()).await });
        while lab.client.list().await.unwrap()[0].status != "exited" {}
        // By then the word of its end has come, too, most of the time.
        for _ in 0..20 {
            lab.client.list().await.unwrap();
        }
        let written = std::fs::File::open(&state).unwrap();
        std::fs::remove_file(&state).unwrap();
        drop(written);
        gone.await.unwrap().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), drain(receiver)).await;
        let (out, _, exit) = ended.unwrap_or_else(|_| panic!("boot {boot} has no end"));
        assert_eq!((out.len(), exit.code), (sent.len(), 4), "boot {boot}");
        assert_eq!(lab.client.wait("web".into()).await.unwrap().code, 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_that_cannot_be_saved_stays_with_the_guest_until_it_can() {
    let (mut lab, mut guest) = running().await;
    let in_the_way = lab.place.containers().join(ID).join("state.new");
    std::fs::create_dir(&in_the_way).unwrap();
    guest.exited(7);
    assert_eq!(guest.beside(lab.client.wait("web".into())).await.unwrap().code, 7);
    guest.until("the exit to be known", |guest| guest.is_taken()).await;
    assert!(!guest.is_drained());
    std::fs::remove_dir(&in_the_way).unwrap();
    guest.until("the exit to be saved", |guest| guest.is_drained()).await;
    guest.hang_up();
    lab.restart().await;
    let waited = tokio::time::timeout(Duration::from_secs(30), lab.client.wait("web".into()));
    assert_eq!(waited.await.expect("its exit is known").unwrap().code, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_disk_did_not_take_of_a_run_is_written_before_the_next_one() {
    let lab = Lab::new().await;
    let Some(disk) = SmallDisk::mount(&lab.place.containers()) else {
        return eprintln!("skipped: mounting a small tmpfs needs root");
    };
    lab.register(false).await.unwrap();
    let mut guest = lab.boot(1).await;
    let (_sender, receiver) = lab.attach(true).await;
    disk.fill();
    // More than waits for a disk of a VM that is there, yet little on the line.
    let sent = vec![b'x'; 3_000_000];
    print_all(&mut guest, &sent).await;
    guest.until("all of it to be there", |guest| guest.is_taken()).await;
    guest.hang_up();
    let gone = tokio::spawn({
        let client = lab.client.clone();
        async move { client.gone("web".into(), String::new()).await }
    });
    while lab.client.list().await.unwrap()[0].status != "exited" {}
    lab.register(false).await.unwrap();
    disk.clear();
    gone.await.unwrap().unwrap();
    // No other VM has come, and no session.
    let ended = tokio::time::timeout(Duration::from_secs(30), drain(receiver)).await;
    let (out, _, exit) = ended.expect("all of the run is written");
    assert_eq!((out.len(), exit.code), (sent.len(), 137));
}

/// A file system of 8 MiB.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(at);
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let mut refused = Ok(());
        while refused.is_ok() {
            refused = std::io::Write::write_all(&mut file, &[0; 4096]);
        }
    }

    fn clear(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_is_told_of_the_end_of_the_run_that_was_read() {
    let (lab, mut guest) = running().await;
    let (_sender, receiver) = lab.attach(true).await;
    let sent = noise(3_000_000);
    print_all(&mut guest, &sent).await;
    guest.exited(3);
    guest.until("everything to be durable", |guest| guest.is_drained()).await;
    assert_eq!(lab.client.wait("web".into()).await.unwrap().code, 3);
    guest.hang_up();
    lab.client.gone("web".into(), String::new()).await.unwrap();
    lab.register(false).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), drain(receiver)).await;
    let (out, _, exit) = ended.expect("its run is over");
    assert!(out == sent, "{} of {} bytes", out.len(), sent.len());
    assert_eq!(exit.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_to_a_run_that_is_over_is_not_for_the_next() {
    let (lab, mut guest) = running().await;
    let end = || Input { body: Some(input::Body::End(request::Hello {})), at: 0 };
    let key = |text: &'static str| Input { body: Some(input::Body::Bytes(text.into())), at: 0 };
    let (mut first, _first) = lab.attach(true).await;
    let (mut second, _second) = lab.attach(true).await;
    first.send(&end()).await.unwrap();
    guest.until("the end of the input", |guest| guest.stdin_ended).await;
    for _ in 0..10 {
        second.send(&key("stale")).await.unwrap();
        second.send(&end()).await.unwrap();
    }
    guest.exited(0);
    guest.until("everything to be durable", |guest| guest.is_drained()).await;
    guest.hang_up();
    lab.client.gone("web".into(), String::new()).await.unwrap();
    lab.register(false).await.unwrap();
    let mut guest = Guest::new(KEY, Sealed, 2);
    guest.connect(lab.listen).await;
    guest.started();
    let (mut third, _third) = lab.attach(true).await;
    third.send(&key("fresh")).await.unwrap();
    guest.until("what is typed", |guest| !guest.stdin.is_empty()).await;
    assert_eq!(guest.stdin, b"fresh");
    assert!(!guest.stdin_ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_in_words() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let error = |result: Result<(), ClientError>| result.unwrap_err().to_string();
    let unknown = error(lab.client.kill("nobody".into(), 9).await);
    assert_eq!(unknown, "no such container: nobody");
    let register = request::Register {
        id: "other".into(),
        name: "web".into(),
        key: vec![1],
        ..Default::default()
    };
    let taken = error(lab.client.register(register.clone()).await);
    assert!(taken.contains("\"web\" is taken by container c0ffee"), "{taken}");
    let same_key = request::Register { name: "b".into(), key: KEY.to_vec(), ..register.clone() };
    assert!(error(lab.client.register(same_key).await).contains("belongs to container web"));
    let word = request::Register { id: "../etc".into(), name: "c".into(), ..register };
    assert!(error(lab.client.register(word).await).contains("is no container id"));
    let twice = Daemon::bind(&lab.place, loopback()).await;
    assert!(matches!(twice, Err(ServeError::Running(_))));
    let elsewhere = tempfile::tempdir().unwrap();
    let place = Place::new(Some(elsewhere.path().to_owned()));
    let busy = Daemon::bind(&place, lab.listen).await.unwrap_err();
    assert!(busy.to_string().contains("the address is in use"), "{busy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_config_is_taken_unless_its_container_runs() {
    let mut lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let edited = request::Register {
        id: ID.into(),
        name: "web".into(),
        key: KEY.to_vec(),
        command: "httpd -v".into(),
        tty: true,
        ..Default::default()
    };
    lab.client.register(edited.clone()).await.unwrap();
    lab.restart().await;
    assert_eq!(lab.client.list().await.unwrap()[0].command, "httpd -v");
    let mut guest = Guest::new(KEY, Sealed, 1);
    guest.connect(lab.listen).await;
    guest.started();
    guest.until("the start to be known", |guest| guest.is_drained()).await;
    // The same again is no other.
    lab.client.register(edited.clone()).await.unwrap();
    let refused = lab.register(false).await.unwrap_err().to_string();
    assert_eq!(refused, "container web is running; stop it first");
    let renamed = request::Register { name: "b".into(), ..edited };
    let refused = lab.client.register(renamed).await.unwrap_err().to_string();
    assert!(refused.contains("is registered as \"web\", with another name"), "{refused}");
    assert_eq!(lab.client.list().await.unwrap()[0].command, "httpd -v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pipe_rests_until_the_guest_goes_over_to_it_and_back() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let mut guest = Guest::new(KEY, Sealed, 1);
    guest.connect(lab.listen).await;
    guest.until("a session", |guest| guest.sessions == 1).await;
    guest.connect_other(lab.listen, KEY).await;
    // Until it has made itself known and is silent.
    guest.until("a rest", |guest| guest.other.as_ref().unwrap().1.poll_timeout().is_none()).await;
    let bytes = noise(600_000);
    for round in 0..6 {
        let (from, to) = if round % 2 == 0 { ("uart", "virtio") } else { ("virtio", "uart") };
        print_all(&mut guest, &bytes[round * 100_000..][..100_000]).await;
        guest.other.as_mut().unwrap().1.want(serialmux::clock::now());
        guest.until("the other pipe", |guest| guest.transport().word() == to).await;
        guest.until("an acknowledgement", |guest| guest.is_taken()).await;
        let link = &inspected(&lab).await["link"];
        assert_eq!(link["pipe"], to, "{link}");
        assert_eq!(link["idle_pipes"][0]["pipe"], from, "{link}");
        assert_eq!(link["idle_pipes"].as_array().unwrap().len(), 1, "{link}");
        // One for each move, and none besides.
        assert_eq!(
            (guest.sessions, &link["statistics"]["sessions"]),
            (round + 2, &(round + 2).into())
        );
    }
    guest.started();
    guest.exited(3);
    guest.until("the end", |guest| guest.is_drained()).await;
    let (_sender, receiver) = lab.attach(true).await;
    let (out, _, exit) = drain(receiver).await;
    assert_eq!(exit.code, 3);
    assert!(out == bytes);
}

/// What a client is told at last whose request a guest answers well, with a stream of these bytes, and is gone then.
async fn told_of(
    body: request::Body,
    bytes: &[u8],
    is_whole: bool,
) -> Result<answer::Body, String> {
    let (lab, mut guest) = running().await;
    let (_sender, mut receiver) = lab.client.open(body).await.unwrap();
    let is_it =
        |asked: &&MuxMessage| matches!(asked.body, Some(mux::Body::CopyOut(_) | mux::Body::Top(_)));
    guest.until("the request", |guest| guest.asked.iter().any(|it| is_it(&it))).await;
    let request = guest.asked.iter().find(is_it).unwrap().request;
    let stream = guest.open_stream(request);
    guest.stream(stream, bytes, is_whole).await;
    guest.hang_up();
    lab.client.gone("web".into(), "killed".into()).await.unwrap();
    let mut got = 0;
    loop {
        let answer = tokio::time::timeout(Duration::from_secs(10), next(&mut receiver)).await;
        match answer.expect("the client waits for ever") {
            Ok(answer::Body::Piece(piece)) => got += piece.bytes.len(),
            last => {
                assert_eq!(got, bytes.len());
                return last.map_err(|error| error.to_string());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vm_was_cut_short_in_is_not_taken_for_whole() {
    let web = || "web".to_owned();
    let copy = || request::Body::CopyOut(inside::CopyOut { container: web(), path: None });
    let top = || request::Body::Top(inside::Top { container: web() });
    let bytes = noise(100_000);
    let cut = Err("the VM went away before all of it had come".to_owned());
    assert_eq!(told_of(copy(), &bytes, false).await, cut);
    assert_eq!(told_of(top(), &[], false).await, cut);
    let whole = Ok(answer::Body::Done(request::Hello {}));
    assert_eq!(told_of(copy(), &bytes, true).await, whole);
    assert_eq!(told_of(top(), &[], true).await, whole);
}
