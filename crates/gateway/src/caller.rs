//! Who calls: an operator, a sandbox by its token, or, where no way for operators is configured,
//! anyone who shows nothing; the binary allows that on loopback alone. What each may call is for
//! [`access`] to say.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use evermint_core::id::SandboxId;
use evermint_core::secret::Secret;
use tonic::Status;

use crate::access::{Method, Place, Roles, Who};
use crate::shared::Shared;
use crate::target::{named_sandbox, target};
use crate::token::{self, Pass, Spent};
use crate::{access, openshell, status};

/// Who calls; found in the extensions of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Someone who reached a replica without authentication, or a service that needs none.
    Anyone,
    /// An operator.
    Operator(Arc<Operator>),
    /// A sandbox.
    Sandbox(Pass),
}

/// A person or program that operates the cluster or a workspace of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Who it is, among those of its way.
    pub subject: String,
    /// How it showed that.
    pub way: Way,
    /// What it may do, and where.
    pub roles: Roles,
    /// The scopes of its token, where they count.
    pub scopes: Option<BTreeSet<String>>,
}

/// How an operator shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The admin token of the configuration.
    AdminToken,
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
}

impl Door {
    /// Identifies the caller of `method` by its `authorization` header, as far as that can be done
    /// before the request is read.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `PERMISSION_DENIED`.
    pub(crate) async fn admit(
        &self,
        method: &Method,
        authorization: Option<&[u8]>,
    ) -> Result<Caller, Status> {
        if method.who == Who::Anyone {
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
                    Some(admin) if admin.is(token) => Caller::Operator(Arc::new(Operator {
                        subject: "admin".to_owned(),
                        way: Way::AdminToken,
                        roles: Roles::admin(),
                        scopes: None,
                    })),
                    None if !token::looks_like_one(token) => Caller::Anyone,
                    Some(_) | None => Caller::Sandbox(self.sandbox(method, token).await?),
                }
            }
        };
        access::check(method, &caller)?;
        Ok(caller)
    }

    /// Whether the request `body` is about something that `caller` may call `method` for.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub(crate) async fn admit_request(
        &self,
        method: &Method,
        caller: &Caller,
        body: &[u8],
    ) -> Result<(), Status> {
        if let Place::OfSandbox(field, _) = method.place {
            // A sandbox that this replica does not know yet is in some other workspace, perhaps.
            let unknown = |id: &SandboxId| !self.shared.state().sandboxes.contains_key(id);
            if named_sandbox(field, body).as_ref().is_some_and(unknown) {
                self.shared.catch_up().await?;
            }
        }
        let target = target(method.place, body, &self.shared.state());
        access::check_target(method, caller, target.as_ref())
    }

    /// A sandbox by its token. A replica that does not know the sandbox asks the leader before it
    /// says so: it may have been created a moment ago.
    async fn sandbox(&self, method: &Method, token: &[u8]) -> Result<Pass, Status> {
        let invalid = || status::unauthenticated("invalid token");
        let shared = &self.shared;
        let read = || token::read(&shared.state(), &shared.tokens, token);
        let pass = match read() {
            Some(pass) => pass,
            // The key may be newer than what this replica knows.
            None if token::is_of_unknown_key(&shared.state(), token) => {
                shared.catch_up().await?;
                read().ok_or_else(invalid)?
            }
            None => return Err(invalid()),
        };
        let now = self.shared.ports.view.now();
        let mut checked = pass.check(&self.shared.state(), now);
        if checked == Err(Spent::Unknown) {
            self.shared.catch_up().await?;
            checked = pass.check(&self.shared.state(), now);
        }
        match checked {
            Ok(()) => Ok(pass),
            // OpenShell's sandboxes are told so by each method.
            Err(Spent::Unknown) if method.is_for_openshell_sandboxes() => Err(openshell::gone()),
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
