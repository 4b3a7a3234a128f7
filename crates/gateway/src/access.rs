//! Who may call what, in one place: a row of [`METHODS`] for each method says who may call it, and
//! which part of a request says about which workspace. The check of every call, the table in
//! `docs/access.md` and the test that makes every call as everyone come from these rows. A method
//! without a row is refused.

use std::collections::BTreeMap;
use std::fmt;

use evermint_core::id::Workspace;
use tonic::Status;

use crate::caller::{Caller, Operator};
use crate::status;

pub use crate::methods::METHODS;

/// What an operator may do. Each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Is known, and has no role anywhere.
    Known,
    /// Sees everything but secrets.
    Reader,
    /// Changes what a workspace holds; through its sandboxes, reads live tokens.
    Editor,
    /// Runs the platform: everything, in every workspace.
    Admin,
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everyone, without showing anything.
    Anyone,
    /// A sandbox, about itself.
    Sandbox,
    /// An operator of this role, where the call is about.
    Operator(Role),
    /// A sandbox, about itself; or an operator of this role.
    SandboxOr(Role),
}

/// Where a call is about, as its request says it. Numbers are those of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// No workspace: the role may be held in any.
    Anywhere,
    /// All of them: the role has to be held everywhere.
    Everywhere,
    /// The workspace that this field names; empty is the default one.
    In(u32),
    /// The workspace that the first field names, or with the second one set all of them.
    InOrAll(u32, u32),
    /// The workspace that the first field names, or with the second one set the platform, which
    /// admins change.
    InOrPlatform(u32, u32),
    /// The workspace that this field names; empty is the platform, which is for admins.
    InElsePlatform(u32),
    /// The workspace of the sandbox whose id the first field holds, or if it holds none the one
    /// that the second field names.
    OfSandbox(u32, Option<u32>),
}

/// One method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// Who may call it.
    pub who: Who,
    /// The scope that an operator's OIDC token has to hold, where tokens have scopes; empty if
    /// none is asked for.
    pub scope: &'static str,
    /// Where a call is about.
    pub place: Place,
}

impl Method {
    /// Whether OpenShell's sandboxes call it.
    pub(crate) fn is_for_openshell_sandboxes(&self) -> bool {
        let for_sandboxes = matches!(self.who, Who::Sandbox | Who::SandboxOr(_));
        for_sandboxes && self.path.starts_with("/openshell.")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Known => "known",
            Self::Reader => "reader",
            Self::Editor => "editor",
            Self::Admin => "admin",
        })
    }
}

/// What a request turned out to be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// No workspace.
    Anywhere,
    /// All workspaces.
    Everywhere,
    /// The platform.
    Platform,
    /// One workspace.
    In(Workspace),
}

/// The roles of an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    everywhere: Option<Role>,
    workspaces: BTreeMap<Workspace, Role>,
}

impl Roles {
    /// Those of who may do everything.
    pub fn admin() -> Self {
        Self {
            everywhere: Some(Role::Admin),
            workspaces: BTreeMap::new(),
        }
    }

    /// Adds a role, in one workspace or, with `None`, in all. Admins are so everywhere.
    pub fn add(&mut self, role: Role, workspace: Option<Workspace>) {
        match workspace {
            Some(workspace) if role < Role::Admin => {
                let held = self.workspaces.entry(workspace).or_insert(role);
                *held = role.max(*held);
            }
            Some(_) | None => self.everywhere = self.everywhere.max(Some(role)),
        }
    }

    /// The names of the roles that are held everywhere and, as `role@workspace`, in one workspace.
    pub(crate) fn names(&self) -> Vec<String> {
        let local = self
            .workspaces
            .iter()
            .map(|(w, role)| format!("{role}@{w}"));
        let everywhere = self.everywhere.iter().map(Role::to_string);
        everywhere.chain(local).collect()
    }

    /// Whether `role` is held where a call is about.
    pub(crate) fn hold(&self, role: Role, target: &Target) -> bool {
        let everywhere = self.everywhere.unwrap_or(Role::Known);
        let held = match target {
            Target::Anywhere => self
                .workspaces
                .values()
                .copied()
                .fold(everywhere, Role::max),
            Target::Everywhere => everywhere,
            Target::Platform => return everywhere == Role::Admin,
            Target::In(workspace) => self
                .workspaces
                .get(workspace)
                .copied()
                .map_or(everywhere, |role| role.max(everywhere)),
        };
        held >= role
    }
}

/// The row of a path.
pub(crate) fn method(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

/// Whether `caller` may call `method` anywhere at all; what can be said before the request is read.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub(crate) fn check(method: &Method, caller: &Caller) -> Result<(), Status> {
    match (caller, method.who) {
        (_, Who::Anyone)
        | (Caller::Sandbox(_), Who::Sandbox | Who::SandboxOr(_))
        | (Caller::Anyone, Who::Operator(_) | Who::SandboxOr(_)) => Ok(()),
        (Caller::Sandbox(_), Who::Operator(_)) => Err(status::denied(
            "sandbox principals may not call this method",
        )),
        (Caller::Anyone | Caller::Operator(_), Who::Sandbox) => {
            Err(status::denied("this method requires a sandbox principal"))
        }
        (Caller::Operator(operator), Who::Operator(role) | Who::SandboxOr(role)) => {
            scope(method, operator)?;
            holds(operator, role, &Target::Anywhere)
        }
    }
}

/// Whether `caller` may call `method` where the request is about. What a request is about that
/// does not say so clearly (`None`) could be anything.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub(crate) fn check_target(
    method: &Method,
    caller: &Caller,
    target: Option<&Target>,
) -> Result<(), Status> {
    match (caller, method.who) {
        (Caller::Operator(operator), Who::Operator(role) | Who::SandboxOr(role)) => {
            holds(operator, role, target.unwrap_or(&Target::Everywhere))
        }
        // Sandboxes speak of themselves: each method that they may call looks at the caller.
        (Caller::Sandbox(_) | Caller::Anyone | Caller::Operator(_), _) => Ok(()),
    }
}

fn holds(operator: &Operator, role: Role, target: &Target) -> Result<(), Status> {
    if operator.roles.hold(role, target) {
        return Ok(());
    }
    let role = match target {
        Target::Platform => Role::Admin,
        Target::Anywhere | Target::Everywhere | Target::In(_) => role,
    };
    Err(status::role_missing(role, target))
}

/// A token that has scopes has to hold the method's, or the one for all.
fn scope(method: &Method, operator: &Operator) -> Result<(), Status> {
    let Some(scopes) = &operator.scopes else {
        return Ok(());
    };
    let good = |scope: &String| scope == method.scope || ALL_SCOPES.contains(&scope.as_str());
    if method.scope.is_empty() || scopes.iter().any(good) {
        return Ok(());
    }
    Err(status::scope_missing(method.scope))
}

/// Scopes that stand for all, the second one for OpenShell's clients.
const ALL_SCOPES: [&str; 2] = ["evermint:all", "openshell:all"];
