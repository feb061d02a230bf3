//! The token bucket of changes of topics (KIP-599, `TokenBucket`, `ControllerMutationQuota`).

use super::rate::Windows;

/// Tokens that come at the rate of the quota. What takes more than there are still passes once;
/// then the bucket is below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenBucket {
    tokens: f64,
    /// `None` before the first use, when the bucket is full.
    filled_at_ms: Option<u64>,
}

impl TokenBucket {
    /// How many tokens there are.
    pub fn tokens(&mut self, windows: Windows, rate: f64, now_ms: u64) -> f64 {
        let full = f64::from(windows.count) * windows.seconds() * rate;
        self.tokens = match self.filled_at_ms {
            None => full,
            Some(then_ms) => {
                let seconds = now_ms.saturating_sub(then_ms) as f64 / 1_000.0;
                full.min(self.tokens + rate * seconds)
            }
        };
        self.filled_at_ms = Some(now_ms.max(self.filled_at_ms.unwrap_or(0)));
        self.tokens
    }

    /// Takes tokens, however many there are.
    pub fn take(&mut self, windows: Windows, rate: f64, tokens: f64, now_ms: u64) {
        let full = f64::from(windows.count) * windows.seconds() * rate;
        self.tokens = full.min(self.tokens(windows, rate, now_ms) - tokens);
    }

    /// How long until it is no longer below zero, in milliseconds; 0 if it is not.
    pub fn throttle_ms(&mut self, windows: Windows, rate: f64, now_ms: u64) -> u64 {
        let tokens = self.tokens(windows, rate, now_ms);
        if tokens >= 0.0 {
            return 0;
        }
        let throttle = (-tokens / rate * 1_000.0 + 0.5).floor();
        throttle.clamp(0.0, f64::from(i32::MAX)) as u64
    }
}

/// The changes of one request. Each topic is counted by itself, by the partitions that it creates
/// or deletes.
#[derive(Clone, Copy, Debug)]
pub struct Mutations {
    windows: Windows,
    rate: f64,
    /// Whether the client understands THROTTLING_QUOTA_EXCEEDED (89): CreateTopics from version 6,
    /// DeleteTopics from 5, CreatePartitions from 3 on. Changes of others are carried out.
    strict: bool,
    throttle: Option<(u64, u64)>,
}

impl Mutations {
    /// A request under a quota of `rate` partitions a second.
    pub fn new(windows: Windows, rate: f64, strict: bool) -> Self {
        Self { windows, rate, strict, throttle: None }
    }

    /// Counts one change, and returns whether it may be carried out; if not, nothing is counted.
    pub fn admit(&mut self, bucket: &mut TokenBucket, partitions: u32, now_ms: u64) -> bool {
        let (windows, rate) = (self.windows, self.rate);
        if !self.strict {
            bucket.take(windows, rate, f64::from(partitions), now_ms);
        }
        let throttle_ms = bucket.throttle_ms(windows, rate, now_ms);
        if throttle_ms > 0 {
            self.throttle = Some((throttle_ms, now_ms));
            return !self.strict;
        }
        if self.strict {
            bucket.take(windows, rate, f64::from(partitions), now_ms);
        }
        true
    }

    /// How long the client is to be throttled when it is answered, in milliseconds.
    pub fn throttle_ms(&self, now_ms: u64) -> u64 {
        self.throttle.map_or(0, |(throttle_ms, since_ms)| {
            throttle_ms.saturating_sub(now_ms.saturating_sub(since_ms))
        })
    }
}
