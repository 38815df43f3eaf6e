//! TLS against a server on loopback with certificates of a CA of our own. They are made by `tests/data/tls/README.md`
//! and are valid until 2119; their key is no secret.

use super::{
    ServicePlan, SharedLimits,
    tests::{Server, in_world, no_facts},
    url,
};
use crate::flow::Slot;
use futures_rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    rustls::{self, ServerConfig, ServerConnection, StreamOwned},
};
use hyper::{HeaderMap, Method, body::Bytes};
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

fn server(certificate: &str) -> Server {
    let certificate = CertificateDer::from_pem_file(file(certificate)).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they fit");
    let config = Arc::new(config);
    Server::start(move |conn| {
        let session = ServerConnection::new(config.clone()).expect("a session");
        let mut stream = StreamOwned::new(session, conn.stream());
        let mut head = Vec::new();
        let mut byte = [0];
        loop {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
            }
        }
    })
}

/// The status of two calls one after the other, or the message of the failure.
fn ask(server: &Server, ca: Option<&str>) -> Result<u16, String> {
    let mut plan = ServicePlan::anonymous(url::split(&server.url.replace("http://", "https://")).expect("a url").0);
    plan.ca_file = ca.map(file);
    in_world(async |world| {
        let service =
            plan.start(&world, &no_facts(), &SharedLimits::new(world.clone())).map_err(|failure| failure.message)?;
        let slot = Slot::free(world.clone());
        let request = super::Request {
            method: Method::GET,
            label: "GET /x".to_owned(),
            target: "/x".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: None,
            digest: false,
        };
        service.exchange(&request, None, &slot).await.map_err(|failure| failure.message)?;
        let answer = service.exchange(&request, None, &slot).await.map_err(|failure| failure.message)?;
        Ok(answer.status)
    })
}

#[test]
fn a_private_ca_is_trusted_where_it_is_named_and_connections_are_kept() {
    let server = server("good.pem");
    assert_eq!(ask(&server, Some("ca.pem")), Ok(200));
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_refused_certificate_says_why() {
    let refused = |certificate, ca, word: &str| {
        let message = ask(&server(certificate), ca).expect_err("refused");
        assert!(message.contains(word), "{message}");
    };
    refused("good.pem", None, "ca_file");
    refused("expired.pem", Some("ca.pem"), "clock");
    refused("other.pem", Some("ca.pem"), "another name");
    refused("good.pem", Some("server.key"), "no certificate");
    refused("good.pem", Some("absent.pem"), "ca_file");
}

#[test]
fn plain_http_behind_https_is_a_failure_of_transport() {
    let server = Server::start(|conn| {
        conn.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let message = ask(&server, None).expect_err("no TLS there");
    assert!(message.ends_with("the server does not speak TLS there: is it http?"), "{message}");
}
