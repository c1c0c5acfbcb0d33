//! What a guest does in a scenario, as text, so that another process can be told the same.

use guestinfo::backdoor::Port;
use guestinfo::rpci::{self, Requests as _};

/// Does what each line of `script` says and tells what came of it, a line each.
///
/// `get KEY` · `set KEY TEXT` (`\n` in the text is a line break) · `fill KEY BYTES` · `length KEY`
/// · `raw REQUEST` · `version`
pub(crate) fn run(port: &mut dyn Port, script: &str) -> Vec<String> {
    script.lines().map(|line| run_line(port, line)).collect()
}

fn run_line(port: &mut dyn Port, line: &str) -> String {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (key, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let outcome = match verb {
        "get" => rpci::info_get(port, key).map(|value| match value {
            Some(value) => format!("{:?}", String::from_utf8_lossy(&value)),
            None => "none".to_owned(),
        }),
        "length" => rpci::info_get(port, key).map(|value| match value {
            Some(value) if value.iter().enumerate().all(|(at, byte)| *byte == pattern(at)) => {
                value.len().to_string()
            }
            _ => "damaged".to_owned(),
        }),
        "set" => rpci::info_set(port, key, text.replace("\\n", "\n").as_bytes())
            .map(|()| "set".to_owned()),
        "fill" => {
            let value: Vec<u8> = (0..text.parse().expect("a length")).map(pattern).collect();
            rpci::info_set(port, key, &value).map(|()| "set".to_owned())
        }
        "raw" => port.request(rest.as_bytes()).map(|reply| format!("{reply:?}")),
        "version" => Ok(format!("{:?}", guestinfo::backdoor::version(port))),
        _ => panic!("a script cannot say {line:?}"),
    };
    outcome.unwrap_or_else(|error| error.to_string())
}

/// Bytes of which no two neighbors within a word are alike.
pub(crate) fn pattern(at: usize) -> u8 {
    u8::try_from(at * 7 % 251).expect("below 251")
}
