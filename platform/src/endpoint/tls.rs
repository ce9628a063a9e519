//! TLS of the endpoint: its key and certificate, made on the device once, and the server over them.
//!
//! A client believes the certificate by its hash, from the pairing code; names, dates and issuers have no say, so it is
//! signed by its own key and valid for ever. TLS 1.3 only, no resumption, no client certificates.
//! Not here: keeping the key (`memory`), moving bytes (`link`).

use runtime::fault::Code;
use rustls::{
    ServerConfig, ServerConnection,
    crypto::{CryptoProvider, ring as provider},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use std::sync::Arc;

/// Bytes that a connection holds of what is to be sent.
const UNSENT_MAX: usize = 64 * 1024;

/// Makes connections.
pub(super) struct Server(Arc<ServerConfig>);

impl Server {
    /// Over a key and its certificate.
    pub(super) fn new(key: &[u8], certificate: &[u8]) -> Result<Self, Code> {
        let key = PrivatePkcs8KeyDer::from(key.to_vec()).into();
        let key = provider::sign::any_ecdsa_type(&key).map_err(|_| Code::StorageDamaged)?;
        let chain = vec![CertificateDer::from(certificate.to_vec())];
        let known = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        let crypto = CryptoProvider {
            cipher_suites: vec![
                provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
                provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![provider::kx_group::X25519, provider::kx_group::SECP256R1],
            ..provider::default_provider()
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(crypto)).with_protocol_versions(&[&TLS13]);
        let mut config = builder.map_err(|_| Code::Internal)?.with_no_client_auth().with_cert_resolver(known);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// A client has begun to speak TLS.
    pub(super) fn connection(&self) -> Option<ServerConnection> {
        let mut connection = ServerConnection::new(self.0.clone()).ok()?;
        connection.set_buffer_limit(Some(UNSENT_MAX));
        Some(connection)
    }
}

/// A new key and its certificate for a device of this name.
pub(super) fn identity(name: &str) -> Result<(Vec<u8>, Vec<u8>), Code> {
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING as P256, EcdsaKeyPair, KeyPair};
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&P256, &random).map_err(|_| Code::Internal)?;
    let pair = EcdsaKeyPair::from_pkcs8(&P256, key.as_ref(), &random).map_err(|_| Code::Internal)?;
    let mut serial = [0; 16];
    super::pairing::fill(&mut serial)?;
    serial[0] = serial[0] & 0x3f | 0x40; // positive, and of this length
    let subject = certificate_body(name, &serial, pair.public_key().as_ref());
    let signature = pair.sign(&random, &subject).map_err(|_| Code::Internal)?;
    let certificate = der(0x30, &[&subject, ECDSA_WITH_SHA256, &bits(signature.as_ref())]);
    Ok((key.as_ref().to_vec(), certificate))
}

/// AlgorithmIdentifier of the signature.
const ECDSA_WITH_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
/// AlgorithmIdentifier of a key on P-256.
const P256_KEY: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// Object identifiers: common name, subject alternative name.
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
const ALTERNATIVE_NAME: &[u8] = b"\x06\x03\x55\x1d\x11";
/// From 2020, whatever the device's clock says, to the end of what can be written.
const VALIDITY: &[u8] = b"\x30\x20\x17\x0d200101000000Z\x18\x0f99991231235959Z";

/// What is signed: version 3, one name, one key, and the name again where clients look for it.
fn certificate_body(name: &str, serial: &[u8], key: &[u8]) -> Vec<u8> {
    let common = der(0x30, &[&der(0x31, &[&der(0x30, &[COMMON_NAME, &der(0x0c, &[name.as_bytes()])])])]);
    let alternative = der(0x30, &[&der(0x82, &[name.as_bytes(), b".local"])]);
    let extension = der(0x30, &[ALTERNATIVE_NAME, &der(0x04, &[&alternative])]);
    der(
        0x30,
        &[
            b"\xa0\x03\x02\x01\x02",
            &der(0x02, &[serial]),
            ECDSA_WITH_SHA256,
            &common,
            VALIDITY,
            &common,
            &der(0x30, &[P256_KEY, &bits(key)]),
            &der(0xa3, &[&der(0x30, &[&extension])]),
        ],
    )
}

/// One element of DER, of up to 64 KiB.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend_from_slice(&[0x81, length as u8]),
        _ => out.extend_from_slice(&[0x82, (length >> 8) as u8, length as u8]),
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A bit string of whole bytes.
fn bits(bytes: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], bytes])
}
