//! The host's end of a connection over vsock: requests come and replies go as packets.

use std::io::{self, Error, ErrorKind, Read, Write};

/// What every packet of data has before its payload, but for lengths: one number, the kind "data", then a text.
const HEAD: [u32; 6] = [1, 1, 1, 0, 2, 2];
/// Length of [`HEAD`] and of the payload's length.
const HEAD_LEN: usize = 28;

/// Answers each request on this connection with what `reply` makes of it, until the guest hangs up.
///
/// # Errors
/// The connection fails, or something else than a request comes.
pub fn serve(
    mut stream: impl Read + Write,
    mut reply: impl FnMut(&[u8]) -> Vec<u8>,
) -> io::Result<()> {
    let mut size = [0; 4];
    loop {
        match stream.read_exact(&mut size) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let mut packet = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut packet)?;
        let request = payload(&packet).ok_or_else(|| Error::other(format!("{packet:x?}")))?;
        stream.write_all(&framed(&reply(request)))?;
    }
}

/// The payload of a packet exactly as guests send it.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let (head, payload) = packet.split_at_checked(HEAD_LEN)?;
    let expected = HEAD.into_iter().chain([u32::try_from(payload.len()).ok()?]);
    (head == numbers(expected).as_slice()).then_some(payload)
}

fn framed(reply: &[u8]) -> Vec<u8> {
    let len = u32::try_from(reply.len()).expect("short");
    let whole = len + u32::try_from(HEAD_LEN).expect("short");
    let head = [whole].into_iter().chain(HEAD).chain([len]);
    [numbers(head).as_slice(), reply].concat()
}

fn numbers(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
    numbers.into_iter().flat_map(u32::to_be_bytes).collect()
}
