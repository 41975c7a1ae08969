//! The emulator as a program.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use hub_emulator::{
    Attestation, Authority, Config, ConnectionLimits, DpsConfig, Emulator, Enrollment, Error, HubConfig, Key,
    LedgerMode, Rate, control_help, serve_control,
};
#[cfg(unix)]
use hub_emulator::{Hub, WorkloadApi};
use tokio::time::sleep;

/// A local IoT Hub and Device Provisioning Service for tests and for development without a cloud.
///
/// It serves DPS and any number of hubs over TLS with certificates of its own CA, injects faults on request, and
/// records every message that arrives.
#[derive(Debug, Parser)]
#[command(version, after_long_help = routes())]
struct Arguments {
    /// Name of a hub; may be given several times. Without a dot, `.azure-devices.net` is added.
    #[arg(long = "hub", value_name = "NAME", default_values = ["hub-a", "hub-b"])]
    hubs: Vec<String>,
    /// Registers a device at the first hub, `ID` with a random key or `ID=BASE64KEY`; may be given several times.
    #[arg(long = "device", value_name = "ID[=KEY]", default_values = ["device-1"])]
    devices: Vec<String>,
    /// Enrollment group, `NAME` with a random key or `NAME=BASE64KEY`, assigned to the first hub.
    #[arg(long = "group", value_name = "NAME[=KEY]", default_values = ["group-1"])]
    groups: Vec<String>,
    /// Individual enrollment, `ID` with a random key or `ID=BASE64KEY`, assigned to the first hub.
    #[arg(long = "enroll", value_name = "ID[=KEY]")]
    individuals: Vec<String>,
    /// Individual enrollment of a device with a TPM, by its public endorsement key (`TPM2B_PUBLIC`): `ID=BASE64KEY`,
    /// assigned to the first hub. The device registers on the HTTPS port.
    #[arg(long = "tpm", value_name = "ID=KEY")]
    tpms: Vec<String>,
    /// Registers a module at the first hub, and serves the workload API of its Edge device on a Unix socket:
    /// `DEVICE/MODULE=SOCKET`; may be given several times. Its gateway is `localhost`.
    #[cfg(unix)]
    #[arg(long = "edge-module", value_name = "DEVICE/MODULE=SOCKET")]
    edge_modules: Vec<String>,
    /// Id scope of DPS.
    #[arg(long, value_name = "TEXT", default_value = "0ne00EMULATOR")]
    id_scope: String,
    /// Host name of DPS.
    #[arg(long, value_name = "NAME", default_value = "global.azure-devices-provisioning.net")]
    dps_host: String,
    /// TLS port of all services; 0 picks a free port.
    #[arg(long, value_name = "PORT", default_value_t = 8883)]
    port: u16,
    /// Port without TLS, for firmware without TLS; 0 picks a free port.
    #[arg(long, value_name = "PORT")]
    plain_port: Option<u16>,
    /// HTTPS port for file uploads and MQTT over WebSockets; the real services use 443; 0 picks a free port.
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// Host name of the storage account for file uploads.
    #[arg(long, value_name = "NAME", default_value = "emulator.blob.core.windows.net")]
    storage_host: String,
    /// Port of the control API, always on 127.0.0.1; 0 picks a free port.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    control_port: u16,
    /// Address of the TLS, plain and HTTPS ports. Use 0.0.0.0 to accept devices in your network.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Another name of this machine; may be given several times. Certificates are valid for it.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Folder for `ca.pem` and `ca-key.pem`. The next run uses the same CA, so devices keep trusting it.
    #[arg(long, value_name = "FOLDER")]
    ca_dir: Option<PathBuf>,
    /// Writes the CA certificate, without its key, to this file.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// New connections per second of each hub, with burst and queue: `100,50,200`.
    #[arg(long, value_name = "RATE,BURST,QUEUE", value_parser = parse_rate)]
    admission: Option<Rate>,
    /// Telemetry messages per second of each hub, with burst and queue.
    #[arg(long, value_name = "RATE,BURST,QUEUE", value_parser = parse_rate)]
    telemetry: Option<Rate>,
    /// Connections without an accepted CONNECT that one peer address may have; beyond it, its oldest is closed. Half of
    /// the limit of open files by default.
    #[arg(long, value_name = "COUNT")]
    unauthenticated_per_peer: Option<usize>,
    /// Connections without an accepted CONNECT that all peers together may have. Three quarters of the limit of open
    /// files by default.
    #[arg(long, value_name = "COUNT")]
    unauthenticated_total: Option<usize>,
    /// Seconds from accepting TCP to a complete CONNECT.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    handshake_timeout: u32,
    /// Keeps only counts of telemetry, so that memory stays bounded.
    #[arg(long)]
    counts_only: bool,
    /// Stops after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    run_for: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let keyed = |texts: &[String]| texts.iter().map(|text| parse_keyed(text)).collect::<Result<Vec<_>, _>>();
    let (devices, groups) = (keyed(&arguments.devices)?, keyed(&arguments.groups)?);
    let individuals = keyed(&arguments.individuals)?;
    let dps = DpsConfig::new().id_scope(&arguments.id_scope).host(&arguments.dps_host);
    let mut config = Config::new().tls_port(arguments.port).bind(arguments.bind).dps(dps);
    for (number, name) in arguments.hubs.iter().enumerate() {
        let mut hub = HubConfig::new(name);
        if let Some(rate) = arguments.admission {
            hub = hub.admission(rate);
        }
        if let Some(rate) = arguments.telemetry {
            hub = hub.telemetry(rate);
        }
        for (id, key) in devices.iter().filter(|_| number == 0) {
            hub = hub.device(id, key.clone());
        }
        config = config.hub_with(hub);
    }
    for (name, key) in &groups {
        config = config.enroll(Enrollment::group(name, key.clone()));
    }
    for (id, key) in &individuals {
        config = config.enroll(Enrollment::individual(id, key.clone()));
    }
    for text in &arguments.tpms {
        config = config.enroll(parse_tpm(text)?);
    }
    for name in &arguments.names {
        config = config.gateway_name(name);
    }
    config = config.connection_limits(connection_limits(&arguments));
    if let Some(port) = arguments.plain_port {
        config = config.plain_port(port);
    }
    config = config.storage_host(&arguments.storage_host);
    if let Some(port) = arguments.https_port {
        config = config.https_port(port);
    }
    if arguments.control_port != 0 {
        config = config.revocation_list(&format!("http://127.0.0.1:{}/ca.crl", arguments.control_port));
    }
    if arguments.counts_only {
        config = config.ledger(LedgerMode::Counts);
    }
    let mut ca_file = arguments.ca_file.clone();
    if let Some(folder) = &arguments.ca_dir {
        config = config.authority(kept_authority(folder)?);
        ca_file.get_or_insert_with(|| folder.join("ca.pem"));
    }
    if let Some(path) = &ca_file {
        config = config.ca_file(path);
    }
    let emulator = Emulator::start(config).await?;
    let control = serve_control(emulator.control(), arguments.control_port).await?;
    let first = emulator.hub(&arguments.hubs[0]);
    let mut text = format!("TLS      {}  (all services, selected by host name)\n", emulator.tls_addr());
    if let Some(address) = emulator.plain_addr() {
        text += &format!("plain    {address}  (no TLS)\n");
    }
    if let Some(address) = emulator.https_addr() {
        text += &format!("HTTPS    {address}  (file uploads to {}, WebSockets)\n", arguments.storage_host);
    }
    text += &format!("control  http://{control}  (GET / lists the routes)\n");
    text += &match &ca_file {
        Some(path) => format!("CA       {}\n", path.display()),
        None => format!("CA       curl -s http://{control}/ca.pem > ca.pem\n"),
    };
    for (id, key) in &devices {
        let key = key.to_base64();
        text += &format!("device   HostName={};DeviceId={id};SharedAccessKey={key}\n", first.host());
    }
    #[cfg(unix)]
    let _workload_apis = serve_workload_apis(&arguments.edge_modules, &emulator, &first, &mut text)?;
    text += &format!("DPS      {}  id scope {}\n", emulator.dps().host(), emulator.dps().id_scope());
    for (name, key) in &groups {
        text += &format!("group    {name}  key {}\n", key.to_base64());
    }
    for (id, key) in &individuals {
        text += &format!("enrolled {id}  key {}\n", key.to_base64());
    }
    text +=
        &format!("\nclients connect to {} under the host names above: add to the hosts file\n", emulator.tls_addr());
    text += &format!("  {} {} {}\n", display_ip(arguments.bind), emulator.dps().host(), emulator.hubs().join(" "));
    text += "\ntry\n";
    let fault = "{\"fault\":{\"kind\":\"drop-after-store-before-puback\"},\"hub\":\"";
    text += &format!("  curl -s http://{control}/faults -d '{fault}{}\"}}'\n", first.host());
    text += &format!("  curl -s http://{control}/messages\n");
    say(&text);
    let end = async {
        match arguments.run_for {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = end => {}
        () = emulator.stopped() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let total = emulator.ledger().total();
    say(&format!("{} messages stored, {} of them duplicates\n", total.stored, total.duplicates));
    emulator.stop().await;
    Ok(())
}

fn connection_limits(arguments: &Arguments) -> ConnectionLimits {
    let timeout = Duration::from_secs(arguments.handshake_timeout.into());
    let mut limits = ConnectionLimits::default().handshake_timeout(timeout);
    if let Some(count) = arguments.unauthenticated_per_peer {
        limits = limits.per_peer(count);
    }
    if let Some(count) = arguments.unauthenticated_total {
        limits = limits.total(count);
    }
    limits
}

/// Serves a workload API for each module, and adds to `text` the environment variables a module needs.
#[cfg(unix)]
fn serve_workload_apis(
    modules: &[String],
    emulator: &Emulator,
    hub: &Hub,
    text: &mut String,
) -> Result<Vec<WorkloadApi>, Error> {
    const GENERATION: &str = "638000000000000001";
    let mut served = Vec::new();
    for module in modules {
        let parts = module.split_once('=').and_then(|(id, socket)| Some((id, id.split_once('/')?, socket)));
        let Some((id, (device, name), socket)) = parts else {
            return Err(Error::Request(format!("{module:?} is not of the form DEVICE/MODULE=SOCKET")));
        };
        if !hub.device(device).exists() {
            hub.add_device(device, Key::random())?;
        }
        let key = Key::random();
        hub.add_device(id, key.clone())?;
        let api = WorkloadApi::start(socket, name, GENERATION, key, emulator.ca_pem())?;
        *text += &format!(
            "module   IOTEDGE_IOTHUBHOSTNAME={} IOTEDGE_DEVICEID={device} IOTEDGE_MODULEID={name} \\\n         \
             IOTEDGE_MODULEGENERATIONID={GENERATION} IOTEDGE_GATEWAYHOSTNAME=localhost IOTEDGE_AUTHSCHEME=sasToken \\\n         \
             IOTEDGE_APIVERSION=2020-07-07 IOTEDGE_WORKLOADURI={}\n",
            hub.host(),
            api.uri(),
        );
        served.push(api);
    }
    Ok(served)
}

/// Loads the authority of an earlier run, or creates and stores a new one.
fn kept_authority(folder: &Path) -> Result<Authority, Error> {
    let (certificate, key) = (folder.join("ca.pem"), folder.join("ca-key.pem"));
    if let (Ok(certificate), Ok(key)) = (std::fs::read_to_string(&certificate), std::fs::read_to_string(&key)) {
        return Authority::from_pem(&certificate, &key);
    }
    let authority = Authority::new()?;
    std::fs::create_dir_all(folder).map_err(|error| Error::Write(folder.to_owned(), error))?;
    write_secret(&key, authority.key_pem()).map_err(|error| Error::Write(key, error))?;
    std::fs::write(&certificate, authority.pem()).map_err(|error| Error::Write(certificate, error))?;
    Ok(authority)
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

fn parse_keyed(text: &str) -> Result<(String, Key), Error> {
    match text.split_once('=') {
        None => Ok((text.to_owned(), Key::random())),
        Some((name, key)) => {
            let key = Key::from_base64(key).map_err(|error| Error::Request(format!("{name}: {error}")))?;
            Ok((name.to_owned(), key))
        }
    }
}

fn parse_tpm(text: &str) -> Result<Enrollment, Error> {
    let parts = text.split_once('=').and_then(|(id, key)| Some((id, STANDARD.decode(key).ok()?)));
    let (id, endorsement_key) = parts.ok_or_else(|| Error::Request(format!("{text}: expected ID=BASE64KEY")))?;
    Ok(Enrollment::individual_with(id, Attestation::Tpm { endorsement_key }))
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let [rate, burst, queue] = parts[..] else {
        return Err("expected three numbers: RATE,BURST,QUEUE".to_owned());
    };
    let rate: f64 = rate.parse().map_err(|_| format!("{rate:?} is not a rate"))?;
    if !rate.is_finite() || rate <= 0.0 {
        return Err("the rate must be above 0".to_owned());
    }
    let whole = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is not a whole number"));
    Ok(Rate::new(rate, whole(burst)?, whole(queue)?))
}

fn display_ip(address: IpAddr) -> IpAddr {
    if address.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address }
}

fn routes() -> String {
    format!("Routes of the control API:\n{}", control_help())
}

#[expect(clippy::print_stdout, reason = "the program's output goes to standard output")]
fn say(text: &str) {
    print!("{text}");
}

fn say_error(error: &Error) {
    eprintln!("hub-emulator: {error}");
}
