//! The last steps towards a program, inside its root: streams, directory, identity, `execve`.
//!
//! They are the same for the container's first process and for one that joins it later.

use std::convert::Infallible;
use std::ffi::{CString, NulError};
use std::fs;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{
    Gid, Uid, chdir, chown, dup2_stderr, dup2_stdin, dup2_stdout, execve, fchown, getcwd, setgid,
    setgroups, setuid,
};

use super::attributes::Attributes;
use super::failure::StartFailure;
use super::init::{self, InitProgram};
use super::{ChildStdio, Launch, executable};
use crate::user::{self, User};
use crate::{environment, rootfs, sys};

/// Becomes the program of `launch`, in the root that the process is in; under an init when there is one to
/// put it under.
pub(super) fn become_program(
    launch: &Launch,
    stdio: &ChildStdio,
    init: Option<InitProgram<'_>>,
) -> Result<Infallible, StartFailure> {
    launch.attributes.set_limits()?;
    let groups = rootfs::read_small("/etc/group");
    let mut user = user::resolve(&launch.user, &rootfs::read_small("/etc/passwd"), &groups)?;
    user::add_groups(&mut user, &launch.attributes.groups, &groups)?;
    connect(stdio, &user)?;
    enter_directory(&launch.dir)?;
    become_user(&user, &launch.attributes)?;
    exec(launch, &user, stdio.terminal.is_some(), init)
}

/// Makes the working directory when the image has none, as Docker does. To be called while the root can
/// still be written to; what is wrong with the directory shows when it is entered.
pub(super) fn make_directory(dir: &str) {
    if !dir.is_empty() && matches!(chdir(dir), Err(Errno::ENOENT)) {
        let _shows_later = fs::create_dir_all(dir);
    }
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

/// Enters the working directory. It must be one that can be named from the root: a link into `/proc` could
/// lead to a directory outside of it that some process still holds open.
fn enter_directory(dir: &str) -> Result<(), StartFailure> {
    let path = if dir.is_empty() { "/" } else { dir };
    let failed = |errno| StartFailure::WorkingDirectory { path: path.to_owned(), errno };
    chdir(path).map_err(failed)?;
    // The kernel names what is not below the root "(unreachable)..." (getcwd(2)).
    let reachable = getcwd().map_err(failed)?.is_absolute();
    if reachable { Ok(()) } else { Err(failed(Errno::EXDEV)) }
}

fn become_user(user: &User, attributes: &Attributes) -> Result<(), StartFailure> {
    let failed = || StartFailure::machine("change the user");
    attributes.drop_bounding()?;
    // Who the agent is, and so this process.
    let is_agents = (user.uid, user.gid) == (0, 0) && user.groups.is_empty();
    if !is_agents {
        let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups).map_err(failed())?;
        setgid(Gid::from_raw(user.gid)).map_err(failed())?;
        setuid(Uid::from_raw(user.uid)).map_err(failed())?;
    }
    attributes.drop_privileges(user.uid)
}

fn exec(
    launch: &Launch,
    user: &User,
    tty: bool,
    init: Option<InitProgram<'_>>,
) -> Result<Infallible, StartFailure> {
    let environment = environment::complete(&launch.env, &launch.hostname, &user.home, tty);
    let path = executable::find(&launch.program, &environment)?;
    let args = c_strings(&launch.args, "an argument")?;
    let environment = c_strings(&environment, "an environment variable")?;
    let program = CString::new(path.as_str()).map_err(zero_byte("the program's path"))?;
    if let Some(init) = init {
        init::divide(init, &args, tty)?;
    }
    execve(&program, &args, &environment).map_err(|errno| StartFailure::Exec { path, errno })
}

fn c_strings(strings: &[String], what: &'static str) -> Result<Vec<CString>, StartFailure> {
    strings.iter().map(|string| CString::new(string.as_str()).map_err(zero_byte(what))).collect()
}

fn zero_byte(what: &'static str) -> impl FnOnce(NulError) -> StartFailure {
    move |_| StartFailure::ZeroByte(what)
}
