//! A call through the agent, beside the same call to the API itself, and beside one through a bare
//! proxy of the same HTTP library, which passes on and does nothing else: what a hop costs anyway.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use evermint_agent::Config;
use evermint_agent_tests::{Api, Gateway, Running, bundle, route, token};
use futures::FutureExt as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::measure::{Sample, closed_loop, median, ms, say};

const PATH: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"mine","messages":[{"role":"user","content":"hi"}]}"#;

pub(crate) async fn run(step: Duration, rounds: usize) -> anyhow::Result<()> {
    let api = Api::judged(Arc::new(|_| async { Ok(()) }.boxed())).await;
    let gateway = Gateway::start().await;
    let live = token("API_TOKEN", "live", 1, None);
    let routes = vec![route("inference.local", &api.url(), live)];
    gateway.serve(bundle(1, routes, Vec::new()));
    let agent = Running::start(&gateway, Config::default()).await;
    let proxy = pass_on(api.address()).await?;

    say("\nCalls through the agent, beside calls to the API itself and through a bare proxy");
    say(
        "callers   agent p50      p99   proxy p50      p99  direct p50      p99  / proxy  / direct",
    );
    for callers in [1, 16] {
        let (mut through, mut bare, mut direct) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            direct.push(calls(api.address(), callers, step).await?);
            bare.push(calls(proxy, callers, step).await?);
            through.push(calls(agent.agent.address(), callers, step).await?);
        }
        let (through, bare, direct) = (median(through), median(bare), median(direct));
        let ratio = |other: Sample| through.p50.as_secs_f64() / other.p50.as_secs_f64();
        say(format_args!(
            "{callers:>7}  {:>10}  {:>7}  {:>10}  {:>7}  {:>10}  {:>7}  {:>7.2}  {:>8.2}",
            ms(through.p50),
            ms(through.p99),
            ms(bare.p50),
            ms(bare.p99),
            ms(direct.p50),
            ms(direct.p99),
            ratio(bare),
            ratio(direct),
        ));
    }
    Ok(())
}

async fn calls(address: SocketAddr, callers: usize, step: Duration) -> anyhow::Result<Sample> {
    let client = client::<Full<Bytes>>();
    let workers = vec![client; callers];
    let uri: Uri = format!("http://{address}{PATH}").parse()?;
    closed_loop(workers, step, move |client| {
        let uri = uri.clone();
        async move {
            let request = Request::post(uri)
                .header(AUTHORIZATION, "Bearer whatever")
                .header(CONTENT_TYPE, "application/json")
                .body(Full::from(BODY))?;
            let answer = client.request(request).await?;
            let status = answer.status();
            ensure!(status == StatusCode::OK, "{status}");
            answer.into_body().collect().await?;
            Ok(client)
        }
    })
    .await
}

/// A client as the agent's own: one pool, no delay.
fn client<B>() -> Client<HttpConnector, B>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(tcp)
}

/// Starts a bare proxy to `upstream`; gives its address. It ends with the benchmark.
async fn pass_on(upstream: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr().context("its address")?;
    let client = client::<Incoming>();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let client = client.clone();
            let service = service_fn(move |request| forward(client.clone(), upstream, request));
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // A caller that goes away is no error.
                let _ = connection.await;
            });
        }
    });
    Ok(address)
}

async fn forward(
    client: Client<HttpConnector, Incoming>,
    upstream: SocketAddr,
    mut request: Request<Incoming>,
) -> anyhow::Result<Response<Incoming>> {
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    *request.uri_mut() = format!("http://{upstream}{path}").parse()?;
    Ok(client.request(request).await?)
}
