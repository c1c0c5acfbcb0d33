//! Runs that follow one another, and who ends that.

use super::*;

#[tokio::test]
async fn a_process_with_a_policy_rests_and_its_channels_stay() {
    let (mut uplink, mut peer) = connected();
    let policy = "on-failure:1".to_owned();
    let of = SessionSpec { restart_policy: policy, open_stdin: true, ..SessionSpec::default() };
    let (mut session, child) = ended_of(session(of), &mut uplink);
    let channels: Vec<_> = session.channels().collect();
    drop(child);
    let heard = |peer: &Peer| peer.heard().pop();
    let step = |uplink: &mut Uplink, _: &mut Peer| {
        turn(&mut session, uplink);
        uplink.turn(|_| {}).unwrap();
    };
    until(&mut uplink, &mut peer, step, |_, peer| heard(peer).is_some()).await;
    let Some(Body::Restarting(again)) = heard(&peer) else { panic!("{:?}", peer.heard()) };
    assert_eq!((again.restarts, again.delay_ms), (1, 100));
    assert_eq!(again.exited.unwrap().code, 137);
    assert!(!session.is_over() && session.deadline().is_some());
    assert_eq!(session.channels().collect::<Vec<_>>(), channels);
    assert_eq!(signaled(&mut session, &mut uplink, 10), Err(RequestError::Ended));
    assert!(!session.is_over(), "nothing is there for the signal, and it stops nothing");

    // Somebody stops it in the pause: then it is over, as it last ended.
    let stop =
        |session: &mut Session, teller: &mut Teller<'_>| session.stop(None, STOP_GRACE, teller);
    assert_eq!(told(&mut session, &mut uplink, stop), Ok(()));
    assert!(session.is_over());
    let record = record(&mut session, &mut uplink, &mut peer).await;
    assert_eq!((record.code, record.signal), (137, 9));
}

#[tokio::test]
async fn who_is_killed_while_its_output_drains_is_not_run_again() {
    for (number, answer) in [(10, Err(RequestError::Ended)), (libc::SIGKILL, Ok(()))] {
        let (mut uplink, _peer) = connected();
        let of = SessionSpec { restart: true, ..SessionSpec::default() };
        let (mut session, child) = ended_of(session(of), &mut uplink);
        assert_eq!(signaled(&mut session, &mut uplink, number), answer);
        drop(child);
        while !session.is_over() && !matches!(session.phase, Phase::Resting { .. }) {
            tokio::task::yield_now().await;
            turn(&mut session, &mut uplink);
        }
        assert_eq!(session.is_over(), answer.is_ok());
    }
}

#[tokio::test]
async fn who_is_killed_in_the_pause_before_the_next_run_stays_as_it_ended() {
    let signal: fn(&mut Session, i32, &mut Teller<'_>) -> _ = Session::signal;
    let ways = [(signal, libc::SIGTERM), (signal, libc::SIGKILL), (Session::signal_group, 9)];
    for (way, number) in ways {
        let (mut uplink, mut peer) = connected();
        let of = SessionSpec { restart: true, ..SessionSpec::default() };
        let (mut session, child) = ended_of(session(of), &mut uplink);
        drop(child);
        while !matches!(session.phase, Phase::Resting { .. }) {
            tokio::task::yield_now().await;
            turn(&mut session, &mut uplink);
        }
        let kill = |session: &mut Session, teller: &mut Teller<'_>| way(session, number, teller);
        assert_eq!(told(&mut session, &mut uplink, kill), Ok(()));
        assert!(session.is_over());
        let record = record(&mut session, &mut uplink, &mut peer).await;
        assert_eq!((record.code, record.signal), (137, 9));
        assert_eq!(signals(&peer), [], "there was nobody to send it to");
    }
}

#[tokio::test]
async fn who_is_killed_is_not_run_again() {
    let (mut uplink, mut peer) = connected();
    let of = SessionSpec { restart: true, ..SessionSpec::default() };
    let mut session = session(of);
    // Nobody has this number: the signal goes nowhere, what it means for the policy stays.
    let child = running(&mut session, &mut uplink);
    session.run_as(Pid::from_raw(i32::MAX));
    let killed = signaled(&mut session, &mut uplink, libc::SIGKILL);
    assert_eq!(killed, Err(RequestError::Ended));
    let exit = Exit { code: 137, signal: 9, core_dumped: false, raw: 9 };
    session.reaped(Pid::from_raw(i32::MAX), exit);
    drop(child);
    assert_eq!(record(&mut session, &mut uplink, &mut peer).await.code, 137);
}

#[tokio::test]
async fn whose_group_is_killed_is_given_up_and_not_run_again() {
    let (mut uplink, mut peer) = connected();
    let mut session = session(SessionSpec { restart: true, ..SessionSpec::default() });
    let child = running(&mut session, &mut uplink);
    let mut leads = std::process::Command::new("sleep");
    let mut leads = leads.arg("1000").process_group(0).spawn().unwrap();
    let pid = Pid::from_raw(leads.id().cast_signed());
    session.run_as(pid);
    let kill = |session: &mut Session, teller: &mut Teller<'_>| {
        session.signal_group(libc::SIGKILL, teller)
    };
    assert_eq!(told(&mut session, &mut uplink, kill), Ok(()));
    assert_eq!(leads.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(session.gone_at.is_some(), "it may hang in the kernel");
    session.reaped(pid, Exit { code: 137, signal: 9, core_dumped: false, raw: 9 });
    drop(child);
    assert_eq!(record(&mut session, &mut uplink, &mut peer).await.code, 137);
    assert!(session.is_over());
}
