//! Who the sandbox is: the token that goes with every call.

use async_trait::async_trait;
use evermint_core::secret::Secret;

/// Any error of a caller's own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Gives the sandbox's own token. It is asked before every call and every stream, so that it can
/// renew the token in time; it should keep the token between.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// The token of now, without the word `Bearer`. Has to come within
    /// [`Timing::attempt`](crate::Timing::attempt).
    ///
    /// # Errors
    /// If there is none. The text is logged; the client asks again.
    async fn token(&self) -> Result<Secret, BoxError>;

    /// An endpoint refused the token: the next one should be another one.
    fn refused(&self) {}
}

/// A token that never changes.
#[async_trait]
impl TokenSource for Secret {
    async fn token(&self) -> Result<Secret, BoxError> {
        Ok(self.clone())
    }
}

/// Any function will do.
#[async_trait]
impl<F> TokenSource for F
where
    F: Fn() -> Result<Secret, BoxError> + Send + Sync + 'static,
{
    async fn token(&self) -> Result<Secret, BoxError> {
        self()
    }
}
