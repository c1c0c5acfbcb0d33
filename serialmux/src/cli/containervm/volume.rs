//! `containervm volume`: the volumes that have a name, made, listed and removed.

use super::Surroundings;
use clap::Subcommand;
use containervm::run::bytes;
use containervm::volume::{Export, Volumes};
use std::io::Write;
use std::process::ExitCode;

/// Volumes: disks, or directories of servers, that outlive the containers they are used in.
#[derive(Debug, Subcommand)]
pub(super) enum Volume {
    /// Make a volume; `run -v NAME:/path` does that by itself
    Create {
        /// Its size, of which only what is written takes space
        #[arg(long, default_value = "10g")]
        size: String,
        /// Have it on an NFS server, as Docker does: -o type=nfs -o device=[HOST]:/PATH -o o=addr=ADDRESS,…
        #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE", conflicts_with = "size")]
        options: Vec<String>,
        /// Its name
        name: String,
    },
    /// List volumes
    Ls,
    /// Remove volumes that no container has
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

impl Volume {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let Surroundings { home, store, .. } = &Surroundings::here()?;
        let volumes = &Volumes::open(home)?;
        match self {
            Self::Create { size, options, name } => {
                match Export::from_options(&options)? {
                    Some(export) => volumes.create_on_server(&name, &export)?,
                    None => volumes.create(&name, bytes(&size)?)?,
                }
                println!("{name}");
            }
            Self::Ls => {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{:<32}SIZE", "NAME")?;
                for (name, about) in volumes.list()? {
                    writeln!(out, "{name:<32}{about}")?;
                }
            }
            Self::Rm { names } => {
                return crate::cli::each("containervm", names, |name| async move {
                    volumes.remove(&name, store)?;
                    println!("{name}");
                    Ok(())
                })
                .await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
