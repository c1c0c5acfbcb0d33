//! The built-in image: Debian's static busybox with all its applets, and the least a login needs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use super::{ImageConfig, ImageError};
use crate::tree::{Attributes, Extent, Kind, Source, Tree};

/// The Debian package.
const PACKAGE: &str = "busybox-static";

/// Users and groups that programs look for by name.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";
const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
wheel:x:10:
mail:x:8:
www-data:x:33:
users:x:100:
nogroup:x:65534:
";
const DIRECTORIES: [(&str, u16); 14] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];

/// The busybox program, brought in once and then found without any network.
pub(super) fn program(packages: &Path, tell: &mut dyn FnMut(&str)) -> Result<PathBuf, ImageError> {
    let unpacked = debian::unpack(PACKAGE, packages, tell)?;
    let found = ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|path| unpacked.join(path))
        .find(|path| path.is_file());
    found.ok_or(ImageError::NoBusybox { path: unpacked })
}

/// The file tree around `program`.
pub(super) fn tree(program: &Path) -> Result<Tree, ImageError> {
    let failed = |source| ImageError::Directory { path: program.to_owned(), source };
    let size = fs::metadata(program).map_err(failed)?.len();
    // The list is built into the program; it knows best what it can do.
    let output = Command::new(program).arg("--list-full").output().map_err(failed)?;
    let applets = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut tree = Tree::new();
    let mut put = |path: &str, mode, kind| {
        tree.insert(path.as_bytes(), Attributes::root_owned(mode), kind)
            .map_err(|fault| ImageError::Name { path: path.into(), fault })
    };
    for (path, mode) in DIRECTORIES {
        put(path, mode, Kind::directory())?;
    }
    let source = Source::Path { path: Arc::new(program.to_owned()), offset: 0 };
    put(
        "bin/busybox",
        0o755,
        Kind::File { size, extents: vec![Extent { start: 0, length: size, source }] },
    )?;
    for applet in applets.lines().filter(|applet| *applet != "bin/busybox" && !applet.is_empty()) {
        put(applet, 0o777, Kind::Symlink(b"/bin/busybox".to_vec()))?;
    }
    put("etc/passwd", 0o644, Kind::file(PASSWD.as_bytes()))?;
    put("etc/group", 0o644, Kind::file(GROUP.as_bytes()))?;
    put("etc/shadow", 0o640, Kind::file(*b"root:*:::::::\n"))?;
    put("etc/nsswitch.conf", 0o644, Kind::file(*b"hosts: files dns\n"))?;
    Ok(tree)
}

/// It runs a shell.
pub(super) fn config() -> ImageConfig {
    ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() }
}
