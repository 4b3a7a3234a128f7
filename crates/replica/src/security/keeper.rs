//! The built-in way: each replica has a certificate by the cluster's own authority, and renews it
//! long before its end. Every member holds the authority's key, sealed, in its state, and so signs
//! for itself: a replica that is cut off, or was away for long, needs nobody to come back.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use evermint_core::admission::{Authority, JoinTicket, JoinTokenId, sha256};
use evermint_core::command::{Command, Refusal};
use evermint_core::id::ReplicaId;
use evermint_core::secret::Secret;
use evermint_core::state::State;
use evermint_proto::replica::v1 as wire;
use evermint_seal::{Context, Keyring};
use evermint_tls::{
    ClientAuth, ClientConfigs, ServerConfigs, client_config, provider, server_config,
};
use rcgen::KeyPair;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;
use tonic::Status;

use super::Names;
use super::authority::{Issued, Request, Signer, draw, nobodys, request};
use super::newcomer::{Admitted, Newcomer};
use super::stranger::ByAuthority;
use crate::config::BuiltInTls;
use crate::error::Error;
use crate::identity::{Identity, Member};
use crate::local::Local;
use crate::propose;

/// A certificate is renewed when so much of its life is over: one half.
const RENEW_AT: u32 = 2;

/// The longest and the shortest time between two looks at a certificate.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Certificates by the cluster's own authority.
pub(crate) struct BuiltIn {
    keyring: Arc<Keyring>,
    lifetime: Duration,
    ticket: Option<JoinTicket>,
    server: watch::Sender<Arc<ServerConfig>>,
    client: watch::Sender<Arc<ClientConfig>>,
    stranger: ClientConfigs,
    me: OnceLock<Member>,
    newcomer: Mutex<Newcomer>,
    worn: Mutex<Option<Worn>>,
}

/// The certificate in use.
struct Worn {
    authority: [u8; 32],
    since: SystemTime,
    ends: SystemTime,
}

impl Worn {
    /// Whether it is time for the next. A clock that jumped back behind its beginning counts too.
    fn is_due(&self, now: SystemTime) -> bool {
        let life = self.ends.duration_since(self.since).unwrap_or_default();
        now < self.since || now >= self.since + life / RENEW_AT
    }
}

impl BuiltIn {
    pub(super) fn new(
        config: &BuiltInTls,
        data_dir: &Path,
        identity: &Identity,
    ) -> Result<Self, Error> {
        let newcomer = Newcomer::open(data_dir, &config.keyring, identity.installation)?;
        let nobody = identity_of(
            nobodys(&newcomer.key).map_err(unusable)?,
            None,
            &newcomer.key,
        )?;
        let server = server_config(nobody, ClientAuth::None)?;
        // No authority has this digest: without a certificate of its own a replica knows no members.
        let client = client_config(Arc::new(ByAuthority::new(Some([0; 32]))), None)?;
        let authority = config.ticket.as_ref().map(|ticket| ticket.authority);
        let stranger = client_config(Arc::new(ByAuthority::new(authority)), None)?;
        Ok(Self {
            keyring: Arc::clone(&config.keyring),
            lifetime: config.lifetime,
            ticket: config.ticket.clone(),
            server: watch::channel(Arc::new(server)).0,
            client: watch::channel(Arc::new(client)).0,
            stranger: watch::channel(Arc::new(stranger)).1,
            me: OnceLock::new(),
            newcomer: Mutex::new(newcomer),
            worn: Mutex::default(),
        })
    }

    pub(super) fn server(&self) -> ServerConfigs {
        self.server.subscribe()
    }

    pub(super) fn client(&self) -> ClientConfigs {
        self.client.subscribe()
    }

    pub(super) fn stranger(&self) -> ClientConfigs {
        self.stranger.clone()
    }

    pub(super) fn names(&self) -> Option<Names> {
        self.me.get().map(|me| Names::Ids(me.cluster))
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub(crate) fn ticket(&self) -> Option<&JoinTicket> {
        self.ticket.as_ref()
    }

    /// Whether the state, or the last answer of the cluster, has what a member needs to be known.
    pub(crate) fn is_known(&self, state: &State) -> bool {
        let newcomer = self.newcomer.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = newcomer.admitted.as_ref();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let is_good = |a: &Admitted| now.is_ok_and(|now| now.as_secs() < a.ends);
        state.authority.is_some() || admitted.is_some_and(is_good)
    }

    /// What a newcomer asks the cluster with. Its key is on the disk before it is shown.
    pub(crate) fn ask(&self) -> Result<Vec<u8>, Error> {
        let newcomer = self.newcomer.lock().unwrap_or_else(PoisonError::into_inner);
        newcomer.write()?;
        request(&newcomer.key).map_err(unusable)
    }

    /// Takes the cluster's answer, if it is by the authority that the ticket names.
    pub(crate) fn answered(&self, answer: &wire::JoinResponse) -> Result<(), String> {
        let expected = self.ticket.as_ref().map(|ticket| ticket.authority);
        if Some(sha256(&answer.authority)) != expected {
            return Err("the answer is not by the authority of the join token".to_owned());
        }
        let mut newcomer = self.newcomer.lock().unwrap_or_else(PoisonError::into_inner);
        newcomer.admitted = Some(Admitted::new(
            answer.certificate.to_vec(),
            answer.authority.to_vec(),
            self.lifetime,
        ));
        newcomer.write().map_err(|e| e.to_string())
    }

    /// This replica is `me` from now on. What the state on the disk does not have yet is taken
    /// from the cluster's answer.
    pub(crate) fn settle(&self, me: Member, state: &State) -> Result<(), Error> {
        self.me.get_or_init(|| me);
        let newcomer = self.newcomer.lock().unwrap_or_else(PoisonError::into_inner);
        if state.authority.is_some() {
            newcomer.forget();
        } else if let Some(admitted) = &newcomer.admitted {
            let certificate = CertificateDer::from(admitted.certificate.clone());
            let authority = CertificateDer::from(admitted.authority.clone());
            let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(admitted.ends);
            self.wear(Issued { certificate, ends }, &authority, &newcomer.key)?;
        }
        drop(newcomer);
        self.renew(state)
    }

    /// Signs a certificate for this replica, if there is an authority and it is time.
    fn renew(&self, state: &State) -> Result<(), Error> {
        let (Some(me), Some(authority)) = (self.me.get(), &state.authority) else {
            return Ok(());
        };
        let digest = sha256(&authority.certificate);
        let now = SystemTime::now();
        let is_good = |worn: &Worn| worn.authority == digest && !worn.is_due(now);
        let worn = self.worn.lock().unwrap_or_else(PoisonError::into_inner);
        if worn.as_ref().is_some_and(is_good) {
            return Ok(());
        }
        drop(worn);
        let signer = self.signer(state, authority)?;
        let key = KeyPair::generate().map_err(unusable)?;
        let issued = signer.issue(me.cluster, me.replica, &key, self.lifetime);
        let certificate = CertificateDer::from(authority.certificate.clone());
        self.wear(issued.map_err(unusable)?, &certificate, &key)
    }

    /// Uses a certificate for new connections, in both directions.
    fn wear(
        &self,
        issued: Issued,
        authority: &CertificateDer<'static>,
        key: &KeyPair,
    ) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.clone())
            .map_err(evermint_tls::Error::from)?;
        let roots = Arc::new(roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|e| Error::Config(format!("the cluster's authority: {e}")))?;
        let identity = identity_of(issued.certificate, Some(authority), key)?;
        // A newcomer has no certificate to show, and asks to join.
        let server = server_config(identity.clone(), ClientAuth::Optional(roots))?;
        let client = client_config(verifier, Some(identity))?;
        *self.worn.lock().unwrap_or_else(PoisonError::into_inner) = Some(Worn {
            authority: sha256(authority),
            since: SystemTime::now(),
            ends: issued.ends,
        });
        self.server.send_replace(Arc::new(server));
        self.client.send_replace(Arc::new(client));
        tracing::debug!("has a new certificate");
        Ok(())
    }

    fn signer(&self, state: &State, authority: &Authority) -> Result<Signer, Error> {
        let sealed = |e: evermint_seal::Error| Error::Config(e.to_string());
        let keys = state.data_keys.iter().map(|(id, key)| (*id, key.as_ref()));
        self.keyring.load(keys).map_err(sealed)?;
        let key = self.keyring.open(&Context::Authority, &authority.key);
        Signer::new(&authority.certificate, &key.map_err(sealed)?).map_err(unusable)
    }

    /// What a newcomer asks for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`; `UNAUTHENTICATED` without a token.
    pub(crate) fn asked(&self, join: &wire::JoinRequest) -> Result<Asked, Status> {
        let token = Some(&join.token).filter(|token| token.len() == 32);
        let needed = || Status::unauthenticated(Refusal::JoinTokenNeeded.to_string());
        let token = token.ok_or_else(needed)?;
        let request = Request::read(&join.certificate_request)
            .map_err(|_| Status::invalid_argument("certificate_request: cannot be read"))?;
        Ok(Asked {
            token: JoinTokenId(sha256(token)),
            key: request.digest(),
            request,
        })
    }

    /// Signs a newcomer's first certificate.
    ///
    /// # Errors
    /// `UNAVAILABLE` if this replica cannot sign yet.
    pub(crate) fn certify(
        &self,
        state: &State,
        me: Member,
        replica: ReplicaId,
        asked: &Asked,
    ) -> Result<(Vec<u8>, Vec<u8>), Status> {
        let authority = state.authority.as_ref();
        let authority =
            authority.ok_or_else(|| Status::unavailable("the authority is not known here yet"))?;
        let cannot = |e: &dyn std::fmt::Display| {
            tracing::error!(error = %e, "cannot sign a newcomer's certificate");
            Status::unavailable("this replica cannot sign certificates; its log says why")
        };
        let signer = self.signer(state, authority).map_err(|e| cannot(&e))?;
        let issued = signer.issue(me.cluster, replica, asked.request.key(), self.lifetime);
        let issued = issued.map_err(|e| cannot(&e))?;
        Ok((issued.certificate.to_vec(), authority.certificate.clone()))
    }

    /// Gives the cluster that this replica founded an authority, if it has none.
    ///
    /// # Errors
    /// When no outcome is known, or the data key cannot be used.
    pub(crate) async fn found(&self, local: &Local) -> Result<(), Error> {
        let state = local.views.state();
        if state.authority.is_none() {
            let (certificate, key) = draw().map_err(unusable)?;
            let key = self.seal(&state, &key)?;
            let command = Command::AddAuthority { certificate, key };
            match propose::propose(local, command).await?.outcome {
                Ok(_) => tracing::info!("the cluster has a certificate authority"),
                // The answer to the first try was lost.
                Err(Refusal::AuthorityExists) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        self.renew(&local.views.state())
    }

    fn seal(&self, state: &State, key: &Secret) -> Result<evermint_core::secret::Sealed, Error> {
        let sealed = |e: evermint_seal::Error| Error::Config(e.to_string());
        let keys = state.data_keys.iter().map(|(id, key)| (*id, key.as_ref()));
        self.keyring.load(keys).map_err(sealed)?;
        self.keyring.seal(&Context::Authority, key).map_err(sealed)
    }
}

/// What a newcomer asks for.
pub(crate) struct Asked {
    pub(crate) token: JoinTokenId,
    /// SHA-256 of its public key.
    pub(crate) key: [u8; 32],
    request: Request,
}

/// Renews this replica's certificate whenever it is time, until it stops.
pub(crate) async fn keep(built_in: Arc<BuiltIn>, local: Arc<Local>) {
    let every = (built_in.lifetime / 20).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
    let mut applied = local.views.watch();
    let mut problem = None;
    loop {
        match built_in.renew(&local.views.state()) {
            Ok(()) => problem = None,
            Err(error) => {
                let error = error.to_string();
                if problem.as_ref() != Some(&error) {
                    tracing::error!(error, "cannot renew this replica's certificate");
                }
                problem = Some(error);
            }
        }
        let known = local.views.state().authority.is_some();
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            changed = applied.changed(), if !known => if changed.is_err() {
                return;
            }
        }
    }
}

fn identity_of(
    certificate: CertificateDer<'static>,
    authority: Option<&CertificateDer<'static>>,
    key: &KeyPair,
) -> Result<Arc<CertifiedKey>, Error> {
    let chain = [certificate]
        .into_iter()
        .chain(authority.cloned())
        .collect();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let identity = CertifiedKey::from_der(chain, key, &provider());
    Ok(Arc::new(identity.map_err(evermint_tls::Error::from)?))
}

fn unusable(error: rcgen::Error) -> Error {
    Error::Config(format!("certificates of the cluster's authority: {error}"))
}
