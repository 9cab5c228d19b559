//! `oasf_api_validation.mode: remote`: a schema server's verdict on a record, one request a push (grpc-api §2.4).

use std::time::Duration;

use serde::Deserialize;

/// Time for one verdict, connection included.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RemoteSchemaError {
    /// The HTTP client cannot be set up.
    #[error("the client for the schema server cannot be set up: {0}")]
    Client(#[source] reqwest::Error),
    /// The server was not reached, or broke off.
    #[error("schema server {url} gave no verdict: {}", chain(.source))]
    Network {
        /// What was asked.
        url: String,
        /// The failure.
        source: reqwest::Error,
    },
    /// The server answered something else than a verdict.
    #[error("schema server {url} answered {what}; is there a schema of that version?")]
    Answer {
        /// What was asked.
        url: String,
        /// Status or fault.
        what: String,
    },
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// A schema server.
pub struct RemoteSchema {
    base: String,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct Verdict {
    #[serde(default)]
    errors: Vec<Entry>,
    #[serde(default)]
    warnings: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    message: String,
    #[serde(default)]
    attribute_path: Option<String>,
    #[serde(default)]
    constraint: Option<serde_json::Value>,
}

impl Entry {
    fn text(&self, severity: &str) -> String {
        let path = self.attribute_path.as_deref().filter(|path| !path.is_empty());
        let mut text = match (path, severity) {
            (Some(path), _) => format!("{severity}: {} Attribute path: {path}.", self.message),
            (None, "ERROR") => format!("{severity}: Validation Error: {}", self.message),
            (None, _) => format!("{severity}: {}", self.message),
        };
        if let Some(constraint) = &self.constraint {
            text.push_str(&format!(" Constraint: {constraint}"));
        }
        text
    }
}

impl RemoteSchema {
    /// A server at `base`, a URL without a trailing slash.
    ///
    /// # Errors
    /// [`RemoteSchemaError::Client`].
    pub fn new(base: &str) -> Result<Self, RemoteSchemaError> {
        let client = reqwest::Client::builder()
            .timeout(TIME_LIMIT)
            .build()
            .map_err(RemoteSchemaError::Client)?;
        Ok(Self {
            base: base.to_owned(),
            client,
        })
    }

    /// The errors and warnings of a record, empty when it is valid.
    ///
    /// # Errors
    /// [`RemoteSchemaError`] when the server gives no verdict.
    pub async fn errors_of(&self, version: &str, json: &[u8]) -> Result<Vec<String>, RemoteSchemaError> {
        let url = format!(
            "{}/api/{version}/validate/object/record?missing_recommended=true",
            self.base
        );
        let network = |source| RemoteSchemaError::Network {
            url: url.clone(),
            source,
        };
        let odd = |what: String| RemoteSchemaError::Answer {
            url: url.clone(),
            what,
        };
        let request = self
            .client
            .post(&url)
            .header("content-type", "application/json")
            .body(json.to_vec());
        let mut answer = request.send().await.map_err(network)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(odd(answer.status().to_string()));
        }
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(network)? {
            if text.len().saturating_add(chunk.len()) > MAX_ANSWER_BYTES {
                return Err(odd(format!("more than {MAX_ANSWER_BYTES} bytes")));
            }
            text.extend_from_slice(&chunk);
        }
        let verdict: Verdict =
            serde_json::from_slice(&text).map_err(|error| odd(format!("no verdict ({error})")))?;
        if verdict.errors.is_empty() {
            return Ok(Vec::new());
        }
        let errors = verdict.errors.iter().map(|entry| entry.text("ERROR"));
        Ok(errors
            .chain(verdict.warnings.iter().map(|entry| entry.text("WARNING")))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::routing::post;

    use super::*;

    /// A schema server that knows 1.0.0 and finds one fault in whatever holds the word `bad`.
    async fn server() -> String {
        let judge = |Path(version): Path<String>, body: String| async move {
            if version != "1.0.0" {
                return (StatusCode::NOT_FOUND, String::new());
            }
            let verdict = if body.contains("bad") {
                r#"{"errors":[{"message":"Constraint failed.","attribute_path":"modules[0]","constraint":{"just_one":["data","json"]}}],
                    "warnings":[{"message":"Deprecated."}],"error_count":1}"#
            } else {
                r#"{"errors":[],"warnings":[{"message":"Recommended."}]}"#
            };
            (StatusCode::OK, verdict.to_owned())
        };
        let router = Router::new().route("/api/{version}/validate/object/record", post(judge));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        drop(crate::runtime::spawn("schema-server", async move {
            axum::serve(listener, router).await.unwrap();
        }));
        base
    }

    #[tokio::test]
    async fn a_verdict_is_taken_and_the_lack_of_one_is_no_verdict() {
        let remote = RemoteSchema::new(&server().await).unwrap();
        assert_eq!(
            remote.errors_of("1.0.0", b"{}").await.unwrap(),
            Vec::<String>::new()
        );
        let errors = remote.errors_of("1.0.0", b"{\"bad\":1}").await.unwrap();
        let expected = [
            "ERROR: Constraint failed. Attribute path: modules[0]. Constraint: {\"just_one\":[\"data\",\"json\"]}",
            "WARNING: Deprecated.",
        ];
        assert_eq!(errors, expected);
        let error = remote.errors_of("9.9.9", b"{}").await.unwrap_err().to_string();
        assert!(error.contains("404") && error.contains("9.9.9"), "{error}");
        let nobody = RemoteSchema::new("http://127.0.0.1:1").unwrap();
        let error = nobody.errors_of("1.0.0", b"{}").await.unwrap_err().to_string();
        assert!(
            error.contains("127.0.0.1:1") && error.contains("refused"),
            "{error}"
        );
    }
}
