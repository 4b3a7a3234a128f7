//! Who calls. For now one token, the operator's, opens everything; without one configured the
//! replica trusts whoever reaches it, which the binary allows on loopback alone.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use evermint_core::secret::Secret;
use tonic::Status;

use crate::status;

/// Services that anyone may ask: for probes, load balancers and tools.
const OPEN: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// Who calls; found in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Someone who reached a replica without authentication, or a service that needs none.
    Anyone,
    /// The holder of the admin token.
    Admin,
}

/// The admin token, as its digest.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// Takes the token.
    pub fn new(token: &Secret) -> Self {
        Self(sha256(token.expose()))
    }

    /// Whether `token` is the one; takes the same time wherever it differs.
    fn is(&self, token: &[u8]) -> bool {
        verify_slices_are_equal(&self.0, &sha256(token)).is_ok()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Identifies the caller of `path` by its `authorization` header.
///
/// # Errors
/// `UNAUTHENTICATED`.
pub(crate) fn identify(
    admin: Option<&AdminToken>,
    path: &str,
    authorization: Option<&[u8]>,
) -> Result<Caller, Status> {
    let Some(admin) = admin else {
        return Ok(Caller::Anyone);
    };
    if OPEN.iter().any(|open| path.starts_with(open)) {
        return Ok(Caller::Anyone);
    }
    let header =
        authorization.ok_or_else(|| status::unauthenticated("missing authorization header"))?;
    let token = header
        .strip_prefix(b"Bearer ")
        .ok_or_else(|| status::unauthenticated("the authorization header is no bearer token"))?;
    if admin.is(token) {
        Ok(Caller::Admin)
    } else {
        Err(status::unauthenticated("invalid token"))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    const CALL: &str = "/evermint.v1.Providers/GetProvider";

    #[test]
    fn with_a_token_configured_every_call_needs_it_but_health_and_reflection() {
        let admin = AdminToken::new(&Secret::from("hunter2"));
        for (path, header, caller) in [
            (CALL, Some("Bearer hunter2"), Ok(Caller::Admin)),
            (CALL, None, Err("missing authorization header")),
            (CALL, Some("Bearer hunter"), Err("invalid token")),
            (CALL, Some("Bearer hunter22"), Err("invalid token")),
            (CALL, Some("Bearer "), Err("invalid token")),
            (
                CALL,
                Some("bearer hunter2"),
                Err("the authorization header is no bearer token"),
            ),
            (
                CALL,
                Some("Basic aHVudGVyMg=="),
                Err("the authorization header is no bearer token"),
            ),
            ("/grpc.health.v1.Health/Check", None, Ok(Caller::Anyone)),
            (
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                None,
                Ok(Caller::Anyone),
            ),
        ] {
            let found = identify(Some(&admin), path, header.map(str::as_bytes));
            match caller {
                Ok(caller) => assert_eq!(found.unwrap(), caller, "{path}"),
                Err(message) => {
                    let status = found.unwrap_err();
                    assert_eq!(
                        (status.code(), status.message()),
                        (Code::Unauthenticated, message)
                    );
                }
            }
        }
    }

    #[test]
    fn without_a_token_configured_anyone_may_call() {
        assert_eq!(identify(None, CALL, None).unwrap(), Caller::Anyone);
    }

    #[test]
    fn the_token_is_not_shown() {
        let token = AdminToken::new(&Secret::from("hunter2"));
        assert_eq!(format!("{token:?}"), "AdminToken(…)");
    }
}
