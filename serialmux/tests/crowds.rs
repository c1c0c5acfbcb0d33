//! Those who are too many: clients that were killed, and connections that nobody says anything on.
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(dead_code, reason = "the guest and the lab are shared with other tests")]

#[path = "daemon/guest.rs"]
mod guest;
#[path = "daemon/lab.rs"]
mod lab;

use lab::Lab;
use rustix::process::{Resource, getrlimit, setrlimit};
use serialmux::api::inside::Top;
use serialmux::api::request::{Body, Container, Exec, Stop};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use wire::message::mux;

/// How many clients a daemon serves at once.
const MAX_CLIENTS: usize = 1024;
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
            Err(_) => sleep(Duration::from_millis(1)).await,
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
