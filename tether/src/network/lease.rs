//! The DHCP client of one interface with its socket: what the client of `dhcp` wants is sent, what comes is given to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, recvfrom, sendto, setsockopt,
    socket, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tracing::{debug, info};

use super::dhcp::{Action, Client, Lease};
use crate::sys;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// Datagrams looked at in one turn, so that a flood starves nobody.
const MAX_HEARD: usize = 16;

/// What is new about a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It is there, or renewed.
    Leased(Lease),
    /// It has ended.
    Lost,
}

/// A lease that is sought and kept.
#[derive(Debug)]
pub struct Leasing {
    client: Client,
    fd: AsyncFd<OwnedFd>,
    began: Instant,
}

impl Leasing {
    /// Begins to ask on an interface that is up.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn start(interface: &str, mac: &str, hostname: &str) -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        // Another interface's client, or a container's own, may have the port too.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::Broadcast, &true)?;
        setsockopt(&fd, sockopt::BindToDevice, &interface.into())?;
        bind(
            fd.as_raw_fd(),
            &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT)),
        )?;
        let mut number = [0; 4];
        sys::random(&mut number)?;
        let client =
            Client::new(mac_of(mac).ok_or(Errno::EINVAL)?, hostname, u32::from_ne_bytes(number), 0);
        let fd = sys::watch(fd).map_err(|_| Errno::EIO)?;
        Ok(Self { client, fd, began: Instant::now() })
    }

    /// When [`Self::turn`] has something to do even if nothing is heard.
    pub fn deadline(&self) -> Option<Instant> {
        self.began.checked_add(Duration::from_millis(self.client.deadline()))
    }

    /// Waits until a server has said something.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub async fn ready(&self) {
        match self.fd.readable().await {
            Ok(mut ready) => ready.retain_ready(),
            Err(_shutting_down) => std::future::pending().await,
        }
    }

    /// Hears and asks; what is new, the last of it.
    pub fn turn(&mut self) -> Option<News> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut news = None;
        let mut buffer = [0; 2048];
        for _ in 0..MAX_HEARD {
            let Some(len) = self.receive(&mut buffer) else { break };
            match self.client.hear(&buffer[..len], now) {
                Some(Action::Use(lease)) => news = Some(News::Leased(lease)),
                Some(Action::Drop) => news = Some(News::Lost),
                Some(Action::Send(..)) | None => {}
            }
        }
        while let Some(action) = self.client.poll(now) {
            match action {
                Action::Send(server, bytes) => self.send(server, &bytes),
                Action::Use(lease) => news = Some(News::Leased(lease)),
                Action::Drop => news = Some(News::Lost),
            }
        }
        news
    }

    /// The length of the next datagram of a server; others are passed over with length 0.
    fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        let received = self.fd.try_io(Interest::READABLE, |fd| {
            Ok::<_, io::Error>(recvfrom::<SockaddrIn>(fd.as_raw_fd(), buffer)?)
        });
        let (len, from) = received.ok()?;
        let is_server = from.is_some_and(|from| from.port() == SERVER_PORT);
        Some(if is_server { len } else { 0 })
    }

    /// Gives the lease back, if there is one. Nobody answers that; [`Self::is_given_back`] tells when it is on
    /// its way.
    pub fn give_back(&self) -> bool {
        let Some((server, bytes)) = self.client.release() else { return false };
        info!("the address is given back to {server}");
        self.send(Some(server), &bytes);
        true
    }

    /// Whether the card has taken all that was sent: before, the kernel may not even know the server's address
    /// (udp(7), `SIOCOUTQ`).
    pub fn is_given_back(&self) -> bool {
        sys::unsent(self.fd.get_ref()).is_ok_and(|bytes| bytes == 0)
    }

    /// One attempt: what is lost is sent again.
    fn send(&self, server: Option<Ipv4Addr>, bytes: &[u8]) {
        let to = SocketAddrV4::new(server.unwrap_or(Ipv4Addr::BROADCAST), SERVER_PORT);
        let to = SockaddrIn::from(to);
        let sent = sendto(self.fd.get_ref().as_raw_fd(), bytes, &to, MsgFlags::empty());
        if let Err(errno) = sent {
            debug!("a DHCP question to {to} was not sent: {errno}");
        }
    }
}

fn mac_of(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}
