//! Tests of all sessions together, without the processes.

use std::os::unix::process::CommandExt as _;

use super::*;
use crate::peer::{Peer, connected, until};

const EXIT: Exit = Exit { code: 0, signal: 0, core_dumped: false, raw: 0 };

/// Sessions whose first runs, with a cgroup in a directory that is one of its kind only by name.
fn placed(tree: &std::path::Path, pid: Pid) -> Sessions {
    let mut sessions = Sessions::new(&Config::sample("s"));
    let (rootfs, cgroup) = (Rootfs::of_nothing(), Cgroup::create(tree, "container"));
    sessions.container = Some(Container { rootfs, cgroup, inside: None, is_paused: false });
    sessions.first_mut().run_as(pid);
    sessions
}

fn is_frozen(tree: &std::path::Path) -> bool {
    std::fs::read_to_string(tree.join("container/cgroup.freeze")).unwrap() == "1"
}

#[tokio::test]
async fn the_end_of_a_process_is_noted_before_its_session_has_had_a_turn() {
    let mut sessions = Sessions::new(&Config::sample("s"));
    let (mut uplink, _peer) = connected();
    let pid = Pid::from_raw(i32::MAX);
    sessions.first_mut().run_as(pid);
    let exit = Exit { code: 3, signal: 0, core_dumped: false, raw: 768 };
    sessions.reaped(Pid::from_raw(i32::MAX - 1), exit, &mut uplink);
    assert!(sessions.first().is_running());
    sessions.reaped(pid, exit, &mut uplink);
    assert!(!sessions.first().is_running());
}

#[tokio::test]
async fn a_stop_that_takes_too_long_leaves_a_process_behind_but_no_output() {
    let pid = Pid::from_raw(42);
    let (status, _other) = nix::unistd::pipe().unwrap();
    let (mut uplink, _peer) = connected();
    let [mut starting, mut running, mut draining] =
        std::array::from_fn(|_| Sessions::new(&Config::sample("s")));
    starting.first_mut().start_as(pid, status);
    running.first_mut().run_as(pid);
    // Somebody holds its output, which is not read yet.
    let child = draining.first_mut().run_with_streams(&mut uplink);
    nix::unistd::write(child.stdout.as_ref().unwrap(), b"last words").unwrap();
    draining.reaped(pid, EXIT, &mut uplink);
    for (sessions, is_left) in [(&mut starting, true), (&mut running, true), (&mut draining, false)]
    {
        sessions.leave_first(137, "it does not end", &mut uplink);
        let word = sessions.first().word();
        assert_eq!(sessions.first().is_over(), is_left, "{word}");
        assert_eq!(sessions.first().last_words().is_some(), is_left, "{word}");
    }
}

#[tokio::test]
async fn a_paused_container_goes_on_when_its_group_is_killed() {
    let tree = tempfile::tempdir().unwrap();
    let mut leads = std::process::Command::new("sleep");
    let mut leads = leads.arg("1000").process_group(0).spawn().unwrap();
    let mut sessions = placed(tree.path(), Pid::from_raw(leads.id().cast_signed()));
    let (mut uplink, _peer) = connected();
    assert_eq!(sessions.pause(&mut uplink), Ok(()));
    assert_eq!(sessions.signal_first(libc::SIGUSR1, true, &mut uplink), Ok(()));
    assert!(sessions.is_paused() && is_frozen(tree.path()));
    assert_eq!(sessions.signal_first(libc::SIGKILL, true, &mut uplink), Ok(()));
    leads.wait().unwrap();
    assert!(!sessions.is_paused() && !is_frozen(tree.path()));
}

#[tokio::test]
async fn a_paused_container_that_ends_is_paused_no_more_and_says_so() {
    let tree = tempfile::tempdir().unwrap();
    let pid = Pid::from_raw(i32::MAX);
    let mut sessions = placed(tree.path(), pid);
    let (mut uplink, mut peer) = connected();
    assert_eq!(sessions.pause(&mut uplink), Ok(()));
    // Another child's end is not the container's.
    sessions.reaped(Pid::from_raw(i32::MAX - 1), EXIT, &mut uplink);
    assert!(sessions.is_paused() && is_frozen(tree.path()));
    // The kernel kills what is frozen as well.
    sessions.reaped(pid, EXIT, &mut uplink);
    assert!(!sessions.is_paused() && !is_frozen(tree.path()), "the next run is born in there");
    let paused = |peer: &Peer| -> Vec<bool> {
        let heard = peer.heard().into_iter();
        heard
            .filter_map(|it| if let Body::Paused(it) = it { Some(it.paused) } else { None })
            .collect()
    };
    let step = |uplink: &mut Uplink, _: &mut Peer| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, step, |_, peer| paused(peer).len() == 2).await;
    assert_eq!(paused(&peer), [true, false]);
}
