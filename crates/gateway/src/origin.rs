//! Who made the call that is being answered. It travels beside the call, not through it: every
//! service proposes commands, and none has to think of whose wish they are.

use std::net::IpAddr;

use evermint_core::audit::{Origin, TEXT_MAX};
use evermint_core::id::ReplicaId;

use crate::caller::Caller;

tokio::task_local! {
    static ORIGIN: Origin;
}

/// Answers a call; what is proposed meanwhile is at the wish of `origin`.
pub(crate) async fn scope<F: Future>(origin: Origin, call: F) -> F::Output {
    ORIGIN.scope(origin, call).await
}

/// Whose call is being answered; `None` beside all calls.
pub(crate) fn current() -> Option<Origin> {
    ORIGIN.try_with(Origin::clone).ok()
}

/// Work that goes on beside the call that is being answered, at the same wish.
pub(crate) fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let origin = current();
    async move {
        match origin {
            Some(origin) => scope(origin, work).await,
            None => work.await,
        }
    }
}

/// The origin of a call: `caller` is `None` if nobody knows who calls.
pub(crate) fn of(caller: Option<&Caller>, from: Option<IpAddr>, replica: ReplicaId) -> Origin {
    let mut who = caller.map_or_else(|| "unknown".to_owned(), ToString::to_string);
    cut(&mut who);
    Origin {
        who,
        from: from.map(|ip| ip.to_string()).unwrap_or_default(),
        replica,
    }
}

/// Shortens a text that somebody outside chose to what the audit trail takes.
pub(crate) fn cut(text: &mut String) {
    let mut end = TEXT_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
