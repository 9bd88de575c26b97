//! Which servers a client trusts: those with a certificate of the installation's own authority. A host that joins knows
//! only the authority's digest, from its token, and finds the certificate in what the server presents.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use async_nats::ConnectOptions;
use async_nats::rustls::client::WebPkiServerVerifier;
use async_nats::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use async_nats::rustls::crypto::{CryptoProvider, aws_lc_rs};
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use async_nats::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

/// The SHA-256 of a certificate in DER, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CertificateDigest([u8; 32]);

impl CertificateDigest {
    /// The digest of a certificate in DER.
    pub fn of(der: &[u8]) -> CertificateDigest {
        CertificateDigest(Sha256::digest(der).into())
    }

    /// The digest of the first certificate in a PEM text; nothing where there is none.
    pub fn of_pem(text: &str) -> Option<CertificateDigest> {
        CertificateDer::from_pem_slice(text.as_bytes()).ok().map(|der| CertificateDigest::of(&der))
    }
}

impl fmt::Display for CertificateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CertificateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CertificateDigest {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> Result<CertificateDigest, hex::FromHexError> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest)?;
        Ok(CertificateDigest(digest))
    }
}

/// Which servers are trusted.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Any, without TLS unless the server wants it: it is on loopback.
    Any,
    /// Those with a certificate of the authority in this PEM file, by TLS only.
    AuthorityIn(PathBuf),
    /// Those that present the authority of this digest and a certificate of it, by TLS only.
    AuthorityOf(CertificateDigest),
}

impl Trust {
    /// The authority in a file, or any server where there is none.
    pub fn of(ca_file: Option<&Path>) -> Trust {
        ca_file.map_or(Trust::Any, |path| Trust::AuthorityIn(path.into()))
    }

    pub(super) fn apply(&self, options: ConnectOptions) -> ConnectOptions {
        // It fails only where a provider is installed already, and then there is one.
        drop(aws_lc_rs::default_provider().install_default());
        match self {
            Trust::Any => options,
            Trust::AuthorityIn(path) => options.add_root_certificates(path.clone()).require_tls(true),
            Trust::AuthorityOf(digest) => {
                let provider = Arc::new(aws_lc_rs::default_provider());
                let verifier = Arc::new(DigestVerifier { digest: *digest, provider: Arc::clone(&provider) });
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .expect("the provider has the default versions")
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
                    .with_no_client_auth();
                options.tls_client_config(config).require_tls(true)
            }
        }
    }
}

/// Finds the authority of a digest in the presented chain, and lets the usual verifier do the rest with it as the only
/// root.
#[derive(Debug)]
struct DigestVerifier {
    digest: CertificateDigest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for DigestVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_authority = |der: &&CertificateDer<'_>| CertificateDigest::of(der) == self.digest;
        let authority = intermediates.iter().find(is_authority).ok_or_else(|| {
            Error::General(
                "the certificate of the server is not of the authority that the token names".into(),
            )
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        async_nats::rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        async_nats::rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
