//! `POST /token`: the path of one request, and the faults on its way.
//!
//! The request is served in a task of its own: a server does not unspend a refresh token because
//! the client has hung up. The handler only waits for the outcome, and when the connection closes
//! first, the server drops the handler and with it the [`Exchange`].

use std::{future::pending, sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{Response, StatusCode},
};
use tokio::sync::oneshot;

use crate::{
    answer::Answer,
    desk::{Desk, Held},
    exchange::Exchange,
    fault::{Mode, Release},
    history::End,
    request::TokenRequest,
    wire::Wire,
};

/// The largest request body read, in bytes.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// How a request goes out.
enum Outcome {
    Answer(Answer),
    /// Close the connection.
    Drop,
}

pub(crate) async fn token(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
) -> Response<Body> {
    let arrived = desk.now();
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, REQUEST_BYTES_MAX).await else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return response;
    };
    let request = TokenRequest::parse(&head.headers, &body);
    let (seq, fault) = desk.open(arrived, &request);
    let mut exchange = Exchange::new(Arc::clone(&desk), seq);

    let (done, outcome) = oneshot::channel();
    let serving = Arc::clone(&desk);
    desk.tasks.spawn(async move {
        let stop = serving.stop.clone();
        let outcome = stop
            .run_until_cancelled(serve(&serving, seq, request, fault))
            .await;
        // The receiver is gone when the client is; then nobody waits for the outcome.
        let _ = done.send(outcome.unwrap_or(Outcome::Drop));
    });
    match outcome.await {
        Ok(Outcome::Answer(answer)) => answer.into_response(exchange),
        Ok(Outcome::Drop) | Err(_) => {
            exchange.end(End::Dropped);
            wire.cut();
            pending().await
        }
    }
}

async fn serve(desk: &Arc<Desk>, seq: u64, request: TokenRequest, fault: Option<Mode>) -> Outcome {
    let latency = desk.lock().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    match &fault {
        Some(Mode::DropBefore) => return Outcome::Drop,
        Some(Mode::DelayBefore { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Some(mode @ Mode::HoldBefore) if hold(desk, seq, &request, mode).await == Release::Drop => {
            return Outcome::Drop;
        }
        Some(mode) => {
            if let Some(answer) = Answer::unserved(mode, &desk.url) {
                desk.change(|state| {
                    if let Some(record) = state.history.record(seq) {
                        record.status = Some(answer.status());
                    }
                });
                return Outcome::Answer(answer);
            }
        }
        None => {}
    }
    let answer = match desk.serve(seq, &request) {
        Ok((minted, scope)) => Answer::minted(&minted, scope, request.grant_type()),
        Err(refusal) => Answer::refused(&refusal),
    };
    match &fault {
        Some(Mode::DropAfter) => return Outcome::Drop,
        Some(Mode::DelayAfter { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Some(mode @ Mode::HoldAfter) if hold(desk, seq, &request, mode).await == Release::Drop => {
            return Outcome::Drop;
        }
        Some(mode) => return Outcome::Answer(answer.bent(mode)),
        None => {}
    }
    Outcome::Answer(answer)
}

/// Waits for the release of request `seq`.
async fn hold(desk: &Desk, seq: u64, request: &TokenRequest, mode: &Mode) -> Release {
    let (gate, released) = oneshot::channel();
    let held = Held {
        seq,
        client: request.claimed_client(),
        mode: mode.name().to_owned(),
    };
    desk.change(|state| state.held.push((held, gate)));
    released.await.unwrap_or_default()
}
