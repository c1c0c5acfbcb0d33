//! A guest without a VM: the agent's end of the link over a TCP connection.

use serialmux::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::message::{self, GuestMessage, Label, MuxMessage, guest, label};
use wire::{
    ChannelId, Class, Direction, Event, GuestIdentity, Link, LinkConfig, Open, Protection, Psk,
    Standby, Transport, chunk,
    pack::{Budget, Packer, Unpacker},
};

/// The session's id, which is the container's.
pub(crate) const ID: &str = "c0ffee";

/// Most bytes of one entry.
const PRINT: usize = 16 * 1024;

pub(crate) struct Guest {
    link: Link,
    line: Option<TcpStream>,
    /// Another pipe, which takes its place when it is wanted.
    pub(crate) other: Option<(TcpStream, Standby)>,
    up: ChannelId,
    down: Option<ChannelId>,
    output: ChannelId,
    input: ChannelId,
    /// The channel with which the input began.
    input_origin: ChannelId,
    unpacker: Unpacker,
    /// Bytes of the input's channel in whole blocks.
    input_taken: u64,
    chunks: chunk::Writer,
    packer: Packer,
    requests: message::Reader,
    /// What came on standard input, and whether it ended.
    pub(crate) stdin: Vec<u8>,
    pub(crate) stdin_ended: bool,
    pub(crate) asked: Vec<MuxMessage>,
    pub(crate) sessions: usize,
}

fn open(link: &mut Link, direction: Direction, class: Class, kind: label::Kind) -> ChannelId {
    let label = prost::Message::encode_to_vec(&Label { kind: Some(kind) });
    link.open_channel(Open { direction, class, label }).unwrap()
}

fn open_input(link: &mut Link, start: u64, origin: u32) -> ChannelId {
    let input = label::Input { session: ID.to_owned(), packed: true, start, origin };
    open(link, Direction::ToGuest, Class::Exec, label::Kind::Input(input))
}

impl Guest {
    pub(crate) fn new(key: &[u8], protection: Protection, boot: u8) -> Self {
        let agent = "a guest of the tests".to_owned();
        let identity =
            GuestIdentity { psk: Psk::derive(key), protection, boot_id: [boot; 16], agent };
        let mut link = Link::guest(LinkConfig::uart(), identity, clock::entropy(), clock::now());
        let control = label::Kind::Control(label::Control {});
        let up = open(&mut link, Direction::ToMux, Class::Control, control);
        let output =
            label::Kind::Output(label::Output { session: ID.to_owned(), tty: false, packed: true });
        let output = open(&mut link, Direction::ToMux, Class::Log, output);
        let input = open_input(&mut link, 0, 0);
        Self {
            link,
            line: None,
            other: None,
            up,
            down: None,
            output,
            input,
            input_origin: input,
            unpacker: Unpacker::default(),
            input_taken: 0,
            chunks: chunk::Writer::default(),
            packer: Packer::new(&Budget::new(1)),
            requests: message::Reader::default(),
            stdin: Vec::new(),
            stdin_ended: false,
            asked: Vec::new(),
            sessions: 0,
        }
    }

    pub(crate) async fn connect(&mut self, to: std::net::SocketAddr) {
        self.line = Some(TcpStream::connect(to).await.unwrap());
    }

    /// Connects once more, as a virtio-serial port would.
    pub(crate) async fn connect_other(&mut self, to: std::net::SocketAddr, key: &[u8]) {
        let identity = GuestIdentity {
            psk: Psk::derive(key),
            protection: Protection::Sealed,
            boot_id: [1; 16],
            agent: String::new(),
        };
        let entropy = clock::entropy();
        let standby = Standby::new(Transport::Virtio, identity, entropy, clock::now());
        self.other = Some((TcpStream::connect(to).await.unwrap(), standby));
    }

    pub(crate) fn transport(&self) -> Transport {
        self.link.transport()
    }

    async fn step_other(other: &mut Option<(TcpStream, Standby)>) -> Vec<u8> {
        let Some((line, standby)) = other else { return std::future::pending().await };
        let mut buffer = vec![0; 4096];
        let mut frame = Vec::new();
        while standby.poll_transmit(clock::now(), &mut frame) {}
        line.write_all(&frame).await.ok();
        let wake = async {
            match standby.poll_timeout() {
                Some(at) => tokio::time::sleep_until(clock::deadline(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            n = line.read(&mut buffer) => buffer.truncate(n.unwrap_or(0)),
            () = wake => buffer.clear(),
        }
        buffer
    }

    fn arrived_on_other(&mut self, bytes: &[u8]) {
        let Some((line, standby)) = &mut self.other else { return };
        let mut input = bytes;
        if standby.handle_bytes(clock::now(), &mut input) {
            self.link.take_pipe(clock::now(), standby);
            std::mem::swap(line, self.line.as_mut().unwrap());
            self.link.handle_bytes(clock::now(), input);
        }
    }

    pub(crate) fn hang_up(&mut self) {
        self.line = None;
    }

    pub(crate) fn say(&mut self, body: guest::Body) {
        let mut bytes = Vec::new();
        message::put(&GuestMessage { body: Some(body) }, &mut bytes);
        assert_eq!(self.link.write(self.up, &bytes), bytes.len());
    }

    pub(crate) fn started(&mut self) {
        self.say(guest::Body::Started(guest::Started { session: ID.into(), time_us: 5, pid: 9 }));
    }

    pub(crate) fn exited(&mut self, code: i32) {
        let output_length = self.link.offset(self.output).unwrap();
        let session = ID.into();
        let exited = guest::Exited { session, code, output_length, ..guest::Exited::default() };
        self.link.finish(self.output);
        self.say(guest::Body::Exited(exited));
    }

    /// Puts out what there is room for; how much that was.
    pub(crate) fn print(&mut self, stream: chunk::Stream, bytes: &[u8]) -> usize {
        let overhead = chunk::Writer::OVERHEAD + Packer::OVERHEAD;
        let room = self.link.room(self.output).saturating_sub(overhead);
        let n = bytes.len().min(room).min(PRINT);
        if n > 0 {
            let (mut entry, mut block) = (Vec::new(), Vec::new());
            self.chunks.push(stream, clock::wall_us(), &bytes[..n], &mut entry);
            self.packer.push(&entry, &mut block);
            assert_eq!(self.link.write(self.output, &block), block.len());
        }
        n
    }

    /// Puts out all of this, for which there is room.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn print_at_once(&mut self, bytes: &[u8]) {
        let mut printed = 0;
        while printed < bytes.len() {
            printed += self.print(chunk::Stream::Stdout, &bytes[printed..]);
        }
    }

    /// Opens the stream of a request.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn open_stream(&mut self, request: u64) -> ChannelId {
        let kind = label::Kind::Stream(label::Stream { request });
        open(&mut self.link, Direction::ToMux, Class::Bulk, kind)
    }

    /// Writes to a stream, and ends it with the last byte if that is the end.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) async fn stream(&mut self, stream: ChannelId, bytes: &[u8], is_all: bool) {
        let mut done = 0;
        self.until("room in a stream", |guest| {
            done += guest.link.write(stream, &bytes[done..]);
            done == bytes.len()
        })
        .await;
        if is_all {
            self.link.finish(stream);
        }
        self.until("the stream to be taken", |guest| guest.is_drained()).await;
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.link.is_drained()
    }

    /// Whether the multiplexer has taken everything, the segment that is not at its end included.
    pub(crate) fn is_taken(&self) -> bool {
        self.link.unsent(self.output) == 0 && self.link.gauges().in_flight == 0
    }

    /// Moves bytes both ways until `done`; fails if that takes unreasonably long.
    pub(crate) async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            self.events();
            if done(self) {
                return;
            }
            let step = tokio::time::timeout_at(limit, self.step()).await;
            assert!(step.is_ok(), "waited too long for {what}: {:?}", self.link);
        }
    }

    /// Says what can be said without an answer, and is cut off; how much of its output it could not say.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) async fn gasp(&mut self) -> usize {
        let mut out = Vec::new();
        while self.link.poll_transmit(clock::now(), &mut out) {}
        self.line.take().unwrap().write_all(&out).await.unwrap();
        self.link.unsent(self.output)
    }

    /// Has another boot ask for a session on its line, as after a reset of the VM; the line, with nobody on it.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) async fn ask_as(mut self, mut next: Self) -> TcpStream {
        let mut out = Vec::new();
        while next.link.poll_transmit(clock::now(), &mut out) {}
        let mut line = self.line.take().unwrap();
        line.write_all(&out).await.unwrap();
        line
    }

    /// Has this line.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn take(&mut self, line: TcpStream) {
        self.line = Some(line);
    }

    /// Waits for something to arrive, and leaves it there.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) async fn is_told(&mut self) {
        self.line.as_ref().unwrap().peek(&mut [0]).await.unwrap();
    }

    /// Moves bytes both ways while something else goes on.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            self.events();
            tokio::select! {
                done = &mut other => return done,
                // Given up in the middle it loses bytes, as a serial port does.
                () = self.step() => {}
            }
        }
    }

    async fn step(&mut self) {
        let mut out = Vec::new();
        while self.link.poll_transmit(clock::now(), &mut out) {}
        let wake = self.link.poll_timeout().map(clock::deadline);
        let wake =
            wake.unwrap_or_else(|| tokio::time::Instant::now() + std::time::Duration::from_secs(1));
        let mut buffer = [0; 4096];
        let Some(line) = &mut self.line else {
            tokio::time::sleep_until(wake).await;
            return self.link.handle_timeout(clock::now());
        };
        // A line that is gone loses bytes, as a serial port does.
        line.write_all(&out).await.ok();
        tokio::select! {
            n = line.read(&mut buffer) => match n {
                Ok(n) if n > 0 => self.link.handle_bytes(clock::now(), &buffer[..n]),
                _ => self.line = None,
            },
            bytes = Self::step_other(&mut self.other) => self.arrived_on_other(&bytes),
            () = tokio::time::sleep_until(wake) => self.link.handle_timeout(clock::now()),
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.link.poll_event() {
            match event {
                Event::Established { peer_is_new, .. } => {
                    self.sessions += 1;
                    if peer_is_new {
                        if let Some(old) = self.down.take() {
                            self.link.abandon(old);
                        }
                        // What the last one left in the middle of a block nobody can go on with.
                        if !self.stdin_ended && self.link.offset(self.input) > Some(0) {
                            self.link.abandon(self.input);
                            let (start, origin) = (self.stdin.len() as u64, self.input_origin.0);
                            self.input = open_input(&mut self.link, start, origin);
                            (self.unpacker, self.input_taken) = (Unpacker::default(), 0);
                        }
                        self.requests = message::Reader::default();
                        let control = label::Kind::Control(label::Control {});
                        self.down =
                            Some(open(&mut self.link, Direction::ToGuest, Class::Control, control));
                    }
                }
                Event::Readable(id) => self.read(id),
                Event::Finished(id) if id == self.input => {
                    self.stdin_ended = true;
                    self.link.close(id);
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, id: ChannelId) {
        loop {
            let bytes = self.link.read(id, 4096);
            if bytes.is_empty() {
                return;
            }
            if id == self.input {
                self.unpacker.push(&bytes);
                while let Some(block) = self.unpacker.next_block().unwrap() {
                    self.stdin.extend_from_slice(&block.plain);
                    self.input_taken += block.taken as u64;
                }
                self.link.release(id, self.input_taken);
                continue;
            }
            self.requests.push(&bytes);
            while let Some((request, _)) = self.requests.next_message::<MuxMessage>().unwrap() {
                let reply = guest::Reply { request: request.request, ..guest::Reply::default() };
                self.asked.push(request);
                self.say(guest::Body::Reply(reply));
            }
            let offset = self.link.offset(id).unwrap();
            self.link.release(id, offset);
        }
    }
}
