//! An issuer of a few lines on loopback: it records what it is sent, byte by byte, and answers
//! what a test tells it to.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "every test takes what it needs of it"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use evermint_core::credential::RefreshConfig;
use evermint_core::id::{CredentialId, CredentialKey, ProviderId, TicketId};
use evermint_core::mint::{Failure, Fence, MintOrder, Minted};
use evermint_core::port::Minter;
use evermint_core::secret::Secret;
use evermint_core::strategy::Strategy;
use evermint_minter::{Config, HttpMinter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// No test waits longer than this for an event.
pub const BOUND: Duration = Duration::from_secs(10);

/// What one connection brought.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the client closed the connection.
    pub closed: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn form(&self) -> BTreeMap<String, String> {
        url::form_urlencoded::parse(&self.body)
            .into_owned()
            .collect()
    }
}

/// Chooses an answer by the request.
pub type Choose = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// Makes an answer out of a request.
pub type Echo = Arc<dyn Fn(&Seen) -> Vec<u8> + Send + Sync>;

/// How to answer a request.
#[derive(Clone)]
pub enum Reply {
    /// These bytes, then close.
    Raw(Vec<u8>),
    /// These bytes, and keep the connection open.
    KeepAlive(Vec<u8>),
    /// What the function makes of the request.
    Echo(Echo),
    /// What the function chooses for the request.
    Choose(Choose),
    /// These bytes, one by one, until the client goes.
    Drip(Vec<u8>),
    /// Nothing, until the client goes.
    Hold,
    /// Close without a word.
    Close,
}

pub fn http(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

pub fn json(status: u16, body: &str) -> Vec<u8> {
    http(status, "Content-Type: application/json\r\n", body)
}

pub struct Issuer {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    changed: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Issuer {
    pub async fn start(reply: Reply) -> Self {
        Self::listen(reply, None).await
    }

    /// The same behind TLS.
    pub async fn start_tls(reply: Reply, tls: TlsAcceptor) -> Self {
        Self::listen(reply, Some(tls)).await
    }

    async fn listen(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}/token", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let changed = Arc::new(Notify::new());
        let server = tokio::spawn({
            let (seen, changed) = (Arc::clone(&seen), Arc::clone(&changed));
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let record = Record {
                        index: {
                            let mut seen: std::sync::MutexGuard<'_, Vec<Seen>> =
                                seen.lock().unwrap();
                            seen.push(Seen::default());
                            seen.len() - 1
                        },
                        seen: Arc::clone(&seen),
                        changed: Arc::clone(&changed),
                    };
                    changed.notify_waiters();
                    let (reply, tls) = (reply.clone(), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => serve(stream, reply, record).await,
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => serve(stream, reply, record).await,
                                Err(_) => drop(record.update(|seen| seen.closed = true)),
                            },
                        }
                    });
                }
            }
        });
        Self {
            url,
            seen,
            changed,
            server,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until what was seen satisfies `test`.
    pub async fn until(&self, what: &str, test: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let seen = self.seen();
                if test(&seen) {
                    return seen;
                }
                changed.await;
            }
        };
        tokio::time::timeout(BOUND, wait)
            .await
            .unwrap_or_else(|_| panic!("never {what}: {:?}", self.seen()))
    }
}

struct Record {
    index: usize,
    seen: Arc<Mutex<Vec<Seen>>>,
    changed: Arc<Notify>,
}

impl Record {
    fn update(&self, change: impl FnOnce(&mut Seen)) -> Seen {
        let mut seen = self.seen.lock().unwrap();
        change(&mut seen[self.index]);
        self.changed.notify_waiters();
        seen[self.index].clone()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, reply: Reply, record: Record) {
    let mut raw = Vec::new();
    let mut buffer = [0; 4096];
    let mut answered = false;
    loop {
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        if n == 0 {
            record.update(|seen| seen.closed = true);
            return;
        }
        raw.extend_from_slice(&buffer[..n]);
        let seen = record.update(|seen| {
            let end = raw.windows(4).position(|w| w == b"\r\n\r\n");
            let end = end.map_or(raw.len(), |at| at + 4);
            seen.head = String::from_utf8_lossy(&raw[..end]).into_owned();
            seen.body = raw[end..].to_vec();
        });
        let is_whole = seen.head.ends_with("\r\n\r\n");
        let length = seen.header("content-length").and_then(|n| n.parse().ok());
        let length = length.or(is_whole.then_some(0));
        if answered || length != Some(seen.body.len()) {
            continue;
        }
        answered = true;
        let chosen = match &reply {
            Reply::Choose(choose) => choose(&seen),
            reply => reply.clone(),
        };
        match &chosen {
            Reply::Choose(_) => panic!("a choice of choices"),
            Reply::Drip(bytes) => {
                for byte in bytes {
                    if stream.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Reply::Raw(bytes) => {
                stream.write_all(bytes).await.ok();
                stream.shutdown().await.ok();
                return;
            }
            Reply::Echo(make) => {
                stream.write_all(&make(&seen)).await.ok();
                stream.shutdown().await.ok();
                return;
            }
            Reply::KeepAlive(bytes) => {
                stream.write_all(bytes).await.unwrap();
                stream.flush().await.unwrap();
            }
            Reply::Hold => {}
            Reply::Close => return,
        }
    }
}

/// An RSA key in PEM, made once for each test program.
pub static RSA: LazyLock<String> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256);
    key.unwrap().serialize_pem()
});

/// A ticket's end, in real time.
pub struct Deadline {
    end: Instant,
}

impl Deadline {
    pub fn after(ms: u64) -> Arc<dyn Fence> {
        Arc::new(Self {
            end: Instant::now() + Duration::from_millis(ms),
        })
    }
}

impl Fence for Deadline {
    fn passed(&self) -> bool {
        Instant::now() >= self.end
    }
    fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

/// A ticket that ends when a test says so.
#[derive(Default)]
pub struct EndsWhenTold(AtomicBool);

impl EndsWhenTold {
    pub fn end(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Fence for EndsWhenTold {
    fn passed(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
    fn remaining(&self) -> Duration {
        if self.passed() { Duration::ZERO } else { BOUND }
    }
}

/// A ticket that ends at the n-th time that anybody asks.
pub struct EndsAtAsk {
    asks: AtomicUsize,
    end: usize,
    passed: AtomicBool,
}

impl EndsAtAsk {
    pub fn new(end: usize) -> Arc<Self> {
        Arc::new(Self {
            asks: AtomicUsize::new(0),
            end,
            passed: AtomicBool::new(false),
        })
    }

    pub fn has_passed(&self) -> bool {
        self.passed.load(Ordering::SeqCst)
    }
}

impl Fence for EndsAtAsk {
    fn passed(&self) -> bool {
        let passed = self.asks.fetch_add(1, Ordering::SeqCst) >= self.end;
        self.passed.fetch_or(passed, Ordering::SeqCst) || passed
    }
    fn remaining(&self) -> Duration {
        if self.has_passed() {
            Duration::ZERO
        } else {
            BOUND
        }
    }
}

/// A ticket that ends when its connection is about to write: at the first time that anybody asks
/// from a task of its own, which is the connection's. The mint runs in the test's main future,
/// which is none.
#[derive(Default)]
pub struct EndsAtWrite(AtomicBool);

impl EndsAtWrite {
    pub fn has_passed(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Fence for EndsAtWrite {
    fn passed(&self) -> bool {
        let passed = tokio::task::try_id().is_some();
        self.0.fetch_or(passed, Ordering::SeqCst) || passed
    }
    fn remaining(&self) -> Duration {
        if self.has_passed() {
            Duration::ZERO
        } else {
            BOUND
        }
    }
}

pub fn minter(change: impl FnOnce(&mut Config)) -> HttpMinter {
    let mut config = Config::loopback();
    change(&mut config);
    HttpMinter::new(&config).unwrap()
}

pub fn order(
    strategy: Strategy,
    token_url: &str,
    public: &[(&str, &str)],
    secret: &[(&str, &str)],
) -> MintOrder {
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    MintOrder {
        credential: CredentialId {
            provider: ProviderId(1),
            key: CredentialKey::new("TOKEN").unwrap(),
        },
        ticket: TicketId(2),
        config: RefreshConfig {
            material: owned(public),
            ..RefreshConfig::new(strategy, token_url)
        },
        secrets: owned(secret)
            .into_iter()
            .map(|(k, v)| (k, Secret::from(v)))
            .collect(),
        fence: Deadline::after(20_000),
    }
}

/// A refresh of a grant, with a client secret.
pub fn refresh_order(token_url: &str) -> MintOrder {
    order(
        Strategy::OAuth2RefreshToken,
        token_url,
        &[("client_id", "client-1")],
        &[
            ("client_secret", "client-secret-canary"),
            ("refresh_token", "refresh-token-canary"),
        ],
    )
}

/// One refresh under this fence.
pub async fn refresh(
    minter: &HttpMinter,
    url: &str,
    fence: Arc<dyn Fence>,
) -> Result<Minted, Failure> {
    let order = MintOrder {
        fence,
        ..refresh_order(url)
    };
    tokio::time::timeout(6 * BOUND, minter.mint(order))
        .await
        .expect("a mint ends when its ticket does")
}
