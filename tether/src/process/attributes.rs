//! What sets a process apart besides its user: limits, OOM score, capabilities, further groups.
//!
//! The defaults are VIC's: limits of a server, and every capability, because the machine is the border of a
//! container and not its root user.

use guestinfo::{ProcessSpec, Resource as Limited, Ulimit};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::failure::StartFailure;
use crate::sys;

/// VIC's limit on open files (`NOFILE`), which is also the kernel's default ceiling.
const MAX_OPEN_FILES: u64 = 1_048_576;

/// The highest capability number a kernel can have: there are 64 bits for them (capabilities(7)).
const MAX_CAPABILITY: u8 = 63;

/// What a process is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    limits: Vec<Ulimit>,
    oom_score: i16,
    /// Bit n for capability n.
    capabilities: u64,
    no_new_privileges: bool,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self::from(&ProcessSpec::default())
    }
}

impl From<&ProcessSpec> for Attributes {
    fn from(spec: &ProcessSpec) -> Self {
        Self {
            limits: spec.ulimits.clone(),
            oom_score: spec.oom_score_adj.get(),
            capabilities: spec.capabilities(),
            no_new_privileges: spec.no_new_privileges,
            groups: spec.group_add.clone(),
        }
    }
}

impl Attributes {
    /// Sets the OOM score, unless it is the one that the agent itself has, as the kernel started it. To be called
    /// where `/proc` is still the agent's own: an image's may be anything.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_oom_score(&self) -> Result<(), StartFailure> {
        if self.oom_score == 0 {
            return Ok(());
        }
        std::fs::write("/proc/self/oom_score_adj", self.oom_score.to_string()).map_err(|error| {
            StartFailure::Machine {
                step: "set oom_score_adj",
                errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
            }
        })
    }

    /// Sets VIC's limits, then the configured ones.
    ///
    /// # Errors
    ///
    /// The kernel's: `nofile` has a ceiling (`fs.nr_open`).
    pub fn set_limits(&self) -> Result<(), StartFailure> {
        let limit = |resource, soft, hard| {
            setrlimit(resource, soft, hard).map_err(StartFailure::machine("set a resource limit"))
        };
        limit(Resource::RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES)?;
        for unlimited in [Resource::RLIMIT_CORE, Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_NPROC] {
            limit(unlimited, RLIM_INFINITY, RLIM_INFINITY)?;
        }
        let (soft, _) = getrlimit(Resource::RLIMIT_STACK)
            .map_err(StartFailure::machine("read a resource limit"))?;
        limit(Resource::RLIMIT_STACK, soft, RLIM_INFINITY)?;
        for one in &self.limits {
            setrlimit(resource(one.resource), one.soft, one.hard)
                .map_err(|errno| StartFailure::Limit { limit: one.to_string(), errno })?;
        }
        Ok(())
    }

    /// Takes the missing capabilities from what any later program can get: the bounding set.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn drop_bounding(&self) -> Result<(), StartFailure> {
        let missing = (0..=MAX_CAPABILITY).filter(|number| self.capabilities & 1 << number == 0);
        for number in missing {
            match sys::drop_bounding_capability(number) {
                // A number that this kernel has no capability for.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(errno) => return Err(StartFailure::machine("drop a capability")(errno)),
            }
        }
        Ok(())
    }

    /// Gives up, after the change to user `uid`, what the process is not to have. As with Docker, root has
    /// the capabilities effective and permitted, another user has none (execve(2) would take them anyway);
    /// inheritable and ambient sets are empty for all.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn drop_privileges(&self, uid: u32) -> Result<(), StartFailure> {
        let set = if uid == 0 { self.capabilities } else { 0 };
        sys::set_capabilities(set).map_err(StartFailure::machine("set capabilities"))?;
        if self.no_new_privileges {
            prctl::set_no_new_privs().map_err(StartFailure::machine("set no_new_privs"))?;
        }
        Ok(())
    }
}

fn resource(limited: Limited) -> Resource {
    match limited {
        Limited::Core => Resource::RLIMIT_CORE,
        Limited::Cpu => Resource::RLIMIT_CPU,
        Limited::Data => Resource::RLIMIT_DATA,
        Limited::Fsize => Resource::RLIMIT_FSIZE,
        Limited::Locks => Resource::RLIMIT_LOCKS,
        Limited::Memlock => Resource::RLIMIT_MEMLOCK,
        Limited::Msgqueue => Resource::RLIMIT_MSGQUEUE,
        Limited::Nice => Resource::RLIMIT_NICE,
        Limited::Nofile => Resource::RLIMIT_NOFILE,
        Limited::Nproc => Resource::RLIMIT_NPROC,
        Limited::Rss => Resource::RLIMIT_RSS,
        Limited::Rtprio => Resource::RLIMIT_RTPRIO,
        Limited::Rttime => Resource::RLIMIT_RTTIME,
        Limited::Sigpending => Resource::RLIMIT_SIGPENDING,
        Limited::Stack => Resource::RLIMIT_STACK,
    }
}
