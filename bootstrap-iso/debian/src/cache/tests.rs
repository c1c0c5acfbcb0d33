//! The package cache against an apt-get and a dpkg that are shell scripts.

use super::*;
use crate::script;

/// A host whose apt-get "downloads" by touching a file and whose dpkg unpacks one file.
struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { dir: tempfile::tempdir().unwrap() };
        fake.script("apt-get", "[ $1 = download ] && touch ${2}_1%3a2.0_all.deb");
        fake.script("dpkg", "mkdir -p $3/usr && echo hello > $3/usr/file");
        fake.script(
            "apt-cache",
            "echo meta; echo '  Depends: other'; echo '  Depends: linux-image-6-cloud'",
        );
        fake
    }

    fn script(&self, name: &str, body: &str) {
        let calls = self.dir.path().join("calls");
        let text = format!("echo {name} \"$@\" >> {}\n{body}", calls.display());
        script::write(self.dir.path(), name, &text);
    }

    fn host(&self) -> Host {
        Host::with_programs(self.dir.path(), true)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn n_calls(&self) -> usize {
        fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default().lines().count()
    }

    /// How many half-made directories are left.
    fn half_made(&self) -> usize {
        let names = fs::read_dir(self.root()).unwrap().map(|it| it.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains("unpacking")).count()
    }

    fn unpack(&self) -> Result<PathBuf, DebianError> {
        unpack_on(&self.host(), "demo", &self.root(), &mut |_| ())
    }
}

#[test]
fn a_package_is_unpacked_under_its_name_and_version() {
    let fake = Fake::new();
    let entry = fake.unpack().unwrap();
    assert_eq!(entry, fake.root().join("demo_1%3a2.0"));
    assert_eq!(fs::read_to_string(entry.join("usr/file")).unwrap(), "hello\n");
    assert_eq!(fake.half_made(), 0);
}

#[test]
fn a_second_call_starts_no_program() {
    let fake = Fake::new();
    let first = fake.unpack().unwrap();
    let before = fake.n_calls();
    assert_eq!(fake.unpack().unwrap(), first);
    assert_eq!(fake.n_calls(), before);
}

#[test]
fn what_an_interrupted_run_left_is_removed_and_never_taken_for_an_entry() {
    let fake = Fake::new();
    let left = fake.root().join(".unpacking-demo_1/files/usr");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("half"), "").unwrap();
    fs::write(fake.root().join(".unpacking-demo_1/demo_0.1_all.deb"), "").unwrap();
    let entry = fake.unpack().unwrap();
    assert!(!entry.join("usr/half").exists());
    assert_eq!(fake.half_made(), 0);
    assert_eq!(entry.file_name().unwrap(), "demo_1%3a2.0");
}

#[test]
fn a_failed_unpacking_leaves_no_entry() {
    let fake = Fake::new();
    fake.script("dpkg", "mkdir -p $3/usr; echo 'dpkg-deb: error: broken' >&2; exit 2");
    let text = fake.unpack().unwrap_err().to_string();
    assert!(text.contains("dpkg-deb: error: broken"), "{text}");
    fake.script("dpkg", "echo whole > $3/file");
    assert!(fake.unpack().unwrap().join("file").exists());
}

#[test]
fn a_package_whose_name_only_starts_the_same_is_another_package() {
    let fake = Fake::new();
    fs::create_dir_all(fake.root().join("demo-extra_9")).unwrap();
    assert_eq!(newest_entry("demo", &fake.root()).unwrap(), None);
}

#[test]
fn runs_at_the_same_time_bring_a_package_in_once() {
    let fake = Fake::new();
    fake.script("dpkg", "sleep 0.3; echo whole > $3/file");
    let entries: Vec<PathBuf> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| fake.unpack().unwrap())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(entries.iter().all(|it| *it == entries[0]));
    assert_eq!(fake.n_calls(), 2, "one download, one dpkg");
}

#[test]
fn a_metapackage_leads_to_the_package_it_stands_for_and_is_asked_once() {
    let fake = Fake::new();
    let ask = || {
        unpack_dependency_on(
            &fake.host(),
            "linux-image-cloud",
            "linux-image-",
            &fake.root(),
            &mut |_| (),
        )
    };
    let entry = ask().unwrap();
    assert_eq!(entry.file_name().unwrap(), "linux-image-6-cloud_1%3a2.0");
    let before = fake.n_calls();
    assert_eq!(ask().unwrap(), entry);
    assert_eq!(fake.n_calls(), before);
}

#[test]
fn a_metapackage_without_such_a_dependency_is_an_error() {
    let fake = Fake::new();
    let result = dependency_on(&fake.host(), "meta", "nothing-", &mut |_| ());
    assert!(matches!(result, Err(DebianError::NoDependency { .. })), "{result:?}");
}
