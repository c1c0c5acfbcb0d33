//! Images of every kind, made here, and what is then on their disks.

use std::{collections::BTreeMap, io::Write as _, process::Command};

use super::*;

mod hostile;

const DISK: u64 = 1 << 30;

/// A home and a place for sources, gone at the end.
struct Bench {
    dir: tempfile::TempDir,
    home: Home,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home"));
        Self { dir, home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    fn resolve(&self, reference: &str) -> Result<Image, ImageError> {
        resolve(reference, DISK, &self.home, &mut |_| ())
    }

    #[track_caller]
    fn fault(&self, reference: &str) -> String {
        let text = self.resolve(reference).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 1, "{text}");
        let left: Vec<_> =
            fs::read_dir(self.home.images()).into_iter().flatten().flatten().collect();
        let left: Vec<_> = left
            .iter()
            .map(|entry| entry.file_name())
            .filter(|name| !name.to_string_lossy().ends_with(".lock"))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        text
    }
}

fn debugfs(image: &Image, request: &str) -> String {
    let output =
        Command::new("/usr/sbin/debugfs").args(["-R", request]).arg(&image.disk).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn check(image: &Image) {
    let output = Command::new("/usr/sbin/e2fsck").arg("-fn").arg(&image.disk).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A tar of `(name, contents)`; names ending in `/` are directories, contents beginning with `->` links.
fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, contents) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        header.set_size(0);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            builder.append_data(&mut header, name, &b""[..]).unwrap();
        } else if let Some(target) = contents.strip_prefix(b"->") {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, name, str::from_utf8(target).unwrap()).unwrap();
        } else {
            header.set_size(contents.len() as u64);
            builder.append_data(&mut header, name, *contents).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Files of an OCI layout by path.
fn layout(layers: &[Vec<u8>]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut add = |bytes: &[u8]| {
        let digest = sha256(bytes);
        files.insert(format!("blobs/sha256/{digest}"), bytes.to_vec());
        format!("sha256:{digest}")
    };
    let config =
        br#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/hello"],"Cmd":["x"],
        "Env":["A=b"],"WorkingDir":"/srv","User":"1:2","StopSignal":"SIGINT"}}"#;
    let config = add(config);
    let layers: Vec<_> =
        layers.iter().map(|layer| serde_json::json!({"digest": add(layer)})).collect();
    let manifest = serde_json::json!({"config": {"digest": config}, "layers": layers});
    let manifest = add(manifest.to_string().as_bytes());
    let index = serde_json::json!({"manifests": [
        {"digest": format!("sha256:{}", "0".repeat(64)), "platform": {"os": "linux", "architecture": "arm64"}},
        {"digest": manifest, "platform": {"os": "linux", "architecture": "amd64"}},
    ]});
    files.insert("index.json".into(), index.to_string().into_bytes());
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files
}

fn two_layers() -> Vec<Vec<u8>> {
    let below: &[(&str, &[u8])] = &[
        ("a/", b""),
        ("a/kept", b"1"),
        ("a/gone", b"2"),
        ("o/", b""),
        ("o/old", b"3"),
        ("lib", b"->usr/lib"),
    ];
    let above: &[(&str, &[u8])] = &[
        ("a/.wh.gone", b""),
        ("o/new", b"4"),
        ("o/.wh..wh..opq", b""),
        ("./lib/x.so", b"5"),
        ("a/kept", b"22"),
    ];
    vec![gzip(&tar_of(below)), zstd(&tar_of(above))]
}

#[test]
fn an_oci_layout_is_merged_and_its_configuration_honored() {
    let bench = Bench::new();
    for (name, bytes) in layout(&two_layers()) {
        bench.write(&format!("oci/{name}"), &bytes);
    }
    let image = bench.resolve(bench.path("oci").to_str().unwrap()).unwrap();
    check(&image);
    assert!(debugfs(&image, "cat a/kept").contains("22"));
    for gone in ["a/gone", "o/old", "a/.wh.gone", "o/.wh..wh..opq"] {
        assert!(debugfs(&image, &format!("stat {gone}")).contains("File not found"), "{gone}");
    }
    assert!(debugfs(&image, "stat usr/lib/x.so").contains("Size: 1"));
    assert!(debugfs(&image, "stat o/new").contains("Size: 1"));
    let expected = ImageConfig {
        entrypoint: vec!["/hello".into()],
        cmd: vec!["x".into()],
        env: vec!["A=b".into()],
        working_dir: "/srv".into(),
        user: "1:2".into(),
        stop_signal: "SIGINT".into(),
    };
    assert_eq!(image.config, expected);
}

#[test]
fn an_oci_layout_in_a_tar_is_the_same_image() {
    let bench = Bench::new();
    let files = layout(&two_layers());
    let entries: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let image = bench.resolve(&bench.write("oci.tar.gz", &gzip(&tar_of(&entries)))).unwrap();
    check(&image);
    assert!(debugfs(&image, "cat a/kept").contains("22"));
    assert_eq!(image.config.user, "1:2");
}

fn saved(layer: &[u8], diff_id: &str) -> Vec<u8> {
    let config = format!(
        r#"{{"config":{{"Cmd":["/bin/x"]}},"rootfs":{{"diff_ids":["sha256:{diff_id}","sha256:{diff_id}"]}}}}"#
    );
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    tar_of(&[
        ("manifest.json", manifest),
        ("c.json", config.as_bytes()),
        ("one/layer.tar", layer),
        ("two/layer.tar", b"->../one/layer.tar"),
    ])
}

#[test]
fn docker_save_is_read_with_its_linked_layers_and_checked() {
    let bench = Bench::new();
    let layer = tar_of(&[("bin/x", b"#!")]);
    let image = bench.resolve(&bench.write("saved.tar", &saved(&layer, &sha256(&layer)))).unwrap();
    check(&image);
    assert_eq!(image.config.cmd, ["/bin/x"]);
    assert!(debugfs(&image, "stat bin/x").contains("Size: 2"));
}

#[test]
fn damaged_digests_name_the_file_and_both_digests() {
    let bench = Bench::new();
    let layer = tar_of(&[("bin/x", b"#!")]);
    let text = bench.fault(&bench.write("saved.tar", &saved(&layer, &"0".repeat(64))));
    assert!(text.contains("one/layer.tar is damaged: its digest is sha256:"), "{text}");
    let mut files = layout(&two_layers());
    files.values_mut().find(|bytes| bytes.starts_with(&[0x1f, 0x8b])).unwrap()[20] ^= 1;
    for (name, bytes) in files {
        bench.write(&format!("oci/{name}"), &bytes);
    }
    let text = bench.fault(bench.path("oci").to_str().unwrap());
    assert!(text.contains("is damaged: its digest is"), "{text}");
}

#[test]
fn docker_export_keeps_owners_devices_links_long_names_and_attributes() {
    let bench = Bench::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o4711);
    header.set_uid(1234);
    header.set_gid(0o7_777_777);
    header.set_mtime(1_600_000_000);
    let capability = b"\x01\x00\x00\x02\n=\x00\x00\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.security.capability", &capability[..]),
            ("mtime", b"1600000000.25"),
        ])
        .unwrap();
    builder.append_data(&mut header, "bin/ping", &b"ping"[..]).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Link);
    link.set_size(0);
    builder.append_link(&mut link, "bin/pong", "bin/ping").unwrap();
    let mut device = tar::Header::new_gnu();
    device.set_entry_type(tar::EntryType::Char);
    device.set_device_major(1).unwrap();
    device.set_device_minor(5).unwrap();
    device.set_size(0);
    builder.append_data(&mut device, "dev/zero", &b""[..]).unwrap();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o600);
    builder.append_data(&mut header, &long, &b"L"[..]).unwrap();
    let image = bench.resolve(&bench.write("export.tar", &builder.into_inner().unwrap())).unwrap();
    check(&image);
    let ping = debugfs(&image, "stat bin/ping");
    for part in [
        "Mode:  04711",
        "User:  1234",
        "Group: 2097151",
        "Links: 2",
        "security.capability (20)",
        ":3b9aca00",
    ] {
        assert!(ping.contains(part), "{part:?} is missing in\n{ping}");
    }
    assert!(debugfs(&image, "stat dev/zero").contains("01:05"));
    assert!(debugfs(&image, &format!("stat {long}")).contains("Size: 1"));
}

#[test]
fn gnu_tar_and_this_reader_agree_on_sparse_files_in_every_format() {
    let bench = Bench::new();
    let root = bench.path("root");
    fs::create_dir(&root).unwrap();
    let file = File::create(root.join("sparse")).unwrap();
    file.set_len(50 << 20).unwrap();
    for piece in 0..40u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"piece of data", piece * (1 << 20) + 4096)
            .unwrap();
    }
    fs::write(root.join("after"), b"next entry").unwrap();
    for format in ["gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let tar = bench.path(&format!("{format}.tar"));
        let options: &[&str] =
            if format == "gnu" { &["--format=gnu"] } else { &["--format=pax", format] };
        let made = Command::new("tar")
            .args(options)
            .arg("-cSf")
            .arg(&tar)
            .arg("-C")
            .arg(&root)
            .arg(".")
            .status();
        assert!(made.unwrap().success());
        assert!(fs::metadata(&tar).unwrap().len() < 1 << 20, "tar did not store {format} sparsely");
        let image = bench.resolve(tar.to_str().unwrap()).unwrap();
        check(&image);
        let out = bench.path("out");
        debugfs(&image, &format!("dump sparse {}", out.display()));
        assert!(
            fs::read(&out).unwrap() == fs::read(root.join("sparse")).unwrap(),
            "{format} differs"
        );
        assert!(debugfs(&image, "cat after").contains("next entry"), "{format}");
    }
}

#[test]
fn a_directory_is_an_image_that_changes_with_it() {
    let bench = Bench::new();
    let root = bench.write("root/etc/motd", b"hello").replace("/etc/motd", "");
    fs::hard_link(bench.path("root/etc/motd"), bench.path("root/etc/same")).unwrap();
    std::os::unix::fs::symlink("/no/where", bench.path("root/dangling")).unwrap();
    let first = bench.resolve(&root).unwrap();
    check(&first);
    assert!(debugfs(&first, "stat etc/same").contains("Links: 2"));
    assert!(debugfs(&first, "stat etc/same").contains("User:     0"));
    let mut told = Vec::new();
    let again = resolve(&root, DISK, &bench.home, &mut |line| told.push(line.to_owned())).unwrap();
    assert_eq!((again.key.as_str(), told.len()), (first.key.as_str(), 0));
    fs::write(bench.path("root/etc/motd"), b"hullo").unwrap();
    let second = bench.resolve(&root).unwrap();
    assert_ne!(second.key, first.key);
    assert!(debugfs(&second, "cat etc/motd").contains("hullo"));
}

#[test]
fn wrong_input_is_one_line_that_says_what_is_wrong_and_leaves_nothing() {
    let bench = Bench::new();
    let whole = tar_of(&[("etc/passwd", &[b'x'; 5000]), ("etc/group", b"g")]);
    let check = |name: &str, bytes: &[u8], expected: &[&str]| {
        let text = bench.fault(&bench.write(name, bytes));
        for part in expected {
            assert!(text.contains(part), "{name}: {part:?} is not in {text:?}");
        }
    };
    check("text", b"hello", &["is not an image"]);
    check("empty", b"", &["is not an image"]);
    check("cut.tar", &whole[..3000], &["cut.tar: \"etc/passwd\", at byte 0", "ends in the middle"]);
    let mut flipped = whole.clone();
    flipped[5632 + 3] ^= 1;
    check("flip.tar", &flipped, &["flip.tar: at byte 5632", "wrong checksum"]);
    check(
        "climbs.tar",
        &climbing(),
        &["\"../../etc/cron.d/x\", at byte 0", "climbs above the root"],
    );
    let mut gz = gzip(&whole);
    let middle = gz.len() / 2;
    gz[middle] ^= 0x55;
    check("bad.tar.gz", &gz, &["bad.tar.gz is damaged"]);
    check("x.tar.xz", b"\xfd7zXZ\0....", &["compressed with xz"]);
    assert!(bench.fault("alpine:3.20").contains("docker save -o FILE.tar alpine:3.20"));
}

fn climbing() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.as_old_mut().name[..18].copy_from_slice(b"../../etc/cron.d/x");
    header.set_cksum();
    [&header.as_bytes()[..], &[0; 1024]].concat()
}

#[test]
fn images_for_other_machines_and_several_in_one_are_refused() {
    let bench = Bench::new();
    let config = br#"{"architecture":"arm64","os":"linux","rootfs":{}}"#;
    let arm =
        tar_of(&[("manifest.json", br#"[{"Config":"c.json","Layers":[]}]"#), ("c.json", config)]);
    assert!(
        bench
            .fault(&bench.write("arm.tar", &arm))
            .contains("is for linux/arm64; a containerVM runs linux/amd64")
    );
    let two = br#"[{"Config":"c","RepoTags":["a:1"],"Layers":[]},{"Config":"c","RepoTags":["b:1"],"Layers":[]}]"#;
    let two = tar_of(&[("manifest.json", two)]);
    assert!(bench.fault(&bench.write("two.tar", &two)).contains("holds 2 images (a:1, b:1)"));
    let digest = br#"{"manifests":[{"digest":"sha256:../../../../etc/passwd"}]}"#;
    let odd = tar_of(&[("oci-layout", b"{}"), ("index.json", digest)]);
    assert!(bench.fault(&bench.write("odd.tar", &odd)).contains("64 hexadecimal digits"));
}

#[test]
fn of_many_that_ask_at_once_one_makes_the_image() {
    let bench = Bench::new();
    let tar = bench.write("x.tar", &tar_of(&[("a", b"1")]));
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut tell = |line: &str| {
                    assert!(line.starts_with("making a disk image"), "{line}");
                    made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                };
                resolve(&tar, DISK, &bench.home, &mut tell).unwrap();
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
}

#[test]
fn what_an_interrupted_run_left_is_overwritten_or_swept() {
    let bench = Bench::new();
    let tar = bench.write("x.tar", &tar_of(&[("a", b"1")]));
    let key = bench.resolve(&tar).unwrap().key;
    let file = |extension: &str| bench.home.images().join(format!("{key}.{extension}"));
    fs::remove_file(file("json")).unwrap();
    fs::write(file("partial"), b"half").unwrap();
    let image = bench.resolve(&tar).unwrap();
    check(&image);
    assert!(!file("partial").exists());

    fs::write(file("partial"), b"half").unwrap();
    assert!(sweep(&bench.home, &|_| false).unwrap().is_empty(), "it is in use");
    assert!(file("img").exists());
    drop(image);
    assert!(sweep(&bench.home, &|used| used == key).unwrap().is_empty());
    assert!(file("img").exists() && !file("partial").exists());
    assert_eq!(sweep(&bench.home, &|_| false).unwrap(), [tar]);
    assert!(!file("img").exists());
}

#[test]
fn a_full_disk_is_one_line_and_leaves_nothing() {
    let bench = Bench::new();
    fs::create_dir_all(bench.home.cache()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "none"])
        .arg(bench.home.cache())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    }
    let noise: Vec<u8> =
        (0..8u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let tar = tar_of(&[("big", &noise)]);
    let texts = [bench.write("x.tar", &tar), bench.write("x.tar.gz", &gzip(&tar))].map(|tar| {
        let error = bench.resolve(&tar).map(|_| ()).unwrap_err();
        let left = fs::read_dir(bench.home.images())
            .unwrap()
            .flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().ends_with("lock"))
            .count();
        (error.to_string(), left)
    });
    assert!(
        Command::new("umount").arg("--lazy").arg(bench.home.cache()).status().unwrap().success()
    );
    for (text, left) in texts {
        assert!(text.starts_with("no space left in ") && text.lines().count() == 1, "{text}");
        assert_eq!(left, 0);
    }
}

#[test]
fn busybox_has_a_shell_and_comes_without_network_the_second_time() {
    let bench = Bench::new();
    let image = match bench.resolve("busybox") {
        Ok(image) => image,
        Err(ImageError::Debian(error)) => {
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    check(&image);
    assert_eq!(image.config.cmd, ["sh"]);
    assert!(debugfs(&image, "stat bin/sh").contains("Fast link dest: \"/bin/busybox\""));
    assert!(debugfs(&image, "stat bin/busybox").contains("Mode:  0755"));
    assert!(debugfs(&image, "stat tmp").contains("Mode:  01777"));
    assert!(debugfs(&image, "cat etc/passwd").contains("root:x:0:0"));
}

/// A tar with something of every kind that the reader knows.
fn rich() -> Vec<u8> {
    let bench = Bench::new();
    let root = bench.path("root");
    fs::create_dir(&root).unwrap();
    File::create(root.join("sparse")).unwrap().set_len(1 << 20).unwrap();
    fs::write(root.join(format!("long{}", "g".repeat(150))), b"text").unwrap();
    fs::hard_link(root.join("sparse"), root.join("hard")).unwrap();
    std::os::unix::fs::symlink("t".repeat(120), root.join("link")).unwrap();
    let mut all = Vec::new();
    for options in ["--format=gnu", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let mut tar = Command::new("tar");
        tar.args(["-cSf", "-"]).arg(options);
        if options.starts_with("--sparse") {
            tar.args(["--format=pax", "--xattrs"]);
        }
        let output = tar.arg("-C").arg(&root).arg(".").output().unwrap();
        let end = output.stdout.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        all.extend_from_slice(&output.stdout[..end.next_multiple_of(512)]);
    }
    all
}

fn apply(bytes: &[u8]) -> Result<(), ArchiveError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let blob = Blob {
        file: std::sync::Arc::new(file),
        offset: 0,
        length: bytes.len() as u64,
        name: "x".into(),
    };
    layer::apply(&blob, &mut Tree::new())
}

#[test]
fn no_damage_makes_the_reader_panic() {
    let whole = rich();
    apply(&whole).unwrap();
    for length in (0..whole.len()).step_by(97) {
        drop(apply(&whole[..length]));
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        let header = random(bytes.len() / 512) * 512;
        for _ in 0..=random(4) {
            bytes[header + random(512)] = [0xff, 0x80, 0, b'9', b'7', b' '][random(6)];
        }
        // With the sum put right, the damage gets past the first check.
        bytes[header + 148..header + 156].fill(b' ');
        let sum: u32 = bytes[header..header + 512].iter().map(|byte| u32::from(*byte)).sum();
        bytes[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        drop(apply(&bytes));
    }
}

#[test]
fn owners_never_wrap_around_to_root() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_uid(1 << 32);
    header.set_size(0);
    builder.append_data(&mut header, "x", &b""[..]).unwrap();
    let text = apply(&builder.into_inner().unwrap()).unwrap_err().to_string();
    assert_eq!(
        text,
        "x: \"x\", at byte 0: its owner is not a number that is possible there; the archive is damaged"
    );
}
