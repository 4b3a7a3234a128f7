//! Whatever comes as a sandbox's token.

use std::sync::Arc;

use evermint_core::id::{Name, Position, SandboxId, SigningKeyId, Workspace};
use evermint_core::provider::Sandbox;
use evermint_core::secret::{DataKeyId, Sealed};
use evermint_core::signing::SigningKey;
use evermint_core::state::State;
use evermint_core::time::UnixMs;
use evermint_fuzz::Corpus;

use crate::token::{LIFETIME, TokenRules, generate, read, sign};

#[test]
fn fuzz_a_token_says_what_was_signed_or_nothing() {
    let now = UnixMs(1_700_000_000_000);
    let (public, private) = generate().unwrap();
    let key = SigningKey {
        id: SigningKeyId(7),
        public,
        private: Sealed {
            key: DataKeyId(1),
            nonce: [0; 12],
            ciphertext: vec![],
        },
        added: Position(1),
        since: now,
    };
    let mut state = State::default();
    state.signing_keys.insert(key.id, Arc::new(key));
    let rules = TokenRules::default();
    let tokens = [1, 2].map(|id| {
        let sandbox = Sandbox {
            id: SandboxId(id),
            workspace: Workspace::default_workspace(),
            name: Name::new(format!("s{id}")).unwrap(),
            providers: vec![],
            token_epoch: 4,
            version: 1,
            created_at: now,
            touched: Position(1),
        };
        let token = sign(&rules, SigningKeyId(7), &private, &sandbox, now, LIFETIME);
        token.unwrap().text
    });
    let signed = tokens
        .clone()
        .map(|token| read(&state, &rules, token.as_bytes()));
    assert!(signed.iter().all(Option::is_some));
    Corpus::new(tokens).fuzz(|bytes| {
        let pass = read(&state, &rules, bytes);
        assert!(pass.is_none() || signed.contains(&pass), "{pass:?}");
    });
}
