//! A name server inside a VM under test: every name has the one address of version 4 that it is told.
//!
//! It says `listening` once it does. A question that is more than a question is not answered.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};

/// Of a message (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// The type of a question for an address of version 4.
const A: [u8; 2] = [0, 1];

fn main() -> io::Result<()> {
    let told = std::env::args().nth(1).and_then(|it| it.parse::<Ipv4Addr>().ok());
    let address = told.ok_or_else(|| io::Error::other("expected an address"))?;
    let socket = UdpSocket::bind("0.0.0.0:53")?;
    println!("listening");
    let mut question = [0; 512];
    loop {
        let (len, from) = socket.recv_from(&mut question)?;
        if let Some(answer) = answer(&question[..len], address) {
            socket.send_to(&answer, from)?;
        }
    }
}

fn answer(question: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let (header, asked) = question.split_at_checked(HEADER)?;
    let kind = asked.get(asked.len().checked_sub(4)?..)?.first_chunk::<2>()?;
    let has_address = *kind == A;
    let mut answer = header[..2].to_vec();
    // An answer without fault to one question, with one record or none.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
    answer.extend(asked);
    if has_address {
        // The name that was asked for, its address, for a minute.
        answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
