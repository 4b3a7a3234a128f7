//! What the strategies of AWS STS share: the endpoint of a region, the parameters of a session, and
//! the credentials in an answer of the
//! [Query protocol](https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html).

use std::collections::BTreeMap;

use evermint_core::mint::Minted;
use evermint_core::secret::Secret;
use serde::{Deserialize, Deserializer};

use super::Outputs;
use crate::form::Form;
use crate::lifetime;
use crate::material::{FieldError, Format, MaterialField, list};
use crate::outside::Setup;
use crate::response::Unusable;
use crate::transport::Answer;

pub(crate) const ROLE_ARN: &str = "role_arn";
pub(crate) const REGION: &str = "region";
const SESSION_NAME: &str = "role_session_name";
const DURATION: &str = "duration_seconds";
const POLICY: &str = "policy";
const POLICY_ARNS: &str = "policy_arns";

const VERSION: &str = "2011-06-15";

/// Most managed policies that a session is cut down by.
const POLICY_ARNS_MAX: usize = 10;

/// The outputs beside the access key id, which is the credential itself.
pub(crate) const OUTPUTS: Outputs = Outputs::Fixed(&[SECRET_KEY, SESSION_TOKEN]);
const SECRET_KEY: &str = "secret_access_key";
const SESSION_TOKEN: &str = "session_token";

/// The role, and what its session may do.
pub(crate) const FIELDS: &[MaterialField] = &[
    MaterialField::public(ROLE_ARN, Format::Line, "the role to assume: arn:aws:iam::…:role/…")
        .required()
        .checked(|arn| match arn.starts_with("arn:") && arn.contains(":role/") {
            true => Ok(()),
            false => Err("is no ARN of a role: arn:aws:iam::ACCOUNT:role/NAME".to_owned()),
        }),
    MaterialField::public(
        REGION,
        Format::Line,
        "the region whose STS is asked, such as eu-central-1",
    )
    .checked(|region| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match region.len() <= 32 && region.chars().all(is_plain) {
            true => Ok(()),
            false => Err("is no region: it is written like eu-central-1".to_owned()),
        }
    }),
    MaterialField::public(
        SESSION_NAME,
        Format::Line,
        "the session's name in AWS's audit trail; evermint if not given",
    )
    .checked(|name| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        match (2..=64).contains(&name.len()) && name.chars().all(fits) {
            true => Ok(()),
            false => Err("must be 2 to 64 letters, digits and _+=,.@-".to_owned()),
        }
    }),
    MaterialField::public(
        DURATION,
        Format::Number,
        "how long a session lives, 900 to 43200 seconds and at most the role's maximum; an hour if not given",
    )
    .checked(|text| match text.parse::<u32>() {
        Ok(900..=43_200) => Ok(()),
        _ => Err("must be 900 to 43200".to_owned()),
    }),
    MaterialField::public(
        POLICY,
        Format::Json,
        "a session policy: the session may do what both it and the role allow",
    ),
    MaterialField::public(
        POLICY_ARNS,
        Format::Line,
        "managed policies that cut the session down too, at most 10, parted by commas",
    )
    .checked(|text| {
        let arns = list(text);
        match arns.len() <= POLICY_ARNS_MAX && arns.iter().all(|arn| arn.starts_with("arn:")) {
            true => Ok(()),
            false => Err(format!("must be at most {POLICY_ARNS_MAX} ARNs, parted by commas")),
        }
    }),
];

/// Where STS is asked: the configured endpoint, or the region's.
pub(crate) fn url(setup: &Setup<'_>) -> String {
    match setup.material.get(REGION) {
        Some(region) if setup.config.token_url.is_empty() => {
            let domain = match region.starts_with("cn-") {
                true => "amazonaws.com.cn",
                false => "amazonaws.com",
            };
            format!("https://sts.{region}.{domain}/")
        }
        _ => setup.config.token_url.clone(),
    }
}

/// The endpoint, with the field that decides it.
pub(crate) fn endpoints(setup: &Setup<'_>) -> Vec<(&'static str, String)> {
    let field = match setup.config.token_url.is_empty() && setup.material.has(REGION) {
        true => REGION,
        false => "token_url",
    };
    vec![(field, url(setup))]
}

/// STS knows no scopes: sessions are cut down by policies.
pub(crate) fn check(setup: &Setup<'_>) -> Vec<FieldError> {
    let problem = "are not for AWS; cut the session down with policy or policy_arns";
    let error = (!setup.config.scopes.is_empty()).then(|| FieldError::new("scopes", problem));
    error.into_iter().collect()
}

/// A form with the action and all that describes the session.
pub(crate) fn form(setup: &Setup<'_>, action: &str) -> Form {
    let material = &setup.material;
    let mut form = Form::default();
    form.add("Action", action);
    form.add("Version", VERSION);
    form.add_some("RoleArn", material.get(ROLE_ARN));
    form.add(
        "RoleSessionName",
        material.get(SESSION_NAME).unwrap_or("evermint"),
    );
    form.add_some("DurationSeconds", material.get(DURATION));
    form.add_some("Policy", material.get(POLICY));
    for (n, arn) in list(material.get(POLICY_ARNS).unwrap_or(""))
        .iter()
        .enumerate()
    {
        form.add(&format!("PolicyArns.member.{}.arn", n + 1), arn);
    }
    form
}

/// An answer to either action.
#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "AssumeRoleResult", alias = "AssumeRoleWithWebIdentityResult")]
    result: Assumed,
}

#[derive(Deserialize)]
struct Assumed {
    #[serde(rename = "Credentials")]
    credentials: Credentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    #[serde(deserialize_with = "secret")]
    access_key_id: Secret,
    #[serde(deserialize_with = "secret")]
    secret_access_key: Secret,
    #[serde(deserialize_with = "secret")]
    session_token: Secret,
    #[serde(default)]
    expiration: String,
}

/// A text that goes into a [`Secret`] without a copy.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::from)
}

/// Reads the credentials of a session: all three parts or none.
pub(crate) fn read(answer: &Answer) -> Result<Minted, Unusable> {
    if !answer.status.is_success() {
        return Err(Unusable::Refusal);
    }
    let body = answer
        .body
        .as_ref()
        .ok_or(Unusable::Problem("a body that is too long"))?;
    if body.trim_ascii().is_empty() {
        return Err(Unusable::Problem("an empty body"));
    }
    let no_answer = Unusable::Problem("a body that is no token response");
    let text = std::str::from_utf8(body).map_err(|_| no_answer)?;
    let wire: Wire = quick_xml::de::from_str(text).map_err(|_| no_answer)?;
    let session = wire.result.credentials;
    let parts = [
        &session.access_key_id,
        &session.secret_access_key,
        &session.session_token,
    ];
    let is_plain = |b: &u8| b.is_ascii_graphic();
    if parts
        .iter()
        .any(|p| p.is_empty() || !p.expose().iter().all(is_plain))
    {
        return Err(Unusable::Problem(
            "credentials that are empty or no plain text",
        ));
    }
    Ok(Minted {
        token: session.access_key_id,
        extra_outputs: BTreeMap::from([
            (SECRET_KEY.to_owned(), session.secret_access_key),
            (SESSION_TOKEN.to_owned(), session.session_token),
        ]),
        lifetime: lifetime::until_timestamp(&session.expiration, answer),
        new_material: BTreeMap::new(),
        material_lifetimes: BTreeMap::new(),
        scopes: None,
    })
}
