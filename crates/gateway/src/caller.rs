//! Who calls. One token, the operator's, opens everything; a sandbox's opens what [`access`] says;
//! without an operator's token configured the replica trusts whoever reaches it and shows none,
//! which the binary allows on loopback alone.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use evermint_core::secret::Secret;
use tonic::Status;

use crate::shared::Shared;
use crate::token::{self, Pass, Spent};
use crate::{access, passthrough, status};

/// Who calls; found in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Someone who reached a replica without authentication, or a service that needs none.
    Anyone,
    /// The holder of the admin token.
    Admin,
    /// A sandbox.
    Sandbox(Pass),
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

/// Who is at the door.
pub(crate) struct Door {
    /// The token that opens everything; without one whoever reaches the replica may call.
    pub(crate) admin: Option<AdminToken>,
    pub(crate) shared: Arc<Shared>,
    /// Whether methods that are not ours are passed on, to a gateway that identifies its callers
    /// itself.
    pub(crate) passes_on: bool,
}

impl Door {
    /// Identifies the caller of `path` by its `authorization` header, and lets it in or not.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `PERMISSION_DENIED`.
    pub(crate) async fn admit(
        &self,
        path: &str,
        authorization: Option<&[u8]>,
    ) -> Result<Caller, Status> {
        if access::is_open(path) || self.passes_on && !passthrough::is_own(path) {
            return Ok(Caller::Anyone);
        }
        let caller = match (&self.admin, authorization) {
            (None, None) => Caller::Anyone,
            (Some(_), None) => {
                return Err(status::unauthenticated("missing authorization header"));
            }
            (admin, Some(header)) => {
                let token = header.strip_prefix(b"Bearer ").ok_or_else(|| {
                    status::unauthenticated("the authorization header is no bearer token")
                })?;
                match admin {
                    Some(admin) if admin.is(token) => Caller::Admin,
                    None if !token::looks_like_one(token) => Caller::Anyone,
                    Some(_) | None => Caller::Sandbox(self.sandbox(token).await?),
                }
            }
        };
        access::check(path, &caller)?;
        Ok(caller)
    }

    /// A sandbox by its token. A replica that does not know the sandbox asks the leader before it
    /// says so: it may have been created a moment ago.
    async fn sandbox(&self, token: &[u8]) -> Result<Pass, Status> {
        let invalid = || status::unauthenticated("invalid token");
        let pass = token::read(&self.shared.state(), token).ok_or_else(invalid)?;
        let now = self.shared.ports.view.now();
        let mut checked = pass.check(&self.shared.state(), now);
        if checked == Err(Spent::Unknown) {
            self.shared.catch_up().await?;
            checked = pass.check(&self.shared.state(), now);
        }
        match checked {
            Ok(()) => Ok(pass),
            Err(spent) => Err(status::spent(spent)),
        }
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

    #[test]
    fn the_token_is_not_shown() {
        let token = AdminToken::new(&Secret::from("hunter2"));
        assert_eq!(format!("{token:?}"), "AdminToken(…)");
    }
}
