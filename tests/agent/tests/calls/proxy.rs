//! The forward proxy: what goes through it, and what does not.

use evermint_agent::{Config, Unbound};
use evermint_agent_tests::{Api, Gateway, Running, bundle, route, token};
use reqwest::{Certificate, Proxy};

async fn start(unbound: Unbound) -> (Gateway, Api, Running) {
    let (gateway, api) = (Gateway::start().await, Api::start().await);
    api.accept(&["live", "the-callers-own"]);
    let live = token("API_TOKEN", "live", 1, None);
    gateway.serve(bundle(
        1,
        vec![route("inference.local", &api.url(), live)],
        Vec::new(),
    ));
    let running = Running::start(
        &gateway,
        Config {
            unbound,
            ..Config::default()
        },
    )
    .await;
    (gateway, api, running)
}

/// A client that goes through the agent, and trusts its authority.
fn client(running: &Running) -> reqwest::Client {
    let pem = std::fs::read(running.agent.certificate_file()).unwrap();
    reqwest::Client::builder()
        .proxy(Proxy::all(running.url("")).unwrap())
        .tls_certs_only([Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap()
}

#[tokio::test]
async fn inference_local_is_reached_by_its_name() {
    let (_gateway, api, running) = start(Unbound::Refuse).await;
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://inference.local/v1/chat/completions");
        let request = client(&running)
            .post(url)
            .bearer_auth("the-callers-own")
            .body("{}");
        assert_eq!(request.send().await.unwrap().status(), 200, "{scheme}");
        assert_eq!(api.last().token, "live");
    }
}

#[tokio::test]
async fn what_nothing_is_bound_to_passes_as_it_is_or_is_refused() {
    for (unbound, status) in [(Unbound::Pass, 200), (Unbound::Refuse, 403)] {
        let (_gateway, api, running) = start(unbound).await;
        let url = format!("{}/v1/chat/completions", api.url());
        let request = client(&running)
            .post(&url)
            .bearer_auth("the-callers-own")
            .body("{}");
        assert_eq!(
            request.send().await.unwrap().status(),
            status,
            "{unbound:?}"
        );
        let tokens: Vec<_> = api.seen().into_iter().map(|seen| seen.token).collect();
        assert_eq!(
            tokens,
            if status == 200 {
                vec!["the-callers-own"]
            } else {
                vec![]
            }
        );
    }
}

#[tokio::test]
async fn a_tunnel_to_what_nothing_is_bound_to_is_not_opened() {
    // Another agent's TLS at the other end of the tunnel: its authority is seen, not this one's.
    let (_gateway, _api, other) = start(Unbound::Pass).await;
    for (unbound, passes) in [(Unbound::Pass, true), (Unbound::Refuse, false)] {
        let (_gateway, _api, running) = start(unbound).await;
        let pem = std::fs::read(other.agent.certificate_file()).unwrap();
        let client = reqwest::Client::builder()
            .proxy(Proxy::all(running.url("")).unwrap())
            .tls_certs_only([Certificate::from_pem(&pem).unwrap()])
            .build()
            .unwrap();
        let url = format!(
            "https://localhost:{}/v1/models",
            other.agent.address().port()
        );
        let answer = client.get(url).send().await;
        assert_eq!(
            answer.is_ok_and(|a| a.status() == 200),
            passes,
            "{unbound:?}"
        );
    }
}
