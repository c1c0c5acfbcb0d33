//! Images that are odd or hostile: links where the agent mounts, directories that are missing, programs that are none.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use qemu_tests::{Finished, Lab};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A directory with nothing but busybox, as an image.
struct Root<'a> {
    lab: &'a Lab,
    dir: PathBuf,
}

impl<'a> Root<'a> {
    fn new(lab: &'a Lab, name: &str) -> Self {
        let dir = lab.path(name);
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::copy(busybox(lab), dir.join("bin/sh")).unwrap();
        Self { lab, dir }
    }

    fn link(&self, at: &str, to: &str) -> &Self {
        let at = self.dir.join(at);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(to, at).unwrap();
        self
    }

    fn program(&self, at: &str, contents: &[u8]) -> &Self {
        let at = self.dir.join(at);
        fs::write(&at, contents).unwrap();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn run<const N: usize>(&self, command: [&str; N]) -> Finished {
        let dir = self.dir.to_string_lossy();
        let mut all = vec!["run", "--rm", "--boot", "direct", &*dir];
        all.extend(command);
        self.lab.start(self.lab.command("containervm", &all)).finish()
    }
}

/// A static busybox, as the product unpacks it for its own image.
fn busybox(lab: &Lab) -> PathBuf {
    lab.containervm(["run", "--print-vmx", "busybox"]).finish().code(0);
    let packages = fs::read_dir(lab.home().join("cache/debian")).unwrap();
    let dirs = packages.flatten().map(|entry| entry.path());
    let programs = dirs.flat_map(|dir| [dir.join("bin/busybox"), dir.join("usr/bin/busybox")]);
    programs.into_iter().find(|path: &PathBuf| Path::is_file(path)).expect("busybox")
}

#[test]
fn an_image_of_one_file_runs() {
    let lab = Lab::new();
    let script = "echo $HOME $PATH; echo /*; echo >/dev/null; \
                  echo again >/dev/stdout";
    let seen = Root::new(&lab, "bare").run(["sh", "-c", script]);
    // What was made for it: the places of the usual mounts, and /etc for the usual files.
    seen.code(0).prints(
        "/ /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         /bin /dev /etc /proc /sys\nagain\n",
    );
}

#[test]
fn hostile_links_lead_nowhere_but_into_the_image() {
    let lab = Lab::new();
    let root = Root::new(&lab, "links");
    // A file that never ends to read, where the users are; files that lead up, to a disk, to a descriptor.
    root.link("etc/passwd", "/proc/kmsg").link("etc/group", "/dev/zero");
    root.link("etc/hosts", "../../../../..").link("etc/hostname", "/dev/sda");
    root.link("tmp", "../../../../proc/self/root/var/../../..");
    root.link("way/out", "../../../../../..");
    let script = "while read -r a b c; do case $b in /etc/*|/dev/sda) echo $b;; esac; done </proc/mounts; \
                  echo /*; cd /way/out; pwd -P; [ -b /dev/sda ] || echo no disk; \
                  read -r name </etc/hostname; [ ${#name} = 12 ] && echo named";
    let seen = root.run(["sh", "-c", script]);
    seen.code(0).prints(
        "/dev/sda\n/etc/resolv.conf\n/bin /dev /etc /proc /sys /tmp /way\n/\nno disk\nnamed\n",
    );
}

#[test]
fn links_in_place_of_the_usual_mounts_are_refused_by_name() {
    let lab = Lab::new();
    for (name, at, to) in [("p", "proc", "/"), ("d", "dev", "/etc"), ("s", "sys", "../../../bin")] {
        let refused = Root::new(&lab, name).link(at, to).run(["sh", "-c", "echo runs"]);
        refused.code(125).prints("").complains(&[&format!("/{at} is a link or a file")]);
    }
}

#[test]
fn links_in_place_of_etc_and_its_files_lead_into_the_image_or_are_refused() {
    let lab = Lab::new();
    let script = "read -r name </etc/hostname; [ ${#name} = 12 ] && echo named; [ -c /dev/null ] || echo no null";
    let run = |name: &str, links: &[(&str, &str)]| {
        let root = Root::new(&lab, name);
        for (at, to) in links {
            root.link(at, to);
        }
        root.run(["sh", "-c", script])
    };
    run("shm", &[("etc", "/dev/shm")]).code(0).prints("named\n");
    run("up", &[("etc", "../../../../bin")]).code(0).prints("named\n");
    run("proc", &[("etc", "/proc")]).code(125).prints("").complains(&["rootfs: make /etc/"]);
    // The agent's own file, which lies outside of the root; and a circle.
    let agent = run("agent", &[("etc/hosts", "/proc/self/exe")]);
    agent.code(125).prints("").complains(&["rootfs: mount /etc/hosts"]);
    let circle = run("circle", &[("etc/resolv.conf", "/etc/resolv.conf")]);
    circle.code(125).prints("").complains(&["rootfs: ", "/etc/resolv.conf"]);
    // It hides its own null device, and nobody else's.
    run("null", &[("etc/hosts", "/dev/null")]).code(0).prints("named\nno null\n");
}

#[test]
fn a_tmpfs_goes_where_links_lead_inside_of_the_root() {
    let lab = Lab::new();
    let root = Root::new(&lab, "memory");
    root.link("up", "../../../../../bin").link("agent", "/proc/1/root/../..");
    let dir = root.dir.to_string_lossy().into_owned();
    let run = |tmpfs: &str| {
        let script =
            "while read -r a b c; do case $b in /bin*|/deep*) echo $b;; esac; done </proc/mounts";
        let all = ["run", "--rm", "--boot", "direct", "--tmpfs", tmpfs, &dir, "sh", "-c", script];
        lab.start(lab.command("containervm", &all)).finish()
    };
    run("/up/made").code(0).prints("/bin/made\n");
    run("/deep/er").code(0).prints("/deep/er\n");
    run("/agent/x").code(125).prints("").complains(&["rootfs: mount a tmpfs on /agent/x"]);
}

#[test]
fn a_program_that_is_the_agent_itself_is_no_agent() {
    let lab = Lab::new();
    let root = Root::new(&lab, "selves");
    root.link("bin/self", "/proc/self/exe");
    root.run(["self"])
        .code(2)
        .complains(&["It runs as PID 1 of such a VM and does nothing elsewhere"]);
}

#[test]
fn a_working_directory_outside_of_the_root_is_refused() {
    let lab = Lab::new();
    let root = Root::new(&lab, "cwd");
    root.link("here", "/bin/../way").link("way", "proc/self/fd/9");
    let dir = root.dir.to_string_lossy().into_owned();
    let run = |dir_inside: &str| {
        let all = ["run", "--rm", "--boot", "direct", "-w", dir_inside, &dir, "sh", "-c", "pwd -P"];
        lab.start(lab.command("containervm", &all)).finish()
    };
    run("/here/x").code(125).complains(&["chdir to cwd", "/here/x"]);
    run("/proc/self/root/bin").code(0).prints("/bin\n");
}

#[test]
fn what_cannot_be_executed_ends_with_dockers_words_and_numbers() {
    let lab = Lab::new();
    let root = Root::new(&lab, "formats");
    let mut elf = fs::read(busybox(&lab)).unwrap();
    // e_machine of another architecture: 183 is EM_AARCH64 (elf(5)).
    elf[18..20].copy_from_slice(&183_u16.to_le_bytes());
    root.program("bin/foreign", &elf).program("bin/bare", b"echo no interpreter named\n");
    root.program("bin/lost", b"#!/no/such/interpreter\n");
    let format = "exec format error";
    root.run(["/bin/foreign"]).code(126).complains(&["/bin/foreign", format]);
    root.run(["bare"]).code(126).complains(&["/bin/bare", format]);
    root.run(["/bin/lost"]).code(127).complains(&["/bin/lost", "no such file"]);
}
