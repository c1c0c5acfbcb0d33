//! Whole images from the distribution's real packages: the same bytes twice, exactly the files listed.
//!
//! The packages come from cargo's target directory, where `cargo bootstrap-iso` puts them too; the
//! first run on a machine downloads them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bootstrap_iso::{Build, CMDLINE, Compression, Kernel, Loaders};
use iso9660::Image;

/// A build with `agent` as its `/init`.
fn build(dir: &Path, agent: &[u8]) -> Build {
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("packages");
    let mut tell = |line: &str| eprintln!("{line}");
    let help = "these tests need the distribution's kernel and loaders (once, over the network)";
    let kernel = Kernel::of_distribution(&packages, &mut tell).expect(help);
    let loaders = Loaders::of_distribution(&packages, &mut tell).expect(help);
    let path = dir.join("agent");
    fs::write(&path, agent).expect("the agent is written");
    Build { agent: path, kernel, loaders, compression: Compression::None }
}

fn image_in(dir: &Path) -> PathBuf {
    dir.join("bootstrap.iso")
}

fn run(build: &Build, dir: &Path) -> bool {
    build.run(&image_in(dir), &mut |_| ()).expect("an image").made
}

#[test]
fn the_same_inputs_give_the_same_bytes_wherever_and_whenever_built() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    for dir in [&one, &two] {
        assert!(run(&build(dir.path(), b"#!/bin/agent"), dir.path()));
    }
    let [one, two] = [one, two].map(|dir| fs::read(image_in(dir.path())).expect("an image"));
    let first = one.iter().zip(&two).position(|(a, b)| a != b);
    assert_eq!((first, one.len()), (None, two.len()), "first difference, length");
}

#[test]
fn an_image_is_made_again_only_when_it_or_an_input_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(run(&build(dir.path(), b"one"), dir.path()));
    assert!(!run(&build(dir.path(), b"one"), dir.path()));
    assert!(run(&build(dir.path(), b"two"), dir.path()));
    fs::write(image_in(dir.path()), "cut short").expect("a damaged image");
    assert!(run(&build(dir.path(), b"two"), dir.path()));
}

#[test]
fn what_an_interrupted_build_left_does_not_disturb_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let left = dir.path().join(".bootstrap.iso.work/tree/boot");
    fs::create_dir_all(&left).expect("a directory");
    fs::write(left.join("stray"), "half").expect("a file");
    assert!(run(&build(dir.path(), b"agent"), dir.path()));
    assert!(!left.exists());
}

#[test]
fn the_image_holds_exactly_these_files() {
    let dir = tempfile::tempdir().expect("a directory");
    run(&build(dir.path(), b"agent"), dir.path());
    let file = File::open(image_in(dir.path())).expect("an image");
    let mut image = Image::open(file).expect("an ISO 9660 image");
    let paths: Vec<String> = image.walk().expect("files").into_iter().map(|it| it.0).collect();
    let expected = [
        "/.disk/info",
        "/boot/cmdline",
        "/boot/efi.img",
        "/boot/grub/grub.cfg",
        "/boot/initramfs.img",
        "/boot/vmlinuz",
        "/isolinux/boot.cat",
        "/isolinux/isolinux.bin",
        "/isolinux/isolinux.cfg",
        "/isolinux/ldlinux.c32",
    ];
    assert_eq!(paths, expected);
    let cmdline = image.read("/boot/cmdline", 4096).expect("a command line");
    assert_eq!(cmdline, format!("{CMDLINE}\n").into_bytes());
}

#[test]
fn the_initramfs_holds_the_agent_its_console_the_modules_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    run(&build(dir.path(), b"this is the agent"), dir.path());
    let file = File::open(image_in(dir.path())).expect("an image");
    let archive = Image::open(file).expect("an image").read("/boot/initramfs.img", 1 << 26);
    let archive = archive.expect("an initramfs");
    let entries = entries(&archive);
    let others: Vec<&str> = entries.iter().map(|it| it.0.as_str()).collect();
    let is_module = |path: &str| path.ends_with(".ko") || path.ends_with(".ko.zst");
    let others: Vec<&str> = others.into_iter().filter(|it| !is_module(it)).collect();
    let expected = [
        "dev",
        "dev/console",
        "init",
        "lib",
        "lib/modules",
        "lib/modules/modules.alias",
        "lib/modules/modules.dep",
    ];
    assert_eq!(others, expected);
    let content = |path: &str| {
        let entry = entries.iter().find(|it| it.0 == path).expect("an entry");
        String::from_utf8_lossy(entry.1).into_owned()
    };
    assert_eq!(content("init"), "this is the agent");
    let table = content("lib/modules/modules.dep");
    let members = |line: &str| -> Vec<String> {
        let (name, dependencies) = line.split_once(':').expect("name: dependencies");
        dependencies.split_whitespace().chain([name]).map(str::to_owned).collect()
    };
    // Those of volumes on servers, which few VMs load, are packed, and no others.
    let of_servers = table.lines().filter(|line| line.starts_with("nfsv"));
    let of_servers: Vec<String> = of_servers.flat_map(members).collect();
    assert!(of_servers.iter().any(|module| module == "sunrpc"), "{table}");
    for module in table.lines().flat_map(members) {
        let packed = if of_servers.contains(&module) { ".zst" } else { "" };
        let path = format!("lib/modules/{module}.ko{packed}");
        assert!(entries.iter().any(|it| it.0 == path), "no {path}");
    }
    let alias = content("lib/modules/modules.alias");
    // VMware's pvscsi, vmxnet3 and QEMU's virtio-pci, by the numbers on their PCI headers.
    for (glob, module) in [
        ("pci:v000015ADd000007C0sv", "vmw_pvscsi"),
        ("pci:v000015ADd000007B0sv", "vmxnet3"),
        ("pci:v00001AF4d*sv", "virtio_pci"),
    ] {
        let found = alias.lines().any(|it| it.contains(glob) && it.ends_with(module));
        assert!(found, "no alias {glob} for {module}");
    }
}

/// The names and contents of a newc archive, read by its documented layout.
fn entries(archive: &[u8]) -> Vec<(String, &[u8])> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        let field = |index: usize| {
            let start = at + 6 + index * 8;
            let text = std::str::from_utf8(&archive[start..start + 8]).expect("hex digits");
            usize::from_str_radix(text, 16).expect("hex digits")
        };
        let (size, name_size) = (field(6), field(11));
        let name_at = at + 110;
        let name = String::from_utf8_lossy(&archive[name_at..name_at + name_size - 1]).into_owned();
        if name == "TRAILER!!!" {
            return entries;
        }
        let content_at = (name_at + name_size).next_multiple_of(4);
        entries.push((name, &archive[content_at..content_at + size]));
        at = (content_at + size).next_multiple_of(4);
    }
}
