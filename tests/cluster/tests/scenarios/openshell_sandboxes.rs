//! OpenShell's sandboxes, which one error costs every credential and which cannot say what they
//! have seen, beside a cluster that is hurt.

use std::time::{Duration, Instant};

use evermint_cluster_tests::{
    Cluster, Counted, OpenShellFindings, OpenShellSandbox, Options, eventually, say,
};
use tokio::sync::watch;
use tonic::Code;

/// The pause between two new values.
const WRITE_EVERY: Duration = Duration::from_millis(150);
const BOUND: Duration = Duration::from_secs(30);
/// How long a replica may take to answer a sandbox when nobody can tell it whether it is up to
/// date: what it gives to asking, and a loaded machine.
const IN_DOUBT: Duration = Duration::from_secs(15);

/// The URLs of a cluster's replicas.
fn urls(cluster: &Cluster) -> Vec<String> {
    let port = |n| cluster.replica(n).api_port;
    (0..cluster.len())
        .map(|n| format!("http://127.0.0.1:{}", port(n)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_that_cannot_say_what_they_saw_lose_nothing_and_never_go_back() {
    let mut cluster = Cluster::start(Options::default()).await;
    let admin = cluster.admin().clone();
    let counted = Counted::register(&admin).await;
    let (stop, stopped) = watch::channel(false);
    let mut polling = Vec::new();
    let mut sandboxes = Vec::new();
    for name in ["one", "two"] {
        let sandbox = OpenShellSandbox::create(&admin, urls(&cluster), &counted, name).await;
        sandboxes.push(sandbox.clone());
        polling.push(sandbox.poll(stopped.clone()));
    }
    let writing = async {
        loop {
            counted.count_up().await;
            tokio::time::sleep(WRITE_EVERY).await;
        }
    };
    tokio::select! {
        () = writing => {}
        () = hurt(&mut cluster, &counted, &sandboxes[0]) => {}
    }
    stop.send_replace(true);
    for poller in polling {
        let found: OpenShellFindings = poller.await.expect("a sandbox does not panic");
        assert_eq!(found.broken, Vec::<String>::new());
        assert!(found.installed > 2 && found.bundles > 3, "{found:?}");
        say(&format!("{found:?}"));
    }
    in_doubt(&mut cluster, &counted, &sandboxes[0]).await;
}

/// What the sandboxes must not notice.
async fn hurt(cluster: &mut Cluster, counted: &Counted, sandbox: &OpenShellSandbox) {
    // The leader dies: every replica that is left answers all the time.
    let leader = cluster.leader().await;
    cluster.kill(leader);
    let follower = cluster.others(leader).next().expect("a follower");
    given(sandbox, follower, counted.acknowledged() + 1).await;
    cluster.start_one(leader);
    cluster.ready(BOUND).await;

    // A replica stands still while the others go on, and is asked in the moment it wakes.
    let leader = cluster.leader().await;
    let asleep = cluster.others(leader).next().expect("a follower");
    cluster.pause(asleep);
    let before = counted.acknowledged();
    eventually("the others go on", BOUND, async || {
        let now = counted.acknowledged();
        (now > before + 3).then_some(()).ok_or(format!("{now}"))
    })
    .await;
    cluster.resume(asleep);
    let known = counted.acknowledged();
    let woken = sandbox.environment(asleep).await.expect("an answer");
    let count = OpenShellSandbox::count(&woken).expect("a whole environment");
    assert!(count >= known, "{count}, after {known}");
}

/// Waits until a replica gives the sandbox the value of `count`, or a later one.
async fn given(sandbox: &OpenShellSandbox, replica: usize, count: u64) {
    eventually("the sandbox gets a new value", BOUND, async || {
        let environment = sandbox.environment(replica).await;
        let environment = environment.map_err(|status| format!("{status:?}"))?;
        match OpenShellSandbox::count(&environment)? {
            given if given >= count => Ok(()),
            given => Err(format!("{given}, not yet {count}")),
        }
    })
    .await;
}

/// With nobody left to say whether it is up to date, a replica gives what it has to those who would
/// lose what they have, and refuses those who keep it.
async fn in_doubt(cluster: &mut Cluster, counted: &Counted, sandbox: &OpenShellSandbox) {
    let leader = cluster.leader().await;
    let alone = cluster.others(leader).next().expect("a follower");
    let next = counted.count_up().await;
    given(sandbox, alone, next).await;
    for other in cluster.others(alone) {
        cluster.pause(other);
    }
    let asked = Instant::now();
    let (environment, bundle, revision) = tokio::join!(
        sandbox.environment(alone),
        sandbox.bundle(alone),
        sandbox.revision(alone)
    );
    let took = asked.elapsed();
    let count = OpenShellSandbox::count(&environment.expect("what it has"));
    assert_eq!(count, Ok(counted.acknowledged()));
    assert_eq!(bundle.expect("what it has").routes.len(), 1);
    assert_eq!(revision.expect_err("in doubt").code(), Code::Unavailable);
    assert!(took < IN_DOUBT, "{took:?}");
    for other in cluster.others(alone) {
        cluster.resume(other);
    }
    eventually("it is sure again", BOUND, async || {
        let revision = sandbox.revision(alone).await;
        revision.map(drop).map_err(|status| format!("{status:?}"))
    })
    .await;
}
