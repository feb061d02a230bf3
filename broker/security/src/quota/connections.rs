//! The rates of new connections (`SocketServer.ConnectionQuotas`): of the broker, of a listener and
//! of an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::rate::{Rate, Windows};

/// How many addresses there may be before they are looked through for the first time.
const ADDRESSES_UNSWEPT: usize = 1_000;

/// A connection that its listener has counted.
#[derive(Debug)]
#[must_use]
pub struct Arrival {
    /// For how many milliseconds the listener accepts nothing.
    pub wait_ms: u64,
    /// The listener, if it has a limit.
    listener: Option<String>,
    /// Whether the broker has counted it.
    by_broker: bool,
}

/// Counts new connections. A throttle is at most one window long.
#[derive(Debug)]
pub struct ConnectionRates {
    windows: Windows,
    broker: Rate,
    listeners: BTreeMap<String, Rate>,
    addresses: BTreeMap<IpAddr, Rate>,
    swept_at: usize,
}

impl ConnectionRates {
    /// None so far.
    pub fn new(windows: Windows) -> Self {
        Self {
            windows,
            broker: Rate::default(),
            listeners: BTreeMap::new(),
            addresses: BTreeMap::new(),
            swept_at: ADDRESSES_UNSWEPT,
        }
    }

    /// Counts a connection that is waiting to be accepted. A limit is
    /// `max.connection.creation.rate`; the listener of brokers has none of the broker's.
    pub fn arrive(
        &mut self,
        listener: &str,
        limit_of_broker: Option<f64>,
        limit_of_listener: Option<f64>,
        now_ms: u64,
    ) -> Arrival {
        let windows = self.windows;
        let of_broker = limit_of_broker.map(|limit| {
            self.broker.record(windows, 1.0, now_ms);
            self.broker.throttle_ms(windows, limit, now_ms)
        });
        let of_listener = limit_of_listener.map(|limit| {
            let rate = self.listeners.entry(listener.to_owned()).or_default();
            rate.record(windows, 1.0, now_ms);
            rate.throttle_ms(windows, limit, now_ms)
        });
        Arrival {
            wait_ms: of_broker.max(of_listener).unwrap_or(0).min(windows.length_ms),
            listener: of_listener.map(|_| listener.to_owned()),
            by_broker: of_broker.is_some(),
        }
    }

    /// Counts the connection for its address, once its listener has waited. If that is too many,
    /// returns for how many milliseconds it is held before it is closed; otherwise 0. If it is too
    /// many, it is not counted after all, for the broker and the listener neither.
    pub fn admit(
        &mut self,
        arrival: Arrival,
        address: IpAddr,
        limit: Option<f64>,
        now_ms: u64,
    ) -> u64 {
        let Some(limit) = limit else { return 0 };
        let windows = self.windows;
        if self.addresses.len() >= self.swept_at {
            self.addresses.retain(|_, rate| !rate.is_idle(windows, now_ms));
            self.swept_at = ADDRESSES_UNSWEPT.max(2 * self.addresses.len());
        }
        let rate = self.addresses.entry(address.to_canonical()).or_default();
        rate.record(windows, 1.0, now_ms);
        let throttle_ms = rate.throttle_ms(windows, limit, now_ms).min(windows.length_ms);
        if throttle_ms > 0 {
            rate.record(windows, -1.0, now_ms);
            if arrival.by_broker {
                self.broker.record(windows, -1.0, now_ms);
            }
            if let Some(rate) = arrival.listener.and_then(|name| self.listeners.get_mut(&name)) {
                rate.record(windows, -1.0, now_ms);
            }
        }
        throttle_ms
    }
}
