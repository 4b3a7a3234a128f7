//! Where Microsoft Entra issues tokens: an authority and a tenant make the endpoint, as in
//! [Microsoft's table of clouds](https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud).

use crate::material::{FieldError, Format, MaterialField};
use crate::outside::Setup;

const TENANT: &str = "tenant_id";
const AUTHORITY: &str = "authority_host";

/// The authority of the public cloud.
const PUBLIC: &str = "login.microsoftonline.com";

/// What stands in for a token endpoint.
pub(crate) const FIELDS: &[MaterialField] = &[
    MaterialField::public(
        TENANT,
        Format::Line,
        "the Microsoft Entra tenant, in place of a token endpoint",
    )
    .checked(|tenant| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let problem = "is no tenant: it is a UUID or a domain name";
        match tenant.chars().all(is_plain) {
            true => Ok(()),
            false => Err(problem.to_owned()),
        }
    }),
    MaterialField::public(
        AUTHORITY,
        Format::OneOf(&[
            PUBLIC,
            "login.microsoftonline.us",
            "login.partner.microsoftonline.cn",
            "login.chinacloudapi.cn",
        ]),
        "the Microsoft cloud that the tenant is in; the public one if not given",
    ),
];

/// The token endpoint: the configured one, or that of the tenant.
pub(crate) fn token_url(setup: &Setup<'_>) -> String {
    match setup.material.get(TENANT) {
        Some(tenant) if setup.config.token_url.is_empty() => {
            let authority = setup.material.get(AUTHORITY).unwrap_or(PUBLIC);
            format!("https://{authority}/{tenant}/oauth2/v2.0/token")
        }
        _ => setup.config.token_url.clone(),
    }
}

/// The token endpoint, with the field that decides it.
pub(crate) fn endpoints(setup: &Setup<'_>) -> Vec<(&'static str, String)> {
    let field = match setup.config.token_url.is_empty() && setup.material.has(TENANT) {
        true => TENANT,
        false => "token_url",
    };
    vec![(field, token_url(setup))]
}

/// An authority without a tenant makes no endpoint.
pub(crate) fn check(setup: &Setup<'_>) -> Vec<FieldError> {
    let is_idle = setup.material.has(AUTHORITY) && !setup.material.has(TENANT);
    let problem = "needs a tenant_id";
    let error = is_idle.then(|| FieldError::new(AUTHORITY, problem));
    error.into_iter().collect()
}
