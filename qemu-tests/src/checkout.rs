//! The built product of this checkout: its programs, its ISO, its agent, and what tests may keep between runs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Set for the tests when everything has been built already.
pub const BUILT: &str = "QEMU_TESTS_BUILT";

/// What runs in a VM whatever its libraries are.
const GUEST: &str = "x86_64-unknown-linux-musl";

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// Root of the workspace.
    pub root: PathBuf,
    /// cargo's directory for what it makes.
    pub target: PathBuf,
}

impl Checkout {
    /// This checkout; built first if nobody has said that it is.
    ///
    /// # Panics
    /// When it cannot be built: no test makes sense then.
    #[must_use]
    pub fn built() -> &'static Self {
        static BUILT_ONCE: OnceLock<Checkout> = OnceLock::new();
        BUILT_ONCE.get_or_init(|| {
            let here = Self::here();
            if std::env::var_os(BUILT).is_none() {
                for (what, arguments) in here.builds() {
                    let status = here.cargo(&arguments).stdout(Stdio::null()).status();
                    let built = status.is_ok_and(|status| status.success());
                    assert!(built, "{what} cannot be built: cargo {}", arguments.join(" "));
                }
            }
            here
        })
    }

    /// This checkout, built or not.
    #[must_use]
    pub fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = fs::canonicalize(&root).unwrap_or(root);
        let target = match std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from) {
            Some(target) => root.join(target),
            None => root.join("target"),
        };
        Self { root, target }
    }

    /// What must be built before VMs can boot: a name for people, and arguments for cargo.
    #[must_use]
    pub fn builds(&self) -> [(&'static str, Vec<String>); 2] {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut iso = words("run --release --locked --quiet --package bootstrap-iso -- -o");
        iso.push(self.iso().display().to_string());
        [("serialmux", words("build --release --locked --package serialmux --bins")), ("ISO", iso)]
    }

    /// cargo in this workspace.
    pub fn cargo<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// A program of the product.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// A program that tests bring in with cargo.
    #[must_use]
    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools().join("bin").join(name)
    }

    /// Where cargo puts those.
    #[must_use]
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The ISO that containerVMs boot.
    #[must_use]
    pub fn iso(&self) -> PathBuf {
        self.target.join("bootstrap.iso")
    }

    /// The agent in it.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.target.join("x86_64-unknown-linux-musl/guest/tether")
    }

    /// The program that runs inside VMs under test; built first if need be.
    ///
    /// # Panics
    /// When it cannot be built.
    #[must_use]
    pub fn gauge(&self) -> PathBuf {
        let line = "build --release --locked --quiet --package gauge --target";
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.push(GUEST);
        let status = self.cargo(&arguments).stdout(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "gauge cannot be built");
        self.target.join(GUEST).join("release/gauge")
    }

    /// What tests keep from one run to the next.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn keep(&self) -> PathBuf {
        let keep = self.target.join("qemu-tests");
        fs::create_dir_all(&keep).expect("target/qemu-tests can be made");
        keep
    }
}
