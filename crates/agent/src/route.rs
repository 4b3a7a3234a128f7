//! Which route a call takes, and what the route says: the rule, as an operator reads it.
//!
//! 1. The header `x-evermint-route: NAME` names it, or a path that begins with `/route/NAME/`.
//! 2. Otherwise it is the first one that speaks the call's protocol: `inference.local` first, then
//!    by name. A route that lists no protocols speaks all.

use std::time::Duration;

use evermint_client::{Route, Snapshot};
use http::{HeaderName, StatusCode};

use crate::answer::Refusal;
use crate::call::Call;
use crate::rewrite::Target;

/// Names the route of a call.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-evermint-route");

/// The route that is taken first.
const FIRST: &str = "inference.local";

/// Splits `/route/NAME/rest` into the name and `/rest`.
pub(crate) fn prefix(path: &str) -> (Option<&str>, &str) {
    let named = path.strip_prefix("/route/").and_then(|rest| {
        let end = rest.find('/')?;
        Some((&rest[..end], &rest[end..]))
    });
    match named {
        Some((name, rest)) if !name.is_empty() => (Some(name), rest),
        _ => (None, path),
    }
}

/// The route that a call takes.
///
/// # Errors
/// A refusal that says what there is.
pub(crate) fn choose<'a>(
    snapshot: &'a Snapshot,
    named: Option<&str>,
    call: &Call,
) -> Result<Route<'a>, Refusal> {
    if !snapshot.is_ready() {
        return Err(Refusal::passing(
            "not-ready",
            "no gateway has given this sandbox its bundle yet",
        ));
    }
    let protocol = call.protocol();
    let speaks = |route: &Route<'_>| speaks(route.protocols(), protocol);
    if let Some(name) = named {
        let route = snapshot.route(name).ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "no-route",
                format!("there is no route {name:?} in this sandbox's workspace"),
            )
        })?;
        return if speaks(&route) {
            Ok(route)
        } else {
            Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "no-route",
                format!("route {name:?} does not speak {protocol}"),
            ))
        };
    }
    let mut routes: Vec<_> = snapshot.routes().filter(speaks).collect();
    routes.sort_by_key(|route| route.name() != FIRST);
    routes.first().copied().ok_or_else(|| {
        Refusal::passing(
            "no-route",
            format!("no route of this sandbox's workspace speaks {protocol}: an operator sets one with `evermint inference set`"),
        )
    })
}

fn speaks(protocols: &[String], protocol: &str) -> bool {
    protocols.is_empty() || protocols.iter().any(|p| p == protocol)
}

/// Where the route leads to.
pub(crate) fn target<'a>(route: Route<'a>) -> Target<'a> {
    Target {
        base_url: route.base_url(),
        model: route.model(),
        model_in_path: route.model_in_path(),
        path_override: route.request_path_override(),
    }
}

/// How long a call may take.
pub(crate) fn timeout(route: Route<'_>, default: Duration) -> Duration {
    route.timeout().unwrap_or(default)
}
