//! Those who are too many: clients that were killed, and connections that nobody says anything on.
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(dead_code, reason = "the guest and the lab are shared with other tests")]

#[path = "daemon/guest.rs"]
mod guest;
#[path = "daemon/lab.rs"]
mod lab;

use guest::Guest;
use lab::{KEY, Lab, running};
use rustix::process::{Resource, getrlimit, setrlimit};
use serialmux::api::inside::Top;
use serialmux::api::request::{Body, Container, Exec, Kill, Stop};
use serialmux::client::ClientError;
use std::io::ErrorKind::WouldBlock;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use wire::Protection::Sealed;
use wire::message::{MuxMessage, mux};

/// How many clients a daemon serves at once.
const MAX_CLIENTS: usize = 1024;
/// How many connections of nobody it has at once.
const MAX_STRANGERS: usize = 256;
/// How many pipes it has of a VM besides the one that carries the link.
const MAX_IDLE: usize = 8;
/// Within which it is to be usable again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both ends of each connection are of this process.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Whether as many clients as are served, killed while they waited for a VM that is not up, are in the way of others.
async fn linger(body: impl Fn(usize) -> Body) -> bool {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let mut clients = Vec::new();
    while clients.len() < MAX_CLIENTS {
        match lab.client.open(body(clients.len())).await {
            Ok(client) => clients.push(client),
            // More at once than the socket's queue has room for.
            Err(ClientError::Absent { source, .. }) if source.kind() == WouldBlock => {
                sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    drop(clients);
    timeout(PATIENCE, lab.client.hello()).await.map(Result::unwrap).is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_were_killed_are_not_in_the_way_of_others() {
    allow_open_files();
    let exec = |n| {
        let session = format!("exec{n}");
        let exec = mux::Exec { session, args: vec!["ls".into()], ..mux::Exec::default() };
        Body::Exec(Exec { container: "web".into(), exec: Some(exec), from: 0 })
    };
    let container = || Container { container: "web".into() };
    let bodies = [
        Body::Wait(container()),
        Body::Stop(Stop { container: "web".into(), ..Stop::default() }),
        Body::Pause(container()),
        Body::Diagnose(container()),
        Body::Top(Top { container: "web".into() }),
    ];
    let mut lingering = Vec::new();
    for body in bodies {
        if linger(|_| body.clone()).await {
            lingering.push(body);
        }
    }
    if linger(exec).await {
        lingering.push(exec(0));
    }
    assert!(lingering.is_empty(), "{lingering:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_ordered_is_done_though_it_left_at_once() {
    let (lab, mut guest) = running().await;
    for signal in 1..=20 {
        let kill = Kill { container: "web".into(), signal, exec: String::new() };
        drop(lab.client.open(Body::Kill(kill)).await.unwrap());
    }
    let is_kill = |asked: &&MuxMessage| matches!(asked.body, Some(mux::Body::Signal(_)));
    guest.until("all", |guest| guest.asked.iter().filter(is_kill).count() == 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_gets_its_session_past_all_connections_that_say_nothing() {
    allow_open_files();
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..MAX_STRANGERS {
        silent.push(TcpStream::connect(lab.listen).await.unwrap());
    }
    // Each is greeted, so that they are all in.
    for stranger in &silent {
        stranger.readable().await.unwrap();
    }
    let mut guest = Guest::new(KEY, Sealed, 1);
    guest.connect(lab.listen).await;
    let session = guest.until("a session", |guest| guest.sessions == 1);
    timeout(PATIENCE, session).await.expect("the silent ones are in the way");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_whose_guest_has_lost_its_session_are_bounded() {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let mut pipes = Vec::new();
    for n in 1..=MAX_IDLE + 4 {
        let boot = u8::try_from(n).unwrap();
        let mut guest = Guest::new(KEY, Sealed, boot);
        guest.connect(lab.listen).await;
        guest.until("a session", |guest| guest.sessions == 1 && guest.is_drained()).await;
        pipes.push(guest.ask_as(Guest::new(KEY, Sealed, boot + 100)).await);
        // Before that it would be another pipe of the same guest that takes its place.
        while lab.client.list().await.unwrap()[0].connected {}
    }
    // The last ones are kept: their guests may be about to make a session.
    for oldest in &mut pipes[..4] {
        let hung_up = timeout(PATIENCE, oldest.read_to_end(&mut Vec::new())).await;
        // With something unread at its end it is an error, and a hang-up all the same.
        drop(hung_up.expect("a pipe of no use is kept"));
    }
    let known = lab.client.inspect("web".into()).await.unwrap();
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    assert_eq!(known["link"]["idle_pipes"].as_array().unwrap().len(), MAX_IDLE, "{known}");
    // One of those kept is of use.
    let mut guest = Guest::new(KEY, Sealed, 200);
    guest.take(pipes.pop().unwrap());
    guest.until("a session", |guest| guest.sessions == 1).await;
}
