//! `evermint man`

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{cli, out};

const EXAMPLES: &str = "\
Examples:
  evermint man --dir /usr/local/share/man/man1
      A page for each command: evermint(1), evermint-provider-create(1), …
  evermint man | man -l -
      The first of them, without a file.";

/// Arguments of `man`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The directory to write to, made if it is not there; standard output and the first page
    /// alone if not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    /// Writes the pages.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn run(self) -> Result<()> {
        let Some(dir) = self.dir else {
            let mut page = Vec::new();
            clap_mangen::Man::new(cli::command()).render(&mut page)?;
            return out::write(&String::from_utf8(page)?);
        };
        let cannot = || format!("cannot write manual pages to {}", dir.display());
        std::fs::create_dir_all(&dir).with_context(cannot)?;
        clap_mangen::generate_to(cli::command(), &dir).with_context(cannot)
    }
}
