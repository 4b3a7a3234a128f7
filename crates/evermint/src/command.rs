//! The operator's commands: one file each, with its arguments and what it does.

pub mod agent;
pub mod audit;
pub mod cluster;
pub mod completions;
pub mod erasure;
pub mod health;
pub mod inference;
pub mod keygen;
pub mod keys;
pub mod man;
pub mod profile;
pub mod provider;
pub mod refresh;
pub mod revocation;
pub mod sandbox;
mod settle;
pub mod token;
pub mod trial;

use anyhow::{Result, bail};

/// Entries asked for at once.
const PAGE: u32 = 1000;

/// Gathers all pages of a list: `next` takes a page token and gives entries and the next token.
async fn all_pages<T>(
    mut next: impl AsyncFnMut(String) -> Result<(Vec<T>, String)>,
) -> Result<Vec<T>> {
    let mut entries = Vec::new();
    let mut token = String::new();
    loop {
        let (page, following) = next(token.clone()).await?;
        entries.extend(page);
        if following.is_empty() {
            return Ok(entries);
        }
        if following == token {
            bail!("the gateway gives the same page again and again");
        }
        token = following;
    }
}
