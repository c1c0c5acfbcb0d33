//! The inner end of a measurement: does what it is told over a pipe, on that same pipe.
//!
//! One pipe is its standard input and output, which serialmux carries; the other, if the VM has it, a
//! port of its own that nobody else touches: the number of a serial one, the name of a virtio one, or `vsock:` and a
//! number for a port of the host's. Both are served alike and at the same time. A
//! command is a line; what answers `ready` tells behind that what `cpu` tells, for its beginning:
//!
//! | command | what happens |
//! |---|---|
//! | `out KIND N` | answers `ready`, waits for one byte, writes N bytes of [`Kind`] |
//! | `lines N` | answers `ready`, waits for one byte, writes the numbers 1 to N, each line by itself |
//! | `seq N` | the same, 4 KiB at a time, as programs write to a pipe |
//! | `in N` | answers `ready`, reads N bytes, answers their [`Sum`] |
//! | `echo N` | answers `ready`, reads N bytes and writes each back |
//! | `relay N` | the same, but that a second process does it, behind two pipes |
//! | `pulse` | answers `ready`, writes numbers, one each millisecond, until it gets a byte |
//! | `flood` | writes text to standard error until it is told `calm`, answers `ready` when a megabyte is through |
//! | `cpu` | answers how long the processor has been idle, and the time, both in ms |
//! | `exit CODE` | ends |

use gauge::{Kind, Sum};
use nix::libc::VMADDR_CID_HOST;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};
use rustix::termios::{ControlModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::fd::AsRawFd as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{scope, spawn};
use std::time::{Duration, Instant};

/// What the kernel calls serial ports (`Documentation/admin-guide/devices.txt`): major 4, from 64.
const SERIAL: (u32, u32) = (4, 64);

/// Whether standard error is to be left alone.
static CALM: AtomicBool = AtomicBool::new(true);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(name) = arguments.get(1) {
        let port = match (name.parse(), name.strip_prefix("vsock:").map(str::parse)) {
            (Ok(number), _) => port(number),
            (_, Some(Ok(number))) => vsock_port(number),
            _ => virtio_port(name),
        };
        match port.and_then(|port| Ok((port.try_clone()?, port))) {
            Ok((from, to)) => drop(spawn(move || finish(serve(from, to)))),
            Err(error) => {
                eprintln!("gauge: port {name}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    // Without the standard library's lock and its buffer of lines.
    let streams = || -> io::Result<(File, File)> {
        let from = rustix::io::dup(rustix::stdio::stdin())?;
        let to = rustix::io::dup(rustix::stdio::stdout())?;
        Ok((from.into(), to.into()))
    };
    match streams() {
        Ok((from, to)) => finish(serve(from, to)),
        Err(error) => finish(Err(error)),
    }
}

fn finish(served: io::Result<u8>) -> ! {
    let code = served.unwrap_or_else(|error| {
        eprintln!("gauge: {error}");
        2
    });
    std::process::exit(code.into())
}

/// Opens ttyS*number*, raw: each byte as it is, and each read as soon as there is one.
fn port(number: u32) -> io::Result<File> {
    let path = format!("/dev/ttyS{number}");
    let device = makedev(SERIAL.0, SERIAL.1 + number);
    match mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, device) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let port = open(&path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    let mut settings = tcgetattr(&port)?;
    settings.make_raw();
    settings.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    settings.control_modes -= ControlModes::CRTSCTS | ControlModes::HUPCL;
    settings.set_speed(115_200)?;
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(&port, OptionalActions::Flush, &settings)?;
    Ok(port.into())
}

/// Opens the virtio-serial port called so, when its driver has come.
fn virtio_port(name: &str) -> io::Result<File> {
    let device = awaited(|| virtio_device(name)?.ok_or_else(|| ErrorKind::NotFound.into()))?;
    let path = format!("/dev/{name}");
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, device)?;
    Ok(open(&path, OFlags::RDWR, Mode::empty())?.into())
}

/// Tries until it succeeds, for a minute: nobody is told that a driver has come.
fn awaited<T>(mut find: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        match find() {
            Err(_) if Instant::now() < limit => std::thread::sleep(Duration::from_millis(50)),
            found => return found,
        }
    }
}

/// Connects to a port of the host's over vsock, when its driver has come.
fn vsock_port(number: u32) -> io::Result<File> {
    awaited(|| {
        let port = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None)?;
        connect(port.as_raw_fd(), &VsockAddr::new(VMADDR_CID_HOST, number))?;
        Ok(port.into())
    })
}

fn virtio_device(name: &str) -> io::Result<Option<u64>> {
    let Ok(ports) = std::fs::read_dir("/sys/class/virtio-ports") else { return Ok(None) };
    for port in ports.flatten().map(|entry| entry.path()) {
        let read = |file| std::fs::read_to_string(port.join(file));
        if read("name").is_ok_and(|it| it.trim() == name) {
            let device = read("dev")?;
            let numbers = device
                .trim()
                .split_once(':')
                .and_then(|(major, minor)| Some(makedev(major.parse().ok()?, minor.parse().ok()?)));
            return Ok(numbers);
        }
    }
    Ok(None)
}

/// Does what comes over a pipe until its end, or until it is told a code to exit with.
fn serve(mut from: File, mut to: File) -> io::Result<u8> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        if from.read(&mut byte)? == 0 {
            return Ok(0);
        }
        if byte != *b"\n" {
            line.extend(byte);
            continue;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        if let Some(code) = perform(&text, &mut from, &mut to)? {
            return Ok(code);
        }
    }
}

fn perform(line: &str, from: &mut File, to: &mut File) -> io::Result<Option<u8>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let unknown = || Error::new(ErrorKind::InvalidInput, format!("unknown command {line:?}"));
    let number = |word: &str| word.parse::<usize>().map_err(|_| unknown());
    match *words.as_slice() {
        ["out", kind, n] => {
            let bytes = Kind::of_word(kind).ok_or_else(unknown)?.bytes(number(n)?);
            begin(from, to)?;
            to.write_all(&bytes)?;
        }
        ["lines", n] => {
            let n = number(n)?;
            begin(from, to)?;
            for i in 1..=n {
                to.write_all(format!("{i}\n").as_bytes())?;
            }
        }
        ["seq", n] => {
            let n = number(n)?;
            begin(from, to)?;
            let mut lines = io::BufWriter::with_capacity(4096, to);
            for i in 1..=n {
                writeln!(lines, "{i}")?;
            }
            lines.flush()?;
        }
        ["in", n] => {
            ready(to)?;
            let sum = take(from, number(n)?)?;
            to.write_all(format!("{}\n", sum.word()).as_bytes())?;
        }
        ["echo", n] => {
            ready(to)?;
            let mut byte = [0];
            for _ in 0..number(n)? {
                from.read_exact(&mut byte)?;
                to.write_all(&byte)?;
            }
        }
        ["relay", n] => relay(number(n)?, from, to)?,
        ["pulse"] => pulse(from, to)?,
        ["flood"] => {
            CALM.store(false, Ordering::Relaxed);
            let (sender, begun) = channel();
            drop(spawn(move || flood(&sender)));
            begun.recv().map_err(|_| Error::other("nobody takes the flood"))?;
            ready(to)?;
        }
        ["calm"] => CALM.store(true, Ordering::Relaxed),
        ["cpu"] => to.write_all(format!("{}\n", cpu()?).as_bytes())?,
        ["exit", code] => return code.parse().map(Some).map_err(|_| unknown()),
        _ => return Err(unknown()),
    }
    Ok(None)
}

fn begin(from: &mut File, to: &mut File) -> io::Result<()> {
    ready(to)?;
    from.read_exact(&mut [0])
}

fn ready(to: &mut File) -> io::Result<()> {
    to.write_all(format!("ready {}\n", cpu()?).as_bytes())
}

fn take(from: &mut File, n: usize) -> io::Result<Sum> {
    let mut sum = Sum::default();
    let mut left = n;
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let most = left.min(buffer.len());
        let n = from.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        sum.add(&buffer[..n]);
        left -= n;
    }
    Ok(sum)
}

fn pulse(from: &mut File, to: &mut File) -> io::Result<()> {
    ready(to)?;
    let (sender, stop) = channel();
    scope(|scope| {
        let beating = scope.spawn(move || beat(to, &stop));
        let stopped = from.read_exact(&mut [0]);
        drop(sender);
        beating.join().unwrap_or_else(|_| Err(Error::other("the pulse stopped")))?;
        stopped
    })
}

fn beat(to: &mut File, stop: &Receiver<()>) -> io::Result<()> {
    for i in 1_u64.. {
        to.write_all(format!("{i}\n").as_bytes())?;
        if stop.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
    }
    to.write_all(b"over\n")
}

fn relay(n: usize, from: &mut File, to: &mut File) -> io::Result<()> {
    let mut second =
        Command::new("/proc/self/exe").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(mut into), Some(mut out)) = (second.stdin.take(), second.stdout.take()) else {
        return Err(ErrorKind::BrokenPipe.into());
    };
    writeln!(into, "echo {n}")?;
    let mut byte = [0];
    while byte != *b"\n" {
        out.read_exact(&mut byte)?;
    }
    ready(to)?;
    for _ in 0..n {
        from.read_exact(&mut byte)?;
        into.write_all(&byte)?;
        out.read_exact(&mut byte)?;
        to.write_all(&byte)?;
    }
    drop(into);
    second.wait().map(drop)
}

fn flood(begun: &Sender<()>) {
    let bytes = Kind::Text.bytes(1 << 20);
    let mut errors = io::stderr();
    loop {
        for piece in bytes.chunks(4096) {
            if CALM.load(Ordering::Relaxed) || errors.write_all(piece).is_err() {
                return;
            }
        }
        // Nobody listens after the first.
        let _told = begun.send(());
    }
}

/// Milliseconds in which the processor was idle, and those since some beginning.
fn cpu() -> io::Result<String> {
    // Fields 4 and 5 of the first line are idle and iowait, in hundredths of a second (proc(5)).
    let text = std::fs::read_to_string("/proc/stat")?;
    let fields: Vec<u64> =
        text.lines().next().unwrap_or_default().split_whitespace().flat_map(str::parse).collect();
    let idle = fields.get(3).copied().unwrap_or(0) + fields.get(4).copied().unwrap_or(0);
    let now = started().elapsed();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Ok(format!("{} {now}", idle * 10))
}

fn started() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}
