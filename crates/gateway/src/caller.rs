//! Who calls: an operator, a sandbox by its token, or, where no way for operators is configured,
//! anyone who shows nothing; the binary allows that on loopback alone. What each may call is for
//! [`access`] to say.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderValue;
use evermint_core::id::SandboxId;
use evermint_core::secret::Secret;
use evermint_core::state::State;
use evermint_core::time::UnixMs;
use tonic::transport::CertificateDer;
use tonic::{Code, Status};

use crate::access::{Method, Place, Roles, Who};
use crate::doorway::network;
use crate::logins::TooMany;
use crate::oidc::Verifier;
use crate::roles::RoleRule;
use crate::shared::Shared;
use crate::target::{named_sandbox, target};
use crate::token::{self, Pass, Spent};
use crate::{access, certificate, openshell, status};

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

impl fmt::Display for Caller {
    /// As the audit trail has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Operator(operator) => write!(f, "{}:{}", operator.way, operator.subject),
            Self::Sandbox(pass) => write!(f, "sandbox:{}", pass.sandbox),
        }
    }
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
    /// When its token or certificate ends; never for the admin token.
    pub until: Option<UnixMs>,
}

impl Caller {
    /// Whether what the caller showed is still good. A stream asks again and again, so that none
    /// outlives the token or certificate that opened it.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub(crate) fn check(&self, state: &State, now: UnixMs) -> Result<(), Status> {
        match self {
            Self::Sandbox(pass) => pass.check(state, now).map_err(status::spent),
            Self::Operator(_) if self.until().is_some_and(|until| until <= now) => {
                Err(status::spent(Spent::Expired))
            }
            Self::Operator(_) | Self::Anyone => Ok(()),
        }
    }

    /// When what the caller showed ends.
    pub(crate) fn until(&self) -> Option<UnixMs> {
        match self {
            Self::Sandbox(pass) => Some(pass.until()),
            Self::Operator(operator) => operator.until,
            Self::Anyone => None,
        }
    }
}

/// How an operator shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The admin token of the configuration.
    AdminToken,
    /// A token of the OpenID provider.
    Oidc,
    /// A client certificate.
    Certificate,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminToken => "admin-token",
            Self::Oidc => "oidc",
            Self::Certificate => "certificate",
        })
    }
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

/// What a call shows of its caller.
pub(crate) struct Shown {
    /// Its `authorization` header.
    pub(crate) authorization: Option<HeaderValue>,
    /// The certificates of its connection, which TLS has checked; the caller's own is the first.
    pub(crate) certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
    /// Where the connection is from.
    pub(crate) address: Option<IpAddr>,
}

/// The ways in which operators may show who they are. Without any, whoever reaches the replica
/// may call.
#[derive(Default)]
pub(crate) struct Ways {
    /// The token that opens everything.
    pub(crate) admin: Option<AdminToken>,
    /// Tokens of an OpenID provider.
    pub(crate) oidc: Option<Arc<Verifier>>,
    /// Client certificates, by these rules.
    pub(crate) certificates: Option<Vec<RoleRule>>,
}

impl Ways {
    fn is_none(&self) -> bool {
        self.admin.is_none() && self.oidc.is_none() && self.certificates.is_none()
    }
}

/// Who is at the door.
pub(crate) struct Door {
    pub(crate) ways: Ways,
    pub(crate) shared: Arc<Shared>,
}

impl Door {
    /// Identifies the caller of `method`, by what it shows beside the request.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub(crate) async fn identify(&self, method: &Method, shown: &Shown) -> Result<Caller, Status> {
        match method.who {
            Who::Anyone => Ok(Caller::Anyone),
            _ => self.login(method, shown).await,
        }
    }

    /// Identifies the caller when it is the turn of its address.
    async fn login(&self, method: &Method, shown: &Shown) -> Result<Caller, Status> {
        let Some(address) = shown.address.filter(|_| shown.authorization.is_some()) else {
            return self.by_what_is_shown(method, shown).await;
        };
        let address = network(address);
        let logins = &self.shared.logins;
        let look = logins.turn(address).await;
        let look = look.map_err(|TooMany| status::too_many_logins())?;
        let identified = self.by_what_is_shown(method, shown).await;
        // Whom another gateway may know, that one judges.
        let is_anothers = |refused: &Status| {
            let passes_on = self.shared.passage.is_some() && method.is_for_openshell_sandboxes();
            passes_on && status::is_stranger(refused)
        };
        if let Err(refused) = &identified
            && refused.code() == Code::Unauthenticated
            && !is_anothers(refused)
        {
            logins.failed(address, look).await;
        }
        identified
    }

    /// A token counts for more than the certificate of the connection that it came by, and one
    /// that is no good is refused whatever the certificate says.
    async fn by_what_is_shown(&self, method: &Method, shown: &Shown) -> Result<Caller, Status> {
        let Some(header) = &shown.authorization else {
            let certificate = shown.certificates.as_ref().and_then(|c| c.first());
            return self.by_certificate(certificate.map(|c| &**c));
        };
        let token = header.as_bytes().strip_prefix(b"Bearer ").ok_or_else(|| {
            status::unauthenticated("the authorization header is no bearer token")
        })?;
        if self
            .ways
            .admin
            .as_ref()
            .is_some_and(|admin| admin.is(token))
        {
            return Ok(Caller::Operator(Arc::new(Operator {
                subject: "admin".to_owned(),
                way: Way::AdminToken,
                roles: Roles::admin(),
                scopes: None,
                until: None,
            })));
        }
        if self.ways.is_none() && !token::looks_like_one(token) {
            return Ok(Caller::Anyone);
        }
        let shared = &self.shared;
        let read = || token::read(&shared.state(), &shared.tokens, token);
        let mut pass = read();
        // The key may be newer than what this replica knows, or an OpenID provider's.
        if pass.is_none() && token::is_of_unknown_key(&shared.state(), token) {
            match shared.catch_up().await {
                Ok(()) => pass = read(),
                Err(error) if self.ways.oidc.is_none() => return Err(error),
                Err(_) => {}
            }
        }
        match (pass, &self.ways.oidc) {
            (Some(pass), _) => self.sandbox(method, pass).await,
            (None, Some(oidc)) => {
                let operator = oidc.operator(token, self.shared.ports.view.now()).await?;
                Ok(Caller::Operator(Arc::new(operator)))
            }
            (None, None) => Err(status::unauthenticated("invalid token")),
        }
    }

    fn by_certificate(&self, certificate: Option<&[u8]>) -> Result<Caller, Status> {
        match (&self.ways.certificates, certificate) {
            _ if self.ways.is_none() => Ok(Caller::Anyone),
            (Some(rules), Some(der)) => {
                let operator = certificate::operator(der, rules).ok_or_else(|| {
                    status::unauthenticated("the client certificate names nobody")
                })?;
                let caller = Caller::Operator(Arc::new(operator));
                // TLS looked when the connection came about, perhaps long ago.
                let now = self.shared.ports.view.now();
                caller.check(&self.shared.state(), now)?;
                Ok(caller)
            }
            (_, _) => Err(status::unauthenticated("missing authorization header")),
        }
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
    async fn sandbox(&self, method: &Method, pass: Pass) -> Result<Caller, Status> {
        let now = self.shared.ports.view.now();
        let mut checked = pass.check(&self.shared.state(), now);
        if checked == Err(Spent::Unknown) {
            self.shared.catch_up().await?;
            checked = pass.check(&self.shared.state(), now);
        }
        match checked {
            Ok(()) => Ok(Caller::Sandbox(pass)),
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
