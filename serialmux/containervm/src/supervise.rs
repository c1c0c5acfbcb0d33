//! A VM's QEMU process: started, waited for, ended.
//!
//! ```text
//! launch ──► Running ──wait──► exit.json
//!    │           │
//!    └─ the VM's lock: one open file, held by Running and, as its stdin, by QEMU
//! ```
//!
//! QEMU gets a session of its own, so a Ctrl-C or the end of the terminal does not reach it. When whoever waits dies,
//! QEMU runs on and the VM still counts as running; its end is then not recorded.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    machine::{Firmware, Machine},
    qemu::{OVMF_VARS, QEMU, QMP_SOCKET, QemuCommand, VARS},
    qmp::{Qmp, QmpError},
    store::{Exit, PID, Store, StoreError, Vm},
};

/// What QEMU says itself, in the VM's directory.
const LOG: &str = "qemu.log";
/// Of that, what is read for a message.
const LOG_TAIL: u64 = 4096;

/// Why a VM does not start.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// It runs already, or its directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the VM cannot be written.
    #[error("cannot prepare {path}: {source}")]
    Prepare {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU cannot be started.
    #[error("cannot start {QEMU}: {0}")]
    Start(io::Error),
    /// Its end cannot be waited for.
    #[error("cannot wait for {QEMU}: {0}")]
    Wait(io::Error),
}

/// A VM that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    vm: Vm,
    store: Store,
    _lock: File,
}

/// Starts QEMU for a VM that does not run.
///
/// # Errors
/// When it runs, or QEMU cannot be started.
pub fn launch(
    store: &Store,
    vm: &Vm,
    machine: &Machine,
    command: &QemuCommand,
) -> Result<Running, SuperviseError> {
    let lock = store.begin(vm)?;
    if machine.firmware == Firmware::Efi {
        prepare(&vm.dir.join(VARS), |path| match path.exists() {
            true => Ok(()),
            false => fs::copy(OVMF_VARS, path).map(|_| ()),
        })?;
    }
    // QEMU does not replace what a killed one left.
    prepare(&vm.dir.join(QMP_SOCKET), |path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })?;
    let log_path = vm.dir.join(LOG);
    let log = File::options().create(true).truncate(true).write(true).mode(0o600).open(&log_path);
    let log = log.map_err(|source| SuperviseError::Prepare { path: log_path.clone(), source })?;
    let child = spawn(command, &lock, log).map_err(SuperviseError::Start)?;
    let mut running = Running { child, vm: vm.clone(), store: store.clone(), _lock: lock };
    let number = running.child.id().to_string();
    if let Err(error) = prepare(&vm.dir.join(PID), |path| fs::write(path, number)) {
        // A VM whose process is not known could not be ended by force later.
        running.child.kill().and_then(|()| running.child.wait()).map_err(SuperviseError::Wait)?;
        return Err(error);
    }
    Ok(running)
}

fn prepare(path: &Path, act: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), SuperviseError> {
    act(path).map_err(|source| SuperviseError::Prepare { path: path.to_owned(), source })
}

fn spawn(command: &QemuCommand, lock: &File, log: File) -> io::Result<Child> {
    // setsid(1) becomes QEMU by exec, with the same process id, when it is no group leader, and a child is none.
    let mut process = match debian::on_path("setsid") {
        Some(setsid) => {
            let mut process = Command::new(setsid);
            process.arg(QEMU);
            process
        }
        None => {
            let mut process = Command::new(QEMU);
            process.process_group(0);
            process
        }
    };
    process
        .args(&command.arguments)
        .current_dir(&command.dir)
        // QEMU reads no stdin here. That it holds this file is what makes the VM count as running.
        .stdin(lock.try_clone()?)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

impl Running {
    /// The VM.
    #[must_use]
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Process id of its QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until QEMU has ended, and records how.
    ///
    /// # Errors
    /// When it cannot be waited for, or the record not be written.
    pub fn wait(mut self) -> Result<Exit, SuperviseError> {
        let status = self.child.wait().map_err(SuperviseError::Wait)?;
        let how = describe(status, &self.vm.dir);
        Ok(self.store.record_end(&self.vm, &how)?)
    }
}

/// How QEMU ended, in words; after a failure with the last thing it said.
fn describe(status: ExitStatus, dir: &Path) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "powered off".to_owned(),
        (Some(code), _) => format!("QEMU failed with status {code}: {}", last_line(&dir.join(LOG))),
        (None, signal) => format!("QEMU was killed by signal {}", signal.unwrap_or_default()),
    }
}

fn last_line(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).lines().last().unwrap_or_default().to_owned())
    };
    match read() {
        Ok(line) if !line.is_empty() => line,
        _ => "it said nothing".to_owned(),
    }
}

/// Presses the VM's power button; what follows is the guest's affair.
///
/// # Errors
/// When QEMU does not answer.
pub fn power_off(vm: &Vm) -> Result<(), QmpError> {
    Qmp::connect(&vm.dir)?.execute("system_powerdown").map(|_| ())
}

/// Ends the VM's QEMU now, by asking or, if it does not answer, by force. [`Vm::wait`] tells when it is gone.
///
/// # Errors
/// When neither works.
pub fn kill(vm: &Vm) -> Result<(), QmpError> {
    let Err(error) = Qmp::connect(&vm.dir).and_then(|mut qmp| qmp.execute("quit")) else {
        return Ok(());
    };
    match kill_process(vm) {
        Ok(()) => Ok(()),
        // It went away while being asked.
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => Err(error),
    }
}

/// Kills the process that holds the lock. A descriptor of the process is taken before the lock is looked at: if it is
/// still held then, the process is the one meant, whatever happens to its number later.
fn kill_process(vm: &Vm) -> io::Result<()> {
    let text = fs::read_to_string(vm.dir.join(PID))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Err(io::ErrorKind::NotFound.into()),
        result => result?,
    };
    let lock = vm.lock_file().map_err(io::Error::other)?;
    if lock.try_lock_shared().is_ok() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(pidfd_send_signal(&process, Signal::KILL)?)
}
