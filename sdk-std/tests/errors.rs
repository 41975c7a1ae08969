//! Errors say each thing once: what an error shows is all there is to say, or its source goes on where it ends.

use std::error::Error;

use steadfast::{
    BuildError, ConfigError, ConnectionStringError, DeliveryError, Device, Dps, Failure, KeyError, LocalFailure,
    Message, ProxyError, ReportError, RespondError, SendError, TlsError, TlsFailure,
};

/// Prints the chain of an error, and checks that no level repeats what the one below says.
fn said_once(error: &(dyn Error + 'static)) -> String {
    let mut chain = error.to_string();
    let (mut above, mut next) = (chain.clone(), error.source());
    while let Some(below) = next {
        let text = below.to_string();
        assert!(!above.contains(&text), "{above:?} says {text:?} already");
        chain = format!("{chain}: {text}");
        (above, next) = (text, below.source());
    }
    chain
}

#[test]
fn each_chain_of_errors_says_everything_and_says_it_once() {
    let hub = || Device::builder().hub("contoso.azure-devices.net", "pump-7");
    let built = [
        Device::builder(),
        hub(),
        Device::builder().connection_string("HostName=a"),
        Device::builder().connection_string("HostName=a b;DeviceId=d;x509=true"),
        Device::builder().connection_string("HostName=a;DeviceId=d;SharedAccessKey=x"),
        hub().shared_key("x"),
        hub().anonymous(),
        Device::builder().provision_with(Dps::new("", "d")).shared_key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        Device::builder().hub("", "d").password("u", "p"),
        Device::builder().broker("a", "c").anonymous().tls(steadfast::Tls::without_system_roots()),
    ];
    for builder in built {
        let error = builder.build().expect_err("it is wrong");
        // Who prints the error alone learns what is wrong.
        assert_eq!(said_once(&error), error.to_string());
    }
    let (device, _driver) =
        Device::builder().broker("localhost", "c").anonymous().plaintext_unprotected().build().expect("it is right");
    let large = vec![0; 1 << 20];
    let refused = device.try_send(Message::to_topic("t", &large)).map(drop).expect_err("it is too large");
    assert!(said_once(&refused).contains("the limit is"), "{refused}");
    let others: [&(dyn Error + 'static); 19] = [
        &refused,
        &SendError::Stopped,
        &SendError::Full,
        &DeliveryError::DriverDropped,
        &ProxyError::Port,
        &BuildError::Proxy(ProxyError::Login),
        &BuildError::Tls(TlsError::NoRoots),
        &TlsError::Pem { what: String::from("a.pem"), problem: String::from("empty") },
        &TlsError::Unreadable { path: "a.pem".into(), problem: String::from("absent") },
        &ConnectionStringError::Empty,
        &BuildError::ConnectionString(ConnectionStringError::Service),
        &KeyError::Padding,
        &BuildError::Key(KeyError::Padding),
        &ReportError::Full,
        &RespondError::ConnectionLost,
        &Failure::Tls(TlsFailure::Expired),
        &Failure::Local(LocalFailure::Resources),
        &Failure::Reset,
        &ConfigError::Session(steadfast_core::SessionConfigError::Window(0)),
    ];
    for error in others {
        assert!(!said_once(error).is_empty());
    }
}

#[cfg(feature = "edge")]
#[test]
fn the_errors_of_a_module_say_everything_once() {
    use steadfast::{CallError, EnvironmentError, InvokeError, Variable};
    let string = ConnectionStringError::Empty;
    let errors: [&(dyn Error + 'static); 5] = [
        &EnvironmentError::ConnectionString(Variable::ConnectionString, string),
        &BuildError::Edge(EnvironmentError::ConnectionString(Variable::ConnectionString, string)),
        &InvokeError::Unfit(CallError::Payload),
        &InvokeError::Failed(Failure::Reset),
        &CallError::Payload,
    ];
    for error in errors {
        assert!(!said_once(error).is_empty());
    }
}

#[cfg(feature = "upload")]
#[test]
fn the_errors_of_uploads_say_everything_once() {
    for error in [steadfast::UploadError::NoHub, steadfast::UploadError::GaveUp(String::from("a"))] {
        assert!(!said_once(&error).is_empty());
    }
}
