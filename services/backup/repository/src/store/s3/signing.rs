//! Between the S3 client and the connection: adds headers that the client does not support, and reads the store's clock.
//!
//! A put with a [`LockUntil`] among its extensions gets the headers of Object Lock, and is signed again, since every header
//! that begins with `x-amz-` is part of the signature (AWS Signature Version 4).

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderValue;
use http::header::{AUTHORIZATION, DATE};
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

use crate::store::object_lock::LockUntil;

const DIGEST: &str = "x-amz-content-sha256";

/// What all requests to one store share.
#[derive(Debug)]
pub(super) struct RequestSigner {
    region: String,
    credentials: OnceLock<AwsCredentialProvider>,
    /// How far the store's clock was ahead of ours at its last response.
    clock_ahead_ms: AtomicI64,
}

impl RequestSigner {
    pub(super) fn new(region: String) -> Arc<RequestSigner> {
        Arc::new(RequestSigner { region, credentials: OnceLock::new(), clock_ahead_ms: AtomicI64::new(0) })
    }

    /// Sets the credentials, which are known only when the client has been built.
    pub(super) fn sign_as(&self, credentials: AwsCredentialProvider) {
        self.credentials.set(credentials).expect("the credentials are set once");
    }

    /// The time by the store's clock, as its last response said.
    pub(super) fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::milliseconds(self.clock_ahead_ms.load(Ordering::Relaxed))
    }

    /// Signs a request, its digest included where it was taken already.
    pub(super) async fn sign(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let failed = |source| HttpError::new(HttpErrorKind::Unknown, source);
        let provider = self.credentials.get().ok_or_else(|| {
            HttpError::new(HttpErrorKind::Unknown, std::io::Error::other("there are no credentials yet"))
        })?;
        let credential = provider.get_credential().await.map_err(failed)?;
        let taken = request.headers().get(DIGEST).and_then(|digest| digest.to_str().ok()).map(str::to_owned);
        let digest = taken.as_deref().and_then(|digest| hex::decode(digest).ok());
        let is_unsigned = taken.is_some() && digest.is_none();
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .with_sign_payload(!is_unsigned)
            .try_authorize(request, digest.as_deref())
            .map_err(failed)
    }

    fn note_clock(&self, response: &HttpResponse) {
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()) {
            let ahead = date.with_timezone(&Utc) - Utc::now();
            self.clock_ahead_ms.store(ahead.num_milliseconds(), Ordering::Relaxed);
        }
    }
}

/// Makes clients whose requests go through a signer.
#[derive(Debug)]
pub(super) struct SigningConnector(pub(super) Arc<RequestSigner>);

impl HttpConnector for SigningConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Signing { signer: Arc::clone(&self.0), inner }))
    }
}

#[derive(Debug)]
struct Signing {
    signer: Arc<RequestSigner>,
    inner: HttpClient,
}

#[async_trait]
impl HttpService for Signing {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(lock_until) = request.extensions().get::<LockUntil>().copied() {
            let headers = request.headers_mut();
            for (name, value) in lock_until.headers() {
                headers.insert(name, HeaderValue::try_from(value).expect("letters, digits and dashes"));
            }
            headers.remove(AUTHORIZATION);
            self.signer.sign(&mut request).await?;
        }
        let response = self.inner.execute(request).await?;
        self.signer.note_clock(&response);
        Ok(response)
    }
}
