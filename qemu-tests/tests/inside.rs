//! Looking into a container while it runs, and copies in and out of it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use qemu_tests::{Finished, Lab, Program};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// A shell in a VM that does what it is told.
struct Shell {
    program: Program,
    n: u32,
}

impl Shell {
    fn start(lab: &Lab, name: &str) -> Self {
        Self::start_with(lab, name, &[])
    }

    fn start_with(lab: &Lab, name: &str, options: &[&str]) -> Self {
        let run = ["run", "--rm", "-i", "--name", name];
        let all = [&run[..], options, &["busybox", "sh"]].concat();
        let program = lab.start(lab.command("containervm", &all));
        let mut shell = Self { program, n: 0 };
        shell.does("true");
        shell
    }

    /// Runs a script and waits for its end, which must be a good one.
    #[track_caller]
    fn does(&mut self, script: &str) -> &mut Self {
        self.n += 1;
        let n = self.n;
        self.program.write(&format!("( {script}\n ) && echo good-{n} || echo bad-{n}\n"));
        self.program.expect(&format!("good-{n}\n"));
        self
    }

    #[track_caller]
    fn ends(mut self) {
        self.program.write("exit 0\n");
        self.program.finish().code(0);
    }
}

#[track_caller]
fn mux(lab: &Lab, arguments: &[&str]) -> Finished {
    lab.start(lab.command("serialmux", arguments)).finish()
}

/// What a program of the product writes, byte for byte.
#[track_caller]
fn bytes_of(lab: &Lab, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = lab.command("serialmux", arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may refuse its input and close it; its exit tells.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    output.stdout
}

#[test]
fn processes_are_listed_without_a_program_inside() {
    let lab = Lab::new();
    let script = "sleep 1111 & echo ready; exec sleep 2222";
    let run = lab.begin(["--name", "top", "-u", "7:7", "busybox", "sh", "-c", script]);
    run.expect("ready");
    let full = lab.serialmux(["top", "top"]).finish();
    full.code(0).shows("UID").shows("STIME").shows("CMD").shows("sleep 1111").shows("sleep 2222");
    assert_eq!(full.out().lines().count(), 3, "{}", full.out());
    let columns = lab.serialmux(["top", "top", "-o", "nspid,uid,comm,args"]).finish();
    let rows: Vec<Vec<&str>> =
        columns.out().leak().lines().map(|l| l.split_whitespace().collect()).collect();
    assert!(rows.contains(&vec!["1", "7", "sleep", "sleep", "2222"]), "{rows:?}");
    let json = lab.serialmux(["top", "--json", "top"]).finish();
    assert_eq!(json.code(0).out().lines().count(), 2);
    lab.serialmux(["top", "top", "--forest"]).finish().code(125).complains(&["--forest"]);
    lab.serialmux(["top", "nobody"]).finish().code(125).complains(&["no such container"]);
    lab.serialmux(["kill", "top"]).finish().code(0);
    run.finish().code(137);
}

#[test]
fn what_a_container_uses_is_measured() {
    let lab = Lab::new();
    let mut shell = Shell::start(&lab, "used");
    shell.does("dd if=/dev/zero of=/big bs=1024 count=3000 2>/dev/null; sync");
    let table = mux(&lab, &["stats", "--no-stream", "used"]);
    table.code(0).shows("CPU %").shows("MEM USAGE / LIMIT").shows("PIDS").shows("MiB / ");
    let json = mux(&lab, &["stats", "--no-stream", "--json", "used"]);
    let found: serde_json::Value = serde_json::from_str(json.code(0).out().trim()).unwrap();
    let number = |key: &str| found[key].as_u64().unwrap_or_else(|| panic!("{key} in {found}"));
    assert!(number("disk_written") >= 3_000_000, "{found}");
    assert!(number("memory") > 0 && number("memory") < number("memory_limit"), "{found}");
    assert_eq!((number("tasks"), number("processors")), (1, 1), "{found}");
    assert!(number("cpu_us") > 0, "{found}");
    // The machine's network is the container's: what is asked of QEMU's gateway is counted, and its answer.
    let (received, sent) = (number("network_received"), number("network_sent"));
    shell.does("ping -c 3 -s 1000 10.0.2.2");
    let json = mux(&lab, &["stats", "--no-stream", "--json", "used"]);
    let found: serde_json::Value = serde_json::from_str(json.code(0).out().trim()).unwrap();
    for (key, before) in [("network_received", received), ("network_sent", sent)] {
        assert!(found[key].as_u64().unwrap() >= before + 3000, "{key}: {found}");
    }
    // VIC 6.2, case 152: who is not there is told of, and the others are shown.
    let both = mux(&lab, &["stats", "--no-stream", "nobody", "used"]);
    both.code(125).shows("used").complains(&["no such container: nobody"]);
    shell.ends();
}

/// One of everything that an archive can hold.
const TREE: &str = "mkdir -p /t/deep/$(printf 'n%.0s' $(seq 200)); cd /t; \
    echo hello > file; ln file second; ln -s /etc/passwd absolute; mkfifo fifo; \
    mknod null c 1 3; echo x > suid; chown 7:8 suid; chmod 4755 suid; \
    touch -d '2020-01-02 03:04:05' file; \
    dd if=/dev/zero of=sparse bs=1 count=1 seek=1099511627776 2>/dev/null; \
    ( cd deep/n* && echo in > file ); touch -d '2020-01-02 03:04:05' deep";

#[test]
fn a_tree_comes_out_and_goes_in_as_it_is() {
    let lab = Lab::new();
    let mut shell = Shell::start(&lab, "tree");
    shell.does(TREE);
    let archive = bytes_of(&lab, &["cp", "tree:/t", "-"], b"");
    assert!(archive.len() < 100_000, "a TB of holes are not sent: {} bytes", archive.len());
    let file = lab.file("t.tar", &archive);
    let listed =
        Command::new("tar").arg("--numeric-owner").arg("-tvf").arg(&file).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for (name, head, part) in [
        ("t/fifo", "prw-r--r-- 0/0 ", ""),
        ("t/null", "crw-r--r-- 0/0 ", " 1,3 "),
        ("t/suid", "-rwsr-xr-x 7/8 ", ""),
        ("t/absolute -> /etc/passwd", "lrwxrwxrwx 0/0 ", ""),
        ("t/second link to t/file", "h", ""),
        ("t/sparse", "-rw-r--r-- 0/0 ", " 1099511627777 "),
    ] {
        let line = listed.lines().find(|line| line.ends_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} in {listed}"));
        assert!(line.starts_with(head) && line.contains(part), "{line}");
    }
    // In again, under another name: the archive as it is, and then through this machine's files.
    shell.does("mkdir /again /here");
    bytes_of(&lab, &["cp", "-", "tree:/again"], &archive);
    let compare = "cd /again/t && cmp file /t/file && [ $(stat -c %i file) = $(stat -c %i second) ] && \
        [ \"$(stat -c '%a %u %g %s' suid)\" = '4755 7 8 2' ] && [ -p fifo ] && [ -c null ] && \
        [ \"$(readlink absolute)\" = /etc/passwd ] && [ $(stat -c %s sparse) = 1099511627777 ] && \
        [ $(du -k sparse | cut -f1) -lt 100 ] && [ \"$(cat deep/n*/file)\" = in ] && \
        [ $(stat -c %Y file) = $(stat -c %Y /t/file) ] && [ $(stat -c %Y deep) = $(stat -c %Y /t/deep) ]";
    shell.does(compare);

    let out = lab.path("out");
    shell.does("rm /t/null /t/fifo /t/sparse");
    mux(&lab, &["cp", "-a", "tree:/t", &out.to_string_lossy()]).code(0);
    assert_eq!(fs::read(out.join("file")).unwrap(), b"hello\n");
    let suid = out.join("suid").metadata().unwrap();
    assert_eq!((suid.uid(), suid.gid(), suid.permissions().mode() & 0o7777), (7, 8, 0o4755));
    let from = format!("{}/.", out.display());
    mux(&lab, &["cp", "-a", &from, "tree:/here"]).code(0);
    shell.does("cd /here && cmp file /t/file && [ \"$(stat -c '%a %u %g' suid)\" = '4755 7 8' ]");
    // Without -a, all is root's.
    mux(&lab, &["cp", &out.join("suid").to_string_lossy(), "tree:/root-suid"]).code(0);
    shell.does("[ \"$(stat -c '%u %g' /root-suid)\" = '0 0' ]");
    shell.ends();
}

#[test]
fn extended_attributes_go_in_and_come_out() {
    let lab = Lab::new();
    let shell = Shell::start(&lab, "marked");
    // A capability of a file: version 2, effective, cap_net_raw (capabilities(7)).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let marks: [(&str, &[u8]); 2] =
        [("SCHILY.xattr.user.color", b"blue"), ("SCHILY.xattr.security.capability", &capability)];
    let mut builder = tar::Builder::new(Vec::new());
    let extensions = builder.append_pax_extensions(marks);
    extensions.unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    builder.append_data(&mut header, "ping", &b"ping\n"[..]).unwrap();
    bytes_of(&lab, &["cp", "-", "marked:/tmp"], &builder.into_inner().unwrap());
    let archive = bytes_of(&lab, &["cp", "marked:/tmp/ping", "-"], b"");
    let mut archive = tar::Archive::new(&archive[..]);
    let mut found = archive.entries().unwrap().next().unwrap().unwrap();
    let extensions = found.pax_extensions().unwrap().unwrap().map(Result::unwrap);
    let extensions: Vec<(String, Vec<u8>)> =
        extensions.map(|it| (it.key().unwrap().to_owned(), it.value_bytes().to_vec())).collect();
    for (key, value) in marks {
        assert!(extensions.contains(&(key.to_owned(), value.to_vec())), "{key}: {extensions:?}");
    }
    shell.ends();
}

/// VIC 6.2, case 138.
#[test]
fn vic_138_copies_go_where_docker_puts_them() {
    let lab = Lab::new();
    let mut shell = Shell::start(&lab, "places");
    let file = lab.file("foo.txt", "from here\n");
    let file = &*file.to_string_lossy();
    let dir = lab.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("inner"), "inner\n").unwrap();
    let dir = &*dir.to_string_lossy();
    shell.does("mkdir /d; echo old > /d/old; ln -s /d /link");
    for (source, target) in [
        (file, "places:/d"),
        (file, "places:/d/new"),
        (file, "places:/d/old"),
        (file, "places:/link/through"),
        (dir, "places:/d"),
        (dir, "places:/made"),
        (dir, "places:/made"),
    ] {
        mux(&lab, &["cp", source, target]).code(0);
    }
    shell.does("for f in foo.txt new old through; do grep -q 'from here' /d/$f || exit 1; done");
    shell.does(
        "grep -q inner /d/dir/inner && grep -q inner /made/inner && grep -q inner /made/dir/inner",
    );
    mux(&lab, &["cp", file, "places:/nowhere/"]).code(125).complains(&["no such directory"]);
    mux(&lab, &["cp", file, "places:/nowhere/x"])
        .code(125)
        .complains(&["no such file or directory"]);
    mux(&lab, &["cp", dir, "places:/d/old"]).code(125).complains(&["cannot copy directory"]);
    mux(&lab, &["cp", "places:/nothing", "."])
        .code(125)
        .complains(&["no such file or directory: /nothing"]);
    mux(&lab, &["cp", "nobody:/x", "."]).code(125).complains(&["no such container"]);
    // Over the files that the agent mounts, too (case 129 copies a hosts file).
    let hosts = lab.file("hosts", "10.1.2.3 alias\n");
    mux(&lab, &["cp", &hosts.to_string_lossy(), "places:/etc/hosts"]).code(0);
    shell.does("grep -q alias /etc/hosts");
    // Out: a link is copied as one, or with -L what it leads to.
    let out = lab.path("out");
    fs::create_dir(&out).unwrap();
    let target = &*out.to_string_lossy();
    shell.does("ln -s /d/new /to-new");
    mux(&lab, &["cp", "places:/to-new", target]).code(0);
    assert_eq!(fs::read_link(out.join("to-new")).unwrap(), Path::new("/d/new"));
    fs::remove_file(out.join("to-new")).unwrap();
    mux(&lab, &["cp", "-L", "places:/to-new", target]).code(0);
    assert_eq!(fs::read(out.join("to-new")).unwrap(), b"from here\n");
    mux(&lab, &["cp", "places:/d/.", target]).code(0);
    assert!(out.join("foo.txt").is_file() && out.join("dir/inner").is_file());
    shell.ends();
}

#[test]
fn what_is_copied_before_the_start_is_there_then_and_after_a_restart() {
    let lab = Lab::new();
    let script = "cat /new; exit 3";
    let run = ["run", "-d", "--wait-for-attach", "--boot", "direct", "--name", "waits"];
    let all = [&run[..], &["busybox", "sh", "-c", script]].concat();
    lab.start(lab.command("containervm", &all)).finish().code(0);
    lab.console("waits").expect("waits until somebody is attached");
    let new = lab.file("new", "from outside\n");
    mux(&lab, &["cp", &new.to_string_lossy(), "waits:/new"]).code(0);
    mux(&lab, &["cp", "waits:/new", &lab.path("out").to_string_lossy()]).code(0);
    assert_eq!(fs::read(lab.path("out")).unwrap(), b"from outside\n");
    mux(&lab, &["attach", "waits"]).code(3).prints("from outside\n");
    let again = lab.containervm(["start", "--attach", "waits"]).finish();
    again.code(3).prints("from outside\n");
}

/// VIC 6.2, case 139.
#[test]
fn vic_139_ten_copies_in_and_out_at_once() {
    let lab = Lab::new();
    let options = ["-v", "kept:/kept", "--pipe", "virtio"];
    let mut shell = Shell::start_with(&lab, "many", &options);
    lab.console("many").expect("the link goes over virtio now");
    let pattern: Vec<u8> =
        (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let file = lab.file("large", &pattern);
    let file = file.to_string_lossy().into_owned();
    let start = |source: String, target: String| {
        lab.start(lab.command("serialmux", &["cp".to_owned(), source, target]))
    };
    let small = lab.file("small", &pattern[..50_000]);
    let small = small.to_string_lossy().into_owned();
    let mut copies: Vec<_> =
        (0..10).map(|n| start(small.clone(), format!("many:/kept/small-{n}"))).collect();
    copies.extend((0..10).map(|n| start(file.clone(), format!("many:/kept/large-{n}"))));
    copies.into_iter().for_each(|copy| drop(copy.finish().code(0).out()));
    shell.does("cd /kept; for n in $(seq 9); do cmp small-0 small-$n && cmp large-0 large-$n || exit 1; done");
    shell.does(
        "cd /kept; [ $(stat -c %s large-0) = 1048576 ] && head -c 50000 large-0 | cmp - small-0",
    );
    let out = |n: u32| lab.path(&format!("out-{n}")).to_string_lossy().into_owned();
    let copies: Vec<_> = (0..10).map(|n| start(format!("many:/kept/large-{n}"), out(n))).collect();
    copies.into_iter().for_each(|copy| drop(copy.finish().code(0).out()));
    for n in 0..10 {
        assert!(fs::read(out(n)).unwrap() == pattern, "copy {n}");
    }
    shell.ends();
}

/// VIC 6.2, case 141.
#[test]
fn vic_141_no_archive_reaches_outside() {
    let lab = Lab::new();
    let mut shell = Shell::start(&lab, "victim");
    let evil = |script: &str| {
        let dir = lab.path("evil");
        fs::create_dir_all(dir.join("in")).unwrap();
        let done =
            Command::new("sh").args(["-c", script]).current_dir(dir.join("in")).output().unwrap();
        assert!(done.status.success(), "{script}: {done:?}");
        fs::read(dir.join("evil.tar")).unwrap()
    };
    let climbing = evil("echo x > ../climbing && tar -P -cf ../evil.tar ../climbing");
    let archive = lab.file("climbing.tar", &climbing);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("\"$0\" cp - victim:/tmp < {}", archive.display()));
    let cp = lab.command("serialmux", &["cp"]);
    command.arg(cp.get_program());
    for (key, value) in cp.get_envs() {
        if let Some(value) = value {
            command.env(key, value);
        }
    }
    let refused = command.output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("leads out of the directory"), "{said}");
    // The agent's own files lie under the container's root; no link leads there.
    let linked = evil(
        "ln -sfn ../../../../../../../../.. up && rm -f ../x.tar && tar -cf ../evil.tar up && \
         rm up && mkdir -p up/run && echo x > up/run/owned && tar -rf ../evil.tar up/run/owned",
    );
    bytes_of(&lab, &["cp", "-", "victim:/tmp"], &linked);
    shell.does("[ -f /run/owned ]");
    // Nor does a copy out follow a link: neither one that stands there, nor those in the way.
    shell.does("ln -s /proc/1/root/etc /tmp/magic; ln -s / /tmp/slash");
    let escaped = mux(&lab, &["cp", "-L", "victim:/tmp/magic/hostname", "."]);
    escaped.code(125).complains(&["/tmp/magic/hostname"]);
    let out = lab.path("init");
    // `/init` is the agent in its own root, and nothing in the container's.
    mux(&lab, &["cp", "victim:/tmp/slash/init", &out.to_string_lossy()]).code(125);
    shell.ends();
}

#[test]
fn a_client_that_goes_away_ends_its_copy() {
    let lab = Lab::new();
    let mut shell = Shell::start(&lab, "gone");
    shell.does("dd if=/dev/urandom of=/large bs=65536 count=512 2>/dev/null");
    let mut command = lab.command("serialmux", &["cp", "gone:/large", "-"]);
    // Nobody reads that pipe.
    let mut copy = command.stdout(Stdio::piped()).spawn().unwrap();
    let under_way = |n: u32| {
        let text = format!("\"copies and looks under way\": \"{n}\"");
        while !mux(&lab, &["debug", "--json", "gone"]).code(0).out().contains(&text) {}
    };
    under_way(1);
    copy.kill().unwrap();
    copy.wait().unwrap();
    under_way(0);
    shell.ends();
}

/// VIC 6.2, case 137.
#[test]
fn vic_137_a_disk_is_compared_with_its_image() {
    let lab = Lab::new();
    let mut shell = Shell::start(&lab, "diff");
    mux(&lab, &["diff", "diff"]).code(0).prints("");
    shell.does(
        "touch /a /b /c; mkdir -p /home/krusty; echo 'krusty:x:9:9::/home/krusty:' >> /etc/passwd; \
         rm -rf /bin/true; chmod 700 /bin/sh; mkdir /tmp/new; echo hidden > /dev/shm/x",
    );
    let diff = mux(&lab, &["diff", "diff"]);
    let diff = diff.code(0).out();
    for line in [
        "A /a",
        "A /b",
        "A /c",
        "A /home/krusty",
        "C /etc/passwd",
        "D /bin/true",
        "C /bin",
        "A /tmp/new",
    ] {
        assert!(diff.lines().any(|found| found == line), "{line} in {diff}");
    }
    for noise in
        ["hosts", "hostname", "resolv.conf", "/dev", "/proc", "/sys", "lost+found", ".tether"]
    {
        assert!(!diff.contains(noise), "{noise} in {diff}");
    }
    shell.ends();
}

#[test]
fn a_frozen_disk_takes_no_writes_until_it_is_thawed() {
    let lab = Lab::new();
    let mut shell = Shell::start(&lab, "ice");
    lab.serialmux(["thaw", "ice"]).finish().code(125).complains(&["not frozen"]);
    mux(&lab, &["freeze", "--timeout", "3000", "ice"]).code(0);
    mux(&lab, &["freeze", "ice"]).code(125).complains(&["frozen already"]);
    shell.program.write("echo written > /file; echo done-writing\n");
    // What needs no write goes on, and so does the agent.
    mux(&lab, &["top", "ice"]).code(0).shows("sh");
    mux(&lab, &["stats", "--no-stream", "ice"]).code(0);
    let seen = shell.program.so_far();
    assert!(!seen.contains("done-writing"), "{seen}");
    mux(&lab, &["debug", "--json", "ice"]).code(0).shows("\"disk frozen\": \"yes\"");
    mux(&lab, &["thaw", "ice"]).code(0);
    shell.program.expect("done-writing");
    // By itself, when nobody thaws it.
    let events = lab.serialmux(["events", "--since", "1h", "ice"]);
    mux(&lab, &["freeze", "--timeout", "1", "ice"]).code(0);
    shell.does("echo later > /file2");
    events.expect("container thaw").expect("cause=deadline");
    // And the machine ends in order although it is frozen.
    mux(&lab, &["freeze", "--timeout", "3000", "ice"]).code(0);
    shell.ends();
}

#[test]
fn memory_that_runs_out_is_an_event() {
    let lab = Lab::new();
    let daemon = lab.daemon("0");
    let events = lab.serialmux(["events", "--since", "1h"]);
    let run = lab.begin(["--name", "hog", "-m", "192m", "busybox", "tail", "/dev/zero"]);
    run.finish().code(137);
    events.expect("container create").expect("container start").expect("container oom");
    events.expect("container die").expect("exitCode=137");
    let since = mux(&lab, &["events", "--json", "--since", "1h", "--until", "0s"]);
    let since = since.code(0).out();
    // The kernel counts the want and the kill one after the other, and each may be seen by itself.
    let ooms = since.lines().filter(|line| line.contains("\"action\":\"oom\""));
    let kills = ooms.map(|line| {
        let oom: serde_json::Value = serde_json::from_str(line).unwrap();
        oom["attributes"]["kills"].as_str().unwrap().parse::<u64>().unwrap()
    });
    assert_eq!(kills.sum::<u64>(), 1, "{since}");
    drop(daemon);
}

/// With VIC 6.2, case 64.
#[test]
fn what_happens_is_told_in_dockers_words_vic_64() {
    let lab = Lab::new();
    let _daemon = lab.daemon("0");
    let script = "trap 'exit 4' TERM; trap : USR1; echo up; while :; do sleep 0.1; done";
    let run = ["run", "-d", "--boot", "direct", "--name", "box", "busybox", "sh", "-c", script];
    lab.containervm(run).finish().code(0);
    let up = lab.serialmux(["logs", "-f", "box"]);
    up.expect("up\n");
    mux(&lab, &["exec", "box", "echo", "a"]).code(0);
    mux(&lab, &["exec", "box", "sh", "-c", "exit 3"]).code(3);
    mux(&lab, &["exec", "box", "nosuch"]).code(127);
    mux(&lab, &["pause", "box"]).code(0);
    mux(&lab, &["unpause", "box"]).code(0);
    mux(&lab, &["kill", "-s", "USR1", "box"]).code(0);
    let restarted = lab.containervm(["restart", "-t", "5", "box"]).finish();
    assert_eq!(restarted.code(0).out().trim().len(), 64, "its id");
    let again = lab.serialmux(["logs", "-f", "box"]);
    again.expect("up\n").expect("up\n");
    mux(&lab, &["ps"]).code(0).shows("running");
    let left = lab.serialmux(["exec", "box", "sleep", "1000"]);
    while lab.events().last().unwrap() != "exec_start" {}
    lab.containervm(["stop", "box"]).finish().code(0);
    left.end().code(137);
    let lists = [
        "create,start,exec_create,exec_start,exec_die 0,exec_create,exec_start,exec_die 3",
        "exec_create,exec_die 127,pause,unpause,kill 10,kill 15,die 4,stop,start,restart",
        "exec_create,exec_start",
    ];
    let expected: Vec<&str> = lists.iter().flat_map(|list| list.split(',')).collect();
    let mut found = lab.events();
    // Which of the three ends is told first is up to the kernel, which ends the processes.
    let mut ends = found.split_off(expected.len());
    assert_eq!(ends[0], "kill 15", "{ends:?}");
    ends.sort();
    assert_eq!(found, expected);
    assert_eq!(ends, ["die 4", "exec_die 137", "kill 15", "stop"]);
}

#[test]
fn an_agent_tells_how_it_is_while_its_container_is_wedged() {
    let lab = Lab::new();
    let bomb = "bomb() { bomb | bomb & }; echo ready; dd if=/dev/zero of=/full bs=1048576 2>/dev/null; bomb; sleep 3000";
    let run = lab.begin(["--name", "bomb", "--disk-size", "128m", "busybox", "sh", "-c", bomb]);
    run.expect("ready");
    for _ in 0..3 {
        let debug = mux(&lab, &["debug", "bomb"]);
        debug
            .code(0)
            .shows("sessions")
            .shows("running, process")
            .shows("round trip")
            .shows("MemAvailable");
        debug.shows("pids.current").shows("tether").shows("offset from here");
        // Queues, and the last lines of the agent's log.
        debug.shows("message bytes waiting").shows("runs as process");
    }
    mux(&lab, &["stats", "--no-stream", "bomb"]).code(0);
    lab.serialmux(["kill", "bomb"]).finish().code(0);
    run.finish().code(137);
}
