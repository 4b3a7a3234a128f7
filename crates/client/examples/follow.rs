//! Follows a sandbox's bundle and says what changes, without showing any value:
//!
//! ```text
//! cargo run -p evermint-client --example follow -- agent-7 http://127.0.0.1:7600 …
//! ```
//!
//! The sandbox's token, if one is needed, is in the file that `EVERMINT_TOKEN_FILE` names, and is
//! renewed; the authority is in the one that `EVERMINT_CA` names.

use std::io::{Write as _, stdout};

use evermint_client::{BoxError, Client, Renewals, Snapshot};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let sandbox = arguments.next().ok_or("usage: follow SANDBOX URL…")?;
    let mut builder = Client::builder().sandbox(sandbox).endpoints(arguments);
    if let Some(path) = std::env::var_os("EVERMINT_TOKEN_FILE") {
        builder = builder.sandbox_token_file(path, Renewals::InMemory);
    }
    if let Some(path) = std::env::var_os("EVERMINT_CA") {
        builder = builder.ca_certificate(std::fs::read(path)?);
    }
    let client = builder.build()?;
    let mut changes = client.subscribe();
    show(&*client.wait_ready().await?)?;
    loop {
        tokio::select! {
            snapshot = changes.changed() => show(&*snapshot?)?,
            () = interrupted() => break,
        }
    }
    write!(stdout(), "{}", client.prometheus())?;
    Ok(())
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

fn show(snapshot: &Snapshot) -> std::io::Result<()> {
    let mut out = stdout().lock();
    let generation = snapshot.generation().unwrap_or_default();
    writeln!(
        out,
        "generation {generation}, revision {}",
        snapshot.revision()
    )?;
    for route in snapshot.routes() {
        let (name, model) = (route.name(), route.model());
        match route.token().usable() {
            Ok(()) => writeln!(out, "  route {name} → {model}: usable")?,
            Err(why) => writeln!(out, "  route {name} → {model}: {why}")?,
        }
    }
    for credential in snapshot.credentials() {
        let token = credential.token();
        match (token.usable(), token.good_for()) {
            (Ok(()), Some(left)) => {
                writeln!(out, "  {}: good for {} s", credential.key(), left.as_secs())?;
            }
            (Ok(()), None) => writeln!(out, "  {}: good", credential.key())?,
            (Err(why), _) => writeln!(out, "  {}: {why}", credential.key())?,
        }
    }
    Ok(())
}
