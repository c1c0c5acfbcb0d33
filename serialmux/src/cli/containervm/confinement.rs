//! The options of `run` that say what the container's processes may do and use.

use clap::Args;
use containervm::run::{SecurityOption, bytes, nano_cpus};
use guestinfo::{Capability, ContainerSpec, OomScore, ProcessSpec, Tmpfs, Ulimit};

/// What processes may do and use.
#[derive(Debug, Args)]
pub(super) struct Confinement {
    /// Limit a resource (nofile=1024:2048, core=0); -1 is no limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// How readily the kernel kills it when memory runs out (-1000 to 1000)
    #[arg(long, value_name = "SCORE", default_value_t = 0, allow_hyphen_values = true)]
    oom_score_adj: i64,
    /// Take a capability from it, or ALL; it has them all
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<Capability>,
    /// Give it a capability after all
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<Capability>,
    /// no-new-privileges, or systempaths=confined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<SecurityOption>,
    /// Add a group, by name or number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Allow no writing to its root file system
    #[arg(long)]
    read_only: bool,
    /// Mount a file system in memory (/run:size=64m,exec)
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<Tmpfs>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Run an init in it that passes signals on and collects orphans
    #[arg(long)]
    init: bool,
    /// How many processes and threads there may be; 0 or -1 for what the VM can bear
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    pids_limit: i64,
}

impl Confinement {
    /// What concerns the process.
    pub(super) fn process(&self) -> anyhow::Result<ProcessSpec> {
        let mut process = ProcessSpec {
            ulimits: self.ulimit.clone(),
            oom_score_adj: OomScore::try_from(self.oom_score_adj)?,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            no_new_privileges: false,
            group_add: self.group_add.clone(),
        };
        self.security_opt.iter().for_each(|it| it.apply(&mut process, &mut Default::default()));
        Ok(process)
    }

    /// What concerns all processes; bytes of memory, 0 for what the VM can spare, and of the processors a
    /// fraction may be theirs.
    pub(super) fn container(&self, memory: u64, cpus: &str) -> anyhow::Result<ContainerSpec> {
        let mut container = ContainerSpec {
            read_only: self.read_only,
            tmpfs: self.tmpfs.clone(),
            shm_size: self.shm_size.as_deref().map(bytes).transpose()?.unwrap_or(0),
            mask_paths: false,
            init: self.init,
            memory,
            pids: u64::try_from(self.pids_limit).unwrap_or(0),
            nano_cpus: nano_cpus(cpus)?,
        };
        self.security_opt.iter().for_each(|it| it.apply(&mut Default::default(), &mut container));
        Ok(container)
    }
}
