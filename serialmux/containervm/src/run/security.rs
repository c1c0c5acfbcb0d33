//! `--security-opt` of `run`: the two of Docker's options that mean something in a VM of one's own.

use std::str::FromStr;

use guestinfo::{ContainerSpec, ProcessSpec};

use super::RunError;

/// A security option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityOption {
    /// `no-new-privileges[=true|false]`, also with a colon.
    NoNewPrivileges(bool),
    /// `systempaths=confined|unconfined`.
    MaskPaths(bool),
}

impl SecurityOption {
    /// Puts it into the config.
    pub fn apply(self, process: &mut ProcessSpec, container: &mut ContainerSpec) {
        match self {
            Self::NoNewPrivileges(on) => process.no_new_privileges = on,
            Self::MaskPaths(on) => container.mask_paths = on,
        }
    }
}

impl FromStr for SecurityOption {
    type Err = RunError;

    fn from_str(text: &str) -> Result<Self, RunError> {
        // Docker takes the older colon, too.
        let (name, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", "false") => Ok(Self::NoNewPrivileges(false)),
            ("systempaths", "confined") => Ok(Self::MaskPaths(true)),
            ("systempaths", "unconfined") => Ok(Self::MaskPaths(false)),
            _ => Err(RunError::Security(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_spellings_are_understood() {
        for (text, expected) in [
            ("no-new-privileges", SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges:true", SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges=false", SecurityOption::NoNewPrivileges(false)),
            ("systempaths=confined", SecurityOption::MaskPaths(true)),
            ("systempaths=unconfined", SecurityOption::MaskPaths(false)),
        ] {
            assert_eq!(text.parse::<SecurityOption>().unwrap(), expected, "{text}");
        }
        for bad in ["", "seccomp=unconfined", "no-new-privileges=maybe", "systempaths"] {
            assert!(bad.parse::<SecurityOption>().is_err(), "{bad}");
        }
    }
}
