//! Who asked is in the audit trail, also where the answer was no; and the trail is a chain.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::audit::{Digest, digest};
use evermint_core::secret::Secret;
use evermint_gateway::{AdminToken, Bounds, Config, Web};
use evermint_proto::v1;
use evermint_proto::v1::audit_record::Event;
use tonic::Code;

use crate::calls::{bearer, by, call, sandbox_token};
use crate::harness::{Harness, config, credentials};
use crate::idp::{Idp, Signer, claims, oidc};

const ADMIN: &str = "the-operator";

async fn list(harness: &Harness, request: v1::ListAuditRequest) -> v1::ListAuditResponse {
    let listed = harness.audit().list_audit(by(ADMIN, request)).await;
    listed.unwrap().into_inner()
}

async fn create(harness: &Harness) {
    let create = v1::CreateProviderRequest {
        name: "p".to_owned(),
        r#type: "generic".to_owned(),
        ..Default::default()
    };
    let mut providers = harness.providers();
    providers.create_provider(by(ADMIN, create)).await.unwrap();
}

async fn guarded() -> Harness {
    let admin = Some(AdminToken::new(&Secret::from(ADMIN)));
    Harness::with(Config { admin, ..config() }).await
}

#[tokio::test]
async fn a_change_says_who_asked_for_it_and_from_where() {
    let harness = guarded().await;
    create(&harness).await;
    let trail = list(&harness, v1::ListAuditRequest::default()).await;
    let last = trail.records.last().unwrap();
    let by = last.by.clone().unwrap();
    assert_eq!(
        (by.who.as_str(), by.from.as_str()),
        ("admin-token:admin", "127.0.0.1")
    );
    // What the cluster does by itself has nobody.
    assert_eq!(trail.records[0].by, None);
    for (who, kind, count) in [
        ("admin-token", "", 1),
        ("admin-token:admin", "change", 1),
        ("admin-token", "revocation", 0),
        ("sandbox", "", 0),
        ("admin-token", "refused", 0),
        ("", "mint", 0),
    ] {
        let request = v1::ListAuditRequest {
            who: who.to_owned(),
            kind: kind.to_owned(),
            ..Default::default()
        };
        assert_eq!(
            list(&harness, request).await.records.len(),
            count,
            "{who} {kind}"
        );
    }
    let request = v1::ListAuditRequest {
        kind: "gossip".to_owned(),
        ..Default::default()
    };
    let refused = harness.audit().list_audit(self::by(ADMIN, request)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_trail_is_a_chain_of_digests_over_what_it_says() {
    let harness = guarded().await;
    create(&harness).await;
    let trail = list(&harness, v1::ListAuditRequest::default()).await;
    assert_eq!(trail.anchor.unwrap().number, 0);
    let mut end = v1::AuditLink {
        number: 0,
        digest: vec![0; 32].into(),
    };
    for record in &trail.records {
        assert_eq!(record.number, end.number + 1);
        assert_eq!(record.previous, end.digest);
        let previous = Digest(record.previous[..].try_into().unwrap());
        assert_eq!(digest(&previous, &record.fields).0, record.digest[..]);
        end = v1::AuditLink {
            number: record.number,
            digest: record.digest.clone(),
        };
    }
    assert_eq!(trail.head, Some(end));
}

#[tokio::test]
async fn calls_that_are_refused_are_counted_and_told_as_one() {
    const CALLS: u64 = 200;
    let harness = guarded().await;
    for _ in 0..CALLS {
        let mut providers = harness.providers();
        let request = v1::ListProvidersRequest::default();
        let refused = providers.list_providers(by("a-guess", request)).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    }
    let refused = async {
        loop {
            let request = v1::ListAuditRequest {
                kind: "refused".to_owned(),
                ..Default::default()
            };
            let records = list(&harness, request).await.records;
            let count = |record: &v1::AuditRecord| match record.event.as_ref().unwrap() {
                Event::Refused(refused) => refused.count,
                Event::Mint(_) | Event::Change(_) | Event::Revocation(_) => 0,
            };
            if records.iter().map(count).sum::<u64>() == CALLS {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let bound = Duration::from_secs(60);
    let records = tokio::time::timeout(bound, refused).await.unwrap();
    assert!(records.len() < 20, "{}", records.len());
    for record in &records {
        let fields = &record.fields;
        assert_eq!(fields["who"], "unknown");
        assert_eq!(fields["from"], "127.0.0.1");
        assert_eq!(fields["method"], "/evermint.v1.Providers/ListProviders");
        assert_eq!(fields["reason"], "unauthenticated");
        assert!(!format!("{record:?}").contains("a-guess"));
    }
}

/// Waits for a record of a refused call of `who`, and gives its method and reason.
async fn refused(harness: &Harness, who: &str) -> (String, String) {
    let told = async {
        loop {
            let request = v1::ListAuditRequest {
                kind: "refused".to_owned(),
                who: who.to_owned(),
                ..Default::default()
            };
            if let Some(record) = list(harness, request).await.records.pop() {
                return (
                    record.fields["method"].clone(),
                    record.fields["reason"].clone(),
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told).await;
    told.unwrap_or_else(|_| panic!("nothing is told of {who}"))
}

#[tokio::test]
async fn every_kind_of_caller_is_named_where_it_changed_something_and_where_it_was_refused() {
    const CREATE: &str = "/evermint.v1.Sandboxes/CreateSandbox";
    let signer = Signer::new("ours");
    let idp = Idp::new(&[&signer]);
    let config = Config {
        admin: Some(AdminToken::new(&Secret::from(ADMIN))),
        oidc: Some(oidc()),
        bounds: Bounds {
            providers: 1,
            ..Bounds::default()
        },
        ..config()
    };
    let harness = Harness::with_web(config, Arc::clone(&idp) as Arc<dyn Web>).await;
    let operator = signer.sign(&claims("ops"));
    let box_token = sandbox_token(&harness, &operator, "box").await;
    let changes = v1::ListAuditRequest {
        who: "oidc:alice".to_owned(),
        kind: "change".to_owned(),
        ..Default::default()
    };
    let told = list(&harness, changes).await.records;
    let commands: Vec<_> = told.iter().map(|r| r.fields["command"].as_str()).collect();
    assert_eq!(commands, ["create-sandbox", "add-signing-key"]);

    // By its role, by its workspace, for what it is, for how much there is.
    let code = |answer: Result<(), tonic::Status>| answer.unwrap_err().code();
    let reader = signer.sign(&claims("staff"));
    let answer = call(&harness, CREATE, Some(&bearer(&reader))).await;
    assert_eq!(code(answer), Code::PermissionDenied);
    let (method, reason) = refused(&harness, "oidc:alice").await;
    assert_eq!((method.as_str(), reason.as_str()), (CREATE, "role-missing"));

    let answer = call(&harness, CREATE, Some(&bearer(&box_token))).await;
    assert_eq!(code(answer), Code::PermissionDenied);
    let (method, _) = refused(&harness, "sandbox:").await;
    assert_eq!(method, CREATE);

    for (name, code) in [("p", Code::Ok), ("q", Code::ResourceExhausted)] {
        let create = v1::CreateProviderRequest {
            name: name.to_owned(),
            r#type: "generic".to_owned(),
            credentials: credentials(&[("TOKEN", "v")]),
            ..Default::default()
        };
        let answer = harness.providers().create_provider(by(ADMIN, create)).await;
        assert_eq!(answer.map_or_else(|s| s.code(), |_| Code::Ok), code);
    }
    let (method, _) = refused(&harness, "admin-token:admin").await;
    assert_eq!(method, "/evermint.v1.Providers/CreateProvider");
}
