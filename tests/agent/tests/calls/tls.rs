//! TLS by the local authority, on the same port; HTTP/2 with and without it.

use evermint_agent::Config;
use evermint_agent_tests::{Api, Gateway, Running, bundle, route, token};
use reqwest::{Certificate, ClientBuilder, Version};

async fn start() -> (Gateway, Api, Running) {
    let (gateway, api) = (Gateway::start().await, Api::start().await);
    api.accept(&["live"]);
    let live = token("API_TOKEN", "live", 1, None);
    gateway.serve(bundle(
        1,
        vec![route("inference.local", &api.url(), live)],
        Vec::new(),
    ));
    let running = Running::start(&gateway, Config::default()).await;
    (gateway, api, running)
}

fn trusting(running: &Running) -> ClientBuilder {
    let pem = std::fs::read(running.agent.certificate_file()).unwrap();
    let authority = Certificate::from_pem(&pem).unwrap();
    reqwest::Client::builder().tls_certs_only([authority])
}

#[tokio::test]
async fn calls_are_taken_plain_and_with_tls_over_both_versions_of_http() {
    let (_gateway, _api, running) = start().await;
    let address = running.agent.address();
    let plain = || reqwest::Client::builder();
    for (client, url, version) in [
        (plain(), format!("http://{address}"), Version::HTTP_11),
        (
            plain().http2_prior_knowledge(),
            format!("http://{address}"),
            Version::HTTP_2,
        ),
        (
            trusting(&running),
            format!("https://localhost:{}", address.port()),
            Version::HTTP_2,
        ),
        (
            trusting(&running).http1_only(),
            format!("https://{address}"),
            Version::HTTP_11,
        ),
        (
            trusting(&running).resolve("inference.local", address),
            format!("https://inference.local:{}", address.port()),
            Version::HTTP_2,
        ),
    ] {
        let request = client
            .build()
            .unwrap()
            .post(format!("{url}/v1/chat/completions"));
        let answer = request.body("{}").send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.version()),
            (200, version),
            "{url}"
        );
    }
}

#[tokio::test]
async fn the_authority_vouches_for_no_other_host_on_this_port() {
    let (_gateway, _api, running) = start().await;
    let address = running.agent.address();
    let client = trusting(&running)
        .resolve("api.example", address)
        .build()
        .unwrap();
    let url = format!("https://api.example:{}/v1/models", address.port());
    assert!(client.get(url).send().await.is_err());
}

#[tokio::test]
async fn nobody_trusts_it_without_being_told() {
    let (_gateway, _api, running) = start().await;
    let url = format!(
        "https://localhost:{}/v1/models",
        running.agent.address().port()
    );
    assert!(reqwest::get(url).await.is_err());
}
