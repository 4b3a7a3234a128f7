//! The token that the cluster issued to this sandbox, renewed at whichever endpoint serves.
//!
//! A renewal takes nothing away: the token that was shown stays good until its end. So a process
//! that dies between a renewal and its writing loses nothing, its successor begins with the token of
//! before; and several that begin with one token do not disturb each other.
//!
//! A file is read at the start, and again while the cluster refuses what is held, in case somebody
//! has put another token there. What others write meanwhile is not taken: two clients that keep
//! their tokens in one file would never come to rest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use evermint_core::port::Clock;
use evermint_core::secret::Secret;
use evermint_core::time::MonoMs;
use evermint_proto::v1;
use evermint_proto::v1::sandbox_tokens_client::SandboxTokensClient;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

use crate::auth::{BoxError, TokenSource};
use crate::dice::Dice;
use crate::names;
use crate::shared::Shared;
use crate::token_file::TokenFile;
use crate::wire::authenticated;

/// How often to look whether something is to be done.
const SOON: Duration = Duration::from_secs(1);
/// How soon to try again what failed, at most.
const RETRY: Duration = Duration::from_secs(10);

/// Where the tokens are kept that a client gets in place of the one in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renewals {
    /// In memory alone; the file is never written. A start later than the end of the file's token
    /// needs another one there.
    #[default]
    InMemory,
    /// In the file, too: each one replaces the one before, so that a later start goes on from it.
    InFile,
}

/// Where the first token comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Given(Secret),
    File(TokenFile, Renewals),
}

/// What calls see: the newest token.
#[derive(Debug, Default)]
pub(crate) struct Own {
    token: ArcSwapOption<Secret>,
    refused: AtomicBool,
}

#[async_trait]
impl TokenSource for Own {
    async fn token(&self) -> Result<Secret, BoxError> {
        let token = self.token.load_full().map(|token| (*token).clone());
        token.ok_or_else(|| "it has not been given one yet".into())
    }

    fn refused(&self) {
        self.refused.store(true, Ordering::Release);
    }
}

/// Keeps the token fresh, whether calls are made or not: a stream may outlive it, and a token that
/// is over cannot be renewed.
pub(crate) struct Keeper {
    own: Arc<Own>,
    file: Option<(TokenFile, Renewals)>,
    /// What the file held when it was read or written last.
    seen: Option<Secret>,
    shared: Weak<Shared>,
    /// How long one renewal may take.
    bound: Duration,
    clock: Arc<dyn Clock>,
    dice: Dice,
    /// By this machine's boot time.
    renew_at: MonoMs,
    /// When what is held is to be written; `None` if it is.
    write_at: Option<MonoMs>,
    /// What was complained of last.
    told: Option<String>,
}

impl Keeper {
    /// Begins with a token whose end nobody knows: it is renewed as soon as an endpoint serves.
    pub(crate) fn new(
        origin: Origin,
        shared: Weak<Shared>,
        bound: Duration,
        clock: Arc<dyn Clock>,
        dice: Dice,
    ) -> (Arc<Own>, Self) {
        let own = Arc::new(Own::default());
        let mut keeper = Self {
            own: Arc::clone(&own),
            file: None,
            seen: None,
            shared,
            bound,
            clock,
            dice,
            renew_at: MonoMs(0),
            write_at: None,
            told: None,
        };
        match origin {
            Origin::Given(token) => keeper.hold(token),
            Origin::File(file, renewals) => {
                let read = file.read();
                keeper.file = Some((file, renewals));
                keeper.take(read);
            }
        }
        (own, keeper)
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            self.look().await;
            self.renew().await;
            self.write().await;
            sleep(SOON).await;
        }
    }

    /// Looks into the file, if what is held is of no use.
    async fn look(&mut self) {
        let refused = self.own.refused.load(Ordering::Acquire);
        let needed = refused || self.own.token.load().is_none();
        if let Some((file, _)) = self.file.clone().filter(|_| needed) {
            let read = spawn_blocking(move || file.read()).await;
            self.take(read.unwrap_or_else(|error| Err(error.into())));
        }
    }

    /// Takes what is new in the file.
    fn take(&mut self, read: std::io::Result<Secret>) {
        match read {
            Ok(token) if self.is_seen(&token) => {}
            Ok(token) => {
                self.seen = Some(token.clone());
                self.hold(token);
                self.renew_at = MonoMs(0);
                self.write_at = None;
            }
            Err(error) => {
                let path = self.file.as_ref().map(|(file, _)| file.path());
                let path = path.unwrap_or(std::path::Path::new("")).display();
                let cause = format!("{path}: {error}");
                self.complain(cause, "no token for the sandbox is in the file");
            }
        }
    }

    fn is_seen(&self, token: &Secret) -> bool {
        let seen = self.seen.as_ref();
        seen.is_some_and(|seen| seen.expose() == token.expose())
    }

    fn hold(&self, token: Secret) {
        self.own.token.store(Some(Arc::new(token)));
        self.own.refused.store(false, Ordering::Release);
    }

    /// Renews the token once four fifths of its life are over, if an endpoint serves.
    async fn renew(&mut self) {
        let asked = self.now();
        let shared = self.shared.upgrade();
        let giver = shared.as_ref().and_then(|s| s.giver.load_full());
        let held = self.own.token.load_full();
        let (Some(shared), Some(giver), Some(held)) = (shared, giver, held) else {
            return;
        };
        if asked < self.renew_at {
            return;
        }
        let renewed = timeout(self.bound, renewed(giver.channel.clone(), &held)).await;
        let problem = match renewed {
            Ok(Ok(next)) => {
                shared.counters.renewals.add();
                self.hold(next.token);
                self.renew_at = asked + next.lifetime * 4 / 5;
                let in_file = matches!(self.file, Some((_, Renewals::InFile)));
                self.write_at = in_file.then_some(asked);
                self.told = None;
                tracing::debug!("the sandbox's token is renewed");
                return;
            }
            Ok(Err(problem)) => problem,
            Err(_) => Problem::Passing("no answer in time".to_owned()),
        };
        shared.counters.renewals_failed.add();
        self.renew_at = self.now() + self.dice.within(RETRY);
        match problem {
            Problem::Over(cause) => {
                self.own.refused();
                self.complain(
                    cause,
                    "the sandbox's token is over or revoked: `evermint sandbox token` issues another",
                );
            }
            Problem::Passing(cause) => self.complain(cause, "the sandbox's token is not renewed"),
        }
    }

    /// Writes what is held, if that is wanted and was not done.
    async fn write(&mut self) {
        let due = self.write_at.is_some_and(|at| at <= self.now());
        let held = self.own.token.load_full().filter(|_| due);
        let (Some(held), Some((file, _))) = (held, self.file.clone()) else {
            return;
        };
        let path = file.path().to_owned();
        let writing = Arc::clone(&held);
        let written = spawn_blocking(move || file.replace(&writing)).await;
        match written.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => {
                self.seen = Some((*held).clone());
                self.write_at = None;
            }
            Err(error) => {
                self.write_at = Some(self.now() + self.dice.within(RETRY));
                self.complain(
                    format!("{}: {error}", path.display()),
                    "the sandbox's new token cannot be written, and is kept in memory: its directory has to be writable",
                );
            }
        }
    }

    /// Says it once.
    fn complain(&mut self, cause: String, what: &'static str) {
        if self.told.as_ref() == Some(&cause) {
            tracing::debug!({ names::CAUSE } = cause, "{what}");
        } else {
            tracing::warn!({ names::CAUSE } = cause, "{what}");
            self.told = Some(cause);
        }
    }

    fn now(&self) -> MonoMs {
        self.clock.read().boot
    }
}

/// The token that comes next.
struct Next {
    token: Secret,
    /// From before it was asked for.
    lifetime: Duration,
}

/// Why there is none.
enum Problem {
    /// The token that was shown is worth nothing any more.
    Over(String),
    Passing(String),
}

async fn renewed(channel: Channel, held: &Secret) -> Result<Next, Problem> {
    let request = authenticated(Some(held), v1::RenewSandboxTokenRequest {}).await;
    let request = request.map_err(|failure| Problem::Passing(failure.kind.to_string()))?;
    let mut client = SandboxTokensClient::new(channel);
    let answer = client.renew_sandbox_token(request).await.map_err(|s| {
        let cause = format!("{:?}: {}", s.code(), s.message());
        match s.code() {
            Code::Unauthenticated => Problem::Over(cause),
            _ => Problem::Passing(cause),
        }
    })?;
    let answer = answer.into_inner();
    let lifetime = answer.expires_at_ms.saturating_sub(answer.server_time_ms);
    Ok(Next {
        token: Secret::from(answer.token),
        lifetime: Duration::from_millis(lifetime),
    })
}
