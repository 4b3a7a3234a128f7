//! Who the sandbox is: the token that goes with every call.

use std::path::PathBuf;

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

/// A token in a file that something else renews, such as a projected service-account token.
#[derive(Clone, Debug)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// The longest token, in bytes.
    pub const MAX_LEN: usize = 64 << 10;

    /// Reads `path` before every call; white space around the token is not part of it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

#[async_trait]
impl TokenSource for TokenFile {
    async fn token(&self) -> Result<Secret, BoxError> {
        let bytes = Secret::new(tokio::fs::read(&self.0).await?);
        let text = bytes.expose_str().map(str::trim).unwrap_or_default();
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(format!("{} holds no token", self.0.display()).into());
        }
        Ok(Secret::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_file_is_read_anew_and_must_hold_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = TokenFile::new(&path);
        assert!(source.token().await.is_err());
        for (content, token) in [
            (&b"one\n"[..], Some("one")),
            (b" two ", Some("two")),
            (b"\n", None),
            (b"\xff\xfe", None),
        ] {
            std::fs::write(&path, content).unwrap();
            let found = source.token().await.ok();
            assert_eq!(found.as_ref().and_then(Secret::expose_str), token);
        }
    }
}
