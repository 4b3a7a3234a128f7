//! What a strategy may touch outside of its order: issuers over HTTP, files with tokens, and what
//! was learnt of the issuers' clocks.

use std::collections::BTreeMap;

use evermint_core::credential::RefreshConfig;

use crate::Error;
use crate::command::CommandLine;
use crate::config::Config;
use crate::material::Material;
use crate::skew::Skews;
use crate::token_file::TokenFiles;
use crate::transport::Transport;

/// The world of a strategy. One for each process: limits are counted here.
#[derive(Debug)]
pub struct Outside {
    /// The way to issuers.
    pub transport: Transport,
    /// The files that others keep fresh tokens in.
    pub token_files: TokenFiles,
    /// The commands that may be run.
    pub commands: BTreeMap<String, CommandLine>,
    /// How far the clocks of issuers are from this one.
    pub skews: Skews,
}

impl Outside {
    /// The outside under these rules.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot be.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            transport: Transport::new(config)?,
            token_files: TokenFiles::new(config.token_file_dirs.clone()),
            commands: config.commands.clone(),
            skews: Skews::default(),
        })
    }
}

/// A refresh as it is, or is to be, configured, and the outside of its strategy.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Endpoint, scopes and public material.
    pub config: &'a RefreshConfig,
    /// All material.
    pub material: Material<'a>,
    /// What the strategy may touch.
    pub outside: &'a Outside,
}
