//! The issuer as a process of its own, for tests that kill replicas and for trying things by hand.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use clap::{Parser, ValueEnum};
use evermint_issuer::{Client, Config, ExpiresIn, Issuer, Policy, Rotation};

/// A strict OAuth 2.0 issuer on loopback: rotating refresh tokens with reuse detection, faults on
/// request, a history of every token request. Driven over /admin, which has no authentication.
#[derive(Parser)]
#[command(name = "evermint-issuer", version)]
struct Options {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 9400)]
    port: u16,

    /// Lifetime of access tokens
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    access_ttl: u64,

    /// Lifetime of each refresh token [default: no end]
    #[arg(long, value_name = "SECONDS")]
    refresh_ttl: Option<u64>,

    /// How long the refresh token used last may be used again
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    grace: u64,

    /// What happens to a used refresh token
    #[arg(long, value_enum, default_value_t = Use::Single)]
    rotation: Use,

    /// The shape of expires_in
    #[arg(long, value_enum, default_value_t = Shape::Number)]
    expires_in: Shape,

    /// Time that every token request takes
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_ms: u64,

    /// A client to register at start, with the secret `<CLIENT>-secret`; may be repeated
    #[arg(long, value_name = "CLIENT")]
    client: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Use {
    /// Works once; using it again revokes the family
    Single,
    /// Works once; using it again is refused
    SingleNoDetection,
    /// A new one each time, old ones stay good
    Replayable,
    /// The same one for ever
    Off,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shape {
    Number,
    Text,
    Null,
    Absent,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .init();
    let issuer = Issuer::start(config(&options)).await?;
    for id in &options.client {
        issuer
            .handle()
            .register(Client::new(id).secret(format!("{id}-secret")));
    }
    // One line, flushed: whoever started us waits for it.
    let mut out = io::stdout();
    writeln!(out, "evermint-issuer ready {}", issuer.url())?;
    out.flush()?;

    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    issuer.shutdown().await;
    Ok(())
}

fn config(options: &Options) -> Config {
    Config {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)),
        policy: Policy {
            access_ttl: Duration::from_secs(options.access_ttl),
            refresh_ttl: options.refresh_ttl.map(Duration::from_secs),
            grace: Duration::from_secs(options.grace),
            rotation: match options.rotation {
                Use::Single => Rotation::SingleUse,
                Use::SingleNoDetection => Rotation::SingleUseNoDetection,
                Use::Replayable => Rotation::Replayable,
                Use::Off => Rotation::Off,
            },
            expires_in: match options.expires_in {
                Shape::Number => ExpiresIn::Number,
                Shape::Text => ExpiresIn::Text,
                Shape::Null => ExpiresIn::Null,
                Shape::Absent => ExpiresIn::Absent,
            },
        },
        latency: Duration::from_millis(options.latency_ms),
        admin: true,
    }
}
