//! What runs beside an AI agent in its sandbox, and gives its calls live tokens that it never sees.
//!
//! * **`inference.local`**: takes calls as OpenAI, Anthropic and Google have them, over HTTP/1.1 or
//!   HTTP/2, plain or TLS. Takes out whatever credentials the caller has put in, picks a route, sets
//!   its model, puts in its token of now, and streams both ways.
//! * **A forward proxy**: resolves placeholders in requests to the endpoints that credentials are
//!   bound to, and nowhere else.
//! * **Metadata endpoints** as cloud SDKs look for them, each off unless it is asked for.
//! * **[`run()`]**: starts a command with all of that in its environment.
//!
//! Who picks the route of a call: the header `x-evermint-route: NAME`, or a path that begins with
//! `/route/NAME/`; without either, the first route that speaks the call's protocol takes it,
//! `inference.local` before all others, those by name.
//!
//! Start reading at `server` (what comes in), then `inference` (the path of a call: `call`, `route`,
//! `rewrite`, `strip`), `proxy`, `metadata`. `rotation` is what happens when an upstream refuses a
//! token. Nothing here decides whether a value may be used: `evermint-client` does.

mod agent;
mod answer;
mod body;
mod ca;
mod call;
mod conceal;
mod config;
mod environment;
mod error;
mod inference;
mod local;
mod members;
mod metadata;
mod metrics;
mod names;
mod placeholder;
mod proxy;
mod rewrite;
mod rotation;
mod route;
mod run;
mod server;
mod shared;
mod strip;
mod upstream;

pub use agent::Agent;
pub use conceal::conceal;
pub use config::{Cloud, Config, Metadata, Unbound};
pub use error::Error;
pub use run::{Signals, run};
pub use upstream::Limits;
