//! Clients as users run them, under which the daemon is killed and started again: they go on where they were.
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(dead_code, reason = "the guest and the lab are shared with other tests")]

#[path = "daemon/guest.rs"]
mod guest;
#[path = "daemon/lab.rs"]
mod lab;

use guest::Guest;
use lab::{Lab, noise, print_all, running};
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};

/// `serialmux` with these arguments, for the daemon of `lab`.
fn start(lab: &Lab, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_serialmux"))
        .args(arguments)
        .env("SERIALMUX_STATE", lab.place.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn restart(lab: &mut Lab, guest: &mut Guest) {
    lab.restart().await;
    guest.connect(lab.listen).await;
}

/// Reads from a client until it has shown something: then it is connected.
async fn shown(guest: &mut Guest, client: &mut Child) -> Vec<u8> {
    let mut buffer = vec![0; 64 * 1024];
    let n = {
        let read = client.stdout.as_mut().unwrap().read(&mut buffer);
        guest.beside(read).await.unwrap()
    };
    buffer.truncate(n);
    buffer
}

/// Ends the container, and waits for the client's end.
async fn end(guest: &mut Guest, client: Child) -> std::process::Output {
    guest.exited(3);
    let output = guest.beside(client.wait_with_output()).await.unwrap();
    // Nothing here was put back to anything.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("snapshot"), "{said}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_through_five_daemons_without_loss_or_repetition() {
    let (mut lab, mut guest) = running().await;
    let mut follower = start(&lab, &["logs", "-f", "web"]);
    let sent = noise(500_000);
    let mut got = Vec::new();
    for part in sent.chunks(100_000) {
        print_all(&mut guest, part).await;
        got.extend(shown(&mut guest, &mut follower).await);
        restart(&mut lab, &mut guest).await;
    }
    let output = end(&mut guest, follower).await;
    assert!(output.status.success(), "{output:?}");
    got.extend(output.stdout);
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_a_log_is_what_was_asked_for_before_the_daemon_went_away() {
    let (mut lab, mut guest) = running().await;
    print_all(&mut guest, b"one\ntwo\nthree\n").await;
    guest.until("it to be durable", |guest| guest.is_taken()).await;
    let mut follower = start(&lab, &["logs", "-f", "-n", "2", "web"]);
    let mut got = shown(&mut guest, &mut follower).await;
    restart(&mut lab, &mut guest).await;
    print_all(&mut guest, b"four\n").await;
    let output = end(&mut guest, follower).await;
    got.extend(output.stdout);
    assert_eq!(String::from_utf8(got).unwrap(), "two\nthree\nfour\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_goes_through_five_daemons_once_and_in_order() {
    let (mut lab, mut guest) = running().await;
    let mut client = start(&lab, &["attach", "web"]);
    let sent = noise(1_500_000);
    let mut stdin = client.stdin.take().unwrap();
    let typed = sent.clone();
    let typist = tokio::spawn(async move { stdin.write_all(&typed).await });
    for n in 1..=5 {
        guest.until("some input", |guest| guest.stdin.len() >= n * 200_000).await;
        restart(&mut lab, &mut guest).await;
    }
    guest.until("all input", |guest| guest.stdin_ended).await;
    typist.await.unwrap().unwrap();
    assert!(guest.stdin == sent, "{} of {} bytes", guest.stdin.len(), sent.len());
    let output = end(&mut guest, client).await;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_type_at_once_and_neither_loses_or_repeats_a_byte() {
    let (mut lab, mut guest) = running().await;
    let mut clients = [start(&lab, &["attach", "web"]), start(&lab, &["attach", "web"])];
    // The highest bit says whose it is.
    let low: Vec<u8> = noise(400_000).iter().map(|byte| byte & 0x7f).collect();
    let high: Vec<u8> = noise(400_000).iter().map(|byte| byte | 0x80).collect();
    let mut kept = Vec::new();
    for (client, bytes) in clients.iter_mut().zip([&low, &high]) {
        let (mut stdin, bytes) = (client.stdin.take().unwrap(), bytes.clone());
        // Kept open: the end of one's input is the end of the process's.
        kept.push(tokio::spawn(async move {
            stdin.write_all(&bytes).await.unwrap();
            stdin
        }));
    }
    for n in 1..=5 {
        let of_both = |guest: &mut Guest| {
            let n_low = guest.stdin.iter().filter(|byte| **byte < 0x80).count();
            n_low > 0 && n_low < guest.stdin.len() && guest.stdin.len() >= n * 120_000
        };
        guest.until("some input of both", of_both).await;
        restart(&mut lab, &mut guest).await;
    }
    guest.until("all input", |guest| guest.stdin.len() >= 800_000).await;
    let (first, second): (Vec<u8>, Vec<u8>) = guest.stdin.iter().partition(|byte| **byte < 0x80);
    assert!(first == low && second == high, "{} and {} bytes", first.len(), second.len());
    let [one, other] = clients;
    assert_eq!(end(&mut guest, one).await.status.code(), Some(3));
    drop((kept, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_learns_of_the_end_from_the_next_daemon() {
    let (mut lab, mut guest) = running().await;
    lab.kill();
    // One that dies with the question asked and not answered.
    std::fs::remove_file(lab.place.socket()).unwrap();
    let mute = UnixListener::bind(lab.place.socket()).unwrap();
    let waiter = start(&lab, &["wait", "web"]);
    let (mut question, _) = mute.accept().await.unwrap();
    assert!(question.read(&mut [0; 64]).await.unwrap() > 0);
    drop((mute, question));
    restart(&mut lab, &mut guest).await;
    let output = end(&mut guest, waiter).await;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "3\n");
}
