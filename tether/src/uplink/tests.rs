//! Tests of the conversation with a multiplexer in the same process.

use super::*;
use crate::peer::{connected, until};
use wire::message::mux;

fn signal(number: i32) -> mux::Body {
    mux::Body::Signal(mux::Signal { session: "s".to_owned(), signal: number })
}

fn started() -> guest::Body {
    guest::Body::Started(guest::Started { session: "s".to_owned(), time_us: 1, pid: 2 })
}

#[tokio::test]
async fn what_is_said_arrives_and_counts_as_drained_only_then() {
    let (mut uplink, mut peer) = connected();
    uplink.say(started());
    assert!(!uplink.is_drained());
    let turn = |uplink: &mut Uplink, _: &mut _| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, turn, |uplink, _| uplink.is_drained()).await;
    assert_eq!(peer.heard(), [started()]);
}

#[tokio::test]
async fn requests_arrive_in_order() {
    let (mut uplink, mut peer) = connected();
    let mut news = Vec::new();
    let turn = |uplink: &mut Uplink, _: &mut _| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, turn, |_, peer| peer.channels.len() == 2).await;
    (1..=50).for_each(|number| peer.ask(number, signal(15)));
    while news.len() < 50 {
        let turn = |uplink: &mut Uplink, _: &mut _| uplink.turn(|item| news.push(item)).unwrap();
        let mut first = true;
        until(&mut uplink, &mut peer, turn, |_, _| !std::mem::take(&mut first)).await;
    }
    let numbers: Vec<u64> = news
        .iter()
        .map(|item| match item {
            News::Request(request) => request.request,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_new_multiplexer_gets_a_fresh_control_channel() {
    let (mut uplink, mut peer) = connected();
    let turn = |uplink: &mut Uplink, _: &mut _| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, turn, |_, peer| peer.channels.len() == 2).await;
    peer.ask(1, signal(1));
    let before = uplink.to_guest;
    until(&mut uplink, &mut peer, turn, |uplink, _| uplink.heard > 0).await;
    let mut peer = peer.restarted();
    until(&mut uplink, &mut peer, turn, |uplink, peer| {
        uplink.to_guest != before && peer.channels.contains_key(&uplink.to_guest)
    })
    .await;
    assert_eq!(uplink.heard, 0);
    // The first message on the fresh channel is understood from its first byte.
    peer.ask(2, signal(2));
    let mut news = Vec::new();
    let turn = |uplink: &mut Uplink, _: &mut _| uplink.turn(|item| news.push(item)).unwrap();
    until(&mut uplink, &mut peer, turn, |uplink, _| uplink.heard > 0).await;
    assert!(matches!(&news[..], [News::Request(request)] if request.request == 2), "{news:?}");
}

#[tokio::test]
async fn a_peer_that_asks_without_listening_stops_itself() {
    let (mut uplink, mut peer) = connected();
    let turn = |uplink: &mut Uplink, _: &mut _| uplink.turn(|_| {}).unwrap();
    until(&mut uplink, &mut peer, turn, |_, peer| peer.channels.len() == 2).await;
    uplink.outbox = vec![0; MAX_OUTBOX];
    peer.deaf = true;
    peer.ask(1, signal(1));
    for _ in 0..50 {
        // Nothing takes the outbox: the link's own buffer is full as well.
        while uplink.link.room(uplink.to_mux) > 0 {
            uplink.link.write(uplink.to_mux, &[0; 4096]);
        }
        tokio::task::yield_now().await;
        uplink.turn(|item| panic!("{item:?}")).unwrap();
        peer.turn();
    }
    assert_eq!(uplink.heard, 0);
}
