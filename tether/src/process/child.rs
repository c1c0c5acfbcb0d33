//! The new process between its birth and its program: namespaces, root, identity, terminal, exec.
//!
//! Runs in the copy of the agent that [`crate::sys::clone_process`] made, as PID 1 of the container's
//! namespaces. Whatever fails ends here, as one record in the status pipe; when the program starts, the pipe
//! closes by itself without a byte.

use std::convert::Infallible;
use std::ffi::{CString, NulError};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    Gid, Uid, chdir, chown, dup2_stderr, dup2_stdin, dup2_stdout, execve, fchown, setgid,
    setgroups, sethostname, setsid, setuid, write,
};

use super::executable;
use super::failure::{FailureRecord, StartFailure};
use super::{ChildStdio, Launch};
use crate::environment;
use crate::rootfs::{self, Rootfs};
use crate::sys;
use crate::user::{self, User};

/// VIC's limit on open files (`NOFILE`), which is also the kernel's default ceiling.
const MAX_OPEN_FILES: u64 = 1_048_576;

/// Becomes the container's process, or reports why not and ends.
pub(super) fn run(
    launch: &Launch,
    rootfs: &Rootfs,
    stdio: &ChildStdio,
    status: &OwnedFd,
) -> Infallible {
    let Err(failure) = start(launch, rootfs, stdio);
    give_up(&failure, status)
}

/// Reports why there will be no program, and ends.
pub(super) fn give_up(failure: &StartFailure, status: &OwnedFd) -> ! {
    // The only reader is the agent; when even this write fails, there is nobody left to tell.
    let _unreported = write(status, &FailureRecord::encode(failure));
    sys::exit_now(failure.exit_code())
}

fn start(launch: &Launch, rootfs: &Rootfs, stdio: &ChildStdio) -> Result<Infallible, StartFailure> {
    begin()?;
    // After CLONE_INTO_CGROUP, so that the namespace's root is the container's own cgroup.
    unshare(CloneFlags::CLONE_NEWCGROUP)
        .map_err(StartFailure::machine("make a cgroup namespace"))?;
    sethostname(&launch.hostname).map_err(StartFailure::machine("set the host name"))?;
    rootfs.enter(stdio.terminal)?;
    become_program(launch, stdio)
}

/// What every new process does first, still among the agent's files.
pub(super) fn begin() -> Result<(), StartFailure> {
    sys::reset_signals();
    umask(Mode::from_bits_truncate(0o022));
    setsid().map_err(StartFailure::machine("start a session"))?;
    inherit_sanely()
}

/// What every new process does last, inside the container: becomes the user and the program.
pub(super) fn become_program(
    launch: &Launch,
    stdio: &ChildStdio,
) -> Result<Infallible, StartFailure> {
    set_limits()?;
    let user = user::resolve(
        &launch.user,
        &rootfs::read_small("/etc/passwd"),
        &rootfs::read_small("/etc/group"),
    )?;
    connect(stdio, &user)?;
    enter_directory(&launch.dir)?;
    become_user(&user)?;
    exec(launch, &user, stdio.terminal.is_some())
}

/// Undoes what PID 1 of the machine set for itself.
fn inherit_sanely() -> Result<(), StartFailure> {
    // Through the outer /proc, which is still there: the image's may be anything.
    std::fs::write("/proc/self/oom_score_adj", "0").map_err(|error| StartFailure::Machine {
        step: "reset oom_score_adj",
        errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
    })
}

/// The limits VIC gives every process.
fn set_limits() -> Result<(), StartFailure> {
    let limit = |resource, soft, hard| {
        setrlimit(resource, soft, hard).map_err(StartFailure::machine("set a resource limit"))
    };
    limit(Resource::RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES)?;
    limit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY)?;
    limit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    limit(Resource::RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY)?;
    let (soft, _) = getrlimit(Resource::RLIMIT_STACK)
        .map_err(StartFailure::machine("read a resource limit"))?;
    limit(Resource::RLIMIT_STACK, soft, RLIM_INFINITY)
}

/// Puts the pipes or the terminal on descriptors 0 to 2.
fn connect(stdio: &ChildStdio, user: &User) -> Result<(), StartFailure> {
    let failed = StartFailure::machine;
    if let Some(number) = stdio.terminal {
        // Opened through the container's own /dev/pts, so that ttyname(3) finds it there.
        let path = format!("/dev/pts/{number}");
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let tty = open(path.as_str(), flags, Mode::empty())
            .map_err(StartFailure::rootfs("open", &path))?;
        sys::set_controlling_terminal(&tty).map_err(failed("take the terminal"))?;
        // The user must be able to reopen it. Group 5 is tty, set by the mount.
        chown(path.as_str(), Some(Uid::from_raw(user.uid)), None)
            .map_err(StartFailure::rootfs("chown", &path))?;
        return redirect(&tty, &tty, &tty);
    }
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
    let null = null.map_err(StartFailure::rootfs("open", "/dev/null"))?;
    let stdin = stdio.stdin.as_ref().unwrap_or(&null);
    let stdout = stdio.stdout.as_ref().unwrap_or(&null);
    let stderr = stdio.stderr.as_ref().unwrap_or(&null);
    // So that the user may reopen them as /dev/stdin and so on, as with Docker.
    for pipe in [&stdio.stdin, &stdio.stdout, &stdio.stderr].into_iter().flatten() {
        fchown(pipe, Some(Uid::from_raw(user.uid)), None).map_err(failed("chown a pipe"))?;
    }
    redirect(stdin, stdout, stderr)
}

fn redirect(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> Result<(), StartFailure> {
    let failed = || StartFailure::machine("redirect standard streams");
    dup2_stdin(stdin).map_err(failed())?;
    dup2_stdout(stdout).map_err(failed())?;
    dup2_stderr(stderr).map_err(failed())
}

/// Enters the working directory, making it first when the image has none, as Docker does.
fn enter_directory(dir: &str) -> Result<(), StartFailure> {
    let path = if dir.is_empty() { "/" } else { dir };
    let failed = |errno| StartFailure::WorkingDirectory { path: path.to_owned(), errno };
    match chdir(path) {
        Err(Errno::ENOENT) => {
            std::fs::create_dir_all(path).map_err(|error| {
                failed(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
            })?;
            chdir(path).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

fn become_user(user: &User) -> Result<(), StartFailure> {
    let failed = || StartFailure::machine("change the user");
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(failed())?;
    setgid(Gid::from_raw(user.gid)).map_err(failed())?;
    setuid(Uid::from_raw(user.uid)).map_err(failed())
}

fn exec(launch: &Launch, user: &User, tty: bool) -> Result<Infallible, StartFailure> {
    let environment = environment::complete(&launch.env, &launch.hostname, &user.home, tty);
    let path = executable::find(&launch.program, &environment)?;
    let args = c_strings(&launch.args, "an argument")?;
    let environment = c_strings(&environment, "an environment variable")?;
    let program = CString::new(path.as_str()).map_err(zero_byte("the program's path"))?;
    execve(&program, &args, &environment).map_err(|errno| StartFailure::Exec { path, errno })
}

fn c_strings(strings: &[String], what: &'static str) -> Result<Vec<CString>, StartFailure> {
    strings.iter().map(|string| CString::new(string.as_str()).map_err(zero_byte(what))).collect()
}

fn zero_byte(what: &'static str) -> impl FnOnce(NulError) -> StartFailure {
    move |_| StartFailure::ZeroByte(what)
}
