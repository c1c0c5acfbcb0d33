//! Tests of all sessions together, without the processes.

use super::*;

#[test]
fn the_end_of_a_process_is_noted_before_its_session_has_had_a_turn() {
    let mut sessions = Sessions::new(&Config::sample("s"));
    let pid = Pid::from_raw(i32::MAX);
    sessions.first_mut().run_as(pid);
    let exit = Exit { code: 3, signal: 0, core_dumped: false, raw: 768 };
    sessions.reaped(Pid::from_raw(i32::MAX - 1), exit);
    assert!(sessions.first().is_running());
    sessions.reaped(pid, exit);
    assert!(!sessions.first().is_running());
}
