//! Shows what a child process is given in place of secrets, and where they would resolve:
//!
//! ```text
//! cargo run -p evermint-client --example placeholders -- agent-7 http://127.0.0.1:7600 …
//! ```

use std::io::{Write as _, stdout};

use evermint_client::{BoxError, Client};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let sandbox = arguments.next().ok_or("usage: placeholders SANDBOX URL…")?;
    let client = Client::builder()
        .sandbox(sandbox)
        .endpoints(arguments)
        .build()?;
    let snapshot = client.wait_ready().await?;
    let environment = snapshot.child_environment();
    let mut out = stdout().lock();
    for (name, value) in &environment {
        writeln!(out, "{name}={value}")?;
    }
    for problem in snapshot.problems() {
        writeln!(
            out,
            "# {} {}: {}",
            problem.provider, problem.key, problem.cause
        )?;
    }
    // What a proxy does with each call of the child; here to the places that secrets are bound to,
    // as far as these are no patterns, and to one that none is.
    for credential in snapshot.credentials() {
        let bound = credential
            .endpoints()
            .iter()
            .map(|b| (b.host.as_str(), b.port));
        for (host, port) in bound.chain([("evil.example", 443)]) {
            let resolver = snapshot.resolver(host, port, "/")?;
            for variable in credential.variables() {
                let header = format!("Bearer {}", environment[&variable.key]);
                match resolver.header(header.as_bytes()) {
                    Ok(_) => writeln!(out, "# {} resolves at {host}:{port}", variable.key)?,
                    Err(refused) => writeln!(out, "# at {host}:{port}: {refused}")?,
                }
            }
        }
    }
    Ok(())
}
