//! Rules about the repository itself: who may depend on whom, what files look like, what the README promises.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use qemu_tests::Checkout;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each crate of the workspace may use of the others, in its tests too.
const ARROWS: [(&str, &[&str]); 10] = [
    ("tether", &["wire", "guestinfo", "hypervisor"]),
    ("guestinfo", &["hypervisor"]),
    ("hypervisor", &["guestinfo"]),
    ("wire", &[]),
    ("serialmux", &["wire", "containervm", "guestinfo", "debian", "iso9660"]),
    ("containervm", &["guestinfo", "debian", "iso9660"]),
    ("bootstrap-iso", &["debian", "iso9660"]),
    ("debian", &[]),
    ("iso9660", &[]),
    ("gauge", &[]),
];
/// What else is at the top, besides names that begin with a dot.
const TOP: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "rust-toolchain.toml",
    "tether",
    "serialmux",
    "bootstrap-iso",
    "qemu-tests",
];
const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Checkout::here().root
}

#[test]
fn crates_depend_on_each_other_only_as_drawn() {
    let checkout = Checkout::here();
    let metadata = checkout.cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = { metadata }.output().unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata");
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages.iter().filter_map(|it| it["name"].as_str()).collect();
    let drawn: BTreeSet<&str> =
        ARROWS.iter().map(|(name, _)| *name).chain(["qemu-tests"]).collect();
    assert_eq!(names, drawn, "a crate is missing in the drawing, or is not there");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else { continue };
        let used = package["dependencies"].as_array().unwrap().iter();
        let used = used.filter_map(|it| it["name"].as_str()).filter(|it| names.contains(it));
        for other in used {
            assert!(allowed.contains(&other), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn the_agent_and_the_multiplexer_never_depend_on_each_other() {
    for (from, to) in [("tether", "serialmux"), ("serialmux", "tether")] {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(name) = next.pop() {
            if seen.insert(name) {
                let arrows = ARROWS.iter().find(|(it, _)| *it == name);
                next.extend(arrows.map(|(_, to)| to.to_vec()).unwrap_or_default());
            }
        }
        assert!(!seen.contains(to), "{from} leads to {to}");
    }
}

/// All .rs files, by their path from the root.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let is_ours = !entry.file_name().to_string_lossy().starts_with('.');
            if path.is_dir() && is_ours && !path.ends_with("target") {
                walk(&path, all);
            } else if path.extension().is_some_and(|it| it == "rs") {
                all.push(path);
            }
        }
    }
    let root = root();
    let mut all = Vec::new();
    walk(&root, &mut all);
    assert!(all.len() > 100, "{} files", all.len());
    let name = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
    all.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_file_says_in_its_first_line_what_it_is_and_no_two_say_the_same() {
    let mut lines = BTreeMap::new();
    for (path, text) in sources() {
        let first = text.lines().next().unwrap_or_default().to_owned();
        assert!(first.starts_with("//! ") && first.len() > 12, "{path} begins with {first:?}");
        if let Some(other) = lines.insert(first.clone(), path.clone()) {
            panic!("{path} and {other} both begin with {first:?}");
        }
    }
}

#[test]
fn no_file_is_longer_than_one_can_hold_in_mind() {
    let long: Vec<String> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, n)| *n > MAX_LINES)
        .map(|(path, n)| format!("{path}: {n} lines"))
        .collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:?}");
}

#[test]
fn modules_are_named_for_what_they_own() {
    let vague = ["utils.rs", "util.rs", "common.rs", "helpers.rs", "manager.rs", "misc.rs"];
    for (path, _) in sources() {
        let name = path.rsplit('/').next().unwrap_or_default();
        assert!(!vague.contains(&name), "{path} says nothing of what is in it");
    }
}

#[test]
fn the_top_level_holds_what_it_must_and_nothing_else() {
    let entries = fs::read_dir(root()).unwrap().flatten();
    let names: BTreeSet<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    for name in &TOP {
        assert!(names.contains(*name), "{name} is missing");
    }
    // cargo's own directory is ignored by git.
    let known = |name: &String| TOP.contains(&name.as_str()) || name == "target";
    let others: Vec<_> = names.iter().filter(|it| !it.starts_with('.') && !known(it)).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn the_readme_names_the_two_commands_and_ci_runs_the_second() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let readme = read("README.md");
    for command in ["cargo containervm run -it busybox", "cargo qemu-tests"] {
        assert!(readme.contains(command), "README.md does not say {command:?}");
    }
    assert!(read(".ci/run").lines().last().is_some_and(|line| line.ends_with("cargo qemu-tests")));
    for alias in ["containervm = ", "serialmux = ", "bootstrap-iso = ", "qemu-tests = "] {
        assert!(read(".cargo/config.toml").contains(alias), "no alias {alias}");
    }
}
