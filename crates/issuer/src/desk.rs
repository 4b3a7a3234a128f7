//! The one shared state behind every endpoint: ledger, history, script and held requests under one
//! lock, the clocks, and the signal that something changed.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    assertion::Accounts,
    client_assertion::Accepted,
    fault::{Release, Script},
    history::{History, Record},
    ledger::{Ledger, Minted},
    refusal::{Code, Refusal},
    request::{CLIENT_CREDENTIALS, JWT_BEARER, REFRESH_TOKEN, TOKEN_EXCHANGE, TokenRequest},
    server::Config,
};

/// A request that waits for its release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The request's number in the history.
    pub seq: u64,
    /// The client that it claims to be from.
    pub client: Option<String>,
    /// `hold_before` (nothing served yet) or `hold_after` (the refresh token is spent).
    pub mode: String,
}

/// A moment on the issuer's clocks.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) since_start: Duration,
    pub(crate) unix_ms: u64,
}

impl Moment {
    pub(crate) fn ms(self) -> f64 {
        self.since_start.as_secs_f64() * 1000.0
    }
}

pub(crate) struct Desk {
    pub(crate) url: String,
    started: Instant,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Cancelled when the issuer stops; every connection's wire is a child of it.
    pub(crate) stop: CancellationToken,
    /// The requests being served, which outlive their connections.
    pub(crate) tasks: TaskTracker,
}

pub(crate) struct State {
    pub(crate) ledger: Ledger,
    pub(crate) accounts: Accounts,
    accepted: Accepted,
    pub(crate) history: History,
    pub(crate) script: Script,
    pub(crate) held: Vec<(Held, oneshot::Sender<Release>)>,
    pub(crate) latency: Duration,
    /// How far the clock of token lifetimes was advanced.
    pub(crate) advanced: Duration,
    requests: u64,
}

impl Desk {
    pub(crate) fn new(config: &Config, url: String, stop: CancellationToken) -> Self {
        Self {
            url,
            started: Instant::now(),
            state: Mutex::new(State {
                ledger: Ledger::new(config.policy),
                accounts: Accounts::default(),
                accepted: Accepted::default(),
                history: History::default(),
                script: Script::default(),
                held: Vec::new(),
                latency: config.latency,
                advanced: Duration::ZERO,
                requests: 0,
            }),
            changed: watch::Sender::new(()),
            stop,
            tasks: TaskTracker::new(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let unix_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        Moment {
            since_start: self.started.elapsed(),
            unix_ms,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes those who wait in [`Desk::until`].
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    /// Waits until `look` finds what it looks for.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = look(&self.lock()) {
                return found;
            }
            changes
                .changed()
                .await
                .expect("the sender lives as long as self");
        }
    }

    /// Opens the record of a request, and says what is to go wrong with it.
    pub(crate) fn open(
        &self,
        arrived: Moment,
        request: &TokenRequest,
    ) -> (u64, Option<crate::Mode>) {
        self.change(|state| {
            let client = request.claimed_client();
            let fault = state.script.take(client.as_deref(), request.grant_type());
            let presented = request.presented();
            let provenance = presented.and_then(|token| state.ledger.provenance(token));
            let record = Record {
                grant: request.grant_type().map(str::to_owned),
                presented: presented.map(|token| token.short()),
                presented_generation: provenance.as_ref().map(|(_, generation)| *generation),
                showing: presented.and_then(|token| state.ledger.show(token)),
                grant_id: provenance.map(|(grant_id, _)| grant_id),
                fault: fault.as_ref().map(|mode| mode.name().to_owned()),
                arrived_ms: arrived.ms(),
                arrived_unix_ms: arrived.unix_ms,
                client,
                ..Record::default()
            };
            state.requests += 1;
            state.history.push(state.requests, record);
            (state.requests, fault)
        })
    }

    /// Serves a request: the moment at which its refresh token is spent.
    pub(crate) fn serve(
        &self,
        seq: u64,
        request: &TokenRequest,
    ) -> Result<(Minted, Option<String>), Refusal> {
        self.change(|state| {
            let now = self.now();
            let result = state.grant(&self.url, now, request);
            if let Some(record) = state.history.record(seq) {
                record.served_ms = Some(now.ms());
                match &result {
                    Ok((minted, _)) => {
                        record.status = Some(200);
                        record.grant_id = Some(minted.grant_id.clone());
                        record.generation = Some(minted.generation);
                        record.access = Some(minted.access.digest().short());
                        record.issued = minted.refresh.as_ref().map(|token| token.digest().short());
                    }
                    Err(refusal) => {
                        record.status = Some(refusal.code.status());
                        record.error = Some(refusal.code.name().to_owned());
                        record.detail = Some(refusal.description.to_owned());
                        record.reuse = refusal.reuse;
                    }
                }
            }
            result
        })
    }
}

impl State {
    /// The ledger's clock: time since start, and what it was advanced by.
    pub(crate) fn ledger_time(&self, now: Moment) -> Duration {
        now.since_start + self.advanced
    }

    /// Decides a token request: the tokens, and the scope that was granted.
    fn grant(
        &mut self,
        url: &str,
        now: Moment,
        request: &TokenRequest,
    ) -> Result<(Minted, Option<String>), Refusal> {
        let time = self.ledger_time(now);
        let unix = now.unix_ms / 1000 + self.advanced.as_secs();
        let grant_type = request.well_formed()?;
        if grant_type == JWT_BEARER {
            let assertion = request.field("assertion");
            let assertion =
                assertion.ok_or(Code::InvalidRequest.because("assertion is missing"))?;
            let (account, scope) = self.accounts.verify(assertion, url, unix)?;
            let scope = scope.or_else(|| request.field("scope").map(str::to_owned));
            let scope =
                scope.ok_or(Code::InvalidScope.because("Empty or missing scope not allowed."))?;
            return Ok((self.ledger.direct(time, &account, grant_type), Some(scope)));
        }
        if grant_type == TOKEN_EXCHANGE && !request.names_client() {
            let account = self.exchanged(url, time, unix, request)?;
            let scope = request.field("scope").map(str::to_owned);
            return Ok((self.ledger.direct(time, &account, grant_type), scope));
        }
        let claimed = request.claimed_client();
        let claimed = claimed
            .ok_or(Code::InvalidClient { challenge: false }.because("client_id is missing"))?;
        request.authenticate(self.ledger.client(&claimed))?;
        let client = self
            .ledger
            .client(&claimed)
            .expect("an unknown client is not authenticated")
            .clone();
        if let (Some(key), Some(assertion)) =
            (&client.public_key, request.field("client_assertion"))
        {
            self.accepted
                .verify(assertion, &client.id, key, url, unix)?;
        }
        let scope = request.scope(&client)?;
        let minted = match grant_type {
            REFRESH_TOKEN => {
                let presented = request.presented();
                let presented =
                    presented.ok_or(Code::InvalidRequest.because("refresh_token is missing"))?;
                self.ledger
                    .refresh(time, now.unix_ms, &client.id, presented)?
            }
            TOKEN_EXCHANGE => {
                self.exchanged(url, time, unix, request)?;
                self.ledger.direct(time, &client.id, grant_type)
            }
            CLIENT_CREDENTIALS if client.is_confidential() => {
                self.ledger.direct(time, &client.id, grant_type)
            }
            CLIENT_CREDENTIALS => {
                return Err(Code::UnauthorizedClient.because("a public client has no credentials"));
            }
            _ => {
                return Err(Code::UnsupportedGrantType.because("not one of the grants served here"));
            }
        };
        Ok((minted, scope))
    }

    /// Whose token is exchanged: an access token of this issuer, or an assertion of an account that
    /// it trusts ([RFC 8693 §2.2.2](https://www.rfc-editor.org/rfc/rfc8693#section-2.2.2)).
    fn exchanged(
        &self,
        url: &str,
        time: Duration,
        unix: u64,
        request: &TokenRequest,
    ) -> Result<String, Refusal> {
        let missing = |why| Code::InvalidRequest.because(why);
        let token = request.field("subject_token");
        let token = token.ok_or(missing("subject_token is missing"))?;
        let kind = request.field("subject_token_type");
        let refused = missing("the subject token is not accepted");
        match kind.ok_or(missing("subject_token_type is missing"))? {
            "urn:ietf:params:oauth:token-type:access_token" => {
                let active = self.ledger.active(time, token).ok_or(refused)?;
                Ok(active.client_id.clone())
            }
            "urn:ietf:params:oauth:token-type:jwt"
            | "urn:ietf:params:oauth:token-type:id_token" => {
                let verified = self.accounts.verify(token, url, unix);
                verified.map(|(account, _)| account).map_err(|_| refused)
            }
            _ => Err(missing(
                "subject_token_type is not one that is exchanged here",
            )),
        }
    }
}
