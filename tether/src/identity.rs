//! The container's name on itself: hostname, and the texts of `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf`.
//!
//! As with Docker these files are mounted over the image's, never written into it.

use std::fmt::Write as _;
use std::net::IpAddr;

/// The kernel's limit on a host name (`__NEW_UTS_LEN`).
const MAX_HOSTNAME: usize = 64;

/// What Docker writes at the top of every `/etc/hosts`, address and names.
const WELL_KNOWN: [(&str, &str); 6] = [
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
];

/// The full host name: `hostname[.domain]`, or the first 12 characters of the container's id. What would not
/// fit the kernel's 64 bytes is cut; bytes that no host name may hold become `-`.
pub fn hostname(hostname: &str, domain: &str, id: &str) -> String {
    let full = match (hostname, domain) {
        ("", _) => id.chars().take(12).collect(),
        (host, "") => host.to_owned(),
        (host, domain) => format!("{host}.{domain}"),
    };
    let mut clean: String = full
        .chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '-' })
        .take(MAX_HOSTNAME)
        .collect();
    if clean.is_empty() {
        clean.push_str("container");
    }
    clean
}

/// The text of `/etc/hosts`. `addresses` are the container's own; without any, the name points at 127.0.1.1,
/// so that `hostname -f` and `-d` have an answer.
pub fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = String::new();
    let mut line = |address: &str, names: &str| {
        // Writing to a String cannot fail.
        writeln!(text, "{address}\t{names}").expect("a string takes any text");
    };
    for (address, names) in WELL_KNOWN {
        line(address, names);
    }
    let names = match hostname.split_once('.') {
        Some((short, _)) if !short.is_empty() => format!("{hostname} {short}"),
        _ => hostname.to_owned(),
    };
    if addresses.is_empty() {
        line("127.0.1.1", &names);
    }
    for address in addresses {
        line(&address.to_string(), &names);
    }
    text
}

/// The text of `/etc/resolv.conf` for the configured name servers; `None` when there are none, and the
/// image's own file is to stay visible.
pub fn resolv_conf(nameservers: &[IpAddr]) -> Option<String> {
    if nameservers.is_empty() {
        return None;
    }
    let mut text = String::new();
    for server in nameservers {
        writeln!(text, "nameserver {server}").expect("a string takes any text");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hostname_is_what_was_asked_for_or_the_short_id() {
        for (host, domain, id, expected) in [
            ("web", "", "0123456789abcdef", "web"),
            ("vic", "test", "0123456789abcdef", "vic.test"),
            ("", "test", "0123456789abcdef", "0123456789ab"),
            ("", "", "", "container"),
            ("a b\u{e9}", "", "x", "a-b-"),
        ] {
            assert_eq!(hostname(host, domain, id), expected);
        }
        assert_eq!(hostname(&"x".repeat(100), "", "").len(), 64);
    }

    #[test]
    fn hosts_names_the_container_in_full_and_short() {
        let text = hosts("vic.test", &[]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("127.0.1.1\tvic.test vic\n"), "{text}");
    }

    #[test]
    fn hosts_prefers_real_addresses() {
        let text = hosts("web", &["172.16.0.2".parse().unwrap()]);
        assert!(text.ends_with("172.16.0.2\tweb\n"), "{text}");
        assert!(!text.contains("127.0.1.1"));
    }

    #[test]
    fn without_name_servers_the_image_keeps_its_file() {
        assert_eq!(resolv_conf(&[]), None);
        let text = resolv_conf(&["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(text.as_deref(), Some("nameserver 10.0.0.1\nnameserver fd00::1\n"));
    }
}
