//! OpenShell's sandboxes, which one error costs every credential and which cannot say what they
//! have seen, beside a cluster that is hurt.

use std::time::{Duration, Instant};

use evermint_cluster_tests::{
    Cluster, Counted, OpenShellFindings, OpenShellSandbox, Options, eventually, say,
};
use tokio::sync::watch;
use tonic::Code;

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

/// Sets new values until `sandboxes` were given one that was set after the call.
async fn progress(counted: &Counted, sandbox: &OpenShellSandbox, replica: usize) {
    let next = counted.count_up().await;
    eventually("the sandbox gets the new value", BOUND, async || {
        let environment = sandbox.environment(replica).await;
        let environment = environment.map_err(|status| format!("{status:?}"))?;
        match OpenShellSandbox::count(&environment)? {
            count if count >= next => Ok(()),
            count => Err(format!("{count}, not yet {next}")),
        }
    })
    .await;
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
    let writer = {
        let (counted, mut stopped) = (counted.clone(), stopped.clone());
        tokio::spawn(async move {
            while !*stopped.borrow() {
                counted.count_up().await;
                let pause = Duration::from_millis(150);
                let _ = tokio::time::timeout(pause, stopped.changed()).await;
            }
        })
    };

    // The leader dies: every replica that is left answers all the time.
    let leader = cluster.leader().await;
    cluster.kill(leader);
    let follower = cluster.others(leader).next().expect("a follower");
    progress_of(&counted, &sandboxes[0], follower).await;
    cluster.start_one(leader);
    cluster.ready(BOUND).await;

    // A replica stands still while the others go on, and is asked in the moment it wakes.
    let leader = cluster.leader().await;
    let asleep = cluster.others(leader).next().expect("a follower");
    cluster.pause(asleep);
    let before = counted.acknowledged();
    eventually("the others go on", BOUND, async || {
        (counted.acknowledged() > before + 3)
            .then_some(())
            .ok_or(String::new())
    })
    .await;
    cluster.resume(asleep);
    let known = counted.acknowledged();
    let woken = sandboxes[0].environment(asleep).await.expect("an answer");
    let count = OpenShellSandbox::count(&woken).expect("a whole environment");
    assert!(count >= known, "{count}, after {known}");

    stop.send_replace(true);
    writer.await.expect("the writer does not panic");
    for poller in polling {
        let found: OpenShellFindings = poller.await.expect("a sandbox does not panic");
        assert_eq!(found.broken, Vec::<String>::new());
        assert!(found.installed > 5 && found.bundles > 20, "{found:?}");
        say(&format!("{found:?}"));
    }
    in_doubt(&mut cluster, &counted, &sandboxes[0]).await;
}

/// Waits until a sandbox is given a value that was set after the call.
async fn progress_of(counted: &Counted, sandbox: &OpenShellSandbox, replica: usize) {
    let next = counted.acknowledged() + 1;
    eventually("the sandbox gets a new value", BOUND, async || {
        let environment = sandbox.environment(replica).await;
        let environment = environment.map_err(|status| format!("{status:?}"))?;
        match OpenShellSandbox::count(&environment)? {
            count if count >= next => Ok(()),
            count => Err(format!("{count}, not yet {next}")),
        }
    })
    .await;
}

/// With nobody left to say whether it is up to date, a replica gives what it has to those who would
/// lose what they have, and refuses those who keep it.
async fn in_doubt(cluster: &mut Cluster, counted: &Counted, sandbox: &OpenShellSandbox) {
    let leader = cluster.leader().await;
    let alone = cluster.others(leader).next().expect("a follower");
    progress(counted, sandbox, alone).await;
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
