//! The VM of the bench: booted with a second way in, a serial port that leads straight to the program.

use super::pipe::Pipe;
use crate::checkout::Checkout;
use crate::deadline::deadline;
use crate::host_vsock::HostVsock;
use crate::lab::Lab;
use crate::monitor::Monitor;
use crate::program::Program;
use crate::proxy::Proxy;
use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
const NAME: &str = "bench";

/// What the VM has beside its serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: link and bare port are 16550s.
    Uart,
    /// Both are virtio-serial ports.
    Virtio,
    /// Both are connections over vsock.
    Vsock,
}

/// The bare port, ttyS2.
const PORT: u32 = 2;
/// What the bare port is called where it has a name.
const BARE: &str = "bare";
/// The host's port that it is over vsock.
const BARE_PORT: u32 = 2378;
/// Where serialmux listens on it.
const LINK_PORT: u32 = 2377;
/// The interrupt of ttyS2: triggered by levels, as the link's is, and of no other device that uses one.
const INTERRUPT: u32 = 10;
/// After so long without a byte, what was on its way when a connection was cut has arrived. Less than
/// the second after which QEMU calls again.
const QUIET: Duration = Duration::from_millis(300);

/// The VM.
#[derive(Debug)]
pub(super) struct Machine {
    bare: Pipe,
    link: Pipe,
    /// Where QEMU, or what serves the VM's vsock, calls for the bare pipe.
    bare_door: Door,
    /// Where it calls for the link since that was cut.
    proxy: Option<Proxy>,
    run: Child,
    execs: Vec<Child>,
    _vsock: Option<(HostVsock, Program)>,
    lab: Lab,
}

/// Where somebody calls.
#[derive(Debug)]
enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    fn accept(&self) -> Result<Pipe> {
        let fd = match self {
            Self::Tcp(door) => door.as_fd(),
            Self::Unix(door) => door.as_fd(),
        };
        let limit = Timespec::try_from(deadline()).ok();
        let n = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], limit.as_ref())?;
        ensure!(n > 0, "nobody called for the bare pipe in {} s", deadline().as_secs());
        let (to, from): (OwnedFd, OwnedFd) = match self {
            Self::Tcp(door) => {
                let (stream, _) = door.accept()?;
                (stream.try_clone()?.into(), stream.into())
            }
            Self::Unix(door) => {
                let (stream, _) = door.accept()?;
                (stream.try_clone()?.into(), stream.into())
            }
        };
        Ok(Pipe::new(BARE, to, from))
    }
}

impl Machine {
    /// Boots it and waits until both pipes answer.
    pub(super) fn boot(kind: Kind) -> Result<Self> {
        let lab = Lab::new();
        let image = lab.path("image");
        fs::create_dir(&image)?;
        fs::copy(Checkout::built().gauge(), image.join("gauge"))?;
        let image = image.display().to_string();
        let (pipe, port, device) = match kind {
            Kind::Uart => {
                let device = format!("isa-serial,index={PORT},irq={INTERRUPT},chardev={BARE}");
                ("uart", PORT.to_string(), Some(("", device)))
            }
            Kind::Virtio => {
                let device = format!(
                    "virtio-serial-pci,id=bareports \
                     -device virtserialport,bus=bareports.0,nr=1,chardev={BARE},name={BARE}"
                );
                // Without Nagle's algorithm, as the link's own pipe is.
                ("virtio", BARE.to_owned(), Some((",nodelay=on", device)))
            }
            Kind::Vsock => ("vsock", format!("vsock:{BARE_PORT}"), None),
        };
        let (vsock, bare_door, path) = if let Some((options, device)) = device {
            let door = TcpListener::bind("127.0.0.1:0")?;
            let port = format!("{}{options}", door.local_addr()?.port());
            (None, Door::Tcp(door), with_bare_port(&lab.path("bin"), &device, &port)?)
        } else {
            let vsock = HostVsock::start(&lab).context("vhost-device-vsock is not installed")?;
            let daemon = lab.daemon_at(&vsock.port(LINK_PORT));
            let door = Door::Unix(UnixListener::bind(vsock.port(BARE_PORT))?);
            (Some((vsock, daemon)), door, std::env::var("PATH").context("PATH")?)
        };
        let device = vsock.as_ref().map(|(vsock, _)| vsock.device());
        let mut arguments = vec!["run", "--rm", "-i", "--boot", "direct", "--pipe", pipe];
        if let Some(device) = &device {
            arguments.extend(["--vsock-socket", device]);
        }
        arguments.extend(["--name", NAME, &image, "/gauge", &port]);
        let mut run = lab
            .command("containervm", &arguments)
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let bare = bare_door.accept()?;
        let link = Pipe::of_child("link", &mut run)?;
        let mut machine =
            Self { bare, link, bare_door, proxy: None, run, execs: Vec::new(), _vsock: vsock, lab };
        // Both answer only when the program runs; what firmware and kernel left on the bare port is
        // gone with its set-up.
        for pipe in machine.pipes().into_iter().rev() {
            pipe.ask("echo 0")?;
        }
        let uses = format!("\"pipe\": \"{pipe}\"");
        let shown = || machine.lab.serialmux(["inspect", NAME]).finish().out();
        let limit = Instant::now() + deadline();
        while !shown().contains(&uses) {
            ensure!(Instant::now() < limit, "the link does not come to its {pipe} pipe");
        }
        Ok(machine)
    }

    /// Both, the bare one first.
    pub(super) fn pipes(&mut self) -> [&mut Pipe; 2] {
        [&mut self.bare, &mut self.link]
    }

    /// Cuts each pipe so often while output comes: how long it took from the VM's next call until
    /// its first output, bare first.
    pub(super) fn cut_while_output_comes(&mut self, n: usize) -> Result<[Vec<Duration>; 2]> {
        let dir = self.lab.vm(NAME);
        let mut monitor = Monitor::connect(&dir)?;
        self.bare.ask("pulse")?;
        let mut bare = Vec::new();
        for _ in 0..n {
            self.bare.some()?;
            self.bare.hang_up()?;
            self.bare = self.bare_door.accept()?;
            let start = Instant::now();
            self.bare.some()?;
            bare.push(start.elapsed());
        }
        self.bare.end_pulse()?;

        // A proxy would slow the link down; it is put in only now.
        let proxy = Proxy::fair(daemon(&dir)?)?;
        let address = proxy.address();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let address = json!({ "type": "inet", "data": { "host": host, "port": port } });
        let data = json!({ "addr": address, "server": false, "reconnect": 1 });
        let backend = json!({ "type": "socket", "data": data });
        monitor.execute("chardev-change", &json!({ "id": "serial0", "backend": backend }))?;
        ensure!(proxy.accepted(1, deadline()).is_some(), "QEMU does not call the proxy");
        self.link.ask("pulse")?;
        let mut link = Vec::new();
        for i in 0..n {
            self.link.some()?;
            proxy.cut();
            self.link.drain(QUIET)?;
            let start = proxy.accepted(i + 2, deadline()).context("QEMU does not call again")?;
            self.link.some()?;
            link.push(start.elapsed());
        }
        self.link.end_pulse()?;
        // What the VM has to say at its end goes there, too.
        self.proxy = Some(proxy);
        Ok([bare, link])
    }

    /// The same program beside the first, over the link.
    pub(super) fn exec(&mut self) -> Result<Pipe> {
        let mut exec = self.lab.command("serialmux", &["exec", "-i", NAME, "/gauge"]);
        let exec = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut exec = exec.spawn()?;
        let pipe = Pipe::of_child("exec", &mut exec)?;
        self.execs.push(exec);
        Ok(pipe)
    }

    /// Ends the program, and with it the VM.
    pub(super) fn end(mut self) -> Result<()> {
        self.link.say("exit 9")?;
        let status = self.run.wait()?;
        ensure!(status.code() == Some(9), "the VM ended with {status}, not with 9");
        for mut exec in self.execs {
            let status = exec.wait()?;
            ensure!(status.success(), "an exec ended with {status}");
        }
        Ok(())
    }

    /// The bare one.
    pub(super) fn bare(&mut self) -> &mut Pipe {
        &mut self.bare
    }

    /// The link.
    pub(super) fn link(&mut self) -> &mut Pipe {
        &mut self.link
    }
}

/// Where the link's serial port leads to, as the VMX file of the VM in `dir` says.
fn daemon(dir: &Path) -> Result<SocketAddr> {
    let file = fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|it| it == "vmx"));
    let text = fs::read_to_string(file.context("no VMX file")?)?;
    let (_, rest) = text.split_once("serial0.fileName = \"tcp://").context("no serial0")?;
    Ok(rest.split('"').next().unwrap_or_default().parse()?)
}

/// A search path on which QEMU has one more device, which calls at a port of this host (with options of QEMU's): a program
/// of its name before it.
fn with_bare_port(dir: &Path, device: &str, port: &str) -> Result<String> {
    let path = std::env::var("PATH").context("PATH")?;
    let qemu = std::env::split_paths(&path).map(|dir| dir.join(QEMU)).find(|it| it.is_file());
    let qemu = qemu.with_context(|| format!("no {QEMU} on the path"))?;
    fs::create_dir(dir)?;
    let script = format!(
        "#!/bin/sh\nexec {} \"$@\" \
         -chardev socket,id={BARE},server=off,reconnect=1,host=127.0.0.1,port={port} -device {device}\n",
        qemu.display()
    );
    fs::write(dir.join(QEMU), script)?;
    fs::set_permissions(dir.join(QEMU), Permissions::from_mode(0o755))?;
    Ok(format!("{}:{path}", dir.display()))
}
