//! What the generated code promises beyond the proto files.

use std::collections::BTreeMap;

use bytes::Bytes;
use evermint_proto::v1;
use prost::Message;

const CANARY: &str = "canary-7f3a";

fn canaries() -> BTreeMap<String, String> {
    BTreeMap::from([("name".to_owned(), CANARY.to_owned())])
}

fn token() -> v1::Token {
    v1::Token {
        values: canaries(),
        expires_at_ms: Some(7),
        generation: 1,
    }
}

fn bundle() -> v1::Bundle {
    v1::Bundle {
        sandbox: "s".to_owned(),
        generation: 3,
        revision: "r".to_owned(),
        routes: vec![v1::ResolvedRoute {
            token: Some(token()),
            ..Default::default()
        }],
        credentials: vec![v1::BundleCredential {
            token: Some(token()),
            ..Default::default()
        }],
        ..v1::Bundle::default()
    }
}

#[test]
fn no_message_shows_a_secret_when_printed() {
    let value = v1::StaticCredential {
        value: CANARY.to_owned(),
        expires_at_ms: None,
    };
    let credentials = BTreeMap::from([("KEY".to_owned(), value)]);
    let encoded = Bytes::from(bundle().encode_to_vec());
    let printed = [
        format!(
            "{:?}",
            v1::CreateProviderRequest {
                credentials: credentials.clone(),
                ..Default::default()
            }
        ),
        format!(
            "{:#?}",
            v1::UpdateProviderRequest {
                credentials,
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            v1::ConfigureRefreshRequest {
                provider: "shown".to_owned(),
                material: canaries(),
                secret_material: canaries(),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            v1::GetBundleResponse {
                bundle: Some(bundle()),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            v1::WatchBundleResponse {
                bundle: Some(bundle()),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            v1::ready::GetBundleResponse {
                bundle: Some(encoded.clone()),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            v1::ready::WatchBundleResponse {
                bundle: Some(encoded),
                ..Default::default()
            }
        ),
    ];
    for text in printed {
        assert!(!text.contains(CANARY), "{text}");
        assert!(text.contains('…'), "{text}");
    }
}

#[test]
fn a_bundle_sent_ready_is_read_as_a_bundle() {
    let ready = v1::ready::GetBundleResponse {
        bundle: Some(Bytes::from(bundle().encode_to_vec())),
        staleness_ms: 1,
        server_time_ms: 2,
        expiring: vec![v1::CredentialRef {
            provider: "p".to_owned(),
            key: "k".to_owned(),
        }],
    };
    let read = v1::GetBundleResponse::decode(ready.encode_to_vec().as_slice())
        .expect("the same message on the wire");
    assert_eq!(read.bundle, Some(bundle()));
    assert_eq!((read.staleness_ms, read.server_time_ms), (1, 2));

    let heartbeat = v1::ready::WatchBundleResponse::default();
    let read = v1::WatchBundleResponse::decode(heartbeat.encode_to_vec().as_slice())
        .expect("the same message on the wire");
    assert_eq!(read.bundle, None);
}
