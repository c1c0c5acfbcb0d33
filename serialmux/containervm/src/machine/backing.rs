//! What a serial port leads to outside the VM.

use std::path::PathBuf;

use super::{MachineError, keys::Keys};

/// Who calls whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndPoint {
    /// The VM calls, again and again until it is answered.
    Client,
    /// The VM listens.
    Server,
}

/// The other end of a serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SerialBacking {
    /// A TCP connection.
    Network {
        /// Name or address; empty for every address of the host.
        host: String,
        /// Port number.
        port: u16,
        /// `telnet://`: the bytes carry telnet's commands.
        telnet: bool,
        /// Who calls.
        end_point: EndPoint,
    },
    /// A file that gets the output, from its beginning.
    File(PathBuf),
    /// A Unix socket, which VMware calls a pipe.
    Pipe {
        /// The socket.
        path: PathBuf,
        /// Who calls.
        end_point: EndPoint,
    },
}

#[derive(Clone, Copy)]
enum FileType {
    Network,
    File,
    Pipe,
}

pub(super) fn read(keys: &Keys<'_>, device: &str) -> Result<SerialBacking, MachineError> {
    let key = format!("{device}.fileType");
    let types =
        [("network", FileType::Network), ("file", FileType::File), ("pipe", FileType::Pipe)];
    let expected = "\"network\" or \"file\" or \"pipe\"";
    let file_type = keys
        .choice(&key, &types)?
        .ok_or_else(|| keys.missing(&format!("{device}.present"), &key, expected))?;
    match file_type {
        FileType::Network => network(keys, device),
        FileType::File => Ok(SerialBacking::File(keys.path(name(keys, device, "a file name")?))),
        FileType::Pipe => {
            let path = keys.path(name(keys, device, "the path of a Unix socket")?);
            Ok(SerialBacking::Pipe { path, end_point: end_point(keys, device, "pipe")? })
        }
    }
}

fn name<'a>(keys: &Keys<'a>, device: &str, expected: &str) -> Result<&'a str, MachineError> {
    let key = format!("{device}.fileName");
    keys.text(&key).ok_or_else(|| keys.missing(&format!("{device}.fileType"), &key, expected))
}

fn end_point(keys: &Keys<'_>, device: &str, kind: &str) -> Result<EndPoint, MachineError> {
    let words = [("client", EndPoint::Client), ("server", EndPoint::Server)];
    for key in [format!("{device}.{kind}.endPoint"), format!("{device}.endPoint")] {
        if let Some(end_point) = keys.choice(&key, &words)? {
            return Ok(end_point);
        }
    }
    // Also what VMware takes when the key is absent.
    Ok(EndPoint::Client)
}

/// An address. With a proxy (`vspc`), ESXi calls the proxy instead and tells it the address in telnet options; our
/// proxy takes plain TCP on the same port and needs no telling, so the proxy's address is called plainly.
pub(super) fn network(keys: &Keys<'_>, device: &str) -> Result<SerialBacking, MachineError> {
    let proxy = format!("{device}.vspc");
    let expected = "an address such as \"tcp://127.0.0.1:2377\" or \"telnet://127.0.0.1:2377\"";
    let (key, text) = match keys.text(&proxy) {
        Some(text) => (proxy, text),
        None => (format!("{device}.fileName"), name(keys, device, expected)?),
    };
    let through_proxy = key.ends_with(".vspc");
    let parse = || {
        let (scheme, rest) = text.split_once("://")?;
        let telnet = match scheme.to_ascii_lowercase().as_str() {
            "tcp" => false,
            "telnet" => !through_proxy,
            _ => return None,
        };
        // A service URI may carry a path or a query, which only a proxy would look at.
        let authority = rest.split(['/', '?', '#']).next()?;
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some((host.to_owned(), port.parse().ok().filter(|port| *port != 0)?, telnet))
    };
    let (host, port, telnet) = parse().ok_or_else(|| keys.fault(&key, expected))?;
    let end_point = end_point(keys, device, "network")?;
    if host.is_empty() && end_point == EndPoint::Client {
        return Err(
            keys.fault(&key, "a host to call, or network.endPoint = \"server\" to wait for calls")
        );
    }
    Ok(SerialBacking::Network { host, port, telnet, end_point })
}
