//! A client of the token endpoint, and bounds for waiting.

use std::{future::Future, sync::LazyLock, time::Duration};

use evermint_issuer::{Client, Config, Handle, Issuer, Record, Running, Seeded};
use serde_json::Value;

/// No event that these tests wait for takes longer; it is only ever reached by a failure.
const BOUND: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future)
        .await
        .expect("it happens within the bound")
}

/// One client for all tests, without kept connections: those would belong to a test's own runtime.
pub(crate) fn http() -> &'static reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()
            .unwrap()
    });
    &CLIENT
}

/// An issuer with one confidential client `c` and its first refresh token.
pub(crate) async fn issuer() -> (Running, Seeded) {
    issuer_with(Client::new("c")).await
}

pub(crate) async fn issuer_with(client: Client) -> (Running, Seeded) {
    let running = Issuer::start(Config {
        admin: true,
        ..Config::default()
    })
    .await
    .unwrap();
    let seeded = running.handle().seed(client.secret("s"));
    (running, seeded)
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn text(&self, name: &str) -> String {
        self.body[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} in {:?}", self.body))
            .to_owned()
    }

    pub(crate) fn error(&self) -> (u16, String) {
        (self.status, self.text("error"))
    }
}

/// Sends a form to `/token` with the client's secret in the form.
pub(crate) async fn post(url: &str, fields: &[(&str, &str)]) -> reqwest::Result<Reply> {
    reply(http().post(format!("{url}/token")).form(fields)).await
}

pub(crate) async fn reply(request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
    let response = within(request.send()).await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = within(response.text()).await?;
    Ok(Reply {
        status,
        headers,
        body: serde_json::from_str(&body).unwrap_or(Value::String(body)),
    })
}

/// Refreshes as client `c`.
pub(crate) async fn refresh(url: &str, token: &str) -> reqwest::Result<Reply> {
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", token),
        ("client_id", "c"),
        ("client_secret", "s"),
    ];
    post(url, &fields).await
}

/// Refreshes in the background, as a replica that waits for its answer does.
pub(crate) fn refreshing(
    url: &str,
    token: &str,
) -> tokio::task::JoinHandle<reqwest::Result<Reply>> {
    let (url, token) = (url.to_owned(), token.to_owned());
    tokio::spawn(async move { refresh(&url, &token).await })
}

pub(crate) async fn resource(url: &str, token: &str) -> Reply {
    reply(http().get(format!("{url}/resource")).bearer_auth(token))
        .await
        .unwrap()
}

/// The record of `seq` once it has ended.
pub(crate) async fn ended(handle: &Handle, seq: u64) -> Record {
    within(handle.until(|history| {
        history
            .records()
            .find(|record| record.seq == seq && record.end.is_some())
            .cloned()
    }))
    .await
}
