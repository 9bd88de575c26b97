//! What an attacker who has the credentials could ask an S3 server for.

use std::time::Duration;

use bytes::Bytes;
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpConnector, HttpRequest, ReqwestConnector};

use super::s3::S3Server;
use backup_repository::{Store, StoreSettings};

/// One version of an object, or a mark that says that it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) is_deletion: bool,
}

impl S3Server {
    /// Makes a bucket whose objects can be locked.
    pub(crate) async fn make_locked_bucket(&self, bucket: &str) {
        let (status, said) = self
            .ask("PUT", &format!("/{bucket}"), &[("x-amz-bucket-object-lock-enabled", "true")], b"")
            .await;
        assert_eq!(status, 200, "{said}");
    }

    /// A place in a bucket.
    pub(crate) fn store_in(&self, bucket: &str, prefix: &str) -> Store {
        let url = format!("s3://{bucket}/{prefix}").parse().unwrap();
        StoreSettings { url, ..self.settings("") }.open_for_init().unwrap()
    }

    /// All versions of everything in a bucket.
    pub(crate) async fn versions(&self, bucket: &str) -> Vec<Version> {
        let (status, listing) = self.ask("GET", &format!("/{bucket}?versions="), &[], b"").await;
        assert_eq!(status, 200, "{listing}");
        assert!(listing.contains("<IsTruncated>false<"), "a test has few objects");
        let field = |part: &str, name: &str| {
            let (_, rest) = part.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let mut versions = Vec::new();
        for (tag, is_deletion) in [("<Version>", false), ("<DeleteMarker>", true)] {
            for part in listing.split(tag).skip(1) {
                versions.push(Version { key: field(part, "Key"), id: field(part, "VersionId"), is_deletion });
            }
        }
        versions
    }

    /// Tries to delete one version, and returns the status.
    pub(crate) async fn delete_version(&self, bucket: &str, version: &Version) -> u16 {
        let Version { key, id, .. } = version;
        self.ask("DELETE", &format!("/{bucket}/{key}?versionId={id}"), &[], b"").await.0
    }

    /// Hides an object, as deleting does in a bucket with versions.
    pub(crate) async fn delete(&self, bucket: &str, key: &str) -> u16 {
        self.ask("DELETE", &format!("/{bucket}/{key}"), &[], b"").await.0
    }

    /// Writes over an object.
    pub(crate) async fn overwrite(&self, bucket: &str, key: &str, body: &'static [u8]) -> u16 {
        self.ask("PUT", &format!("/{bucket}/{key}"), &[], body).await.0
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &'static [u8],
    ) -> (u16, String) {
        let mut request =
            http::Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.port()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request: HttpRequest = request.body(Bytes::from_static(body).into()).unwrap();
        let credential = AwsCredential { key_id: "key".into(), secret_key: "hush".into(), token: None };
        AwsAuthorizer::new(&credential, "s3", "us-east-1").try_authorize(&mut request, None).unwrap();
        let options = ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(60));
        let client = ReqwestConnector::default().connect(&options).unwrap();
        let response = client.execute(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().bytes().await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}
