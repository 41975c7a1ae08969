//! The scenarios, by theme.

mod bursts;
mod clock;
mod delivery;
mod edge;
mod herd;
mod hostile_input;
mod https;
mod identities;
mod inbound;
mod keep_alive;
mod lifecycle;
mod migration;
mod outbox;
mod priorities;
mod provisioning;
mod reconnection;
mod renewal;
mod services;
mod shutdown;
mod status;
mod telemetry;
mod transports;
mod uploads;
