//! The meaning of TLS errors.

use std::io;

use rustls::{AlertDescription, CertificateError};
use steadfast_core::TlsFailure;

/// Describes a TLS error for the log.
pub(crate) fn told(error: &io::Error) -> String {
    let text = error.to_string();
    if text.contains("UnsupportedCertVersion") {
        return String::from(
            "a certificate of the service is of X.509 version 1, which does not say what it is good for; make it with \
             extensions (openssl x509 -req -extfile, with subjectAltName and basicConstraints)",
        );
    }
    text
}

/// Converts an error to a TLS failure, if it is one. `shown`: the device presented a certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "other errors are faults of the handshake")]
pub(crate) fn failure(error: &io::Error, shown: bool) -> Option<TlsFailure> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(error) => certificate_failure(error),
        rustls::Error::AlertReceived(alert) => alert_failure(*alert, shown),
        rustls::Error::PeerIncompatible(_) => TlsFailure::Incompatible,
        rustls::Error::InvalidMessage(_) | rustls::Error::DecryptError | rustls::Error::PeerSentOversizedRecord => {
            TlsFailure::Garbled
        }
        _ => TlsFailure::Handshake,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "other errors are faults of the certificate")]
fn certificate_failure(error: &CertificateError) -> TlsFailure {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFailure::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFailure::NotYetValid,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsFailure::WrongName,
        CertificateError::UnknownIssuer => TlsFailure::UnknownIssuer,
        CertificateError::BadSignature => TlsFailure::BadSignature,
        CertificateError::Revoked => TlsFailure::Revoked,
        _ => TlsFailure::BadCertificate,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "other alerts are reported by their number")]
fn alert_failure(alert: AlertDescription, shown: bool) -> TlsFailure {
    match alert {
        // RFC 8446, section 6.2: sent if a certificate was requested and none was presented.
        AlertDescription::CertificateRequired => TlsFailure::ClientCertificateRefused,
        // RFC 8446, section 6.2, and RFC 5246, section 7.2.2: about the presented certificate; a TLS 1.2 server may
        // send handshake_failure or access_denied as well.
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError
        | AlertDescription::HandshakeFailure
            if shown =>
        {
            TlsFailure::ClientCertificateRefused
        }
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity => TlsFailure::Incompatible,
        other => TlsFailure::Alert(other.into()),
    }
}
