//! What a test may do to a running issuer, and see of it, from inside the process.

use std::{fmt, sync::Arc, time::Duration};

use jsonwebtoken::DecodingKey;
use serde::Serialize;

use crate::{
    Client, Error, Family, Fault, Held, History, Release, Secret, ServiceAccount, desk::Desk,
};

/// Controls a running issuer; cheap to clone. Keeps no issuer alive.
#[derive(Clone)]
pub struct Handle(Arc<Desk>);

/// A new family and its first refresh token.
#[derive(Clone, Debug, Serialize)]
pub struct Seeded {
    /// The client it was granted to.
    pub client_id: String,
    /// The client's secret, unless it is public.
    pub client_secret: Option<Secret>,
    /// The first refresh token, generation 0.
    pub refresh_token: Secret,
    /// The family.
    pub grant_id: String,
}

impl Handle {
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self(desk)
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.0.url)
    }

    /// Registers a client, or replaces the one of the same id; its families stay.
    pub fn register(&self, client: Client) {
        self.0.change(|state| state.ledger.register(client));
    }

    /// Registers a client like [`Handle::register`] and gives it one more family.
    pub fn seed(&self, client: Client) -> Seeded {
        let id = client.id.clone();
        self.register(client);
        self.seed_again(&id)
            .expect("the client was just registered")
    }

    /// Gives a registered client one more family; `None` when there is no such client.
    pub fn seed_again(&self, client_id: &str) -> Option<Seeded> {
        self.0.change(|state| {
            let client_secret = state.ledger.client(client_id)?.secret.clone();
            let now = state.ledger_time(self.0.now());
            let (grant_id, refresh_token) = state.ledger.seed(now, client_id);
            Some(Seeded {
                client_id: client_id.to_owned(),
                client_secret,
                refresh_token,
                grant_id,
            })
        })
    }

    /// Accepts RS256 assertions of `email` under an RSA public key (SubjectPublicKeyInfo, PEM).
    ///
    /// # Errors
    /// [`Error::PublicKey`] when the text is no such key.
    pub fn trust(&self, email: &str, public_key_pem: &str) -> Result<(), Error> {
        let key = DecodingKey::from_rsa_pem(public_key_pem.as_bytes())?;
        self.0
            .change(|state| state.accounts.register(email.to_owned(), key));
        Ok(())
    }

    /// Makes a service account with a new key and accepts its assertions.
    ///
    /// # Errors
    /// [`Error::KeyGeneration`] when the key pair cannot be made.
    pub fn service_account(&self, email: &str) -> Result<ServiceAccount, Error> {
        let account = ServiceAccount::generate(email)?;
        self.trust(email, &account.public_key_pem)?;
        Ok(account)
    }

    /// Sets the lifetimes of a registered client's next tokens; `None` leaves one as it is.
    /// `false` when there is no such client.
    pub fn ttl(
        &self,
        client_id: &str,
        access: Option<Duration>,
        refresh: Option<Duration>,
    ) -> bool {
        self.0.change(|state| {
            let Some(client) = state.ledger.client_mut(client_id) else {
                return false;
            };
            client.access_ttl = access.or(client.access_ttl);
            client.refresh_ttl = refresh.or(client.refresh_ttl);
            true
        })
    }

    /// Sets the time that every token request takes before it is served.
    pub fn latency(&self, latency: Duration) {
        self.0.change(|state| state.latency = latency);
    }

    /// Advances the clock by which tokens expire and grace ends, so that no test needs to sleep.
    /// History and faults keep real time.
    pub fn advance(&self, by: Duration) {
        self.0.change(|state| state.advanced += by);
    }

    /// Revokes a family; `false` when there is none of that id.
    pub fn revoke(&self, grant_id: &str) -> bool {
        self.0
            .change(|state| state.ledger.revoke(self.0.now().unix_ms, grant_id))
    }

    /// Adds a fault to the script; of several that match a request, the first added is taken.
    pub fn fault(&self, fault: Fault) {
        self.0.change(|state| state.script.add(fault));
    }

    /// Forgets all faults; what is held stays held.
    pub fn clear_faults(&self) {
        self.0.change(|state| state.script.clear());
    }

    /// Forgets the faults for one client and leaves those for everybody; with `None`, the other way
    /// round.
    pub fn clear_faults_of(&self, client: Option<&str>) {
        self.0.change(|state| state.script.clear_of(client));
    }

    /// The faults that still wait for requests.
    pub fn faults(&self) -> Vec<Fault> {
        self.0.lock().script.faults().to_vec()
    }

    /// Waits until a request of `client` is held. Bound it with a timeout.
    pub async fn held(&self, client: &str) -> Held {
        let of_client = |held: &Held| held.client.as_deref() == Some(client);
        self.0
            .until(|state| {
                state
                    .held
                    .iter()
                    .map(|(held, _)| held)
                    .find(|held| of_client(held))
                    .cloned()
            })
            .await
    }

    /// The requests that are held, oldest first; also those whose client has gone.
    pub fn holding(&self) -> Vec<Held> {
        self.0
            .lock()
            .held
            .iter()
            .map(|(held, _)| held.clone())
            .collect()
    }

    /// Lets the held requests of `client` go on; says how many there were.
    pub fn release(&self, client: &str, how: Release) -> usize {
        self.release_if(how, |held| held.client.as_deref() == Some(client))
    }

    /// Lets all held requests go on; says how many there were.
    pub fn release_all(&self, how: Release) -> usize {
        self.release_if(how, |_| true)
    }

    fn release_if(&self, how: Release, fits: impl Fn(&Held) -> bool) -> usize {
        let gates: Vec<_> = self
            .0
            .change(|state| state.held.extract_if(.., |(held, _)| fits(held)).collect());
        let released = gates.len();
        for (_, gate) in gates {
            // The holder is gone only when the issuer is stopping.
            let _ = gate.send(how);
        }
        released
    }

    /// Whether an access token works now.
    pub fn is_live(&self, token: &str) -> bool {
        let state = self.0.lock();
        let now = state.ledger_time(self.0.now());
        state.ledger.active(now, token).is_some()
    }

    /// A copy of the history so far.
    pub fn history(&self) -> History {
        self.0.lock().history.clone()
    }

    /// Forgets the history and what it counts; tokens and families stay.
    pub fn reset(&self) {
        self.0.change(|state| state.history.clear());
    }

    /// Waits until `look` finds what it looks for in the history. Bound it with a timeout.
    pub async fn until<T>(&self, mut look: impl FnMut(&History) -> Option<T>) -> T {
        self.0.until(|state| look(&state.history)).await
    }

    /// Every family, alive or revoked.
    pub fn families(&self) -> Vec<Family> {
        self.0.lock().ledger.families().cloned().collect()
    }

    /// Every registered client.
    pub fn clients(&self) -> Vec<Client> {
        self.0.lock().ledger.clients().cloned().collect()
    }

    /// Begins to stop, without waiting.
    pub(crate) fn cancel(&self) {
        self.0.stop.cancel();
    }

    /// Stops, and waits for the requests being served.
    pub(crate) async fn stop(&self) {
        self.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.0.url).finish()
    }
}
