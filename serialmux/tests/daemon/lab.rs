//! A daemon of a test's own, with a container registered, and what tests do with it.

use crate::guest::{Guest, ID};
use serialmux::api::{Receiver, Sender, answer, request};
use serialmux::client::{Client, ClientError, next};
use serialmux::daemon::Daemon;
use serialmux::place::Place;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::Runtime;
use wire::Protection::Sealed;
use wire::chunk::Stream::Stdout;

pub(crate) const KEY: &[u8] = b"a key";

/// A daemon with a state directory of its own.
pub(crate) struct Lab {
    pub(crate) place: Place,
    pub(crate) client: Client,
    pub(crate) listen: SocketAddr,
    /// All of the daemon's tasks; ending it is `kill -9` without the process.
    runtime: Option<Runtime>,
    _dir: tempfile::TempDir,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn serve(place: &Place) -> (SocketAddr, Runtime) {
    let runtime = Runtime::new().unwrap();
    let place = place.clone();
    let daemon = runtime.spawn(async move { Daemon::bind(&place, loopback()).await.unwrap() });
    let daemon = daemon.await.unwrap();
    let listen = daemon.listen();
    runtime.spawn(daemon.serve());
    (listen, runtime)
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path().join("state")));
        let (listen, runtime) = serve(&place).await;
        let runtime = Some(runtime);
        Self { client: Client::new(&place), place, listen, runtime, _dir: dir }
    }

    pub(crate) fn kill(&mut self) {
        let end = |runtime: Runtime| runtime.shutdown_timeout(Duration::from_secs(10));
        tokio::task::block_in_place(|| self.runtime.take().map(end));
    }

    pub(crate) async fn restart(&mut self) {
        self.kill();
        let (listen, runtime) = serve(&self.place).await;
        (self.listen, self.runtime) = (listen, Some(runtime));
    }

    pub(crate) async fn register(&self, plain: bool) -> Result<(), ClientError> {
        let (id, name, command) = (ID.into(), "web".into(), "httpd".into());
        let key = KEY.to_vec();
        let (tty, open_stdin) = (false, true);
        let register = request::Register {
            id,
            name,
            key,
            plain,
            tty,
            open_stdin,
            command,
            ..Default::default()
        };
        self.client.register(register).await
    }

    /// The guest of such a boot, whose process is known to run.
    pub(crate) async fn boot(&self, boot: u8) -> Guest {
        let mut guest = Guest::new(KEY, Sealed, boot);
        guest.connect(self.listen).await;
        guest.started();
        guest
            .until("the start to be known", |guest| guest.sessions > 0 && guest.is_drained())
            .await;
        guest
    }

    pub(crate) async fn attach(&self, from_start: bool) -> (Sender, Receiver) {
        let attach = request::Attach {
            container: "web".into(),
            stdin: true,
            from_start,
            ..Default::default()
        };
        let (sender, mut receiver) = self.client.open(request::Body::Attach(attach)).await.unwrap();
        assert!(matches!(next(&mut receiver).await, Ok(answer::Body::Attached(_))));
        (sender, receiver)
    }
}

/// A running container whose guest reads its input, and a daemon that knows it.
pub(crate) async fn running() -> (Lab, Guest) {
    let lab = Lab::new().await;
    lab.register(false).await.unwrap();
    let guest = lab.boot(1).await;
    (lab, guest)
}

/// All output until the end, per stream, and the exit.
pub(crate) async fn drain(mut receiver: Receiver) -> (Vec<u8>, Vec<u8>, answer::Exit) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match next(&mut receiver).await.unwrap() {
            answer::Body::Output(output) if output.stream == 1 => out.extend(output.bytes),
            answer::Body::Output(output) => err.extend(output.bytes),
            answer::Body::Exit(exit) => return (out, err, exit),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn noise(n: usize) -> Vec<u8> {
    (0..n as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

pub(crate) async fn print_all(guest: &mut Guest, bytes: &[u8]) {
    let mut done = 0;
    guest
        .until("room for output", |guest| {
            done += guest.print(Stdout, &bytes[done..]);
            done == bytes.len()
        })
        .await;
}
