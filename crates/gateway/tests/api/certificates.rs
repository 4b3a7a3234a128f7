//! Operators by client certificate, over real TLS.

use std::time::{Duration, UNIX_EPOCH};

use evermint_core::port::StateView as _;
use evermint_core::secret::Secret;
use evermint_gateway::testing::START;
use evermint_gateway::{AdminToken, ClientCertificates, Config};
use evermint_proto::v1;
use evermint_proto::v1::sandboxes_client::SandboxesClient;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::calls::{bearer, call_with, sandbox_token};
use crate::harness::{Harness, config};
use crate::secure::tls_files;

const READ: &str = "/evermint.v1.Providers/ListProviders";
const WRITE: &str = "/evermint.v1.Sandboxes/CreateSandbox";

/// An authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate and its key, for clients unless `shape` says otherwise.
    fn sign(&self, name: &str, shape: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        shape(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// A server that takes the certificates of `authority`.
async fn guarded(authority: &Authority, admin: Option<&str>) -> Harness {
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), &authority.pem).unwrap();
    let roles = [
        "cn:alice=admin",
        "cn:bob=editor@default",
        "uri:spiffe://example.org/ci/*=reader@*",
        "dns:dev.example.org=editor@other",
    ];
    let harness = Harness::with(Config {
        admin: admin.map(|token| AdminToken::new(&Secret::from(token))),
        tls: Some(tls_files()),
        certificates: Some(ClientCertificates {
            ca: ca.path().to_owned(),
            roles: roles.iter().map(|rule| rule.parse().unwrap()).collect(),
        }),
        ..config()
    })
    .await;
    // The file is read when the server starts, and then needed no more.
    connect(&harness, None).connect().await.unwrap();
    harness
}

fn connect(harness: &Harness, identity: Option<&Identity>) -> Endpoint {
    let pem = std::fs::read(tls_files().certificate).unwrap();
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem))
        .domain_name("localhost");
    if let Some(identity) = identity {
        tls = tls.identity(identity.clone());
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", harness.address)).unwrap();
    endpoint.tls_config(tls).unwrap()
}

async fn call(channel: &Channel, path: &str, token: Option<&str>) -> Code {
    let shown = token.map(bearer);
    let answer: Result<(), Status> = call_with(channel, path, shown.as_deref(), Vec::new()).await;
    answer.map_or_else(|status| status.code(), |()| Code::Ok)
}

#[tokio::test]
async fn a_certificate_lets_its_bearer_do_what_its_names_mean() {
    let authority = Authority::new("operators");
    let harness = guarded(&authority, None).await;
    let plain = |_: &mut CertificateParams| {};
    let ci = |p: &mut CertificateParams| {
        p.subject_alt_names = vec![uri("spiffe://example.org/ci/7")];
    };
    let near = |p: &mut CertificateParams| {
        p.subject_alt_names = vec![uri("spiffe://example.org/cix")];
    };
    let elsewhere = |p: &mut CertificateParams| {
        p.subject_alt_names = vec![SanType::DnsName("dev.example.org".try_into().unwrap())];
    };
    for (who, identity, reads, writes) in [
        (
            "admin",
            authority.sign("alice", plain),
            Code::Ok,
            Code::InvalidArgument,
        ),
        (
            "editor",
            authority.sign("bob", plain),
            Code::Ok,
            Code::InvalidArgument,
        ),
        (
            "reader",
            authority.sign("ci", ci),
            Code::Ok,
            Code::PermissionDenied,
        ),
        (
            "nearly one",
            authority.sign("ci", near),
            Code::PermissionDenied,
            Code::PermissionDenied,
        ),
        (
            "in another workspace",
            authority.sign("x", elsewhere),
            Code::PermissionDenied,
            Code::PermissionDenied,
        ),
        (
            "someone",
            authority.sign("mallory", plain),
            Code::PermissionDenied,
            Code::PermissionDenied,
        ),
        // The kind of a name is no part of it.
        (
            "a name that looks like a rule",
            authority.sign("cn:alice", plain),
            Code::PermissionDenied,
            Code::PermissionDenied,
        ),
    ] {
        let channel = connect(&harness, Some(&identity)).connect().await.unwrap();
        assert_eq!(call(&channel, READ, None).await, reads, "{who}");
        assert_eq!(call(&channel, WRITE, None).await, writes, "{who}");
    }
}

#[tokio::test]
async fn without_a_good_certificate_nobody_is_let_in() {
    let authority = Authority::new("operators");
    let harness = guarded(&authority, None).await;
    let bare = connect(&harness, None).connect().await.unwrap();
    assert_eq!(call(&bare, READ, None).await, Code::Unauthenticated);
    assert_eq!(
        call(&bare, READ, Some("hunter2")).await,
        Code::Unauthenticated
    );

    let replicas = Authority::new("replicas");
    let impostor = Authority::new("operators");
    let past = |p: &mut CertificateParams| {
        p.not_before = rcgen::date_time_ymd(2020, 1, 1);
        p.not_after = rcgen::date_time_ymd(2021, 1, 1);
    };
    let serving = |p: &mut CertificateParams| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    for (what, identity) in [
        ("a replica's", replicas.sign("alice", |_| {})),
        (
            "that of another authority of the same name",
            impostor.sign("alice", |_| {}),
        ),
        ("an expired one", authority.sign("alice", past)),
        ("a server's", authority.sign("alice", serving)),
    ] {
        // TLS 1.3 tells a client of its certificate with the first answer.
        let code = match connect(&harness, Some(&identity)).connect().await {
            Ok(channel) => call(&channel, READ, None).await,
            Err(_) => Code::Unavailable,
        };
        assert!(
            matches!(code, Code::Unavailable | Code::Unknown),
            "{what}: {code:?}"
        );
    }
}

#[tokio::test]
async fn a_certificate_that_ends_opens_nothing_more_on_a_connection_that_goes_on() {
    let authority = Authority::new("operators");
    let harness = guarded(&authority, None).await;
    // By this machine's clock, by which TLS goes, it is good.
    let now = UNIX_EPOCH.elapsed().unwrap();
    let end = now.max(Duration::from_millis(START.0)) + Duration::from_secs(3_600);
    let short = authority.sign("alice", |params| {
        params.not_after = (UNIX_EPOCH + end).into();
    });
    let channel = connect(&harness, Some(&short)).connect().await.unwrap();
    let minute = Duration::from_secs(60);
    let until_then = end - Duration::from_millis(START.0) - minute;
    harness.cluster.push_clock(until_then);
    assert_eq!(call(&channel, READ, None).await, Code::Ok);
    harness.cluster.push_clock(minute + Duration::from_secs(2));
    assert_eq!(call(&channel, READ, None).await, Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_counts_for_more_than_a_certificate_and_both_ways_work_at_once() {
    let authority = Authority::new("operators");
    let harness = guarded(&authority, Some("the-operator")).await;
    let alice = authority.sign("alice", |_| {});
    let bare = connect(&harness, None).connect().await.unwrap();
    let channel = connect(&harness, Some(&alice)).connect().await.unwrap();
    assert_eq!(call(&bare, READ, Some("the-operator")).await, Code::Ok);
    assert_eq!(call(&channel, READ, None).await, Code::Ok);
    assert_eq!(call(&channel, READ, Some("the-operator")).await, Code::Ok);
    assert_eq!(
        call(&channel, READ, Some("hunter2")).await,
        Code::Unauthenticated
    );

    // A sandbox behind an operator's connection is a sandbox all the same.
    let mut over_tls = harness;
    over_tls.channel = channel;
    let token = sandbox_token(&over_tls, "the-operator", "box").await;
    assert_eq!(
        call(&over_tls.channel, READ, Some(&token)).await,
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn the_audit_trail_names_who_showed_a_certificate() {
    let authority = Authority::new("operators");
    let harness = guarded(&authority, None).await;
    let alice = authority.sign("alice", |_| {});
    let channel = connect(&harness, Some(&alice)).connect_lazy();
    let create = v1::CreateSandboxRequest {
        name: "box".to_owned(),
        ..Default::default()
    };
    let created = SandboxesClient::new(channel).create_sandbox(create).await;
    created.unwrap();
    let state = harness.cluster.state();
    let (_, record) = state.audit.get_max().unwrap();
    let by = record.by.clone().unwrap();
    assert_eq!(
        (by.who.as_str(), by.from.as_str()),
        ("certificate:cn:alice", "127.0.0.1")
    );
}
