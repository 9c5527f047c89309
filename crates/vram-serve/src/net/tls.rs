//! The certificate of a server, for addresses beyond loopback.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// Reads certificate and key. An error says which file, and what is wrong with it.
pub(crate) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, String> {
    let (certificate, key) = (&config.certificate, &config.key);
    let wrong = |file: &Path, what: String| format!("{}: {what}", file.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(certificate, format!("not a certificate in PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "no certificate is in it".to_owned()));
    }
    let mode = fs::metadata(key).map_err(|error| wrong(key, error.to_string()))?;
    let mode = mode.permissions().mode() & 0o777;
    if mode & 0o137 != 0 {
        let what = format!("mode {mode:04o} lets others at the key; `chmod 600` it");
        return Err(wrong(key, what));
    }
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| wrong(key, format!("not a private key in PEM: {error}")))?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| {
            wrong(certificate, format!("it and the key do not go together: {error}"))
        })?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}
