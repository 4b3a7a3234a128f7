//! `evermint completions`

use anyhow::Result;
use clap_complete::Shell;

use crate::{cli, out};

const EXAMPLES: &str = "\
Examples:
  source <(evermint completions bash)
  evermint completions zsh > ~/.zfunc/_evermint
  evermint completions fish > ~/.config/fish/completions/evermint.fish";

/// Arguments of `completions`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// For which shell.
    shell: Shell,
}

impl Args {
    /// Writes the script.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli::command(), "evermint", &mut script);
        out::write(&String::from_utf8(script)?)
    }
}
