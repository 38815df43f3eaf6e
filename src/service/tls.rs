//! TLS for calls: which roots are trusted, and what went wrong in words.
//!
//! Called by [`super::transport`] and when a service starts; `no_tls.rs` stands in its place in a program without the
//! feature `tls`. It never trusts less than the roots that are built in allow,
//! and never goes on after a certificate was refused.

use futures_rustls::{
    TlsConnector,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    rustls::{self, CertificateError, ClientConfig, RootCertStore},
};
use std::{io, sync::Arc};

use super::transport::{Socket, Wire};

/// Makes TLS of a socket.
pub(super) struct Connector(TlsConnector);

impl Connector {
    /// One that trusts the built-in roots and, where it is given, the certificates of `ca` (PEM).
    ///
    /// # Errors
    /// A sentence when `ca` holds no usable certificate.
    pub(super) fn new(ca: Option<&[u8]>) -> Result<Connector, String> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(pem) = ca {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| format!("it is no PEM file: {e:?}"))?;
                roots.add(certificate).map_err(|e| format!("a certificate in it cannot be read: {e}"))?;
            }
            if roots.len() == before {
                return Err("there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_owned());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Connector(TlsConnector::from(Arc::new(config))))
    }

    /// The handshake with `host`.
    ///
    /// # Errors
    /// What [`describe`] has words for, and errors of the socket.
    pub(super) async fn connect(&self, host: &str, stream: Socket) -> io::Result<Box<dyn Wire>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(self.0.connect(name, stream).await?))
    }
}

/// What a failed handshake means for people.
pub(super) fn describe(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let reason = match error {
        rustls::Error::InvalidCertificate(reason) => reason,
        rustls::Error::InvalidMessage(_) => return Some("the server does not speak TLS there: is it http?".to_owned()),
        other => return Some(format!("TLS failed: {other}")),
    };
    Some(match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: is the clock of this machine right?".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate is signed by nobody who is trusted: name its CA in tls: Tls(ca_file: ..)"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another name".to_owned()
        }
        other => format!("the server's certificate is refused: {other:?}"),
    })
}
