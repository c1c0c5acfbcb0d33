//! The steps of `cargo qemu-tests`: what each runs, and what the machine needs for it.

use crate::{Cli, Kind};
use anyhow::{Context as _, Result};
use debian::{Need, Probe, ensure, rust_target};
use qemu_tests::Checkout;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    /// For people.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// How it is told whether it went well.
    pub(crate) judge: Judge,
    /// Whether it makes no sense after a failed [`Judge::Build`].
    pub(crate) needs_build: bool,
    /// For cargo.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// How it is told whether a step went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judge {
    /// By its exit status.
    Status,
    /// By its exit status; others depend on it.
    Build,
    /// By the tests' own counts.
    Tests,
}

/// The set of tests that boots nothing: rules about the repository itself.
const REPO: &str = "repo";

fn step(name: &'static str, kind: Kind, judge: Judge, line: &str) -> Step {
    let arguments = line.split_whitespace().map(str::to_owned).collect();
    Step { name, kind, judge, needs_build: false, arguments, environment: Vec::new() }
}

/// All steps in their order.
pub(crate) fn all(checkout: &Checkout, cli: &Cli) -> Result<Vec<Step>> {
    let mut steps = lint();
    steps.extend(unit(cli));
    for (what, arguments) in checkout.builds() {
        let name = if what == "ISO" { "build of bootstrap.iso" } else { "build of serialmux" };
        steps.push(Step { arguments, ..step(name, Kind::Boot, Judge::Build, "") });
    }
    steps.extend(vsock(checkout));
    steps.push(boot(checkout, cli)?);
    if let Some(filter) = &cli.filter {
        for step in steps.iter_mut().filter(|step| step.judge == Judge::Tests) {
            step.arguments.push(filter.clone());
        }
    }
    Ok(steps)
}

fn lint() -> Vec<Step> {
    let lint = |name, line| step(name, Kind::Lint, Judge::Status, line);
    let mut documentation = lint("documentation", "doc --workspace --no-deps --locked");
    documentation.environment.push(("RUSTDOCFLAGS", "-D warnings".into()));
    vec![
        lint("formatting", "fmt --all --check"),
        lint("clippy", "clippy --workspace --all-targets --locked -- -D warnings"),
        documentation,
    ]
}

fn unit(cli: &Cli) -> Vec<Step> {
    let unit = |name, line| {
        let mut step = step(name, Kind::Unit, Judge::Tests, line);
        if let Some(seeds) = cli.seeds {
            step.environment.push(("SIM_SEEDS", seeds.to_string()));
        }
        step
    };
    // What a passing test prints is kept from us otherwise, also why it did not run.
    let tests = "test --no-fail-fast --locked";
    vec![
        unit(
            "unit and integration tests",
            &format!("{tests} --workspace --exclude qemu-tests -- --show-output"),
        ),
        unit(
            "rules of the repository",
            &format!("{tests} -p qemu-tests --lib --bins --test {REPO} -- --show-output"),
        ),
    ]
}

/// A host's vsock without a kernel that serves it. Building it takes a minute, once.
pub(crate) fn vsock(checkout: &Checkout) -> Option<Step> {
    if checkout.tool("vhost-device-vsock").exists() {
        return None;
    }
    let line = "install --locked --quiet --version =0.3.0 vhost-device-vsock --root";
    let mut step = step("build of vhost-device-vsock", Kind::Boot, Judge::Status, line);
    step.arguments.push(checkout.tools().display().to_string());
    Some(step)
}

fn boot(checkout: &Checkout, cli: &Cli) -> Result<Step> {
    let dir = checkout.root.join("qemu-tests/tests");
    let mut sets = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        // A file, or a directory with a main file, as Cargo finds them.
        let is_set = path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").exists();
        if let Some(stem) = path.file_stem().and_then(|it| it.to_str()).filter(|_| is_set) {
            sets.push(stem.to_owned());
        }
    }
    sets.retain(|set| set != REPO);
    sets.sort();
    let sets: String = sets.iter().map(|set| format!(" --test {set}")).collect();
    let line = format!(
        "test --no-fail-fast --locked -p qemu-tests{sets} -- --test-threads={} --show-output",
        cli.boots
    );
    let mut step = step("boot tests", Kind::Boot, Judge::Tests, &line);
    step.needs_build = true;
    step.environment.push((qemu_tests::BUILT, "1".into()));
    Ok(step)
}

/// Brings in what the steps need, saying what and why.
pub(crate) fn bring_in(tell: &dyn Fn(&str), is_for_tests: bool) -> Result<()> {
    let tell = &mut |line: &str| tell(line);
    rust_target("x86_64-unknown-linux-musl", tell)?;
    if !is_for_tests {
        return Ok(());
    }
    let need = |package, probe, why| Need { package, probe, why };
    let needs = [
        need("qemu-system-x86", Probe::Program("qemu-system-x86_64"), "to boot VMs"),
        need("ovmf", Probe::File("/usr/share/OVMF/OVMF_CODE_4M.fd"), "to boot VMs with UEFI"),
        need("xorriso", Probe::Program("xorriso"), "to make bootstrap.iso"),
        need("musl-tools", Probe::Program("musl-gcc"), "to compile what of the agent is C"),
        need("e2fsprogs", Probe::Program("e2fsck"), "to check the file systems we make"),
        need("mmdebstrap", Probe::Program("mmdebstrap"), "to make a Debian image"),
        need(
            "open-vm-tools",
            Probe::Program("vmware-rpctool"),
            "to compare our requests to the hypervisor with VMware's own",
        ),
    ];
    ensure(&needs, tell).context("cannot prepare this machine")
}

/// Whether a test may be skipped for this reason here.
pub(crate) fn is_expected(reason: &str) -> bool {
    // `/proc/self` belongs to the effective user of the process that looks (proc(5)).
    let is_root = fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0);
    // A program that other tests run under their control is written as an ignored test.
    reason.starts_with("the guest of ") || !is_root && reason.contains("root")
}
