//! Hiding the agent's memory from what runs beside it as the same user.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// From now on, neither `ptrace` nor `/proc/PID/mem` nor `/proc/PID/environ` opens this process to
/// others of its user, and no core dump is made of it: placeholders would be worth little if a
/// command could read the tokens there. Whoever may trace any process, such as root, still can.
pub fn conceal() {
    // The system refuses nothing but values that it does not know.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn a_concealed_process_is_not_open_to_others() {
        conceal();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
