//! In the place of `tls.rs` in a program without the feature `tls`: nothing can be encrypted, and nothing is sent in the
//! clear instead. A job with an `https` address is refused when it is loaded, by [`super::url::split`].

use std::io;

use super::{
    transport::{Socket, Wire},
    url::WITHOUT_TLS,
};

/// There is none.
pub(super) enum Connector {}

impl Connector {
    /// # Errors
    /// Always.
    pub(super) fn new(_ca: Option<&[u8]>) -> Result<Connector, String> {
        Err(WITHOUT_TLS.to_owned())
    }

    pub(super) async fn connect(&self, _host: &str, _stream: Socket) -> io::Result<Box<dyn Wire>> {
        match *self {}
    }
}

/// No error comes from TLS.
pub(super) fn describe(_error: &io::Error) -> Option<String> {
    None
}
