//! Writes to a real store and says what was acknowledged, or reads back what is left.
//!
//! `power-writer write durable|flush-only DIR` writes until it is killed, a line for each
//! acknowledged step: `ENTRIES TERM`. `power-writer check DIR` prints the same for what it finds,
//! or `damaged: …`.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use evermint_replica::testing::{BareStore, Contents};
use evermint_replica::{Error, SyncPolicy};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["write", "durable", dir] => Box::pin(write(Path::new(dir), SyncPolicy::Durable)).await,
        ["write", "flush-only", dir] => {
            Box::pin(write(Path::new(dir), SyncPolicy::FlushOnly)).await
        }
        ["check", dir] => {
            match Box::pin(BareStore::open(Path::new(dir), SyncPolicy::Durable)).await {
                Ok(store) => say(&show(store.contents())),
                Err(Error::Damaged(damage)) => say(&format!("damaged: {damage}")),
                Err(e) => Err(e).context("open"),
            }
        }
        _ => bail!("usage: power-writer write durable|flush-only DIR | check DIR"),
    }
}

/// Entries of many sizes, alone and in groups; votes, truncations, snapshots and cuts between.
async fn write(dir: &Path, policy: SyncPolicy) -> anyhow::Result<()> {
    let mut store = BareStore::open(dir, policy).await?;
    for step in 0_u64.. {
        let bytes = [30, 300, 3_000, 9_000][step as usize % 4];
        store.append(1 + step % 5, bytes).await?;
        say(&show(store.contents()))?;
        if step % 17 == 16 {
            store.vote().await?;
            say(&show(store.contents()))?;
        }
        if step % 23 == 22 {
            store.append_in_vain(3).await?;
        }
        if step % 101 == 100 {
            store.snapshot().await?;
        }
    }
    Ok(())
}

fn show(contents: Contents) -> String {
    format!("{} {}", contents.entries, contents.term)
}

/// A line that the reader sees at once.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
