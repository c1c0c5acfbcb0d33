//! A directory of an NFS server: what a config says of it, and its mount as the kernel is to be asked for it.
//!
//! `mount.nfs` does little that the kernel does not, and that little is here: the server's name becomes an address,
//! versions are tried from the newest down, and words that are not for the kernel are left out (nfs(5)). Locks of
//! version 3, which take a daemon beside the kernel, are kept inside the VM.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

use guestinfo::MountSpec;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::process::executable::errno_text;

/// The modules of the client, which load what they share with each other.
pub const MODULES: [&str; 2] = ["nfsv4", "nfsv3"];

/// Versions to try if the config names none.
const VERSIONS: [&str; 4] = ["4.2", "4.1", "4.0", "3"];

/// The most that `mount(2)` takes as options: a page, with the zero at its end.
const MAX_OPTIONS: usize = 4095;

/// For programs that mount by `/etc/fstab`, not for the kernel (mount(8), nfs(5)).
const NOT_FOR_THE_KERNEL: [&str; 14] = [
    "", "defaults", "rw", "async", "auto", "noauto", "user", "users", "nouser", "owner", "nofail",
    "_netdev", "bg", "fg",
];

/// What mount(8) says by a flag.
const FLAGS: [(&str, MsFlags); 7] = [
    ("ro", MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("sync", MsFlags::MS_SYNCHRONOUS),
    ("dirsync", MsFlags::MS_DIRSYNC),
    ("nodiratime", MsFlags::MS_NODIRATIME),
];

/// A directory of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The server's name or address.
    server: String,
    /// What is shown of it.
    host: String,
    path: String,
    flags: MsFlags,
    version: Option<String>,
    /// Options for the kernel, but for address and version.
    options: String,
}

impl Export {
    /// What the config says, or why that cannot be.
    ///
    /// # Errors
    ///
    /// For people.
    pub fn of(spec: &MountSpec) -> Result<Self, &'static str> {
        let (host, port) = parts(&spec.source.host);
        let mut export = Self {
            server: host.to_owned(),
            host: host.to_owned(),
            path: format!("/{}", spec.source.path.trim_start_matches('/')),
            flags: MsFlags::MS_NOATIME,
            version: None,
            options: String::new(),
        };
        port.into_iter().for_each(|port| export.add("port", port));
        for word in spec.mode.split(',') {
            export.take(word);
        }
        let is_local = |word: &str| word.contains("lock");
        if !export.options.split(',').any(is_local) {
            export.add("nolock", "");
        }
        if export.server.is_empty() {
            return Err("it has no server; expected source/Host, or addr=ADDRESS in mode");
        }
        if [&export.path, &export.options, &export.host].iter().any(|text| text.contains('\0')) {
            return Err("it holds a zero byte, which no path or option can carry");
        }
        // Room for address and version.
        if export.options.len() > MAX_OPTIONS - 128 {
            return Err(
                "its mode is longer than a page of memory, which is the most the kernel takes",
            );
        }
        Ok(export)
    }

    fn take(&mut self, word: &str) {
        if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| *name == word) {
            return self.flags.insert(*flag);
        }
        match word.split_once('=').unwrap_or((word, "")) {
            ("addr", address) => {
                let (server, _) = parts(address);
                server.clone_into(&mut self.server);
                if self.host.is_empty() {
                    server.clone_into(&mut self.host);
                }
            }
            ("vers" | "nfsvers", version) => self.version = Some(version.to_owned()),
            ("v3" | "v4" | "v4.0" | "v4.1" | "v4.2", _) => {
                self.version = Some(word[1..].to_owned())
            }
            ("minorversion", minor) => self.version = Some(format!("4.{minor}")),
            ("retry", _) => {}
            (name, _) if NOT_FOR_THE_KERNEL.contains(&name) || name.starts_with("x-") => {}
            (name, value) => self.add(name, value),
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        let equals = if value.is_empty() { "" } else { "=" };
        self.options += &format!(",{name}{equals}{value}");
    }

    /// As people write it: `host:/path`.
    pub fn shown(&self) -> String {
        let host = &self.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("{host}:{}", self.path)
    }

    /// Mounts it; waits for the server for as long as it takes.
    ///
    /// # Errors
    ///
    /// Why not, for people: of the last address and version that were tried.
    pub fn mount(&self, target: &Path) -> Result<(), String> {
        let mut reason = "has no address".to_owned();
        for address in self.addresses()? {
            for version in self.versions() {
                match self.mount_from(address, version, target) {
                    Ok(()) => return Ok(()),
                    // The server, or the kernel, does not know the version; perhaps the next.
                    Err(errno @ (Errno::EPROTONOSUPPORT | Errno::EINVAL)) => {
                        reason = self.refusal(address, version, errno);
                    }
                    Err(errno) => {
                        reason = self.refusal(address, version, errno);
                        break;
                    }
                }
            }
        }
        Err(reason)
    }

    fn versions(&self) -> Vec<&str> {
        self.version.as_deref().map_or(VERSIONS.to_vec(), |version| vec![version])
    }

    fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = self.server.parse() {
            return Ok(vec![address]);
        }
        let found = (self.server.as_str(), 0).to_socket_addrs();
        let found = found.map_err(|_| {
            format!(
                "the name {} has no address; write addr=ADDRESS into its mode, or give the VM a name server that \
                 knows it",
                self.server
            )
        })?;
        Ok(found.map(|it| it.ip()).collect())
    }

    fn mount_from(&self, address: IpAddr, version: &str, target: &Path) -> Result<(), Errno> {
        let options = self.data(address, version);
        mount(Some(self.shown().as_str()), target, Some("nfs"), self.flags, Some(options.as_str()))
    }

    fn data(&self, address: IpAddr, version: &str) -> String {
        format!("vers={version},addr={address}{}", self.options)
    }

    fn refusal(&self, address: IpAddr, version: &str, errno: Errno) -> String {
        let (shown, options) = (self.shown(), self.data(address, version));
        let hint = match errno {
            Errno::ENODEV => "; this VM's kernel has no NFS client",
            Errno::EINVAL => "; the kernel's log has which of the options it does not take",
            Errno::EPROTONOSUPPORT => "; the server does not offer this version",
            _ => "",
        };
        format!("{shown} cannot be mounted with {options}: {}{hint}", errno_text(errno))
    }
}

/// A host, and its port if it has one; brackets are for addresses with colons.
fn parts(host: &str) -> (&str, Option<&str>) {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':')),
        None if host.matches(':').count() == 1 => {
            let (name, port) = host.split_once(':').unwrap_or((host, ""));
            (name, Some(port))
        }
        None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestinfo::Url;

    fn spec(host: &str, path: &str, mode: &str) -> MountSpec {
        let (scheme, host, path) = ("nfs".to_owned(), host.to_owned(), path.to_owned());
        let source = Url { scheme, host, path, ..Url::default() };
        MountSpec { source, dest: "/d".to_owned(), mode: mode.to_owned(), ..MountSpec::default() }
    }

    fn export(host: &str, path: &str, mode: &str) -> Export {
        Export::of(&spec(host, path, mode)).unwrap()
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 2));

    #[test]
    fn vics_keys_are_a_server_and_its_options() {
        let vic = export("nfs.example.com", "/exports/v1", "addr=nfs.example.com");
        assert_eq!(
            (vic.shown(), vic.server.as_str()),
            ("nfs.example.com:/exports/v1".into(), "nfs.example.com")
        );
        assert_eq!(vic.data(ADDRESS, "4.2"), "vers=4.2,addr=10.0.2.2,nolock");
        assert_eq!(vic.versions(), VERSIONS);
        assert_eq!(export("h", "v1", "").shown(), "h:/v1", "VIC forces the slash");
    }

    #[test]
    fn dockers_options_are_the_kernels_but_for_those_of_programs() {
        let mode =
            "addr=10.0.2.2,ro,nfsvers=4.1,soft,timeo=50,nosuid,_netdev,retry=2,x-y,defaults,lock";
        let docker = export("", "/share", mode);
        assert_eq!((docker.shown(), docker.versions()), ("10.0.2.2:/share".into(), vec!["4.1"]));
        assert_eq!(docker.data(ADDRESS, "4.1"), "vers=4.1,addr=10.0.2.2,soft,timeo=50,lock");
        assert_eq!(docker.flags, MsFlags::MS_NOATIME | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID);
        for (word, version) in [("v3", "3"), ("vers=4", "4"), ("minorversion=1", "4.1")] {
            assert_eq!(export("h", "/", word).versions(), [version], "{word}");
        }
    }

    #[test]
    fn a_host_may_have_a_port_and_an_address_may_have_colons() {
        for (host, shown, options) in [
            ("h:2050", "h:/p", ",port=2050,nolock"),
            ("[fd00::1]:2050", "[fd00::1]:/p", ",port=2050,nolock"),
            ("fd00::1", "[fd00::1]:/p", ",nolock"),
        ] {
            let export = export(host, "/p", "");
            assert_eq!((export.shown().as_str(), export.options.as_str()), (shown, options));
        }
        assert_eq!(export("fd00::1", "/", "").addresses(), Ok(vec!["fd00::1".parse().unwrap()]));
    }

    #[test]
    fn what_no_server_can_be_asked_for_is_refused_at_once() {
        let refused =
            |host: &str, mode: &str| Export::of(&spec(host, "/p", mode)).expect_err("refused");
        assert!(refused("", "soft").contains("no server"));
        assert!(refused("h", "a\0b").contains("zero byte"));
        assert!(refused("h", &"x".repeat(5000)).contains("page"));
    }

    #[test]
    fn a_refusal_names_server_options_reason_and_what_to_do() {
        let export = export("h", "/p", "soft");
        let text = export.refusal(ADDRESS, "3", Errno::EACCES);
        assert_eq!(
            text,
            "h:/p cannot be mounted with vers=3,addr=10.0.2.2,soft,nolock: permission denied"
        );
        assert!(export.refusal(ADDRESS, "3", Errno::ENODEV).ends_with("has no NFS client"));
    }
}
