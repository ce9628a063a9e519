//! Paired devices: who they are, and TLS that knows them by their certificate alone.
//!
//! A device makes its own certificate; what says that it is the right one is its hash, which came with the pairing code over
//! a way that the network does not see. Names, dates and issuers have no say. `devices.json` in the settings' folder holds
//! address, hash and token of each device, for its owner's eyes only.
//! Invariants: nothing is sent to a paired device before its certificate was found to be the pinned one, nor by another
//! way than the paired one; its token goes nowhere else. Whoever changes the file reads it again under the folder's lock,
//! so that of two `pvr` that pair at once neither loses its token.
//! Not here: the pairing itself (`commands::device`).

use crate::{
    error::{During, Error, Result},
    files,
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring::default_provider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use ureq::{
    Agent,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::DefaultResolver,
        transport::{
            Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
        },
    },
};

/// A device that was paired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Host and port.
    pub address: String,
    /// How it calls itself.
    pub name: String,
    /// SHA-256 of its certificate, in hex; none where the pairing was over plain HTTP.
    pub fingerprint: Option<String>,
    /// What it gave us.
    pub token: String,
    /// The token's name at the device, to take it back there.
    pub id: String,
}

impl Device {
    /// Whether an address is this device's.
    pub fn is_at(&self, uri: &Uri) -> bool {
        authority(uri).is_some_and(|authority| authority == self.address)
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self {
            address: text("address")?,
            name: text("name")?,
            fingerprint: text("fingerprint"),
            token: text("token")?,
            id: text("id")?,
        })
    }

    fn write(&self) -> Value {
        let Self { address, name, fingerprint, token, id } = self;
        json!({"address": address, "name": name, "fingerprint": fingerprint, "token": token, "id": id})
    }
}

/// `host:port` of an address.
pub fn authority(uri: &Uri) -> Option<String> {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    uri.host().map(|host| format!("{}:{port}", host.to_ascii_lowercase()))
}

/// The devices that were paired from here.
pub struct Paired {
    file: PathBuf,
    /// All of them.
    pub devices: Vec<Device>,
}

impl Paired {
    /// Reads them. A file that is not understood is an error: to go on without it would mean to speak plain HTTP.
    pub fn load(config_dir: &Path) -> Result<Self> {
        let file = config_dir.join("devices.json");
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self { file, devices: Vec::new() }),
            Err(e) => return Err(e).during(|| format!("read {}", file.display())),
        };
        let document: Value = serde_json::from_slice(&text).unwrap_or_default();
        let devices = document["devices"].as_array().and_then(|list| list.iter().map(Device::read).collect());
        match devices {
            Some(devices) => Ok(Self { file, devices }),
            None => Err(Error::input(format!("{} is damaged", file.display()))
                .hint("remove it, and pair your devices again: pvr device pair ADDRESS")),
        }
    }

    /// The device at an address.
    pub fn at(&self, uri: &Uri) -> Option<&Device> {
        self.devices.iter().find(|device| device.is_at(uri))
    }

    /// Adds a device, in place of what was at its address or had its certificate.
    pub fn put(&mut self, device: Device) -> Result<()> {
        let _lock = self.begin()?;
        let same = |old: &Device| device.fingerprint.is_some() && old.fingerprint == device.fingerprint;
        self.devices.retain(|old| old.address != device.address && !same(old));
        self.devices.push(device);
        self.store()
    }

    /// Forgets a device by its address or name; whether there was one.
    pub fn forget(&mut self, which: &str) -> Result<bool> {
        let _lock = self.begin()?;
        let before = self.devices.len();
        self.devices.retain(|device| device.address != which && device.name != which);
        self.store()?;
        Ok(self.devices.len() < before)
    }

    /// Keeps others from changing the file, and reads what they changed meanwhile.
    fn begin(&mut self) -> Result<File> {
        let dir = self.file.parent().unwrap_or(Path::new("."));
        files::create_dir(dir)?;
        let lock = files::lock_dir(dir)?;
        *self = Self::load(dir)?;
        Ok(lock)
    }

    fn store(&self) -> Result<()> {
        let document = json!({"spec": "1", "devices": self.devices.iter().map(Device::write).collect::<Vec<_>>()});
        files::write_atomic(&self.file, 0o600, format!("{document:#}\n").as_bytes())
    }
}

/// What is known of a certificate's hash, and what it was found to be.
pub struct Pin {
    known: Vec<u8>,
    provider: CryptoProvider,
    seen: Mutex<Option<[u8; 32]>>,
}

impl Pin {
    /// The hash, or as much of its beginning as is known. At least 80 bits.
    pub fn new(known: &[u8]) -> Option<Arc<Self>> {
        let pin = || Self { known: known.to_vec(), provider: default_provider(), seen: Mutex::default() };
        (10..=32).contains(&known.len()).then(|| Arc::new(pin()))
    }

    /// From the hex of a whole hash.
    pub fn from_hex(text: &str) -> Option<Arc<Self>> {
        let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
        bytes.filter(|bytes| bytes.len() == 32).and_then(|bytes| Self::new(&bytes))
    }

    /// The hash of the certificate that was shown, in hex.
    pub fn seen(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin of {} bytes", self.known.len())
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let hash: [u8; 32] = Sha256::digest(certificate).into();
        if !hash.starts_with(&self.known) {
            return Err(rustls::Error::General(NOT_PINNED.into()));
        }
        *self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(hash);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("a device speaks TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What the error says when it is somebody else.
const NOT_PINNED: &str = "the other side is not the device that was paired: its certificate is another one";

/// An agent that speaks to the pinned device and to nobody else, over TLS whatever the address says.
pub fn agent(config: Config, pin: Arc<Pin>) -> Result<Agent> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|e| Error::host(format!("TLS cannot be set up: {e}")))?;
    let tls = builder.dangerous().with_custom_certificate_verifier(pin).with_no_client_auth();
    let connector = ().chain(TcpConnector::default()).chain(PinnedConnector { tls: Arc::new(tls) });
    Ok(Agent::with_parts(config, connector, DefaultResolver::default()))
}

/// Wraps every connection in TLS.
#[derive(Debug)]
struct PinnedConnector {
    tls: Arc<ClientConfig>,
}

impl<In: Transport> Connector<In> for PinnedConnector {
    type Out = PinnedTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> std::result::Result<Option<PinnedTransport>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        // The certificate's name does not matter: a name that every certificate could have is as good as its own.
        let name = ServerName::try_from("device.local").map_err(|_| ureq::Error::Tls("no name"))?;
        let mut connection = ClientConnection::new(self.tls.clone(), name).map_err(ureq::Error::from)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(PinnedTransport { buffers, stream: StreamOwned::new(connection, socket) }))
    }
}

/// A connection to the pinned device.
struct PinnedTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for PinnedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedTransport")
    }
}

impl Transport for PinnedTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> std::result::Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> std::result::Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let count = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(address: &str, fingerprint: Option<&str>) -> Device {
        let text = |text: &str| text.to_owned();
        let (address, fingerprint) = (text(address), fingerprint.map(text));
        Device { address, name: text("switchback-a"), fingerprint, token: text("t"), id: text("i") }
    }

    #[test]
    fn devices_are_kept_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mut paired = Paired::load(folder.path()).unwrap();
        paired.put(device("10.0.0.1:12368", Some("aa"))).unwrap();
        paired.put(device("10.0.0.2:12368", None)).unwrap();
        paired.put(device("10.0.0.3:12368", Some("aa"))).unwrap(); // the same device at another address
        let file = folder.path().join("devices.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let mut again = Paired::load(folder.path()).unwrap();
        assert_eq!(again.devices, paired.devices);
        let at = |paired: &Paired, url: &str| paired.at(&url.parse().unwrap()).map(|device| device.address.clone());
        assert_eq!(at(&again, "http://10.0.0.3:12368/cgi-bin"), Some("10.0.0.3:12368".into()));
        assert_eq!(at(&again, "http://10.0.0.1:12368"), None);
        assert_eq!(at(&again, "http://10.0.0.3"), None, "another port is another service");
        assert!(again.forget("10.0.0.2:12368").unwrap() && !again.forget("10.0.0.2:12368").unwrap());
        fs::write(&file, "{}").unwrap();
        assert!(Paired::load(folder.path()).is_err(), "damage does not mean plain HTTP");
    }

    #[test]
    fn devices_that_are_paired_at_once_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at_once: Vec<_> = (0..8).map(|n| (n, Paired::load(folder.path()).unwrap())).collect();
        std::thread::scope(|scope| {
            for (n, mut paired) in at_once {
                scope.spawn(move || paired.put(device(&format!("10.0.0.{n}:12368"), None)).unwrap());
            }
        });
        let mut paired = Paired::load(folder.path()).unwrap();
        assert_eq!(paired.devices.len(), 8);
        let mut other = Paired::load(folder.path()).unwrap();
        assert!(other.forget("10.0.0.1:12368").unwrap() && paired.forget("10.0.0.2:12368").unwrap());
        assert_eq!(Paired::load(folder.path()).unwrap().devices.len(), 6);
    }

    #[test]
    fn a_pin_is_no_less_than_80_bits() {
        assert!(Pin::new(&[0; 9]).is_none() && Pin::new(&[0; 33]).is_none() && Pin::new(&[0; 10]).is_some());
        assert!(Pin::from_hex(&"ab".repeat(32)).is_some() && Pin::from_hex("abc").is_none());
        assert!(Pin::from_hex(&"\u{e4}b".repeat(21)).is_none());
    }
}
