//! VMs made, found, run by a stand-in and removed.

use std::process::{Child, Command, Stdio};

use super::*;

struct Bench {
    _dir: tempfile::TempDir,
    home: Home,
    store: Store,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let store = Store::open(&home).unwrap();
    Bench { _dir: dir, home, store }
}

impl Bench {
    fn make(&self, name: &str, remove: bool) -> Result<Vm, StoreError> {
        self.store.draft(Some(name), "img", remove)?.finish(&guestinfo::Vmx::new())
    }

    fn names(&self) -> Vec<String> {
        self.store.list().unwrap().into_iter().map(|vm| vm.record.name).collect()
    }
}

/// A process that holds the VM's lock as QEMU does, as its stdin.
fn stand_in(bench: &Bench, vm: &Vm) -> Child {
    let lock = bench.store.begin(vm).unwrap();
    Command::new("sleep").arg("1000").stdin(lock).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_vm_appears_only_when_it_is_finished() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = bench();
    let draft = bench.store.draft(Some("web"), "img", false).unwrap();
    assert!(bench.names().is_empty());
    let vm = draft.finish(&guestinfo::Vmx::new()).unwrap();
    assert_eq!(bench.names(), ["web"]);
    assert_eq!(fs::metadata(vm.vmx()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(bench.store.state(&vm).unwrap(), State::Created);
    drop(bench.store.draft(Some("gone"), "img", false).unwrap());
    assert_eq!(bench.store.entries().unwrap().len(), 2, "the VM and the lock");
}

#[test]
fn a_name_is_taken_from_draft_to_removal() {
    let bench = bench();
    let draft = bench.store.draft(Some("web"), "img", false).unwrap();
    let text = bench.make("web", false).unwrap_err().to_string();
    let id = short(draft.id()).to_owned();
    assert!(
        text.starts_with(&format!(
            "the name \"web\" is in use by the containerVM {id}; remove that one"
        )),
        "{text}"
    );
    let vm = draft.finish(&guestinfo::Vmx::new()).unwrap();
    assert!(matches!(bench.make("web", false), Err(StoreError::NameInUse { .. })));
    bench.store.remove(&vm, false).unwrap();
    bench.make("web", false).unwrap();
}

#[test]
fn of_many_that_want_one_name_at_once_one_gets_it() {
    let bench = bench();
    for round in 0..100 {
        let name = format!("web-{round}");
        let made: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| usize::from(bench.make(&name, false).is_ok())))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((made, bench.names().len()), (1, 1), "in round {round}");
        bench.store.remove(&bench.store.find(&name).unwrap(), false).unwrap();
    }
}

#[test]
fn vms_are_found_by_name_and_by_the_beginning_of_their_id() {
    let bench = bench();
    let (one, two) = (bench.make("one", false).unwrap(), bench.make("two", false).unwrap());
    assert_eq!(bench.store.find("one").unwrap(), one);
    assert_eq!(bench.store.find(&two.record.id).unwrap(), two);
    assert_eq!(bench.store.find(&two.record.id[..20]).unwrap(), two);
    assert!(bench.store.find("").is_err());
    let text = bench.store.find("three").unwrap_err().to_string();
    assert!(text.starts_with("no containerVM is called \"three\""), "{text}");
    for digit in "0123456789abcdef".chars() {
        let same =
            bench.store.list().unwrap().iter().filter(|vm| vm.record.id.starts_with(digit)).count();
        let found = bench.store.find(&digit.to_string());
        assert_eq!(found.is_ok(), same == 1);
        assert_eq!(matches!(found, Err(StoreError::Ambiguous { n: 2, .. })), same == 2);
    }
}

#[test]
fn a_vm_runs_exactly_while_its_process_holds_the_lock() {
    let bench = bench();
    let vm = bench.make("web", false).unwrap();
    let mut process = stand_in(&bench, &vm);
    assert_eq!(bench.store.state(&vm).unwrap(), State::Running);
    assert!(matches!(bench.store.begin(&vm), Err(StoreError::Running(_))));
    let text = bench.store.remove(&vm, false).unwrap_err().to_string();
    assert!(text.contains("web is running"), "{text}");
    fs::write(vm.dir.join(PID), process.id().to_string()).unwrap();
    bench.store.record_code(&vm, 7).unwrap();
    assert_eq!(bench.store.state(&vm).unwrap(), State::Running);
    let waiter = std::thread::spawn({
        let vm = vm.clone();
        move || vm.wait().unwrap()
    });
    process.kill().unwrap();
    process.wait().unwrap();
    waiter.join().unwrap();
    let exit = bench.store.record_end(&vm, "powered off").unwrap();
    assert_eq!((exit.code, exit.how.as_str()), (Some(7), "powered off"));
    assert_eq!(bench.store.state(&vm).unwrap(), State::Exited(exit));
    let mut process = stand_in(&bench, &vm);
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(bench.store.state(&vm).unwrap(), State::Dead, "the last run's end is forgotten");
}

#[test]
fn a_running_vm_is_removed_by_force_even_if_it_does_not_answer() {
    let bench = bench();
    let vm = bench.make("web", false).unwrap();
    let mut process = stand_in(&bench, &vm);
    fs::write(vm.dir.join(PID), process.id().to_string()).unwrap();
    std::thread::scope(|scope| {
        // Somebody must reap it, as init would.
        scope.spawn(|| process.wait().unwrap());
        bench.store.remove(&vm, true).unwrap();
    });
    assert!(bench.names().is_empty() && !vm.dir.exists());
}

#[test]
fn gc_removes_leftovers_and_nothing_else() {
    let bench = bench();
    let kept = bench.make("kept", false).unwrap();
    let ended = bench.make("ended", true).unwrap();
    bench.store.record_end(&ended, "powered off").unwrap();
    let running = bench.make("running", true).unwrap();
    let mut process = stand_in(&bench, &running);
    bench.make("fresh", true).unwrap();
    let to_start = |name| {
        let draft = bench.store.draft(Some(name), "img", true).unwrap();
        draft.finish_to_start(&guestinfo::Vmx::new()).unwrap()
    };
    let (_starting, lock) = to_start("starting");
    drop(to_start("abandoned"));
    let drafted = bench.store.draft(Some("drafted"), "img", false).unwrap();
    for leftover in [".new-x", ".gone-y"] {
        fs::create_dir(bench.home.vms().join(leftover)).unwrap();
    }
    let removed = bench.store.gc().unwrap();
    assert_eq!(removed.others.len(), 2, "{removed:?}");
    let mut gone: Vec<_> = removed.vms.into_iter().map(|it| it.name).collect();
    gone.sort();
    assert_eq!(gone, ["abandoned", "ended"]);
    drop(lock);
    let mut names = bench.names();
    names.sort();
    assert_eq!(names, ["fresh", "kept", "running", "starting"]);
    drafted.finish(&guestinfo::Vmx::new()).unwrap();
    assert!(kept.dir.exists());
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn gc_goes_well_while_vms_come_and_go() {
    let bench = bench();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                let vm = bench.make("web", true).unwrap();
                bench.store.record_end(&vm, "powered off").unwrap();
                // Of the two who remove it, one comes too late.
                let removed = bench.store.remove(&vm, false);
                assert!(removed.is_ok() || !vm.dir.exists(), "{removed:?}");
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            bench.store.gc().unwrap();
        }
    });
    assert!(bench.store.entries().unwrap().into_iter().all(|(name, _)| name == ".lock"));
}

#[test]
fn a_vmx_file_of_the_users_gets_the_same_vm_each_time() {
    let bench = bench();
    let file = bench.home.vms().parent().unwrap().join("mine.vmx");
    fs::write(&file, "").unwrap();
    let one = bench.store.adopt(&file, None, "mine").unwrap();
    let again = bench.store.adopt(&file, None, "mine").unwrap();
    assert_eq!((one.dir.clone(), one.vmx()), (again.dir, fs::canonicalize(&file).unwrap()));
    let made = bench.make("made", false).unwrap();
    let same = bench.store.adopt(&file, Some(&made.record.id), "made").unwrap();
    assert_eq!((same.dir, same.record.vmx.is_some()), (made.dir, true));
    let other = file.with_file_name("other.vmx");
    fs::write(&other, "").unwrap();
    assert!(matches!(bench.store.adopt(&other, None, "mine"), Err(StoreError::NameInUse { .. })));
}

#[test]
fn a_full_disk_is_one_line_and_leaves_nothing() {
    let bench = bench();
    let mount = |arguments: &[&str]| {
        Command::new(arguments[0]).args(&arguments[1..]).arg(bench.home.vms()).status()
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "none"])
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    }
    let source = bench.home.vms().parent().unwrap().join("noise");
    fs::write(&source, vec![1; 4 << 20]).unwrap();
    let mut draft = bench.store.draft(Some("web"), "img", false).unwrap();
    let text = draft.copy_disk_file(&source).unwrap_err().to_string();
    drop(draft);
    let left = bench.store.entries().unwrap();
    assert!(mount(&["umount", "--lazy"]).unwrap().success());
    assert!(text.starts_with("no space left in ") && text.lines().count() == 1, "{text}");
    assert_eq!(left.len(), 1, "{left:?}");
}
