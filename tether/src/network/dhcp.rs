//! A DHCP client without sockets and clocks (RFC 2131): bytes and the time go in, bytes and a lease come out.
//!
//! ```text
//! Selecting ──offer──▶ Requesting ──ack──▶ Bound ──T1──▶ Renewing ──T2──▶ Rebinding ──end──▶ Selecting
//!     ▲                    │ nak, silence    ▲                │ ack            │ ack
//!     └────────────────────┘                 └────────────────┴────────────────┘
//! ```
//!
//! All it knows is bounded: one offer, [`MAX_DNS`] name servers. Of a datagram that is not an answer to its own
//! question nothing is believed.

use std::net::Ipv4Addr;

use guestinfo::IpNet;

/// Name servers that are kept.
pub const MAX_DNS: usize = 8;
/// The first pause before a question is asked again, ms; each is twice as long as the one before, up to the last.
const FIRST_PAUSE: u64 = 1_000;
const LAST_PAUSE: u64 = 64_000;
/// While a lease runs, questions come at least so far apart, ms (RFC 2131, 4.4.5).
const LEASE_PAUSE: u64 = 60_000;
/// Questions after an offer that nobody answers, before offers are sought again.
const MAX_REQUESTS: u32 = 4;
/// The shortest and the longest lease that is believed, seconds: no server is to make the client busy.
const LEASE_SECONDS: std::ops::RangeInclusive<u32> = 60..=365 * 86_400;
/// The longest host name that is told.
const MAX_HOSTNAME: usize = 64;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const HEADER: usize = 240;
const BROADCAST: u16 = 0x8000;

const MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const HOSTNAME: u8 = 12;
const ASKED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const ASKED: u8 = 55;
const T1: u8 = 58;
const T2: u8 = 59;
const END: u8 = 255;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const ASK: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;

/// What a server has let.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpNet,
    /// Where the way out is.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Who let it.
    pub server: Ipv4Addr,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes to port 67: of everybody, or of this server.
    Send(Option<Ipv4Addr>, Vec<u8>),
    /// Use this lease, new or renewed.
    Use(Lease),
    /// Use the last lease no more.
    Drop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Selecting,
    Requesting { offer: Lease, n_asked: u32 },
    Leased { lease: Lease, times: Times, phase: Phase },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Bound,
    Renewing,
    Rebinding,
}

/// When to renew, to ask others, and to stop, in ms of the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    renew: u64,
    rebind: u64,
    end: u64,
}

/// The client of one interface.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    hostname: String,
    transaction: u32,
    state: State,
    /// When to act next, ms.
    due: u64,
    pause: u64,
    began: u64,
}

impl Client {
    /// A client that begins to ask at `now` (ms on any clock). `transaction` is a random number, by which it
    /// knows the answers to its questions.
    pub fn new(mac: [u8; 6], hostname: &str, transaction: u32, now: u64) -> Self {
        let mut hostname = hostname.to_owned();
        hostname.truncate(hostname.floor_char_boundary(MAX_HOSTNAME));
        let (state, pause) = (State::Selecting, FIRST_PAUSE);
        Self { mac, hostname, transaction, state, due: now, pause, began: now }
    }

    /// When [`Self::poll`] has something to do even if nothing is heard, ms.
    pub fn deadline(&self) -> u64 {
        self.due
    }

    /// Does what is due. To be called until it gives nothing.
    pub fn poll(&mut self, now: u64) -> Option<Action> {
        if now < self.due {
            return None;
        }
        match &mut self.state {
            State::Selecting => {
                self.wait(now, LAST_PAUSE);
                Some(Action::Send(None, self.question(DISCOVER, None, None, now)))
            }
            State::Requesting { n_asked, .. } if *n_asked >= MAX_REQUESTS => {
                self.start_over(now);
                self.poll(now)
            }
            State::Requesting { offer, n_asked } => {
                *n_asked += 1;
                let (address, server) = (address_of(offer), offer.server);
                self.wait(now, LAST_PAUSE);
                Some(Action::Send(None, self.question(ASK, Some(address), Some(server), now)))
            }
            State::Leased { times, .. } if times.end <= now => {
                self.start_over(now);
                Some(Action::Drop)
            }
            State::Leased { lease, times, phase } => {
                *phase = if times.rebind <= now { Phase::Rebinding } else { Phase::Renewing };
                let until = if *phase == Phase::Renewing { times.rebind } else { times.end };
                let server = (*phase == Phase::Renewing).then_some(lease.server);
                // Half of what is left, but not too often (RFC 2131, 4.4.5).
                let pause = (until.saturating_sub(now) / 2).max(LEASE_PAUSE);
                self.due = now.saturating_add(pause).min(until);
                let address = address_of(lease);
                Some(Action::Send(server, self.renewal(address, now)))
            }
        }
    }

    /// What gives the lease back, and to whom; nothing without one. To be used no more then.
    pub fn release(&self) -> Option<(Ipv4Addr, Vec<u8>)> {
        let State::Leased { lease, .. } = &self.state else { return None };
        let mut bytes = self.question(RELEASE, None, Some(lease.server), self.began);
        // No answer comes, so that none is to be broadcast.
        bytes[10..12].fill(0);
        bytes[12..16].copy_from_slice(&address_of(lease).octets());
        Some((lease.server, bytes))
    }

    /// Takes a datagram from port 67.
    pub fn hear(&mut self, datagram: &[u8], now: u64) -> Option<Action> {
        let answer = Answer::read(datagram, self.transaction, self.mac)?;
        match (&self.state, answer.kind) {
            (State::Selecting, OFFER) => {
                let offer = answer.lease()?;
                self.state = State::Requesting { offer, n_asked: 0 };
                (self.due, self.pause) = (now, FIRST_PAUSE);
                None
            }
            (State::Requesting { offer, .. }, ACK) if answer.server == Some(offer.server) => {
                self.take(&answer, now)
            }
            (State::Leased { phase: Phase::Renewing | Phase::Rebinding, .. }, ACK) => {
                self.take(&answer, now)
            }
            (State::Requesting { offer, .. }, NAK) if answer.server == Some(offer.server) => {
                self.start_over(now);
                None
            }
            (State::Leased { phase: Phase::Renewing | Phase::Rebinding, .. }, NAK) => {
                self.start_over(now);
                Some(Action::Drop)
            }
            _ => None,
        }
    }

    fn take(&mut self, answer: &Answer<'_>, now: u64) -> Option<Action> {
        let lease = answer.lease()?;
        let seconds = u64::from(answer.seconds(LEASE_TIME)?);
        let times = |t1: Option<u32>, t2: Option<u32>| {
            let after = |seconds: u64| now.saturating_add(seconds * 1000);
            let rebind = t2.map_or(seconds * 7 / 8, u64::from).clamp(1, seconds);
            let renew = t1.map_or(seconds / 2, u64::from).clamp(1, rebind);
            Times { renew: after(renew), rebind: after(rebind), end: after(seconds) }
        };
        let times = times(answer.number(T1), answer.number(T2));
        self.due = times.renew.max(now.saturating_add(FIRST_PAUSE));
        self.state = State::Leased { lease: lease.clone(), times, phase: Phase::Bound };
        Some(Action::Use(lease))
    }

    fn start_over(&mut self, now: u64) {
        self.state = State::Selecting;
        // Not at once: a server that refuses whatever is asked would be asked without end.
        (self.due, self.pause, self.began) = (now.saturating_add(FIRST_PAUSE), FIRST_PAUSE, now);
        // Late answers to old questions are not answers to the new ones.
        self.transaction = self.transaction.wrapping_mul(0x9E37_79B1).wrapping_add(1);
    }

    fn wait(&mut self, now: u64, longest: u64) {
        self.due = now.saturating_add(self.pause);
        self.pause = (self.pause * 2).min(longest);
    }

    fn renewal(&self, address: Ipv4Addr, now: u64) -> Vec<u8> {
        let mut bytes = self.question(ASK, None, None, now);
        // It has an address to be answered at.
        bytes[10..12].fill(0);
        bytes[12..16].copy_from_slice(&address.octets());
        bytes
    }

    fn question(
        &self,
        kind: u8,
        address: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
        now: u64,
    ) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        // Ethernet, with addresses of six bytes.
        bytes[..4].copy_from_slice(&[REQUEST, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        let seconds = u16::try_from(now.saturating_sub(self.began) / 1000).unwrap_or(u16::MAX);
        bytes[8..10].copy_from_slice(&seconds.to_be_bytes());
        bytes[10..12].copy_from_slice(&BROADCAST.to_be_bytes());
        bytes[28..34].copy_from_slice(&self.mac);
        bytes[236..240].copy_from_slice(&COOKIE);
        let mut option = |code: u8, value: &[u8]| {
            bytes.extend_from_slice(&[code, u8::try_from(value.len()).unwrap_or(0)]);
            bytes.extend_from_slice(value);
        };
        option(KIND, &[kind]);
        if let Some(address) = address {
            option(ASKED_ADDRESS, &address.octets());
        }
        if let Some(server) = server {
            option(SERVER, &server.octets());
        }
        // Whoever gives something back asks for nothing (RFC 2131, table 5).
        if kind != RELEASE {
            option(ASKED, &[MASK, ROUTER, DNS, LEASE_TIME, T1, T2]);
            if !self.hostname.is_empty() {
                option(HOSTNAME, self.hostname.as_bytes());
            }
        }
        bytes.push(END);
        // What the oldest relays expect (RFC 1542, 2.1).
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }
}

fn address_of(lease: &Lease) -> Ipv4Addr {
    match lease.address.addr {
        std::net::IpAddr::V4(v4) => v4,
        std::net::IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// A server's datagram that belongs to a question.
struct Answer<'a> {
    kind: u8,
    address: Ipv4Addr,
    server: Option<Ipv4Addr>,
    options: &'a [u8],
}

impl<'a> Answer<'a> {
    fn read(datagram: &'a [u8], transaction: u32, mac: [u8; 6]) -> Option<Self> {
        let (header, options) = datagram.split_at_checked(HEADER)?;
        let is_answer = header[0] == REPLY
            && header[4..8] == transaction.to_be_bytes()
            && header[28..34] == mac
            && header[236..240] == COOKIE;
        if !is_answer {
            return None;
        }
        let address = <[u8; 4]>::try_from(&header[16..20]).ok()?.into();
        let mut answer = Self { kind: 0, address, server: None, options };
        answer.kind = *answer.option(KIND)?.first()?;
        answer.server = answer.addresses(SERVER).next();
        Some(answer)
    }

    /// The first option of this code.
    fn option(&self, code: u8) -> Option<&'a [u8]> {
        let mut rest = self.options;
        loop {
            match rest {
                [0, after @ ..] => rest = after,
                [END, ..] | [] | [_] => return None,
                [found, len, after @ ..] => {
                    let (value, after) = after.split_at_checked(usize::from(*len))?;
                    if *found == code {
                        return Some(value);
                    }
                    rest = after;
                }
            }
        }
    }

    fn addresses(&self, code: u8) -> impl Iterator<Item = Ipv4Addr> + use<'a> {
        let value = self.option(code).unwrap_or_default();
        let (addresses, _odd) = value.as_chunks::<4>();
        addresses.iter().map(|octets| Ipv4Addr::from(*octets))
    }

    fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(code)?.try_into().ok()?))
    }

    /// A time that is believed.
    fn seconds(&self, code: u8) -> Option<u32> {
        let seconds = self.number(code)?;
        (seconds != 0).then(|| seconds.clamp(*LEASE_SECONDS.start(), *LEASE_SECONDS.end()))
    }

    /// What is offered, if it is something one can use.
    fn lease(&self) -> Option<Lease> {
        let usable = |ip: &Ipv4Addr| {
            !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast() && !ip.is_loopback()
        };
        let address = Some(self.address).filter(usable)?;
        self.seconds(LEASE_TIME)?;
        let mask = self.number(MASK)?;
        if mask == 0 || mask.leading_ones() != mask.count_ones() {
            return None;
        }
        let prefix_len = u8::try_from(mask.leading_ones()).ok()?;
        Some(Lease {
            address: IpNet { addr: address.into(), prefix_len },
            router: self.addresses(ROUTER).find(usable),
            dns: self.addresses(DNS).filter(usable).take(MAX_DNS).collect(),
            server: self.server?,
        })
    }
}

#[cfg(test)]
mod tests;
