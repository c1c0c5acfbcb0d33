//! Well-formed archives of any entries, as `docker export`, `docker save` and an OCI layout pack them: an image of the
//! right size, or an error, and nothing half-made.
#![no_main]

use arbitrary::Arbitrary;
use containervm::home::Home;
use containervm::image::blob::hex;
use containervm::image::resolve;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use serialmux_fuzz::heads::sealed;
use sha2::{Digest, Sha256};
use std::cell::OnceCell;
use std::fs;
use tempfile::TempDir;

const NAMES: [&str; 12] =
    ["a", "b", "..", ".wh.a", ".wh..wh..opq", ".wh..wh.x", "", ".", "c/b", "/a/b/c", "a/b", "b/c"];
const KEYS: [&str; 12] = [
    "path",
    "linkpath",
    "size",
    "uid",
    "mtime",
    "SCHILY.xattr.user.x",
    "SCHILY.xattr.system.posix_acl_access",
    "GNU.sparse.map",
    "GNU.sparse.size",
    "GNU.sparse.realsize",
    "GNU.sparse.major",
    "GNU.sparse.name",
];
const SIZE: u64 = 16 << 20;

#[derive(Debug, Arbitrary)]
struct File {
    /// Which names follow each other in its path, and in its link's target.
    names: Vec<u8>,
    target: Vec<u8>,
    kind: u8,
    mode: u16,
    numbers: (u32, u8),
    data: Vec<u8>,
    pax: Vec<(u8, Vec<u8>)>,
    is_global: bool,
}

#[derive(Debug, Arbitrary)]
enum Form {
    Export,
    Saved,
    Layout,
}

thread_local! {
    static DIR: OnceCell<TempDir> = const { OnceCell::new() };
}

fn path(names: &[u8]) -> Vec<u8> {
    let names: Vec<_> = names.iter().map(|n| NAMES[usize::from(*n) % NAMES.len()]).collect();
    names.join("/").into_bytes()
}

fn put(out: &mut Vec<u8>, name: &[u8], kind: u8, rest: impl Fn(&mut [u8]), data: &[u8]) {
    let mut head = [0; 512];
    head[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    head[156] = kind;
    head[257..263].copy_from_slice(b"ustar\0");
    head[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    rest(&mut head);
    out.extend(sealed(&head));
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn records(pax: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pax {
        let key = KEYS[usize::from(*key) % KEYS.len()];
        let rest = key.len() + value.len() + 3;
        let len = (rest..).find(|len| *len == rest + len.to_string().len()).expect("one fits");
        out.extend(format!("{len} {key}=").bytes());
        out.extend(value);
        out.push(b'\n');
    }
    out
}

fn archive(files: &[File]) -> Vec<u8> {
    let mut out = Vec::new();
    for file in files {
        if !file.pax.is_empty() {
            let kind = if file.is_global { b'g' } else { b'x' };
            put(&mut out, b"pax", kind, |_| (), &records(&file.pax));
        }
        let kind = b"0123456S57D0"[usize::from(file.kind) % 12];
        let data = if b"07SD".contains(&kind) { &file.data[..] } else { b"" };
        let rest = |head: &mut [u8]| {
            head[100..108].copy_from_slice(format!("{:07o}\0", file.mode).as_bytes());
            head[329..336]
                .copy_from_slice(format!("{:07o}", file.numbers.0 % 0o1000000).as_bytes());
            head[337..341].copy_from_slice(format!("{:04o}", file.numbers.1).as_bytes());
            let target = path(&file.target);
            head[157..157 + target.len().min(100)]
                .copy_from_slice(&target[..target.len().min(100)]);
            if kind == b'S' {
                // Its one piece begins there, and it is as long as it must be.
                let at = u64::from(file.numbers.0);
                head[386..397].copy_from_slice(format!("{at:011o}").as_bytes());
                head[398..409].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
                let size = at + data.len() as u64;
                head[483..494].copy_from_slice(format!("{size:011o}").as_bytes());
            }
        };
        put(&mut out, &path(&file.names), kind, rest, data);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn saved(layers: &[Vec<u8>]) -> Vec<u8> {
    let (mut out, mut names, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for (n, layer) in layers.iter().enumerate() {
        names.push(format!("{n}/layer.tar"));
        ids.push(format!("sha256:{}", hex(&Sha256::digest(layer))));
        put(&mut out, names[n].as_bytes(), b'0', |_| (), layer);
    }
    let config = json!({ "os": "linux", "rootfs": { "diff_ids": ids } }).to_string();
    put(&mut out, b"config.json", b'0', |_| (), config.as_bytes());
    let manifest = json!([{ "Config": "config.json", "Layers": names }]).to_string();
    put(&mut out, b"manifest.json", b'0', |_| (), manifest.as_bytes());
    out
}

fn layout(layers: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut add = |bytes: &[u8]| {
        let digest = hex(&Sha256::digest(bytes));
        put(&mut out, format!("blobs/sha256/{digest}").as_bytes(), b'0', |_| (), bytes);
        json!({ "digest": format!("sha256:{digest}") })
    };
    let layers: Vec<_> = layers.iter().map(|layer| add(layer)).collect();
    let config = add(br#"{"os":"linux","config":{"Cmd":["x"]}}"#);
    let manifest = add(json!({ "config": config, "layers": layers }).to_string().as_bytes());
    put(&mut out, b"oci-layout", b'0', |_| (), b"{}");
    let index = json!({ "manifests": [manifest] }).to_string();
    put(&mut out, b"index.json", b'0', |_| (), index.as_bytes());
    out
}

fuzz_target!(|input: (Form, Vec<Vec<File>>)| {
    let (form, layers) = input;
    let layers: Vec<_> = layers.iter().take(4).map(|files| archive(files)).collect();
    let bytes = match form {
        Form::Export => layers.concat(),
        Form::Saved => saved(&layers),
        Form::Layout => layout(&layers),
    };
    DIR.with(|cell| {
        let dir =
            cell.get_or_init(|| tempfile::tempdir_in("/dev/shm").expect("a directory")).path();
        let (file, home) = (dir.join("image.tar"), Home::at(dir));
        fs::write(&file, bytes).expect("room in memory");
        let image = resolve(&file.display().to_string(), SIZE, &home, &mut |_| ());
        if let Ok(image) = &image {
            let list = fs::read(containervm::image::paths::of(&image.disk)).expect("a list");
            assert!(list.is_empty() || list.ends_with(&[0]));
            assert_eq!(fs::metadata(&image.disk).expect("a disk").len(), SIZE);
        }
        let left = fs::read_dir(home.images()).expect("a cache").count();
        assert_eq!(left, if image.is_ok() { 4 } else { 1 }, "but for the lock");
        fs::remove_dir_all(home.images()).expect("it is there");
    });
});
