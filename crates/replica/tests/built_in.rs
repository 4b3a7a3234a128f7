//! Mutual TLS by the cluster's own authority: joining by tokens, renewal, and who is refused.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use evermint_core::admission::{BadJoinToken, JoinTicket, JoinTokenId, sha256};
use evermint_core::audit::{AuditEvent, AuditRecord};
use evermint_core::command::{Command, Done, Refusal};
use evermint_core::id::ReplicaId;
use evermint_core::port::{Proposer, StateView};
use evermint_core::secret::{DataKeyId, Secret};
use evermint_proto::replica::v1 as wire;
use evermint_proto::replica::v1::replica_client::ReplicaClient;
use evermint_replica::{Bootstrap, BuiltInTls, Config, Node, Tls, TlsFiles};
use evermint_seal::{Context, Kek, Keyring, generate_data_key};
use evermint_tls::{Connector, client_config, provider};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use support::*;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// Replicas of one cluster share a key-encryption key.
struct Site {
    kek: Kek,
    lifetime: Duration,
}

impl Site {
    fn new(lifetime: Duration) -> Self {
        let kek = Kek::generate().unwrap();
        Self { kek, lifetime }
    }

    fn config(&self, home: &Home, ticket: Option<JoinTicket>) -> Config {
        let keyring = Arc::new(Keyring::new(self.kek.clone()));
        Config {
            keks: keyring.kek_names(),
            tls: Some(Tls::BuiltIn(BuiltInTls {
                keyring,
                lifetime: self.lifetime,
                ticket,
            })),
            ..home.config()
        }
    }

    async fn found(&self, home: &Home) -> Node {
        start(Config {
            bootstrap: Some(Bootstrap {
                data_key: DataKeyId(1),
                wrapped: generate_data_key(&self.kek).unwrap(),
                ..bootstrap()
            }),
            ..self.config(home, None)
        })
        .await
    }

    fn joining(&self, home: &Home, peer: &Node, ticket: &JoinTicket) -> Config {
        Config {
            peers: vec![peer.peer_address().to_owned()],
            ..self.config(home, Some(ticket.clone()))
        }
    }

    async fn join(&self, home: &Home, peer: &Node) -> Node {
        let ticket = ticket(peer).await;
        start(self.joining(home, peer, &ticket)).await
    }

    /// What keeps a replica out.
    async fn refused(&self, config: Config) -> String {
        let started = tokio::time::timeout(BOUND, Node::start(config)).await;
        started
            .expect("in time")
            .err()
            .expect("refused")
            .to_string()
    }
}

/// Makes a join token, as an operator does through any replica.
async fn ticket(node: &Node) -> JoinTicket {
    let token = sha256(Uuid::new_v4().as_bytes());
    let id = JoinTokenId(sha256(&token));
    let lifetime_ms = 600_000;
    let made = node
        .propose(Command::CreateJoinToken { id, lifetime_ms })
        .await;
    assert_eq!(made.unwrap().outcome, Ok(Done::Ok));
    let state = node.state();
    JoinTicket {
        authority: sha256(&state.authority.as_ref().unwrap().certificate),
        token: Secret::new(token),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_join_by_a_token_each_and_a_used_or_foreign_one_lets_nobody_in() {
    let site = Site::new(Duration::from_secs(3_600));
    let homes = [Home::new(), Home::new(), Home::new()];
    let first = site.found(&homes[0]).await;
    let used = ticket(&first).await;
    let second = start(site.joining(&homes[1], &first, &used)).await;
    // Any member lets others in.
    let third = site.join(&homes[2], &second).await;
    all_vote([&first, &second, &third]).await;
    write(&third, 1).await;

    let home = Home::new();
    let error = site.refused(site.joining(&home, &first, &used)).await;
    let expected = Refusal::BadJoinToken(BadJoinToken::Used).to_string();
    assert!(error.contains(&expected), "{error}");
    let told = |record: &Arc<AuditRecord>| match &record.event {
        AuditEvent::Refused(calls) => Some((record.by.clone(), calls.clone())),
        _ => None,
    };
    let told = until("the audit trail tells of it", || async {
        third.state().audit.values().find_map(told)
    });
    let (by, calls) = told.await;
    assert_eq!(by.unwrap().from, "127.0.0.1");
    assert_eq!(calls.method, "/replica.v1.Replica/Join");
    assert_eq!(
        (calls.reason.as_str(), calls.count),
        ("permission-denied", 1)
    );
    let unknown = JoinTicket {
        token: Secret::new([0xff; 32]),
        ..used.clone()
    };
    let error = site.refused(site.joining(&home, &second, &unknown)).await;
    let expected = Refusal::BadJoinToken(BadJoinToken::Unknown).to_string();
    assert!(error.contains(&expected), "{error}");
    // Without a token it neither joins nor founds another cluster beside this one.
    let without = Config {
        bootstrap: Some(bootstrap()),
        peers: vec![first.peer_address().to_owned()],
        ..site.config(&home, None)
    };
    let error = site.refused(without).await;
    assert!(
        error.contains(&Refusal::JoinTokenNeeded.to_string()),
        "{error}"
    );
    // A cluster with another authority is not believed: the token is not shown to it.
    let good = ticket(&first).await;
    let fooled = JoinTicket {
        authority: [7; 32],
        ..good.clone()
    };
    let config = site.joining(&home, &first, &fooled);
    let waited = tokio::time::timeout(Duration::from_secs(2), Node::start(config)).await;
    assert!(waited.is_err(), "a foreign authority was believed");
    let id = good.id();
    assert_eq!(first.state().join_tokens[&id].used, None);
    assert_eq!(first.state().replicas.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_long_after_the_first_have_ended_and_after_a_restart() {
    // Connections last for half a second, certificates for two.
    let site = Site::new(Duration::from_secs(2));
    let homes = [Home::new(), Home::new()];
    let first = site.found(&homes[0]).await;
    let second = site.join(&homes[1], &first).await;
    all_vote([&first, &second]).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(6);
    let mut id = 0;
    while tokio::time::Instant::now() < end {
        id += 1;
        write(if id % 2 == 0 { &first } else { &second }, id).await;
    }
    second.shutdown().await;
    drop(second);
    // It was away for longer than its certificate was good for, and needs nobody to come back.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let second = start(site.config(&homes[1], None)).await;
    all_vote([&first, &second]).await;
    write(&second, id + 1).await;
    all_equal([&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_leaves_its_own_authority_for_certificates_from_files() {
    let site = Site::new(Duration::from_secs(3_600));
    let mut homes = [Home::new(), Home::new()];
    for (home, host) in homes.iter_mut().zip(["127.0.0.1", "127.0.0.2"]) {
        home.address.set_ip(host.parse().unwrap());
    }
    let first = site.found(&homes[0]).await;
    let second = site.join(&homes[1], &first).await;
    all_vote([&first, &second]).await;
    write(&second, 1).await;
    for node in [first, second] {
        node.shutdown().await;
    }

    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&authority).unwrap().pem();
    let issuer = Issuer::new(params, authority);
    let files = tempfile::tempdir().unwrap();
    let with_files = |n: usize| {
        let key = KeyPair::generate().unwrap();
        let host = homes[n].address.ip().to_string();
        let signed = CertificateParams::new([host]).unwrap();
        let signed = signed.signed_by(&key, &issuer).unwrap();
        let put = |name: &str, text: &str| {
            let path = files.path().join(format!("{n}.{name}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        Config {
            tls: Some(Tls::Files(TlsFiles {
                certificate: put("crt", &signed.pem()),
                key: put("key", &key.serialize_pem()),
                ca: put("ca", &pem),
                server_name: None,
            })),
            ..homes[n].config()
        }
    };
    let (first, second) = tokio::join!(start(with_files(0)), start(with_files(1)));
    all_vote([&first, &second]).await;
    write(&second, 2).await;
    assert!(has(&first, 1) && has(&first, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_removed_or_wiped_needs_another_token() {
    let site = Site::new(Duration::from_secs(3_600));
    let mut homes = [Home::new(), Home::new(), Home::new()];
    let first = site.found(&homes[0]).await;
    let second = site.join(&homes[1], &first).await;
    let token = ticket(&first).await;
    let third = start(site.joining(&homes[2], &first, &token)).await;
    all_vote([&first, &second, &third]).await;
    let removed = third.identity().0;
    first.remove_replica(None, removed).await.unwrap();
    all_vote([&first, &second]).await;
    // It still has its certificate, and is not heard.
    let written = tokio::time::timeout(BOUND, third.propose(create(1))).await;
    assert!(written.unwrap().is_err(), "a removed replica was heard");
    assert!(!has(&first, 1));
    third.shutdown().await;
    drop(third);

    homes[2].wipe();
    let error = site.refused(site.joining(&homes[2], &first, &token)).await;
    assert!(error.contains("was used already"), "{error}");
    let third = site.join(&homes[2], &first).await;
    assert!(third.identity().0 > removed, "an id was used twice");
    all_vote([&first, &second, &third]).await;
}

/// The name of a replica in its certificate.
fn name(node: &Node, replica: u64) -> String {
    let cluster = node.state().replicas[&ReplicaId(1)].installation;
    format!("replica-{replica}.{cluster}.evermint.internal")
}

/// A connection to `node` with a certificate of its cluster's authority that names `names`.
fn connect(site: &Site, node: &Node, names: Vec<String>) -> ReplicaClient<Channel> {
    let state = node.state();
    let authority = state.authority.as_ref().unwrap();
    let ring = Keyring::new(site.kek.clone());
    let keys = state.data_keys.iter();
    ring.load(keys.map(|(id, key)| (*id, key.as_ref())))
        .unwrap();
    let signs = ring.open(&Context::Authority, &authority.key).unwrap();
    let signs = KeyPair::try_from(&PrivatePkcs8KeyDer::from(signs.expose())).unwrap();
    let certificate = CertificateDer::from(authority.certificate.clone());
    let issuer = Issuer::from_ca_cert_der(&certificate, signs).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let chain = vec![leaf.der().clone(), certificate.clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let identity = CertifiedKey::from_der(chain, key, &provider()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let servers = WebPkiServerVerifier::builder_with_provider(roots.into(), provider());
    let config = client_config(servers.build().unwrap(), Some(identity.into())).unwrap();
    let (_, configs) = tokio::sync::watch::channel(Arc::new(config));
    let server = ServerName::try_from(name(node, node.identity().0.0)).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", node.peer_address())).unwrap();
    let channel = endpoint.connect_with_connector_lazy(Connector::new(configs, server));
    ReplicaClient::new(channel)
}

fn envelope(from: u64, to: &Node) -> Option<wire::Envelope> {
    let cluster = to.state().replicas[&ReplicaId(1)].installation;
    Some(wire::Envelope {
        cluster: cluster.0.to_be_bytes().to_vec().into(),
        from,
        to: to.identity().0.0,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_speaks_for_itself_alone() {
    let site = Site::new(Duration::from_secs(3_600));
    let homes = [Home::new(), Home::new()];
    let first = site.found(&homes[0]).await;
    let second = site.join(&homes[1], &first).await;
    all_vote([&first, &second]).await;
    let beat = |from| wire::BeatRequest {
        envelope: envelope(from, &first),
        ..wire::BeatRequest::default()
    };
    let mut client = connect(&site, &first, vec![name(&first, 2)]);
    client.beat(beat(2)).await.unwrap();
    for (what, from) in [("the receiver", 1), ("nobody yet", 9)] {
        let status = client.beat(beat(from)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status}");
        assert!(status.message().contains("not that of"), "{what}: {status}");
    }
    // In its own name, with the ballot of another one.
    let vote = |candidate| wire::VoteRequest {
        envelope: envelope(2, &first),
        vote: Some(wire::Ballot {
            term: 0,
            candidate,
            committed: false,
        }),
        last: None,
    };
    client.vote(vote(2)).await.unwrap();
    let status = client.vote(vote(1)).await.unwrap_err();
    assert!(status.message().contains("speaks for another"), "{status}");
    // A certificate of the same authority that names no replica, and one that names all but one.
    for names in [
        vec!["localhost".to_owned()],
        vec![name(&first, 1), name(&first, 3)],
    ] {
        let mut client = connect(&site, &first, names);
        let status = client.beat(beat(2)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
}
