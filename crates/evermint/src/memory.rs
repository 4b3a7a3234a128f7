//! Keeps secrets that are in memory from reaching a disk: core dumps and, if wanted, swap.

use anyhow::{Context, Result};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use crate::exit::advised;

/// No core dump is written of this process or of what it starts, and only root attaches to it.
///
/// # Errors
/// When the system does not let it.
pub fn no_core_dumps() -> Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("cannot forbid core dumps")?;
    conceal()
}

/// No core dump is written of this process, and only root attaches to it. What it starts is free.
///
/// # Errors
/// When the system does not let it.
pub fn conceal() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot forbid core dumps")
}

/// Keeps every page of this process in memory, from when it is first used.
///
/// # Errors
/// When the limit of locked memory may be reached: an allocation would fail then, at any time.
pub fn lock() -> Result<()> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let limit = getrlimit(Resource::Memlock);
    let raised = limit == unlimited || setrlimit(Resource::Memlock, unlimited).is_ok();
    let wanted = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    let problem = match raised {
        false => format!(
            "the limit of locked memory is {} bytes",
            limit.current.unwrap_or_default()
        ),
        true => match mlockall(wanted) {
            Ok(()) => return Ok(()),
            Err(error) => error.to_string(),
        },
    };
    Err(advised(
        format!("memory cannot be locked: {problem}"),
        "no limit for this process (LimitMEMLOCK=infinity under systemd, --ulimit memlock=-1 for \
         containers); or turn swap off, and memory_lock with it",
    ))
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn a_process_that_forbids_core_dumps_has_none() {
        no_core_dumps().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
