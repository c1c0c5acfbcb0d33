//! A place of its own for a test: a home with images and VMs, a daemon on a port of its own, and an end for all of it.

use crate::checkout::Checkout;
use crate::deadline::grace;
use crate::evidence;
use crate::family::{self, HOME, Relative};
use crate::finished::Finished;
use crate::program::{Program, Watch, vm_dir};
use crate::terminal::Terminal;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// The product's own variable that says how VMs run.
const ACCEL: &str = "CONTAINERVM_ACCEL";

/// A lab. All that was started in it ends when it is dropped.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
    home: PathBuf,
    commands: Mutex<Vec<String>>,
    n_runs: AtomicU32,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// A lab that shares made images with the others: the product's cache is made for that.
    #[must_use]
    pub fn new() -> Self {
        let lab = Self::first_run();
        let cache = shared_home().join("cache");
        fs::create_dir_all(&cache).expect("a cache can be made");
        fs::create_dir_all(&lab.home).expect("a home can be made");
        symlink(cache, lab.home.join("cache")).expect("a cache can be shared");
        lab
    }

    /// A lab in which nothing is there yet, as before a first run.
    #[must_use]
    pub fn first_run() -> Self {
        // The path of a unix socket has 107 bytes at most (unix(7)), and a VM's directory is long.
        let dir = tempfile::Builder::new().prefix("cvm").tempdir_in("/tmp").expect("a directory");
        let home = dir.path().join("h");
        Self { dir, home, commands: Mutex::default(), n_runs: AtomicU32::new(0) }
    }

    /// A file or directory of the test's own.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the test's own.
    #[track_caller]
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).expect("a file can be written");
        path
    }

    /// The product's home of this lab.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A program of the product with its arguments, set up for this lab and not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Command {
        let checkout = Checkout::built();
        let mut command = Command::new(checkout.program(program));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env(HOME, &self.home)
            .env("CONTAINERVM_ISO", checkout.iso())
            .env(ACCEL, accel())
            // What every hypervisor has; tests of the others say so.
            .env("CONTAINERVM_PIPE", "uart")
            .env("SERIALMUX_LISTEN", "127.0.0.1:0")
            .env("TERM", "xterm");
        command
    }

    /// Starts a command made by [`command`](Self::command).
    #[track_caller]
    pub fn start(&self, command: Command) -> Program {
        let text = self.note(&command);
        let watch = self.watch(&command);
        Program::start(command, text, watch)
    }

    /// Starts `containervm` with these arguments.
    #[track_caller]
    pub fn containervm<const N: usize>(&self, arguments: [&str; N]) -> Program {
        self.start(self.command("containervm", &arguments))
    }

    /// Starts `serialmux` with these arguments.
    #[track_caller]
    pub fn serialmux<const N: usize>(&self, arguments: [&str; N]) -> Program {
        self.start(self.command("serialmux", &arguments))
    }

    /// Starts `containervm run --rm` with these arguments and a name.
    #[track_caller]
    pub fn begin<const N: usize>(&self, arguments: [&str; N]) -> Program {
        self.start(self.run_command(&arguments))
    }

    /// `containervm run --rm`, from its start to its end, with nothing on its standard input.
    #[track_caller]
    pub fn run<const N: usize>(&self, arguments: [&str; N]) -> Finished {
        self.begin(arguments).finish()
    }

    /// `containervm run -it --rm` in a terminal.
    #[track_caller]
    pub fn run_in_terminal<const N: usize>(&self, arguments: [&str; N]) -> Terminal {
        let mut all = vec!["-it"];
        all.extend(arguments);
        self.in_terminal(&self.run_command(&all))
    }

    /// A command made by [`command`](Self::command), in a terminal.
    #[track_caller]
    pub fn in_terminal(&self, command: &Command) -> Terminal {
        Terminal::start(command, self.note(command), self.watch(command))
    }

    fn run_command(&self, arguments: &[&str]) -> Command {
        let name = format!("v{}", self.n_runs.fetch_add(1, Ordering::Relaxed));
        let mut all = vec!["run", "--rm"];
        if !arguments.contains(&"--name") {
            all.extend(["--name", &name]);
        }
        all.extend(arguments);
        self.command("containervm", &all)
    }

    /// A container called `box` with these options, whose shell is up and waits for [`Self::stop_idle`].
    #[track_caller]
    pub fn idle(&self, options: &[&str]) -> Program {
        self.idle_after("", options)
    }

    /// The same with a shell that does something first.
    #[track_caller]
    pub fn idle_after(&self, first: &str, options: &[&str]) -> Program {
        let script =
            format!("trap 'exit 0' TERM; {first} echo up; while :; do sleep 1000 & wait $!; done");
        let run = ["--name", "box", "--boot", "direct"];
        let all = [&run[..], options, &["busybox", "sh", "-c", &script]].concat();
        let idle = self.start(self.run_command(&all));
        idle.expect("up\n");
        idle
    }

    /// Tells it to end, which it does.
    #[track_caller]
    pub fn stop_idle(&self, idle: Program) {
        self.serialmux(["stop", "box"]).finish().code(0).prints("box\n");
        idle.end().code(0);
    }

    /// Starts the daemon on a port ("0": any) and waits until it serves.
    #[track_caller]
    pub fn daemon(&self, port: &str) -> Program {
        let mut command = self.command("serialmux", &["serve"]);
        command.env("SERIALMUX_LISTEN", format!("127.0.0.1:{port}"));
        self.serve(command)
    }

    /// The same, listening at a socket in the file system besides.
    #[track_caller]
    pub fn daemon_at(&self, socket: &Path) -> Program {
        let socket = socket.display().to_string();
        self.serve(self.command("serialmux", &["serve", "--listen-unix", &socket]))
    }

    #[track_caller]
    fn serve(&self, command: Command) -> Program {
        let daemon = self.start(command);
        daemon.expect("clients to");
        daemon
    }

    /// What has happened so far, by the daemon: action, and exit code or signal, in the order it was told.
    #[track_caller]
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let shown = self.serialmux(["events", "--json", "--since", "1h", "--until", "0s"]).finish();
        let show = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let of = |key: &str| event["attributes"][key].as_str().map(|it| format!(" {it}"));
            let number = of("exitCode").or_else(|| of("signal"));
            format!("{}{}", event["action"].as_str().expect("a word"), number.unwrap_or_default())
        };
        shown.code(0).out().lines().map(show).collect()
    }

    /// What `serialmux inspect` tells of the container of that name.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self, name: &str) -> serde_json::Value {
        let shown = self.serialmux(["inspect", name]).finish();
        serde_json::from_str(&shown.code(0).out()).expect("JSON")
    }

    /// The processes of this lab that are called so and have this among their arguments.
    #[must_use]
    pub fn processes(&self, program: &str, argument: &str) -> Vec<Relative> {
        let mut all = family::relatives(&self.home);
        all.retain(|it| it.is(program) && it.arguments.iter().any(|had| had.contains(argument)));
        all
    }

    /// The QEMU of the VM of that name.
    #[track_caller]
    pub fn qemu(&self, name: &str) -> Relative {
        let dir = self.vm(name);
        let mut found = self.processes("qemu-system-x86_64", &dir.to_string_lossy());
        assert_eq!(found.len(), 1, "one QEMU runs {name}");
        found.remove(0)
    }

    /// Waits until a QEMU runs the VM of that name, which `starter` is starting.
    #[track_caller]
    pub fn await_qemu(&self, name: &str, starter: &Program) {
        let runs =
            |dir: PathBuf| !self.processes("qemu-system-x86_64", &dir.to_string_lossy()).is_empty();
        starter.await_that(&format!("the QEMU of {name}"), || {
            vm_dir(&self.home, name).is_some_and(runs)
        });
    }

    /// The directory of the VM of that name.
    #[track_caller]
    pub fn vm(&self, name: &str) -> PathBuf {
        vm_dir(&self.home, name).unwrap_or_else(|| panic!("no VM is called {name}"))
    }

    /// The second serial port of the VM of that name, where its kernel and agent log, from its start on.
    #[track_caller]
    pub fn console(&self, name: &str) -> Program {
        let dir = self.vm(name);
        let mut command = Command::new("tail");
        // It ends with QEMU, whose number the directory holds.
        let number = fs::read_to_string(dir.join("qemu.pid")).expect("a VM that was started");
        command.arg(format!("--pid={}", number.trim())).args(["-n", "+1", "-F"]);
        command.arg(dir.join("console.log")).env(HOME, &self.home);
        self.start(command)
    }

    fn watch(&self, command: &Command) -> Watch {
        let arguments: Vec<String> =
            command.get_args().map(|it| it.to_string_lossy().into_owned()).collect();
        let named = arguments.iter().position(|it| it == "--name");
        // `run` is told a name; the other commands end with one, or with something that is none.
        let name = match named {
            Some(at) => arguments.get(at + 1),
            None => arguments.last(),
        };
        Watch::vm(&self.home, name.cloned())
    }

    fn note(&self, command: &Command) -> String {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let text = words.join(" ");
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(text.clone());
        text
    }
}

/// How VMs run here, "kvm" or "tcg": as the product decides it, once for all labs.
pub(crate) fn accel() -> &'static str {
    static DECIDED: OnceLock<String> = OnceLock::new();
    DECIDED.get_or_init(|| {
        if let Ok(word) = std::env::var(ACCEL) {
            return word;
        }
        let checkout = Checkout::built();
        let shown = Command::new(checkout.program("containervm"))
            .args(["run", "--rm", "--print-qemu", "busybox"])
            .env(HOME, shared_home())
            .env("CONTAINERVM_ISO", checkout.iso())
            .output()
            .expect("containervm starts");
        let line = String::from_utf8_lossy(&shown.stdout).into_owned();
        let word = line.split_once("-accel ").and_then(|(_, rest)| rest.split(' ').next());
        let said = String::from_utf8_lossy(&shown.stderr);
        word.unwrap_or_else(|| panic!("no -accel in {line:?}; {said}")).to_owned()
    })
}

/// The home whose cache labs share.
fn shared_home() -> PathBuf {
    Checkout::built().keep().join("home")
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("{}", evidence::collect(&self.home, &commands));
        }
        // One that is ended may just have started another; the next round finds that.
        loop {
            let mut left = family::relatives(&self.home);
            left.retain(|relative| !relative.wait(Duration::ZERO));
            if left.is_empty() {
                return;
            }
            left.iter().for_each(|relative| relative.signal(Signal::KILL));
            if !left.iter().all(|relative| relative.wait(grace())) {
                return eprintln!("processes of {} do not end", self.home.display());
            }
        }
    }
}
