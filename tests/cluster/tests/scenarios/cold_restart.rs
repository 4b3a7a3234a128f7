//! Every replica is killed at once, in the middle of writes: what was acknowledged is there when
//! they come back, and they agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evermint_cluster_tests::{Admin, Cluster, Options, eventually, say};
use evermint_proto::v1::providers_client::ProvidersClient;
use evermint_proto::v1::{
    CreateProviderRequest, GetClusterStatusResponse, ListProvidersRequest, Provider,
    UpdateProviderRequest,
};

const WRITERS: usize = 8;
/// Writes that have to be acknowledged before the kill.
const WRITES: u64 = 400;
const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_sigkill_of_all_replicas_at_once() {
    let mut cluster = Cluster::start(Options::default()).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(cluster.admin().clone(), n, Arc::clone(&acknowledged))))
        .collect();
    eventually("enough writes are acknowledged", BOUND, async || {
        let n = acknowledged.load(Ordering::Relaxed);
        (n >= WRITES).then_some(()).ok_or(format!("{n}"))
    })
    .await;
    cluster.kill_all();
    let mut written = BTreeMap::new();
    for writer in writers {
        let (name, value) = writer.await.expect("a writer does not panic");
        written.insert(name, value);
    }

    for n in 0..cluster.len() {
        cluster.start_one(n);
    }
    cluster.ready(BOUND).await;
    let position = same_position(&cluster).await;
    let mut views = Vec::new();
    for n in 0..cluster.len() {
        let providers = list(cluster.admin(), n).await;
        for (name, value) in &written {
            let provider = providers.iter().find(|p| p.name == *name);
            let there = provider.and_then(|p| p.config.get("n")?.parse().ok());
            // The write after the last acknowledged one was under way: it may be there.
            assert!(
                there == Some(*value) || there == Some(*value + 1),
                "replica {n}: {name} has {there:?}, and {value} was acknowledged"
            );
        }
        views.push(providers);
    }
    assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "{views:?}");
    say(&format!(
        "{} acknowledged writes of {WRITERS} writers on all replicas, at position {position}",
        acknowledged.load(Ordering::Relaxed)
    ));
}

/// Writes one provider's setting, counting up, until the replicas are gone. Says what was
/// acknowledged last.
async fn write(admin: Admin, writer: usize, acknowledged: Arc<AtomicU64>) -> (String, u64) {
    let name = format!("writer-{writer}");
    let mut client = ProvidersClient::new(admin.on(writer % admin.replicas()));
    let create = CreateProviderRequest {
        name: name.clone(),
        r#type: "generic-oauth2".to_owned(),
        config: [("n".to_owned(), "0".to_owned())].into(),
        ..CreateProviderRequest::default()
    };
    client.create_provider(create).await.expect("created");
    for n in 1.. {
        acknowledged.fetch_add(1, Ordering::Relaxed);
        let update = UpdateProviderRequest {
            name: name.clone(),
            config: [("n".to_owned(), n.to_string())].into(),
            ..UpdateProviderRequest::default()
        };
        if client.update_provider(update).await.is_err() {
            return (name, n - 1);
        }
    }
    unreachable!("numbers do not end")
}

/// Waits until all replicas have applied the same history, and count the same objects.
async fn same_position(cluster: &Cluster) -> u64 {
    eventually("all replicas are equal", BOUND, async || {
        let mut seen = Vec::new();
        for n in 0..cluster.len() {
            let status: GetClusterStatusResponse = cluster.status(n).await.ok_or("no status")?;
            seen.push((status.position, status.counts, status.placement_version));
        }
        match seen.windows(2).all(|pair| pair[0] == pair[1]) {
            true => Ok(seen[0].0),
            false => Err(format!("{seen:?}")),
        }
    })
    .await
}

async fn list(admin: &Admin, replica: usize) -> Vec<Provider> {
    let mut client = ProvidersClient::new(admin.on(replica));
    let request = ListProvidersRequest {
        page_size: 1_000,
        ..ListProvidersRequest::default()
    };
    let answer = client.list_providers(request).await;
    answer.expect("a list of providers").into_inner().providers
}
