//! Debian's user-space NFS server, version 4, unpacked and not installed: a directory in its memory, of files
//! of up to a MiB.

use qemu_tests::{Checkout, Lab, Program};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

/// What it takes of other packages, by the beginnings of their names, as those end in versions.
const LIBRARIES: [&str; 4] = ["libntirpc", "liburcu", "libwbclient", "libnfsidmap"];

/// A server that serves `/exports/v1` on a port of loopback until the lab is gone.
pub(crate) struct Ganesha {
    pub(crate) port: u16,
    _server: Program,
}

impl Ganesha {
    pub(crate) fn start(lab: &Lab) -> Self {
        let cache = Checkout::built().target.join("packages");
        let tell = &mut |line: &str| eprintln!("{line}");
        let mut packages: Vec<PathBuf> = ["nfs-ganesha", "nfs-ganesha-mem"]
            .map(|package| debian::unpack(package, &cache, tell).expect("a package"))
            .to_vec();
        packages.extend(LIBRARIES.map(|start| {
            debian::unpack_dependency("nfs-ganesha", start, &cache, tell).expect("a package")
        }));
        let shared = "usr/lib/x86_64-linux-gnu";
        let libraries = ["usr/lib/ganesha", shared, "usr/lib/x86_64-linux-gnu/libnfsidmap"];
        let libraries: Vec<String> = packages
            .iter()
            .flat_map(|package| libraries.map(|it| package.join(it).display().to_string()))
            .collect();
        // Free a moment ago; the server takes no descriptor and tells no port.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = free.expect("a port").port();
        let plugins = packages[1].join(shared).join("ganesha");
        let state = lab.path("ganesha");
        std::fs::create_dir(&state).expect("a directory can be made");
        let names = lab.file("idmapd.conf", "[Translation]\nMethod = static\n");
        let (plugins, state, names) = (plugins.display(), state.display(), names.display());
        let config = format!(
            "NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; Enable_NLM = false;\n\
             Enable_RQUOTA = false; Enable_UDP = false; Plugins_Dir = {plugins}; }}\n\
             NFSV4 {{ IdmapConf = {names}; Graceless = true; RecoveryRoot = {state}; Only_Numeric_Owners = true; }}\n\
             MEM {{ Inode_Size = 1048576; }}\n\
             NFS_KRB5 {{ Active_krb5 = false; CCacheDir = {state}; }}\n\
             EXPORT {{ Export_Id = 1; Path = /exports/v1; Pseudo = /exports/v1; Access_Type = RW;\n\
             Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; FSAL {{ Name = MEM; }} }}\n"
        );
        let config = lab.file("ganesha.conf", config);
        let mut ganesha = Command::new(packages[0].join("usr/bin/ganesha.nfsd"));
        ganesha.args(["-F", "-L", "STDOUT", "-N", "NIV_EVENT", "-f"]).arg(config).arg("-p");
        ganesha.arg(lab.path("ganesha.pid")).env("LD_LIBRARY_PATH", libraries.join(":"));
        ganesha.env("CONTAINERVM_HOME", lab.home());
        let server = lab.start(ganesha);
        server.expect("NFS SERVER INITIALIZED");
        Self { port, _server: server }
    }
}
