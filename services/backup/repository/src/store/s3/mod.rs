//! S3: its client, and requests that `object_store` does not know.
//!
//! ```text
//!   object_store::AmazonS3 ──┐
//!   Object Lock?             ├──> signing ──> HTTP client ──> the service
//!   extend a lock, versions ─┘
//! ```

mod signing;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::client::{HttpClient, HttpConnector, HttpRequest};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use self::signing::{RequestSigner, SigningConnector};
pub(super) use self::versions::{ObjectVersionsPage, Version, changed_since};
use super::object_lock::LockUntil;
use super::settings::{StoreSettings, StoreSettingsError};
use crate::keys::secret::{SecretError, read_secret_file};

/// Digests of small bodies, which some requests must have.
const SHA256: HeaderName = HeaderName::from_static("x-amz-checksum-sha256");
/// The checksum that all puts carry: it costs next to nothing, and what arrives damaged is refused.
const CRC64: HeaderName = HeaderName::from_static("x-amz-checksum-crc64nvme");
const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
/// The lifetime of a signature made only to get an object's URL.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(60);
const ATTEMPTS_MAX: u32 = 4;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// One prefix of a bucket.
#[derive(Debug)]
pub(super) struct S3 {
    objects: AmazonS3,
    bulk: AmazonS3,
    bucket: String,
    prefix: Path,
    signer: Arc<RequestSigner>,
    client: HttpClient,
}

/// What the service answered to a request of our own.
struct Response {
    status: StatusCode,
    body: Bytes,
}

impl S3 {
    pub(super) fn open(
        settings: &StoreSettings,
        bucket: &str,
        prefix: &str,
    ) -> Result<S3, StoreSettingsError> {
        let s3 = settings.s3.as_ref().ok_or(StoreSettingsError::S3SettingsMissing)?;
        let secret = read_secret_file(&s3.secret_access_key_file)?;
        let secret = std::str::from_utf8(&secret)
            .map_err(|_| SecretError::NotText { path: s3.secret_access_key_file.clone() })?;
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(10),
                base: 2.0,
            },
            max_retries: settings.retries_max,
            retry_timeout: settings.retry_timeout,
        };
        let plain = s3.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let options = ClientOptions::new()
            .with_timeout(settings.request_timeout)
            .with_connect_timeout(settings.connect_timeout)
            .with_allow_http(plain);
        let signer = RequestSigner::new(s3.region.clone());
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&s3.region)
            .with_access_key_id(&s3.access_key_id)
            .with_secret_access_key(secret.trim())
            .with_retry(retry)
            .with_checksum_algorithm(Checksum::CRC64NVME)
            // Under TLS a digest of each pack would only cost time: packs are authenticated by their own encryption.
            .with_unsigned_payload(!plain)
            .with_http_connector(SigningConnector(Arc::clone(&signer)))
            .with_client_options(options.clone());
        if let Some(endpoint) = &s3.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let bulk = builder.clone().build().map_err(StoreSettingsError::Client)?;
        let objects = builder.with_disable_bulk_delete(true).build().map_err(StoreSettingsError::Client)?;
        signer.sign_as(Arc::clone(objects.credentials()));
        let client =
            SigningConnector(Arc::clone(&signer)).connect(&options).map_err(StoreSettingsError::Client)?;
        let prefix = Path::from(prefix);
        Ok(S3 { objects, bulk, bucket: bucket.to_owned(), prefix, signer, client })
    }

    /// The client, which deletes one object with each request, as every service can.
    pub(super) fn objects(&self) -> &AmazonS3 {
        &self.objects
    }

    /// A client that deletes many with one (DeleteObjects), which not every service can.
    pub(super) fn bulk(&self) -> &AmazonS3 {
        &self.bulk
    }

    /// The repository's place in the bucket.
    pub(super) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The time by the store's clock.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.signer.now()
    }

    /// Whether objects of this bucket can be locked. One that may not be asked counts as one where they cannot.
    pub(super) async fn has_object_lock(&self) -> object_store::Result<bool> {
        let response =
            self.send(Method::GET, &Path::default(), Some("object-lock"), &[], Bytes::new()).await?;
        Ok(response.status.is_success() && contains(&response.body, b"<ObjectLockEnabled>Enabled<"))
    }

    /// Whether the service refuses an object that does not match its checksum. Leaves none behind.
    pub(super) async fn verifies_checksums(&self, name: &Path) -> object_store::Result<bool> {
        let wrong = (CRC64, BASE64_STANDARD.encode([0; 8]));
        let body = Bytes::from_static(b"this is not what the checksum says");
        let response = self.send(Method::PUT, &self.full(name), None, &[wrong], body).await?;
        match response.status {
            status if status.is_success() => Ok(false),
            status if status.is_client_error() => Ok(true),
            _ => Err(refused("probe checksums with", name, &response)),
        }
    }

    /// Locks an object, or extends its lock.
    pub(super) async fn lock(&self, name: &Path, lock_until: LockUntil) -> object_store::Result<()> {
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode>\
             <RetainUntilDate>{}</RetainUntilDate></Retention>",
            lock_until.mode_name(),
            lock_until.until_text()
        );
        let response =
            self.send(Method::PUT, &self.full(name), Some("retention"), &[], Bytes::from(body)).await?;
        self.done("lock", name, &response)
    }

    /// The lock of an object, as the service writes it.
    pub(super) async fn lock_of(&self, name: &Path) -> object_store::Result<String> {
        let response = self.send(Method::GET, &self.full(name), Some("retention"), &[], Bytes::new()).await?;
        self.done("read the lock of", name, &response)?;
        Ok(String::from_utf8_lossy(&response.body).into_owned())
    }

    /// The next page of the versions of everything whose name begins with a prefix; the first after no other.
    pub(super) async fn versions(
        &self,
        prefix: &Path,
        after: Option<&ObjectVersionsPage>,
    ) -> object_store::Result<ObjectVersionsPage> {
        let mut query = format!("versions=&prefix={}", encoded(self.full(prefix).as_ref()));
        if let Some((key, version)) = after.and_then(|page| page.next.as_ref()) {
            query += &format!("&key-marker={}&version-id-marker={}", encoded(key), encoded(version));
        }
        let response = self.send(Method::GET, &Path::default(), Some(&query), &[], Bytes::new()).await?;
        self.done("list the versions of", prefix, &response)?;
        let broken =
            |why| generic(std::io::Error::other(format!("a listing of versions makes no sense: {why}")));
        ObjectVersionsPage::read(&String::from_utf8_lossy(&response.body)).map_err(broken)
    }

    /// The name of an object in its place, by its key in the bucket.
    pub(super) fn name_of(&self, key: &str) -> Option<Path> {
        let path = Path::parse(key).ok()?;
        Some(path.prefix_match(&self.prefix)?.collect())
    }

    /// Makes an older version of an object the newest.
    pub(super) async fn restore_version(
        &self,
        name: &Path,
        version: &str,
        lock_until: Option<LockUntil>,
    ) -> object_store::Result<()> {
        let full = self.full(name);
        let source =
            format!("/{}/{}?versionId={}", encoded(&self.bucket), encoded(full.as_ref()), encoded(version));
        let mut headers = vec![(COPY_SOURCE, source)];
        if let Some(lock_until) = lock_until {
            headers.extend(lock_until.headers());
        }
        let response = self.send(Method::PUT, &full, None, &headers, Bytes::new()).await?;
        self.done("undelete", name, &response)?;
        // A copy that fails half way reports it in the body of a successful response.
        if contains(&response.body, b"<CopyObjectResult") {
            Ok(())
        } else {
            Err(refused("undelete", name, &response))
        }
    }

    fn done(&self, attempt: &str, name: &Path, response: &Response) -> object_store::Result<()> {
        match response.status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => {
                let source = Box::new(std::io::Error::other("the service does not have it"));
                Err(object_store::Error::NotFound { path: name.to_string(), source })
            }
            _ => Err(refused(attempt, name, response)),
        }
    }

    fn full(&self, name: &Path) -> Path {
        self.prefix.parts().chain(name.parts()).collect()
    }

    /// One request of our own, with retries while the error is transient.
    async fn send(
        &self,
        method: Method,
        path: &Path,
        query: Option<&str>,
        headers: &[(HeaderName, String)],
        body: Bytes,
    ) -> object_store::Result<Response> {
        let mut pause = BACKOFF_FIRST;
        let mut attempt = 1;
        loop {
            let outcome = self.send_once(&method, path, query, headers, &body).await;
            let is_transient = match &outcome {
                Ok(response) => {
                    response.status.is_server_error() || response.status == StatusCode::TOO_MANY_REQUESTS
                }
                Err(_) => true,
            };
            if !is_transient || attempt == ATTEMPTS_MAX {
                return outcome;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }

    async fn send_once(
        &self,
        method: &Method,
        path: &Path,
        query: Option<&str>,
        headers: &[(HeaderName, String)],
        body: &Bytes,
    ) -> object_store::Result<Response> {
        let mut address = self.objects.signed_url(method.clone(), path, ADDRESS_LIFETIME).await?;
        address.set_query(query);
        let mut request = http::Request::builder().method(method).uri(address.as_str());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !body.is_empty() && headers.is_empty() {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
            request = request
                .header(SHA256, HeaderValue::try_from(BASE64_STANDARD.encode(digest)).map_err(generic)?);
        }
        let mut request: HttpRequest = request.body(body.clone().into()).map_err(generic)?;
        self.signer.sign(&mut request).await.map_err(generic)?;
        let response = self.client.execute(request).await.map_err(generic)?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(generic)?;
        Ok(Response { status, body })
    }
}

/// Percent-encoded for a query (RFC 3986, section 2.3). Slashes stay.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn generic(source: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: Box::new(source) }
}

fn refused(attempt: &str, name: &Path, response: &Response) -> object_store::Error {
    let body: String = String::from_utf8_lossy(&response.body).chars().take(500).collect();
    generic(std::io::Error::other(format!(
        "could not {attempt} {name}: the service responded {}: {body}",
        response.status
    )))
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len()).any(|window| window == text)
}
