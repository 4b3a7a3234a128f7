//! From an acknowledged commit to the last of many watchers, beside a bare tonic fan-out of the
//! same size from one server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermint_proto::v1::WatchBundleRequest;
use evermint_proto::v1::bundles_client::BundlesClient;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::echo::{Answer, Echo};
use crate::fleet::{Fleet, SANDBOX};
use crate::measure::{ms, quantile, say};

/// Connections that the watchers share.
const CONNECTIONS: usize = 30;
/// Changes that are timed.
const CHANGES: u64 = 20;
/// The longest that the last watcher may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(fleet: &Fleet, watchers: usize) -> anyhow::Result<()> {
    let echo = Echo::start(fleet.bundle().await?)?;
    let size = echo.answer.borrow().bundle.len();
    say(format_args!(
        "\nFrom a commit to the last of {watchers} watchers on {CONNECTIONS} connections, {size} bytes, median and worst of {CHANGES}"
    ));

    let bare = Crowd::gather(vec![echo.url.clone()], watchers).await?;
    let mut alone = Vec::new();
    for generation in 1..=CHANGES {
        let began = Instant::now();
        let bundle = Bytes::clone(&echo.answer.borrow().bundle);
        echo.answer.send_replace(Answer { bundle, generation });
        bare.all_saw(generation).await?;
        alone.push(began.elapsed());
    }
    drop(bare);

    let crowd = Crowd::gather(fleet.apis(), watchers).await?;
    let (mut acknowledged, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..CHANGES {
        let began = Instant::now();
        let generation = fleet.change_bundle().await?;
        let committed = Instant::now();
        acknowledged.push(committed - began);
        crowd.all_saw(generation).await?;
        seen.push(committed.elapsed());
    }
    let row = |what: &str, times: &mut [Duration]| {
        let half = quantile(times, 0.5);
        say(format_args!(
            "{what:<44} {:>10} {:>10}",
            ms(half),
            ms(quantile(times, 1.0))
        ));
        half
    };
    row(
        "the write itself, to its acknowledgement",
        &mut acknowledged,
    );
    let ours = row("acknowledgement to the last watcher", &mut seen);
    let bare = row("bare tonic fan-out from one server", &mut alone);
    say(format_args!(
        "ratio {:.2}",
        ours.as_secs_f64() / bare.as_secs_f64()
    ));
    Ok(())
}

/// Watchers that note the newest generation that they saw.
struct Crowd {
    seen: Vec<watch::Receiver<u64>>,
    _streams: JoinSet<()>,
}

impl Crowd {
    /// Starts `count` watchers, spread over `urls`, and waits until each has its first bundle.
    async fn gather(urls: Vec<String>, count: usize) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for n in 0..CONNECTIONS {
            let endpoint = Channel::from_shared(urls[n % urls.len()].clone())?.tcp_nodelay(true);
            channels.push(endpoint.connect().await?);
        }
        let mut streams = JoinSet::new();
        let mut seen = Vec::new();
        for n in 0..count {
            let mut client = BundlesClient::new(channels[n % CONNECTIONS].clone());
            let request = WatchBundleRequest {
                sandbox: SANDBOX.to_owned(),
                ..WatchBundleRequest::default()
            };
            let mut stream = client.watch_bundle(request).await?.into_inner();
            stream.message().await?;
            let newest = Arc::new(watch::Sender::new(0));
            seen.push(newest.subscribe());
            streams.spawn(async move {
                while let Ok(Some(message)) = stream.message().await {
                    newest.send_if_modified(|seen| {
                        let newer = message.generation > *seen;
                        *seen = message.generation.max(*seen);
                        newer
                    });
                }
            });
        }
        Ok(Self {
            seen,
            _streams: streams,
        })
    }

    async fn all_saw(&self, generation: u64) -> anyhow::Result<()> {
        let all = async {
            for watcher in &self.seen {
                let mut watcher = watcher.clone();
                watcher.wait_for(|seen| *seen >= generation).await?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, all).await?
    }
}
