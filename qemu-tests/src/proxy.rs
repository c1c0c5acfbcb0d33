//! A bad line: sits between a VM's serial port and serialmux, and does to the bytes what lines do.
//!
//! ```text
//!   QEMU serial0 ──tcp──▶ Proxy ──tcp──▶ serialmux
//!                          │ up:   one Distorter over all connections
//!                          └ down: one Distorter over all connections
//! ```
//!
//! What goes wrong where is decided by a seed and the offset in the stream of each direction, counted
//! over all connections since the start, and by nothing else: not by how the bytes were cut into
//! reads, nor by time. The seed is printed.

mod distorter;
mod fault;

pub use fault::Weather;

use distorter::{Distorter, Step};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Of what went up last, what comes again over an old connection that is still open.
const REPEATED: usize = 4096;

/// A proxy; gone when dropped, with its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    up: Mutex<Distorter>,
    down: Mutex<Distorter>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    over: bool,
    /// Whether who connects has to wait.
    held: bool,
    /// When each connection was accepted.
    accepted: Vec<Instant>,
    now: Option<Connection>,
    /// The far end of a connection whose near end is gone: nobody has told serialmux.
    half_open: Option<TcpStream>,
    /// What went up last.
    last_up: Vec<u8>,
    seen: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Connection {
    near: TcpStream,
    far: TcpStream,
}

impl Connection {
    // What is closed already needs no closing.
    fn cut(&self) {
        self.near.shutdown(Shutdown::Both).ok();
        self.far.shutdown(Shutdown::Both).ok();
    }
}

impl Proxy {
    /// A proxy to the serialmux at `target` with this weather on the way up, from the VM, and down.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub fn start(target: SocketAddr, seed: u64, up: Weather, down: Weather) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            up: Mutex::new(Distorter::new(seed, up)),
            down: Mutex::new(Distorter::new(!seed, down)),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        eprintln!("fault proxy: seed {seed}");
        let theirs = Arc::clone(&shared);
        thread::spawn(move || theirs.accept(&listener));
        Ok(Self { address, shared })
    }

    /// A proxy that changes nothing and cuts only when told.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn fair(target: SocketAddr) -> io::Result<Self> {
        Self::start(target, 0, Weather::FAIR, Weather::FAIR)
    }

    /// Where the VM is to call.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the connection of now, if there is one.
    pub fn cut(&self) {
        if let Some(connection) = self.shared.state().now.take() {
            connection.cut();
        }
    }

    /// Who connects from now on reaches nobody until [`Proxy::let_go`].
    pub fn hold(&self) {
        self.shared.state().held = true;
    }

    /// The opposite of [`Proxy::hold`].
    pub fn let_go(&self) {
        self.shared.state().held = false;
        self.shared.changed.notify_all();
    }

    /// Waits for the `n`th connection, counted from 1; when it was accepted.
    pub fn accepted(&self, n: usize, limit: Duration) -> Option<Instant> {
        let state = self.shared.state();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| state.accepted.len() < n)
            .unwrap_or_else(PoisonError::into_inner);
        waited.0.accepted.get(n.checked_sub(1)?).copied()
    }

    /// How many connections there were so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.state().accepted.len()
    }

    /// Ends all faults from now on, and takes the old connections away.
    pub fn clear_up(&self) {
        lock(&self.shared.up).clear_up();
        lock(&self.shared.down).clear_up();
        self.shared.state().half_open = None;
    }

    /// What went wrong so far, by kind, for people.
    #[must_use]
    pub fn tally(&self) -> String {
        let state = self.shared.state();
        let words: Vec<String> = state.seen.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        format!("{} connections; {}", state.accepted.len(), words.join(", "))
    }

    /// How often something of this kind went wrong so far.
    #[must_use]
    pub fn count(&self, kind: &str) -> u64 {
        self.shared.state().seen.get(kind).copied().unwrap_or(0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.over = true;
        state.half_open = None;
        if let Some(connection) = state.now.take() {
            connection.cut();
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts; if nobody can connect, it has ended.
        TcpStream::connect(self.address).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((near, _)) = listener.accept() {
            let held = |state: &mut State| state.held && !state.over;
            let state = self.changed.wait_while(self.state(), held);
            if state.unwrap_or_else(PoisonError::into_inner).over {
                return;
            }
            // A serialmux that is away: the VM is hung up on, and calls again.
            let Ok(far) = TcpStream::connect(self.target) else { continue };
            if let Err(error) = self.join(near, far) {
                eprintln!("fault proxy: {error}");
            }
        }
    }

    fn join(self: &Arc<Self>, near: TcpStream, far: TcpStream) -> io::Result<()> {
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ways = [
            (Way::Up, near.try_clone()?, far.try_clone()?),
            (Way::Down, far.try_clone()?, near.try_clone()?),
        ];
        let mut state = self.state();
        if let Some(before) = state.now.replace(Connection { near, far }) {
            before.cut();
        }
        state.accepted.push(Instant::now());
        let (again, old) = (state.last_up.clone(), state.half_open.as_ref());
        let old = old.and_then(|old| old.try_clone().ok());
        drop(state);
        for (way, from, to) in ways {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pump(way, from, &to));
        }
        if let Some(mut old) = old {
            // The old connection comes to life once more, with what it said before; serialmux may
            // have closed it, as it should.
            old.write_all(&again).ok();
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Moves bytes one way until the connection ends; then it ends the other way, too.
    fn pump(&self, way: Way, mut from: TcpStream, to: &TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            // QEMU holds bytes back until those before them are acknowledged, for 40 ms if nobody hurries;
            // serialmux does, too.
            rustix::net::sockopt::set_tcp_quickack(&from, true).ok();
            if self.pass(way, &buffer[..n], to).is_err() {
                break;
            }
        }
        let mut state = self.state();
        let mine = match way {
            Way::Up => &from,
            Way::Down => to,
        };
        // A newer connection is none of this one's business.
        let is_now = state.now.as_ref().is_some_and(|now| is_same(&now.near, mine));
        if is_now && let Some(connection) = state.now.take() {
            connection.cut();
        }
    }

    fn pass(&self, way: Way, bytes: &[u8], mut to: &TcpStream) -> io::Result<()> {
        let distorter = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        let steps = lock(distorter).push(bytes);
        for step in steps {
            match step {
                Step::Bytes(bytes) => {
                    to.write_all(&bytes)?;
                    if way == Way::Up {
                        self.state().went_up(&bytes);
                    }
                }
                Step::Wait(time) => thread::sleep(time),
                Step::Note(kind) => *self.state().seen.entry(kind).or_default() += 1,
                Step::Cut => return Err(io::ErrorKind::ConnectionAborted.into()),
                Step::HalfOpen => {
                    let mut state = self.state();
                    if let Some(Connection { near, far }) = state.now.take() {
                        near.shutdown(Shutdown::Both).ok();
                        state.half_open = Some(far);
                    }
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn went_up(&mut self, bytes: &[u8]) {
        self.last_up.extend_from_slice(bytes);
        let surplus = self.last_up.len().saturating_sub(REPEATED);
        self.last_up.drain(..surplus);
    }
}

fn is_same(a: &TcpStream, b: &TcpStream) -> bool {
    a.peer_addr().ok() == b.peer_addr().ok() && a.local_addr().ok() == b.local_addr().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fair_proxy_passes_bytes_both_ways_and_a_cut_ends_both() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::fair(server.local_addr().unwrap()).unwrap();
        let mut near = TcpStream::connect(proxy.address()).unwrap();
        let (mut far, _) = server.accept().unwrap();
        let mut buffer = [0; 4];
        near.write_all(b"ping").unwrap();
        far.read_exact(&mut buffer).unwrap();
        far.write_all(b"pong").unwrap();
        near.read_exact(&mut buffer).unwrap();
        assert_eq!(buffer, *b"pong");
        assert!(proxy.accepted(1, Duration::from_secs(60)).is_some());
        proxy.cut();
        assert_eq!(near.read(&mut buffer).unwrap_or(0), 0);
        assert_eq!(far.read(&mut buffer).unwrap_or(0), 0);
    }
}
