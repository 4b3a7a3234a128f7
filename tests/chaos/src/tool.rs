//! Commands of the system that faults are made with: `ip`, `nft`, `tc` and their like.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// None of them takes long, unless the machine is very busy.
const BOUND: Duration = Duration::from_secs(30);

/// Runs a command to its end, and gives its output.
///
/// # Errors
/// What it said when it failed, with the command.
pub async fn run(line: &[&str]) -> Result<String, String> {
    let (program, words) = line.split_first().ok_or("an empty command")?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let output = timeout(BOUND, command.output())
        .await
        .map_err(|_| format!("{shown}: not within {BOUND:?}"))?
        .map_err(|e| format!("{shown}: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{shown}: {}: {}", output.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
