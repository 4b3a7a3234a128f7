//! Rules that turn what an operator is known by, claims of a token or names of a certificate, into
//! roles.

use std::fmt;
use std::str::FromStr;

use evermint_core::id::Workspace;
use serde::{Deserialize, Serialize};

use crate::access::{Role, Roles};

/// `VALUE=ROLE@WORKSPACE`: whoever bears the value has the role there. `@*` stands for all
/// workspaces, an admin is one everywhere, and a value that ends in `*` for all that begin so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleRule {
    value: String,
    role: Role,
    workspace: Option<Workspace>,
}

/// A text that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no rule for roles; write VALUE=admin, VALUE=editor@WORKSPACE or VALUE=reader@WORKSPACE, with * for all workspaces"
)]
pub struct NotARule(String);

impl RoleRule {
    fn matches(&self, value: &str) -> bool {
        match self.value.strip_suffix('*') {
            Some(prefix) => value.starts_with(prefix),
            None => value == self.value,
        }
    }
}

impl Roles {
    /// What the rules give to who bears these values.
    pub(crate) fn granted(rules: &[RoleRule], values: &[String]) -> Self {
        let mut roles = Self::default();
        for rule in rules {
            if values.iter().any(|value| rule.matches(value)) {
                roles.add(rule.role, rule.workspace.clone());
            }
        }
        roles
    }
}

impl FromStr for RoleRule {
    type Err = NotARule;

    fn from_str(text: &str) -> Result<Self, NotARule> {
        let wrong = || NotARule(text.to_owned());
        // Values may hold '=' themselves, as names of directories do.
        let (value, right) = text.rsplit_once('=').ok_or_else(wrong)?;
        let (role, workspace) = match right.split_once('@') {
            None if right == "admin" => (Role::Admin, None),
            Some((role, workspace)) => {
                let role = match role {
                    "reader" => Role::Reader,
                    "editor" => Role::Editor,
                    _ => return Err(wrong()),
                };
                match workspace {
                    "*" => (role, None),
                    name => (role, Some(name.parse().map_err(|_| wrong())?)),
                }
            }
            None => return Err(wrong()),
        };
        // A rule for everyone who is known would be a slip.
        if value.is_empty() || value == "*" {
            return Err(wrong());
        }
        Ok(Self {
            value: value.to_owned(),
            role,
            workspace,
        })
    }
}

impl TryFrom<String> for RoleRule {
    type Error = NotARule;

    fn try_from(text: String) -> Result<Self, NotARule> {
        text.parse()
    }
}

impl From<RoleRule> for String {
    fn from(rule: RoleRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for RoleRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.value, self.role)?;
        match &self.workspace {
            Some(workspace) => write!(f, "@{workspace}"),
            None if self.role == Role::Admin => Ok(()),
            None => f.write_str("@*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Target;

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        for text in [
            "ops=admin",
            "dev=editor@team-a",
            "all=reader@*",
            "CN=ops,OU=x=editor@*",
            "uri:spiffe://example.org/ns/prod/*=editor@prod",
        ] {
            assert_eq!(text.parse::<RoleRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_does_not_say_who_and_where_is_no_rule() {
        for text in [
            "",
            "ops",
            "ops=",
            "=admin",
            "*=admin",
            "*=reader@*",
            "ops=root",
            "ops=editor",
            "ops=reader@",
            "ops=editor@a b",
            "ops=admin@team-a",
        ] {
            assert!(text.parse::<RoleRule>().is_err(), "{text}");
        }
    }

    #[test]
    fn roles_add_up_and_stay_in_their_workspaces() {
        let rules = ["a=reader@*", "a=editor@one", "b*=editor@two", "c=admin"];
        let rules = rules.map(|rule| rule.parse().unwrap());
        let target = |name: &str| Target::In(name.parse().unwrap());
        for (values, place, highest) in [
            (vec!["a"], target("one"), Role::Editor),
            (vec!["a"], target("two"), Role::Reader),
            (vec!["a", "bb"], target("two"), Role::Editor),
            (vec!["b"], target("two"), Role::Editor),
            (vec!["b"], target("one"), Role::Known),
            (vec!["A", "ab"], target("one"), Role::Known),
            (vec!["a"], Target::Everywhere, Role::Reader),
            (vec!["b"], Target::Everywhere, Role::Known),
            (vec!["b"], Target::Anywhere, Role::Editor),
            (vec!["c"], target("one"), Role::Admin),
            (vec![], Target::Anywhere, Role::Known),
        ] {
            let bears: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
            let roles = Roles::granted(&rules, &bears);
            for role in [Role::Known, Role::Reader, Role::Editor, Role::Admin] {
                let holds = roles.hold(role, &place);
                assert_eq!(holds, role <= highest, "{values:?} {role} {place:?}");
            }
            assert_eq!(
                roles.hold(Role::Reader, &Target::Platform),
                highest == Role::Admin
            );
        }
    }
}
