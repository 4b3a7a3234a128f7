//! Operators by client certificate: what a certificate, which TLS has checked, says of its bearer.

use evermint_core::time::UnixMs;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::access::Roles;
use crate::caller::{Operator, Way};
use crate::roles::RoleRule;

/// The operator whom `der` names: `None` if it names nobody.
pub(crate) fn operator(der: &[u8], rules: &[RoleRule]) -> Option<Operator> {
    let (names, until) = read(der)?;
    Some(Operator {
        subject: names.first()?.clone(),
        way: Way::Certificate,
        roles: Roles::granted(rules, &names),
        scopes: None,
        until: Some(until),
    })
}

/// What a certificate calls its bearer, each with its kind before it: `uri:`, `dns:` and `email:`
/// from the subject alternative name, `cn:`, `ou:` and `o:` from the subject; and its end.
fn read(der: &[u8]) -> Option<(Vec<String>, UnixMs)> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let mut names = Vec::new();
    if let Some(alternative) = certificate.subject_alternative_name().ok()? {
        names.extend(
            alternative
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::URI(uri) => Some(format!("uri:{uri}")),
                    GeneralName::DNSName(name) => Some(format!("dns:{name}")),
                    GeneralName::RFC822Name(address) => Some(format!("email:{address}")),
                    _ => None,
                }),
        );
    }
    let subject = certificate.subject();
    let told = |kind: &str, value: &str| format!("{kind}:{value}");
    for attribute in subject.iter_common_name() {
        names.push(told("cn", attribute.as_str().ok()?));
    }
    for attribute in subject.iter_organizational_unit() {
        names.push(told("ou", attribute.as_str().ok()?));
    }
    for attribute in subject.iter_organization() {
        names.push(told("o", attribute.as_str().ok()?));
    }
    let end = certificate.validity().not_after.timestamp();
    // It is good in its last second, too (RFC 5280 §4.1.2.5).
    let end = u64::try_from(end).ok()?.saturating_add(1);
    Some((names, UnixMs(end.saturating_mul(1_000))))
}
