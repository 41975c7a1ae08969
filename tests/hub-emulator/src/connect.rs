//! Authentication of CONNECT, and the start of a session.

use std::time::Duration;

use rumqttc::mqttbytes::Protocol;
use rumqttc::mqttbytes::v4::Connect;
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;

use crate::config::{DeviceAuth, HubConfig};
use crate::connections::{CloseReason, Refusal};
use crate::device::{Device, Live, Push};
use crate::dps::Credentials;
use crate::dps_session::{DpsSession, refuses_connect};
use crate::operations::Operation;
use crate::sas::{Token, covers, same_resource};
use crate::session::HubSession;
use crate::topic::{Query, UserName, resource};
use crate::world::World;

/// Longest silence of any client: the idle timeout of the load balancer of the real service.
const LONGEST_SILENCE: Duration = Duration::from_secs(1767);

/// The client's properties before CONNECT.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) server_name: Option<String>,
    /// The service whose own port the client connected to.
    pub(crate) own: Option<String>,
}

/// The service and the identity in a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Host name of the hub or of DPS; empty when the user name cannot be read.
    pub(crate) service: String,
    /// Device, module or registration id; the client id when the user name cannot be read.
    pub(crate) id: String,
    /// The further members of the user name.
    pub(crate) query: Query,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Hub,
    Dps { id_scope: String },
    Unreadable,
}

impl Claim {
    pub(crate) fn read(connect: &Connect, dps_host: &str) -> Self {
        let user_name = connect.login.as_ref().map_or("", |login| login.username.as_str());
        match UserName::parse(user_name) {
            Some(UserName::Hub { host, identity, query }) => {
                Self { service: host.to_ascii_lowercase(), id: identity.to_owned(), query, kind: Kind::Hub }
            }
            Some(UserName::Dps { id_scope, registration_id, query }) => Self {
                service: dps_host.to_owned(),
                id: registration_id.to_owned(),
                query,
                kind: Kind::Dps { id_scope: id_scope.to_owned() },
            },
            None => Self {
                service: String::new(),
                id: connect.client_id.clone(),
                query: Query::default(),
                kind: Kind::Unreadable,
            },
        }
    }

    pub(crate) fn is_dps(&self) -> bool {
        matches!(self.kind, Kind::Dps { .. })
    }
}

/// A new session.
#[derive(Debug)]
pub(crate) enum Session {
    Hub(HubSession),
    Dps(DpsSession),
}

/// The initial state of a session.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) session: Session,
    pub(crate) session_present: bool,
    /// Longest silence of the client.
    pub(crate) silence: Duration,
    /// When the connection closes because its token has expired, in Unix seconds.
    pub(crate) ends_unix: Option<u64>,
    /// The operations of its start, for the operation log.
    pub(crate) notes: Vec<Operation>,
}

/// Checks CONNECT and starts the session; a hub sends instructions to the connection through `pushes`.
pub(crate) fn begin(
    world: &mut World,
    claim: &Claim,
    connect: &Connect,
    peer: &Peer,
    connection: u64,
    pushes: mpsc::Sender<Push>,
    unix: u64,
) -> Result<Start, Refusal> {
    if connect.protocol != Protocol::V4 {
        return Err(Refusal::ProtocolLevel);
    }
    if claim.kind == Kind::Unreadable {
        return Err(Refusal::UserName);
    }
    if !reaches(world, claim, peer) {
        return Err(Refusal::WrongHub);
    }
    let password = connect.login.as_ref().map_or("", |login| login.password.as_str());
    let credentials = Credentials { password, certificates: &peer.certificates, unix };
    match &claim.kind {
        Kind::Unreadable => Err(Refusal::UserName),
        _ if claim.query.api_version.is_none() => Err(Refusal::NoApiVersion),
        _ if connect.client_id != claim.id => Err(Refusal::ClientId),
        Kind::Dps { id_scope } => {
            let verified = world.dps.verify(id_scope, &claim.id, &credentials);
            if let Err(refusal) = verified
                && refuses_connect(&world.dps, refusal)
            {
                return Err(refusal);
            }
            let registration_id = claim.id.clone();
            let session = Session::Dps(DpsSession { registration_id, verified, subscribed: false, unix });
            Ok(Start { session, session_present: false, silence: silence(connect), ends_unix: None, notes: Vec::new() })
        }
        Kind::Hub => begin_hub(world, claim, connect, &credentials, connection, pushes),
    }
}

/// Returns whether the TLS server name matches the requested service.
fn reaches(world: &World, claim: &Claim, peer: &Peer) -> bool {
    let exists = claim.is_dps() || world.hubs.contains_key(&claim.service);
    let leads = |name: &String| *name == claim.service || world.gateways.contains(name);
    exists && peer.server_name.as_ref().is_none_or(leads) && peer.own.as_ref().is_none_or(|own| *own == claim.service)
}

fn begin_hub(
    world: &mut World,
    claim: &Claim,
    connect: &Connect,
    credentials: &Credentials<'_>,
    connection: u64,
    pushes: mpsc::Sender<Push>,
) -> Result<Start, Refusal> {
    let hub = world.hubs.get_mut(&claim.service).ok_or(Refusal::WrongHub)?;
    let config = &hub.config;
    let parent = claim.id.split_once('/').and_then(|(device, _)| hub.devices.get(device));
    let parent_enabled = parent.is_none_or(|device| device.enabled);
    let device = hub.devices.get_mut(&claim.id).ok_or(Refusal::Unknown)?;
    if !device.enabled || !parent_enabled {
        return Err(Refusal::Disabled);
    }
    let expiry = check_device(config, &claim.id, device, credentials)?;
    if let Some(older) = device.live.take() {
        // A full channel means that the older connection does not read; its task closes it when it sees the newer one.
        let _ = older.pushes.try_send(Push::Close { reason: CloseReason::TakenOver, reset: false });
    }
    let keeps = config.keep_sessions && !connect.clean_session;
    let session_present = keeps && device.has_session;
    if !session_present {
        device.subscriptions.clear();
        device.inbox.forget_deliveries();
    }
    let mut notes = Vec::new();
    if connect.clean_session && config.clean_session_drops_c2d {
        device.inbox.purge(&mut notes);
    }
    device.user_query = claim.query.clone();
    device.has_session = keeps;
    device.ever_connected = true;
    device.calls.clear();
    device.live = Some(Live { connection, pushes });
    let session = HubSession {
        host: claim.service.clone(),
        identity: claim.id.clone(),
        connection,
        clean_session: connect.clean_session,
        will: connect.last_will.clone(),
        half_open: false,
        held: Vec::new(),
    };
    let ends_unix = expiry.map(|expiry| expiry.saturating_add(config.sas_grace.as_secs()));
    Ok(Start { session: Session::Hub(session), session_present, silence: silence(connect), ends_unix, notes })
}

/// Checks the credentials of a device; returns the expiry of its token if it used one.
pub(crate) fn check_device(
    config: &HubConfig,
    id: &str,
    device: &Device,
    credentials: &Credentials<'_>,
) -> Result<Option<u64>, Refusal> {
    match &device.auth {
        DeviceAuth::Keys { primary, secondary } => {
            let token = Token::parse(credentials.password).ok_or(Refusal::NoToken)?;
            let (wanted, named) = (resource(&config.host, id), token.resource());
            let signed = match &token.policy {
                // A token of a hub policy covers every resource below the one it names.
                Some(policy) => {
                    if !covers(&named, &wanted) {
                        return Err(Refusal::WrongResource);
                    }
                    config.policies.iter().any(|(name, key)| name == policy && token.is_signed_with(key))
                }
                None => {
                    if !same_resource(&named, &wanted) {
                        return Err(Refusal::WrongResource);
                    }
                    std::iter::once(primary).chain(secondary).any(|key| token.is_signed_with(key))
                }
            };
            if !signed {
                return Err(Refusal::BadSignature);
            }
            if token.expiry.saturating_add(config.sas_tolerance.as_secs()) < credentials.unix {
                return Err(Refusal::Expired);
            }
            Ok(Some(token.expiry))
        }
        DeviceAuth::Thumbprint { primary, secondary } => {
            let leaf = credentials.certificates.first().ok_or(Refusal::BadCertificate)?;
            let thumbprint = crate::pki::thumbprint(leaf);
            let fits = std::iter::once(primary).chain(secondary).any(|one| one.eq_ignore_ascii_case(&thumbprint));
            if fits { Ok(None) } else { Err(Refusal::BadCertificate) }
        }
        DeviceAuth::CertificateAuthority { pem, common_name } => {
            let leaf = credentials.certificates.first().ok_or(Refusal::BadCertificate)?;
            let wanted = common_name.as_deref().unwrap_or(id);
            let named = crate::pki::common_name(leaf).is_some_and(|name| name == wanted);
            if named && crate::pki::is_signed_by(credentials.certificates, pem, credentials.unix) {
                Ok(None)
            } else {
                Err(Refusal::BadCertificate)
            }
        }
    }
}

fn silence(connect: &Connect) -> Duration {
    match connect.keep_alive {
        0 => LONGEST_SILENCE,
        seconds => Duration::from_millis(u64::from(seconds) * 1500).min(LONGEST_SILENCE),
    }
}
