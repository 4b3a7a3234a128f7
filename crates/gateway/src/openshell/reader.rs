//! How the call of an OpenShell sandbox is answered: by a state that is at least as new as anything
//! that this sandbox was given before, by whichever replica, and with as few errors as can be.
//!
//! These sandboxes say nothing of what they have seen, and one error makes them throw away what
//! they have. So a replica asks the leader how far the history is, and waits until it is there
//! (`fence`). If it cannot learn that, or lacks a key, it asks the other replicas for their answer.
//! If none has one, it answers by what it knows, as long as that is not too old, where an error
//! would do more harm than an older answer; docs/openshell.md says what is promised then.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::command::Kind;
use evermint_core::id::SandboxId;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::Face;
use crate::bundle::Ready;
use crate::caller::Caller;
use crate::status;
use crate::token::{Pass, Spent};

/// How long a replica tries to learn whether it is up to date: some elections' time.
const CONFIRM: Duration = Duration::from_secs(4);
/// How long, if it has been out of touch for longer than any election takes.
const CONFIRM_CUT_OFF: Duration = Duration::from_millis(500);
/// Out of touch for so long, it is cut off.
const CUT_OFF: Duration = Duration::from_secs(10);
/// How long it waits for the others' answers then.
const ASK: Duration = Duration::from_secs(2);
/// The metadata key of a question that another replica passed on: it is passed on once.
const PASSED_ON: &str = "evermint-passed-on";

/// What to do when nobody knows whether this replica is up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The sandbox keeps what it has when it is refused.
    Refuse,
    /// It would lose what it has: what this replica knows is better, unless that is too old.
    Serve,
}

/// A call that sandboxes make again and again; implemented by its requests.
#[tonic::async_trait]
pub(super) trait Poll: Clone + Send + Sync + 'static {
    /// What it is answered.
    type Answer: Send;

    /// What to do in doubt.
    const IN_DOUBT: Doubt;

    /// Answers from this replica's state.
    async fn here(face: &Face, call: &Call<Self>) -> Result<Self::Answer, Status>;

    /// Asks another replica.
    async fn elsewhere(
        other: Channel,
        request: Request<Self>,
    ) -> Result<Response<Self::Answer>, Status>;
}

/// A call about a sandbox.
pub(super) struct Call<Q> {
    /// The sandbox that makes it; `None` for an operator.
    pub(super) pass: Option<Pass>,
    /// Whom it is about.
    pub(super) sandbox: SandboxId,
    /// What is asked.
    pub(super) request: Request<Q>,
}

/// The sandbox that calls; `None` for an operator.
pub(super) fn pass<T>(request: &Request<T>) -> Option<Pass> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Sandbox(pass)) => Some(*pass),
        Some(_) | None => None,
    }
}

/// The sandbox that calls a method that is for sandboxes alone.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub(super) fn own_pass<T>(request: &Request<T>) -> Result<Pass, Status> {
    pass(request).ok_or_else(|| status::denied("this method requires a sandbox principal"))
}

/// Checks that a sandbox speaks of itself.
///
/// # Errors
/// `PERMISSION_DENIED`, which does not tell whether the other one is there.
pub(super) fn check_own(pass: Pass, sandbox_id: &str) -> Result<(), Status> {
    if sandbox_id.parse() == Ok(pass.sandbox) {
        return Ok(());
    }
    Err(status::denied(
        "cross-sandbox access denied: a sandbox may ask for itself alone",
    ))
}

/// The sandbox is not there.
pub(crate) fn gone() -> Status {
    super::status::not_found(format!("{} not found", Kind::Sandbox))
}

impl Face {
    /// Answers a call from this replica's state, or with what another replica answers to it.
    ///
    /// # Errors
    /// What [`Poll::here`] says, or another replica that knows better; `UNAVAILABLE` in doubt.
    pub(super) async fn serve<Q: Poll>(&self, call: Call<Q>) -> Result<Q::Answer, Status> {
        let metadata = call.request.metadata();
        let patience = Patience::of(metadata);
        let staleness = self.ports.view.staleness();
        let cut_off = staleness.is_some_and(|staleness| staleness > CUT_OFF);
        let confirm = patience.confirm(if cut_off { CONFIRM_CUT_OFF } else { CONFIRM });
        let fresh = self.fence.pass(confirm).await;
        if fresh && self.is_whole(call.sandbox) {
            return Q::here(self, &call).await;
        }
        if metadata.contains_key(PASSED_ON) {
            // Whoever passed it on knows how to go on.
            return Err(status::in_doubt());
        }
        match self.ask_others(&call.request, patience).await {
            Some(answer) => answer,
            None if fresh => Q::here(self, &call).await,
            None if Q::IN_DOUBT == Doubt::Refuse => Err(status::in_doubt()),
            None => {
                self.fit()?;
                Q::here(self, &call).await
            }
        }
    }

    /// What the call is about; its caller's token may have been revoked while it waited.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, and `NOT_FOUND` if the sandbox is gone.
    pub(super) fn bundle_of<Q>(&self, call: &Call<Q>) -> Result<Arc<Ready>, Status> {
        let state = self.state();
        let good = call.pass.map(|p| p.check(&state, self.ports.view.now()));
        match good {
            Some(Err(Spent::Unknown)) => Err(gone()),
            Some(Err(spent)) => Err(status::spent(spent)),
            Some(Ok(())) | None => self.views.current(call.sandbox).ok_or_else(gone),
        }
    }

    /// Whether this replica can open every value that the sandbox is to have.
    fn is_whole(&self, sandbox: SandboxId) -> bool {
        let ready = self.views.current(sandbox);
        ready.is_none_or(|ready| ready.is_complete())
    }

    /// The first answer of the other replicas that one can go by, if there is one in time.
    async fn ask_others<Q: Poll>(
        &self,
        request: &Request<Q>,
        patience: Patience,
    ) -> Option<Result<Q::Answer, Status>> {
        let me = self.ports.view.identity().0;
        let state = self.state();
        let others = state.replicas.values().filter(|other| other.id != me);
        let bound = patience.ask();
        let mut answers: FuturesUnordered<_> = others
            .filter_map(|other| self.others.channel(&other.api_address))
            .map(|other| Q::elsewhere(other, passed_on(request, bound)))
            .collect();
        let first = async {
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(answer) => return Some(Ok(answer.into_inner())),
                    Err(status) if is_verdict(&status) => return Some(Err(status)),
                    Err(status) => {
                        tracing::debug!(code = ?status.code(), "another replica cannot answer either");
                    }
                }
            }
            None
        };
        tokio::time::timeout(bound, first).await.ok().flatten()
    }
}

/// Whether an error says something of the call, rather than of the replica that was asked.
fn is_verdict(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound | Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition
    )
}

/// The same call, for another replica.
fn passed_on<Q: Clone>(request: &Request<Q>, bound: Duration) -> Request<Q> {
    let mut copy = Request::new(request.get_ref().clone());
    if let Some(authorization) = request.metadata().get("authorization") {
        let authorization = authorization.clone();
        copy.metadata_mut().insert("authorization", authorization);
    }
    copy.metadata_mut()
        .insert(PASSED_ON, MetadataValue::from_static("1"));
    copy.set_timeout(bound);
    copy
}

/// How long a caller waits for its answer, if it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patience(Option<Duration>);

impl Patience {
    /// By the call's deadline.
    fn of(metadata: &MetadataMap) -> Self {
        let text = metadata.get("grpc-timeout").and_then(|t| t.to_str().ok());
        Self(text.and_then(timeout))
    }

    /// How much of it learning whether this replica is up to date may take.
    fn confirm(self, wanted: Duration) -> Duration {
        self.0.map_or(wanted, |whole| wanted.min(whole / 2))
    }

    /// How much of it asking the others may take: the rest is for the answer's way.
    fn ask(self) -> Duration {
        self.0.map_or(ASK, |whole| ASK.min(whole / 3))
    }
}

/// A deadline as [gRPC](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) writes it:
/// at most eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_and_kept() {
        for (text, expected) in [
            ("2S", Some(Duration::from_secs(2))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("500u", Some(Duration::from_micros(500))),
            ("1H", Some(Duration::from_secs(3_600))),
            ("123456789n", None),
            ("S", None),
            ("", None),
            ("2s", None),
            ("2é", None),
        ] {
            assert_eq!(timeout(text), expected, "{text}");
        }
        let hasty = Patience(Some(Duration::from_secs(1)));
        assert!(hasty.confirm(CONFIRM) + hasty.ask() < Duration::from_secs(1));
        let patient = Patience(None);
        assert_eq!(patient.confirm(CONFIRM), CONFIRM);
        assert_eq!(patient.ask(), ASK);
    }
}
