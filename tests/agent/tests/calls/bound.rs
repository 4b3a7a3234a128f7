//! Placeholders on their way through the proxy: secrets at the endpoints that they are bound to, and
//! nowhere else.

use std::collections::BTreeMap;

use evermint_agent::Config;
use evermint_agent_tests::{Api, Gateway, Running, TlsFront, bundle, credential, token};
use evermint_proto::v1;
use reqwest::{Certificate, Proxy};

const PATH: &str = "/v1/chat/completions";

struct World {
    gateway: Gateway,
    api: Api,
    front: TlsFront,
    running: Running,
}

/// A credential that is bound to these endpoints of `localhost`.
fn bound(generation: u64, value: &str, ports: &[u16]) -> v1::Bundle {
    let endpoints = ports.iter().map(|port| v1::EndpointBinding {
        host: "localhost".to_owned(),
        port: (*port).into(),
        path: "/v1/**".to_owned(),
        body_rewrite: true,
    });
    let endpoints = endpoints.collect();
    let live = token("API_TOKEN", value, generation, Some(600_000));
    let mut credential = v1::BundleCredential {
        endpoints,
        ..credential("test", "API_TOKEN", live)
    };
    for variable in &mut credential.variables {
        variable.handle = "5".repeat(64);
    }
    bundle(generation, Vec::new(), vec![credential])
}

/// An agent with a secret that is bound to the API, plain and behind TLS.
async fn start() -> World {
    let (gateway, api) = (Gateway::start().await, Api::start().await);
    let front = TlsFront::before(api.address()).await;
    api.accept(&["live-secret", "newer-secret", "sent-as-it-is"]);
    gateway.serve(bound(
        1,
        "live-secret",
        &[front.port(), api.address().port()],
    ));
    let authorities = front.certificate().as_bytes().to_vec();
    let running = Running::start(
        &gateway,
        Config {
            authorities,
            ..Config::default()
        },
    )
    .await;
    World {
        gateway,
        api,
        front,
        running,
    }
}

impl World {
    /// The placeholder that a command would be given.
    fn placeholder(&self) -> String {
        let variables: BTreeMap<_, _> = self.running.agent.environment().unwrap();
        variables["API_TOKEN"].clone()
    }

    fn client(&self) -> reqwest::Client {
        let own = std::fs::read(self.running.agent.certificate_file()).unwrap();
        reqwest::Client::builder()
            .proxy(Proxy::all(self.running.url("")).unwrap())
            .tls_certs_only([Certificate::from_pem(&own).unwrap()])
            .build()
            .unwrap()
    }

    /// The API with TLS, and without.
    fn urls(&self) -> [String; 2] {
        let plain = self.api.address().port();
        [
            format!("https://localhost:{}{PATH}", self.front.port()),
            format!("http://localhost:{plain}{PATH}"),
        ]
    }
}

#[tokio::test]
async fn a_placeholder_is_a_secret_where_it_is_bound_to() {
    let world = start().await;
    let placeholder = world.placeholder();
    assert!(!placeholder.contains("live-secret"));
    for url in world.urls() {
        let request = world.client().post(&url).bearer_auth(&placeholder);
        let body = format!(r#"{{"token":"{placeholder}"}}"#);
        let answer = request
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{url}");
        let seen = world.api.last();
        assert_eq!(
            (seen.token.as_str(), &seen.body["token"]),
            ("live-secret", &"live-secret".into())
        );
        assert!(
            seen.headers["host"]
                .to_str()
                .unwrap()
                .starts_with("localhost:")
        );
    }
    // The same placeholder means the newest value.
    let ports = [world.front.port(), world.api.address().port()];
    world.gateway.serve(bound(2, "newer-secret", &ports));
    world.running.has(2).await;
    let [url, _] = world.urls();
    assert_eq!(
        world
            .client()
            .post(url)
            .bearer_auth(&placeholder)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(world.api.last().token, "newer-secret");
}

#[tokio::test]
async fn a_call_without_a_placeholder_goes_on_as_it_is() {
    let world = start().await;
    for url in world.urls() {
        let request = world
            .client()
            .post(&url)
            .bearer_auth("sent-as-it-is")
            .body("{}");
        assert_eq!(request.send().await.unwrap().status(), 200, "{url}");
        assert_eq!(world.api.last().token, "sent-as-it-is");
    }
}

#[tokio::test]
async fn what_cannot_be_resolved_is_not_sent() {
    let world = start().await;
    let own = world.placeholder();
    let unknown = own.replace("s5", "s6");
    let [bound_url, _] = world.urls();
    let outside = bound_url.replace("/v1/", "/v2/");
    // The same API by another name, to which nothing is bound.
    let elsewhere = format!("http://127.0.0.1:{}{PATH}", world.api.address().port());
    for (url, placeholder, status) in [
        (&bound_url, &unknown, 500),
        (&outside, &own, 403),
        (&elsewhere, &own, 403),
    ] {
        let answer = world
            .client()
            .post(url)
            .bearer_auth(placeholder)
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{url}");
        assert!(!answer.text().await.unwrap().contains("live-secret"));
    }
    world.gateway.serve(bundle(2, Vec::new(), Vec::new()));
    world.running.has(2).await;
    let plain = format!("http://localhost:{}{PATH}", world.api.address().port());
    let revoked = world
        .client()
        .post(plain)
        .bearer_auth(&own)
        .body("{}")
        .send()
        .await
        .unwrap();
    assert!(!revoked.status().is_success());
    assert!(world.api.seen().is_empty(), "{:?}", world.api.seen());
}
