//! `exec`: a command on the replica prints the token, as JSON:
//! `{"token": "…", "expires_in": 3600, "outputs": {"name": "…"}}`. In place of `expires_in` it may
//! say `expires_at`, as RFC 3339 writes it. Its exit status speaks as
//! [sysexits](https://man.freebsd.org/cgi/man.cgi?query=sysexits) does: 75 is a failure in passing,
//! 77 a grant that is refused, 78 a wrong configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use evermint_core::mint::{Failure, FailureClass, Fence, Minted};
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use serde::Deserialize;
use serde_json::Value;

use super::{CredentialRefresher, Grant, Outputs};
use crate::command::{CommandLine, NotRun, Printed, run};
use crate::lifetime;
use crate::material::{FieldError, Format, MaterialField, MaterialSchema, bad_material};
use crate::outside::Setup;
use crate::redact::Redactor;

/// The strategy.
#[derive(Clone, Copy, Debug)]
pub struct Exec;

const COMMAND: &str = "command";

/// Exit statuses with a meaning.
const TEMPFAIL: i32 = 75;
const NOPERM: i32 = 77;
const CONFIG: i32 = 78;

const REMEDY: &str = "run the command on a replica by hand, and correct what it complains about";

const SCHEMA: MaterialSchema = MaterialSchema {
    strategy: Strategy::Exec,
    parts: &[&[MaterialField::public(
        COMMAND,
        Format::Line,
        "the name of a command in the replicas' configuration: NAME of [exec.NAME]",
    )
    .required()]],
};

/// What a command prints. The texts go into secrets without a copy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    token: String,
    #[serde(default)]
    expires_in: Value,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
}

#[async_trait]
impl CredentialRefresher for Exec {
    fn schema(&self) -> &'static MaterialSchema {
        &SCHEMA
    }

    fn grant(&self) -> Grant {
        Grant {
            refused: FailureClass::GrantRefused,
            remedy: REMEDY,
        }
    }

    fn outputs(&self) -> Outputs {
        Outputs::Any
    }

    fn endpoints(&self, _: &Setup<'_>) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn check(&self, setup: &Setup<'_>) -> Vec<FieldError> {
        let commands = &setup.outside.commands;
        let problem = match setup.material.get(COMMAND) {
            None => None,
            Some(name) => match commands.get(name) {
                Some(line) => line.check().err(),
                None if commands.is_empty() => Some(
                    "names no command: the replicas' configuration has none ([exec.NAME])"
                        .to_owned(),
                ),
                None => {
                    let known: Vec<_> = commands.keys().map(String::as_str).collect();
                    Some(format!(
                        "is not among the configured ones: {}",
                        known.join(", ")
                    ))
                }
            },
        };
        let error = problem.map(|problem| FieldError::new(COMMAND, problem));
        error.into_iter().collect()
    }

    fn is_revocable(&self) -> bool {
        false
    }

    async fn refresh(&self, setup: &Setup<'_>, fence: &Arc<dyn Fence>) -> Result<Minted, Failure> {
        let name = setup.material.require(COMMAND)?;
        let line = setup.outside.commands.get(name).ok_or_else(|| {
            bad_material(COMMAND, "names no command of this replica's configuration")
        })?;
        let printed = run(line, &**fence)
            .await
            .map_err(|why| not_run(name, why))?;
        read(name, line, &printed)
    }
}

fn not_run(name: &str, why: NotRun) -> Failure {
    match why {
        NotRun::Unstarted(error) => failed(
            FailureClass::Unsent,
            format!("command {name} cannot be started: {error}"),
        ),
        NotRun::TooLate => failed(
            FailureClass::Transient,
            format!("command {name} did not end before the ticket did, and was killed"),
        ),
        NotRun::Broken(error) => failed(
            FailureClass::Transient,
            format!("the output of command {name} could not be read: {error}"),
        ),
    }
}

fn read(name: &str, line: &CommandLine, printed: &Printed) -> Result<Minted, Failure> {
    if !printed.status.success() {
        let class = match printed.status.code() {
            Some(TEMPFAIL) | None => FailureClass::Transient,
            Some(NOPERM) => FailureClass::GrantRefused,
            Some(CONFIG) => FailureClass::ConfigRefused,
            Some(_) => FailureClass::UnknownRefusal,
        };
        // The environment may hold what the command proves itself by.
        let secrets: Vec<Secret> = line
            .env
            .values()
            .map(|v| Secret::from(v.as_str()))
            .collect();
        let complaint = match printed.complaint.as_str() {
            "" => "it says nothing",
            words => words,
        };
        let cause = format!("command {name} failed ({}): {complaint}", printed.status);
        return Err(failed(class, Redactor::new(&secrets).clean(&cause)));
    }
    let refused = |problem: &str| {
        let cause = format!("command {name} printed {problem}");
        failed(FailureClass::UnknownRefusal, cause)
    };
    let output = printed.output.as_ref().ok_or_else(|| refused("too much"))?;
    // The parser's own text could quote the token.
    let wire: Wire = serde_json::from_slice(output)
        .map_err(|_| refused(r#"no JSON of the form {"token": "…", "expires_in": 3600}"#))?;
    let is_plain = |text: &str| !text.is_empty() && !text.contains('\0');
    if !is_plain(&wire.token) || !wire.outputs.values().all(|value| is_plain(value)) {
        return Err(refused("an empty token or output"));
    }
    let by_end = wire.expires_at.as_deref();
    let by_end = by_end.and_then(|end| lifetime::until_rfc3339(end, SystemTime::now()));
    let outputs = wire.outputs.into_iter();
    let token = Secret::from(wire.token);
    let lifetime = lifetime::earlier(lifetime::expires_in(&wire.expires_in), by_end)
        .or_else(|| lifetime::of_jwt(token.expose_str().unwrap_or(""), None));
    Ok(Minted {
        token,
        extra_outputs: outputs
            .map(|(name, value)| (name, Secret::from(value)))
            .collect(),
        lifetime,
        new_material: BTreeMap::new(),
        material_lifetimes: BTreeMap::new(),
        scopes: None,
    })
}

fn failed(class: FailureClass, cause: String) -> Failure {
    Failure {
        class,
        cause: Redactor::default().clean(&cause),
        remedy: REMEDY.to_owned(),
        retry_after_ms: None,
    }
}
