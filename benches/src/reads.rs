//! Bundle reads per second, beside a bare tonic answer of the same size.

use std::time::Duration;

use evermint_proto::v1::GetBundleRequest;
use evermint_proto::v1::bundles_client::BundlesClient;
use tonic::transport::Channel;

use crate::echo::Echo;
use crate::fleet::{Fleet, SANDBOX};
use crate::measure::{Sample, closed_loop, median, ms, say};

/// Connections that many clients share.
const CONNECTIONS: usize = 8;

pub(crate) async fn run(fleet: &Fleet, step: Duration, rounds: usize) -> anyhow::Result<()> {
    let bundle = fleet.bundle().await?;
    let echo = Echo::start(bundle.clone())?;
    say(format_args!(
        "\nBundle reads, {} bytes, beside a bare tonic answer of the same size",
        bundle.len()
    ));
    say("clients  evermint/s      p50      p99   tonic/s      p50      p99   ratio");
    for clients in [1, 64] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            bare.push(reads(&echo.url, clients, step).await?);
            ours.push(reads(fleet.api(0), clients, step).await?);
        }
        let (ours, bare) = (median(ours), median(bare));
        say(format_args!(
            "{clients:>7}  {:>10.0}  {:>7}  {:>7}  {:>8.0}  {:>7}  {:>7}  {:>5.2}",
            ours.per_second,
            ms(ours.p50),
            ms(ours.p99),
            bare.per_second,
            ms(bare.p50),
            ms(bare.p99),
            ours.per_second / bare.per_second
        ));
    }
    Ok(())
}

async fn reads(url: &str, clients: usize, step: Duration) -> anyhow::Result<Sample> {
    let mut channels = Vec::new();
    for _ in 0..clients.min(CONNECTIONS) {
        let endpoint = Channel::from_shared(url.to_owned())?.tcp_nodelay(true);
        channels.push(endpoint.connect().await?);
    }
    let workers = (0..clients)
        .map(|n| BundlesClient::new(channels[n % channels.len()].clone()))
        .collect();
    closed_loop(workers, step, |mut client| async move {
        let request = GetBundleRequest {
            sandbox: SANDBOX.to_owned(),
            ..GetBundleRequest::default()
        };
        client.get_bundle(request).await?;
        Ok(client)
    })
    .await
}
