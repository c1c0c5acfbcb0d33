//! What a VCH has relayed to a guest's tools: the start of one of the "programs" that are none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The length of a command's header, and what it begins with.
const HEADER: usize = 51;
const MAGIC: u32 = 0xD00D_0001;
const START_PROGRAM: u32 = 185;

/// The request that starts this program, as this user.
pub fn start(user: &str, program: &str, argument: &str) -> Vec<u8> {
    let length = |text: &str| if text.is_empty() { 0 } else { text.len() + 1 };
    let number = |len: usize| u32::try_from(len).expect("short").to_le_bytes();
    let mut body = vec![0];
    for len in [length(program), length(argument), 0, 0, 0] {
        body.extend(number(len));
    }
    for text in [program, argument].into_iter().filter(|text| !text.is_empty()) {
        body.extend(text.as_bytes());
        body.push(0);
    }
    let credentials = credentials(user);
    let mut bytes = b"Vix_1_Relayed_Command \"Execute\"\0".to_vec();
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(5u16.to_le_bytes());
    for len in [HEADER + body.len() + credentials.len(), HEADER, body.len(), credentials.len()] {
        bytes.extend(number(len));
    }
    bytes.push(0);
    for word in [START_PROGRAM, 0, 30, 0, 0, 7, 1] {
        bytes.extend(word.to_le_bytes());
    }
    [bytes, body, credentials].concat()
}

/// A name and a password, which nobody looks at.
fn credentials(user: &str) -> Vec<u8> {
    let mut packed = u16::try_from(user.len()).expect("short").to_le_bytes().to_vec();
    packed.extend([1, 0]);
    packed.extend(user.as_bytes());
    packed.extend(b"\0p\0");
    STANDARD.encode(packed).into_bytes()
}
